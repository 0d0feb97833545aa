"""What goes into a frozen folder: modules that are imported by name at run time, data files, licences."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from freezing.left_out import rule_for

Entry = tuple[str, str, str]
"""A line of PyInstaller's tables: path in the folder, path on this machine, kind."""
Needed = Callable[[str], Iterable[tuple[str, str | None]]]
"""The libraries that a binary loads: name, and path where it was found."""

PACKAGES = ("sigrun", "sigrun_hwcheck", "sigrun_recipes")
NAMED = ("PIL", "numpy._core._multiarray_umath", "onnxruntime", "psutil", "pynvml", "sentencepiece")
"""Packages that are imported by a name in a string."""
VERSIONS = ("numpy", "onnxruntime", "pillow", "psutil", "sentencepiece", "sigrun")
"""Distributions whose version is asked for at run time; hwcheck reads ONNX Runtime's."""
LICENCE_FILES = ("LICEN", "NOTICE", "COPYING", "AUTHORS", "THIRDPARTY")


def folder_of(package: str) -> Path:
    """Where an installed package lies, be it installed as a link to its source.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed")
    return Path(spec.origin).parent


def modules_of(package: str, folder: Path | None = None) -> list[str]:
    """Every module of a package. Nothing is imported to find out."""
    root = folder_of(package) if folder is None else folder
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = (package, *path.relative_to(root).with_suffix("").parts)
        found.append(".".join(parts).removesuffix(".__init__"))
    return found


def data_of(package: str, folder: Path | None = None) -> list[tuple[str, str]]:
    """A package's files that are no Python, each with the folder where it goes."""
    root = folder_of(package) if folder is None else folder
    return [
        (str(path), str(PurePosixPath(package, *path.relative_to(root).parent.parts)))
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix not in (".py", ".pyc") and path.name != "py.typed"
    ]


def picture_plugins() -> list[str]:
    """Names of all of Pillow's picture plugins."""
    return [path.stem for path in folder_of("PIL").glob("*ImagePlugin.py")]


def installed_packages() -> list[str]:
    """Names of all packages that are installed here."""
    return sorted(importlib.metadata.packages_distributions())


def hidden_imports() -> list[str]:
    """What PyInstaller cannot see: the packages import lazily, by name."""
    return [*NAMED, *(module for package in PACKAGES for module in modules_of(package))]


def licences(distributions: Iterable[str]) -> list[tuple[str, str]]:
    """The licences of distributions and of Python, each with the folder where it goes."""
    found: dict[tuple[str, str], str] = {}
    for name in sorted(set(distributions)):
        for file in importlib.metadata.files(name) or ():
            path = Path(str(file.locate()))
            if (
                file.name.upper().startswith(LICENCE_FILES)
                and path.suffix not in (".py", ".pyc")
                and path.is_file()
            ):
                # A wheel may hold a text twice: beside its code, and of the same path among its metadata.
                inner = [p for p in file.parent.parts if p != "licenses" and not p.endswith(".dist-info")]
                found.setdefault(("/".join(("licences", name, *inner)), file.name), str(path))
    python = Path(sysconfig.get_path("stdlib")) / "LICENSE.txt"
    if python.is_file():
        found["licences/python", python.name] = str(python)
    return [(source, target) for (target, _), source in found.items()]


def kept(entries: Sequence[Entry], needed: Needed) -> list[Entry]:
    """The binaries or files that stay: those that no rule leaves out, less libraries that nothing loads any more.

    Args:
        entries: PyInstaller's table.
        needed: tells what a binary loads, itself or through others.
    """
    stay = [entry for entry in entries if rule_for(entry[0]) is None]
    loaded = {
        _name(name)
        for dest, source, kind in stay
        if kind in ("EXTENSION", "BINARY") and is_root(dest, kind)
        for name, _ in needed(source)
    }
    stay = [
        entry
        for entry in stay
        if entry[2] not in ("BINARY", "SYMLINK") or is_root(entry[0], entry[2]) or _name(entry[0]) in loaded
    ]
    present = {_name(dest) for dest, _, kind in stay if kind != "SYMLINK"}
    return [entry for entry in stay if entry[2] != "SYMLINK" or _name(entry[1]) in present]


def is_root(dest: str, kind: str) -> bool:
    """Whether something is loaded by name: an extension module, a plugin of Qt, Python, a provider of ONNX Runtime."""
    path = dest.replace("\\", "/")
    return (
        kind == "EXTENSION"
        or "/plugins/" in path
        or _name(path).startswith(("libpython", "python3"))
        or path.startswith("onnxruntime/capi/")
    ) and kind != "SYMLINK"


def _name(path: str) -> str:
    return path.replace("\\", "/").rsplit("/", 1)[-1].lower()
