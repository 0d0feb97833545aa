"""The bundled trained model in every variant: accuracy on drawings it never saw, with and without importance."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.emoji_accuracy import (
    CHECKPOINT,
    Embedded,
    Figures,
    drawings,
    embed,
    judge,
    reference,
    right,
    stated,
)
from benchmarks.exports import WORK, convert, need_room, say
from benchmarks.markdown import table
from benchmarks.peers import TODAY, peers
from benchmarks.variant_tables import (
    Stored,
    Verified,
    named,
    record,
    stored,
    stored_table,
    verified_table,
)
from benchmarks.weight_error import WeightError, weight_error
from sigrun.statistics import Paired, paired
from sigrun_exporters.checkpoint import Checkpoint, open_checkpoint
from sigrun_exporters.importance import load_importance
from sigrun_exporters.quantize import USE_IMPORTANCE
from sigrun_recipes import load, plan

ROOM = 500_000_000  # bytes of disk, most of them optimum's export
FORMS = ("exact", "int8")  # those that a CPU has kernels for
CALIBRATED, TESTED = slice(0, None, 2), slice(1, None, 2)  # of the held-out drawings


@dataclass(frozen=True)
class Accuracy:
    """One variant in one compute form, on all drawings; ``paired`` is against f32."""

    name: str
    figures: Figures
    paired: Paired


@dataclass(frozen=True)
class Weighed:
    """One variant on the tested half of the drawings; ``paired`` is against the same without importance."""

    name: str
    figures: Figures
    paired: Paired | None
    error: WeightError
    passed: bool


@dataclass(frozen=True)
class PeerRow:
    """A quantizer of today, or one of our variants beside it; ``paired`` is against fp32."""

    name: str
    nbytes: int
    float_bytes: int
    figures: Figures
    paired: Paired


@dataclass(frozen=True)
class Emoji:
    """All figures of the bundled model."""

    transformers: dict[str, float]
    accuracy: list[Accuracy]
    stored: list[Stored]
    verified: list[Verified]
    importance_seconds: float | None
    weighed: list[Weighed]
    peers: list[PeerRow]
    against_today: dict[str, Paired]

    def markdown(self) -> str:
        """The tables, accuracy first."""
        pictures, stated = self.accuracy[0].figures.pictures, self.transformers
        parts = [
            f"{pictures:,} held-out drawings, as many names; chance {1 / pictures:.2%}. 'Lost, won' counts drawings "
            "that f32 has right and the variant has not, and the other way round; p is McNemar's exact test: how often "
            "chance alone would split them as unevenly.",
            table(
                ["", "top-1", "lost, won (p)", *_HEADS],
                [
                    ["transformers fp32", f"{stated['top1']:.2%}", "–", f"{stated['top5']:.2%}", *["–"] * 3],
                    *(
                        [a.name, f"{a.figures.top1:.2%}", _changed(a.paired), *_cells(a.figures)]
                        for a in self.accuracy
                    ),
                ],
            ),
            "### What each variant weighs, and what making it takes\n\n"
            "Weight error is the norm of what storing changed over the norm of the weights, all matrices together; "
            "ggml's is of its own quantizers on the same matrices, padded, folded and planned as ours. Times are from "
            "start to exit of the command, most of that its start; verification is what it takes longer with that.",
            stored_table(self.stored),
            "### What each export finds out about itself\n\n"
            "Drawn pictures and texts that every export is verified with, against the float32 checkpoint. "
            "Forms f16 and w4f16 are for GPUs; here the verification computes them on the CPU.",
            verified_table(self.verified),
        ]
        if self.weighed:
            half = self.weighed[0].figures.pictures
            parts += [
                "### With and without importance\n\n"
                f"Importance was measured on one half of the held-out drawings and their names, {pictures - half} of "
                f"each, in {self.importance_seconds:.1f} s, an export included. The figures are of the other "
                f"half: {half} drawings among all {pictures:,} names, and the cosines of their {half} names. "
                "'Lost, won' is against the same variant without importance. "
                "The weight error counts each column by its importance; ggml gets "
                "the importance where ours does. The gate is that of the export's own verification, on other pictures "
                "and texts than those that the importance was measured on.",
                table(
                    [
                        "",
                        "top-1",
                        "lost, won (p)",
                        *_HEADS,
                        "weighed weight error, ours",
                        "ggml",
                        "gate passed",
                    ],
                    [
                        [
                            w.name,
                            f"{w.figures.top1:.2%}",
                            _changed(w.paired) if w.paired is not None else "",
                            *_cells(w.figures),
                            f"{w.error.ours:.5f}",
                            f"{w.error.ggml:.5f}",
                            "yes" if w.passed else "no",
                        ]
                        for w in self.weighed
                    ],
                ),
            ]
        parts += [
            "### Beside what people use today\n\n"
            "ONNX Runtime's own quantizers, blocks of 32, on optimum's ONNX export of the same model; same drawings. "
            "Bytes are both towers' ONNX files, or our GGUF file with tokenizer and the graphs of four forms; of an "
            "ONNX file's, 'float32' are matrices that the quantizer does not reach, the token table first; those that "
            "the 4-bit ones reach take 5 bits per weight and more, scales included. 'Lost, won' is against fp32.",
            table(
                ["", "bytes", "of them float32", "top-1", "lost, won (p)", *_HEADS],
                [
                    [
                        p.name,
                        f"{p.nbytes:,}",
                        f"{p.float_bytes:,}" if p.float_bytes >= 0 else "–",
                        f"{p.figures.top1:.2%}",
                        _changed(p.paired),
                        *_cells(p.figures),
                    ]
                    for p in self.peers
                ],
            ),
            *(
                f"{variant} against {TODAY}: lost, won {_changed(found)}."
                for variant, found in self.against_today.items()
            ),
        ]
        return "\n\n".join(parts)


_HEADS = (
    "top-5",
    "image cosine, mean / worst",
    "text cosine, mean / worst",
    "probability error, all / right",
)


def _cells(f: Figures) -> list[str]:
    return [
        f"{f.top5:.2%}",
        f"{f.mean_cosine:.5f} / {f.worst_cosine:.5f}",
        f"{f.mean_text_cosine:.5f} / {f.worst_text_cosine:.5f}",
        f"{f.probability_error:.6f} / {f.right_probability_error:.4f}",
    ]


def _changed(found: Paired) -> str:
    return f"{found.lost}, {found.won} ({found.p:.2f})"


def measure_emoji(variants: tuple[str, ...]) -> Emoji:
    """Export and measure."""
    need_room(ROOM)
    images = reference()
    checkpoint = open_checkpoint(str(CHECKPOINT))
    with tempfile.TemporaryDirectory(dir=WORK) as temporary:
        folder = Path(temporary)
        base = embed(convert(CHECKPOINT, "f32", folder / "base", "--no-verify").path)
        exact: dict[str, Embedded] = {}
        files: dict[str, int] = {}
        accuracy, rows, verified = [], [], []
        for variant in variants:
            plain = convert(CHECKPOINT, variant, folder, "--no-verify")
            full = convert(CHECKPOINT, variant, folder)
            error = weight_error(full.path, checkpoint, plan(load(variant), checkpoint.architecture))
            rows.append(stored(plain, error, full))
            verified.append(record(full))
            files[variant] = full.path.stat().st_size
            for form in FORMS:
                say(f"{variant} {form}: {len(images)} drawings")
                found = embed(full.path, form)
                if form == "exact":
                    exact[variant] = found
                changed = paired(right(base), right(found))
                accuracy.append(Accuracy(named(variant, form), judge(found, images, base.texts), changed))
        seconds, weighed = _importance({v.variant: v for v in verified}, folder, checkpoint, base)
        beside, today = _beside(exact, files, base)
    return Emoji(stated(), accuracy, rows, verified, seconds, weighed, beside, today)


def _importance(
    records: dict[str, Verified], folder: Path, checkpoint: Checkpoint, base: Embedded
) -> tuple[float | None, list[Weighed]]:
    """Variants with and without importance, and the seconds of the export that measured it."""
    plans = {v: plan(load(v), checkpoint.architecture) for v in records}
    weighing = [v for v, p in plans.items() if any(t.encoding.name in USE_IMPORTANCE for t in p.tensors)]
    if not weighing:
        return None, []
    pictures, captions = folder / "calibration", folder / "captions.txt"
    pictures.mkdir()
    cells, names = drawings()
    for number, cell in list(enumerate(cells))[CALIBRATED]:
        cell.save(pictures / f"{number:04}.png")
    captions.write_text("\n".join(names[CALIBRATED]) + "\n", "utf-8")
    given = ("--calibration", str(pictures), "--captions", str(captions))
    measured = convert(CHECKPOINT, weighing[0], folder / "measured", "--no-verify", *given)
    matrix = measured.path.with_name(f"{measured.path.stem}.imatrix.gguf")
    importance = load_importance(matrix)
    images = reference()
    rows = []
    for variant in weighing:
        before = folder / checkpoint.name / f"{checkpoint.name}-{variant}.gguf"
        weighed = convert(CHECKPOINT, variant, folder / "weighed", "--importance", str(matrix))
        after, gate = weighed.path, record(weighed).forms
        errors = [
            weight_error(path, checkpoint, plans[variant], importance=importance, told=told)
            for path, told in ((before, False), (after, True))
        ]
        for form in FORMS:
            say(f"{variant} {form}, with and without importance")
            found = [embed(path, form) for path in (before, after)]
            figures = [judge(each, images, base.texts, TESTED) for each in found]
            changed = paired(right(found[0], TESTED), right(found[1], TESTED))
            name = named(variant, form)
            rows.append(Weighed(name, figures[0], None, errors[0], records[variant].forms[form]["passed"]))
            rows.append(Weighed(f"{name}, importance", figures[1], changed, errors[1], gate[form]["passed"]))
    return measured.seconds, rows


def _beside(
    exact: dict[str, Embedded], files: dict[str, int], base: Embedded
) -> tuple[list[PeerRow], dict[str, Paired]]:
    """Peers, our variants, and how ours of about 4 bits changes what the peer of today has right."""
    images = reference()

    def row(name: str, nbytes: int, float_bytes: int, found: Embedded) -> PeerRow:
        changed = paired(right(base), right(found))
        return PeerRow(name, nbytes, float_bytes, judge(found, images, base.texts), changed)

    others = peers()
    rows = [row(p.name, p.nbytes, p.float_bytes, p.embedded) for p in others]
    rows += [row(f"ours, {variant}", files[variant], -1, found) for variant, found in exact.items()]
    today = next(p.embedded for p in others if p.name == TODAY)
    against = {v: paired(right(today), right(found)) for v, found in exact.items() if v.startswith("q4")}
    return rows, against
