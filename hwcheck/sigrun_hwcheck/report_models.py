"""What ``hwcheck models`` prints: text, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from sigrun_hwcheck.models import Candidate, Comparison
from sigrun_hwcheck.places import Place
from sigrun_hwcheck.table import Column, Table, wrapped
from sigrun_hwcheck.tables import LEGEND, MARKS
from sigrun_hwcheck.units import size
from sigrun_hwcheck.verdict import works
from sigrun_hwcheck.wording import ITEMS, SOURCES_SHORT, rate
from sigrun_recipes import Reference

FORMAT = 1
OWNER = "google/"
ABOUT: dict[str, str] = {
    "SigLIP": "SigLIP; those with i18n or multilingual in their name know more languages than English:",
    "SigLIP 2": "SigLIP 2; all of them know more languages than English:",
}


def text(found: Comparison, *, full: bool = False) -> str:
    """The whole answer, ending in a newline: at most 80 columns wide, with ``full`` at most 100."""
    parts = [wrapped(_heading(found))]
    for family, group in groupby(found.candidates, key=lambda one: one.known.family):
        lines = [*_table(found, [*group], full=full).text()]
        parts.append([*wrapped(ABOUT.get(family, f"{family}:")), "", *lines])
    parts += [wrapped(_legend(found)), wrapped(_sources(found)), wrapped(_steps(found))]
    parts += [[f"  {line}"] for line in [command(found)] if line is not None]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def markdown(found: Comparison) -> str:
    """The table with everything that is known, ending in a newline."""
    columns = (
        Column("model"),
        Column("licence"),
        Column("languages"),
        *(Column(heading, right=True) for heading in ("pixels", "tokens", "context")),
        *(Column(heading, right=True) for heading in ("image, M", "text, M", "top-1, %", "on disk", "needs")),
        Column("verdict"),
        Column(f"{_items(found)}/s", right=True),
    )
    references = _references(found.candidates)
    rows = tuple(_full_cells(one, references) for one in found.candidates)
    notes = [f"{i + 1}. {reference.title}: <{reference.url}>" for i, reference in enumerate(references)]
    parts = [["### Models of the SigLIP family"], [_heading(found)], [*Table(columns, rows).markdown()]]
    parts += [[_about_top1()], notes, [_steps(found)]]
    parts += [[f"    {line}"] for line in [command(found)] if line is not None]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def command(found: Comparison) -> str | None:
    """What to run next; nothing where nothing fits."""
    able = works(found.default.verdict)
    chosen = found.up or found.default if able else found.down
    return (
        None
        if chosen is None
        else f"sigrun-export convert {chosen.known.repo} --variant {found.variant} -o models"
    )


def _heading(found: Comparison) -> str:
    what = "both towers" if found.tower == "both" else f"the {found.tower} tower"
    supposed = found.report.supposed.summary
    place = found.place
    where = "on no device that the runtime could use"
    if place is not None:
        free = place.device.free_bytes
        where = f"on {place.device.label}, "
        where += "of which free memory is unknown" if free is None else f"{size(free)} free"
    made_up = f"Supposed machine, not this one: {supposed}. " if supposed else ""
    return f"{made_up}Models as {found.variant}, {what}, at batch {found.batch}, {where}."


def _items(found: Comparison) -> str:
    return ITEMS["text" if found.tower == "text" else "image"]


def _table(found: Comparison, of_family: Sequence[Candidate], *, full: bool) -> Table:
    columns = (
        Column(f"{OWNER}{_prefix(of_family)}..."),
        Column("tokens", right=True),
        *([Column("context", right=True)] if full else []),
        Column("image", right=True),
        Column("text", right=True),
        Column("top-1", right=True),
        Column("on disk", right=True),
        Column("needs ", right=True),
        *([Column(f"{_items(found)}/s", right=True)] if full else []),
    )
    return Table(columns, tuple(_cells(one, _prefix(of_family), full=full) for one in of_family))


def _prefix(of_family: Sequence[Candidate]) -> str:
    """``siglip-`` or ``siglip2-``."""
    return of_family[0].known.repo.removeprefix(OWNER).partition("-")[0] + "-"


def _cells(one: Candidate, prefix: str, *, full: bool) -> tuple[str, ...]:
    image, words = one.known.architecture.image, one.known.architecture.text
    name = one.known.repo.removeprefix(f"{OWNER}{prefix}")
    pace = "" if one.speed is None else rate(one.speed)
    need = "unknown?" if one.row is None else f"{size(_needed(one))}{MARKS[one.verdict]}"
    return (
        f"{name} *" if one.known.default else name,
        "" if image is None else str(image.tokens),
        *([("" if words is None else str(words.context))] if full else []),
        *(f"{one.parameters[tower] / 1e6:.0f}M" for tower in ("image", "text")),
        "" if one.top1 is None else f"{one.top1:.1f}",
        size(one.disk_bytes),
        need,
        *([pace] if full else []),
    )


def _full_cells(one: Candidate, references: Sequence[Reference]) -> tuple[str, ...]:
    image, words, told = one.known.architecture.image, one.known.architecture.text, one.known.zero_shot
    return (
        f"{one.known.repo} (default)" if one.known.default else one.known.repo,
        one.known.licence,
        "many" if one.known.multilingual else "English",
        *(("", "") if image is None else (str(image.image_size), str(image.tokens))),
        "" if words is None else str(words.context),
        *(f"{one.parameters[tower] / 1e6:.1f}" for tower in ("image", "text")),
        "" if told is None else f"{told.imagenet_top1:g} [{references.index(told.source) + 1}]",
        size(one.disk_bytes),
        "" if one.row is None else size(_needed(one)),
        one.verdict,
        "" if one.speed is None else rate(one.speed),
    )


def _needed(one: Candidate) -> int | None:
    return None if one.row is None else one.row.last.need.bytes.best_bytes


def _references(found: Sequence[Candidate]) -> list[Reference]:
    return list(dict.fromkeys(one.known.zero_shot.source for one in found if one.known.zero_shot is not None))


def _legend(found: Comparison) -> str:
    verdicts = {one.verdict for one in found.candidates}
    marks = [words for verdict, words in LEGEND.items() if verdict in verdicts]
    words = "* the default. image, text: weights of each tower in millions. on disk: its weights as "
    words += f"{found.variant}, tokenizer and graphs not counted; predicted. needs: memory, predicted too"
    words += f" ({', '.join(marks)})." if marks else "; all of them fit."
    paces = sorted({SOURCES_SHORT[one.speed.source] for one in found.candidates if one.speed is not None})
    if paces:
        words += f" Speeds (--all) are {' or '.join(paces)}."
    licences = sorted({one.known.licence for one in found.candidates})
    return f"{words} Licence of {'all' if len(licences) == 1 else 'these'}: {', '.join(licences)}."


def _about_top1() -> str:
    return (
        "top-1: published zero-shot accuracy on ImageNet-1k in per cent, of the checkpoint in full precision; empty "
        "where neither source has one. The sources do not measure alike: a small difference between them means nothing."
    )


def _sources(found: Comparison) -> str:
    said = [f"{_names(found, reference)}: {reference.title}" for reference in _references(found.candidates)]
    return f"{_about_top1()} {'; '.join(said)} (addresses: --markdown, --json)."


def _names(found: Comparison, reference: Reference) -> str:
    """The families whose figures are from a source."""
    told = (
        one for one in found.candidates if one.known.zero_shot and one.known.zero_shot.source == reference
    )
    return " and ".join(sorted({one.known.family for one in told}))


def _steps(found: Comparison) -> str:
    sentences = (
        f"One step {way}: {one.known.repo}, {one.top1:.1f} %, needs {size(_needed(one))}."
        for way, one in (("up that fits", found.up), ("down", found.down))
        if one is not None
    )
    default = found.default
    words = f"The default, {default.known.repo}"
    if default.top1 is not None:
        words += f": {default.top1:.1f} %"
    if default.row is not None:
        words += f", needs {size(_needed(default))}, {default.verdict}"
    return " ".join((f"{words}.", *sentences))


def to_json(found: Comparison) -> dict[str, Any]:
    """The answer as a plain dictionary: ``models.schema.json`` describes it."""
    return {
        "format": FORMAT,
        "variant": found.variant,
        "tower": found.tower,
        "batch": found.batch,
        "supposed": found.report.supposed.summary or None,
        "device": None if found.place is None else _device(found.place),
        "default": found.default.known.repo,
        "step_up": None if found.up is None else found.up.known.repo,
        "step_down": None if found.down is None else found.down.known.repo,
        "models": [_to_json(one) for one in found.candidates],
    }


def _device(place: Place) -> dict[str, Any]:
    return {
        "key": place.key,
        "label": place.device.label,
        "free_bytes": place.device.free_bytes,
        "provider": place.provider,
    }


def _to_json(one: Candidate) -> dict[str, Any]:
    image, words, told = one.known.architecture.image, one.known.architecture.text, one.known.zero_shot
    low, best, high = (None, None, None) if one.speed is None else one.speed.items_per_s
    return {
        "repo": one.known.repo,
        "family": one.known.family,
        "licence": one.known.licence,
        "multilingual": one.known.multilingual,
        "image_size": None if image is None else image.image_size,
        "patch_size": None if image is None else image.patch_size,
        "image_tokens": None if image is None else image.tokens,
        "context": None if words is None else words.context,
        "vocabulary": None if words is None else words.vocabulary,
        "parameters": dict(one.parameters),
        "zero_shot": None
        if told is None
        else {"imagenet_top1": told.imagenet_top1, "source": asdict(told.source), "row": told.row},
        "disk_bytes": one.disk_bytes,
        "compute": None if one.row is None else one.row.compute,
        "need": None if one.row is None else asdict(one.row.last.need.bytes),
        "verdict": one.verdict,
        "items_per_s": None
        if one.speed is None
        else {"low": low, "best": best, "high": high, "source": one.speed.source},
    }
