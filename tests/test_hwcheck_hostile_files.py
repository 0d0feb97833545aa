"""Files under /proc, /sys and /dev that hold nonsense, or that may not be read: the machine is still read."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sigrun_hwcheck import Machine, check, report
from tests.machine_snapshots import built

MACHINES = (
    "docker_v1_1gib",
    "lxc",
    "rx_7900_xtx",
    "strix_halo",
    "arc_a770",
    "raspberry_pi_5",
    "laptop_lunar_lake_npu",
    "laptop_sleeping_card",
    "jetson_orin_nano",
    "container_hidden_card",
)
NONSENSE: tuple[bytes, ...] = (
    b"",
    b"\0" * 40,
    b"\xff\xfe\x80garbage\n",
    b"-1\n",
    b"0\n",
    b"9" * 40,
    b"nan\n",
    b"max max max\n",
    b"Cpus_allowed_list:\t-,3-,-5\nMemTotal: -5 kB\nMemTotal: 0 kB\n",
    "١٢٣ kB ²\n".encode(),
    b":::/..:/\n0::/../../..\n" + b"a b c d e f - g h i\n" * 3,
)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc and /sys are Linux's")


def files_of(name: str, root: Path) -> list[Path]:
    """The files that a machine is read from, few of each kind."""
    built()[name].read(root)
    kinds: dict[str, Path] = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            kinds.setdefault(
                path.name if path.parent.parent == root else f"{path.parent.name}/{path.name}", path
            )
    return list(kinds.values())


def sound(machine: Machine, seen: set[str]) -> None:
    """What was read is a machine: it can be saved, read again strictly, and judged; unknown is never 0."""
    text = json.dumps(machine.to_json(), allow_nan=False)
    if text in seen:
        return
    seen.add(text)
    saved = json.loads(text)
    assert Machine.from_json(saved) == machine
    assert machine.ram.total_bytes != 0
    assert all(card.total_bytes != 0 for gpus in machine.gpus for card in gpus.cards)
    assert report.text(check(machine=machine)).isascii()


@pytest.mark.parametrize("name", MACHINES)
def test_nonsense_in_any_file(name: str, tmp_path: Path) -> None:
    seen: set[str] = set()
    for path in files_of(name, tmp_path / "whole"):
        kept = path.read_bytes()
        for content in NONSENSE:
            path.write_bytes(content)
            sound(reread(name, tmp_path / "whole"), seen)
        path.write_bytes(kept)


def reread(name: str, root: Path) -> Machine:
    """The machine from the files as they are now."""
    from sigrun_hwcheck.probe import read_machine
    from tests.nvml_fake import installed

    one = built()[name]
    with installed(one.library):
        return read_machine(one._sources(root))


@pytest.mark.parametrize("name", MACHINES)
def test_no_permission_on_any_file_or_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a user who is not root meets it; root may read everything, so that the calls themselves refuse here."""
    root = tmp_path / "whole"
    files = files_of(name, root)
    folders = sorted({folder for path in files for folder in path.parents if root in folder.parents})
    forbidden: list[Path] = []
    seen: set[str] = set()

    def guarded(real: Callable[..., Any], reads: bool) -> Callable[..., Any]:
        """What may not be read may still be looked at; what lies in a folder that may not be searched may not."""

        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(path, (str, os.PathLike)):
                asked = Path(os.path.realpath(path))
                if any(one in asked.parents or (reads and asked == one) for one in forbidden):
                    raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path, *arguments, **options)

        return call

    for target in (*files, *folders):
        forbidden[:] = [target.resolve()]
        with monkeypatch.context() as patched:
            for module, function in ((os, "stat"), (os, "listdir"), (os, "scandir"), (os, "open")):
                patched.setattr(module, function, guarded(getattr(module, function), function != "stat"))
            patched.setattr("io.open", guarded(open, True))
            found = reread(name, root)
            forbidden.clear()
        sound(found, seen)
