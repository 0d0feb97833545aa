"""Gather everything for a machine without a network: wheels, their hashes, the demo, and how to install it all.

``python packaging/wheelhouse.py dist/wheelhouse`` gathers for machines like this one; ``--platform windows-x86_64
--python 3.12`` for another. On the other machine, ``python install.py`` in the folder makes an environment and installs
from the folder alone; ``python install.py --demo`` runs the demo too.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence, Set
from pathlib import Path

from freezing.targets import HERE, TARGETS, Target
from freezing.wheels import Wheel, missing, read_wheel

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / ".ci" / "constraints.txt"
EXTRAS = "cpu,export,hwcheck"
DEMO = (
    ("examples/emoji_siglip/emoji-siglip-patch10-60", "demo/emoji-siglip-patch10-60"),
    ("examples/emoji_siglip/heldout/demo", "demo/pictures"),
    ("examples/emoji_siglip/NOTICE.md", "demo/NOTICE.md"),
)
"""What the demo needs: from where in the repository, to where in the wheelhouse."""
ROUNDS = 5


class GatherError(Exception):
    """Something could not be gathered; the message says what."""


def gather(
    out: Path, target: Target, extras: str = EXTRAS, *, constraints: Path | None = CONSTRAINTS
) -> list[Wheel]:
    """Fill a folder with everything that an installation needs.

    Args:
        out: the folder; must not be there yet, or be empty.
        target: the machine that it is for.
        extras: extras of Sigrun, with commas between.
        constraints: versions to keep to; None for the newest.

    Returns:
        The wheels.

    Raises:
        GatherError: the folder is taken, or a package has no wheel for the target.
    """
    if out.exists() and any(out.iterdir()):
        raise GatherError(f"{out} is not empty; take another folder, or delete it first")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".wheelhouse-") as made:
        work = Path(made) / "wheelhouse"
        wheels = work / "wheels"
        wheels.mkdir(parents=True)
        pip("wheel", "--no-deps", "--wheel-dir", str(wheels), str(ROOT))
        own = next(wheels.glob("sigrun-*.whl"))
        wanted = [f"{own}[{extras}]"]
        kept = [] if constraints is None else ["--constraint", str(constraints)]
        for _ in range(ROUNDS):
            before = set(wheels.glob("*.whl"))
            pip(
                "download", "--only-binary", ":all:", "--dest", str(wheels), *kept, *target.options(), *wanted
            )
            found = last_gathered(wheels, before)
            more = missing(found, "sigrun", extras.split(","), target.environment())
            if not more:
                break
            wanted = [str(requirement) for requirement in more]
        else:
            raise GatherError(f"after {ROUNDS} rounds there is still missing: {', '.join(wanted)}")
        (work / "requirements.txt").write_text(requirements(found, extras), "utf-8", newline="\n")
        shutil.copyfile(Path(__file__).parent / "freezing" / "install.py", work / "install.py")
        shutil.copyfile(ROOT / "LICENSE", work / "LICENSE")
        for source, name in DEMO:
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            copy(ROOT / source, work / name)
        (work / "README.txt").write_text(readme(target, found, extras), "utf-8", newline="\n")
        if out.exists():
            out.rmdir()
        work.rename(out)
    return [read_wheel(path) for path in sorted((out / "wheels").glob("*.whl"))]


def last_gathered(folder: Path, before: Set[Path]) -> list[Wheel]:
    """One wheel a distribution: where there is another than ``before``, those from before are deleted."""
    wheels = [read_wheel(path) for path in sorted(folder.glob("*.whl"))]
    renewed = {wheel.name for wheel in wheels if wheel.path not in before}
    kept = []
    for wheel in wheels:
        if wheel.path in before and wheel.name in renewed:
            wheel.path.unlink()
        else:
            kept.append(wheel)
    return kept


def requirements(wheels: Iterable[Wheel], extras: str) -> str:
    """The list for ``pip install --require-hashes``: exact versions, and the SHA-256 of each wheel."""
    lines = []
    for wheel in sorted(wheels, key=lambda wheel: wheel.name):
        asked = f"[{extras}]" if wheel.name == "sigrun" else ""
        digest = hashlib.sha256(wheel.path.read_bytes()).hexdigest()
        lines.append(f"{wheel.name}{asked}=={wheel.version} --hash=sha256:{digest}")
    return "\n".join(lines) + "\n"


def readme(target: Target, wheels: Sequence[Wheel], extras: str) -> str:
    """What the folder says of itself."""
    nbytes = sum(wheel.path.stat().st_size for wheel in wheels)
    return f"""Sigrun with {extras.replace(",", ", ")}, to install without a network.

For {target.words}: {len(wheels)} wheels, {nbytes / 1e6:.0f} MB. Nothing is fetched, and every wheel is
checked against requirements.txt by its SHA-256.

    python install.py              makes the environment sigrun-env here, and installs into it
    python install.py --to DIR     somewhere else
    python install.py --demo       then exports the bundled model and classifies pictures

By hand, the same in two lines (Windows: sigrun-env\\Scripts\\python):

    python -m venv sigrun-env
    sigrun-env/bin/python -m pip install --no-index --find-links wheels --require-hashes -r requirements.txt

Models are files: copy a .gguf that was exported elsewhere, or a checkpoint to export here.
"""


def pip(*words: str) -> None:
    """Run pip.

    Raises:
        GatherError: it failed; the message is the end of what it said.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [
            done.stderr.strip()
        ]
        raise GatherError(f"pip {words[0]} failed: " + " ".join(errors[-3:]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        description="Gather everything that an installation without a network needs."
    )
    parser.add_argument("out", type=Path, help="the folder to make")
    parser.add_argument(
        "--platform", choices=(HERE, *TARGETS), default=HERE, help="the machine (default: this kind)"
    )
    parser.add_argument("--python", metavar="X.Y", help="its Python (default: as here)")
    parser.add_argument("--extras", default=EXTRAS, help=f"with commas between (default: {EXTRAS})")
    parser.add_argument("--newest", action="store_true", help="not the versions that the tests passed with")
    chosen = parser.parse_args(argv)
    try:
        target = Target.named(chosen.platform, chosen.python)
        wheels = gather(chosen.out, target, chosen.extras, constraints=None if chosen.newest else CONSTRAINTS)
    except (GatherError, ValueError, OSError) as error:
        print(f"wheelhouse.py: error: {error}", file=sys.stderr)
        return 1
    nbytes = sum(path.stat().st_size for path in chosen.out.rglob("*") if path.is_file())
    print(f"{chosen.out}: {len(wheels)} wheels for {target.words}, {nbytes / 1e6:.1f} MB with the demo")
    return 0


if __name__ == "__main__":
    sys.exit(main())
