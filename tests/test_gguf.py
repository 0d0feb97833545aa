"""The GGUF reader, against the gguf package as the oracle and against damaged files."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sigrun import ArtifactError, SigrunError
from sigrun.artifact import Artifact
from sigrun.gguf import GgufFile


def small_file(path: Path) -> Path:
    """A file with every kind of metadata, written by the gguf package."""
    writer = gguf.GGUFWriter(path, "siglip")
    writer.add_uint8("a.u8", 200)
    writer.add_int8("a.i8", -3)
    writer.add_uint16("a.u16", 60000)
    writer.add_int16("a.i16", -3000)
    writer.add_uint32("a.u32", 4_000_000_000)
    writer.add_int32("a.i32", -5)
    writer.add_uint64("a.u64", 2**63)
    writer.add_int64("a.i64", -(2**62))
    writer.add_float32("a.f32", 0.5)
    writer.add_float64("a.f64", 0.1)
    writer.add_bool("a.bool", True)
    writer.add_string("a.text", "Grüße, 世界")
    writer.add_array("a.words", ["", "zwei", "三"])
    writer.add_array("a.floats", [0.5, -2.0])
    writer.add_array("a.ints", [1, -2, 3])
    writer.add_tensor("first", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("second", np.arange(5, dtype=np.int8))
    writer.add_tensor("packed", np.zeros((4, 144), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q4_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_file(tmp_path_factory.mktemp("gguf") / "small.gguf")


def test_metadata_and_tensors_as_gguf_wrote_them(small: Path) -> None:
    with GgufFile(small) as file:
        values = {key: value for key, value in file.metadata.items() if key.startswith("a.")}
        assert values.pop("a.floats").tolist() == [0.5, -2.0]
        assert values.pop("a.ints").tolist() == [1, -2, 3]
        assert values == {
            "a.u8": 200,
            "a.i8": -3,
            "a.u16": 60000,
            "a.i16": -3000,
            "a.u32": 4_000_000_000,
            "a.i32": -5,
            "a.u64": 2**63,
            "a.i64": -(2**62),
            "a.f32": 0.5,
            "a.f64": 0.1,
            "a.bool": True,
            "a.text": "Grüße, 世界",
            "a.words": ["", "zwei", "三"],
        }
        first = file.data("first").view(np.float32).reshape(file.tensors["first"].shape)
        assert first.tolist() == [[0, 1, 2], [3, 4, 5]]
        assert file.data("second").view(np.int8).tolist() == [0, 1, 2, 3, 4]
        packed = file.tensors["packed"]
        assert (packed.type.name, packed.shape, packed.nbytes) == ("q4_k", (4, 256), 576)


def test_every_tensor_of_an_artifact_lies_where_gguf_finds_it(tiny_q4: Path) -> None:
    theirs = {t.name: t for t in gguf.GGUFReader(tiny_q4).tensors}
    with GgufFile(tiny_q4) as file:
        assert set(file.tensors) == set(theirs)
        for name, info in file.tensors.items():
            assert info.offset == theirs[name].data_offset
            assert info.nbytes == theirs[name].n_bytes
            assert info.shape == tuple(reversed(theirs[name].shape.tolist()))
            assert np.array_equal(file.data(name), theirs[name].data.reshape(-1).view(np.uint8))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "too short"),
        (b"GGUF", "too short"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "not a GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0) + bytes(32), "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**40, 0) + bytes(32), "number of tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63) + bytes(32), "number of metadata keys"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**62) + bytes(32), "metadata key 0"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<I", 99) + bytes(32), "type 99"),
        (
            b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"\xff" + struct.pack("<I", 4) + bytes(32),
            "not UTF-8",
        ),
        (
            b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 8, 2**50) + bytes(32),
            "length of k",
        ),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=says) as caught:
        GgufFile(path)
    assert "bad.gguf" in str(caught.value)


def test_a_missing_file_and_a_folder_are_errors_of_ours(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(ArtifactError, match="cannot open"):
            GgufFile(path)


def test_every_truncation_is_an_error(small: Path, tmp_path: Path) -> None:
    whole = small.read_bytes()
    cut = tmp_path / "cut.gguf"
    with GgufFile(small) as file:
        last = max(t.offset + t.nbytes for t in file.tensors.values())
    for length in [*range(0, last - 700, 7), last - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(ArtifactError):
            GgufFile(cut)


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_artifacts_never_crash(tiny_q4: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Bytes of the head are changed at random; opening either works or is an error of ours."""
    content = bytearray(tiny_q4.read_bytes())
    with GgufFile(tiny_q4) as file:
        head = min(t.offset for t in file.tensors.values())
    # Half of the changes go to the first bytes, where the counts and lengths are dense.
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, data.draw(st.sampled_from([200, 2000, head]))))
        patch = data.draw(st.binary(min_size=1, max_size=8))
        content[at : at + len(patch)] = patch
    path = tmp_path / "mutated.gguf"
    path.write_bytes(content)
    try:
        with Artifact.open(path) as artifact:
            artifact.tokenizer()
    except SigrunError as error:
        assert str(path) in str(error)


def test_foreign_gguf_files_are_refused_by_what_they_are(small: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"sigrun\.manifest"):
        Artifact.open(small)
    path = tmp_path / "llama.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ArtifactError, match="architecture 'llama'"):
        Artifact.open(path)
    path = tmp_path / "foreign.gguf"
    writer = gguf.GGUFWriter(path, "siglip")
    writer.add_tensor("x", np.zeros((1, 18), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ArtifactError, match="'x' has ggml type 2"):
        Artifact.open(path)


def test_arrays_outlive_the_file(small: Path) -> None:
    file = GgufFile(small)
    first = file.data("first")
    file.close()
    assert first.view(np.float32)[5] == 5.0
    with pytest.raises(ArtifactError, match="closed"):
        file.data("first")


def test_released_pages_are_read_again(small: Path) -> None:
    with GgufFile(small) as file:
        before = file.data("first").tobytes()
        file.release("first")
        assert file.data("first").tobytes() == before
