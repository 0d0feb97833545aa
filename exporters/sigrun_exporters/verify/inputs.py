"""What a verification looks at: the built-in pictures and texts, and some of the user's own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sigrun.pixels import to_pixels
from sigrun.tokens import Tokenizer
from sigrun.verification import GOLDEN_TEXT, golden_picture
from sigrun_exporters.calibration import Calibration, Note
from sigrun_exporters.checkpoint import Checkpoint
from sigrun_exporters.verify.pictures import captions, drawings

OTHER_TEXTS = (
    "a green apple",
    "a house on fire",
    "the sun",
    "a dog",
    "two cats sleeping on a sofa",
    "This is a photo of a bicycle.",
    "a man riding a horse along the beach at dawn, seen from far away",
    "ein roter Apfel",
    "un poisson orange",
    "night",
)
"""Near misses of the pictures, things that are in none of them, long and short, not only English."""
MOST_OWN_PICTURES = 64
MOST_OWN_TEXTS = 256
"""More calibration data than this would not change the figures, and take minutes on a large model."""


@dataclass(frozen=True)
class Inputs:
    """Pictures and texts as the towers take them.

    Attributes:
        pixels: float32 [3, size, size] each; none without an image tower.
        ids: int64 [m, context]; none without a text tower.
        golden_pixels, golden_ids: the known inputs that a runtime tests itself with; not part of the set.
    """

    pixels: tuple[NDArray[np.float32], ...]
    ids: NDArray[np.int64]
    golden_pixels: NDArray[np.float32]
    golden_ids: NDArray[np.int64]

    @property
    def sha256(self) -> str:
        """Hash of all of it."""
        digest = hashlib.sha256()
        for pixels in self.pixels:
            digest.update(pixels.astype("<f4").tobytes())
        digest.update(self.ids.astype("<i8").tobytes())
        return digest.hexdigest()


def inputs(checkpoint: Checkpoint, calibration: Calibration | None, note: Note) -> Inputs:
    """The verification set of a checkpoint.

    Args:
        checkpoint: says how pictures and texts are prepared.
        calibration: the user's own, of which at most 64 pictures and 256 texts are taken, evenly spaced.
        note: told of captions that hold no word.

    Raises:
        PictureError: a calibration picture that was readable no longer is.
        CalibrationError: none of the captions holds a word.
    """
    pixels: list[NDArray[np.float32]] = []
    golden_pixels = np.empty((0, 0, 0), np.float32)
    if checkpoint.architecture.image is not None:
        pixels = [to_pixels(scene.picture, checkpoint.preprocessing) for scene in drawings()]
        golden = Image.fromarray(golden_picture(checkpoint.preprocessing.height))
        golden_pixels = to_pixels(golden, checkpoint.preprocessing)
    ids, golden_ids = np.empty((0, 0), np.int64), np.empty(0, np.int64)
    if checkpoint.tokenizer is not None:
        *listed, golden_ids = Tokenizer(checkpoint.tokenizer).encode([*texts(), GOLDEN_TEXT]).ids
        ids = np.stack(listed)
    if calibration is not None:
        if pixels and calibration.pictures:
            own = calibration.pixels(checkpoint.preprocessing, slice(None))
            pixels += [own[i] for i in spaced(len(own), MOST_OWN_PICTURES)]
        if checkpoint.tokenizer is not None and calibration.texts:
            rows = calibration.ids(checkpoint.tokenizer, note)
            ids = np.concatenate([ids, rows[spaced(len(rows), MOST_OWN_TEXTS)]])
    return Inputs(tuple(pixels), ids, golden_pixels, golden_ids)


def texts() -> list[str]:
    """The built-in texts."""
    return captions() + list(OTHER_TEXTS)


def spaced(count: int, most: int) -> list[int]:
    """At most ``most`` of the numbers below ``count``, evenly spaced."""
    return [i * count // min(count, most) for i in range(min(count, most))]
