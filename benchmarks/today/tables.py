"""The figures as Markdown and as a drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.children import MIB
from benchmarks.markdown import table
from benchmarks.today.figures import Row
from benchmarks.today.given import Tower
from sigrun import svg

_WIDTH, _LEFT, _RIGHT, _TOP, _BAR, _STEP = 760, 270, 150, 64, 18, 26
_OURS, _OTHERS = "#1a7f5a", "#8a9aa9"


def tower_table(tower: Tower, rows: Sequence[Row], batch: int) -> str:
    """The Markdown table of one tower."""
    heads = [
        "",
        f"seconds per {tower}, median / least",
        "× fp32 ONNX",
        "× torch fp32",
        f"{tower}s per second, {batch or 'none'} at once",
        "process start to first embedding",
        "load",
        "peak memory",
        "cosine, mean / worst",
        "files, both towers",
    ]
    return table(heads, map(_cells, rows))


def _cells(row: Row) -> list[str]:
    cached = f" + {row.cache_bytes / MIB:,.0f} cached" if row.cache_bytes else ""
    return [
        row.name,
        f"{row.median_s:.3f} / {row.least_s:.3f}",
        *("–" if ratio is None else f"{ratio:.2f}" for ratio in (row.to_onnx, row.to_torch)),
        "–" if row.batch_rate is None else f"{row.batch_rate:.2f}",
        f"{row.start_s:.1f} s",
        f"{row.load_s:.2f} s",
        f"{row.peak_bytes / MIB:,.0f} MiB",
        f"{row.mean_cosine:.5f} / {row.worst_cosine:.5f}",
        f"{row.disk_bytes / MIB:,.0f}{cached} MiB",
    ]


def left_out(reasons: Mapping[str, str]) -> str:
    """Who is not in the tables, and why."""
    return "\n".join(f"* {name}: {reason}." for name, reason in reasons.items())


def plot(rows: Sequence[Row], about: str) -> str:
    """Seconds per image as bars, an SVG: the shortest on top."""
    shown = sorted(rows, key=lambda row: row.median_s)
    longest = max(row.median_s for row in shown)
    room = _WIDTH - _LEFT - _RIGHT
    body = [
        svg.text(16, 28, "Seconds per image", "title"),
        svg.text(16, 46, about),
    ]
    for at, row in enumerate(shown):
        y, length = _TOP + at * _STEP, max(1.0, room * row.median_s / longest)
        label = f"{row.median_s:.2f} s"
        if row.to_onnx is not None:
            label += f", {row.to_onnx:.2f} × fp32 ONNX"
        colour = _OURS if row.name.startswith("Sigrun") else _OTHERS
        body += svg.group(
            f"{row.name}: {label}",
            [
                svg.text(_LEFT - 8, y + 13, row.name, "end"),
                svg.rect(_LEFT, y, round(length, 1), _BAR, fill=colour),
                svg.text(round(_LEFT + length + 6, 1), y + 13, label),
            ],
        )
    told = "; ".join(f"{row.name} {row.median_s:.2f} s" for row in shown)
    height = _TOP + len(shown) * _STEP + 14
    return svg.document(_WIDTH, height, title="Seconds per image by runtime", about=told, body=body)
