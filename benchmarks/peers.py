"""What people use today at 4 and 8 bits: ONNX Runtime's own quantizers on optimum's export of the bundled model."""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from benchmarks.emoji_accuracy import CHECKPOINT, Embedded, drawings
from benchmarks.exports import WORK, say
from sigrun.pixels import to_pixels
from sigrun.tokens import Tokenizer
from sigrun_exporters.checkpoint import open_checkpoint

Quantizer = Callable[[Path, Path], None]
"""Reads the first file and writes the second."""
TODAY = "MatMulNBits 4 bit, symmetric (q4 of transformers.js)"
PARTS = (("pixel_values", "image_embeds"), ("input_ids", "text_embeds"))


@dataclass(frozen=True)
class Peer:
    """One quantizer's result.

    Attributes:
        name: what it is.
        nbytes: of both towers' ONNX files.
        float_bytes: how many of those are float32 weights.
        embedded: of the held-out drawings.
    """

    name: str
    nbytes: int
    float_bytes: int
    embedded: Embedded


def peers() -> list[Peer]:
    """Export with optimum, split into its towers, quantize in each way, and embed. Needs the extra ``reference``."""
    logging.disable(logging.WARNING)  # the quantizers tell of every node they leave
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        parts = _towers(Path(folder))
        found = []
        for name, quantizer in QUANTIZERS.items():
            say(f"peer: {name}")
            files = []
            for part in parts:
                file = part.with_name(f"{part.stem}-quantized.onnx")
                quantizer(part, file)
                files.append(file)
            found.append(_peer(name, files))
    return found


def _towers(folder: Path) -> list[Path]:
    """Optimum's float32 export as one ONNX file a tower."""
    sys.modules.setdefault("torchvision", None)  # type: ignore[arg-type]  # transformers needs none here
    from optimum.exporters.onnx import main_export
    from transformers import logging as transformers_logging

    transformers_logging.set_verbosity_error()

    say("peer: optimum's export")
    with warnings.catch_warnings(), contextlib.redirect_stdout(None):
        warnings.simplefilter("ignore")  # the tracer's, about its own code
        main_export(str(CHECKPOINT), folder, task="zero-shot-image-classification", do_validation=False)
    files = []
    for given, wanted in PARTS:
        file = folder / f"{wanted}.onnx"
        onnx.utils.extract_model(folder / "model.onnx", file, [given], [wanted])
        files.append(file)
    return files


def _keep(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


def _q4(**options: Any) -> Quantizer:
    def quantize(source: Path, target: Path) -> None:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantizer = MatMulNBitsQuantizer(onnx.load(source), bits=4, block_size=32, **options)
        quantizer.process()
        onnx.save(quantizer.model.model, target)

    return quantize


def _q8(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source,
        target,
        weight_type=QuantType.QUInt8,
        extra_options={"EnableSubgraph": True, "MatMulConstBOnly": True},
    )


QUANTIZERS: dict[str, Quantizer] = {
    "optimum, fp32": _keep,
    TODAY: _q4(is_symmetric=True),
    "MatMulNBits 4 bit, asymmetric": _q4(is_symmetric=False),
    "dynamic uint8 (q8 of transformers.js)": _q8,
}


def _peer(name: str, files: list[Path]) -> Peer:
    """Embed the held-out drawings and names, one at a time."""
    pictures, captions = drawings()
    checkpoint = open_checkpoint(str(CHECKPOINT))
    assert checkpoint.tokenizer is not None and checkpoint.scoring is not None
    pixels = [to_pixels(picture, checkpoint.preprocessing)[None] for picture in pictures]
    ids = [row[None] for row in Tokenizer(checkpoint.tokenizer).encode(captions).ids]
    images, texts = (
        _run(file, given, items) for file, (given, _), items in zip(files, PARTS, (pixels, ids), strict=True)
    )
    return Peer(
        name,
        sum(file.stat().st_size for file in files),
        sum(_float_bytes(file) for file in files),
        Embedded(images, texts, checkpoint.scoring),
    )


def _run(file: Path, given: str, items: list[NDArray[Any]]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    rows = np.concatenate([session.run(None, {given: item})[0] for item in items])
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _float_bytes(file: Path) -> int:
    """Bytes of a model's float32 initializers of two dimensions or more: what the quantizer left."""
    model = onnx.load(file)
    return sum(
        4 * int(np.prod(tensor.dims))
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1 and tensor.dims[-1] > 1
    )
