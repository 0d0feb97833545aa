"""A report for people: as text, at most 80 columns wide (``--all``: 100), and as Markdown. Plain ASCII, no colours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from sigrun_hwcheck import facts
from sigrun_hwcheck.api import Report
from sigrun_hwcheck.constants import constants
from sigrun_hwcheck.places import Place
from sigrun_hwcheck.rows import Row
from sigrun_hwcheck.stored import Stored
from sigrun_hwcheck.table import harmless, room, wrapped
from sigrun_hwcheck.tables import everything, label, marks_used, overview
from sigrun_hwcheck.units import size
from sigrun_hwcheck.verdict import best, works
from sigrun_hwcheck.wording import SOURCES, SOURCES_SHORT, TERMS


def text(report: Report, *, full: bool = False, explain: bool = False) -> str:
    """The whole report, ending in a newline.

    Args:
        report: the answer.
        full: a table for every place, with a line for each tower and batch.
        explain: what the needs are made of.
    """
    main = _main(report)
    parts = [[*_supposed(report)], [*_facts(report)], [*_subjects(report.variants)]]
    shown = [p for p in report.places if _rows(report, p)] if full else [main] if main is not None else []
    parts += [[*_table(report, place, full=full)] for place in shown]
    parts.append([*_elsewhere(report, [p for p in report.places if p not in shown])])
    if explain:
        parts += [[*_explained(report, row)] for row in _to_explain(report, main, full=full)]
    parts += [[*_notes(report, shown)], [*_advice(report)]]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def markdown(report: Report) -> str:
    """The tables and the advice in Markdown, ending in a newline."""
    parts = [[*_supposed(report)], [*_subjects(report.variants)]]
    for place in report.places:
        of_place = _rows(report, place)
        if of_place:
            parts += [[f"**{_heading(report, place, of_place)}**"]]
            parts += [[*everything(report.variants, of_place).markdown()]]
    command = [] if report.advice.command is None else [f"    {report.advice.command}"]
    parts += [[*_notes(report, report.places)], [report.advice.sentence, *report.advice.notes], command]
    return harmless("\n\n".join("\n".join(part) for part in parts if part) + "\n")


def _main(report: Report) -> Place | None:
    """The place whose table is shown: that of the advice, else the one the runtime takes, else any that is judged."""
    judged = [p for p in report.places if p.key in report.judged and _rows(report, p)]
    return next(
        (p for p in judged if p.key == report.advice.device),
        report.auto if report.auto in judged else next(iter(judged), None),
    )


def _rows(report: Report, place: Place) -> list[Row]:
    return [row for row in report.rows if row.place is place]


def _supposed(report: Report) -> Iterator[str]:
    if report.supposed.summary:
        yield from wrapped(f"SUPPOSED MACHINE, not this one: {report.supposed.summary}")


def _facts(report: Report) -> Iterator[str]:
    if not report.supposed.keys:
        yield from facts.lines(report.machine)


def _subjects(variants: Sequence[Stored]) -> Iterator[str]:
    for i, stored in enumerate(variants):
        if stored.path is None:
            yield from wrapped(f"{stored.model}, not exported yet: sizes follow from the recipes")
            return
        number = f"[{i + 1}] " if len(variants) > 1 else ""
        yield f"{number}{_shortened(stored.path, room() - len(number))}"
        words = f"{stored.model}, {stored.variant}, {size(stored.file_bytes)}{_not_taken(stored)}"
        yield from wrapped(words, first="    ", rest="    ")


def _not_taken(stored: Stored) -> str:
    """Why the runtime does not take the fast form of CPUs by itself, where the file has it."""
    if not any("int8" in forms for forms in stored.forms.values()) or stored.passed.get("int8"):
        return ""
    why = "missed its gate" if "int8" in stored.passed else "was not verified"
    return f"; form int8 {why} when this was exported, so the runtime does not take it by itself"


def _shortened(path: str, width: int) -> str:
    """The path, or as much of its end as there is room for."""
    if len(path) <= width:
        return path
    if len(Path(path).name) > width - 4:
        return f"...{path[3 - width :]}"
    return f".../{path[4 - width :].partition('/')[2]}"


def _table(report: Report, place: Place, *, full: bool) -> Iterator[str]:
    of_place = _rows(report, place)
    batch = report.judged_batches[-1]
    at = f" At batch {batch}:" if batch > 1 and not full else ""
    yield from wrapped(f"{_heading(report, place, of_place)}{at}")
    yield from (everything if full else overview)(report.variants, of_place).text()
    legend = [] if full else marks_used(of_place)
    if legend:
        yield f"({', '.join(legend)})"


def _heading(report: Report, place: Place, of_place: Sequence[Row]) -> str:
    device = place.device
    forms = sorted({row.compute for row in of_place})
    form = f", form {forms[0]}" if len(forms) == 1 else ""
    free = "free memory unknown" if device.free_bytes is None else f"{size(device.free_bytes)} free"
    if device.shares_ram and device.key != "ram":
        free += " (of main memory)"
    kept = (
        ""
        if device.free_bytes is None or not of_place
        else f", {size(of_place[0].reserve_bytes)} of it in reserve"
    )
    why = "" if device.problem is None else f" ({device.problem})"
    idle = "" if place.usable or place.problem is None else f". Not used: {place.problem}"
    return f"On {device.label}{form}: {free}{kept}{why}{idle}."


def _elsewhere(report: Report, others: Sequence[Place]) -> Iterator[str]:
    """A line for each place without a table."""
    for place in others:
        of_place = _rows(report, place)
        if report.supposed.keys and place.key not in report.judged:
            continue
        words = f"{_heading(report, place, [])} {_in_short(report, of_place)}"
        yield from wrapped(words.strip(), rest="   ")


def _in_short(report: Report, of_place: Sequence[Row]) -> str:
    if not of_place:
        return ""
    verdicts = {(row.stored.variant, row.tower): row.verdict(report.judged_batches) for row in of_place}
    whole = [row for row in of_place if row.tower == "both"] or list(of_place)
    if all(verdict == "unknown" for verdict in verdicts.values()):
        return "Cannot be told."
    good = [row for row in whole if works(row.verdict(report.judged_batches))]
    needs = [row.last.need.bytes.best_bytes for row in good or of_place]
    span = (
        size(min(needs))
        if size(min(needs)) == size(max(needs))
        else f"{size(min(needs))} to {size(max(needs))}"
    )
    if len(good) == len(whole):
        word = best(row.verdict(report.judged_batches) for row in whole)
        return (
            f"{'Everything' if len(whole) > 1 else 'It'} {'is ' if word == 'tight' else ''}{word}, in {span}."
        )
    if good:
        return f"{', '.join(label(report.variants, row.stored) for row in good)} fit, in {span}."
    part = [
        tower for tower in ("image", "text") if any(works(v) for (_, t), v in verdicts.items() if t == tower)
    ]
    if part:
        return f"The {' and the '.join(part)} tower fit{'s' if len(part) == 1 else ', one at a time'}."
    return f"Nothing fits: the least needs {size(min(needs))}."


def _to_explain(report: Report, main: Place | None, *, full: bool) -> list[Row]:
    if main is None:
        return []
    of_main = _rows(report, main)
    if full:
        return of_main
    chosen = [row for row in of_main if row.stored.variant == report.advice.variant] or of_main[-3:]
    return [row for row in chosen if row.tower != "both"] or chosen


def _explained(report: Report, row: Row) -> Iterator[str]:
    """A prediction term by term."""
    need = row.last.need
    whose = "both towers" if row.tower == "both" else f"the {row.tower} tower"
    needs = "need" if row.tower == "both" else "needs"
    yield from wrapped(
        f"What {whose} of {label(report.variants, row.stored)} {needs} in form {row.compute}, batch {need.batch}, on "
        f"{row.place.device.label}; low, best and high:"
    )
    for phase in need.phases:
        total = phase.bytes
        yield f"  {phase.name:<12}{size(total.low_bytes):>9} {size(total.best_bytes):>9} {size(total.high_bytes):>9}"
        for term in sorted(phase.terms, key=lambda t: (t.reclaimable, -t.bytes.best_bytes)):
            of = term.bytes
            back = "not counted" if term.reclaimable else SOURCES_SHORT[term.source]
            yield (
                f"    {term.name:<12}{size(of.low_bytes):>9} {size(of.best_bytes):>9} {size(of.high_bytes):>9}  {back}"
            )
    largest = need.limiting
    if largest.name != "process":
        yield from wrapped(f"Most of it: {largest.name}, {TERMS[largest.name]}.", first="  ")


def _notes(report: Report, shown: Sequence[Place]) -> Iterator[str]:
    of_shown = [row for row in report.rows if row.place in shown]
    if not of_shown:
        return
    needs = [one.need for row in of_shown for one in row.batches]
    more = max(need.bytes.high_bytes / max(1, need.bytes.best_bytes) for need in needs) - 1
    sources = sorted({SOURCES[need.source] for need in needs})
    words = f"Needs are best guesses, {' or '.join(sources)}. "
    words += f"To fit, the high end must fit too: up to {100 * more:.0f} % more."
    words += f" {_about_batches(of_shown)}"
    paces = sorted({SOURCES_SHORT[row.speed.source] for row in of_shown if row.speed is not None})
    if paces:
        words += f" Speeds are {' or '.join(paces)}."
    if any(row.place.costs == "cuda" for row in of_shown):
        words += " Figures for cards are estimates: nothing was measured on one"
        words += (
            "."
            if all(row.place.alike for row in of_shown)
            else ", and other vendors' are reckoned as NVIDIA's."
        )
    yield from wrapped(words)


def _about_batches(of_shown: Sequence[Row]) -> str:
    tokens = constants(of_shown[0].place.costs).micro_batch_tokens
    alone = {row.compute for row in of_shown} <= set(constants("cpu").alone)
    how = "Items run one at a time" if alone else f"Large batches run in parts of {tokens} tokens"
    return f"{how}, so that more of them take no more memory."


def _advice(report: Report) -> Iterator[str]:
    yield from wrapped(" ".join((report.advice.sentence, *report.advice.notes)))
    if report.advice.command is not None:
        yield f"  {report.advice.command}"
