"""What ``sigrun evaluate`` prints: the figures of an evaluation and of a comparison, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sigrun.cli.shell import plain
from sigrun.evaluation import Comparison, Evaluation
from sigrun.statistics import Paired, Proportion

MOST_LINES = 10  # of a list; the JSON has all
MOST_NAME = 40  # characters of a class


def evaluation_text(found: Evaluation) -> Iterator[str]:
    """The figures of one evaluation, a line each."""
    read, total = int(found.read.sum()), len(found.dataset.pictures)
    yield subject_line(found.subject)
    missing = f"; {total - read:,} could not be read" if read < total else ""
    yield f"  {read:,} pictures of {len(found.dataset.classes):,} classes judged{missing}"
    if len(found.labels) > len(found.dataset.classes):
        yield f"  {len(found.labels):,} labels to choose from"
    yield ""
    yield f"  top-1           {_share(found.top1)}"
    if found.top5 is not None:
        yield f"  top-5           {_share(found.top5)}"
    yield f"  mean per class  {percent(found.mean_per_class)}"
    speed = f"{found.pictures_per_second:,.1f} pictures/s".ljust(14)
    yield f"  speed           {speed}  {found.seconds:,.1f} s with decoding, after {found.start_seconds:.1f} s to start"
    judged = [(c.name, c.right) for c in found.classes if c.right is not None]
    weakest = sorted(judged, key=lambda c: (c[1].share, -c[1].total))
    wrong = [(name, right) for name, right in weakest if right.count < right.total]
    yield from _table(
        "weakest classes",
        [
            [_short(name), percent(right.share), f"{right.count:,} of {right.total:,}"]
            for name, right in wrong
        ],
    )
    yield from _table(
        "confusions",
        [
            [_short(c.truth), "taken for", _short(c.answer), f"{c.times.count:,} of {c.times.total:,}"]
            for c in found.confusions()
        ],
    )
    yield from _list("could not be read", [error.message for _, error in sorted(found.images.errors.items())])
    remarks = sorted(found.images.notes.items())
    yield from _list("notes on pictures", [f"{found.dataset.name(row)}: {said}" for row, said in remarks])
    yield from _list("notes", list(found.notes))


def comparison_text(comparison: Comparison) -> Iterator[str]:
    """What the other artifact would have answered, a line each figure."""
    first, second = comparison.top1
    yield f"compared with {subject_line(comparison.reference.subject)}"
    yield f"  {comparison.paired.total:,} pictures that both could read"
    yield ""
    yield f"  top-1           {percent(first.share)} against {percent(second.share)}"
    yield f"  difference      {difference(comparison.paired)}"
    yield f"  lost, won       {comparison.paired.lost:,}, {comparison.paired.won:,}  ({chance(comparison.paired)})"
    if comparison.paired_top5 is not None:
        yield f"  top-5           {difference(comparison.paired_top5)}"
    if comparison.mean_cosine is not None:
        yield f"  image cosine    {comparison.mean_cosine:.5f} mean, {comparison.worst_cosine:.5f} worst"
    else:
        yield "  image cosine    none: the two are of different embedding spaces"
    yield (
        f"  probability     differs by {comparison.right_probability_error:.4f} for the right class, "
        f"{comparison.probability_error:.6f} over all"
    )
    speeds = [e.pictures_per_second for e in (comparison.found, comparison.reference)]
    yield f"  speed           {speeds[0]:,.1f} against {speeds[1]:,.1f} pictures/s"
    for title, wrong, where, pictures in (
        ("lost: right there, wrong here", comparison.found, "here", comparison.lost),
        ("won: wrong there, right here", comparison.reference, "there", comparison.won),
    ):
        yield from _list(title, [_mistake(wrong, row, where) for row in pictures])


def subject_line(subject: dict[str, str]) -> str:
    """What ran, in one line."""
    return plain("  ".join(subject[key] for key in ("model", "variant", "compute", "provider")))


def percent(share: float) -> str:
    """A share in percent, of a fixed width; 100 and 0 only where it is exactly that."""
    shown = 100 * share
    if 0 < share < 1:
        shown = min(max(shown, 0.1), 99.9)
    return f"{shown:5.1f} %"


def difference(found: Paired) -> str:
    """A difference in percentage points with its interval."""
    low, high = found.interval()
    return f"{100 * found.difference:+.2f} points  (95 % interval {100 * low:+.2f} to {100 * high:+.2f})"


def chance(found: Paired) -> str:
    """McNemar's p in words."""
    value = "below 0.0001" if found.p < 0.0001 else f"{found.p:.4f}"
    return f"McNemar's exact p {value}"


def _mistake(found: Evaluation, row: int, where: str) -> str:
    label = found.labels.labels
    answer, truth = label[found.answers[row]], label[found.truths[row]]
    return f"{found.dataset.name(row)}  {_short(truth)}, {where} {_short(answer)}"


def _share(found: Proportion) -> str:
    low, high = found.interval()
    return (
        f"{percent(found.share)}  (95 % interval {100 * low:.1f} to {100 * high:.1f} %; "
        f"{found.count:,} of {found.total:,})"
    )


def _table(title: str, rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows of cells in columns, the first few; nothing if there are none."""
    if not rows:
        return
    shown = rows[:MOST_LINES]
    widths = [max(len(row[i]) for row in shown) for i in range(len(shown[0]))]
    cells = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in shown]
    yield from _block(title, [line.rstrip() for line in cells], len(rows))


def _list(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield from _block(title, [plain(line) for line in lines[:MOST_LINES]], len(lines))


def _block(title: str, shown: Sequence[str], total: int) -> Iterator[str]:
    yield ""
    yield f"  {title}" if total == len(shown) else f"  {title} ({len(shown)} of {total:,}; --json has all)"
    yield from (f"    {line}" for line in shown)


def _short(name: str) -> str:
    line = plain(" ".join(name.split()))
    return line if len(line) <= MOST_NAME else line[: MOST_NAME - 1] + "…"
