"""Reading a machine: control groups, memory, surroundings, disk, all from fakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sigrun.cpus import quota
from sigrun_hwcheck.machine import Machine
from sigrun_hwcheck.probe import disk, ram, read_machine, surroundings
from tests.machine_roots import tree

GIB = 1 << 30
HOST = (64 * GIB, 50 * GIB)
NO_LIMIT_V1 = "9223372036854771712"

V2 = "30 1 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
V1 = (
    "31 1 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "33 31 0:30 {mounted} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "34 31 0:31 {mounted} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
)


def host() -> tuple[int, int]:
    return HOST


def v2(own: str, **groups: dict[str, str]) -> dict[str, str | bytes]:
    files: dict[str, str | bytes] = {"proc/self/cgroup": f"0::{own}\n", "proc/self/mountinfo": V2}
    for group, content in groups.items():
        for name, text in content.items():
            files[f"sys/fs/cgroup/{group.replace('__', '/').strip('_')}/{name}"] = text
    return files


def test_without_control_groups_the_system_decides(tmp_path: Path) -> None:
    found = ram.read(tmp_path, host)
    assert (found.total_bytes, found.available_bytes, found.limit_bytes, found.free_bytes) == (
        *HOST,
        None,
        HOST[1],
    )
    assert found.problem is None


def test_v2_limit_less_what_is_used(tmp_path: Path) -> None:
    group = {"memory.max": f"{2 * GIB}\n", "memory.high": "max\n", "memory.current": f"{GIB}\n"}
    found = ram.read(tree(tmp_path, v2("/box", box=group)), host)
    assert (found.limit_bytes, found.limit_free_bytes, found.limit_source) == (2 * GIB, GIB, "cgroup v2")
    assert found.free_bytes == GIB
    assert found.budget_bytes == 2 * GIB


def test_v2_page_cache_that_can_be_dropped_is_free(tmp_path: Path) -> None:
    stat = f"anon 100\nactive_file {GIB // 8}\ninactive_file {GIB // 2}\nslab_reclaimable {GIB // 4}\n"
    group = {"memory.max": f"{2 * GIB}", "memory.current": f"{2 * GIB}", "memory.stat": stat}
    assert ram.read(tree(tmp_path, v2("/box", box=group)), host).free_bytes == GIB * 3 // 4


def test_v2_max_is_no_limit(tmp_path: Path) -> None:
    found = ram.read(tree(tmp_path, v2("/box", box={"memory.max": "max\n", "memory.current": "5\n"})), host)
    assert found.limit_bytes is None
    assert found.free_bytes == HOST[1]


def test_v2_the_least_limit_and_the_least_room_on_the_way_to_the_root_hold(tmp_path: Path) -> None:
    inner = {"memory.max": f"{2 * GIB}", "memory.current": f"{GIB // 2}"}
    outer = {"memory.max": f"{8 * GIB}", "memory.current": f"{7 * GIB}"}
    files = v2("/outer/inner", outer=outer, outer__inner=inner)
    found = ram.read(tree(tmp_path, files), host)
    assert (found.limit_bytes, found.limit_free_bytes) == (2 * GIB, GIB)


def test_v2_the_soft_limit_counts(tmp_path: Path) -> None:
    group = {"memory.max": "max", "memory.high": f"{3 * GIB}", "memory.current": "0"}
    assert ram.read(tree(tmp_path, v2("/box", box=group)), host).limit_bytes == 3 * GIB


def test_v2_a_path_that_cannot_be_seen_starts_at_the_mount(tmp_path: Path) -> None:
    """Inside a container the path may name groups of the host; the mounted root is then ours."""
    group = {"memory.max": f"{4 * GIB}", "memory.current": f"{GIB}"}
    files = v2("/../../docker/abc", _=group)
    assert ram.read(tree(tmp_path, files), host).free_bytes == 3 * GIB


def test_a_limit_whose_use_is_unknown_leaves_the_free_memory_unknown(tmp_path: Path) -> None:
    found = ram.read(tree(tmp_path, v2("/box", box={"memory.max": f"{2 * GIB}"})), host)
    assert found.limit_bytes == 2 * GIB
    assert found.free_bytes is None
    assert found.problem is not None
    assert "cannot be read" in found.problem


def test_a_full_container_has_nothing_left(tmp_path: Path) -> None:
    group = {"memory.max": f"{GIB}", "memory.current": f"{2 * GIB}"}
    assert ram.read(tree(tmp_path, v2("/box", box=group)), host).free_bytes == 0


def test_a_limit_above_the_memory_there_is_is_none(tmp_path: Path) -> None:
    group = {"memory.max": f"{128 * GIB}", "memory.current": f"{GIB}"}
    assert ram.read(tree(tmp_path, v2("/box", box=group)), host).limit_bytes is None


def v1(own: str, mounted: str = "/") -> dict[str, str | bytes]:
    return {
        "proc/self/cgroup": f"9:name=systemd:/x\n4:memory:{own}\n3:cpu,cpuacct:{own}\n0::/\n",
        "proc/self/mountinfo": V1.format(mounted=mounted),
    }


def test_v1_limit_and_sentinel(tmp_path: Path) -> None:
    memory = "sys/fs/cgroup/memory"
    files = v1("/box") | {
        f"{memory}/memory.limit_in_bytes": NO_LIMIT_V1,
        f"{memory}/memory.usage_in_bytes": f"{9 * GIB}",
        f"{memory}/box/memory.limit_in_bytes": f"{2 * GIB}\n",
        f"{memory}/box/memory.usage_in_bytes": f"{GIB}\n",
        f"{memory}/box/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB // 2}\n",
    }
    found = ram.read(tree(tmp_path, files), host)
    assert (found.limit_bytes, found.limit_free_bytes) == (2 * GIB, GIB * 3 // 2)
    assert found.limit_source == "cgroup v1"


def test_v1_no_limit_even_when_the_memory_is_unknown(tmp_path: Path) -> None:
    def absent() -> tuple[int, int]:
        raise ImportError

    files = v1("/") | {"sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT_V1}
    found = ram.read(tree(tmp_path, files), absent)
    assert (found.total_bytes, found.available_bytes, found.limit_bytes) == (None, None, None)
    assert found.problem is not None
    assert "pip install" in found.problem


def test_v1_in_a_container_that_mounts_its_own_group(tmp_path: Path) -> None:
    """The path is the host's, and the mount shows only the group itself."""
    files = v1("/docker/abc", mounted="/docker/abc") | {
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GIB}",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "0",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "150000",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
    }
    tree(tmp_path, files)
    assert ram.read(tmp_path, host).limit_bytes == GIB
    assert quota(tmp_path) == 1.5


def test_garbage_in_control_groups_is_ignored(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "\n::\nnonsense\n0::/box\n",
        "proc/self/mountinfo": "short\n30 1 0:26 / /sys/fs/c\\040group rw - cgroup2 x rw\n",
        "sys/fs/c group/box/memory.max": "many",
        "sys/fs/c group/box/memory.stat": "inactive_file\nx y z\n",
        "sys/fs/c group/box/cpu.max": "1 0",
    }
    tree(tmp_path, files)
    assert ram.read(tmp_path, host).limit_bytes is None
    assert quota(tmp_path) is None


@pytest.mark.parametrize(
    ("inner", "outer", "cpus"), [("max 100000", "200000 100000", 2.0), ("50000 100000", "max", 0.5)]
)
def test_v2_cpu_quota(tmp_path: Path, inner: str, outer: str, cpus: float) -> None:
    tree(tmp_path, v2("/a/b", a={"cpu.max": outer}, a__b={"cpu.max": inner}))
    assert quota(tmp_path) == cpus


MEMINFO = "MemTotal:       16384 kB\nMemFree:         1024 kB\n{}Buffers:          256 kB\nCached:          2048 kB\n"


def meminfo(root: Path, more: str, arc: str | None = None) -> tuple[int | None, int | None]:
    files: dict[str, str | bytes] = {"proc/meminfo": MEMINFO.format(more)}
    if arc is not None:
        files["proc/spl/kstat/zfs/arcstats"] = arc
    found = ram.read(tree(root, files), host)
    return found.total_bytes, found.available_bytes


def test_available_memory_counts_not_free_memory(tmp_path: Path) -> None:
    assert meminfo(tmp_path, "MemAvailable:    8192 kB\n") == (16 << 20, 8 << 20)


def test_kernels_that_do_not_tell_what_is_available(tmp_path: Path) -> None:
    assert meminfo(tmp_path, "") == (16 << 20, (1024 + 256 + 2048) << 10)


def test_no_more_is_available_than_there_is(tmp_path: Path) -> None:
    assert meminfo(tmp_path, "MemAvailable:    999999 kB\n") == (16 << 20, 16 << 20)


def test_the_cache_of_zfs_is_available(tmp_path: Path) -> None:
    arc = f"13 1 0x01\nname type data\nc_min 4 {1 << 20}\nsize 4 {5 << 20}\n"
    assert meminfo(tmp_path, "MemAvailable:    8192 kB\n", arc) == (16 << 20, 12 << 20)


def test_v1_the_limit_of_a_group_that_cannot_be_seen(tmp_path: Path) -> None:
    memory = "sys/fs/cgroup/memory"
    files = v1("/docker/abc", mounted="/docker/abc") | {
        f"{memory}/memory.limit_in_bytes": NO_LIMIT_V1,
        f"{memory}/memory.usage_in_bytes": f"{GIB}",
        f"{memory}/memory.stat": f"hierarchical_memory_limit {3 * GIB}\n",
    }
    found = ram.read(tree(tmp_path, files), host)
    assert (found.limit_bytes, found.free_bytes) == (3 * GIB, 2 * GIB)


def test_unknown_use_of_one_limit_does_not_hide_a_lower_one(tmp_path: Path) -> None:
    outer, inner = {"memory.max": f"{GIB}", "memory.current": "0"}, {"memory.max": f"{2 * GIB}"}
    found = ram.read(tree(tmp_path, v2("/outer/inner", outer=outer, outer__inner=inner)), host)
    assert (found.limit_bytes, found.free_bytes) == (GIB, None)


def test_a_limit_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    tree(tmp_path, v2("/box", box={"memory.current": "5"}))
    (tmp_path / "sys/fs/cgroup/box/memory.max").mkdir()  # fails to be read, also for root
    found = ram.read(tmp_path, host)
    assert (found.limit_bytes, found.problem) == (
        None,
        "whether the memory of this container is limited cannot be read",
    )


@pytest.mark.parametrize(
    ("files", "environ", "expected"),
    [
        ({}, {}, "native"),
        ({".dockerenv": ""}, {}, "container"),
        ({"run/.containerenv": ""}, {}, "container"),
        ({"proc/1/cgroup": "12:cpu:/kubepods/besteffort/pod1/x\n"}, {}, "container"),
        ({"proc/1/cgroup": "0::/init.scope\n"}, {}, "native"),
        ({}, {"container": "lxc"}, "container"),
        ({}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "container"),
        ({"proc/sys/kernel/osrelease": "5.15.167.4-microsoft-standard-WSL2\n"}, {}, "wsl2"),
        ({"proc/sys/kernel/osrelease": "6.6.1-microsoft-custom\n"}, {}, "wsl2"),
        ({"proc/sys/kernel/osrelease": "4.4.0-19041-Microsoft\n", ".dockerenv": ""}, {}, "wsl1"),
    ],
)
def test_surroundings(
    files: dict[str, str | bytes], environ: dict[str, str], expected: str, tmp_path: Path
) -> None:
    assert surroundings.read(tree(tmp_path, files), "Linux", environ) == expected


def test_room_on_disk_is_that_of_the_nearest_folder_there_is(tmp_path: Path) -> None:
    asked = []

    def usage(folder: Path) -> tuple[int, int]:
        asked.append(folder)
        return 100, 40

    found = disk.read("output", tmp_path / "not" / "there" / "yet", usage)
    assert (asked, found.free_bytes) == ([tmp_path], 40)
    assert str(tmp_path) not in repr(found)


def test_room_on_disk_that_cannot_be_told(tmp_path: Path) -> None:
    def usage(folder: Path) -> tuple[int, int]:
        raise PermissionError(13, "Permission denied", str(folder))

    found = disk.read("cache", tmp_path, usage)
    assert found.free_bytes is None
    assert found.problem == "the system does not tell: Permission denied"


def test_this_machine() -> None:
    machine = read_machine()
    assert machine.ram.total_bytes is not None
    assert machine.ram.total_bytes > 0
    assert machine.cpu.usable_cpus
    assert machine.gpus[0].vendor == "nvidia"
    assert machine.disks[0].free_bytes
    assert Machine.from_json(json.loads(json.dumps(machine.to_json()))) == machine


def test_reading_a_machine_loads_no_framework_and_prints_nothing() -> None:
    code = (
        "import sys; from sigrun_hwcheck.probe import read_machine; read_machine();"
        "sys.exit(', '.join({'torch', 'onnxruntime', 'transformers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_reading_a_machine_starts_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object, **more: object) -> None:
        raise AssertionError(f"started {arguments}")

    monkeypatch.setattr(subprocess, "Popen", never)
    monkeypatch.setattr("os.system", never)
    read_machine()
