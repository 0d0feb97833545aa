"""Artifacts that were damaged or tampered with: an error of ours, never a traceback, never a silent wrong answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sigrun import ArtifactError, ProviderError, Siglip, SigrunError
from sigrun.gguf import GgufFile

PICTURE = np.zeros((9, 9, 3), np.uint8)


@cache
def contents(
    path: Path,
) -> tuple[list[tuple[str, Any, list[Any]]], list[tuple[str, bytes, Any, tuple[int, ...]]]]:
    """Every metadata field and every tensor of a file, as the gguf package reads them."""
    reader = gguf.GGUFReader(path)
    fields = [
        (name, field.contents(), field.types)
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.") and name != "general.architecture"
    ]
    return fields, [
        (t.name, t.data.tobytes(), t.tensor_type, tuple(reversed(t.shape.tolist()))) for t in reader.tensors
    ]


def rewritten(
    source: Path,
    target: Path,
    manifest: Callable[[dict[str, Any]], None] = lambda _: None,
    metadata: dict[str, int] | None = None,
    blobs: Callable[[dict[str, bytes]], None] = lambda _: None,
) -> Path:
    """A copy of an artifact with a changed manifest, changed whole-number metadata, or changed tensors."""
    fields, tensors = contents(source)
    writer = gguf.GGUFWriter(target, "siglip")
    for name, value, types in fields:
        if name == "sigrun.manifest":
            data = json.loads(value)
            manifest(data)
            value = json.dumps(data)
        value = (metadata or {}).get(name, value)
        if types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_key_value(name, value, types[0], sub_type=types[-1])
        else:
            writer.add_key_value(name, value, types[0])
    data_of = {name: raw for name, raw, _, _ in tensors}
    blobs(data_of)
    for name, _, kind, shape in tensors:
        raw = np.frombuffer(data_of[name], np.uint8)
        if kind == gguf.GGMLQuantizationType.I8:
            writer.add_tensor(name, raw.view(np.int8))
        else:
            writer.add_tensor(name, raw.reshape(gguf.quant_shape_to_byte_shape(shape, kind)), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def use(path: Path) -> None:
    with Siglip.load(path) as model:
        model.classify(PICTURE, ["owl"])


def test_rewriting_alone_changes_nothing(tiny_q4: Path, tmp_path: Path) -> None:
    use(rewritten(tiny_q4, tmp_path / "same.gguf"))


def test_damaged_weights_are_named(tiny_q4: Path, tmp_path: Path) -> None:
    """One bit anywhere in the weights or graphs: the answer must not come out slightly wrong."""
    content = tiny_q4.read_bytes()
    with GgufFile(tiny_q4) as file:
        infos = list(file.tensors.values())
    for info in infos[:: max(1, len(infos) // 12)]:
        spoiled = bytearray(content)
        spoiled[info.offset + info.nbytes // 2] ^= 4
        path = tmp_path / "spoiled.gguf"
        path.write_bytes(spoiled)
        if info.name.startswith("graph.") and info.name.endswith("int8"):
            continue  # not used in form exact
        with pytest.raises(ArtifactError, match="is damaged") as caught:
            use(path)
        assert info.name.split(".")[1] in str(caught.value)


def set_in(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        for key in keys[:-1]:
            data = data[key]
        assert keys[-1] in data
        data[keys[-1]] = value

    return change


def pieces(name: str, axis: str, count: int) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        data["graphs"]["image"]["exact"]["pieces"] = {name: {"axis": axis, "count": count}}

    return change


def swap_graphs(data: dict[str, Any]) -> None:
    for form in ("exact", "int8"):
        image, text = data["graphs"]["image"][form], data["graphs"]["text"][form]
        image["sha256"], text["sha256"] = text["sha256"], image["sha256"]


def swap_graph_blobs(blobs: dict[str, bytes]) -> None:
    for form in ("exact", "int8"):
        a, b = f"graph.image.{form}", f"graph.text.{form}"
        # Lengths differ, and so do the tensors' declared sizes, which the writer takes from the bytes.
        blobs[a], blobs[b] = blobs[b], blobs[a]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (set_in("preprocessing", "height", value=64), "but the image tower takes 33"),
        (set_in("preprocessing", "mean", value=[10**400, 0, 0]), "mean"),
        (set_in("preprocessing", "std", value=[0, 1, 1]), "std"),
        (set_in("scoring", "logit_scale", value=10**400), "logit_scale"),
        (set_in("scoring", "logit_scale", value=1000), "logit_scale"),
        (set_in("scoring", "logit_bias", value="low"), "logit_bias"),
        (set_in("bits_per_weight", value={}), "bits_per_weight"),
        (set_in("graphs", "image", "exact", "weights", "v.post_ln.bias", value="nbits"), "as a matrix"),
        (set_in("graphs", "image", "exact", "weights", "v.post_ln.bias", value="sparse"), "sparse"),
        (pieces("v.post_ln.bias", "outputs", 2), "v.post_ln.bias is no matrix that the graph takes as nbits"),
        (pieces("v.nothing", "outputs", 2), "v.nothing is no matrix"),
        (pieces("v.blk.0.attn_q.weight", "rows", 2), "axis is 'rows'; known: outputs, inputs"),
        (pieces("v.blk.0.attn_q.weight", "outputs", True), "count is not a number from 2 to 1024"),
        (pieces("v.blk.0.attn_q.weight", "outputs", 10**30), "count is not a number from 2 to 1024"),
        (pieces("v.blk.0.attn_q.weight", "outputs", 1), "count is not a number from 2 to 1024"),
        (pieces("v.blk.0.attn_q.weight", "outputs", 1024), "cannot be cut into 1024 pieces of its outputs"),
        (pieces("v.blk.0.attn_q.weight", "inputs", 5), "cannot be cut into 5 pieces of its inputs"),
        (pieces("v.blk.0.attn_q.weight", "inputs", 3), "cannot load the image tower"),
        (set_in("tensors", "v.blk.0.attn_q.weight", "shape", value=[48, 192]), "v.blk.0.attn_q.weight"),
        (set_in("tensors", "v.blk.0.attn_q.weight", "fold", value=1), "but the manifest says"),
        (set_in("tensors", "v.blk.0.attn_q.weight", "encoding", value="q6_k"), "but the manifest says"),
        (set_in("architecture", "text", value=None), "architecture.text"),
        (set_in("canonicalisation", value="loud"), "loud"),
        (set_in("format", value=4), "format is 4"),
        (set_in("source", value=[]), "source"),
    ],
)
def test_contradictions_are_named(
    tiny_q4: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    path = rewritten(tiny_q4, tmp_path / "tampered.gguf", change)
    with pytest.raises(SigrunError) as caught:
        use(path)
    assert says in str(caught.value)


def test_a_context_that_the_graph_does_not_have(tiny_q4: Path, tmp_path: Path) -> None:
    path = rewritten(tiny_q4, tmp_path / "short.gguf", metadata={"siglip.text.context_length": 32})
    with pytest.raises(ArtifactError, match="context_length is 32"):
        use(path)


def test_swapped_graphs_are_no_towers(tiny_q4: Path, tmp_path: Path) -> None:
    path = rewritten(tiny_q4, tmp_path / "swapped.gguf", swap_graphs, blobs=swap_graph_blobs)
    with pytest.raises((ArtifactError, ProviderError)):
        use(path)


def test_results_that_are_no_numbers_are_an_error(
    tiny_q4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sigrun.artifact import Artifact

    dense = Artifact.dense
    monkeypatch.setattr(Artifact, "dense", lambda self, name: dense(self, name) * np.float32(np.nan))
    with pytest.raises(ArtifactError, match="no numbers"):
        use(tiny_q4)


def test_overlapping_tensors_are_refused(tiny_q4: Path, tmp_path: Path) -> None:
    """Many tensors over one region would unpack to far more than the file."""
    content = bytearray(tiny_q4.read_bytes())
    with GgufFile(tiny_q4) as file:
        names = sorted(file.tensors, key=lambda n: file.tensors[n].offset)
        base = file.tensors[names[0]].offset
        target = file.tensors[names[3]]
    head = bytes(content[:base])
    at = head.index(target.name.encode()) + len(target.name) + 4 + 8 * len(target.shape) + 4
    assert int.from_bytes(content[at : at + 8], "little") == target.offset - base
    content[at : at + 8] = (0).to_bytes(8, "little")
    path = tmp_path / "overlap.gguf"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="overlap"):
        GgufFile(path)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_manifest_never_crashes_the_model(
    tiny_q4: Path, tmp_path: Path, data: st.DataObject
) -> None:
    """Characters of the manifest's text are changed; the model then works, or fails with an error of ours."""
    content = bytearray(tiny_q4.read_bytes())
    start = content.index(b'{"architecture"')
    stop = content.index(b'"weights_sha256"') + 80
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(start, stop))
        content[at] = data.draw(st.sampled_from(list(b'0123456789"{}[],:.-eEnatru')))
    path = tmp_path / "mutated.gguf"
    path.write_bytes(content)
    try:
        use(path)
    except SigrunError as error:
        assert str(error)
