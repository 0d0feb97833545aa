"""Writes tests/data/gemma_style: a small tokenizer of the kind that SigLIP 2 has, as its folders hold it.

SentencePiece trains it with Gemma's settings on the project's own texts, and transformers converts it. Run it with
the reference environment: python -m tests.reference.make_gemma_style
"""

from __future__ import annotations

import gzip
import io
import json
import tempfile
from pathlib import Path

import sentencepiece
from transformers import GemmaTokenizerFast

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data" / "gemma_style"
SYMBOLS = [
    "<mask>",
    "<2mass>",
    "[@BOS@]",
    "<unused0>",
    "<unused1>",
    "<start_of_turn>",
    "<end_of_turn>",
    *("\n" * n for n in range(1, 6)),
    *("▁" * n for n in range(2, 8)),
    "<table>",
    "</table>",
    "<h1>",
    "<code>",
]
PIECES = 1400


def corpus() -> list[str]:
    """Lines of prose and code, as they are and in lower case; no tabs, of which Gemma has no piece but a byte."""
    files = [ROOT / "README.md", ROOT / "docs" / "format.md", ROOT / "CONTRIBUTING.md", Path(__file__)]
    lines = [line for file in files for line in file.read_text("utf-8").splitlines() if line.strip()]
    cases = json.loads((ROOT / "tests" / "data" / "tokenizer_cases.json").read_text("utf-8"))["cases"]
    lines += [case["query"] for case in cases if case["query"].strip()]
    lines = [line.replace("\t", " ") for line in lines]
    return lines + [line.lower() for line in lines]


def main() -> None:
    """Train, convert, write."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(corpus()),
        model_writer=model,
        model_type="bpe",
        vocab_size=PIECES,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        user_defined_symbols=SYMBOLS,
        character_coverage=0.999,
        num_threads=1,
        minloglevel=2,
    )
    DATA.mkdir(exist_ok=True)
    (DATA / "tokenizer.model").write_bytes(model.getvalue())
    tokenizer = GemmaTokenizerFast(
        str(DATA / "tokenizer.model"),
        add_bos_token=False,
        add_eos_token=True,
        padding_side="right",
        model_input_names=["input_ids"],
        model_max_length=64,
    )
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        converted = Path(folder, "tokenizer.json").read_bytes()
        (DATA / "tokenizer.json.gz").write_bytes(gzip.compress(converted, mtime=0))
        config = json.loads(Path(folder, "tokenizer_config.json").read_text("utf-8"))
    (DATA / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
