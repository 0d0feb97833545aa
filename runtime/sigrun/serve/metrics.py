"""Counts and times in Prometheus' text format."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCHES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """What the server counts. Labels are few and never hold anything of a request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
        self._histograms: dict[str, dict[Labels, _Histogram]] = defaultdict(dict)
        self._help: dict[str, tuple[str, str]] = {}
        self._bounds: dict[str, tuple[float, ...]] = {}
        self._define("sigrun_requests_total", "counter", "Requests, by route and status.")
        self._define("sigrun_items_total", "counter", "Pictures and texts computed, by tower.")
        self._define(
            "sigrun_item_errors_total", "counter", "Pictures and texts that could not be used, by route."
        )
        self._define("sigrun_request_seconds", "histogram", "How long requests took, by route.", SECONDS)
        self._define("sigrun_batch_seconds", "histogram", "How long batches took, by tower.", SECONDS)
        self._define("sigrun_batch_items", "histogram", "Items in a batch, by tower.", BATCHES)
        self._define("sigrun_queue_items", "gauge", "Items that wait or are computed, by tower.")
        self._define("sigrun_tower_loaded", "gauge", "Whether a tower is in memory.")
        self._define(
            "sigrun_tower_memory_bytes", "gauge", "By how much loading a tower made the process grow."
        )
        self._define("sigrun_requests_held", "gauge", "Requests that are being read or answered.")
        self._define("sigrun_held_bytes", "gauge", "Bytes of their bodies.")
        self._define("sigrun_resident_bytes", "gauge", "Memory of the process.")

    def _define(self, name: str, kind: str, text: str, bounds: tuple[float, ...] = ()) -> None:
        self._help[name] = (kind, text)
        self._bounds[name] = bounds

    def add(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            self._counts[name][tuple(sorted(labels.items()))] += amount

    def put(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            self._counts[name][tuple(sorted(labels.items()))] = value

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a value to a histogram."""
        key = tuple(sorted(labels.items()))
        with self._lock:
            self._histograms[name].setdefault(key, _Histogram(self._bounds[name])).add(value)

    def text(self) -> str:
        """All of it."""
        lines: list[str] = []
        with self._lock:
            for name, (kind, help_text) in self._help.items():
                lines += [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
                for labels, value in sorted(self._counts[name].items()):
                    lines.append(f"{name}{_shown(labels)} {_number(value)}")
                for labels, histogram in sorted(self._histograms[name].items(), key=lambda entry: entry[0]):
                    lines += histogram.lines(name, labels)
        return "\n".join(lines) + "\n"


class _Histogram:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: Labels) -> list[str]:
        found, total = [], 0
        for bound, count in zip((*map(_number, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            found.append(f"{name}_bucket{_shown((*labels, ('le', bound)))} {total}")
        return [
            *found,
            f"{name}_sum{_shown(labels)} {_number(self._sum)}",
            f"{name}_count{_shown(labels)} {total}",
        ]


def _shown(labels: Labels) -> str:
    if not labels:
        return ""
    quoted = (f'{name}="{value}"' for name, value in labels)
    return "{" + ",".join(quoted) + "}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
