"""Run a frozen program on a bare machine: no Python, no tools, no network, nothing writable but one folder.

``python packaging/bare.py dist/sigrun sigrun --version`` makes a root folder that holds the C library and nothing else,
binds the frozen folder into it read-only below a path with blanks and letters of several scripts, and runs the program
there with an empty environment. Linux only; needs root, or user namespaces.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

C_LIBRARY = re.compile(
    r"(ld-linux.*|libc|libm|libdl|libpthread|librt|libutil|libresolv|libnss_.*|libanl|libmvec|libz)\.so\.\d+"
)
"""What the C library is made of: every Linux has it, and no program brings its own. And zlib, which PyInstaller's
starter loads before it knows of its folder."""
DESKTOP = re.compile(
    r"(libE?GL|libGLX|libGLdispatch|libOpenGL|libwayland-.*|libX11|libxcb|libdrm|libgbm)\.so\.\d+"
)
"""What a desktop has besides, and what must fit its drivers."""
APP = "opt/Þessi mappa 写真 фото"
"""Where the frozen folder lies in the bare root."""
WRITABLE = "home/Jón 山"


@dataclass(frozen=True)
class Bare:
    """A bare root.

    Attributes:
        root: its folder on this machine.
        app: the frozen folder on this machine.
        seen: further files and folders by their path in the root; read-only.
    """

    root: Path
    app: Path
    seen: Mapping[str, Path] = field(default_factory=dict)

    def run(
        self,
        program: str,
        *words: str,
        environment: Mapping[str, str] | None = None,
        shut: bool = False,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program of the frozen folder.

        Args:
            program: its name.
            words: its arguments; paths as they are in the root.
            environment: all there is of it. Without: nothing.
            shut: standard output and error are closed.
            timeout: seconds.
        """
        mounts = [(self.app, APP, True), *((path, name, True) for name, path in self.seen.items())]
        mounts += [(Path("/proc"), "proc", False), (Path("/sys"), "sys", False), (Path("/dev"), "dev", False)]
        lines = ["set -e"]
        for source, name, read_only in mounts:
            target = shlex.quote(str(self.root / name))
            lines.append(f"mount --rbind {shlex.quote(str(source))} {target}")
            if read_only:
                lines.append(f"mount -o remount,bind,ro {target}")
        words = (f"/{APP}/{program}", *words)
        given = [f"{key}={value}" for key, value in (environment or {}).items()]
        call = ["env", "-i", *given, str(_chroot()), str(self.root), *words]
        lines.append(f"exec {shlex.join(call)}" + (" >&- 2>&-" if shut else ""))
        return subprocess.run(
            [*namespaces(), "sh", "-c", "\n".join(lines)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )


def namespaces() -> list[str]:
    """The command that takes mounts and network away from everything else on this machine."""
    mine = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *mine, "--mount", "--net", "--pid", "--fork", "--kill-child"]


def _chroot() -> str | None:
    """The program ``chroot``, which is not on every user's path."""
    return shutil.which("chroot") or shutil.which("chroot", path="/usr/sbin:/sbin")


def possible() -> bool:
    """Whether bare roots can be made here."""
    if shutil.which("unshare") is None or _chroot() is None:
        return False
    probe = ["sh", "-c", "mount --rbind /proc /mnt"]
    return subprocess.run([*namespaces(), *probe], capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def bare_root(app: Path, seen: Mapping[str, Path] | None = None, *, desktop: bool = False) -> Iterator[Bare]:
    """A root folder with the C library and the frozen folder in it; gone afterwards.

    Args:
        app: the frozen folder.
        seen: further files and folders to show, by their path in the root.
        desktop: the libraries of a desktop are there too.
    """
    seen = dict(seen or {})
    with tempfile.TemporaryDirectory(prefix="sigrun-bare-") as made:
        root = Path(made)
        for name in (APP, WRITABLE, "proc", "sys", "dev", "tmp", "lib64"):
            (root / name).mkdir(parents=True)
        for name, path in seen.items():
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.mkdir() if path.is_dir() else target.touch()
        wanted = [C_LIBRARY, DESKTOP] if desktop else [C_LIBRARY]
        for name, path in outside(app).items():
            if any(pattern.fullmatch(name) for pattern in wanted):
                target = root / str(path).lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
        yield Bare(root, app.resolve(), seen)


def outside(app: Path) -> dict[str, Path]:
    """The libraries that a frozen folder takes from the machine: name to path here."""
    found: dict[str, Path] = {}
    inner = app / "_internal"
    own = {path.name for path in inner.rglob("*.so*")}
    search = ":".join(sorted({str(path.parent) for path in inner.rglob("*.so*")}))
    for path in sorted(_binaries(app)):
        starter = path.parent == app
        environment = {"LD_LIBRARY_PATH": "" if starter else search, "PATH": os.environ["PATH"]}
        listed = subprocess.run(
            ["ldd", str(path)], capture_output=True, text=True, env=environment, check=False
        ).stdout
        for name, where in _resolved(listed.splitlines()):
            if starter or name not in own:
                found[name] = where
    return found


def _binaries(app: Path) -> Iterator[Path]:
    for path in app.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def _resolved(lines: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Names and paths out of ldd's lines."""
    for line in lines:
        match = re.match(r"\s*(?:(\S+) => )?(/\S+) \(0x", line)
        if match is not None:
            yield match[1] or Path(match[2]).name, Path(match[2])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the program's exit code."""
    parser = argparse.ArgumentParser(description="Run a frozen program on a bare machine.")
    parser.add_argument("app", type=Path, help="the frozen folder")
    parser.add_argument(
        "--show", action="append", default=[], metavar="PATH", help="a file or folder to show there"
    )
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="set a variable there"
    )
    parser.add_argument("--desktop", action="store_true", help="with the libraries of a desktop")
    parser.add_argument("program", help="its name in the folder")
    parser.add_argument("words", nargs=argparse.REMAINDER, help="its arguments")
    chosen = parser.parse_args(argv)
    if not possible():
        sys.exit("bare.py: needs Linux, and root or user namespaces")
    seen = {str(Path(path).resolve()).lstrip("/"): Path(path).resolve() for path in chosen.show}
    with bare_root(chosen.app, seen, desktop=chosen.desktop) as bare:
        environment = dict(word.split("=", 1) for word in chosen.env)
        done = bare.run(chosen.program, *chosen.words, environment=environment)
    sys.stdout.buffer.write(done.stdout)
    sys.stderr.buffer.write(done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
