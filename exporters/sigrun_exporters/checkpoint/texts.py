"""The tokenizer of a checkpoint folder: which file holds it, and the rules around it.

A text becomes its pieces, one end mark, and padding to the full context: that is how every SigLIP was trained, so a
folder that asks for anything else is refused. What is done to a text first is the layout's own
(:mod:`sigrun.canonical`).
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sigrun.canonical import Canonicalisation
from sigrun.errors import CheckpointError
from sigrun.spm import BYTE, NORMAL, TokenizerSpec
from sigrun_exporters.checkpoint.config import Config
from sigrun_exporters.checkpoint.files import read_bytes, read_json
from sigrun_exporters.tokenizer import read_spiece, read_tokenizer_json
from sigrun_recipes import TextTower

CONFIG = "tokenizer_config.json"
JSON = "tokenizer.json"
MODELS = ("spiece.model", "tokenizer.model")
SIGLIP = ("SiglipTokenizer", "SiglipTokenizerFast")
GEMMA = ("GemmaTokenizer", "GemmaTokenizerFast", "Siglip2Tokenizer", "Siglip2TokenizerFast")
T5 = ("T5Tokenizer", "T5TokenizerFast")
ANY = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes that do what ``tokenizer.json`` says and nothing else."""
_EXTRA = re.compile(r"▁?<[\w-]+>")  # of vocabularies made for several models, such as <extra_id_0>


def of_huggingface(folder: Path, tower: TextTower) -> tuple[TokenizerSpec, str]:
    """The tokenizer of a ``SiglipModel`` folder, and the file it was read from.

    SiglipTokenizer brings its canonicalisation along. Texts of SigLIP 2 were lower-cased before their tokenizer,
    Gemma's, saw them; its class does that in some versions of transformers and not in others, and its files need
    not say it. So it is done unless ``do_lower_case`` is false.

    Raises:
        CheckpointError: a file is missing or damaged, or of a tokenizer that no SigLIP has.
    """
    config = _config(folder)
    kind = config.data.get("tokenizer_class")
    if kind not in SIGLIP + GEMMA:
        raise config.fail(
            "tokenizer_class", f"is {kind!r}; Sigrun reads SiglipTokenizer and, for SigLIP 2, GemmaTokenizer"
        )
    lower = config.data.get("do_lower_case", True)
    how: Canonicalisation = "hf" if kind in SIGLIP else "lower" if lower else "none"
    if kind in SIGLIP and lower is not True:
        raise config.fail("do_lower_case", f"is {lower!r}; SigLIP was trained on lower-case texts")
    return _read(folder, tower, config, how)


def of_openclip(folder: Path, tower: TextTower) -> tuple[TokenizerSpec, str]:
    """The tokenizer of an OpenCLIP folder whose ``clean`` is ``canonicalize``, and the file it was read from.

    Raises:
        CheckpointError: a file is missing or damaged, or of a tokenizer that no SigLIP has.
    """
    config = _config(folder)
    kind = config.data.get("tokenizer_class")
    if kind not in SIGLIP + GEMMA + T5 + ANY:
        raise config.fail(
            "tokenizer_class", f"is {kind!r}; SigLIP's are {', '.join(T5 + GEMMA)}", hint="this may be a CLIP"
        )
    return _read(folder, tower, config, "openclip")


def _config(folder: Path) -> Config:
    return Config(
        read_json(folder, CONFIG, f"{CONFIG} and one of {', '.join((*MODELS, JSON))}"), str(folder / CONFIG)
    )


def _read(folder: Path, tower: TextTower, config: Config, how: Canonicalisation) -> tuple[TokenizerSpec, str]:
    gemma = config.data.get("tokenizer_class") in GEMMA
    eos = _mark(config, "eos_token", "<eos>" if gemma else "</s>")
    pad = _mark(config, "pad_token", "<pad>" if gemma else "</s>")
    bos = _mark(config, "bos_token", "<bos>")
    side = config.data.get("padding_side", "right")
    if side != "right":
        raise config.fail("padding_side", f"is {side!r}; SigLIP's texts were padded on the right")
    shared: dict[str, Any] = {"canonicalisation": how, "context": tower.context, "eos_id": eos, "pad_id": pad}
    name = next((n for n in (*MODELS, JSON) if (folder / n).exists()), None)
    if name is None:
        raise CheckpointError(f"{folder}: has no tokenizer: none of {', '.join((*MODELS, JSON))}")
    data = read_bytes(folder / name, "the tokenizer")
    try:
        if name == JSON:
            spec = read_tokenizer_json(data, **shared, control=(bos,))
        else:
            spec = read_spiece(data, **shared, file=name)
    except CheckpointError as error:
        raise error.at(str(folder)) from error
    _only_eos_is_added(config, folder, eos, data if name == JSON else None)
    return _fitted(spec, tower, folder / name), name


def _mark(config: Config, key: str, default: str) -> str:
    """A special token's text; configs hold it as such or as an object."""
    value = config.data.get(key)
    if isinstance(value, dict):
        value = value.get("content")
    if value is None:
        return default
    if not isinstance(value, str):
        raise config.fail(key, f"must be a token, not {value!r}")
    return value


def _only_eos_is_added(config: Config, folder: Path, eos: str, tokenizer_json: bytes | None) -> None:
    """Each text must end with the end mark and begin with none: said by the config, else by ``tokenizer.json``."""
    begins = config.data.get("add_bos_token")
    ends = config.data.get("add_eos_token")
    if begins is None and ends is None and tokenizer_json is not None:
        added = _template(tokenizer_json)
        if added is not None and added != ["", eos]:
            raise CheckpointError(
                f"{folder / JSON}: puts {added!r} around a text ('' is the text); SigLIP's has {eos!r} behind it"
            )
        return
    if begins:
        raise config.fail("add_bos_token", "is true; SigLIP's texts have no mark before them")
    if ends is False:
        raise config.fail("add_eos_token", "is false; SigLIP's texts have an end mark behind them")


def _template(tokenizer_json: bytes) -> list[str] | None:
    """What ``tokenizer.json`` puts around a text, which itself is ''; none if it does not say."""
    step = json.loads(tokenizer_json).get("post_processor")
    steps = step.get("processors", [step]) if isinstance(step, dict) else []
    for each in steps if isinstance(steps, list) else []:
        if isinstance(each, dict) and isinstance(each.get("single"), list):
            return [
                str(item["SpecialToken"].get("id")) if isinstance(item.get("SpecialToken"), dict) else ""
                for item in each["single"]
                if isinstance(item, dict)
            ]
    return None


def _fitted(spec: TokenizerSpec, tower: TextTower, path: Path) -> TokenizerSpec:
    """The tokenizer without pieces that the token table has no row for."""
    rows, count = tower.vocabulary, len(spec.pieces)
    if count <= rows:
        return spec
    needed = [i for i in range(rows, count) if _is_needed(spec.pieces, int(spec.types[i]), i)]
    if needed or max(spec.eos_id, spec.pad_id, spec.unk_id) >= rows:
        raise CheckpointError(
            f"{path}: has {count} pieces, but the token table only {rows} rows",
            hint="the tokenizer may be another model's",
        )
    return dataclasses.replace(
        spec, pieces=spec.pieces[:rows], scores=spec.scores[:rows], types=spec.types[:rows]
    )


def _is_needed(pieces: Sequence[str], kind: int, i: int) -> bool:
    return kind in (NORMAL, BYTE) and not _EXTRA.fullmatch(pieces[i])
