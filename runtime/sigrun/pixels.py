"""Pictures to pixel values: what the image tower takes.

The result equals that of ``transformers.SiglipImageProcessor`` bit for bit: the picture is squashed to the
tower's size (no crop, whatever its shape) with Pillow's antialiased filter, divided by 255, and normalized.

"Bit for bit" is with the same Pillow: version 13 resizes tall pictures (from about 1 : 1.8) in another order than
those before it, which moves a part of their values by one or two of 255.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sigrun.errors import ArtifactError, PictureError
from sigrun.pictures import DEFAULT_MAX_PIXELS, Picture, open_picture

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "Geometry",
    "Picture",
    "Preprocessing",
    "PreprocessingJson",
    "Resample",
    "open_picture",
    "to_pixels",
]

Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Geometry = Literal["squash"]

_FILTERS: Final[dict[str, Image.Resampling]] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_FIELDS: Final = ("height", "width", "mean", "std", "resample", "geometry")
_MAX_SIDE: Final = 8192  # pixels; far beyond any tower


class PreprocessingJson(TypedDict):
    """Preprocessing as JSON."""

    height: int
    width: int
    mean: list[float]
    std: list[float]
    resample: Resample
    geometry: Geometry


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes the image tower's input.

    Attributes:
        height, width: size in pixels.
        mean, std: per channel R, G, B, of values from 0 to 1.
        resample: the filter.
        geometry: ``squash`` stretches the whole picture to height × width.
    """

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: Resample = "bicubic"
    geometry: Geometry = "squash"

    def to_json(self) -> PreprocessingJson:
        """The settings as plain JSON values; :meth:`from_json` reads them back."""
        return {
            "height": self.height,
            "width": self.width,
            "mean": list(self.mean),
            "std": list(self.std),
            "resample": self.resample,
            "geometry": self.geometry,
        }

    @classmethod
    def from_json(cls, value: object) -> Preprocessing:
        """Read settings from JSON values.

        Raises:
            ArtifactError: a setting is missing, unknown or impossible.
        """
        if not isinstance(value, Mapping):
            raise _bad(f"is a {type(value).__name__}, not an object")
        for name in _FIELDS:
            if name not in value:
                raise _bad(f"lacks {name!r}")
        unknown = [name for name in value if name not in _FIELDS]
        if unknown:
            raise _bad(f"has an unknown setting {unknown[0]!r}")
        return cls(
            height=_side(value, "height"),
            width=_side(value, "width"),
            mean=_triple(value, "mean", positive=False),
            std=_triple(value, "std", positive=True),
            resample=_one_of(value, "resample", get_args(Resample)),
            geometry=_one_of(value, "geometry", get_args(Geometry)),
        )


def to_pixels(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Turn a picture into the image tower's input.

    Args:
        image: mode RGB, any size; see :func:`open_picture`.
        preprocessing: as recorded in the artifact.

    Returns:
        float32 [3, height, width], channels R, G, B.

    Raises:
        PictureError: the picture is not RGB.
    """
    if image.mode != "RGB":
        raise PictureError(
            f"a picture in mode {image.mode} was given; RGB is wanted", hint="use open_picture"
        )
    size = (preprocessing.width, preprocessing.height)
    squashed = np.asarray(image.resize(size, _FILTERS[preprocessing.resample]))  # uint8 [H, W, 3]
    table = _table(preprocessing.mean, preprocessing.std)
    pixels = np.empty((3, preprocessing.height, preprocessing.width), np.float32)
    for channel in range(3):
        np.take(table[channel], squashed[:, :, channel], out=pixels[channel], mode="clip")
    return pixels


@lru_cache(maxsize=8)
def _table(mean: tuple[float, float, float], std: tuple[float, float, float]) -> NDArray[np.float32]:
    """What each of the 256 values becomes in each channel: float32 [3, 256].

    Every step has the type that transformers gives it: the division by 255 is a float64 product rounded to
    float32, the normalization is float32 throughout.
    """
    unit = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)  # [256]
    means = np.array(mean, np.float32)[:, None]  # [3, 1]
    stds = np.array(std, np.float32)[:, None]
    table: NDArray[np.float32] = (unit[None, :] - means) / stds
    table.setflags(write=False)
    return table


def _side(value: Mapping[str, Any], name: str) -> int:
    side = value[name]
    if isinstance(side, bool) or not isinstance(side, int) or not 1 <= side <= _MAX_SIDE:
        raise _bad(f"has {name} {side!r}, not a whole number from 1 to {_MAX_SIDE}")
    return side


def _triple(value: Mapping[str, Any], name: str, *, positive: bool) -> tuple[float, float, float]:
    numbers = value[name]
    good = isinstance(numbers, (list, tuple)) and len(numbers) == 3
    good = good and all(
        isinstance(n, (int, float)) and not isinstance(n, bool) and -1e6 <= n <= 1e6 for n in numbers
    )
    if not good or (positive and min(numbers) <= 0):
        raise _bad(f"has {name} {numbers!r}, not three {'positive ' if positive else ''}numbers")
    r, g, b = numbers
    return float(r), float(g), float(b)


def _one_of(value: Mapping[str, Any], name: str, known: tuple[Any, ...]) -> Any:
    if value[name] not in known:
        raise _bad(f"has {name} {value[name]!r}; known: {', '.join(known)}")
    return value[name]


def _bad(what: str) -> ArtifactError:
    return ArtifactError(
        f"the artifact's preprocessing {what}",
        hint="the artifact is damaged, or a newer version of sigrun made it",
    )
