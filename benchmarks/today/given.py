"""The pictures and texts that every runtime gets. Read with NumPy alone, so that any environment can."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Tower = Literal["image", "text"]
TOWERS: tuple[Tower, ...] = ("image", "text")
PICTURES, TEXTS, FITTED = 4, 8, 8
"""Pictures and texts that are embedded, and how many others of each a quantizer may be fitted to."""


@dataclass(frozen=True)
class Given:
    """Drawn pictures of the model's own size, and texts.

    Attributes:
        pictures: uint8 [n, side, side, 3].
        texts: as a person would write them.
        ids: int64 [n, context], those texts as token ids.
        fitted_pictures, fitted_ids: others, for quantizers that look at examples.
    """

    pictures: NDArray[np.uint8]
    texts: tuple[str, ...]
    ids: NDArray[np.int64]
    fitted_pictures: NDArray[np.uint8]
    fitted_ids: NDArray[np.int64]

    def items(self, tower: Tower) -> NDArray[Any]:
        """What a tower takes: pixel values [n, 3, side, side] or token ids [n, context]."""
        return pixels(self.pictures) if tower == "image" else self.ids

    def calibration(self, tower: Tower) -> NDArray[Any]:
        """The same of the others."""
        return pixels(self.fitted_pictures) if tower == "image" else self.fitted_ids


def pixels(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixel values of pictures that need no resizing: [n, side, side, 3] → float32 [n, 3, side, side], -1 to 1."""
    unit = (np.arange(256) * (1 / 255)).astype(np.float32)  # as transformers rounds it
    table = (unit - np.float32(0.5)) / np.float32(0.5)
    return np.ascontiguousarray(table[pictures].transpose(0, 3, 1, 2))


def read(path: Path) -> Given:
    """From a file that :func:`write` wrote."""
    with np.load(path) as found:
        return Given(
            found["pictures"],
            tuple(map(str, found["texts"])),
            found["ids"],
            found["fitted_pictures"],
            found["fitted_ids"],
        )


def write(given: Given, path: Path) -> None:
    """Write an ``.npz``."""
    np.savez(
        path,
        pictures=given.pictures,
        texts=np.array(given.texts),
        ids=given.ids,
        fitted_pictures=given.fitted_pictures,
        fitted_ids=given.fitted_ids,
    )
