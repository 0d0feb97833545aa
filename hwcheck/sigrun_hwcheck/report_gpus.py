"""What ``hwcheck gpus`` prints: text, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from sigrun_hwcheck.advice import PREFERRED
from sigrun_hwcheck.card_code import PACKAGE
from sigrun_hwcheck.gpus import CARD_FORMS, CardReport, LeastMemory, OnCard
from sigrun_hwcheck.memory import TOWER_CHOICES, TowerChoice
from sigrun_hwcheck.stored import Form, Stored
from sigrun_hwcheck.table import Column, Table, harmless, wrapped
from sigrun_hwcheck.tables import label, position
from sigrun_hwcheck.units import size
from sigrun_hwcheck.verdict import VERDICTS, Verdict
from sigrun_hwcheck.wording import rate

FORMAT = 1
SIZES_SHOWN = 2
"""Of sizes of memory in which a variant fits, how many are listed with their cards."""

CAVEAT = (
    "Estimates: none of this was measured on a card. Figures for AMD, Intel and Apple are reckoned as NVIDIA's. A card "
    "is taken to have 512 MiB of its memory (at most a tenth) in use; one that works in main memory, 2 GiB of that (at "
    "most half)."
)
FORM_WORDS: dict[Form, str] = {
    "f16": "which the runtime takes where it fits",
    "w4f16": "weights kept in 4 bits where they are stored so, on NVIDIA's cards",
}
NO_CODE = "no code"
ANSWER: dict[Verdict, str] = {
    "fits": "fits",
    "tight": "tight",
    "does not fit": "does not fit",
    "unknown": "cannot be told",
}


def text(report: CardReport, *, full: bool = False) -> str:
    """The whole answer, ending in a newline; ``full`` has a line for every card."""
    stored = chosen(report)
    parts = [
        wrapped(f"Graphics cards for {stored.model}, at batch {report.batch}"),
        *(
            [*wrapped(f"Form {form}, {FORM_WORDS[form]}:"), *table.text()]
            for form, table in least_tables(report)
        ),
        wrapped(
            "card: so many GiB a card must have for the tower before it, or for both; where two are given, from the "
            "first on it is tight, from the second on it fits."
        ),
    ]
    if full:
        parts += [wrapped(f"{_name(report, stored)}, in the form that the runtime takes by itself:")]
        parts += [[*card_table(report, stored).text()]]
    else:
        parts += [[*lines] for lines in _grouped(report, stored)]
    parts.append(_barred(report, stored))
    parts.append(wrapped(CAVEAT if full else f"{CAVEAT} --all has a line for every card, with its speed."))
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def markdown(report: CardReport) -> str:
    """The tables in Markdown, ending in a newline."""
    stored = chosen(report)
    parts = [
        [f"### Graphics cards for {stored.model}"],
        *(
            [f"**Form {form}, {FORM_WORDS[form]}**", "", *table.markdown()]
            for form, table in least_tables(report)
        ),
        [f"### {_name(report, stored)} on each card"],
        [*card_table(report, stored).markdown()],
        [" ".join(_barred(report, stored))],
        [CAVEAT],
    ]
    return harmless("\n\n".join("\n".join(part) for part in parts) + "\n")


def chosen(report: CardReport) -> Stored:
    """The variant that cards are listed for: the one that we advise, else the first."""
    return next((s for s in report.variants if s.variant == PREFERRED), report.variants[0])


def _name(report: CardReport, stored: Stored) -> str:
    return label(report.variants, stored)


def least_tables(report: CardReport) -> Iterator[tuple[Form, Table]]:
    """What each variant needs of a card: a table for each compute form that there is."""
    there = {one.tower for one in report.least}
    towers: list[TowerChoice] = [
        t for t in TOWER_CHOICES if t in there and (t != "text" or there == {"text"})
    ]
    columns = [Column("variant"), Column("on disk", right=True)]
    for tower in towers:
        columns += [Column(tower, right=True), Column("card", right=True)]
    for form in CARD_FORMS:
        of_form = [one for one in report.least if one.form == form]
        lines = []
        for _, group in groupby(of_form, key=lambda one: id(one.stored)):
            of_variant = {one.tower: one for one in group}
            first = next(iter(of_variant.values()))
            whole = max(one.disk_bytes for one in of_variant.values())
            cells = [cell for tower in towers for cell in _least_cells(of_variant.get(tower))]
            lines.append((_name(report, first.stored), size(whole), *cells))
        if lines:
            yield form, Table(tuple(columns), tuple(lines))


def _least_cells(one: LeastMemory | None) -> tuple[str, str]:
    """Memory, and the sizes of card: from the first on it is tight, from the second on it fits."""
    if one is None:
        return "", ""
    if one.tight_gib is None:
        sizes = "none"
    elif one.fits_gib is None:
        sizes = f"{one.tight_gib} tight"
    else:
        sizes = f"{one.fits_gib}" if one.tight_gib == one.fits_gib else f"{one.tight_gib}-{one.fits_gib}"
    return size(one.need.bytes.best_bytes), sizes


def card_table(report: CardReport, stored: Stored) -> Table:
    """A variant on each card."""
    lines = [
        (
            one.card.name if one.card.unified is False else f"{one.card.name}, {one.gib} GiB of RAM",
            f"{one.gib} GiB",
            "" if one.card.bandwidth is None else f"{one.card.bandwidth:g}",
            "" if one.card.float16 is None else f"{one.card.float16:g}",
            one.form,
            NO_CODE if one.problem else one.verdicts.get("image", ""),
            NO_CODE if one.problem else one.verdicts.get("both", ""),
            "" if one.speed is None or one.problem else rate(one.speed),
        )
        for one in report.on_cards
        if one.stored is stored
    ]
    columns = (
        Column("card"),
        Column("memory", right=True),
        Column("GB/s", right=True),
        Column("fp16", right=True),
        Column("form"),
        Column("image"),
        Column("both"),
        Column("images/s", right=True),
    )
    return Table(columns, tuple(lines))


def _grouped(report: CardReport, stored: Stored) -> Iterator[Sequence[str]]:
    """Cards by verdict, then by memory, a paragraph for each verdict; of those that fit, the smallest."""
    of_it = [one for one in report.on_cards if one.stored is stored]
    towers: tuple[TowerChoice, ...] = ("both", *stored.towers)
    tower = next(t for t in towers if any(t in one.verdicts for one in of_it))
    what = "both towers" if tower == "both" else f"the {tower} tower"
    for verdict in VERDICTS:
        found = [one for one in of_it if one.verdicts.get(tower) == verdict and not one.problem]
        if not found:
            continue
        shown = found
        if verdict == "fits":
            most = sorted({one.gib for one in found})[:SIZES_SHOWN][-1]
            shown = [one for one in found if one.gib <= most]
        more = len({one.card.name for one in found} - {one.card.name for one in shown})
        rest = wrapped(f"  and {more} cards that have more, in every family") if more else []
        yield [
            *wrapped(
                f"{_name(report, stored)} in the form that the runtime takes, {what}: {ANSWER[verdict]}"
            ),
            *_by_memory(shown),
            *rest,
        ]


def _barred(report: CardReport, stored: Stored) -> list[str]:
    """Families of cards that the package has no code for."""
    of_it = [one for one in report.on_cards if one.stored is stored]
    series = list(dict.fromkeys(one.card.series for one in of_it if one.problem))
    if not series:
        return []
    words = f"{PACKAGE} as pip installs it has no code for these, whatever their memory: {', '.join(series)}."
    return wrapped(words)


def _by_memory(found: Sequence[OnCard]) -> Iterator[str]:
    ordered = sorted(found, key=lambda one: (one.card.unified, one.gib))
    for (unified, gib), group in groupby(ordered, key=lambda one: (one.card.unified, one.gib)):
        names = [_short(one.card.name) for one in group]
        head = f"  {gib:>3} GiB of RAM  " if unified else f"  {gib:>3} GiB  "
        yield from wrapped(", ".join(names), first=head, rest=" " * len(head))


def _short(name: str) -> str:
    """A name without what its number says anyway."""
    for word in ("GeForce ", "Radeon ", "Instinct ", "Tesla ", " Generation", " GPU"):
        name = name.replace(word, "")
    return name


def to_json(report: CardReport) -> dict[str, Any]:
    """The answer as a plain dictionary: ``gpus.schema.json`` describes it."""
    return {
        "format": FORMAT,
        "source": "estimated",
        "batch": report.batch,
        "variants": [
            {"model": s.model, "variant": s.variant, "origin": s.origin, "path": s.path}
            for s in report.variants
        ],
        "least_memory": [
            {
                "variant": position(report.variants, one.stored),
                "tower": one.tower,
                "compute": one.form,
                "disk_bytes": one.disk_bytes,
                "need": asdict(one.need.bytes),
                "tight_gib": one.tight_gib,
                "fits_gib": one.fits_gib,
            }
            for one in report.least
        ],
        "cards": [
            {
                "name": group[0].card.name,
                "vendor": group[0].card.vendor,
                "series": group[0].card.series,
                "memory_gib": group[0].gib,
                "unified": group[0].card.unified,
                "bandwidth_gb_s": group[0].card.bandwidth,
                "float16_tflops": group[0].card.float16,
                "int8_tops": group[0].card.int8,
                "compute_capability": group[0].card.compute_capability
                and list(group[0].card.compute_capability),
                "reference": group[0].card.source,
                "free_bytes": group[0].free_bytes,
                "problem": group[0].problem,
                "variants": [_on_card(report, one) for one in group],
            }
            for group in _cards(report)
        ],
    }


def _cards(report: CardReport) -> Iterator[list[OnCard]]:
    for _, group in groupby(report.on_cards, key=lambda one: (one.card.name, one.gib)):
        yield list(group)


def _on_card(report: CardReport, one: OnCard) -> dict[str, Any]:
    speed = one.speed
    low, best, high = (None, None, None) if speed is None else speed.items_per_s
    return {
        "variant": position(report.variants, one.stored),
        "compute": one.form,
        "verdicts": dict(one.verdicts),
        "images_per_s": None if speed is None else {"low": low, "best": best, "high": high},
    }
