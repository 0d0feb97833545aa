"""Embeddings by programs that share no code with ours, where they are installed (extra ``reference``)."""

from __future__ import annotations

import importlib
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigrun.errors import SigrunError
from sigrun.manifest import TowerName
from sigrun_exporters.verify.inputs import Inputs

Floats = NDArray[np.float32]
BATCH = 4


class OracleError(SigrunError):
    """A reference program is not installed, or cannot run the checkpoint."""


def transformers(folder: Path, seen: Inputs) -> dict[TowerName, Floats]:
    """Embeddings by transformers' SiglipModel in torch, float32.

    Raises:
        OracleError: it is not installed, or refuses the folder.
    """
    torch = _installed("torch")
    _hide_unusable_torchvision()
    library = _installed("transformers")
    library.logging.set_verbosity_error()
    try:
        model = library.SiglipModel.from_pretrained(folder).float().eval()
    except Exception as error:  # whatever the library raises
        raise OracleError(f"{folder}: transformers cannot load it: {error}") from error
    with torch.no_grad():
        images = [
            model.get_image_features(torch.from_numpy(batch)).numpy() for batch in _batches(seen.pixels)
        ]
        texts = [model.get_text_features(torch.from_numpy(batch)).numpy() for batch in _batches(seen.ids)]
    return {"image": _unit(np.concatenate(images)), "text": _unit(np.concatenate(texts))}


def optimum(folder: Path, seen: Inputs) -> dict[TowerName, Floats]:
    """Embeddings by optimum's own ONNX export of the folder, in ONNX Runtime.

    Raises:
        OracleError: it is not installed, or refuses the folder.
    """
    _hide_unusable_torchvision()
    exporter, ort = _installed("optimum.exporters.onnx"), _installed("onnxruntime")
    _installed("transformers").logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as out, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, about its own code
        try:
            exporter.main_export(str(folder), out, task="zero-shot-image-classification", do_validation=False)
        except Exception as error:  # whatever the library raises
            raise OracleError(f"{folder}: optimum cannot export it: {error}") from error
        session = ort.InferenceSession(str(Path(out) / "model.onnx"), providers=["CPUExecutionProvider"])
        images, texts = [], []
        for batch in _batches(seen.pixels):
            given = {"pixel_values": batch, "input_ids": seen.ids[:1]}
            images.append(session.run(["image_embeds"], given)[0])
        for batch in _batches(seen.ids):
            given = {"pixel_values": np.stack(seen.pixels[:1]), "input_ids": batch}
            texts.append(session.run(["text_embeds"], given)[0])
    return {"image": _unit(np.concatenate(images)), "text": _unit(np.concatenate(texts))}


ORACLES: dict[str, Callable[[Path, Inputs], dict[TowerName, Floats]]] = {
    "transformers": transformers,
    "optimum": optimum,
}


def _installed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise OracleError(f"{name} is not installed", hint='pip install "sigrun[reference]"') from error


def _hide_unusable_torchvision() -> None:
    """Let transformers do without a torchvision that does not fit the torch beside it; it needs none here."""
    try:
        importlib.import_module("torchvision")
    except Exception:  # a mismatch shows as whatever its import runs into
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision"] = None  # type: ignore[assignment]  # how Python marks what cannot be imported


def _batches(items: Any) -> list[NDArray[Any]]:
    return [np.stack(items[i : i + BATCH]) for i in range(0, len(items), BATCH)]


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
