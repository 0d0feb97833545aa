"""The folder for other hosts: plain ONNX files that need nothing of ours, from the stored numbers of one export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from sigrun.manifest import Manifest
from sigrun.spm import TokenizerSpec, model_proto
from sigrun_exporters.graph import Form, Graphs
from sigrun_exporters.onnx_bundle.model_file import Written, write_beside, write_plain
from sigrun_exporters.onnx_bundle.preprocess import preprocess_model
from sigrun_exporters.onnx_bundle.tokenizer_json import tokenizer_json
from sigrun_exporters.onnx_bundle.towers import bundle_models, describe
from sigrun_exporters.onnx_bundle.weights import arrays
from sigrun_exporters.store import WeightStore
from sigrun_recipes import Plan

MANIFEST = "manifest.json"


def write_bundle(
    folder: Path,
    manifest: Manifest,
    plan: Plan,
    store: WeightStore,
    tokenizer: TokenizerSpec | None,
    *,
    form: Form = "exact",
    graphs: Graphs,
) -> None:
    """Write ``image.onnx``, ``text.onnx``, ``preprocess.onnx``, the tokenizer and ``manifest.json``.

    Equal input gives equal bytes. One array is in memory at a time.

    Args:
        folder: an empty folder.
        manifest: what the export says of itself.
        plan: how each tensor is stored.
        store: the weights.
        tokenizer: what cuts text into tokens; none without a text tower.
        form: the compute form of the towers.
        graphs: tower → compute form → graph.

    Raises:
        CheckpointError: ONNX cannot prepare pictures as the model asks.
        OSError: a file cannot be written.
    """
    files: dict[str, Written] = {}
    if "image" in graphs:
        preprocess = preprocess_model(manifest.preprocessing)
        describe(preprocess, manifest, form)
        files |= write_plain(folder / "preprocess.onnx", preprocess.SerializeToString(deterministic=True))
    for tower, model in bundle_models(plan, graphs, form).items():
        describe(model.proto, manifest, form)
        weights = arrays(store, model.weights, model.pieces, model.names)
        files |= write_beside(folder / f"{tower}.onnx", model.proto, weights, ".data")
    if tokenizer is not None:
        files |= write_plain(folder / "tokenizer.model", model_proto(tokenizer))
        files |= write_plain(folder / "tokenizer.json", tokenizer_json(tokenizer))
    write_manifest(folder, manifest, form, files)


def is_ours(folder: Path) -> bool:
    """Whether a folder holds the manifest of an export of ours."""
    try:
        content = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "bundle" in content and "weights_sha256" in content


def write_manifest(folder: Path, manifest: Manifest, form: Form, files: Mapping[str, Written]) -> None:
    """Write ``manifest.json``: the export's manifest, and under ``bundle`` the form and the files.

    Of the verification it keeps what was measured on these very numbers: the folder's own form, and nothing for
    ``int8``, which keeps to 7 bits here and was measured with as many as the exporting machine multiplies.
    """
    content = json.loads(manifest.to_json())
    content["graphs"] = {}  # those of the GGUF file; the folder's own are among its files
    if content["verification"] is not None:
        measured = {form: content["verification"]["forms"][form]} if form != "int8" else {}
        content["verification"] |= {"forms": measured, "int8": {}}
    content["bundle"] = {
        "form": form,
        "files": {name: {"bytes": f.nbytes, "sha256": f.sha256} for name, f in files.items()},
    }
    text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    write_plain(folder / MANIFEST, text.encode("utf-8"))
