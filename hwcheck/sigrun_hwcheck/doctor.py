"""Everything that is read of a machine beside what is made of it: for bug reports, and for test cases.

One file holds both: ``machine``, which ``--machine`` takes, and ``raw``, from which the probe must conclude the same
again (:func:`sigrun_hwcheck.probe.replaying.replayed`). Neither names anybody.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sigrun import __version__
from sigrun.output import finished
from sigrun_hwcheck import facts
from sigrun_hwcheck.machine import Machine
from sigrun_hwcheck.probe import Sources, read_machine
from sigrun_hwcheck.probe.recording import recorded
from sigrun_hwcheck.probe.scrub import Scrubber, names_here, scrubbed
from sigrun_hwcheck.table import WIDTH, plain, wrapped

FORMAT = 1
MOST_LINES = 8
"""Of one file that are printed; the file of ``-o`` has all."""

TELLING = (
    "MemTotal:", "MemFree:", "MemAvailable:", "Buffers:", "Cached:", "inactive_file ", "total_inactive_file ",
    "slab_reclaimable ", "hierarchical_memory_limit ", "model name", "flags", "Features", "CPU implementer", "CPU part",
)  # fmt: skip
"""How lines begin that are printed first of a file that has many: what is concluded from."""

SUBJECTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Surroundings", r"proc/sys/.*|\.dockerenv|run/\.containerenv|proc/1/cgroup", ("environ",)),
    ("Memory", r"proc/(meminfo|spl/.*)|.*/memory\.[^/]*|.*cgroup/(?!.*cpu\.)[^.]*", ("memory",)),
    ("Processor", r"proc/(cpuinfo|self/.*)|.*/cpu\.[^/]*|sys/devices/system/cpu/.*",
     ("usable_cpus", "sysctl", "windows_name", "windows_cores", "windows_feature", "numpy_features")),
    ("Processors for neural networks", r"sys/class/accel.*|dev/fastrpc.*", ()),
    ("Graphics", r".*", ("nvml", "open_library", "working_set", "adapters", "display_drivers")),
    ("Disk", r"(?!)", ("disk_usage",)),
    ("ONNX Runtime", r"(?!)", ("package_version", "try_provider")),
)  # fmt: skip
"""Title, which files belong to it (the first that matches), which calls."""

LABELS = {"System": 0, "RAM": 1, "CPU": 2, "NPU": 3, "Disk": 5, "ORT": 6}
"""What facts are headed with → place in ``SUBJECTS``; anything else is a vendor of graphics cards."""
GRAPHICS = 4


@dataclass(frozen=True)
class Examination:
    """What was read and what was made of it.

    Attributes:
        machine: the conclusion.
        raw: what was read, scrubbed.
    """

    machine: Machine
    raw: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The doctor's file."""
        return {
            "doctor": FORMAT,
            "sigrun": __version__,
            "machine": self.machine.to_json(),
            "concluded": [*facts.lines(self.machine)],
            "raw": self.raw,
        }


def examine(
    sources: Sources | None = None, *, try_providers: bool = True, names: tuple[str, ...] | None = None
) -> Examination:
    """Read the machine and keep what was read.

    Args:
        sources: where facts come from; ``None``: this machine.
        try_providers: also load ONNX Runtime's providers, each in a process of its own.
        names: words that must not stay; ``None``: the user's and the machine's name.
    """
    names = names_here() if names is None else names
    taking_notes, record = recorded(Sources() if sources is None else sources)
    machine = read_machine(taking_notes, try_providers=try_providers)
    return Examination(_nameless(machine, Scrubber(names)), scrubbed(record, names))


def _nameless(machine: Machine, scrubber: Scrubber) -> Machine:
    """The machine without names in what others wrote: products' names, and what libraries said of themselves."""

    def clean(words: str | None) -> str | None:
        return None if words is None else scrubber.words(words)

    gpus = tuple(
        replace(g, cards=tuple(replace(card, name=clean(card.name)) for card in g.cards))
        for g in machine.gpus
    )
    machine = replace(machine, cpu=replace(machine.cpu, name=clean(machine.cpu.name)), gpus=gpus)
    found = machine.onnxruntime
    if found is None:
        return machine
    providers = tuple(
        replace(p, problem=None if p.problem is None else scrubber.speech(p.problem)) for p in found.providers
    )
    return replace(machine, onnxruntime=replace(found, providers=providers))


def save(found: Examination, path: Path, *, force: bool = False) -> None:
    """Write the doctor's file: whole or not at all.

    Raises:
        OutputError: the file exists and ``force`` is false, or it cannot be written.
    """
    with finished(path, force=force) as partial:
        partial.write_text(json.dumps(found.to_json(), indent=1) + "\n", "utf-8")


def text(found: Examination) -> str:
    """What was read, subject by subject, each with what follows from it; ends in a newline."""
    parts = [
        wrapped(
            "What was read of this machine, and after -> what was made of it. Names, serial numbers and folders are "
            "left out or replaced. -o FILE writes all of it, for a bug report or --machine."
        )
    ]
    files = _by_subject(found.raw["files"])
    for i, (title, _, sources) in enumerate(SUBJECTS):
        lines = [title, *_files(files[i])]
        for source in sources:
            lines += _calls(source, found.raw)
        parts.append([*lines, *_concluded(found.machine, i)])
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _by_subject(files: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Mapping[str, Any]]]:
    found: list[dict[str, Mapping[str, Any]]] = [{} for _ in SUBJECTS]
    for path, entry in files.items():
        place = next(i for i, (_, pattern, _) in enumerate(SUBJECTS) if re.fullmatch(pattern, path))
        found[place][path] = entry
    return found


def _files(files: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    absent, folders = [], []
    for path, entry in files.items():
        if "text" in entry:
            yield from _shown(f"/{path}", entry["text"])
        elif "hex" in entry or "link" in entry:
            yield from _line(f"/{path}: {entry.get('link') or entry['hex']}")
        elif entry.get("there"):
            folders.append(f"/{path}")
        elif entry.get("error", "FileNotFoundError") != "FileNotFoundError":
            yield from _line(f"/{path}: cannot be read ({entry['error']})")
        else:
            absent.append(f"/{path}")
    for words, paths in (("there", folders), ("not there", absent)):
        if paths:
            yield from _line(f"{words}: {' '.join(paths)}")


def _shown(name: str, content: str) -> Iterator[str]:
    lines = content.splitlines()
    telling = [line for line in lines if line.startswith(TELLING)]
    if len(lines) > MOST_LINES and telling:
        lines = [*telling, *(line for line in lines if line not in telling)]
    if len(lines) <= 1 and len(name) + len(content) < WIDTH - 4:
        yield from _line(f"{name}: {content.strip() or '(empty)'}")
        return
    yield from _line(f"{name}:")
    for line in lines[:MOST_LINES]:
        yield from _line(line, indent=4)
    if len(lines) > MOST_LINES:
        yield f"    ... and {len(lines) - MOST_LINES} more lines"


def _line(words: str, indent: int = 2) -> list[str]:
    """Words in lines; a long list, such as a processor's flags, is cut off."""
    start = " " * indent
    found = textwrap.wrap(
        plain(words.replace("\t", " ")),
        WIDTH,
        initial_indent=start,
        subsequent_indent=f"{start}  ",
        break_on_hyphens=False,
    )
    return found if len(found) <= MOST_LINES else [*found[: MOST_LINES - 1], f"{start}  ..."]


def _calls(source: str, raw: Mapping[str, Any]) -> Iterator[str]:
    if source == "environ":
        for name, value in raw["values"]["environ"].items():
            yield from _line(f"${name}: {value}")
        return
    for call in raw["calls"].get(source, ()):
        asked = ", ".join(_words(a) for a in call["asked"])
        answer = f"error {call['error']}" if "error" in call else _words(call["answer"])
        yield from _line(f"{source}({asked}): {answer}")


def _words(value: object) -> str:
    if isinstance(value, dict) and set(value) == {"handle"}:
        return f"handle {value['handle']}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(entry)}" for name, entry in value.items()) or "nothing"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(_words(entry) for entry in value) or "nothing"
    return "none" if value is None else str(value).strip()


def _concluded(machine: Machine, subject: int) -> Iterator[str]:
    """The facts of a subject; a line without a heading goes on with the one before."""
    found: list[list[str]] = []
    place = GRAPHICS
    for line in facts.lines(machine):
        label, words = line[: facts.INDENT].strip(), line[facts.INDENT :]
        if label:
            place = LABELS.get(label, GRAPHICS)
            found += [[f"{label}: {words}"]] if place == subject else []
        elif place == subject:
            found[-1].append(words)
    for parts in found or [["nothing of the kind"]]:
        yield from wrapped(" ".join(parts), first="  -> ", rest="     ")
