"""Writes the GGUF file: hyperparameters, tokenizer, manifest, graphs and weights."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from sigrun.artifact import ARCHITECTURE, TOKENIZER_MODELS, graph_name
from sigrun.manifest import KEY, Manifest
from sigrun.tokens import TokenizerSpec
from sigrun_exporters.graph import Graphs
from sigrun_exporters.store import WeightStore
from sigrun_recipes import ImageTower, Plan, TextTower

FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q6_k": gguf.LlamaFileType.MOSTLY_Q6_K,
    "q5_k_m": gguf.LlamaFileType.MOSTLY_Q5_K_M,
    "q4_k_m": gguf.LlamaFileType.MOSTLY_Q4_K_M,
    "q4_k_s": gguf.LlamaFileType.MOSTLY_Q4_K_S,
}
"""The number that other GGUF tools show as the file's type, by recipe."""
ALIGNMENT = 32  # of each tensor in the file: the format's default


def write_gguf(
    path: Path,
    manifest: Manifest,
    tokenizer: TokenizerSpec | None,
    graphs: Graphs,
    store: WeightStore,
) -> None:
    """Write the artifact. Equal input gives equal bytes.

    Args:
        path: the file to write.
        manifest: what the file says of itself.
        tokenizer: what cuts text into tokens; none without a text tower.
        graphs: tower → compute form → graph.
        store: the weights.
    """
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    try:
        blobs = _write_head(writer, manifest, store.plan, tokenizer, graphs)
        for blob in blobs:
            writer.write_tensor_data(blob)
        for tensor in store.plan.tensors:
            writer.write_tensor_data(store.read(tensor))
    finally:
        writer.close()


def gguf_head_nbytes(
    path: Path,
    manifest: Manifest,
    plan: Plan,
    tokenizer: TokenizerSpec | None,
    graphs: Graphs,
) -> int:
    """Bytes of all that comes before the first tensor's data; written to ``path`` to find out."""
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    try:
        _write_head(writer, manifest, plan, tokenizer, graphs)
    finally:
        writer.close()
    return path.stat().st_size


def _write_head(
    writer: gguf.GGUFWriter,
    manifest: Manifest,
    plan: Plan,
    tokenizer: TokenizerSpec | None,
    graphs: Graphs,
) -> list[NDArray[np.int8]]:
    """Metadata and the list of tensors; gives the graphs as they are to follow."""
    architecture = plan.architecture  # as stored, after the rewrites
    _add_general(writer, manifest)
    if architecture.image is not None:
        _add_image(writer, architecture.image, manifest)
    if architecture.text is not None:
        _add_text(writer, architecture.text)
    if tokenizer is not None:
        _add_tokenizer(writer, tokenizer)
    if manifest.scoring is not None:
        writer.add_float32(f"{ARCHITECTURE}.logit_scale", manifest.scoring.logit_scale)
        writer.add_float32(f"{ARCHITECTURE}.logit_bias", manifest.scoring.logit_bias)
    writer.add_string(KEY, manifest.to_json())
    blobs = {
        graph_name(tower, form): np.frombuffer(graph.model, np.int8)
        for tower, forms in graphs.items()
        for form, graph in forms.items()
    }
    for name, blob in blobs.items():
        writer.add_tensor_info(name, blob.shape, blob.dtype, blob.nbytes)
    for tensor in plan.tensors:
        kind = gguf.GGMLQuantizationType(tensor.encoding.ggml_id)
        byte_shape = gguf.quant_shape_to_byte_shape(tensor.stored_shape, kind)
        writer.add_tensor_info(
            tensor.spec.name, byte_shape, np.dtype(np.uint8), tensor.nbytes, raw_dtype=kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    return list(blobs.values())


def _add_general(writer: gguf.GGUFWriter, manifest: Manifest) -> None:
    writer.add_name(manifest.model)
    towers = " and ".join(manifest.graphs)
    plural = "s" if len(manifest.graphs) > 1 else ""
    writer.add_description(f"SigLIP {towers} tower{plural}, {manifest.variant}, made by {manifest.generator}")
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if manifest.variant in FILE_TYPES:
        writer.add_file_type(FILE_TYPES[manifest.variant])
    if manifest.source.licence is not None:
        writer.add_license(manifest.source.licence)


def _add_image(writer: gguf.GGUFWriter, tower: ImageTower, manifest: Manifest) -> None:
    prefix = f"{ARCHITECTURE}.vision"
    writer.add_uint32(f"{prefix}.image_size", tower.image_size)
    writer.add_uint32(f"{prefix}.patch_size", tower.patch_size)
    writer.add_array(f"{prefix}.image_mean", list(manifest.preprocessing.mean))
    writer.add_array(f"{prefix}.image_std", list(manifest.preprocessing.std))
    _add_tower(writer, prefix, tower)


def _add_text(writer: gguf.GGUFWriter, tower: TextTower) -> None:
    prefix = f"{ARCHITECTURE}.text"
    writer.add_uint32(f"{prefix}.context_length", tower.context)
    writer.add_uint32(f"{prefix}.vocab_size", tower.vocabulary)
    _add_tower(writer, prefix, tower)


def _add_tower(writer: gguf.GGUFWriter, prefix: str, tower: ImageTower | TextTower) -> None:
    writer.add_uint32(f"{prefix}.embedding_length", tower.width)
    writer.add_uint32(f"{prefix}.feed_forward_length", tower.mlp)
    writer.add_uint32(f"{prefix}.projection_dim", tower.embedding)
    writer.add_uint32(f"{prefix}.block_count", tower.layers)
    writer.add_uint32(f"{prefix}.attention.head_count", tower.heads)
    writer.add_float32(f"{prefix}.attention.layer_norm_epsilon", tower.eps)
    writer.add_string(f"{prefix}.activation", tower.activation)


def _add_tokenizer(writer: gguf.GGUFWriter, spec: TokenizerSpec) -> None:
    writer.add_tokenizer_model(next(name for name, kind in TOKENIZER_MODELS.items() if kind == spec.kind))
    writer.add_token_list(list(spec.pieces))
    writer.add_token_scores(spec.scores.tolist())
    writer.add_token_types(spec.types.tolist())
    writer.add_precompiled_charsmap(spec.charsmap)  # left out if empty
    writer.add_add_space_prefix(spec.add_dummy_prefix)
    writer.add_remove_extra_whitespaces(spec.remove_extra_whitespaces)
    writer.add_bool("tokenizer.ggml.escape_whitespaces", spec.escape_whitespaces)
    writer.add_eos_token_id(spec.eos_id)
    writer.add_pad_token_id(spec.pad_id)
    writer.add_unk_token_id(spec.unk_id)
    writer.add_add_eos_token(True)
    writer.add_add_bos_token(False)
