"""Who is measured, and who cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.synthetic import FOLDER
from benchmarks.today.environments import MissingError, openvino
from benchmarks.today.files import Files

VARIANTS = ("q4_k_m", "q8_0")


@dataclass(frozen=True)
class Peer:
    """A runtime with its files.

    Attributes:
        name: as the tables call it.
        runtime: one of ``runtimes.RUNTIMES``.
        option: the compute form or the type of numbers, where the runtime has several; none: its own choice.
        files: the step of ``convert`` that makes them; of ours, the variant; none: the checkpoint itself.
        cache: what ours finds in its cache folder: nothing, and keeps nothing; nothing as yet; all of it.
    """

    name: str
    runtime: str
    option: str = ""
    files: str = ""
    cache: Literal["off", "empty", "filled"] = "off"


OPEN_CLIP = "ViT-SO400M-14-SigLIP-384"
ONNX = "ONNX Runtime, fp32"
TORCH = "transformers, fp32"
"""What the others are compared with."""
PEERS = (
    Peer("Sigrun q4_k_m, exact", "sigrun", "exact", "q4_k_m"),
    Peer("Sigrun q4_k_m, int8, nothing cached", "sigrun", "int8", "q4_k_m", "empty"),
    Peer("Sigrun q4_k_m, int8", "sigrun", "int8", "q4_k_m", "filled"),
    Peer("Sigrun q8_0, int8", "sigrun", "int8", "q8_0", "filled"),
    Peer(TORCH, "transformers", "float32"),
    Peer("transformers, bf16", "transformers", "bfloat16"),
    Peer("open_clip, fp32", "open_clip", OPEN_CLIP, "open_clip"),
    Peer(ONNX, "onnxruntime", "", "onnx"),
    Peer("ONNX Runtime, dynamic int8", "onnxruntime", "", "dynamic"),
    Peer("ONNX Runtime, 4 bit, blocks of 32", "onnxruntime", "", "nbits32"),
    Peer("ONNX Runtime, 4 bit, blocks of 128", "onnxruntime", "", "nbits128"),
    Peer("OpenVINO, fp32", "openvino", "f32", "openvino"),
    Peer("OpenVINO, bf16", "openvino", "bf16", "openvino"),
    Peer("OpenVINO, int8 weights", "openvino", "", "openvino_weights"),
    Peer("OpenVINO, int8 weights and activations", "openvino", "", "openvino_quantized"),
)
LEFT_OUT = {
    "fastembed": "runs a fixed list of models, and takes pictures to ResNet-50 and CLIP ViT-B/32 and their like: "
    "no SigLIP of this size is among them",
}
"""Runtimes that cannot run this model, and why."""


def find(peer: Peer, files: Files) -> tuple[Path, Path | None]:
    """The files of another's runtime, and the interpreter it needs, ``None`` for this one.

    Returns:
        A folder with one ONNX or OpenVINO file a tower, or what both towers are read from.

    Raises:
        MissingError: it cannot be had here.
    """
    if peer.runtime == "open_clip":
        if files.checkpoint.resolve() != FOLDER.resolve():
            raise MissingError(f"knows this architecture under no name; it has {OPEN_CLIP}")
        return files.made("open_clip") / "open_clip_model.safetensors", None
    if peer.runtime == "transformers":
        return files.checkpoint, None
    return files.made(peer.files), openvino() if peer.runtime == "openvino" else None


def tower_path(peer: Peer, path: Path, tower: str) -> Path:
    """The file that a child opens."""
    suffix = {"onnxruntime": ".onnx", "openvino": ".xml"}.get(peer.runtime)
    return path / f"{tower}{suffix}" if suffix else path


def disk_bytes(peer: Peer, path: Path) -> int:
    """Bytes of the weights and graphs of both towers, without what a cache holds."""
    if path.is_file():
        return path.stat().st_size
    if peer.runtime == "transformers":
        return (path / "model.safetensors").stat().st_size
    return sum(p.stat().st_size for p in path.iterdir() if p.suffix != ".json")
