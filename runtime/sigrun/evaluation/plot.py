"""Draws an evaluation as an SVG: accuracy with its intervals, the weakest classes, the most frequent confusions.

Every bar has its name and its figures beside it as text; colour and marks only repeat what they say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sigrun.evaluation.comparison import Comparison
from sigrun.evaluation.measure import Evaluation
from sigrun.statistics import Paired, Proportion
from sigrun.svg import document, group, line, rect, text

WIDTH = 720
LEFT, RIGHT = 24, 24
ROW = 24
BAR = 14
HEAD = 40  # a panel's name and the numbers of its scale
GAP = 26
MOST_CLASSES, MOST_CONFUSIONS = 15, 8
REACHES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of a scale of differences
MOST_NAME = 24  # characters of a class beside its bar
STYLE = """\
  .small { font-size: 10px; }
  .bar { fill: #8fb8de; stroke: #2f6ea5; stroke-width: 1; }
  .other { fill: #ffffff; stroke: #6a737d; stroke-width: 1; }
  .grid { stroke: #d0d7de; stroke-width: 1; }
  .axis { stroke: #57606a; stroke-width: 1; }
  .whisker { stroke: #1f2328; stroke-width: 1.5; }
  .mark { fill: #1f2328; }
"""
DARK = """\
    .bar { fill: #275d8c; stroke: #79b8f2; }
    .other { fill: #0d1117; stroke: #9aa4ae; }
    .grid { stroke: #30363d; }
    .axis { stroke: #9aa4ae; }
    .whisker { stroke: #e6edf3; }
    .mark { fill: #e6edf3; }
"""


@dataclass(frozen=True)
class _Frame:
    """Where a panel has what.

    Attributes:
        names: where the scale starts; names stand left of it.
        scale: pixels from one end of the scale to the other; figures stand right of it.
    """

    names: int
    scale: int

    @property
    def figures(self) -> int:
        return self.names + self.scale + 20

    def at(self, share: float) -> float:
        """Where a share from 0 to 1 is on the scale."""
        return round(self.names + self.scale * share, 2)


_ONE_NAME, _TWO_NAMES = _Frame(196, 300), _Frame(396, 150)


@dataclass(frozen=True)
class _Row:
    """A bar.

    Attributes:
        name: what stands left of it.
        counted: how long it is.
        figures: what stands right of it.
        other: it is the reference's.
        mark: the reference's share, marked on a bar that is not.
    """

    name: str
    counted: Proportion
    figures: str
    other: bool = False
    mark: float | None = None


def evaluation_plot(found: Evaluation, comparison: Comparison | None = None) -> str:
    """The drawing as SVG text; equal input gives equal text.

    Args:
        found: what was evaluated.
        comparison: its comparison with a reference, whose figures are then drawn beside its own.
    """
    subject = _subject(found)
    read, classes = int(found.read.sum()), len(found.dataset.classes)
    under = f"{read:,} pictures of {classes:,} classes, {found.pictures_per_second:,.1f} pictures/s"
    if len(found.images.errors):
        under += f"; {len(found.images.errors):,} more could not be read"
    body = [text(LEFT, 30, subject, "title"), text(LEFT, 50, under)]
    y = 72.0
    if comparison is not None:
        body.append(
            text(LEFT, 66, f"compared with {_subject(comparison.reference)} (hollow bars and squares)")
        )
        y += 16
    for lines, height in _panels(found, comparison):
        body += _moved(lines, y)
        y += height + GAP
    return document(
        WIDTH,
        y,
        title=f"{subject}: accuracy on {read:,} pictures of {classes:,} classes",
        about=_about(found, comparison),
        body=body,
        style=STYLE,
        dark=DARK,
    )


def _panels(found: Evaluation, comparison: Comparison | None) -> Iterator[tuple[list[str], float]]:
    """Elements of each panel from y = 0 on, and its height."""
    yield _bars("right answers, with 95 % intervals", _accuracy(found, comparison))
    if comparison is not None:
        yield _difference(comparison)
    judged = [(c.name, c.right) for c in found.classes if c.right is not None]
    weakest = sorted(judged, key=lambda c: (c[1].share, -c[1].total))[:MOST_CLASSES]
    few = (
        "classes" if len(judged) <= MOST_CLASSES else f"the {MOST_CLASSES} weakest of {len(judged):,} classes"
    )
    yield _bars(few, [_class(name, right, comparison) for name, right in weakest])
    confused = found.confusions(MOST_CONFUSIONS)
    if confused:
        rows = [
            _Row(f"{_short(c.truth)} taken for {_short(c.answer)}", c.times, _of(c.times)) for c in confused
        ]
        yield _bars("most frequent confusions", rows, _TWO_NAMES)


def _class(name: str, right: Proportion, comparison: Comparison | None) -> _Row:
    """The bar of a class, with what the reference had right of it."""
    if comparison is None:
        return _Row(_short(name), right, _of(right))
    there = next(c.right for c in comparison.reference.classes if c.name == name)
    if there is None:
        return _Row(_short(name), right, _of(right))
    return _Row(_short(name), right, f"{_of(right)}; reference {there.count:,}", mark=there.share)


def _accuracy(found: Evaluation, comparison: Comparison | None) -> list[_Row]:
    rows = []
    reference = None if comparison is None else comparison.reference
    for name, figure in (("top-1", lambda e: e.top1), ("top-5", lambda e: e.top5)):
        get: Callable[[Evaluation], Proportion | None] = figure
        for each in (found, reference):
            counted = None if each is None else get(each)
            if each is not None and counted is not None:
                other = each is reference
                which = f"{name}, {_which(each, found if other else reference)}" if reference else name
                rows.append(_Row(which, counted, _percent(counted), other))
    return rows


def _bars(title: str, rows: Sequence[_Row], frame: _Frame = _ONE_NAME) -> tuple[list[str], float]:
    """A panel of bars on a scale from 0 to 100 %."""
    bottom = HEAD + ROW * len(rows)
    lines = [text(LEFT, 12, title, "panel")]
    for tick in range(0, 101, 25 if frame.scale > 200 else 50):
        x = frame.at(tick / 100)
        lines.append(text(x, HEAD - 8, f"{tick} %", "middle small"))
        lines.append(line(x, HEAD - 4, x, bottom, "grid"))
    for number, row in enumerate(rows):
        y = HEAD + ROW * number + (ROW - BAR) / 2
        middle = y + BAR / 2
        low, high = row.counted.interval()
        drawn = [
            rect(
                frame.names,
                y,
                frame.at(row.counted.share) - frame.names,
                BAR,
                "other" if row.other else "bar",
            )
        ]
        if row.mark is not None:
            drawn.append(rect(frame.at(row.mark) - 4, middle - 4, 8, 8, "other"))
        drawn += _whisker(frame.at(low), frame.at(high), middle)
        lines += group(
            f"{row.name}: {row.figures}; 95 % interval {100 * low:.1f} to {100 * high:.1f} %",
            [
                *drawn,
                text(frame.names - 10, middle + 4, row.name, "end"),
                text(frame.figures, middle + 4, row.figures),
            ],
        )
    lines.append(line(frame.names, HEAD - 4, frame.names, bottom, "axis"))
    return lines, bottom


def _difference(comparison: Comparison) -> tuple[list[str], float]:
    """A panel with the differences of top-1 and top-5 and their intervals, zero in the middle."""
    rows: list[tuple[str, Paired]] = [("top-1", comparison.paired)]
    if comparison.paired_top5 is not None:
        rows.append(("top-5", comparison.paired_top5))
    widest = max(abs(end) for _, row in rows for end in row.interval())
    reach = next(r for r in REACHES if widest <= r)
    frame = _ONE_NAME
    bottom = HEAD + ROW * len(rows)
    lines = [text(LEFT, 12, "difference in percentage points, with 95 % intervals", "panel")]

    def at(difference: float) -> float:
        return frame.at((1 + difference / reach) / 2)

    for tick in (-1, -0.5, 0, 0.5, 1):
        x = at(tick * reach)
        lines.append(text(x, HEAD - 8, f"{100 * reach * tick:+g}" if tick else "0", "middle small"))
        lines.append(line(x, HEAD - 4, x, bottom, "grid" if tick else "axis"))
    for number, (name, row) in enumerate(rows):
        middle = HEAD + ROW * number + ROW / 2
        low, high = row.interval()
        figures = f"{100 * row.difference:+.2f}; lost {row.lost:,}, won {row.won:,}; p {row.p:.3f}"
        lines += group(
            f"{name}: {figures}; 95 % interval {100 * low:+.2f} to {100 * high:+.2f}",
            [
                *_whisker(at(low), at(high), middle),
                rect(at(row.difference) - 4, middle - 4, 8, 8, "mark"),
                text(frame.names - 10, middle + 4, name, "end"),
                text(frame.figures, middle + 4, figures),
            ],
        )
    return lines, bottom


def _whisker(low: float, high: float, y: float) -> list[str]:
    ends = [line(x, y - 4, x, y + 4, "whisker") for x in (low, high)]
    return [line(low, y, high, y, "whisker"), *ends]


def _moved(lines: Sequence[str], y: float) -> list[str]:
    return [f'<g transform="translate(0 {y:g})">', *lines, "</g>"]


def _about(found: Evaluation, comparison: Comparison | None) -> str:
    said = [f"Top-1 {_percent(found.top1)}, {_of(found.top1)} pictures."]
    if comparison is not None:
        said.append(
            f"The reference has {_percent(comparison.reference.top1)}; {comparison.paired.lost:,} pictures were lost "
            f"and {comparison.paired.won:,} won."
        )
    said.append("Each bar's name and figures stand beside it; the JSON has all classes and confusions.")
    return " ".join(said)


def _subject(found: Evaluation) -> str:
    return ", ".join(found.subject[key] for key in ("model", "variant", "compute"))


def _which(found: Evaluation, other: Evaluation | None) -> str:
    """What tells an evaluation from the other one, in a word."""
    for key in ("variant", "compute", "provider", "model"):
        if other is None or found.subject[key] != other.subject[key]:
            return found.subject[key]
    return found.subject["variant"]


def _percent(found: Proportion) -> str:
    return f"{100 * found.share:.1f} %"


def _of(found: Proportion) -> str:
    return f"{found.count:,} of {found.total:,}"


def _short(name: str) -> str:
    return name if len(name) <= MOST_NAME else name[: MOST_NAME - 1] + "…"
