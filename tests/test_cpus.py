"""How many threads by default: physical cores, within affinity and quota, on machines made of files."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from sigrun import cpus


def machine(root: Path, cores: dict[int, str], name: str = "thread_siblings_list") -> Path:
    """A machine's ``sys``: logical CPU → the CPUs of its core."""
    for cpu, siblings in cores.items():
        folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / name).write_text(siblings + "\n")
    return root


def container(root: Path, version: int, own: str, limits: dict[str, tuple[str, ...]]) -> Path:
    """A process in control groups: group → its limit."""
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    if version == 2:
        (root / "proc/self/cgroup").write_text(f"0::{own}\n")
        mount = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
        top = root / "sys/fs/cgroup"
    else:
        (root / "proc/self/cgroup").write_text(f"4:memory:/else\n3:cpu,cpuacct:{own}\n")
        mount = "31 20 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
        top = root / "sys/fs/cgroup/cpu"
    (root / "proc/self/mountinfo").write_text(mount)
    for group, limit in limits.items():
        folder = top / group.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        if version == 2:
            (folder / "cpu.max").write_text(limit[0] + "\n")
        else:
            (folder / "cpu.cfs_quota_us").write_text(limit[0] + "\n")
            (folder / "cpu.cfs_period_us").write_text(limit[1] + "\n")
    return root


HYPER = {0: "0,4", 1: "1,5", 2: "2,6", 3: "3,7", 4: "0,4", 5: "1,5", 6: "2,6", 7: "3,7"}


@pytest.mark.parametrize("name", ["core_cpus_list", "thread_siblings_list"])
@pytest.mark.parametrize(
    ("allowed", "cores"),
    [(range(8), 4), ({0, 4}, 1), ({0, 1}, 2), ({0, 1, 5}, 2), ({7}, 1)],
)
def test_hyper_threads_of_a_core_count_once(tmp_path: Path, name: str, allowed: set[int], cores: int) -> None:
    machine(tmp_path, HYPER, name)
    assert cpus.usable_cores(tmp_path, "linux", frozenset(allowed)) == cores


def test_without_sysfs_cpuinfo_tells(tmp_path: Path) -> None:
    entry = "processor\t: {}\nmodel name\t: x\nphysical id\t: {}\ncore id\t\t: {}\n"
    places = [(0, 0, 0), (1, 0, 0), (2, 0, 1), (3, 1, 0), (4, 1, 0)]
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("\n".join(entry.format(*place) for place in places))
    assert cpus.cores_of({0, 1, 2, 3, 4}, tmp_path) == 3
    assert cpus.cores_of({0, 1}, tmp_path) == 1
    assert cpus.cores_of({0, 3}, tmp_path) == 2


@pytest.mark.parametrize("content", [None, "", "processor: x\n", "\xff\n\nprocessor : 1\ncore id : 2"])
def test_where_nothing_tells_each_cpu_is_a_core(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/cpuinfo").write_text(content, "utf-8")
    machine(tmp_path, {1: "nonsense"})
    assert cpus.cores_of({0, 1, 2}, tmp_path) == 3


@pytest.mark.parametrize(
    ("version", "own", "limits", "expected"),
    [
        (2, "/a/b", {"/a/b": ("250000 100000",)}, 2.5),
        (2, "/a/b", {"/a/b": ("max 100000",), "/a": ("50000 100000",)}, 0.5),
        (2, "/a/b", {"/a/b": ("100000 100000",), "/a": ("300000 100000",)}, 1.0),
        (2, "/", {"/": ("max 100000",)}, None),
        (2, "/", {"/": ("nonsense",)}, None),
        (2, "/", {"/": ("0 0",)}, None),
        (1, "/docker/x", {"/docker/x": ("150000", "100000")}, 1.5),
        (1, "/docker/x", {"/docker/x": ("-1", "100000"), "/": ("400000", "100000")}, 4.0),
        (1, "/not/seen", {"/": ("-1", "100000")}, None),
    ],
)
def test_the_quota_is_the_least_on_the_way_up(
    tmp_path: Path, version: int, own: str, limits: dict[str, tuple[str, ...]], expected: float | None
) -> None:
    assert cpus.quota(container(tmp_path, version, own, limits)) == expected


@pytest.mark.parametrize(
    ("limit", "threads"), [("max 100000", 4), ("800000 100000", 4), ("399999 100000", 3), ("1000 100000", 1)]
)
def test_threads_keep_within_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, threads: int
) -> None:
    machine(tmp_path, HYPER)
    container(tmp_path, 2, "/a", {"/a": (limit,)})
    monkeypatch.setattr(cpus, "usable_cpus", lambda: frozenset(range(8)))
    assert cpus.default_threads(tmp_path, "linux") == threads


def test_systems_that_tell_nothing_give_all_logical_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(cpus, "usable_cpus", lambda: None)
    for system in ("plan9", "win32", "darwin"):  # whose libraries are not here
        if system != sys.platform:
            assert cpus.default_threads(tmp_path, system) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpus.default_threads(tmp_path, "plan9") == 1


def record(mask: int, relationship: int = 0) -> bytes:
    """One core as Windows tells it."""
    body = struct.pack("<BB20xH", 1, 0, 1) + mask.to_bytes(struct.calcsize("P"), "little") + bytes(8)
    return struct.pack("<II", relationship, 8 + len(body)) + body


def test_records_of_windows() -> None:
    four = record(0b11) + record(0b1100) + record(0b110000) + record(0b11000000)
    assert cpus.cores_of_windows(four, 0) == 4
    assert cpus.cores_of_windows(four, 0b0111) == 2
    assert cpus.cores_of_windows(four + record(0b1, relationship=2), 0) == 4
    assert cpus.cores_of_windows(b"", 0) == 0
    assert cpus.cores_of_windows(four[:-1], 0) == 3, "a record that is cut off"
    assert cpus.cores_of_windows(struct.pack("<II", 0, 0) + bytes(64), 0) == 0, "a size that leads nowhere"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="linux")
def test_a_process_bound_to_one_cpu_uses_one_thread() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from sigrun.cpus import default_threads; print(default_threads())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1"


def test_this_machine() -> None:
    allowed = cpus.usable_cpus()
    assert 1 <= cpus.default_threads() <= (len(allowed) if allowed else os.cpu_count() or 1)
