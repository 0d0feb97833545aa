"""Relative error of a variant's matrices, and that of ggml's own quantizers on the same matrices with the same plan."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.quantizers import Bytes, Matrix, ggml_decode, ggml_quantize
from sigrun.artifact import Artifact
from sigrun.blocks import decode
from sigrun.cpus import default_threads
from sigrun_exporters.checkpoint import Checkpoint
from sigrun_exporters.importance import Importance
from sigrun_exporters.quantize import USE_IMPORTANCE
from sigrun_exporters.transforms import rewritten
from sigrun_recipes import Plan, TensorPlan

KINDS = ("linear", "token", "patch")


@dataclass(frozen=True)
class WeightError:
    """Norm of what storing changed over the norm of the weights, all matrices together.

    Attributes:
        ours: as the artifact holds them.
        ggml: as ggml's quantizers would.
        matrices: how many.
    """

    ours: float
    ggml: float
    matrices: int


def weight_error(
    path: Path,
    checkpoint: Checkpoint,
    plan: Plan,
    *,
    layers: tuple[int, ...] | None = None,
    importance: Importance | None = None,
    told: bool = False,
) -> WeightError:
    """Measure an artifact.

    Args:
        path: the artifact.
        checkpoint: what it was made of.
        plan: how.
        layers: only these layers of each tower, and what lies in no layer; by default all.
        importance: counts each column's squared error, and leaves out matrices that it does not know; by default
            all columns count the same.
        told: whether ggml's quantizers get the importance.
    """
    chosen = [
        t
        for t in plan.tensors
        if t.spec.kind in KINDS
        and (layers is None or t.spec.layer is None or t.spec.layer in layers)
        and (importance is None or importance.of(t) is not None)
    ]
    with Artifact.open(path) as artifact, ThreadPoolExecutor(default_threads()) as pool:

        def sums(tensor: TensorPlan) -> NDArray[np.float64]:
            values = _stored_values(checkpoint, tensor)
            counts = importance.of(tensor) if importance is not None else None
            encoding = tensor.encoding.name
            ours = decode(encoding, artifact.data(tensor.spec.name)).reshape(values.shape)
            theirs = ours
            if encoding != "f32":
                used = counts if told and encoding in USE_IMPORTANCE else None
                theirs = _ggml(encoding, values, used)
            artifact.release(tensor.spec.name)
            return np.array(
                [_square(ours - values, counts), _square(theirs - values, counts), _square(values, counts)]
            )

        ours, theirs, norm = np.sum(list(pool.map(sums, chosen)), axis=0)
    return WeightError(float((ours / norm) ** 0.5), float((theirs / norm) ** 0.5), len(chosen))


def _stored_values(checkpoint: Checkpoint, tensor: TensorPlan) -> Matrix:
    """A matrix as the quantizer gets it: widened, and its rows folded."""
    values = rewritten(checkpoint.read(tensor.spec.name), tensor)
    return np.ascontiguousarray(values).reshape(tensor.stored_shape)


def _ggml(encoding: str, values: Matrix, importance: Matrix | None) -> Matrix:
    data: Bytes = ggml_quantize(encoding, values, importance).reshape(-1)
    return ggml_decode(encoding, data).reshape(values.shape)


def _square(values: Matrix, counts: Matrix | None) -> float:
    """Sum of squares, in float64, each column counted as ``counts`` has it."""
    columns = np.einsum("ij,ij->j", values, values, dtype=np.float64)
    return float(columns.sum() if counts is None else columns @ counts.astype(np.float64))
