"""The README's own commands and code, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_exporters.export import export
from sigrun_recipes import default_model, load, names, plan
from tests.checkpoints import EMOJI, ROOT

README = (ROOT / "README.md").read_text("utf-8")
SNIPPETS = re.findall(r"<!-- test -->\n```(sh|python)\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a clone after ``make demo``."""
    folder = tmp_path_factory.mktemp("clone")
    export(open_checkpoint(str(EMOJI)), load("q4_k_m"), folder / "models")
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


def test_the_readme_has_snippets_of_both_kinds() -> None:
    assert {kind for kind, _ in SNIPPETS} == {"sh", "python"}


@pytest.mark.parametrize(("kind", "code"), SNIPPETS)
def test_snippets_run(kind: str, code: str, clone: Path) -> None:
    commands = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-W", "error", "-c", code] if kind == "python" else ["bash", "-euc", code]
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "Traceback" not in done.stderr


def test_the_table_of_variants_is_what_the_recipes_give() -> None:
    architecture = default_model().architecture
    for name in names():
        planned = plan(load(name), architecture)
        image, text = (planned.nbytes(tower) / 2**20 for tower in ("image", "text"))
        row = f"| `{name}` | {image:.1f} MiB | {text:.1f} MiB | {image + text:.1f} MiB |"
        assert row in README, f"README.md should hold: {row}"


def test_every_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
