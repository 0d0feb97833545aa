"""Freed memory goes back: what a process holds after large pieces came and went."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sigrun import allocation

CODE = """
import sys
import numpy as np
import contextlib
from sigrun.allocation import large_go_back
held = contextlib.ExitStack()
print(held.enter_context(large_go_back()) if sys.argv[1] == "held" else None)
def resident():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1])
np.zeros(30 << 20, np.uint8).fill(1)  # raises glibc's own mark
before = resident()
kept = []
for _ in range(20):  # large pieces with small ones between them, as they are left behind
    large = np.ones(8 << 20, np.uint8)
    kept.append(np.ones(1 << 16, np.uint8))
    del large
both = [np.ones(8 << 20, np.uint8) for _ in range(20)]
kept += [np.ones(1 << 16, np.uint8) for _ in range(20)]
del both
print(resident() - before)
"""


def grown(word: str, **environment: str) -> tuple[str, int]:
    """What the code above says, and by how many KiB it grew, of which 2.5 MiB are still in use."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, word],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    said, size = done.stdout.split()
    return said, int(size)


pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"),
    reason="glibc's own way of keeping memory",
)


def test_large_pieces_go_back() -> None:
    said, size = grown("held")
    assert said == "True"
    assert size < 6_000


def test_of_several_loads_at_a_time_the_last_one_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    marks: list[int] = []
    monkeypatch.setattr(allocation, "_mark", lambda nbytes: bool(marks.append(nbytes)))
    with allocation.large_go_back(), allocation.large_go_back():
        pass
    assert marks == [allocation.LOADING, allocation.LOADING, allocation.RUNNING]


def test_without_it_they_stay() -> None:
    """So that the test above can fail."""
    assert grown("not")[1] > 20_000


@pytest.mark.parametrize(
    "environment",
    [{"MALLOC_MMAP_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"}],
)
def test_a_mark_that_the_user_set_stays(environment: dict[str, str]) -> None:
    said, _ = grown("held", **environment)
    assert said == "False"
