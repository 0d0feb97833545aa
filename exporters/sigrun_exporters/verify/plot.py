"""Draws the weight errors of an export as a heatmap: an SVG of one panel a tower.

Columns are layers, rows the matrices of a layer. A cell's shade says its error on a scale that is the same for all
models and variants; the figures in it say the same without colour: bits of the encoding, and the error in percent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sigrun.svg import document, group, plain, rect, text
from sigrun_exporters.verify.weight_errors import PARTS, Cell, TowerErrors, tower_errors
from sigrun_recipes import Plan, TowerName

CELL_WIDTH, CELL_HEIGHT = 34, 32
LEFT, RIGHT, TOP = 76, 20, 62
PANEL_HEAD = 44  # a panel's name and its column numbers
OTHER_WIDTH = 164
LEGEND_HEIGHT = 84
LEGEND_BAR = 336
LEAST, MOST = 0.001, 0.3
"""Relative errors at the two ends of the scale, which is logarithmic."""
TICKS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
SHADES = (
    (68, 1, 84),
    (71, 44, 122),
    (59, 81, 139),
    (44, 113, 142),
    (33, 144, 141),
    (39, 173, 129),
    (92, 200, 99),
    (170, 220, 50),
    (253, 231, 37),
)
"""From the least error to the most: viridis, whose steps look equal and which stays ordered without colour vision."""
BITS: Mapping[str, str] = {"f32": "32", "f16": "16", "q8_0": "8", "q6_k": "6", "q5_k": "5", "q4_k": "4"}
STYLE = """\
  .cell { stroke: #ffffff; stroke-width: 1; }
  .bits { font-size: 12px; font-weight: 600; }
  .error { font-size: 9.5px; }
  .on-dark { fill: #ffffff; }
  .on-light { fill: #000000; }
"""
DARK = """\
    .cell { stroke: #0d1117; }
"""


def error_plot(plan: Plan, errors: Mapping[str, float], towers: Sequence[TowerName], title: str) -> str:
    """The heatmap as SVG text; equal input gives equal text.

    Args:
        plan: how each tensor is stored.
        errors: tensor → relative error, of every tensor of the plan.
        towers: which towers to show, in order.
        title: what stands above.
    """
    found = {tower: tower_errors(plan, errors, tower) for tower in towers}
    columns = max(len(t.layers) + bool(t.head) for t in found.values())
    width = LEFT + RIGHT + max(columns * CELL_WIDTH + CELL_WIDTH // 2, 560)
    body: list[str] = []
    y = TOP
    for tower, each in found.items():
        lines, y = _panel(tower, each, y, width)
        body += lines
    body += _legend(y, sorted({cell.encoding for each in found.values() for cell in each.cells()}))
    y += LEGEND_HEIGHT
    unshaded = sum(each.plain for each in found.values())
    subtitle = (
        f"relative error of each stored matrix; {unshaded} norms and biases are stored as f32, error "
        f"{_percent(max(each.plain_error for each in found.values()))} %"
    )
    return document(
        width,
        y,
        title=f"{title}: relative error of each stored matrix",
        about="Rows are the matrices of a layer, columns the layers. In a cell, the upper figure is the bits of its "
        "encoding, the lower its error in percent. The JSON report has the same figures.",
        body=[text(LEFT - 56, 26, title, "title"), text(LEFT - 56, 46, subtitle), *body],
        style=STYLE,
        dark=DARK,
    )


def _panel(tower: str, found: TowerErrors, top: int, width: int) -> tuple[list[str], int]:
    """A tower's panel from ``top`` on, and where it ends."""
    lines = [f'<g aria-label="{plain(tower)} tower">', text(LEFT - 56, top + 16, f"{tower} tower", "panel")]
    grid = top + PANEL_HEAD
    lines.append(text(LEFT - 8, grid - 6, "layer", "end"))
    for layer in range(len(found.layers)):
        lines.append(text(LEFT + layer * CELL_WIDTH + CELL_WIDTH / 2, grid - 6, str(layer), "middle"))
    head = LEFT + len(found.layers) * CELL_WIDTH + CELL_WIDTH // 2  # half a column apart
    if found.head:
        lines.append(text(head + CELL_WIDTH / 2, grid - 6, "head", "middle"))
    for number, part in enumerate(PARTS):
        y = grid + number * CELL_HEIGHT
        lines.append(text(LEFT - 8, y + CELL_HEIGHT / 2 + 4, part, "end"))
        for layer, row in enumerate(found.layers):
            lines += _cell(row[part], LEFT + layer * CELL_WIDTH, y)
        if part in found.head:
            lines += _cell(found.head[part], head, y)
    y = grid + len(PARTS) * CELL_HEIGHT + 12
    x = LEFT
    for cell in found.other:
        if x + OTHER_WIDTH > width - RIGHT and x > LEFT:
            x, y = LEFT, y + CELL_HEIGHT + 6
        lines += _cell(cell, x, y)
        name = cell.tensor.removesuffix(".weight")
        lines.append(text(x + CELL_WIDTH + 6, y + CELL_HEIGHT / 2 + 4, name))
        x += OTHER_WIDTH
    return [*lines, "</g>"], y + (CELL_HEIGHT if found.other else -12) + 24


def _cell(cell: Cell, x: float, y: float) -> list[str]:
    """A shaded cell with its bits, its error and, on pointing at it, the exact figures."""
    shade = _shade(cell.error)
    on = "on-dark" if _luminance(shade) < 0.18 else "on-light"
    middle = x + CELL_WIDTH / 2
    return group(
        f"{cell.tensor}: {cell.encoding}, relative error {cell.error:.6f}",
        [
            rect(x, y, CELL_WIDTH, CELL_HEIGHT, "cell", _rgb(shade)),
            text(middle, y + 14, BITS.get(cell.encoding, cell.encoding), f"middle bits {on}"),
            text(middle, y + 26, _percent(cell.error), f"middle error {on}"),
        ],
    )


def _legend(top: int, encodings: Sequence[str]) -> list[str]:
    """The scale with its numbers, and what the upper figures mean."""
    lines = [text(LEFT - 56, top + 14, "relative error")]
    step = LEGEND_BAR / 48
    for number in range(48):
        shade = _shade(LEAST * (MOST / LEAST) ** (number / 47))
        lines.append(rect(LEFT + 24 + number * step, top + 2, step + 0.5, 16, fill=_rgb(shade)))
    for tick in TICKS:
        x = LEFT + 24 + LEGEND_BAR * _place(tick)
        lines.append(text(round(x, 1), top + 32, f"{100 * tick:g} %", "middle"))
    named = ", ".join(f"{BITS.get(e, e)} = {e}" for e in sorted(encodings, key=_order))
    lines.append(text(LEFT - 56, top + 56, f"upper figure: bits ({named}); lower figure: error in percent"))
    return lines


def _order(encoding: str) -> tuple[int, str]:
    names = list(BITS)
    return (names.index(encoding) if encoding in names else len(names), encoding)


def _place(error: float) -> float:
    """Where an error stands on the scale, 0 to 1."""
    if not error > LEAST:
        return 0.0
    return min(math.log(error / LEAST) / math.log(MOST / LEAST), 1.0)


def _shade(error: float) -> tuple[int, int, int]:
    at = _place(error) * (len(SHADES) - 1)
    low = min(int(at), len(SHADES) - 2)
    a, b = SHADES[low], SHADES[low + 1]
    red, green, blue = (round(p + (q - p) * (at - low)) for p, q in zip(a, b, strict=True))
    return red, green, blue


def _rgb(shade: tuple[int, int, int]) -> str:
    return f"rgb({shade[0]},{shade[1]},{shade[2]})"


def _luminance(shade: tuple[int, int, int]) -> float:
    """Relative luminance as WCAG has it; black and white text are equally legible at 0.18."""
    linear = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in shade]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _percent(error: float) -> str:
    """An error in percent, in at most four characters; a plain 0 only where nothing changed."""
    percent = 100 * error
    if percent == 0:
        return "0"
    if percent < 0.01:
        return "<.01"
    return f"{percent:.2f}" if percent < 9.995 else f"{percent:.1f}"
