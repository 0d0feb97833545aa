"""Print what the parts of a frozen folder weigh, wheel by wheel, beside what they weigh installed.

``python packaging/sizes.py dist/photo_desk --before dist-untrimmed/photo_desk`` (MB of 1,000,000 bytes). Run it
with the interpreter whose packages were frozen.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

MB = 1_000_000
PYTHON = "Python"
SYSTEM = "libraries of the system"
MODULES = "modules of all of them, compressed, in "
LICENCES = "licences"
PARTS = (
    ("numpy", r"numpy(\.libs|-.*)?"),
    ("onnxruntime", r"onnxruntime(-.*)?"),
    ("pillow", r"PIL|pillow(\.libs|-.*)"),
    ("sentencepiece", r"sentencepiece(\.libs|-.*)?"),
    ("sigrun", r"sigrun(_recipes|-.*)?"),
    ("hwcheck, psutil", r"sigrun_hwcheck|psutil(-.*)?"),
    ("PySide6-Essentials", r"PySide6"),
    ("shiboken6", r"shiboken6"),
    (PYTHON, r"python3\..*|libpython.*|python3.*\.dll|base_library\.zip|lib-dynload|Python"),
    (LICENCES, r"licences"),
)
"""Parts of a frozen folder: name, and pattern of its entries."""
WHEELS = ("numpy", "onnxruntime", "pillow", "sentencepiece", "PySide6-Essentials", "shiboken6")
RUNTIME = (PYTHON, SYSTEM, "numpy", "onnxruntime", "pillow", "sentencepiece", "sigrun", LICENCES)
"""What makes up the runtime, besides the modules inside its program."""
BUDGET = 120 * MB
"""Most bytes that the runtime may take in a frozen folder of the command line, less the model."""


def part_of(path: PurePosixPath) -> str:
    """The part to which a file of a frozen folder belongs.

    Args:
        path: relative to the folder.
    """
    if len(path.parts) == 1:
        return MODULES + path.stem
    top = path.parts[1]
    for name, pattern in PARTS:
        if re.fullmatch(pattern, top):
            return name
    return SYSTEM


def weigh(folder: Path) -> dict[str, int]:
    """Bytes of each part of a frozen folder; links count nothing.

    Raises:
        FileNotFoundError: it is no frozen folder.
    """
    if not (folder / "_internal").is_dir():
        raise FileNotFoundError(f"{folder} holds no _internal, so PyInstaller did not make it")
    found: dict[str, int] = defaultdict(int)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            found[part_of(PurePosixPath(path.relative_to(folder).as_posix()))] += path.stat().st_size
    return dict(found)


def runtime_bytes(parts: Mapping[str, int]) -> int:
    """Bytes of the runtime in a frozen folder of the command line: Python, four wheels, sigrun, and its program."""
    return sum(parts.get(name, 0) for name in RUNTIME) + parts.get(MODULES + "sigrun", 0)


def installed(distribution: str) -> int | None:
    """Bytes of an installed wheel, less what Python compiled of it; None if it is not installed."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files if file.suffix != ".pyc")
    return sum(path.stat().st_size for path in paths if path.is_file())


def table(after: Mapping[str, int], before: Mapping[str, int] | None = None) -> str:
    """The table, as Markdown."""
    names = sorted({*after, *(before or {})}, key=lambda name: -after.get(name, 0))
    heads = ["part", "installed", *(["frozen, nothing left out"] if before is not None else []), "frozen"]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for name in names:
        wheel = installed(name) if name in WHEELS else None
        cells = [_mb(wheel), *([_mb(before.get(name))] if before is not None else []), _mb(after.get(name))]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    sums = ["", *([_mb(sum(before.values()))] if before is not None else []), _mb(sum(after.values()))]
    lines.append("| **all** | " + " | ".join(sums) + " |")
    return "\n".join(lines)


def _mb(nbytes: int | None) -> str:
    return "–" if nbytes is None else f"{nbytes / MB:.1f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; exit code 1 if the runtime is over its budget."""
    parser = argparse.ArgumentParser(description="What the parts of a frozen folder weigh, in MB.")
    parser.add_argument("folder", type=Path, help="a frozen folder")
    parser.add_argument("--before", type=Path, help="the same frozen with SIGRUN_FREEZE_UNTRIMMED=1")
    chosen = parser.parse_args(argv)
    try:
        after = weigh(chosen.folder)
        before = None if chosen.before is None else weigh(chosen.before)
    except FileNotFoundError as error:
        print(f"sizes.py: error: {error}", file=sys.stderr)
        return 2
    print(table(after, before))
    if MODULES + "sigrun" in after:
        total = runtime_bytes(after)
        print(f"\nThe runtime without hwcheck and without a model: {_mb(total)} MB of {_mb(BUDGET)} MB")
        return int(total > BUDGET)
    return 0


if __name__ == "__main__":
    sys.exit(main())
