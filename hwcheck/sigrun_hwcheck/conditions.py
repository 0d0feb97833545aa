"""Under which conditions something was measured, or is asked: what memory and speed depend on besides the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

# Best first. What ONNX Runtime's kernels for CPUs choose by.
INSTRUCTION_SETS = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "i8mm", "dotprod", "neon")
DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True)
class Conditions:
    """All may be unknown, ``None``.

    Attributes:
        system: ``Linux``, ``Darwin`` or ``Windows``.
        onnxruntime: its version; the first two numbers count.
        instructions: the best instruction set of the CPU that its kernels use; on a card its compute capability.
        device: what the device calls itself, and how many processors or bytes it has; only for what is measured here.
        threads: threads within one run.
    """

    system: str | None = None
    onnxruntime: str | None = None
    instructions: str | None = None
    device: str | None = None
    threads: int | None = None

    def covers(self, other: Conditions) -> bool:
        """Whether figures measured under these conditions stand under the others. What is unknown differs."""
        return (
            self.system == other.system
            and self.instructions == other.instructions
            and other.onnxruntime is not None
            and series(self.onnxruntime) == series(other.onnxruntime)
        )

    def likeness(self, other: Conditions) -> tuple[bool, bool, bool]:
        """Larger is more alike: the instruction set matters most, then the system, then the version."""
        return (
            self.instructions == other.instructions,
            self.system == other.system,
            series(self.onnxruntime) == series(other.onnxruntime),
        )


def series(version: str | None) -> str | None:
    """The first two numbers of a version."""
    return None if version is None else ".".join(version.split(".")[:2])


def instruction_set(features: Mapping[str, bool | None]) -> str | None:
    """The best instruction set that is known to be there."""
    return next((name for name in INSTRUCTION_SETS if features.get(name)), None)


def installed_version() -> str | None:
    """The version of ONNX Runtime that is installed here, in whichever flavour, without loading it."""
    for name in DISTRIBUTIONS:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None
