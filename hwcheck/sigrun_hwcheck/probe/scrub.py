"""Makes what was noted of a machine fit to be shared: only what is known to name nobody stays.

Of each file that the probe reads it is said here what of it may stay; a file that nobody thought of does not stay at
all. Names of control groups (containers, users, programs), of folders and of cards by UUID are replaced by numbers, the
same ones wherever they stand, so that what was concluded can still be concluded.
"""

from __future__ import annotations

import contextlib
import getpass
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sigrun_hwcheck.probe.recording import Record
from sigrun_hwcheck.probe.runtime import without_paths

MOST_CHARACTERS = 1 << 18
"""Kept of one file at most."""

WORDS = {
    "", ".", "..", "app.slice", "background.slice", "besteffort", "blkio", "burstable", "cgroup", "cgroup2",
    "containerd", "cpu", "cpu,cpuacct", "cpuacct", "cpuacct,cpu", "cpuset", "devices", "docker", "freezer",
    "fs", "guaranteed", "host", "hugetlb", "init", "init.scope", "io", "kubepods", "kubepods.slice",
    "libpod", "lxc", "machine.slice", "memory", "misc", "name=systemd", "net_cls", "net_cls,net_prio",
    "net_prio", "net_prio,net_cls", "perf_event", "pids", "proc", "rdma", "run", "session.slice", "sys",
    "system.slice", "systemd", "unified", "user.slice",
}  # fmt: skip
"""Parts of a control group's path that name nobody."""

GROUP_FILE = re.compile(r"(memory|cpu|cgroup)\.[a-z0-9_.]+")
KINDS = re.compile(r"^(docker|kubepods|lxc|libpod|containerd)")
UNITS = re.compile(r"\.(scope|slice|service|mount)$")
LIMIT = re.compile(r"(max|-?[0-9]+)( [0-9]+)?|[a-z_]+ [0-9]+")
"""A line of a control group's file."""
ATTRIBUTE = re.compile(r"[-0-9A-Za-z,._]{0,24}")
"""What a file of a device or a processor holds."""

CPUINFO = {
    "processor", "vendor_id", "cpu family", "model", "model name", "stepping", "physical id", "core id", "siblings",
    "cpu cores", "flags", "Features", "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision",
}  # fmt: skip
"""What stays of /proc/cpuinfo, which has a serial number on some boards."""
LONG = {"flags", "Features", "model name"}
"""Of these, what is written once where later processors repeat it."""

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
CARD = re.compile(r"\b(GPU|MIG)-(?!GPU-)([0-9a-f][0-9a-f-]*)", re.IGNORECASE)
NAMELESS = (
    (re.compile(rf"\b{UUID}\b", re.IGNORECASE), "[uuid]"),
    (re.compile(r"\b(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}\b", re.IGNORECASE), "[address]"),
    (re.compile(r"\b[0-9a-f]{24,}\b", re.IGNORECASE), "[number]"),
    (re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b"), "[address]"),
)


COMMON = {
    "localhost", "root", "user", "admin", "ubuntu", "debian", "linux", "windows", "runner", "vm", "host", "docker",
    "jetson", "orin", "nvidia", "intel", "amd", "apple", "arm", "raspberry", "raspberrypi", "gpu", "cpu", "nvml",
}  # fmt: skip
"""Names of users and machines that name nobody, and are words of what is read."""

SPEECH = ("output", "errors")
"""What a process that tried a provider has printed."""


class Scrubber:
    """Remembers what each name was replaced with.

    Args:
        names: words that must not stay, such as the user's and the machine's name.
    """

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        telling = [name for name in names if len(name) > 1 and name.lower() not in COMMON]
        self.names = [re.compile(rf"(?<!\w){re.escape(n)}(?!\w)", re.IGNORECASE) for n in telling]
        self.groups: dict[str, str] = {}
        self.cards: dict[str, list[str]] = {}
        self.mounts: set[str] = set()

    def words(self, text: str) -> str:
        """Free text without names, addresses and folders."""
        text = self._cards(text)
        for pattern, instead in NAMELESS:
            text = pattern.sub(instead, text)
        for name in self.names:
            text = name.sub("[name]", text)
        return text

    def speech(self, text: str) -> str:
        """What a library said of itself, without the folders it names."""
        return self.words(without_paths(text))

    def group(self, path: str) -> str:
        """The path of a control group, its parts replaced where they may name somebody."""
        return "/".join(self._part(part) for part in path.split("/"))

    def _part(self, part: str) -> str:
        if part in WORDS or GROUP_FILE.fullmatch(part):
            return part
        if part not in self.groups:
            kind, unit = KINDS.match(part), UNITS.search(part)
            start = f"{kind[1]}-" if kind else ""
            self.groups[part] = f"{start}group{len(self.groups) + 1}{unit[0] if unit else ''}"
        return self.groups[part]

    def learn_cards(self, answers: Iterator[str]) -> None:
        """Number the UUIDs of cards and slices, so that beginnings of them stay beginnings."""
        for text in answers:
            for kind, digits in CARD.findall(text):
                known = self.cards.setdefault(kind.upper(), [])
                if digits not in known:
                    known.append(digits)

    def _cards(self, text: str) -> str:
        def number(found: re.Match[str]) -> str:
            known = self.cards.get(found[1].upper(), [])
            of = [i for i, digits in enumerate(known) if digits.startswith(found[2])]
            return f"{found[1]}-{'none' if not of else f'{of[0] + 1:04d}' if len(of) == 1 else ''}"

        return CARD.sub(number, text)


def names_here() -> tuple[str, ...]:
    """The user's and the machine's name."""
    found = [platform.node(), platform.node().partition(".")[0], Path.home().name]
    with contextlib.suppress(KeyError, OSError, ImportError):  # a container's user may have no name
        found.append(getpass.getuser())
    return tuple(dict.fromkeys(name for name in found if name))


def scrubbed(record: Record, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """The record as plain data that may be shared."""
    scrubber = Scrubber(names)
    scrubber.learn_cards(_card_ids(record))
    _learn_mounts(record, scrubber)
    devices = _device_numbers(record)
    files: dict[str, Any] = {}
    for path, found in sorted(record.files.items()):
        files[_key(path, scrubber)] = _entry(path, found, scrubber, devices)
    return {
        "files": files,
        "calls": {name: [_walk(call, scrubber) for call in calls] for name, calls in record.calls.items()},
        "values": {**record.values, "environ": _environ(record.values.get("environ", {}), scrubber)},
    }


def _entry(path: str, found: Mapping[str, Any], scrubber: Scrubber, devices: set[str]) -> dict[str, Any]:
    if "text" in found:
        return {"text": _content(path, found["text"], scrubber, devices)[:MOST_CHARACTERS]}
    return {
        name: scrubber.words(v) if isinstance(v, str) and name == "link" else v for name, v in found.items()
    }


def _content(path: str, text: str, scrubber: Scrubber, devices: set[str]) -> str:
    """What of a file's content may stay."""
    for pattern, keep in FILES:
        if pattern.fullmatch(path):
            return keep(text, scrubber)
    if path.endswith("pci.ids"):
        return _pci_names(text, devices)
    if path.startswith("sys/") or _mounted(path, scrubber):
        if GROUP_FILE.fullmatch(path.rpartition("/")[2]):
            return "".join(f"{line}\n" for line in text.splitlines() if LIMIT.fullmatch(line))
        return scrubber.words(text) if ATTRIBUTE.fullmatch(text.strip()) else "[left out]"
    return "[left out]"


def _lines(*wanted: str) -> Callable[[str, Scrubber], str]:
    """Only the lines that begin like this."""
    return lambda text, _: "".join(f"{line}\n" for line in text.splitlines() if line.startswith(wanted))


def _amounts(text: str, scrubber: Scrubber) -> str:
    """Only lines that are a word and a number."""
    return "".join(f"{line}\n" for line in text.splitlines() if re.fullmatch(r"[\w()]+:\s+\d+( kB)?", line))


def _cpuinfo(text: str, scrubber: Scrubber) -> str:
    blocks, told = [], dict[str, str]()
    for block in text.split("\n\n"):
        kept = []
        for line in block.splitlines():
            key = line.partition(":")[0].strip()
            value = line.partition(":")[2].strip()
            if key in CPUINFO and not (key in LONG and told.get(key) == value):
                kept.append(scrubber.words(line) if key == "model name" else line)
            if key in LONG:
                told.setdefault(key, value)
        blocks.append("\n".join(kept))
    return "\n\n".join(block for block in blocks if block) + "\n"


def _cgroup(text: str, scrubber: Scrubber) -> str:
    rows = (line.split(":", 2) for line in text.splitlines())
    return "".join(f"{row[0]}:{row[1]}:{scrubber.group(row[2])}\n" for row in rows if len(row) == 3)


def _mountinfo(text: str, scrubber: Scrubber) -> str:
    """Only control groups: other mounts name folders of the user's."""
    kept = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split()
        if len(fields) >= 5 and len(kind) >= 3 and kind[0] in ("cgroup", "cgroup2"):
            fields[3], fields[4] = scrubber.group(fields[3]), scrubber.group(fields[4])
            kept.append(f"{' '.join(fields[:5])} - {kind[0]} {kind[0]} {kind[2]}")
    return "".join(f"{line}\n" for line in kept)


def _release(text: str, scrubber: Scrubber) -> str:
    """A kernel's version, without what its builder called it."""
    number = re.match(r"[0-9.]*", text.strip())
    marks = re.findall(r"microsoft|Microsoft|WSL2", text)
    return "-".join([number[0] if number else "", *marks]) + "\n"


FILES: tuple[tuple[re.Pattern[str], Callable[[str, Scrubber], str]], ...] = (
    (re.compile(r"proc/meminfo"), _amounts),
    (re.compile(r"proc/cpuinfo"), _cpuinfo),
    (re.compile(r"proc/self/status"), _lines("Cpus_allowed_list:")),
    (re.compile(r"proc/(self|1)/cgroup"), _cgroup),
    (re.compile(r"proc/self/mountinfo"), _mountinfo),
    (re.compile(r"proc/sys/kernel/osrelease"), _release),
    (re.compile(r"proc/spl/kstat/zfs/arcstats"), _lines("size ", "c_min ")),
    (re.compile(r"proc/device-tree/model"), lambda text, scrubber: scrubber.words(text)),
    (re.compile(r"etc/nv_tegra_release"), lambda text, scrubber: scrubber.words(text.partition(",")[0])),
    (re.compile(r"sys/.*/product_name"), lambda text, scrubber: scrubber.words(text)),
)


def _learn_mounts(record: Record, scrubber: Scrubber) -> None:
    text = record.files.get("proc/self/mountinfo", {}).get("text", "")
    for line in text.splitlines():
        fields, kind = line.partition(" - ")[0].split(" "), line.partition(" - ")[2].split()
        if len(fields) >= 5 and kind and kind[0] in ("cgroup", "cgroup2"):
            where = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), fields[4])
            scrubber.mounts.add(where.lstrip("/"))
            # What stands escaped in mountinfo must be replaced as what it means.
            for raw, plain in zip(fields[4].split("/"), where.split("/"), strict=False):
                if raw != plain:
                    scrubber.groups[raw] = scrubber._part(plain)


def _mounted(path: str, scrubber: Scrubber) -> bool:
    return any(path == where or path.startswith(f"{where}/") for where in scrubber.mounts)


def _key(path: str, scrubber: Scrubber) -> str:
    """Paths are the probe's own, but for those of control groups."""
    return scrubber.group(path) if _mounted(path, scrubber) else path


def _device_numbers(record: Record) -> set[str]:
    """Vendors' and devices' numbers that the machine has, as the list of names writes them."""
    found = (
        e["text"].strip()
        for p, e in record.files.items()
        if "text" in e and p.endswith(("/vendor", "/device"))
    )
    return {text.removeprefix("0x").lower() for text in found}


def _pci_names(text: str, devices: set[str]) -> str:
    """Only this machine's vendors and devices of the list of names."""
    kept, vendor = [], False
    for line in text.splitlines():
        if line and not line.startswith(("\t", "#")):
            vendor = line[:4] in devices
            kept += [line] if vendor else []
        elif vendor and line.startswith("\t") and line[1:5] in devices:
            kept.append(line)
    return "".join(f"{line}\n" for line in kept)


def _card_ids(record: Record) -> Iterator[str]:
    for call in record.calls.get("nvml", ()):
        if isinstance(call.get("answer"), str):
            yield call["answer"]


def _environ(found: Mapping[str, str], scrubber: Scrubber) -> dict[str, str]:
    """Of variables that need only be there, not what they say."""
    told = {name: scrubber.words(value) for name, value in found.items() if name.startswith("CUDA_")}
    return told | {name: "set" for name, value in found.items() if name not in told and value}


def _walk(value: Any, scrubber: Scrubber) -> Any:
    if isinstance(value, str):
        return scrubber.words(value)
    if isinstance(value, list):
        return [_walk(entry, scrubber) for entry in value]
    if isinstance(value, dict):
        kept = {name: value[name] if name == "hex" else _walk(value[name], scrubber) for name in value}
        return kept | {
            name: scrubber.speech(value[name]) for name in SPEECH if isinstance(value.get(name), str)
        }
    return value
