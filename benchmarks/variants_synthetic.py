"""A model of the published size with random weights in every variant: bytes, time and memory."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.children import MIB
from benchmarks.exports import WORK, Export, convert, need_room, say
from benchmarks.synthetic import PUBLISHED_BYTES, checkpoint
from benchmarks.variant_tables import Stored, Verified, record, stored, stored_table, verified_table
from benchmarks.weight_error import weight_error
from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_recipes import load, plan

ROOM = 8_000_000_000  # bytes of disk: f32 waiting to be written and written, and some air
VERIFIED = ("q8_0", "q4_k_m")
SAMPLE = (0, 9, 18, 26)  # layers of 27; half of them get more bits in q4_k_m and q5_k_m, as in the whole
BOTH = "q4_k_m"  # the variant that both formats are timed with


@dataclass(frozen=True)
class Both:
    """Both formats in one export, without verification."""

    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Synthetic:
    """All figures of the synthetic model."""

    stored: list[Stored]
    verified: list[Verified]
    both: Both | None

    def markdown(self) -> str:
        """The tables."""
        parts = [
            f"Weight error is over the matrices of layers {', '.join(map(str, SAMPLE))} of each tower and those in no "
            "layer. Random Gaussian weights are none of a trained model: the errors compare the quantizers, not the "
            "models, and there is nothing to measure importance on. Times are from start to exit of `sigrun-export "
            "convert`; verification is what it takes longer with that.",
            stored_table(self.stored),
        ]
        if self.both is not None:
            parts.append(
                f"{BOTH} as GGUF and ONNX in one export: {self.both.seconds:.1f} s, "
                f"{self.both.peak_bytes / MIB:,.0f} MiB, without verification."
            )
        if self.verified:
            parts += [
                "What those that were verified found out about themselves. The scores of random weights are nearly all "
                "ties; the figures show that the pipeline runs at this size, not what quantizing costs.",
                verified_table(self.verified),
            ]
        return "\n\n".join(parts)


def measure_synthetic(variants: tuple[str, ...], verify: tuple[str, ...]) -> Synthetic:
    """Export and measure; every file is removed after its use."""
    weights = WORK / "synthetic-so400m-patch14-384" / "model.safetensors"
    need_room(ROOM + (0 if weights.exists() else PUBLISHED_BYTES))
    source = checkpoint()
    opened = open_checkpoint(str(source))
    rows, verified, both = [], [], None
    for variant in variants:
        with tempfile.TemporaryDirectory(dir=WORK) as folder:
            plain = convert(source, variant, Path(folder), "--no-verify")
            say(f"{variant}: {plain.seconds:.1f} s; weight error on a sample")
            error = weight_error(plain.path, opened, plan(load(variant), opened.architecture), layers=SAMPLE)
            full: Export | None = None
            if variant in verify:
                full = convert(source, variant, Path(folder))
                verified.append(record(full))
            rows.append(stored(plain, error, full))
            if variant == BOTH:
                shutil.rmtree(plain.path.parent)
                run = convert(
                    source, variant, Path(folder), "--no-verify", "--format", "gguf", "--format", "onnx"
                )
                both = Both(run.seconds, run.peak_bytes)
    return Synthetic(rows, verified, both)
