"""Any picture mode to 8-bit RGB in sRGB, the only kind that the image tower knows.

What Pillow's own ``convert("RGB")`` would get wrong is done here: 16-bit greys (it clips them to white),
floats, transparency (it shows the colour hidden underneath), and embedded colour profiles (it ignores them).
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_WHITE: Final = (255, 255, 255)
_SAME_COLOUR: Final = 2  # of 255: a profile that moves no colour further is sRGB but for rounding
_PROFILE_MODES: Final = {
    b"RGB ": "RGB",
    b"GRAY": "L",
    b"CMYK": "CMYK",
    b"Lab ": "LAB",
}  # ICC colour space to mode


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded picture to RGB.

    * Transparency is composited over white.
    * An embedded ICC profile is applied where it is valid and fits the picture; a profile that is sRGB in
      effect changes nothing.
    * 16-bit greys are scaled to 8 bits. 32-bit integers are taken as 8-bit values if none is beyond 255, as
      16-bit values if none is beyond 65535; otherwise (or below 0) the range that occurs is stretched to
      0-255. Floats are taken as 0-1 if they fit, as 0-255 if they fit, and are stretched otherwise.

    Args:
        image: any mode.

    Returns:
        A picture in mode RGB; ``image`` itself where there is nothing to do.

    Raises:
        Exception: whatever Pillow raises on a picture that it cannot convert.
    """
    profile = image.info.get("icc_profile")
    colour, alpha = _split(image)
    if isinstance(profile, bytes) and profile:
        colour = _apply_profile(colour, profile)
    if colour.mode == "LAB":
        colour = _through(colour, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    if colour.mode != "RGB":
        colour = colour.convert("RGB")
    if alpha is None:
        return colour
    canvas = Image.new("RGB", colour.size, _WHITE)
    canvas.paste(colour, mask=alpha)
    return canvas


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Part a picture into its colour (8-bit, no alpha) and its alpha (mode L), if it has any."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        clear = image.info.get("transparency")  # of a PNG: the value that is transparent
        alpha = Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))
        return _sixteen_bits(values), alpha if isinstance(clear, int) else None
    if image.mode == "I":
        return _integers(np.asarray(image)), None
    if image.mode == "F":
        return _floats(np.asarray(image)), None
    if image.mode == "RGBa":
        image = image.convert("RGBA")
    elif image.mode == "La":
        image = image.convert("LA")
    elif image.mode == "PA" or (image.mode in ("P", "RGB") and image.has_transparency_data):
        image = image.convert("RGBA")
    elif image.mode in ("1", "L") and image.has_transparency_data:
        image = image.convert("LA")
    if image.mode == "RGBA":
        return image.convert("RGB"), image.getchannel("A")
    if image.mode == "LA":
        return image.getchannel("L"), image.getchannel("A")
    if image.mode == "1":
        return image.convert("L"), None
    if image.mode in ("L", "CMYK", "LAB"):
        return image, None
    return (image if image.mode == "RGB" else image.convert("RGB")), None


def _sixteen_bits(values: NDArray[Any]) -> Image.Image:
    """uint16 [H, W] to grey: 65535 becomes 255, 257 becomes 1, the rest is rounded."""
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _integers(values: NDArray[Any]) -> Image.Image:
    """int32 [H, W] to grey."""
    low, high = int(values.min()), int(values.max())
    if low >= 0 and high <= 0xFF:
        return Image.fromarray(values.astype(np.uint8))
    if low >= 0 and high <= 0xFFFF:
        return _sixteen_bits(values)
    return _stretch(values.astype(np.float64), low, high)


def _floats(values: NDArray[Any]) -> Image.Image:
    """float32 [H, W] to grey; what is not a number becomes black, infinities the ends of the range."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return Image.fromarray(np.zeros(values.shape, np.uint8))
    low, high = float(finite.min()), float(finite.max())
    values = np.nan_to_num(values.astype(np.float64), nan=low, neginf=low, posinf=high)
    if low >= 0.0 and high <= 1.0:
        return _stretch(values, 0.0, 1.0)
    if low >= 0.0 and high <= 255.0:
        return _stretch(values, 0.0, 255.0)
    return _stretch(values, low, high)


def _stretch(values: NDArray[np.float64], low: float, high: float) -> Image.Image:
    """float64 [H, W] to grey: low becomes 0, high 255."""
    scaled = (values - low) * (255.0 / (high - low)) if high > low else np.zeros_like(values)
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def _apply_profile(colour: Image.Image, profile: bytes) -> Image.Image:
    """Bring a picture from its own profile to sRGB; unchanged if that is invalid or of another kind."""
    mode = _PROFILE_MODES.get(profile[16:20])
    if mode == "RGB" and colour.mode == "L":
        colour = colour.convert("RGB")
    if mode != colour.mode:
        return colour
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if mode == "RGB" and _is_srgb(source):
            return colour
        return _through(colour, source)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, ImportError):
        return colour  # a profile that LittleCMS cannot read says nothing about the colours


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """Whether a profile leaves a grid of 729 colours where they are."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(27, 27, 3)
    moved = np.asarray(_through(Image.fromarray(grid), profile))
    return int(np.abs(moved.astype(np.int16) - grid).max()) <= _SAME_COLOUR


def _through(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    transform = ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        image.mode,
        "RGB",
        renderingIntent=ImageCms.Intent.PERCEPTUAL,
    )
    result = ImageCms.applyTransform(image, transform)
    if result is None:  # only when asked to work in place
        raise ValueError("the colour transform gave no picture")
    return result
