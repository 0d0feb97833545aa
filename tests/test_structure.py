"""What holds the house together: who may import whom, what loads with what, what a wheel installs."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import sigrun

ROOT = Path(__file__).parent.parent
AREAS = {
    "runtime": "sigrun",
    "exporters": "sigrun_exporters",
    "hwcheck": "sigrun_hwcheck",
    "quant_recipes": "sigrun_recipes",
}
OURS = set(AREAS.values())
RUNTIME = {"numpy", "onnxruntime", "PIL", "sentencepiece"}
MAY_IMPORT = {
    "sigrun": RUNTIME | {"ftfy"},  # ftfy only where the openclip canonicalisation asks for it
    "sigrun_recipes": set(),
    "sigrun_hwcheck": {"sigrun", "sigrun_recipes", "numpy", "psutil", "pynvml", "onnxruntime"},
    "sigrun_exporters": {
        "sigrun",
        "sigrun_recipes",
        "numpy",
        "PIL",
        "onnx",
        "gguf",
        "huggingface_hub",
        "sentencepiece",
    },
}
EXTRAS = {"sigrun/serve": {"starlette", "uvicorn", "h11"}}
"""Folders of a package that may import what an extra brings."""
HEAVY = (
    "starlette",
    "uvicorn",
    "torch",
    "transformers",
    "onnx",
    "gguf",
    "huggingface_hub",
    "psutil",
    "pynvml",
)


def imported(path: Path) -> set[str]:
    """Top-level names of everything a module imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module.split(".")[0])
    return found


def modules(package: str) -> list[Path]:
    area = next(a for a, p in AREAS.items() if p == package)
    return sorted((ROOT / area / package).rglob("*.py"))


@pytest.mark.parametrize("package", sorted(OURS))
def test_each_package_imports_only_what_it_may(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package} | set(sys.stdlib_module_names)
    for path in modules(package):
        more = [names for folder, names in EXTRAS.items() if f"/{folder}/" in path.as_posix()]
        extra = imported(path) - allowed.union(*more)
        assert not extra, f"{path.relative_to(ROOT)} imports {sorted(extra)}, which {package} may not"


@pytest.mark.parametrize("package", sorted(OURS))
def test_no_import_cycles(package: str) -> None:
    """Modules of a package, with their imports of each other at any depth of code, form no cycle."""
    names = {}
    for path in modules(package):
        parts = (
            path.relative_to(path.parents[len(path.parts) - path.parts.index(package) - 1])
            .with_suffix("")
            .parts
        )
        names[".".join(parts).removesuffix(".__init__")] = path
    graph = {name: _edges(path, name, names) for name, path in names.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def _edges(path: Path, name: str, names: dict[str, Path]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in names:
            found |= {
                f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in names else node.module
                for alias in node.names
            }
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in names}
    return found - {name}


def loaded_by(statement: str) -> set[str]:
    """Names of all modules that are loaded after ``statement`` in a fresh interpreter."""
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )


@pytest.mark.parametrize(
    "statement", ["import sigrun", "import sigrun.cli", "import sigrun_recipes", "import sigrun_hwcheck"]
)
def test_light_imports(statement: str) -> None:
    heavy = loaded_by(statement) & set(HEAVY)
    assert not heavy, f"'{statement}' loads {sorted(heavy)}"


def test_the_package_loads_its_parts_when_they_are_asked_for() -> None:
    """Apps import early and run late: the import alone takes neither NumPy nor Pillow."""
    assert not loaded_by("import sigrun") & {"numpy", "PIL", "onnxruntime", "sentencepiece"}
    assert "numpy" in loaded_by("from sigrun import Siglip")
    assert set(sigrun.__all__) == {name for name in dir(sigrun) if not name.startswith("_")} | {"__version__"}
    assert all(getattr(sigrun, name) is not None for name in sigrun.__all__)
    with pytest.raises(AttributeError, match="no attribute 'siglip'"):
        _ = sigrun.siglip


def test_recipes_need_the_standard_library_only() -> None:
    outside = {m.split(".")[0] for m in loaded_by("import sigrun_recipes")} - {
        m.split(".")[0] for m in loaded_by("")
    }
    assert outside - set(sys.stdlib_module_names) == {"sigrun_recipes"}


@pytest.mark.parametrize(("area", "package"), sorted(AREAS.items()))
def test_an_area_folder_holds_its_package_and_a_readme(area: str, package: str) -> None:
    assert sorted(p.name for p in (ROOT / area).iterdir() if p.name != "__pycache__") == [
        "README.md",
        package,
    ]


def test_the_wheel_installs_the_four_packages_only(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    wheel = Path(next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])))
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {t for t in top if not t.endswith(".dist-info")} == OURS
    for package in OURS:
        assert f"{package}/py.typed" in names
    data = {"sigrun/external/weights", "sigrun/manifest.schema.json"}
    data |= {"sigrun/serve/playground.html", "sigrun/serve/docs.html"}
    data |= {f"sigrun_hwcheck/{n}.schema.json" for n in ("report", "gpus", "measure", "models")}
    data |= {
        f"sigrun_exporters/verify/{n}"
        for n in ("published_so400m.npz", "published_so400m.md", "report.schema.json")
    }
    assert data <= set(names)
    for recipe in (ROOT / "quant_recipes" / "sigrun_recipes").glob("*.toml"):
        assert f"sigrun_recipes/{recipe.name}" in names


def test_versions_and_changelog_agree() -> None:
    import sigrun

    headings = [
        line for line in (ROOT / "CHANGELOG.md").read_text("utf-8").splitlines() if line.startswith("## ")
    ]
    assert headings, "CHANGELOG.md has no version headings"
    assert headings[0].split()[1] == sigrun.__version__


def test_no_module_is_too_long() -> None:
    for package in OURS:
        for path in modules(package):
            lines = len(path.read_text("utf-8").splitlines())
            assert lines <= 400, f"{path.relative_to(ROOT)} has {lines} lines; split it by reason to exist"
