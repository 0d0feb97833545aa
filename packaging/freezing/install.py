"""Install Sigrun from this folder into an environment of its own; no network is used.

Needs Python 3.11 or newer with ``venv``, nothing else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MODEL = "emoji-siglip-patch10-60"


def binary(environment: Path, name: str) -> str:
    """A program of an environment."""
    return (
        str(environment / "Scripts" / f"{name}.exe") if os.name == "nt" else str(environment / "bin" / name)
    )


def install(environment: Path) -> None:
    """Make an environment and install into it what lies here, checked by its hashes."""
    venv.create(environment, with_pip=True)
    told = ["--no-index", "--find-links", str(FOLDER / "wheels"), "--require-hashes"]
    told += ["--requirement", str(FOLDER / "requirements.txt")]
    # -I and --isolated: settings of this machine's pip lead elsewhere, or nowhere.
    command = [binary(environment, "python"), "-I", "-m", "pip", "--isolated", "install", "--quiet", *told]
    subprocess.run([*command, "--disable-pip-version-check"], check=True)


def demo(environment: Path) -> None:
    """Export the bundled model, check that it fits, and classify pictures."""
    models = environment / "models"
    checkpoint = FOLDER / "demo" / MODEL
    artifact = models / MODEL / f"{MODEL}-q4_k_m.gguf"
    pictures = FOLDER / "demo" / "pictures"
    export = [
        binary(environment, "sigrun-export"),
        "convert",
        str(checkpoint),
        "--variant",
        "q4_k_m",
        "--force",
    ]
    subprocess.run([*export, "-o", str(models)], check=True)
    subprocess.run([binary(environment, "hwcheck"), str(artifact)], check=True)
    command = [
        binary(environment, "sigrun"),
        "classify",
        str(artifact),
        *map(str, sorted(pictures.glob("*.png"))),
    ]
    subprocess.run([*command, "--labels", str(pictures / "labels.txt"), "--top", "3"], check=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description="Install Sigrun from this folder; no network is used.")
    parser.add_argument(
        "--to", type=Path, default=Path("sigrun-env"), metavar="DIR", help="the environment to make"
    )
    parser.add_argument("--demo", action="store_true", help="run the demo afterwards")
    chosen = parser.parse_args(argv)
    environment: Path = chosen.to.absolute()
    try:
        install(environment)
        if chosen.demo:
            demo(environment)
    except subprocess.CalledProcessError as error:
        print(f"install.py: error: {error.cmd[0]} ended with exit code {error.returncode}", file=sys.stderr)
        return 1
    print(
        f"Sigrun is installed in {environment}; its commands are in {Path(binary(environment, 'sigrun')).parent}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
