"""Drawings as SVG text: a page in light and dark, texts and boxes. Equal input gives equal text."""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape

_LIGHT = """\
  text { font-family: system-ui, sans-serif; font-size: 11px; fill: #1f2328; }
  .title { font-size: 15px; font-weight: 600; }
  .panel { font-size: 13px; font-weight: 600; }
  .middle { text-anchor: middle; }
  .end { text-anchor: end; }
  .ground { fill: #ffffff; }
"""
_DARK = """\
    text { fill: #e6edf3; }
    .ground { fill: #0d1117; }
"""


def document(
    width: float,
    height: float,
    *,
    title: str,
    about: str,
    body: Iterable[str],
    style: str = "",
    dark: str = "",
) -> str:
    """A whole drawing.

    Classes that every drawing has: ``title``, ``panel`` (a heading), ``middle`` and ``end`` (where a text is
    anchored) and ``ground``.

    Args:
        width, height: its size in pixels.
        title: what a screen reader calls it.
        about: what it shows, for those who cannot see it.
        body: elements, in the order they are painted.
        style: lines of CSS beside those of every drawing.
        dark: the same, where the reader prefers a dark ground.
    """
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title about">',
            f'<title id="title">{plain(title)}</title>',
            f'<desc id="about">{plain(about)}</desc>',
            f"<style>\n{_LIGHT}{style}  @media (prefers-color-scheme: dark) {{\n{_DARK}{dark}  }}\n</style>",
            f'<rect class="ground" width="{width:g}" height="{height:g}"/>',
            *body,
            "</svg>",
            "",
        ]
    )


def text(x: float, y: float, content: str, style: str = "") -> str:
    """A text whose baseline starts at (x, y), or is anchored there as ``style``, its CSS classes, says."""
    return f'<text x="{x:g}" y="{y:g}"{_classes(style)}>{plain(content)}</text>'


def rect(x: float, y: float, width: float, height: float, style: str = "", fill: str = "") -> str:
    """A box from (x, y) to the right and down, with CSS classes and a colour of its own."""
    colour = f' fill="{fill}"' if fill else ""
    return f'<rect{_classes(style)} x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"{colour}/>'


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """A line; its CSS classes must give it a stroke."""
    return f'<line{_classes(style)} x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>'


def group(title: str, body: Iterable[str]) -> list[str]:
    """Elements that belong together; ``title`` is shown on pointing at them and read out for them."""
    return [f"<g><title>{plain(title)}</title>", *body, "</g>"]


def plain(content: str) -> str:
    """Text for XML, which takes no control characters."""
    return escape("".join(c if c.isprintable() else "?" for c in content))


def _classes(style: str) -> str:
    return f' class="{style}"' if style else ""
