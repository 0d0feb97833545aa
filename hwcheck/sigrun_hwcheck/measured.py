"""What was measured on this machine, kept in a JSON file among the user's caches.

An entry belongs to the weights and graphs of a file, not to its path, and to a device and a version of ONNX Runtime.
Nothing in the file names its user.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sigrun_hwcheck.conditions import Conditions
from sigrun_hwcheck.stored import Stored

FORMAT = 1
FILE = "measured.json"
MOST_ENTRIES = 2000
"""The oldest go first."""


@dataclass(frozen=True)
class Measured:
    """One tower in one compute form at one batch, run in a process of its own. All in bytes and seconds.

    Attributes:
        weights_sha256: whose weights.
        tower: ``image`` or ``text``.
        form: the compute form.
        provider: what ran it.
        device: what it ran on, as :class:`Conditions` name it.
        onnxruntime: its version.
        threads: threads within one run.
        batch: items run at once, at most a micro-batch.
        cached: whether int8 matrices came from the cache.
        base_bytes: what the process held before a file was open; on a card 0.
        load_peak_bytes: highest until the tower stood.
        run_peak_bytes: highest while it ran.
        mapped_bytes: pages of files among it, which the system can take back.
        load_s: seconds to load.
        item_s: seconds an item, the fastest seen.
    """

    weights_sha256: str
    tower: str
    form: str
    provider: str
    device: str
    onnxruntime: str
    threads: int
    batch: int
    cached: bool
    base_bytes: int
    load_peak_bytes: int
    run_peak_bytes: int
    mapped_bytes: int
    load_s: float
    item_s: float

    @property
    def key(self) -> tuple[object, ...]:
        """What it was measured of; a newer figure of the same replaces it."""
        return tuple(getattr(self, name) for name in _KEY)


_KEY = (
    "weights_sha256",
    "tower",
    "form",
    "provider",
    "device",
    "onnxruntime",
    "batch",
    "cached",
)
_TYPES: dict[str, tuple[type, ...]] = {
    f.name: {"str": (str,), "bool": (bool,), "int": (int,), "float": (int, float)}[str(f.type)]
    for f in fields(Measured)
}


@dataclass(frozen=True)
class Measurements:
    """Everything measured so far."""

    entries: tuple[Measured, ...] = ()

    def find(
        self,
        stored: Stored,
        tower: str,
        form: str,
        provider: str,
        where: Conditions,
        batch: int,
        *,
        cached: bool = False,
    ) -> Measured | None:
        """What was measured of exactly this, or ``None``."""
        if stored.weights_sha256 is None or where.device is None or where.onnxruntime is None:
            return None
        wanted = (
            stored.weights_sha256,
            tower,
            form,
            provider,
            where.device,
            where.onnxruntime,
            batch,
            cached and form == "int8",
        )
        return next((entry for entry in self.entries if entry.key == wanted), None)

    def with_new(self, new: Iterable[Measured]) -> Measurements:
        """These and newer ones, which come first and replace older ones of the same."""
        added = tuple(new)
        keys = {entry.key for entry in added}
        return Measurements((*added, *(e for e in self.entries if e.key not in keys))[:MOST_ENTRIES])


def default_file() -> Path | None:
    """Where measurements are kept: beside the runtime's int8 matrices, or nowhere with ``SIGRUN_CACHE=off``."""
    from sigrun.prepared import cache_folder  # brings numpy, which questions without a file must not need

    folder = cache_folder("auto")
    return None if folder is None else folder / FILE


def read(file: Path | None) -> Measurements:
    """The measurements in a file. One that is missing, damaged or of another version is as good as empty."""
    if file is None:
        return Measurements()
    try:
        data = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return Measurements()
    if (
        not isinstance(data, dict)
        or data.get("format") != FORMAT
        or not isinstance(data.get("measured"), list)
    ):
        return Measurements()
    return Measurements(tuple(entry for one in data["measured"] if (entry := _entry(one)) is not None))


def _entry(data: Any) -> Measured | None:
    if not isinstance(data, dict) or set(data) != set(_TYPES):
        return None
    for name, kinds in _TYPES.items():
        value = data[name]
        if type(value) not in kinds or (not isinstance(value, str) and not 0 <= value < 1 << 50):
            return None
    return Measured(**data)


def write(file: Path, measurements: Measurements) -> None:
    """Replace the file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, "measured": [asdict(e) for e in measurements.entries]}, indent=1)
    handle, name = tempfile.mkstemp(prefix=".sigrun-", dir=file.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text + "\n")
        Path(name).replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
