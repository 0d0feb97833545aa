"""Pictures to pixel values: what the image tower takes.

The result equals that of ``transformers.SiglipImageProcessor`` bit for bit: the picture is squashed to the
tower's size (no crop, whatever its shape) with Pillow's antialiased filter, divided by 255, and normalized.
Checkpoints of timm ask for a crop instead, as timm does it.

"Bit for bit" is with the same Pillow: version 13 resizes tall pictures (from about 1 : 1.8) in another order than
those before it, which moves a part of their values by one or two of 255.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, NotRequired, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sigrun.decoders import Box
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
Geometry = Literal["squash", "crop"]

_FILTERS: Final[dict[str, Image.Resampling]] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_FIELDS: Final = ("height", "width", "mean", "std", "resample", "geometry")
_OPTIONAL: Final = ("short_side",)
_MAX_SIDE: Final = 8192  # pixels; far beyond any tower
_MAX_LONG_SIDE: Final = 1 << 16  # pixels of a picture before it is cropped


class PreprocessingJson(TypedDict):
    """Preprocessing as JSON."""

    height: int
    width: int
    mean: list[float]
    std: list[float]
    resample: Resample
    geometry: Geometry
    short_side: NotRequired[int]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes the image tower's input.

    Attributes:
        height, width: size in pixels.
        mean, std: per channel R, G, B, of values from 0 to 1.
        resample: the filter.
        geometry: ``squash`` stretches the whole picture to height × width; ``crop`` keeps its proportions, makes its
            shorter side ``short_side`` pixels and takes height × width out of the middle.
        short_side: for ``crop``, at least height and width.
    """

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: Resample = "bicubic"
    geometry: Geometry = "squash"
    short_side: int | None = None

    def in_words(self) -> str:
        """What happens to a picture's shape, such as ``squashed to 384 x 384``."""
        size = f"{self.width} x {self.height}"
        if self.geometry == "squash":
            return f"squashed to {size}"
        return f"shorter side made {self.short_side}, then the middle {size} cropped"

    @property
    def least(self) -> tuple[int, int]:
        """Width and height that a picture's own must not fall below, lest it be enlarged."""
        if self.short_side is None:
            return self.width, self.height
        return self.short_side, self.short_side

    def to_json(self) -> PreprocessingJson:
        """The settings as plain JSON values; :meth:`from_json` reads them back."""
        plain: PreprocessingJson = {
            "height": self.height,
            "width": self.width,
            "mean": list(self.mean),
            "std": list(self.std),
            "resample": self.resample,
            "geometry": self.geometry,
        }
        if self.short_side is not None:
            plain["short_side"] = self.short_side
        return plain

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
        unknown = [name for name in value if name not in _FIELDS + _OPTIONAL]
        if unknown:
            raise _bad(f"has an unknown setting {unknown[0]!r}")
        height, width = _side(value, "height"), _side(value, "width")
        geometry: Geometry = _one_of(value, "geometry", get_args(Geometry))
        short_side = None if value.get("short_side") is None else _side(value, "short_side")
        if (geometry == "crop") != (short_side is not None):
            raise _bad(f"has geometry {geometry!r} and short_side {short_side!r}")
        if short_side is not None and short_side < max(height, width):
            raise _bad(f"crops {width} x {height} out of pictures whose shorter side is {short_side}")
        return cls(
            height=height,
            width=width,
            mean=_triple(value, "mean", positive=False),
            std=_triple(value, "std", positive=True),
            resample=_one_of(value, "resample", get_args(Resample)),
            geometry=geometry,
            short_side=short_side,
        )


def to_pixels(
    image: Image.Image, preprocessing: Preprocessing, box: Box | None = None
) -> NDArray[np.float32]:
    """Turn a picture into the image tower's input.

    Args:
        image: mode RGB, any size; see :func:`open_picture`.
        preprocessing: as recorded in the artifact.
        box: the part of ``image`` that is the picture; without, all of it. See :class:`sigrun.decoders.Opened`.

    Returns:
        float32 [3, height, width], channels R, G, B.

    Raises:
        PictureError: the picture is not RGB.
    """
    if image.mode != "RGB":
        raise PictureError(
            f"a picture in mode {image.mode} was given; RGB is wanted", hint="use open_picture"
        )
    shaped = np.asarray(_shaped(image, preprocessing, box))  # uint8 [H, W, 3]
    table = _table(preprocessing.mean, preprocessing.std)
    pixels = np.empty((3, preprocessing.height, preprocessing.width), np.float32)
    for channel in range(3):
        np.take(table[channel], shaped[:, :, channel], out=pixels[channel], mode="clip")
    return pixels


def _shaped(image: Image.Image, preprocessing: Preprocessing, box: Box | None) -> Image.Image:
    """The picture at the tower's size."""
    width, height = preprocessing.width, preprocessing.height
    resample = _FILTERS[preprocessing.resample]
    if preprocessing.short_side is None:
        return image.resize((width, height), resample, box)
    # What torchvision's Resize and CenterCrop do, with which timm and OpenCLIP prepare pictures.
    across, down = image.size if box is None else (box[2] - box[0], box[3] - box[1])
    short, long = sorted((across, down))
    longest = int(preprocessing.short_side * long / short)
    if longest > _MAX_LONG_SIDE:
        raise PictureError(
            f"a picture of {image.width} x {image.height} is too long and narrow: its longer side would become "
            f"{longest} pixels, of which the middle {max(width, height)} are seen",
            hint="crop it first",
        )
    upright = across <= down
    whole = (preprocessing.short_side, longest) if upright else (longest, preprocessing.short_side)
    resized = image if image.size == whole and box is None else image.resize(whole, resample, box)
    left, top = round((whole[0] - width) / 2), round((whole[1] - height) / 2)
    return resized.crop((left, top, left + width, top + height))


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
