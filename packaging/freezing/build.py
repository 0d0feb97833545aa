"""Runs inside PyInstaller: the steps that both specs take."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PyInstaller.building.api import COLLECT, EXE, PYZ
from PyInstaller.building.build_main import Analysis
from PyInstaller.depend.bindepend import get_imports
from PyInstaller.utils.hooks import copy_metadata

from freezing.collect import (
    PACKAGES,
    VERSIONS,
    data_of,
    hidden_imports,
    installed_packages,
    kept,
    licences,
    picture_plugins,
)
from freezing.left_out import excluded_modules

HERE = Path(__file__).parent
UNTRIMMED = "SIGRUN_FREEZE_UNTRIMMED"
"""Environment variable: leave nothing out, to see what leaving out is worth."""
EXTRAS = "SIGRUN_FREEZE_WITH"
"""Environment variable: extras of Sigrun to take in, with commas between, of those that are installed."""
BY_NAME = {
    "heif": ("pillow_heif",),
    "parquet": ("pyarrow", "pyarrow.parquet"),
    "search": ("usearch.index",),
    "serve": ("starlette", "uvicorn", "h11", "uvicorn.protocols.http.h11_impl", "uvicorn.lifespan.on"),
}
"""What each extra imports by name."""


def analysis(script: str, *, paths: Sequence[Path] = (), more: Sequence[str] = (), app: str = "") -> Any:
    """What a program needs.

    Args:
        script: the file in this folder that starts it.
        paths: folders of packages that are not installed.
        more: further modules that are imported by name.
        app: a package whose data files go along.
    """
    untrimmed = bool(os.environ.get(UNTRIMMED))
    extras = [word for word in os.environ.get(EXTRAS, "").split(",") if word]
    excludes = excluded_modules(installed_packages(), picture_plugins(), extras)
    named = [module for extra in extras for module in BY_NAME[extra]]
    packages = (*PACKAGES, app) if app else PACKAGES
    sys.path[:0] = [str(path) for path in paths]
    found = Analysis(
        [str(HERE / script)],
        pathex=[str(path) for path in paths],
        hiddenimports=[*hidden_imports(), *named, *more],
        datas=[
            *(entry for package in packages for entry in data_of(package)),
            *(entry for name in VERSIONS for entry in copy_metadata(name)),
        ],
        excludes=["sigrun_exporters", "torch"] if untrimmed else excludes,
        noarchive=False,
        optimize=0 if untrimmed else 2,  # no docstrings and no assertions
    )
    if not untrimmed:
        needed = lambda path: get_imports(path, None)  # noqa: E731
        found.binaries[:] = kept(found.binaries, needed)
        found.datas[:] = kept(found.datas, needed)
    return found


def program(found: Any, name: str, *, window: bool = False) -> Any:
    """The executable file of an analysis.

    Args:
        found: the analysis.
        name: what the file is called.
        window: it has no console, on Windows and macOS.
    """
    return EXE(
        PYZ(found.pure),
        found.scripts,
        [],
        exclude_binaries=True,
        name=name,
        console=not window,
        upx=False,
        strip=False,
    )


def folder(name: str, programs: Sequence[Any], found: Sequence[Any]) -> Path:
    """The folder with programs, what they need, and the licences of it all."""
    tables = [table for one in found for table in (one.binaries, one.datas)]
    texts = [
        (f"{target}/{Path(source).name}", source, "DATA")
        for source, target in licences(_distributions(found))
    ]
    texts.append(("licences/sigrun/LICENSE", str(HERE.parent.parent / "LICENSE"), "DATA"))
    made = Path(COLLECT(*programs, *tables, texts, name=name, upx=False, strip=False).name)
    if not os.environ.get(UNTRIMMED):
        strip_python(made)
    return made


def strip_python(made: Path) -> None:
    """Take the symbols for debuggers out of Python's own library and modules, where ``strip`` is at hand.

    Nothing else is touched: wheels are stripped already, and their libraries were rewritten in ways that ``strip``
    may break. A system's Python is stripped too; one that was compiled at home is 17 MB smaller afterwards.
    """
    if shutil.which("strip") is None or not sys.platform.startswith("linux"):
        return
    inner = made / "_internal"
    own = [*inner.glob("libpython*.so*"), *inner.glob("python3.*/lib-dynload/*.so")]
    if own:
        subprocess.run(["strip", "--strip-unneeded", *map(str, own)], check=True)


def _distributions(found: Sequence[Any]) -> set[str]:
    """The distributions that any collected file belongs to."""
    import importlib.metadata

    owners = importlib.metadata.packages_distributions()
    tops = {
        entry[0].replace("\\", "/").split("/")[0].split(".")[0]
        for one in found
        for table in (one.binaries, one.datas, one.pure)
        for entry in table
    }
    return {name for top in tops for name in owners.get(top, ())}
