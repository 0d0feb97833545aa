"""Stored weights as the initializers of an ONNX file: the same arrays that the runtime unpacks from a GGUF file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigrun.blocks import decode
from sigrun.int8 import SEVEN_BITS, to_int8
from sigrun.manifest import Packing
from sigrun.nbits import Pieces, initializers
from sigrun_exporters.store import WeightStore
from sigrun_recipes import TensorPlan

Array = NDArray[Any]
Stored = NDArray[np.uint8]

PORTABLE = SEVEN_BITS
"""The largest int8 weight in a file. Where the file will run is not known, and CPUs without VNNI or Arm's dot product
multiply larger ones wrongly."""


def arrays(
    store: WeightStore, weights: Mapping[str, Packing], pieces: Mapping[str, Pieces], names: frozenset[str]
) -> Iterator[tuple[str, Array]]:
    """The initializers of some graphs, one at a time: name and array.

    Args:
        store: the stored weights.
        weights: tensor → how it is taken, in the order in which they come.
        pieces: those that are taken in pieces.
        names: the initializers that the graphs declare.

    Raises:
        ValueError: a packing gives other initializers than the graph declares.
    """
    plans = {t.spec.name: t for t in store.plan.tensors}
    missing = set(names)
    for name, packing in weights.items():
        for suffix, array in _initializers(plans[name], packing, pieces.get(name), store.read(plans[name])):
            initializer = name + suffix
            if initializer not in missing:
                raise ValueError(f"packing {packing} of {name} gives {initializer}, which no graph declares")
            missing.remove(initializer)
            yield initializer, array
    if missing:
        raise ValueError(f"no weight gives what the graph declares: {', '.join(sorted(missing))}")


def _initializers(
    tensor: TensorPlan, packing: Packing, pieces: Pieces | None, data: Stored
) -> Iterator[tuple[str, Array]]:
    """What the graphs take of a weight: the end of each initializer's name, and the array."""
    if packing == "dense":
        yield "", _dense(tensor, data)
    elif packing == "dense16":
        # What float16 cannot hold becomes infinite, and shows in every result.
        with np.errstate(over="ignore"):
            yield "", _dense(tensor, data).astype(np.float16)
    elif packing == "int8":
        rows, columns = tensor.spec.shape
        rounded = to_int8(tensor.encoding.name, data, rows, columns, PORTABLE)
        yield ".int8", rounded.q
        yield ".int8_scales", rounded.scales
    else:
        rows, columns = tensor.spec.shape
        half = packing == "nbits16"
        found = initializers(tensor.encoding.name, data, rows, columns, pieces, half=half)
        for part, array in found.items():
            yield f".{part}", array


def _dense(tensor: TensorPlan, data: Stored) -> Array:
    return decode(tensor.encoding.name, data).reshape(tensor.spec.shape)
