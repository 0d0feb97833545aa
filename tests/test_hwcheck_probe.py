"""Reading a machine: control groups, memory, processor and NVML, all from fakes."""

from __future__ import annotations

import platform
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import pytest

from sigrun_hwcheck.machine import Card, Gpus
from sigrun_hwcheck.probe import cpu, nvidia, ram, read_machine

GIB = 1 << 30
HOST = (64 * GIB, 50 * GIB)
NO_LIMIT_V1 = "9223372036854771712"

V2 = "30 1 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
V1 = (
    "31 1 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "33 31 0:30 {mounted} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "34 31 0:31 {mounted} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
)


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "ascii")
    return root


def host() -> tuple[int, int]:
    return HOST


def v2(own: str, **groups: dict[str, str]) -> dict[str, str]:
    files = {"proc/self/cgroup": f"0::{own}\n", "proc/self/mountinfo": V2}
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


def v1(own: str, mounted: str = "/") -> dict[str, str]:
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
    assert cpu.quota(tmp_path) == 1.5


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
    assert cpu.quota(tmp_path) is None


@pytest.mark.parametrize(
    ("inner", "outer", "quota"), [("max 100000", "200000 100000", 2.0), ("50000 100000", "max", 0.5)]
)
def test_v2_cpu_quota(tmp_path: Path, inner: str, outer: str, quota: float) -> None:
    tree(tmp_path, v2("/a/b", a={"cpu.max": outer}, a__b={"cpu.max": inner}))
    assert cpu.quota(tmp_path) == quota


CPUINFO = """\
processor\t: 0
model name\t: Some CPU
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu avx2 avx512f avx512_vnni amx_int8

processor\t: 1
model name\t: Some CPU
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu avx2 avx512f avx512_vnni amx_int8
"""


def test_cpuinfo_of_x86() -> None:
    found = cpu.from_cpuinfo(CPUINFO, "x86_64", 2, None)
    assert (found.name, found.physical_cores) == ("Some CPU", 1)
    assert found.present == ("avx2", "avx512f", "avx512_vnni", "amx_int8")
    assert found.features["avx_vnni"] is False


def test_cpuinfo_of_arm() -> None:
    found = cpu.from_cpuinfo("processor\t: 0\nFeatures\t: fp asimd asimddp\n", "arm64", 4, None)
    assert found.present == ("neon", "dotprod")
    assert (found.name, found.physical_cores) == (None, None)


def test_no_cpuinfo_is_unknown_not_absent() -> None:
    found = cpu.from_cpuinfo("", "x86_64", None, None)
    assert set(found.features.values()) == {None}
    assert found.physical_cores is None


def test_mac() -> None:
    values = {
        "machdep.cpu.brand_string": b"Apple M2\0",
        "hw.physicalcpu": (8).to_bytes(4, "little"),
        "hw.optional.AdvSIMD": (1).to_bytes(4, "little"),
        "hw.optional.arm.FEAT_I8MM": (0).to_bytes(4, "little"),
    }
    found = cpu.from_sysctl(values.get, "arm64")
    assert (found.name, found.physical_cores) == ("Apple M2", 8)
    assert found.features == {"neon": True, "dotprod": None, "i8mm": False, "bf16": None}


def test_windows_tells_no_vnni() -> None:
    found = cpu.from_windows(lambda number: number == 40, "x86_64")
    assert (found["avx2"], found["avx512f"], found["avx512_vnni"]) == (True, False, None)


@pytest.mark.parametrize("system", ["Linux", "Darwin", "Windows", "Plan 9"])
def test_every_system_answers_something(system: str, tmp_path: Path) -> None:
    """Readers of other systems must fail softly, for they are imported and may be asked anywhere."""
    assert cpu.read(tmp_path, system).architecture == cpu.normal(platform.machine())


class FakeNvml(types.SimpleNamespace):
    """Stands in for the module pynvml: ``fails`` maps function names to NVML error numbers."""

    NVMLError = pynvml.NVMLError
    nvmlMemory_v2 = pynvml.nvmlMemory_v2  # noqa: N815

    def __init__(self, cards: int = 1, fails: dict[str, int] | None = None, total: int = 8 * GIB) -> None:
        super().__init__()
        self.cards = cards
        self.fails = fails or {}
        self.total = total
        self.shut = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            key = name if name != "nvmlDeviceGetMemoryInfo" else f"{name}_v{len(arguments)}"
            if key in self.fails or name in self.fails:
                raise pynvml.NVMLError(self.fails.get(key, self.fails.get(name)))
            return self.answer(name, arguments)

        if not name.startswith("nvml"):
            raise AttributeError(name)
        return call

    def answer(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name == "nvmlShutdown":
            self.shut += 1
        return {
            "nvmlDeviceGetCount": self.cards,
            "nvmlSystemGetDriverVersion": b"570.1",
            "nvmlDeviceGetHandleByIndex": arguments[0] if arguments else None,
            "nvmlDeviceGetName": "Card",
            "nvmlDeviceGetCudaComputeCapability": (8, 6),
            "nvmlDeviceGetMemoryInfo": types.SimpleNamespace(
                total=self.total, free=3 * GIB, used=self.total - 3 * GIB
            ),
        }.get(name)


def ask(fake: FakeNvml) -> Gpus:
    return nvidia.read(lambda: fake)


def test_cards_with_their_free_memory() -> None:
    fake = FakeNvml(cards=2)
    found = ask(fake)
    assert (found.state, found.driver) == ("ok", "570.1")
    assert found.cards[1] == Card(1, "Card", 8 * GIB, 3 * GIB, 5 * GIB, (8, 6))
    assert fake.shut == 1


@pytest.mark.parametrize(
    ("code", "state", "word"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "no_library", "absent"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "no_driver", "not running"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "no_permission", "no permission"),
        (pynvml.NVML_ERROR_NOT_SUPPORTED, "not_supported", "does not support"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "error", "different versions"),
        (pynvml.NVML_ERROR_UNKNOWN, "error", "999"),
        (pynvml.NVML_ERROR_GPU_IS_LOST, "error", "15"),
    ],
)
def test_each_reason_for_no_answer_is_told_apart(code: int, state: str, word: str) -> None:
    found = ask(FakeNvml(fails={"nvmlInit": code}))
    assert (found.state, found.cards) == (state, ())
    assert found.detail is not None
    assert word in found.detail


def test_an_error_after_the_start_still_shuts_down() -> None:
    fake = FakeNvml(fails={"nvmlDeviceGetCount": pynvml.NVML_ERROR_UNKNOWN, "nvmlShutdown": 1})
    assert ask(fake).state == "error"


def test_no_card_and_no_package() -> None:
    def missing() -> Any:
        raise ImportError

    assert ask(FakeNvml(cards=0)).state == "no_devices"
    assert nvidia.read(missing).state == "no_binding"


def test_an_old_driver_without_the_second_memory_interface() -> None:
    fails = {"nvmlDeviceGetMemoryInfo_v2": pynvml.NVML_ERROR_FUNCTION_NOT_FOUND}
    assert ask(FakeNvml(fails=fails)).cards[0].free_bytes == 3 * GIB


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION])
def test_a_card_that_tells_no_memory_is_unknown_not_empty(code: int) -> None:
    card = ask(FakeNvml(fails={"nvmlDeviceGetMemoryInfo": code})).cards[0]
    assert (card.total_bytes, card.free_bytes, card.used_bytes) == (None, None, None)
    assert card.problem


def test_a_card_of_zero_bytes_is_unknown() -> None:
    card = ask(FakeNvml(total=0)).cards[0]
    assert card.free_bytes is None
    assert card.problem


def test_a_lost_card_is_listed_with_its_reason() -> None:
    card = ask(FakeNvml(fails={"nvmlDeviceGetHandleByIndex": pynvml.NVML_ERROR_GPU_IS_LOST})).cards[0]
    assert card.name is None
    assert card.problem


def test_this_machine() -> None:
    machine = read_machine()
    assert machine.ram.total_bytes is not None
    assert machine.ram.total_bytes > 0
    assert machine.cpu.usable_cpus
    assert machine.gpus[0].vendor == "nvidia"
