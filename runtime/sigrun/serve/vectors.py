"""Vectors of recent items, so that a picture whose labels are being typed is computed once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Vector:
    """An item's embedding.

    Attributes:
        values: float32 [width], unit length.
        note: what there is to know of it: that a text was too long, that a file has further frames.
    """

    values: NDArray[np.float32]
    note: str | None = None


class Recent:
    """The last ``most`` vectors, by a hash of what they were made of; the items themselves are not kept."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[bytes, Vector] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> Vector | None:
        """The vector of a key, if it is kept."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: bytes, vector: Vector) -> None:
        """Keep a vector, for the one longest unused."""
        if self._most < 1:
            return
        self._kept[key] = vector
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()


def key_of(data: bytes) -> bytes:
    """What an item is known by."""
    return hashlib.blake2b(data, digest_size=20).digest()
