"""Figures that every variant has, whatever the model, and their Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.children import MIB
from benchmarks.exports import Export
from benchmarks.markdown import table
from benchmarks.weight_error import WeightError
from sigrun.choice import FORMS


@dataclass(frozen=True)
class Stored:
    """What a variant weighs and what making it takes.

    Attributes:
        variant: its name.
        tower_bytes: tower → bytes of its weights.
        bits: tower → true bits per weight.
        file_bytes: the GGUF file.
        error: of its matrices.
        seconds, peak_bytes: of the export without verification.
        verified_seconds, verified_peak_bytes: of the export with it; ``None`` if that was not run.
    """

    variant: str
    tower_bytes: dict[str, int]
    bits: dict[str, float]
    file_bytes: int
    error: WeightError
    seconds: float
    peak_bytes: int
    verified_seconds: float | None
    verified_peak_bytes: int | None


@dataclass(frozen=True)
class Verified:
    """A variant's own record of its verification: compute form → figures."""

    variant: str
    forms: dict[str, dict[str, Any]]


def stored(plain: Export, error: WeightError, verified: Export | None) -> Stored:
    """From an export without verification, and perhaps one with it."""
    towers = plain.report["towers"]
    return Stored(
        plain.report["variant"],
        {tower: each["bytes"] for tower, each in towers.items()},
        {tower: each["bits_per_weight"] for tower, each in towers.items()},
        (verified or plain).path.stat().st_size,
        error,
        plain.seconds,
        plain.peak_bytes,
        verified.seconds if verified is not None else None,
        verified.peak_bytes if verified is not None else None,
    )


def record(verified: Export) -> Verified:
    """The verification that an export ends with."""
    return Verified(verified.report["variant"], verified.report["verification"]["forms"])


def named(variant: str, form: str) -> str:
    """A row's name."""
    return variant if form == "exact" else f"{variant}, {form}"


def stored_table(rows: Sequence[Stored]) -> str:
    """Bytes, bits, weight errors, time and memory."""

    def row(each: Stored) -> list[str]:
        return [
            each.variant,
            *(f"{each.tower_bytes[t]:,}" for t in ("image", "text")),
            " / ".join(f"{each.bits[t]:.2f}" for t in ("image", "text")),
            f"{each.file_bytes:,}",
            *(f"{e:.5f}" if e else "0" for e in (each.error.ours, each.error.ggml)),
            f"{each.seconds:.1f} s",
            f"{each.peak_bytes / MIB:,.0f} MiB",
            f"{each.verified_seconds - each.seconds:.1f} s" if each.verified_seconds is not None else "–",
            f"{each.verified_peak_bytes / MIB:,.0f} MiB" if each.verified_peak_bytes is not None else "–",
        ]

    heads = (
        "| image tower, bytes | text tower, bytes | bits per weight | file, bytes | weight error, ours | ggml "
        "| export | peak memory | verification | peak memory"
    )
    return table([h.strip() for h in heads.split("|")], map(row, rows))


def verified_table(rows: Sequence[Verified]) -> str:
    """Agreement with the float32 checkpoint, by compute form."""

    def row(variant: str, form: str, found: dict[str, Any]) -> list[str]:
        cosines, scores = found["cosines"], found["scores"]
        return [
            named(variant, form),
            f"{found['pictures']}, {found['texts']}",
            *(
                f"{cosines[t]['mean']:.5f} / {cosines[t]['worst']:.5f}" if cosines else "–"
                for t in ("image", "text")
            ),
            *(
                [
                    f"{scores['logit_error']:.4f}",
                    f"{scores['probability_error']:.6f}",
                    f"{scores['top1']:.1%}",
                ]
                if scores
                else ["–"] * 3
            ),
            "yes" if found["passed"] else "no",
        ]

    heads = (
        "| pictures, texts | image cosine, mean / worst | text cosine, mean / worst | logit error "
        "| probability error | best text kept | gate passed"
    )
    return table(
        [h.strip() for h in heads.split("|")],
        [row(each.variant, form, each.forms[form]) for each in rows for form in FORMS if form in each.forms],
    )
