"""The commands and code of the README and the docs, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sigrun.gguf import GgufFile
from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_exporters.export import export
from sigrun_recipes import default_model, load, load_file, names, plan
from tests.checkpoints import EMOJI, ROOT

README = (ROOT / "README.md").read_text("utf-8")
FORMAT = (ROOT / "docs" / "format.md").read_text("utf-8")
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
SNIPPETS = [
    found
    for page in PAGES
    for found in re.findall(r"<!-- test -->\n```(sh|python)\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
]


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


def test_the_recipe_that_the_docs_show_works(tmp_path: Path) -> None:
    page = (ROOT / "quant_recipes" / "README.md").read_text("utf-8")
    found = re.search(r"<!-- test -->\n```toml\n(.*?)```", page, re.DOTALL)
    assert found is not None
    (tmp_path / "mine.toml").write_text(found[1], "utf-8")
    planned = plan(load_file(tmp_path / "mine.toml"), default_model().architecture)
    by_name = {t.spec.name: t.encoding.name for t in planned.tensors}
    assert by_name["t.blk.1.attn_q.weight"] == "q8_0"
    assert by_name["t.blk.2.attn_q.weight"] == "q6_k"


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_format_page_names_every_tensor_and_key(clone: Path) -> None:
    """Whatever an artifact holds is described."""
    path = clone / "models" / "emoji-siglip-patch10-60" / "emoji-siglip-patch10-60-q4_k_m.gguf"
    with GgufFile(path) as file:
        for name in file.tensors:
            plain = re.sub(r"\.\d+\.", ".N.", name)
            leaf = re.sub(r"\.(weight|bias)$", "", plain).rsplit(".", 1)[-1]
            assert leaf in FORMAT, name
        for key in file.metadata:
            if key.startswith("siglip."):
                assert key.split(".", 2)[-1] in FORMAT or key in FORMAT, key
