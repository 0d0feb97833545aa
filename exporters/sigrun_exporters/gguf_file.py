"""Writes the GGUF file: hyperparameters, tokenizer, manifest, graphs and weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

from sigrun.artifact import ARCHITECTURE, graph_name
from sigrun.manifest import KEY, Manifest
from sigrun.tokens import TokenizerSpec
from sigrun_exporters.graph import Graph
from sigrun_exporters.store import WeightStore
from sigrun_recipes import Architecture, ImageTower, TextTower, TowerName

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

Graphs = Mapping[TowerName, Mapping[str, Graph]]


def write_gguf(
    path: Path,
    manifest: Manifest,
    architecture: Architecture,
    tokenizer: TokenizerSpec,
    graphs: Graphs,
    store: WeightStore,
) -> None:
    """Write the artifact. Equal input gives equal bytes.

    Args:
        path: the file to write.
        manifest: what the file says of itself.
        architecture: the towers as stored, after the rewrites.
        tokenizer: what cuts text into tokens.
        graphs: tower → compute form → graph.
        store: the weights.
    """
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    try:
        _add_general(writer, manifest)
        if architecture.image is not None:
            _add_image(writer, architecture.image, manifest)
        if architecture.text is not None:
            _add_text(writer, architecture.text)
            _add_tokenizer(writer, tokenizer)
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
        for tensor in store.plan.tensors:
            kind = gguf.GGMLQuantizationType(tensor.encoding.ggml_id)
            byte_shape = gguf.quant_shape_to_byte_shape(tensor.stored_shape, kind)
            writer.add_tensor_info(
                tensor.spec.name, byte_shape, np.dtype(np.uint8), tensor.nbytes, raw_dtype=kind
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for blob in blobs.values():
            writer.write_tensor_data(blob)
        for tensor in store.plan.tensors:
            writer.write_tensor_data(store.read(tensor))
    finally:
        writer.close()


def _add_general(writer: gguf.GGUFWriter, manifest: Manifest) -> None:
    writer.add_name(manifest.model)
    writer.add_description(f"SigLIP image and text towers, {manifest.variant}, made by {manifest.generator}")
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


def _add_tokenizer(writer: gguf.GGUFWriter, spec: TokenizerSpec) -> None:
    writer.add_tokenizer_model("t5")
    writer.add_token_list(list(spec.pieces))
    writer.add_token_scores(spec.scores.tolist())
    writer.add_token_types(spec.types.tolist())
    writer.add_precompiled_charsmap(spec.charsmap)
    writer.add_add_space_prefix(spec.add_dummy_prefix)
    writer.add_remove_extra_whitespaces(spec.remove_extra_whitespaces)
    writer.add_bool("tokenizer.ggml.escape_whitespaces", spec.escape_whitespaces)
    writer.add_eos_token_id(spec.eos_id)
    writer.add_pad_token_id(spec.pad_id)
    writer.add_unk_token_id(spec.unk_id)
    writer.add_add_eos_token(True)
    writer.add_add_bos_token(False)
