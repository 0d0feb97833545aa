"""The processor as each system tells it: name, cores, and instruction sets that are there, absent or not told."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from sigrun_hwcheck.probe import cpu
from tests.machine_roots import tree

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
    assert found.features == {"neon": True, "dotprod": None, "i8mm": False, "bf16": None, "sve": None}


def windows(build: int, numpy: dict[str, bool], *there: int) -> cpu.Windows:
    return cpu.Windows(lambda number: number in there, build, lambda: "Some CPU", lambda: 4, lambda: numpy)


def test_windows_tells_no_vnni() -> None:
    found = windows(26100, {}, 40).features("x86_64")
    assert (found["avx2"], found["avx512f"], found["avx512_vnni"]) == (True, False, None)


def test_an_old_windows_that_denies_avx2_does_not_know_it() -> None:
    assert windows(18363, {}).features("x86_64")["avx2"] is None
    assert windows(18363, {"AVX2": True}).features("x86_64")["avx2"] is True
    assert windows(22631, {}, 43).features("arm64") == {
        "neon": False,
        "dotprod": True,
        "i8mm": None,
        "bf16": None,
        "sve": None,
    }


def test_numpy_fills_what_windows_has_no_number_for() -> None:
    found = windows(26100, {"AVX512VNNI": True, "AVX512BF16": False, "AVX2": False}, 40).features("x86_64")
    assert (found["avx2"], found["avx512_vnni"], found["avx512_bf16"]) == (True, True, False)
    assert (found["avx_vnni"], found["amx_int8"]) == (None, None)


def test_numpys_names_are_numpys() -> None:
    assert set(cpu.NUMPY.values()) <= set(cpu.numpy_features())


def test_instruction_sets_that_some_cores_lack_are_not_there() -> None:
    text = "processor : 0\nflags : avx2 avx512f\n\nprocessor : 1\nflags : avx2\n"
    found = cpu.from_cpuinfo(text, "x86_64", 2, None)
    assert (found.features["avx2"], found.features["avx512f"]) == (True, False)


def test_cores_of_arm_come_from_the_topology_and_names_from_the_numbers(tmp_path: Path) -> None:
    entry = (
        "processor\t: {}\nFeatures\t: asimd asimddp i8mm sve\nCPU implementer\t: 0x41\nCPU part\t: 0x{:x}\n"
    )
    files: dict[str, str | bytes] = {
        "proc/cpuinfo": "\n".join(entry.format(i, 0xD85 if i > 1 else 0xD87) for i in range(4)),
        "proc/self/status": "Name:\tpython\nCpus_allowed_list:\t0-1,3\n",
    }
    for i in range(4):
        files[f"sys/devices/system/cpu/cpu{i}/topology/core_cpus_list"] = f"{i}\n"
    found = cpu.read(tree(tmp_path, files), "Linux", "aarch64")
    assert (found.name, found.architecture) == ("Cortex-A725 + Cortex-X925", "arm64")
    assert (found.physical_cores, found.usable_cpus) == (4, 3)
    assert found.present == ("neon", "dotprod", "i8mm", "sve")


def test_a_board_names_a_processor_without_a_name(tmp_path: Path) -> None:
    tree(tmp_path, {"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"})
    assert cpu.read(tmp_path, "Linux", "aarch64").name == "Raspberry Pi 5 Model B Rev 1.0"


@pytest.mark.parametrize("system", ["Linux", "Darwin", "Windows", "Plan 9"])
def test_every_system_answers_something(system: str, tmp_path: Path) -> None:
    """Readers of other systems must fail softly, for they are imported and may be asked anywhere."""
    assert cpu.read(tmp_path, system).architecture == cpu.normal(platform.machine())
