"""Pastes the commands' own help and measured figures into the docs, so that none can drift apart.

In a Markdown file, the code block after ``<!-- help: sigrun classify -->`` holds what ``sigrun classify --help``
prints, and the lines between ``<!-- rows: f32; q4_k_m -->`` and ``<!-- end -->`` those rows of the first table in
BENCHMARKS.md that has them all. Run without arguments to paste, with ``--check`` to fail where a block is not current.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import sigrun.cli
import sigrun_exporters.cli
import sigrun_hwcheck.cli

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "docs", "runtime", "exporters", "hwcheck", "quant_recipes")
_BLOCK = re.compile(r"(<!-- help: (?P<command>[^>]+?) -->\n```(?:text)?\n)(?P<body>.*?)(```)", re.DOTALL)
_ROWS = re.compile(r"(<!-- rows: (?P<names>[^>]+?) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)
_MAINS: dict[str, Callable[[Sequence[str]], int]] = {
    "sigrun": sigrun.cli.main,
    "sigrun-export": sigrun_exporters.cli.main,
    "hwcheck": sigrun_hwcheck.cli.main,
}


def help_of(command: str) -> str:
    """What ``command --help`` prints."""
    program, *rest = command.split()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        _MAINS[program]([*rest, "--help"])
    return printed.getvalue()


def rows_of(names: str) -> str:
    """The heading and the named rows of the first table in BENCHMARKS.md that has them all."""
    wanted = [name.strip() for name in names.split(";")]
    lines = (ROOT / "BENCHMARKS.md").read_text("utf-8").splitlines()
    for first in (i for i, line in enumerate(lines) if line.startswith("|---")):
        table = itertools.takewhile(lambda line: line.startswith("| "), lines[first + 1 :])
        by_name = {line.split("|")[1].strip(): line for line in table}
        if by_name.keys() >= set(wanted):
            rows = [lines[first - 1], lines[first], *(by_name[name] for name in wanted)]
            return "\n".join(rows) + "\n"
    raise ValueError(f"no table in BENCHMARKS.md has all of these rows: {names}")


def pasted(text: str) -> str:
    """A page with every help block and every table made current."""
    text = _BLOCK.sub(lambda m: m.group(1) + help_of(m.group("command")) + m.group(4), text)
    return _ROWS.sub(lambda m: m.group(1) + rows_of(m.group("names")) + m.group(4), text)


def pages() -> list[Path]:
    """Every Markdown page of the project that may hold help blocks."""
    found: list[Path] = []
    for name in PAGES:
        place = ROOT / name
        found += [place] if place.is_file() else sorted(place.rglob("*.md"))
    return found


def main() -> int:
    """Paste or check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if anything is not current"
    )
    check = parser.parse_args().check
    stale = []
    for page in pages():
        text = page.read_text("utf-8")
        current = pasted(text)
        if current != text:
            stale.append(page.relative_to(ROOT))
            if not check:
                page.write_text(current, "utf-8")
    for page in stale:
        print(f"{page}: was not current" + ("; run: make format" if check else "; pasted"), file=sys.stderr)
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
