"""A page of pictures that needs nothing but itself: thumbnails, scores, light and dark."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final, TextIO

from PIL import Image

from sigrun.decoders import DEFAULT_MAX_PIXELS, Rules
from sigrun.errors import PictureError
from sigrun.gather import safe
from sigrun.pictures import read_picture

HEIGHT: Final = 320  # pixels of a thumbnail; shown at most at half of it, for sharp screens
WIDEST: Final = 3.0  # times as wide as high; what is beyond is cut off on both sides
QUALITY: Final = 78


@dataclass(frozen=True)
class Shown:
    """A picture on the page.

    Attributes:
        path: its path.
        score: what stands under it, such as ``87.3 %``.
        share: length of the bar, 0 to 1; none for no bar.
    """

    path: str
    score: str
    share: float | None = None


@dataclass(frozen=True)
class Section:
    """Pictures under a heading, which may be empty."""

    heading: str
    pictures: Sequence[Shown]


def write(
    out: TextIO,
    title: str,
    about: str,
    sections: Iterable[Section],
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    on_done: Callable[[int], object] = lambda _: None,
) -> None:
    """Write a page.

    Args:
        out: a stream of UTF-8.
        title: the query, in words.
        about: a line under it.
        sections: pictures, in order.
        max_pixels: larger ones get no thumbnail.
        on_done: called with the number of pictures that were done since the last call.
    """
    for part in page(title, about, sections, max_pixels, on_done):
        out.write(part)


def page(
    title: str,
    about: str,
    sections: Iterable[Section],
    max_pixels: int,
    on_done: Callable[[int], object] = lambda _: None,
) -> Iterator[str]:
    """The page, part by part."""
    yield _HEAD.format(title=_text(title), about=_text(about), style=_STYLE)
    empty = True
    for section in sections:
        if section.heading:
            yield f"<h2>{_text(section.heading)}</h2>\n"
        yield '<ol class="gallery">\n'
        for number, shown in enumerate(section.pictures, 1):
            empty = False
            yield _figure(number, shown, max_pixels)
            on_done(1)
        yield "</ol>\n"
    if empty:
        yield '<p class="none">No picture was found.</p>\n'
    yield "</main>\n</body>\n</html>\n"


def _figure(number: int, shown: Shown, max_pixels: int) -> str:
    name = safe(Path(shown.path).name)
    alt = _text(f"{name}, {shown.score}")
    thumbnail, ratio = _thumbnail(shown.path, max_pixels)
    if thumbnail:
        inner = f'<img src="{thumbnail}" alt="{alt}" width="{round(HEIGHT * ratio)}" height="{HEIGHT}" loading="lazy">'
    else:
        inner = f'<span class="missing" role="img" aria-label="{alt}">no preview</span>'
    bar = ""
    if shown.share is not None:
        bar = f'<span class="bar"><i style="width:{100 * min(1.0, max(0.0, shown.share)):.1f}%"></i></span>'
    return (
        f'<li style="--ratio:{ratio:.3f}"><a href="{_text(_link(shown.path))}" title="{_text(safe(shown.path))}">'
        f'{inner}</a><div class="under"><span class="rank">{number}</span>'
        f'<span class="name">{_text(name)}</span><span class="score">{_text(shown.score)}</span></div>{bar}</li>\n'
    )


def _thumbnail(path: str, max_pixels: int) -> tuple[str, float]:
    """A picture as a data URI, and its width over its height; nothing if it cannot be read any more."""
    try:
        image = read_picture(path, Rules(max_pixels, "fast", (HEIGHT, HEIGHT))).image
    except PictureError:
        return "", 1.0
    width, height = image.size
    widest = round(WIDEST * height)
    if width > widest:
        left = (width - widest) // 2
        image = image.crop((left, 0, left + widest, height))
    elif height > round(WIDEST * width):
        top = (height - round(WIDEST * width)) // 2
        image = image.crop((0, top, width, top + round(WIDEST * width)))
    ratio = image.width / image.height
    size = (max(1, round(HEIGHT * ratio)), HEIGHT)
    small = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    file = BytesIO()
    small.save(file, "JPEG", quality=QUALITY, optimize=True, progressive=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}", ratio


def _link(path: str) -> str:
    try:
        return Path(path).absolute().as_uri()
    except (ValueError, UnicodeError):
        return "#"


def _text(text: str) -> str:
    """Text for the page, within quotes too; what could turn the reading direction is written out."""
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in safe(text))
    return html.escape(plain, quote=True)


_HEAD: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="sigrun">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1><p>{about}</p></header>
<main>
"""

_STYLE: Final = """
:root { --page: #f6f5f2; --card: #fff; --ink: #1d1d1b; --soft: #6b6962; --line: #e4e1da; --accent: #b4531c;
  --row: 200px }
@media (prefers-color-scheme: dark) {
  :root { --page: #161615; --card: #222220; --ink: #eceae4; --soft: #a19e95; --line: #35342f; --accent: #f0935a }
}
* { box-sizing: border-box }
body { margin: 0; padding: 2rem clamp(1rem, 3vw, 3rem) 3rem; background: var(--page); color: var(--ink);
  font: 15px/1.4 system-ui, -apple-system, "Segoe UI", "Noto Sans", sans-serif }
header { margin-bottom: 1.5rem }
h1 { margin: 0; font-size: clamp(1.4rem, 3vw, 2rem); font-weight: 650; letter-spacing: -.01em; overflow-wrap: anywhere }
h2 { margin: 2rem 0 .75rem; font-size: 1.05rem; font-weight: 600 }
header p { margin: .3rem 0 0; color: var(--soft) }
.gallery { display: flex; flex-wrap: wrap; gap: 14px; margin: 0; padding: 0; list-style: none }
.gallery::after { content: ""; flex: 1000 0 0 }
li { position: relative; display: flex; flex-direction: column; flex: calc(var(--ratio) * 100) 1
  calc(var(--ratio) * var(--row)); min-width: 130px; max-width: calc(var(--ratio) * var(--row) * 1.6 + 40px);
  overflow: hidden; border: 1px solid var(--line); border-radius: 10px; background: var(--card) }
li > a { display: block; background: var(--line) }
li > a:focus-visible { outline: 3px solid var(--accent); outline-offset: -3px }
img { display: block; width: 100%; height: auto; aspect-ratio: var(--ratio); object-fit: cover }
.missing { display: grid; place-items: center; aspect-ratio: var(--ratio); color: var(--soft) }
.under { display: flex; gap: .5rem; align-items: baseline; padding: .5rem .7rem .55rem; font-size: .85rem }
.rank { color: var(--soft); font-variant-numeric: tabular-nums }
.name { flex: 1; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.score { font-weight: 600; font-variant-numeric: tabular-nums; white-space: nowrap }
.bar { display: block; height: 3px; background: var(--line) }
.bar i { display: block; height: 100%; background: var(--accent) }
.none { color: var(--soft) }
@media (max-width: 600px) { :root { --row: 140px } }
@media print { li { break-inside: avoid } }
"""
