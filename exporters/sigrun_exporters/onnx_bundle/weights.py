"""Stored weights as the initializers of an ONNX file: the same arrays that the runtime unpacks from a GGUF file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigrun.blocks import decode
from sigrun.int8 import SEVEN_BITS, to_int8
from sigrun.manifest import Packing
from sigrun.nbits import to_nbits
from sigrun_exporters.store import WeightStore
from sigrun_recipes import TensorPlan

Array = NDArray[Any]
Stored = NDArray[np.uint8]

PORTABLE = SEVEN_BITS
"""The largest int8 weight in a file. Where the file will run is not known, and CPUs without VNNI or Arm's dot product
multiply larger ones wrongly."""


def arrays(
    store: WeightStore, weights: Mapping[str, Packing], names: frozenset[str]
) -> Iterator[tuple[str, Array]]:
    """The initializers of some graphs, one at a time: name and array.

    Args:
        store: the stored weights.
        weights: tensor → how it is taken, in the order in which they come.
        names: the initializers that the graphs declare.

    Raises:
        ValueError: a packing gives other initializers than the graph declares.
    """
    plans = {t.spec.name: t for t in store.plan.tensors}
    missing = set(names)
    for name, packing in weights.items():
        for suffix, array in _PACKINGS[packing](plans[name], store.read(plans[name])).items():
            initializer = name + suffix
            if initializer not in missing:
                raise ValueError(f"packing {packing} of {name} gives {initializer}, which no graph declares")
            missing.remove(initializer)
            yield initializer, array
    if missing:
        raise ValueError(f"no weight gives what the graph declares: {', '.join(sorted(missing))}")


def _dense(tensor: TensorPlan, data: Stored) -> dict[str, Array]:
    return {"": decode(tensor.encoding.name, data).reshape(tensor.spec.shape)}


def _dense16(tensor: TensorPlan, data: Stored) -> dict[str, Array]:
    with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and shows in every result
        return {"": _dense(tensor, data)[""].astype(np.float16)}


def _nbits(tensor: TensorPlan, data: Stored) -> dict[str, Array]:
    rows, columns = tensor.spec.shape
    packed = to_nbits(tensor.encoding.name, data, rows, columns)
    return {f".{part}": array for part, array in packed.parts().items()}


def _nbits16(tensor: TensorPlan, data: Stored) -> dict[str, Array]:
    rows, columns = tensor.spec.shape
    packed = to_nbits(tensor.encoding.name, data, rows, columns).half()
    return {f".{part}": array for part, array in packed.parts().items()}


def _int8(tensor: TensorPlan, data: Stored) -> dict[str, Array]:
    rows, columns = tensor.spec.shape
    rounded = to_int8(tensor.encoding.name, data, rows, columns, PORTABLE)
    return {".int8": rounded.q, ".int8_scales": rounded.scales}


_PACKINGS: dict[Packing, Callable[[TensorPlan, Stored], dict[str, Array]]] = {
    "dense": _dense,
    "dense16": _dense16,
    "nbits": _nbits,
    "nbits16": _nbits16,
    "int8": _int8,
}
