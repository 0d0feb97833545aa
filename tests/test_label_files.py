"""Files of label sets: the safetensors package reads what we write and the other way round, and nothing is trusted."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from sigrun import ArtifactError, Embeddings, LabelSet, OutputError, Scoring, TextError
from sigrun.labels import Origin

TEMPLATES = ("a photo of {}.", "{}")
ORIGIN = Origin("siglip-so400m-patch14-384 q4_k_m", "hf", Scoring(4.7215, -16.5))


def unit(rows: int, width: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def label_set(
    labels: tuple[str, ...] = ("a cat", "ein Hündchen 🐕", 'a "dog"\n'), **changes: Any
) -> LabelSet:
    parts: dict[str, Any] = {
        "labels": labels,
        "embeddings": Embeddings(unit(len(labels), 5), "0123abcd", cut=(len(labels) - 1,)),
        "templates": TEMPLATES,
        "origin": ORIGIN,
    }
    return LabelSet(**(parts | changes))


def same(one: LabelSet, other: LabelSet) -> bool:
    return (
        (one.labels, one.templates, one.scoring, one.origin, one.space, one.embeddings.cut)
        == (other.labels, other.templates, other.scoring, other.origin, other.space, other.embeddings.cut)
        and one.embeddings.vectors.dtype == other.embeddings.vectors.dtype == np.float32
        and one.embeddings.vectors.tobytes() == other.embeddings.vectors.tobytes()
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"scoring": Scoring(4.123456789012345, -1e-7)},
        {"origin": None},
        {"origin": None, "scoring": Scoring(1.0, -2.0)},
        {"origin": Origin("text alone", "none", None)},
        {"templates": ("{}",)},
    ],
)
def test_a_set_comes_back_as_it_was(changes: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "set.labels.safetensors"
    made = label_set(**changes)
    made.save(path)
    assert same(LabelSet.load(path), made)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


def test_the_safetensors_package_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "set.labels.safetensors"
    made = label_set(scoring=Scoring(4.5, -12.25))
    made.save(path)
    with safe_open(path, framework="np") as file:
        assert list(file.keys()) == ["embeddings"]
        found = file.get_tensor("embeddings")
        strings = file.metadata()
    np.testing.assert_array_equal(found, made.embeddings.vectors)
    assert found.dtype == np.float32
    assert json.loads(strings.pop("labels")) == list(made.labels)
    assert json.loads(strings.pop("templates")) == list(TEMPLATES)
    assert strings == {
        "sigrun_labels": "1",
        "cut": "[2]",
        "space": "0123abcd",
        "model": "siglip-so400m-patch14-384 q4_k_m",
        "canonicalisation": "hf",
        "scoring": "calibrated",
        "logit_scale": "4.5",
        "logit_bias": "-12.25",
        "model_logit_scale": "4.7215",
        "model_logit_bias": "-16.5",
    }


def test_other_programs_score_with_the_models_own_constants_where_none_were_fitted(tmp_path: Path) -> None:
    label_set().save(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="np") as file:
        strings = file.metadata()
    assert (strings["scoring"], strings["logit_scale"], strings["logit_bias"]) == ("model", "4.7215", "-16.5")
    assert LabelSet.load(tmp_path / "a.safetensors").scoring is None


def test_what_the_safetensors_package_writes_is_read(tmp_path: Path) -> None:
    label_set().save(tmp_path / "ours.safetensors")
    with safe_open(tmp_path / "ours.safetensors", framework="np") as file:
        save_file(
            {"embeddings": file.get_tensor("embeddings")}, tmp_path / "theirs.safetensors", file.metadata()
        )
    assert same(LabelSet.load(tmp_path / "theirs.safetensors"), label_set())


def test_equal_sets_give_equal_bytes_and_the_numbers_lie_aligned(tmp_path: Path) -> None:
    for name in "ab":
        label_set().save(tmp_path / name)
    raw = (tmp_path / "a").read_bytes()
    assert raw == (tmp_path / "b").read_bytes()
    assert struct.unpack("<Q", raw[:8])[0] % 8 == 0


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    path = tmp_path / "set.labels.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"):
        label_set().save(path)
    assert path.read_bytes() == b"mine"
    label_set().save(path, force=True)
    assert same(LabelSet.load(path), label_set())


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        label_set().save(tmp_path / "none" / "set")


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(TextError, match=r"labels hold a lone surrogate"):
        label_set(labels=("\ud800", "b")).save(tmp_path / "a")
    with pytest.raises(TextError, match="no labels"):
        label_set(labels=(), embeddings=Embeddings(unit(0, 5), "0")).save(tmp_path / "a")
    with pytest.raises(ValueError, match="label 2 is not of unit length"):
        label_set(labels=("a", "b"), embeddings=Embeddings(unit(2, 5) * [[1], [2]], "0")).save(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_set_whose_parts_do_not_fit() -> None:
    with pytest.raises(ValueError, match="1 labels cannot go with vectors of shape"):
        LabelSet(("a",), Embeddings(unit(2, 5), "0"))
    with pytest.raises(ValueError, match="not finite"):
        LabelSet(("a",), Embeddings(np.full((1, 5), np.nan, np.float32), "0"))


# ---- damage ----


def header_and_rest(raw: bytes) -> tuple[dict[str, Any], bytes]:
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def built(header: object, rest: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("labels") / "sound"
    label_set(scoring=Scoring(4.5, -12.25)).save(path)
    return path.read_bytes()


def entry(**changes: object) -> Callable[[dict[str, Any]], None]:
    return lambda header: header["embeddings"].update(changes)


def string(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        if value is None:
            del header["__metadata__"][name]
        else:
            header["__metadata__"][name] = value

    return change


HUGE = 10**4000
DAMAGE: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (entry(dtype="F16"), r"embeddings\.dtype"),
    (entry(dtype=None), r"embeddings\.dtype"),
    (entry(shape=[3]), r"embeddings\.shape"),
    (entry(shape=[3, 5, 1]), r"embeddings\.shape"),
    (entry(shape=[3, 6]), r"embeddings\.shape"),
    (entry(shape=[-3, -5]), r"embeddings\.shape"),
    (entry(shape=[3.0, 5]), r"embeddings\.shape"),
    (entry(shape=[True, 15]), r"embeddings\.shape"),
    (entry(shape=[HUGE, HUGE]), r"embeddings\.shape"),
    (entry(shape=[0, 5]), r"embeddings\.shape"),
    (entry(shape=[2**40, 2**40]), r"embeddings\.shape"),
    (entry(shape="35"), r"embeddings\.shape"),
    (entry(shape=[15, 1]), "labels are 3, and there are 15 embeddings"),
    (entry(data_offsets=[0, 64]), r"embeddings\.data_offsets"),
    (entry(data_offsets=[4, 60]), r"embeddings\.data_offsets"),
    (entry(data_offsets=[False, 60]), r"embeddings\.data_offsets"),
    (entry(data_offsets=None), r"embeddings\.data_offsets"),
    (entry(data_offsets={}), r"embeddings\.data_offsets"),
    (lambda h: h.update(embeddings=[]), "embeddings is not an object"),
    (lambda h: h.pop("embeddings"), "tensor embeddings alone, and holds none"),
    (lambda h: h.update(more=h["embeddings"]), r"alone, and holds \['more'\]"),
    (lambda h: h.pop("__metadata__"), "no object __metadata__"),
    (lambda h: h.update(__metadata__=[]), "no object __metadata__"),
    (string("labels", 3), r"__metadata__\.'labels' is not a string"),
    (string("labels", None), "labels is missing"),
    (string("labels", "{}"), "labels is not a list of texts"),
    (string("labels", "[1, 2, 3]"), "labels is not a list of texts"),
    (string("labels", '["a"'), "labels is not JSON"),
    (string("labels", "[" * 100_000), "labels is not JSON"),
    (string("labels", '["a", "b", "\\ud800"]'), "labels is not a list of texts"),
    (string("labels", '["a", "b"]'), "labels are 2, and there are 3"),
    (string("templates", "[]"), r"templates are not sentences with \{\}"),
    (string("templates", '["a"]'), r"templates are not sentences with \{\}"),
    (string("templates", None), "templates is missing"),
    (string("cut", "[3]"), "cut is not a list of rows"),
    (string("cut", "[-1]"), "cut is not a list of rows"),
    (string("cut", "[true]"), "cut is not a list of rows"),
    (string("cut", "7"), "cut is not a list of rows"),
    (string("space", None), "space is missing"),
    (string("space", ""), "space is missing, empty"),
    (string("space", "\ud800"), "space is missing, empty, or not valid Unicode"),
    (string("scoring", "mine"), "scoring is neither"),
    (string("scoring", None), "scoring is neither"),
    (string("logit_scale", None), "logit_scale is missing"),
    (string("logit_scale", "NaN"), "logit_scale is not a number"),
    (string("logit_scale", "true"), "logit_scale is not a number"),
    (string("logit_scale", "99"), "logit_scale 99"),
    (string("logit_bias", "1e400"), "logit_bias is not a number"),
    (string("logit_bias", "1" * 400), "logit_bias is not a number"),
    (string("logit_bias", "1" * 5000), "logit_bias is not JSON"),
    (string("model_logit_bias", None), "model_logit_bias is missing"),
    (string("canonicalisation", None), "canonicalisation is missing"),
    (string("sigrun_labels", None), "sigrun_labels is missing"),
    (string("sigrun_labels", "2"), "format '2'; this version reads format 1"),
]


@pytest.mark.parametrize(("change", "message"), DAMAGE, ids=[f"{i}: {m}" for i, (_, m) in enumerate(DAMAGE)])
def test_the_wrong_field_is_named(
    change: Callable[[dict[str, Any]], object], message: str, sound: bytes, tmp_path: Path
) -> None:
    header, rest = header_and_rest(sound)
    change(header)
    refused(built(header, rest), message, tmp_path)


def refused(raw: bytes, message: str, folder: Path) -> None:
    path = folder / "damaged"
    path.write_bytes(raw)
    with pytest.raises(ArtifactError, match=message) as caught:
        LabelSet.load(path)
    assert str(path) in caught.value.message
    assert len(caught.value.message) < 500 + len(str(path))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: b"", "0 bytes, too few"),
        (lambda raw: raw[:7], "7 bytes, too few"),
        (lambda raw: raw[:8], "header claims"),
        (lambda raw: raw[:100], "header claims"),
        (lambda raw: raw[:-1], r"embeddings\.shape"),
        (lambda raw: raw + b"\0", r"embeddings\.shape"),
        (
            lambda raw: struct.pack("<Q", 2**64 - 1) + raw[8:],
            "header claims 18,446,744,073,709,551,615 bytes",
        ),
        (lambda raw: struct.pack("<Q", 0) + raw[8:], "not JSON"),
        (lambda raw: b"GGUF" + raw[4:], "is a GGUF file, not a label set"),
        (lambda raw: raw[:-4] + struct.pack("<f", np.nan), "embeddings are not finite"),
        (lambda raw: raw[:-4] + struct.pack("<f", np.inf), "embeddings are not finite"),
        (lambda raw: raw[:-4] + struct.pack("<f", 9.0), r"embeddings \[2\] is not of unit length"),
        (lambda raw: raw[:-20] + bytes(20), r"embeddings \[2\] is not of unit length"),
        (lambda raw: built(b"[]", raw[-60:]), "not a JSON object"),
        (lambda raw: built(b'{"a":1,"a":2}', raw[-60:]), "appears twice"),
        (lambda raw: built(b'{"a":NaN}', raw[-60:]), "NaN is no JSON"),
        (lambda raw: built(b"\xff\xfe", raw[-60:]), "not JSON"),
        (lambda raw: built(b"[" * 200_000, raw[-60:]), "not JSON"),
        (lambda raw: built(b"1" * 5000, raw[-60:]), "not JSON"),
    ],
)
def test_damaged_files(damage: Callable[[bytes], bytes], message: str, sound: bytes, tmp_path: Path) -> None:
    refused(damage(sound), message, tmp_path)


def test_what_is_no_file(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path, "not a file"),
        (tmp_path / "none", "cannot read"),
        ("a\0b", "cannot read"),
    ):
        with pytest.raises(ArtifactError, match=message):
            LabelSet.load(path)


def read_or_refused(raw: bytes, path: Path) -> LabelSet | None:
    path.write_bytes(raw)
    try:
        return LabelSet.load(path)
    except ArtifactError as error:
        assert str(path) in error.message
        return None


FUZZ = settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(data=st.data())
def test_any_bytes_changed(data: st.DataObject, sound: bytes, tmp_path: Path) -> None:
    """A changed file is refused, or is a whole and usable set: never another error, never a number out of range."""
    raw = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        kind = data.draw(st.sampled_from(["set", "drop", "insert", "cut"]))
        if kind == "set":
            raw[place] = data.draw(st.integers(0, 255))
        elif kind == "drop":
            del raw[place : place + data.draw(st.integers(1, 9))]
        elif kind == "insert":
            raw[place:place] = data.draw(st.binary(max_size=9))
        else:
            del raw[place:]
        if not raw:
            break
    usable(read_or_refused(bytes(raw), tmp_path / "fuzzed"))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@FUZZ
@given(data=st.data())
def test_any_field_changed(data: st.DataObject, sound: bytes, tmp_path: Path) -> None:
    header, rest = header_and_rest(sound)
    for _ in range(data.draw(st.integers(1, 3))):
        strings = header["__metadata__"] if isinstance(header.get("__metadata__"), dict) else header
        tensor = header["embeddings"] if isinstance(header.get("embeddings"), dict) else header
        table = data.draw(st.sampled_from([header, strings, tensor]))
        name = data.draw(st.sampled_from(sorted(table)) if table else st.text(max_size=8))
        value = data.draw(JSON_VALUES)
        if table is strings and data.draw(st.booleans()):
            value = json.dumps(value)
        table[name] = value
    usable(read_or_refused(built(header, rest), tmp_path / "fuzzed"))


@FUZZ
@given(raw=st.binary(max_size=200), length=st.integers(0, 300) | st.none())
def test_any_bytes(raw: bytes, length: int | None, tmp_path: Path) -> None:
    assert (
        read_or_refused(raw if length is None else struct.pack("<Q", length) + raw, tmp_path / "fuzzed")
        is None
    )


def usable(found: LabelSet | None) -> None:
    if found is None:
        return
    vectors = found.embeddings.vectors
    assert vectors.shape == (len(found.labels), vectors.shape[1])
    assert np.abs(np.linalg.norm(vectors.astype(np.float64), axis=1) - 1).max() < 1e-2
    assert all(0 <= row < len(found.labels) for row in found.embeddings.cut)
    json.dumps([found.labels, found.templates, found.space]).encode()
