"""Wheels in a folder: what they are, what they require, and what of it is missing."""

from __future__ import annotations

import email.parser
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@dataclass(frozen=True)
class Wheel:
    """A wheel.

    Attributes:
        path: the file.
        name: of the distribution, in its canonical form.
        version: of the distribution.
        requires: what it asks for, with markers.
    """

    path: Path
    name: str
    version: str
    requires: tuple[Requirement, ...]


def read_wheel(path: Path) -> Wheel:
    """What a wheel says of itself.

    Raises:
        ValueError: it holds no metadata.
    """
    with zipfile.ZipFile(path) as file:
        inside = [n for n in file.namelist() if n.count("/") == 1 and n.endswith(".dist-info/METADATA")]
        if len(inside) != 1:
            raise ValueError(f"{path} holds no metadata")
        told = email.parser.Parser().parsestr(file.read(inside[0]).decode("utf-8"))
    requires = tuple(Requirement(line) for line in told.get_all("Requires-Dist", []))
    return Wheel(path, canonicalize_name(told["Name"]), told["Version"], requires)


def missing(
    wheels: Iterable[Wheel], name: str, extras: Sequence[str], environment: Mapping[str, str]
) -> list[Requirement]:
    """What a distribution needs on a machine, itself or through others, that is not among the wheels.

    Args:
        wheels: those that are there.
        name: the distribution.
        extras: its extras.
        environment: the machine's markers.
    """
    there = {wheel.name: wheel for wheel in wheels}
    todo = [Requirement(f"{name}[{','.join(extras)}]")]
    seen: set[tuple[str, str]] = set()
    lacking: dict[str, Requirement] = {}
    while todo:
        asked = todo.pop()
        key = canonicalize_name(asked.name)
        wheel = there.get(key)
        if wheel is None or not asked.specifier.contains(wheel.version, prereleases=True):
            bare = Requirement(str(asked).partition(";")[0])
            lacking.setdefault(key, bare)
            continue
        for extra in ("", *asked.extras):
            if (key, extra) in seen:
                continue
            seen.add((key, extra))
            todo += [
                requirement
                for requirement in wheel.requires
                if requirement.marker is None or requirement.marker.evaluate({**environment, "extra": extra})
            ]
    return [lacking[key] for key in sorted(lacking)]
