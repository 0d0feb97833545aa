"""How each runtime opens a tower. Every opener imports its own library, and nothing else does."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.today.given import Given, Tower

Embed = Callable[[NDArray[Any]], NDArray[np.float32]]
"""Items as the runtime takes them → embeddings, float32 [n, width], of any length."""
Open = Callable[[], Embed]
"""Reads the weights; the library is imported by then."""


@dataclass(frozen=True)
class Job:
    """What a child is to open.

    Attributes:
        runtime: one of :data:`RUNTIMES`.
        path: the file, or the folder of a checkpoint.
        tower: which of its towers.
        option: the compute form or the type of numbers, where the runtime has several.
        threads: threads within one run.
    """

    runtime: str
    path: str
    tower: Tower
    option: str
    threads: int


def items(job: Job, given: Given) -> NDArray[Any]:
    """What the runtime is given, one row an item: ours takes pictures and texts, the others what towers take."""
    if job.runtime == "sigrun":
        return given.pictures if job.tower == "image" else np.array(given.texts, object)
    return given.items(job.tower)


def _sigrun(job: Job) -> Open:
    from sigrun import Siglip

    def load() -> Embed:
        model = Siglip.load(job.path, compute=job.option, threads=job.threads, towers=job.tower)
        if job.tower == "image":
            return lambda batch: model.embed_images(list(batch)).vectors
        return lambda batch: model.embed_texts(list(batch)).vectors

    return load


def _transformers(job: Job) -> Open:
    sys.modules.setdefault("torchvision", None)  # type: ignore[arg-type]  # transformers needs none here
    import torch
    from transformers import SiglipTextModel, SiglipVisionModel, logging

    logging.set_verbosity_error()  # it says that the checkpoint holds another tower too
    torch.set_num_threads(job.threads)
    dtype = getattr(torch, job.option)

    def load() -> Embed:
        kind = SiglipVisionModel if job.tower == "image" else SiglipTextModel
        model = kind.from_pretrained(job.path, torch_dtype=dtype).eval()

        def embed(batch: NDArray[Any]) -> NDArray[np.float32]:
            tensor = torch.from_numpy(batch)
            with torch.inference_mode():
                found = model(tensor.to(dtype) if job.tower == "image" else tensor).pooler_output
            values: NDArray[np.float32] = found.float().numpy()
            return values

        return embed

    return load


def _open_clip(job: Job) -> Open:
    importlib.import_module(
        "tests.torchvision_without_cuda"
    )  # lets open_clip be imported where torch has no CUDA
    import open_clip
    import torch

    torch.set_num_threads(job.threads)

    def load() -> Embed:
        model = open_clip.create_model(job.option, pretrained=job.path).eval()
        encode = model.encode_image if job.tower == "image" else model.encode_text

        def embed(batch: NDArray[Any]) -> NDArray[np.float32]:
            with torch.inference_mode():
                values: NDArray[np.float32] = encode(torch.from_numpy(batch)).numpy()
            return values

        return embed

    return load


def _onnxruntime(job: Job) -> Open:
    import onnxruntime

    def load() -> Embed:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(job.path, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name

        def embed(batch: NDArray[Any]) -> NDArray[np.float32]:
            values: NDArray[np.float32] = session.run(None, {name: batch})[0]
            return values

        return embed

    return load


def _openvino(job: Job) -> Open:
    import openvino

    def load() -> Embed:
        settings: dict[str, object] = {"INFERENCE_NUM_THREADS": job.threads, "PERFORMANCE_HINT": "LATENCY"}
        if job.option:
            settings["INFERENCE_PRECISION_HINT"] = job.option
        compiled = openvino.Core().compile_model(job.path, "CPU", settings)

        def embed(batch: NDArray[Any]) -> NDArray[np.float32]:
            values: NDArray[np.float32] = compiled(batch)[0].astype(np.float32)
            return values

        return embed

    return load


RUNTIMES: dict[str, Callable[[Job], Open]] = {
    "sigrun": _sigrun,
    "transformers": _transformers,
    "open_clip": _open_clip,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
