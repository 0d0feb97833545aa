"""The built-in pictures: small scenes drawn by code, the same on every machine.

They are simple enough to be drawn in a few lines and clear enough for a trained model to name. Sizes and shapes
differ, so that resizing is part of what is verified.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sigrun.verification import golden_picture

SCALE = 4
"""Scenes are drawn so many times larger and averaged down, which smooths their edges."""

Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)


@dataclass(frozen=True)
class Drawing:
    """A picture of the set: its name, how a person would caption it, and its pixels in mode RGB."""

    name: str
    caption: str
    picture: Image.Image


class _Canvas:
    """Draws shapes in units of the finished picture."""

    def __init__(self, width: int, height: int, background: Colour | NDArray[np.uint8]) -> None:
        self.size = (width, height)
        large = (width * SCALE, height * SCALE)
        if isinstance(background, np.ndarray):
            self._image = Image.fromarray(background).resize(large, Image.Resampling.NEAREST)
        else:
            self._image = Image.new("RGB", large, background)
        self._draw = ImageDraw.Draw(self._image)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        corners = [left * SCALE, top * SCALE, right * SCALE - 1, bottom * SCALE - 1]
        self._draw.rectangle(corners, fill=colour)

    def disc(self, x: float, y: float, radius: float, colour: Colour, height: float | None = None) -> None:
        """A disc, or an ellipse where ``height`` gives its upright radius."""
        tall = radius if height is None else height
        corners = [
            (x - radius) * SCALE,
            (y - tall) * SCALE,
            (x + radius) * SCALE,
            (y + tall) * SCALE,
        ]
        self._draw.ellipse(corners, fill=colour)

    def shape(self, points: list[tuple[float, float]], colour: Colour) -> None:
        self._draw.polygon([(x * SCALE, y * SCALE) for x, y in points], fill=colour)

    def line(self, points: list[tuple[float, float]], width: float, colour: Colour) -> None:
        self._draw.line(
            [(x * SCALE, y * SCALE) for x, y in points],
            fill=colour,
            width=round(width * SCALE),
            joint="curve",
        )

    def arc(
        self, x: float, y: float, radius: float, start: float, end: float, width: float, colour: Colour
    ) -> None:
        corners = [(x - radius) * SCALE, (y - radius) * SCALE, (x + radius) * SCALE, (y + radius) * SCALE]
        self._draw.arc(corners, start, end, fill=colour, width=round(width * SCALE))

    def finish(self) -> Image.Image:
        return self._image.resize(self.size, Image.Resampling.BOX)


def drawings() -> tuple[Drawing, ...]:
    """Every picture of the set, in order."""
    return tuple(Drawing(name, caption, draw()) for name, caption, draw in _SCENES)


def captions() -> list[str]:
    """The captions of the set, in order; nothing is drawn."""
    return [caption for _, caption, _ in _SCENES]


def _fade(width: int, height: int, top: Colour, bottom: Colour) -> NDArray[np.uint8]:
    """A vertical gradient: uint8 [height, width, 3]."""
    share = np.linspace(0, 1, height)[:, None, None]
    rows = np.asarray(top) * (1 - share) + np.asarray(bottom) * share  # [height, 1, 3]
    return np.ascontiguousarray(np.broadcast_to(np.rint(rows), (height, width, 3)).astype(np.uint8))


def _landscape() -> Image.Image:
    canvas = _Canvas(640, 360, _fade(640, 360, (255, 140, 60), (255, 225, 150)))
    canvas.disc(430, 190, 55, (255, 240, 120))
    for base, colour, phase in (
        (230, (120, 90, 130), 0.0),
        (275, (70, 110, 80), 2.0),
        (315, (40, 80, 45), 4.0),
    ):
        ridge = [
            (float(x), base + 28 * math.sin(x / 75 + phase) + 9 * math.sin(x / 23 + 2 * phase))
            for x in range(0, 641, 8)
        ]
        canvas.shape([(0, 360), *ridge, (640, 360)], colour)
    return canvas.finish()


def _night() -> Image.Image:
    canvas = _Canvas(320, 400, _fade(320, 400, (5, 8, 30), (30, 40, 90)))
    rng = np.random.default_rng(1)
    for x, y, r in zip(
        rng.uniform(0, 320, 120), rng.uniform(0, 330, 120), rng.uniform(0.5, 1.8, 120), strict=True
    ):
        canvas.disc(float(x), float(y), float(r), (240, 240, 255))
    canvas.disc(225, 95, 42, (245, 240, 205))
    canvas.disc(243, 85, 38, (12, 17, 44))
    canvas.shape([(0, 400), (0, 340), (110, 325), (210, 350), (320, 330), (320, 400)], (8, 14, 12))
    return canvas.finish()


def _house() -> Image.Image:
    canvas = _Canvas(400, 400, (150, 205, 250))
    canvas.box(0, 310, 400, 400, (95, 170, 75))
    canvas.box(280, 90, 310, 160, (130, 70, 60))
    canvas.box(90, 180, 310, 340, (240, 225, 190))
    canvas.shape([(65, 185), (200, 75), (335, 185)], (180, 60, 45))
    canvas.box(175, 250, 225, 340, (110, 70, 40))
    canvas.disc(216, 297, 4, (230, 200, 90))
    for left in (110, 245):
        canvas.box(left, 215, left + 45, 260, WHITE)
        canvas.box(left + 4, 219, left + 41, 256, (90, 140, 190))
        canvas.line([(left + 22.5, 217), (left + 22.5, 258)], 4, WHITE)
        canvas.line([(left + 2, 237.5), (left + 43, 237.5)], 4, WHITE)
    return canvas.finish()


def _tree() -> Image.Image:
    canvas = _Canvas(240, 360, (205, 230, 250))
    canvas.box(0, 310, 240, 360, (110, 175, 85))
    canvas.shape([(108, 330), (114, 190), (126, 190), (134, 330)], (105, 70, 40))
    for x, y, r in ((120, 110, 72), (70, 150, 48), (170, 150, 48), (95, 75, 44), (150, 78, 44)):
        canvas.disc(x, y, r, (45, 125, 50))
    for x, y, r in ((95, 95, 30), (150, 120, 26), (75, 150, 20)):
        canvas.disc(x, y, r, (75, 155, 70))
    return canvas.finish()


def _apple() -> Image.Image:
    canvas = _Canvas(300, 300, WHITE)
    canvas.disc(150, 262, 85, (225, 225, 225), 12)
    canvas.disc(118, 165, 75, (200, 25, 35), 88)
    canvas.disc(182, 165, 75, (200, 25, 35), 88)
    canvas.disc(150, 85, 26, WHITE, 14)
    canvas.line([(150, 98), (155, 70), (168, 45)], 9, (100, 65, 35))
    canvas.shape([(165, 68), (200, 38), (240, 45), (212, 72)], (80, 160, 60))
    canvas.disc(98, 130, 16, (240, 130, 130), 28)
    return canvas.finish()


def _clock() -> Image.Image:
    canvas = _Canvas(280, 280, (225, 215, 195))
    canvas.disc(140, 140, 120, (60, 45, 35))
    canvas.disc(140, 140, 108, WHITE)
    for hour in range(12):
        turn = math.radians(30 * hour)
        x, y = math.sin(turn), -math.cos(turn)
        canvas.line(
            [(140 + 88 * x, 140 + 88 * y), (140 + 102 * x, 140 + 102 * y)], 6 if hour % 3 == 0 else 3, BLACK
        )
    for degrees, length, width in ((305, 55, 9), (60, 82, 6)):  # ten past ten
        turn = math.radians(degrees)
        canvas.line(
            [(140, 140), (140 + length * math.sin(turn), 140 - length * math.cos(turn))], width, BLACK
        )
    canvas.disc(140, 140, 8, (180, 30, 30))
    return canvas.finish()


def _chessboard() -> Image.Image:
    canvas = _Canvas(256, 256, (240, 217, 181))
    for row in range(8):
        for column in range((row + 1) % 2, 8, 2):
            canvas.box(32 * column, 32 * row, 32 * column + 32, 32 * row + 32, (120, 78, 52))
    return canvas.finish()


def _print() -> Image.Image:
    """Black letters on paper, in the one bitmap font that every Pillow carries."""
    lines = ("STOP", "AND READ THIS", "the quick brown fox", "jumps over the dog")
    image = Image.new("L", (500, 220), 245)
    top = 12
    for line, times in zip(lines, (6, 4, 4, 4), strict=True):
        font = ImageFont.load_default_imagefont()
        word = Image.new("L", (6 * len(line), 11), 245)
        ImageDraw.Draw(word).text((0, 0), line, fill=15, font=font)
        large = word.resize((word.width * times, word.height * times), Image.Resampling.NEAREST)
        image.paste(large, (16, top))
        top += large.height + 4
    return image.convert("RGB")


def _flag() -> Image.Image:
    canvas = _Canvas(450, 300, (20, 60, 150))
    canvas.box(0, 100, 450, 200, WHITE)
    canvas.box(0, 200, 450, 300, (200, 30, 45))
    return canvas.finish()


def _clouds() -> Image.Image:
    """Fractal noise: octaves of random values, each twice as fine and half as strong."""
    rng = np.random.default_rng(2)
    total = np.zeros((192, 288), np.float64)
    for octave in range(6):
        coarse = rng.integers(0, 256, (3 * 2**octave, 4 * 2**octave)).astype(np.uint8)
        smooth = Image.fromarray(coarse).resize((288, 192), Image.Resampling.BILINEAR)
        total += np.asarray(smooth) / 2**octave
    share = np.clip((total - 170) / 190, 0, 1)[:, :, None]
    return Image.fromarray(
        np.rint((1 - share) * np.array([70, 130, 205]) + share * np.array([250, 250, 252])).astype(np.uint8)
    )


def _face() -> Image.Image:
    canvas = _Canvas(300, 380, (150, 175, 170))
    canvas.disc(150, 400, 130, (60, 80, 140), 90)
    canvas.box(122, 270, 178, 345, (215, 170, 140))
    canvas.disc(150, 165, 108, (70, 45, 30), 120)
    canvas.disc(150, 190, 86, (235, 190, 160), 110)
    canvas.shape(
        [(70, 150), (90, 85), (150, 68), (215, 85), (230, 150), (190, 118), (110, 118)], (70, 45, 30)
    )
    for x in (115, 185):
        canvas.disc(x, 185, 17, WHITE, 10)
        canvas.disc(x, 185, 8, (60, 90, 120))
        canvas.disc(x, 185, 4, BLACK)
        canvas.arc(x, 185, 24, 215, 325, 4, (70, 45, 30))
    canvas.line([(150, 195), (142, 228), (155, 230)], 3, (190, 140, 115))
    canvas.arc(150, 235, 36, 30, 150, 7, (180, 60, 65))
    return canvas.finish()


def _traffic_light() -> Image.Image:
    canvas = _Canvas(200, 400, (185, 210, 225))
    canvas.box(92, 280, 108, 400, (80, 80, 80))
    canvas.box(50, 25, 150, 285, (35, 35, 38))
    for y, colour in ((70, (250, 40, 35)), (155, (85, 70, 20)), (240, (20, 70, 30))):
        canvas.disc(100, y, 34, (15, 15, 15))
        canvas.disc(100, y, 30, colour)
    return canvas.finish()


def _fish() -> Image.Image:
    canvas = _Canvas(480, 320, _fade(480, 320, (90, 190, 225), (10, 60, 120)))
    for x, phase in ((60, 0.0), (105, 1.0), (420, 2.0)):
        weed = [(x + 10 * math.sin(y / 18 + phase), float(y)) for y in range(320, 190, -6)]
        canvas.line(weed, 9, (40, 130, 70))
    canvas.shape([(330, 160), (400, 110), (388, 160), (400, 210)], (240, 120, 30))
    canvas.shape([(205, 110), (260, 70), (290, 115)], (240, 120, 30))
    canvas.disc(245, 160, 100, (250, 150, 40), 58)
    for x in (215, 275):
        canvas.disc(x, 160, 9, WHITE, 50 if x == 215 else 48)
    canvas.disc(175, 145, 11, WHITE)
    canvas.disc(173, 145, 6, BLACK)
    for x, y, r in ((120, 120, 8), (105, 85, 11), (122, 45, 6)):
        canvas.disc(x, y, r, (200, 235, 250))
    return canvas.finish()


def _pattern() -> Image.Image:
    return Image.fromarray(golden_picture(384))


_SCENES: tuple[tuple[str, str, Callable[[], Image.Image]], ...] = (
    ("landscape", "a sunset over hills", _landscape),
    ("night", "the night sky with stars and a crescent moon", _night),
    ("house", "a house with a red roof", _house),
    ("tree", "a tree on a meadow", _tree),
    ("apple", "a red apple", _apple),
    ("clock", "a clock showing ten past ten", _clock),
    ("chessboard", "an empty chessboard", _chessboard),
    ("print", "a sign that says stop and read this", _print),
    ("flag", "a flag with blue, white and red stripes", _flag),
    ("clouds", "white clouds in a blue sky", _clouds),
    ("face", "a portrait of a woman with brown hair", _face),
    ("traffic light", "a traffic light showing red", _traffic_light),
    ("fish", "an orange fish under water", _fish),
    ("pattern", "an abstract pattern of colourful stripes", _pattern),
)
