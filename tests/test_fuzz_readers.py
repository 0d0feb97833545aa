"""Every reader on thousands of damaged and hostile files, and on those that once broke one (see ``tests/fuzzing``)."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from sigrun import ArtifactError, Siglip
from sigrun.artifact import Artifact
from sigrun.gguf import GgufFile
from sigrun.manifest import KEY, Manifest
from tests.fuzzing import CRASHERS, spans
from tests.fuzzing.__main__ import run
from tests.fuzzing.models import retyped
from tests.fuzzing.mutate import HOSTILE, get, paths, put
from tests.fuzzing.readers import Gguf, Manifests
from tests.fuzzing.small import nested_arrays, small_gguf
from tests.fuzzing.targets import NAMES, make


@pytest.mark.parametrize("name", NAMES)
def test_every_case_is_read_or_refused(name: str, tiny_q4: Path) -> None:
    """Neither another error, nor a warning, nor a word printed, nor more memory than the cap."""
    tally = run(name, tiny_q4)
    told = "\n".join(f"case {fault.index}: {fault.what}" for fault in tally.faults)
    assert not tally.faults, f"python -m tests.fuzzing --target '{name}' shows:\n{told}"
    assert tally.cases == make(name, tiny_q4).pace
    assert tally.accepted, "no case gets past the reader"
    assert tally.refused, "no case is refused"


CASES = sorted(CRASHERS.rglob("*.bin"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_once_broke_a_reader(path: Path, tiny_q4: Path, tmp_path: Path) -> None:
    target = make(path.parent.name.replace("_", " "), tiny_q4)
    target.read(path.read_bytes(), tmp_path / "crasher")


# --- the places that random changes seldom meet


def test_the_small_file_is_read_as_another_reader_reads_it(tmp_path: Path) -> None:
    assert Gguf().read(small_gguf(), tmp_path / "small.gguf")


@pytest.mark.parametrize("depth", [1, 2, 100_000])
def test_nested_arrays_are_refused(depth: int, tmp_path: Path) -> None:
    path = tmp_path / "nested.gguf"
    path.write_bytes(nested_arrays(depth))
    with pytest.raises(ArtifactError, match="deep is an array of type 9"):
        GgufFile(path)


def test_every_cut_of_the_head_is_refused(tmp_path: Path) -> None:
    content = small_gguf()
    path = tmp_path / "cut.gguf"
    for length in range(spans.layout(content).base):
        path.write_bytes(content[:length])
        with pytest.raises(ArtifactError) as caught:
            GgufFile(path)
        assert str(path) in caught.value.message


@pytest.mark.parametrize("value", [2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1, 2**64 - 8])
def test_no_count_or_extent_is_believed(value: int, tmp_path: Path) -> None:
    """Each 64-bit number of a file in turn made enormous: refused by the name of the field, before it is allocated."""
    content = small_gguf()
    found = spans.layout(content)
    path = tmp_path / "huge.gguf"
    numbers = [s for s in found.spans if s.stop - s.at == 8 and s.kind in ("count", "extent", "offset")]
    assert len(numbers) > 60
    accepted = []
    for span in numbers:
        path.write_bytes(content[: span.at] + value.to_bytes(8, "little") + content[span.stop :])
        try:
            with GgufFile(path) as file:
                accepted += [name for name, info in file.tensors.items() if info.shape != (3, 2)]
        except ArtifactError as error:
            assert any(
                word in error.message
                for word in ("number of", "length of", "needs", "beyond the file", "aligned", "multiple of")
            ), error.message
        else:  # an extent beside one of 0: there is nothing to read
            assert span.kind == "extent"
    assert accepted.count("nothing") <= 1


def test_each_field_of_the_manifest_is_named_when_it_is_of_a_wrong_type(tiny_q4: Path) -> None:
    """Every value in turn replaced by each of the hostile ones: the error names the field, or a part of it."""
    target = Manifests(tiny_q4)
    places = [p for p in paths(target.data) if all(isinstance(step, str) for step in p)]
    refused = 0
    for place in places:
        old = get(target.data, place)
        for value in HOSTILE:
            if type(value) is type(old) or (isinstance(value, float) and isinstance(old, float | int)):
                continue
            put(target.data, place, value)
            text = json.dumps(target.data)
            put(target.data, place, old)
            try:
                Manifest.from_json(text, "model.gguf")
            except ArtifactError as error:
                refused += 1
                assert named(place, error.message, value), f"{place} = {value!a}: {error.message}"
    assert refused > 1000


def named(place: tuple[Any, ...], message: str, value: Any) -> bool:
    """Whether a message names the last step of a place, or, of what no reader sees, why the text is no JSON."""
    if isinstance(value, float) or value == "\ud800":
        return "JSON" in message or str(place[-1]) in message
    return str(place[-1]) in message or (len(place) > 1 and str(place[-2]) in message)


# --- whole files, too large to keep, that once broke the runtime


def contradictory(path: Path, target: Path, name: str, encoding: str, shape: tuple[int, ...]) -> Path:
    """A copy of an artifact that says another type and shape of a weight, twice."""
    content = path.read_bytes()
    manifest = json.loads(spans.layout(content).metadata[KEY])
    content = retyped(content, manifest, name, encoding, shape)
    text = spans.text_value(json.dumps(manifest))
    target.write_bytes(spans.with_value(content, spans.layout(content), KEY, spans.STRING, text))
    return target


@pytest.mark.parametrize(
    ("name", "encoding", "shape", "says"),
    [
        ("v.blk.0.attn_q.weight", "i8", (72, 72), "'v.blk.0.attn_q.weight' is stored as 'i8'"),
        ("t.token_embd.weight", "f32", (96,), "token table 't.token_embd.weight' is not a matrix"),
        (
            "v.blk.0.attn_q.weight",
            "f32",
            (12, 96),
            "tensor 'v.blk.0.attn_q.weight': f32 has no MatMulNBits form",
        ),
    ],
)
def test_weights_of_a_type_or_rank_that_cannot_be(
    tiny_q4: Path, tmp_path: Path, name: str, encoding: str, shape: tuple[int, ...], says: str
) -> None:
    path = contradictory(tiny_q4, tmp_path / "wrong.gguf", name, encoding, shape)
    with pytest.raises(ArtifactError, match=re.escape(says)) as caught:
        Siglip.load(path, compute="exact", towers="both")
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("key", "code", "count"),
    [("scores", "d", 2000), ("token_type", "f", 2000), ("precompiled_charsmap", "f", 9)],
)
def test_numbers_of_a_tokenizer_are_of_their_type(
    tiny_q4: Path, tmp_path: Path, key: str, code: str, count: int
) -> None:
    """They were converted before, with a warning where they did not fit."""
    content = tiny_q4.read_bytes()
    kind = {"f": 6, "d": 12}[code]
    value = struct.pack(f"<IQ{count}{code}", kind, count, *[1e38] * count)
    path = tmp_path / "floats.gguf"
    path.write_bytes(
        spans.with_value(content, spans.layout(content), f"tokenizer.ggml.{key}", spans.ARRAY, value)
    )
    with Artifact.open(path) as artifact, pytest.raises(ArtifactError, match=f"{key} is an array of float"):
        artifact.tokenizer()
