"""The folder as transformers.js and optimum expect it of a model on the Hugging Face hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from sigrun.manifest import Manifest, Packing
from sigrun.nbits import NBITS_FORMS
from sigrun.spm import TokenizerSpec
from sigrun_exporters.graph import Form, Graphs
from sigrun_exporters.onnx_bundle import hub_files
from sigrun_exporters.onnx_bundle.bundle import write_manifest
from sigrun_exporters.onnx_bundle.hub_graphs import add_last_hidden_state, add_pooler_output, joint_model
from sigrun_exporters.onnx_bundle.model_file import (
    Written,
    weight_bytes,
    write_beside,
    write_inside,
    write_plain,
)
from sigrun_exporters.onnx_bundle.towers import Model, describe, image_model, text_model
from sigrun_exporters.onnx_bundle.weights import arrays
from sigrun_exporters.store import WeightStore
from sigrun_recipes import Plan

GRAPHS = "onnx"
MOST_BYTES = 2_000_000_000
"""Weights that still go inside a model file, which may be no larger than 2 GiB, and into one data file beside it,
which browsers read into one buffer."""
SUFFIXES = {"fp32": "", "fp16": "_fp16", "q8": "_quantized", "q4": "_q4", "q4f16": "_q4f16"}
"""transformers.js' names of kinds, and what its file names have for them."""


def dtype_of(plan: Plan, form: Form, weights: Mapping[str, Packing]) -> str:
    """What transformers.js would call these files: by the bits in which most of the matrices' weights lie there.

    ``q4`` and ``q8`` for 4-bit and 8-bit numbers; Q6_K and Q5_K lie as 8-bit numbers in an ONNX file, and so are
    ``q8``. Where activations are float16, ``q4f16`` and ``fp16``, of which the latter stands for 8-bit numbers too,
    because there is no name for them.
    """
    bits: Counter[int] = Counter()
    for tensor in plan.tensors:
        packing = weights.get(tensor.spec.name)
        if tensor.spec.kind == "linear" and packing is not None:
            bits[_bits(packing, tensor.encoding.name)] += tensor.spec.size
    most = bits.most_common(1)[0][0]
    if form in ("f16", "w4f16"):
        return "q4f16" if most == 4 else "fp16"
    return {4: "q4", 8: "q8"}.get(most, "fp32")


def _bits(packing: Packing, encoding: str) -> int:
    if packing in ("nbits", "nbits16"):
        return NBITS_FORMS[encoding].bits
    return {"int8": 8, "dense16": 16}.get(packing, 32)


def write_hub(
    folder: Path,
    manifest: Manifest,
    plan: Plan,
    store: WeightStore,
    tokenizer: TokenizerSpec | None,
    *,
    form: Form = "exact",
    graphs: Graphs,
) -> None:
    """Write the graphs under ``onnx/``, and the JSON files that describe them.

    Weights lie inside the model files up to 2 GB, and beside them beyond that. Equal input gives equal bytes.

    Args, Raises: as for :func:`sigrun_exporters.onnx_bundle.bundle.write_bundle`.
    """
    models = _models(manifest, plan, form, graphs)
    dtype = dtype_of(plan, form, {n: p for tower in graphs.values() for n, p in tower[form].weights.items()})
    files: dict[str, Written] = {}
    chunks: dict[str, int] = {}
    (folder / GRAPHS).mkdir()
    for name, model in models.items():
        describe(model.proto, manifest, form)
        path = folder / GRAPHS / f"{name}{SUFFIXES[dtype]}.onnx"
        weights = arrays(store, model.weights, model.pieces, model.names)
        if weight_bytes(model.proto) <= MOST_BYTES:
            written = write_inside(path, model.proto, weights)
        else:
            written = write_beside(path, model.proto, weights, "_data", MOST_BYTES)
            chunks[path.name] = len(written) - 1
        files |= {f"{GRAPHS}/{file}": facts for file, facts in written.items()}
    plain = {"config.json": hub_files.config(manifest, tokenizer, dtype, chunks)}
    if "image" in graphs:
        plain["preprocessor_config.json"] = hub_files.preprocessor_config(manifest, text="text" in graphs)
    if tokenizer is not None:
        plain |= hub_files.tokenizer_files(tokenizer)
    for name, data in plain.items():
        files |= write_plain(folder / name, data)
    write_manifest(folder, manifest, form, files)


def _models(manifest: Manifest, plan: Plan, form: Form, graphs: Graphs) -> dict[str, Model]:
    """File name, without suffix → model."""
    models: dict[str, Model] = {}
    image, text = graphs.get("image"), graphs.get("text")
    if image is not None and text is not None and manifest.scoring is not None:
        models["model"] = joint_model(
            image_model(image[form]), text_model(text[form], plan), manifest.scoring
        )
    if image is not None:
        models["vision_model"] = image_model(image[form])
        add_pooler_output(models["vision_model"], "image")
    if text is not None:
        models["text_model"] = text_model(text[form], plan)
        add_pooler_output(models["text_model"], "text")
        add_last_hidden_state(models["text_model"])
    return models
