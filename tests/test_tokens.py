"""Texts to token ids, and the SentencePiece model that is written by hand."""

from __future__ import annotations

import dataclasses
import importlib
import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigrun.errors import ArtifactError, CheckpointError, TextError
from sigrun.spm import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, TokenizerSpec, model_proto
from sigrun.tokens import Tokenizer
from sigrun_exporters.tokenizer import read_spiece, read_tokenizer_json
from tests import checkpoints
from tests.real_tokenizer import DATA, real_spec, real_tokenizer, tokenizer_json

CASES = json.loads((DATA / "tokenizer_cases.json").read_text(encoding="utf-8"))["cases"]
REFERENCE = json.loads((DATA / "inputs_reference.json").read_text(encoding="utf-8"))["cases"]
READ: dict[str, Any] = {"canonicalisation": "hf", "context": 64, "eos_id": 1, "pad_id": 1}


def small_spec(**changes: Any) -> TokenizerSpec:
    """A tokenizer of a few pieces without normalization rules or byte fallback."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", "a", "b", "▁a", "ab", "▁ab"]
    fields: dict[str, Any] = {
        "pieces": pieces,
        "scores": np.array([0, 0, 0, -5, -4, -4, -3, -3, -2], np.float32),
        "types": np.array([CONTROL, CONTROL, UNKNOWN] + [NORMAL] * 6, np.int32),
        "charsmap": b"",
        "add_dummy_prefix": True,
        "remove_extra_whitespaces": True,
        "escape_whitespaces": True,
        "byte_fallback": False,
        "unk_id": 2,
        "eos_id": 1,
        "pad_id": 0,
        "canonicalisation": "none",
        "context": 6,
    }
    return TokenizerSpec(**(fields | changes))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_published_cases(case: dict[str, Any]) -> None:
    found = real_tokenizer().encode([case["query"]])
    expected = (case["ids"][:63] + [1] * 64)[:64]
    assert found.ids[0].tolist() == expected
    assert found.ids.dtype == np.int64


@pytest.mark.parametrize(
    "case", REFERENCE, ids=[case["text"][:20].encode("ascii", "replace") for case in REFERENCE]
)
def test_ids_are_those_of_transformers(case: dict[str, Any]) -> None:
    assert real_tokenizer().encode([case["text"]]).ids[0].tolist() == case["ids"]


def test_rows_stand_for_themselves() -> None:
    texts = [case["query"] for case in CASES]
    together = real_tokenizer().encode(texts)
    assert together.ids.shape == (len(texts), 64)
    assert together.cut.shape == (len(texts),)
    for row, text in enumerate(texts):
        assert (real_tokenizer().encode([text]).ids[0] == together.ids[row]).all()


def test_a_text_that_fills_the_context_is_not_cut() -> None:
    tokenizer = Tokenizer(small_spec())
    found = tokenizer.encode(["ab", "ab ab ab ab ab", "ab ab ab ab ab ab", "ab ab ab ab"])
    assert found.ids.tolist() == [
        [8, 1, 0, 0, 0, 0],
        [8, 8, 8, 8, 8, 1],
        [8, 8, 8, 8, 8, 1],
        [8, 8, 8, 8, 1, 0],
    ]
    assert found.cut.tolist() == [False, False, True, False]


def test_no_texts() -> None:
    found = real_tokenizer().encode([])
    assert found.ids.shape == (0, 64)
    assert found.cut.shape == (0,)


def test_control_pieces_in_a_text_are_characters() -> None:
    ids = real_tokenizer("none").encode(["a </s> b <pad> <unk> <0x41>"]).ids[0].tolist()
    end = ids.index(1)
    assert set(ids[end:]) == {1}
    assert not {0, 2} & set(ids)
    assert end > 8


def test_none_takes_the_text_as_it_is() -> None:
    plain, shouted = real_tokenizer("none").encode(["a cat", "A CAT!"]).ids
    assert (plain != shouted).any()


def test_openclip_splits_at_underscores() -> None:
    found = real_tokenizer("openclip").encode(["golden_retriever", "golden retriever"]).ids
    assert (found[0] == found[1]).all()


def test_flags_reach_sentencepiece() -> None:
    bare = Tokenizer(small_spec(add_dummy_prefix=False))
    assert bare.encode(["ab"]).ids[0].tolist() == [7, 1, 0, 0, 0, 0]
    wide = Tokenizer(small_spec(remove_extra_whitespaces=False))
    assert wide.encode(["ab  ab"]).ids[0].tolist() == [8, 3, 8, 1, 0, 0]
    assert Tokenizer(small_spec()).encode(["z"]).ids[0].tolist() == [3, 2, 1, 0, 0, 0]


@pytest.mark.parametrize("text", ["", " ", "\t\n", "!?", "...", "\u2028"])
def test_empty_texts_are_refused_by_number(text: str) -> None:
    with pytest.raises(TextError, match="text 1 "):
        real_tokenizer().encode(["a", text])


@pytest.mark.parametrize("text", [None, 3, b"cat", ["a"]])
def test_only_texts_are_texts(text: Any) -> None:
    with pytest.raises(TextError, match=r"text 0 is of type .*, not str"):
        real_tokenizer().encode([text])


def test_a_single_text_is_not_a_list_of_letters() -> None:
    with pytest.raises(TextError, match="a list of texts"):
        real_tokenizer().encode("cat")


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(TextError, match=r"U\+DC80.*character 4"):
        real_tokenizer().encode(["cat \udc80"])


def test_nul_is_a_byte() -> None:
    assert real_tokenizer().encode(["a\x00b"]).ids[0].tolist().count(3) == 1


def test_error_messages_quote_long_texts_in_part() -> None:
    with pytest.raises(TextError) as caught:
        real_tokenizer().encode(["!" * 10_000])
    assert len(str(caught.value)) < 400


@given(st.lists(st.text(min_size=1, max_size=200), max_size=4))
@settings(max_examples=150)
def test_any_unicode(texts: list[str]) -> None:
    tokenizer = real_tokenizer()
    try:
        found = tokenizer.encode(texts)
    except TextError:
        return
    assert found.ids.shape == (len(texts), 64)
    assert ((found.ids >= 0) & (found.ids < 32_000)).all()
    assert (found.ids[:, -1] == 1).all()
    assert (tokenizer.encode(texts).ids == found.ids).all()
    assert (found.ids[found.cut][:, :63] != 1).all()


def test_threads_may_share_a_tokenizer() -> None:
    texts = [case["query"] for case in CASES]
    expected = real_tokenizer().encode(texts).ids
    wrong: list[int] = []

    def work() -> None:
        for _ in range(20):
            wrong.append(int((real_tokenizer().encode(texts).ids != expected).sum()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 80
    assert not any(wrong)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": np.zeros(3, np.float32)}, "scores of shape"),
        ({"scores": np.full(9, np.nan, np.float32)}, "not a number"),
        ({"types": np.full(9, NORMAL, np.int32)}, "type unknown"),
        ({"types": np.array([CONTROL, CONTROL, UNKNOWN] + [NORMAL] * 5 + [99], np.int32)}, "type 99"),
        ({"unk_id": 3}, "unk_id is 3"),
        ({"eos_id": 9}, "eos_id is 9"),
        ({"pad_id": -1}, "pad_id is -1"),
        ({"context": 1}, "context is 1"),
        ({"canonicalisation": "clip"}, "'clip'"),
        ({"kind": "wordpiece"}, "'wordpiece'"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        small_spec(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"pieces": ["<pad>", "</s>", "<unk>", "▁", "a", "a", "▁a", "ab", "▁ab"]},  # one piece twice
        {"pieces": ["<pad>", "</s>", "<unk>", "▁", "", "b", "▁a", "ab", "▁ab"]},  # an empty one
        {"pieces": ["<pad>", "</s>", "<unk>", "▁", "\ud800", "b", "▁a", "ab", "▁ab"]},
        {"byte_fallback": True},  # without byte pieces
        {"charsmap": b"\xff\xff\xff\xff"},
        {"charsmap": b"abc"},
        {"types": np.array([CONTROL, CONTROL, UNKNOWN] + [NORMAL] * 5 + [BYTE], np.int32)},
    ],
)
def test_what_sentencepiece_refuses_is_an_artifact_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="tokenizer"):
        Tokenizer(small_spec(**changes))


def test_a_damaged_charsmap_is_refused() -> None:
    spec = real_spec()
    for cut in (1, 4, 1000, len(spec.charsmap) // 2):
        with pytest.raises(ArtifactError):
            Tokenizer(dataclasses.replace(spec, charsmap=spec.charsmap[:cut]))


def test_the_hand_written_model_is_what_protobuf_writes() -> None:
    pytest.importorskip("google.protobuf")
    proto: Any = importlib.import_module("sentencepiece.sentencepiece_model_pb2")
    for spec in (real_spec(), small_spec(), bpe_spec(), checkpoints.gemma_spec()):
        data = model_proto(spec)
        model = proto.ModelProto.FromString(data)
        assert model.SerializeToString(deterministic=True) == data
        assert [piece.piece for piece in model.pieces] == list(spec.pieces)
        assert [piece.type for piece in model.pieces] == spec.types.tolist()
        assert (np.array([piece.score for piece in model.pieces], np.float32) == spec.scores).all()
        assert model.normalizer_spec.precompiled_charsmap == spec.charsmap
        assert model.trainer_spec.byte_fallback == spec.byte_fallback
        assert model.trainer_spec.unk_id == spec.unk_id


def test_read_spiece_gives_the_spec_back() -> None:
    pytest.importorskip("google.protobuf")
    spec = real_spec()
    again = read_spiece(model_proto(spec), **READ)
    for field in dataclasses.fields(TokenizerSpec):
        assert np.array_equal(getattr(again, field.name), getattr(spec, field.name)), field.name


def _as_words(data: bytes) -> bytes:
    proto: Any = importlib.import_module("sentencepiece.sentencepiece_model_pb2")
    model = proto.ModelProto.FromString(data)
    model.trainer_spec.model_type = 3
    result: bytes = model.SerializeToString()
    return result


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "no pieces"),
        (lambda data: b"<!doctype html>", "not a SentencePiece model"),
        (lambda data: data[: len(data) // 2], "damaged"),
        (lambda data: data[:-30], "damaged"),
        (_as_words, "neither a unigram nor a BPE model"),
    ],
    ids=["empty", "html", "half", "short", "words"],
)
def test_read_spiece_refuses(damage: Callable[[bytes], bytes], message: str) -> None:
    pytest.importorskip("google.protobuf")
    with pytest.raises(CheckpointError, match=message):
        read_spiece(damage(model_proto(real_spec())), **READ)


def _edited(**changes: Any) -> bytes:
    content = json.loads(tokenizer_json())
    content["model"] |= changes
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "damaged"),
        (b"[]", "damaged"),
        (b"{}", "damaged"),
        (_edited(type="BPE"), "more than write spaces"),
        (_edited(type="WordPiece"), "neither a unigram nor a BPE"),
        (_edited(type=["BPE"]), "neither a unigram nor a BPE"),
        (_edited(vocab=[["<pad>", 0.0]]), "damaged"),
        (_edited(unk_id=None), "damaged"),
    ],
    ids=["empty", "list", "nothing", "bpe", "words", "kinds", "pieces", "unk"],
)
def test_read_tokenizer_json_refuses(data: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_tokenizer_json(data, **READ)


# ---- BPE ----


def bpe_spec(**changes: Any) -> TokenizerSpec:
    """A tokenizer of a few merges: "ab" before "bc", and one symbol of the user's."""
    pieces = ["<pad>", "<eos>", "<unk>", "▁", "a", "b", "c", "ab", "bc", "abc", "<s>", "▁a"]
    fields: dict[str, Any] = {
        "pieces": pieces,
        "scores": np.array([0, 0, 0, -99, -99, -99, -99, 0, -1, -2, 0, -3], np.float32),
        "types": np.array([CONTROL, CONTROL, UNKNOWN] + [NORMAL] * 7 + [USER_DEFINED, NORMAL], np.int32),
        "charsmap": b"",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "escape_whitespaces": True,
        "byte_fallback": False,
        "unk_id": 2,
        "eos_id": 1,
        "pad_id": 0,
        "canonicalisation": "none",
        "context": 8,
        "kind": "bpe",
    }
    return TokenizerSpec(**(fields | changes))


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("ab", ["ab"]),
        ("abc", ["abc"]),
        ("bcab", ["bc", "ab"]),
        ("bab", ["b", "ab"]),
        ("a ab", ["a", "▁", "ab"]),  # the better merge first: "ab" before "▁a"
        (" ac", ["▁a", "c"]),
        ("  a", ["▁", "▁a"]),
        ("a<s>b", ["a", "<s>", "b"]),
        ("az", ["a", "<unk>"]),
    ],
)
def test_merges_go_by_score(text: str, pieces: list[str]) -> None:
    spec = bpe_spec()
    ids = Tokenizer(spec).encode([text]).ids[0].tolist()
    assert [spec.pieces[i] for i in ids[: ids.index(1)]] == pieces
    assert ids[ids.index(1) + 1 :] == [0] * (7 - len(pieces))


def bpe_json(**changes: Any) -> bytes:
    """The same as the tokenizers library writes it; ``merges=None`` takes a field away."""
    spec = bpe_spec()
    content: dict[str, Any] = {
        "added_tokens": [
            {"id": i, "content": spec.pieces[i], "special": i < 3, "normalized": False} for i in (0, 1, 2, 10)
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None,
        "post_processor": None,
        "model": {
            "type": "BPE",
            "vocab": {piece: i for i, piece in enumerate(spec.pieces)},
            "merges": [["a", "b"], ["b", "c"], ["ab", "c"], ["a", "bc"], ["▁", "a"]],
            "unk_token": "<unk>",
            "byte_fallback": False,
        },
    }
    for key, value in changes.items():
        if key in content:
            content[key] = value
        else:
            content["model"][key] = value
    return json.dumps(content).encode()


BPE_READ: dict[str, Any] = {
    "canonicalisation": "none",
    "context": 8,
    "eos_id": "<eos>",
    "pad_id": "<pad>",
}


@pytest.mark.parametrize("merges", [None, ["a b", "b c", "ab c", "a bc", "▁ a"]], ids=["pairs", "texts"])
def test_scores_come_back_from_merges(merges: list[str] | None) -> None:
    found = read_tokenizer_json(bpe_json(**({"merges": merges} if merges else {})), **BPE_READ)
    spec = bpe_spec()
    assert found.kind == "bpe"
    assert list(found.pieces) == list(spec.pieces)
    assert found.types.tolist() == spec.types.tolist()
    order = [7, 8, 9, 11]
    assert sorted(order, key=lambda i: -found.scores[i]) == order
    texts = ["abc ab", "bcab  a<s>", "cabba"]
    assert np.array_equal(Tokenizer(found).encode(texts).ids, Tokenizer(spec).encode(texts).ids)


def test_a_tab_that_stands_for_its_byte_is_that_byte_again() -> None:
    spec = checkpoints.gemma_spec()
    content = json.loads(checkpoints.gemma_json())
    assert "\t" in content["model"]["vocab"]
    assert "<0x09>" not in content["model"]["vocab"]
    assert spec.pieces.index("<0x09>") == content["model"]["vocab"]["\t"]
    again = checkpoints.gemma_spec("tokenizer.json")
    assert list(again.pieces) == list(spec.pieces)
    assert again.types.tolist() == spec.types.tolist()


def test_control_pieces_in_a_text_are_characters_and_symbols_are_symbols() -> None:
    for file in ("tokenizer.model", "tokenizer.json"):
        spec = checkpoints.gemma_spec(file)
        ids = Tokenizer(spec).encode(["a <eos> b <pad><bos> <unk> <start_of_turn> <mask>"]).ids[0].tolist()
        text = ids[: ids.index(spec.eos_id)]
        assert not {0, 1, 2, 3} & set(text)
        assert [spec.pieces[i] for i in text].count("<start_of_turn>") == 1
        assert spec.pieces[text[-1]] == "<mask>"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"merges": [["a", "b"], ["b", "c"], ["ab", "c"], ["▁", "a"]]}, "does not merge 'a' and 'bc'"),
        (
            {"merges": [["a", "b"], ["ab", "c"], ["b", "c"], ["a", "bc"], ["▁", "a"]]},
            "'abc' in two places",
        ),
        ({"merges": [["a", "z"]]}, "pieces it does not have"),
        ({"merges": [["a", "b", "c"]]}, "not a pair"),
        ({"merges": ["a"]}, "not a pair"),
        ({"merges": 5}, "not a SentencePiece model"),
        ({"vocab": {"<unk>": 2, "a": 1}}, "without a gap"),
        ({"unk_token": None}, "not a SentencePiece model"),
        ({"dropout": 0.1}, "dropout"),
        ({"end_of_word_suffix": "</w>"}, "end_of_word_suffix"),
        ({"ignore_merges": True}, "ignore_merges"),
        ({"normalizer": None}, "more than write spaces"),
        ({"normalizer": {"type": "NFC"}}, "more than write spaces"),
        ({"pre_tokenizer": {"type": "ByteLevel"}}, "more than write spaces|not a SentencePiece"),
        ({"added_tokens": [{}]}, "damaged"),
    ],
)
def test_merges_that_no_sentencepiece_model_makes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_tokenizer_json(bpe_json(**changes), **BPE_READ)


def test_marks_must_be_pieces() -> None:
    with pytest.raises(CheckpointError, match=r"no piece '</s>', which is to be its eos_id"):
        read_tokenizer_json(bpe_json(), **(BPE_READ | {"eos_id": "</s>"}))
