"""The interpreters that runtimes run in: this one, and one with OpenVINO, made when it is first needed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
OPENVINO = ROOT / ".venv-openvino"
PACKAGES = ("openvino", "nncf")
HERE = ("torch", "transformers", "optimum-onnx", "onnxruntime", "onnx")
"""Packages of this environment that figures or files depend on, where they are installed."""
_VERSIONS = (
    "import json, sys; from importlib.metadata import version; "
    "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
)


class MissingError(Exception):
    """A runtime cannot be had here; says why."""


def openvino() -> Path:
    """The interpreter of ``.venv-openvino``, an environment of its own because NNCF pins what others need newer.

    Raises:
        MissingError: the packages cannot be installed.
    """
    python = OPENVINO / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if python.exists() and _installed(python) is not None:
        return python
    print(f"making {OPENVINO.name} ({', '.join(PACKAGES)})", file=sys.stderr, flush=True)
    made = subprocess.run([sys.executable, "-m", "venv", str(OPENVINO)], check=False)
    install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES)
    if made.returncode or subprocess.run([str(python), *install], check=False).returncode:
        raise MissingError(f"{' and '.join(PACKAGES)} could not be installed into {OPENVINO.name}")
    return python


def versions(python: Path | None) -> dict[str, str]:
    """Versions of what an environment runs and converts with; ``None`` is this one."""
    if python is not None:
        return _installed(python) or {}
    found = {}
    for name in HERE:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _installed(python: Path) -> dict[str, str] | None:
    asked = subprocess.run(
        [str(python), "-c", _VERSIONS, *PACKAGES], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        return None
    found: dict[str, str] = json.loads(asked.stdout)
    return found
