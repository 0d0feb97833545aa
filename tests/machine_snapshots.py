"""Machines as their readers see them: each is built from a folder, a fake NVIDIA library and what its system tells.

    python -m tests.machine_snapshots

writes ``data/machines/*.json`` and ``data/machine_devices.json`` anew; look at the differences before keeping them.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pynvml

from sigrun_hwcheck.devices import devices
from sigrun_hwcheck.machine import Machine
from sigrun_hwcheck.probe.dxgi import Adapter
from tests.machine_builder import (
    AMD,
    AMX,
    AVX2,
    AVX512,
    GIB,
    INTEL,
    MIB,
    NVIDIA,
    V1,
    V2,
    Built,
    amd_card,
    mac,
    nvidia,
)
from tests.machine_roots import drm_card, pci_card
from tests.nvml_fake import Part

DATA = Path(__file__).parent / "data"

A100 = Part(
    "NVIDIA A100-SXM4-40GB",
    40 * GIB,
    39 * GIB,
    capability=(8, 0),
    fails=dict.fromkeys(
        ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2"), pynvml.NVML_ERROR_NO_PERMISSION
    ),
    slices=[
        Part("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4864 * MIB, 4851 * MIB),
        None,
        Part("NVIDIA A100-SXM4-40GB MIG 3g.20gb", 19968 * MIB, 12000 * MIB),
    ],
)
RTX_3060 = ("0000:01:00.0", NVIDIA, 0x2504)
UNSUPPORTED = dict.fromkeys(
    ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2"), pynvml.NVML_ERROR_NOT_SUPPORTED
)
GPU_PACKAGES = ("onnxruntime-gpu",)
RYZEN = "AMD Ryzen 7 7700X 8-Core Processor"


def built() -> dict[str, Built]:
    """Every machine by its name; made anew each time, for reading changes the fakes."""
    return {
        "laptop_8gb": Built(
            (7822, 4100),
            "Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz",
            8,
            files=drm_card(0, "0000:00:02.0", INTEL, 0x5917, "i915", {}),
        ),
        "laptop_sleeping_card": Built(
            (31800, 22000),
            "12th Gen Intel(R) Core(TM) i7-12700H",
            20,
            f"{AVX2} avx_vnni",
            files=drm_card(0, "0000:00:02.0", INTEL, 0x46A6, "i915", {})
            | pci_card("0000:01:00.0", NVIDIA, 0x25A2, power="suspended"),
            library=nvidia(Part("NVIDIA GeForce RTX 3050 Laptop GPU", 4 * GIB, 4 * GIB)),
        ),
        "laptop_lunar_lake_npu": Built(
            (31600, 20000),
            "Intel(R) Core(TM) Ultra 7 258V",
            8,
            f"{AVX2} avx_vnni",
            files=drm_card(0, "0000:00:02.0", INTEL, 0x64A0, "xe", {})
            | {
                "sys/bus/pci/drivers/intel_vpu/bind": "",
                "sys/class/accel/accel0/device/driver": "link sys/bus/pci/drivers/intel_vpu",
            },
        ),
        "windows_laptop": Built(
            (16088, 7200),
            "12th Gen Intel(R) Core(TM) i5-1235U",
            12,
            system="Windows",
            architecture="AMD64",
            adapters=[Adapter("Intel(R) Iris(R) Xe Graphics", INTEL, 128 * MIB, 8044 * MIB, 7500 * MIB, 0, 0, 0)],
            windows=(40,),
            numpy={"AVX512VNNI": False, "AVX512BF16": False},
        ),
        "windows_rtx_4060": Built(
            (32560, 20100),
            "AMD Ryzen 5 7600 6-Core Processor",
            12,
            system="Windows",
            architecture="AMD64",
            library=nvidia(Part("NVIDIA GeForce RTX 4060", 8188 * MIB, 6900 * MIB, capability=(8, 9))),
            adapters=[
                Adapter("NVIDIA GeForce RTX 4060", NVIDIA, 7957 * MIB, 16 * GIB, 7200 * MIB, 0, 0, 0),
                Adapter("AMD Radeon(TM) Graphics", AMD, 512 * MIB, 16 * GIB, 15 * GIB, 100 * MIB, 0, 0),
            ],
            windows=(40, 41),
            numpy={"AVX512VNNI": True, "AVX512BF16": True},
            packages=GPU_PACKAGES,
        ),
        "windows_snapdragon": Built(
            (15900, 8100),
            "Snapdragon(R) X Elite - X1E80100",
            12,
            system="Windows",
            architecture="ARM64",
            adapters=[Adapter("Qualcomm(R) Adreno(TM) X1-85", 0x4D4F4351, 0, 7950 * MIB, 7400 * MIB, 0, 0, 0)],
            windows=(19, 43, 66),
        ),
        "desktop_rtx_3060": Built(
            (31900, 24000),
            "AMD Ryzen 5 5600X 6-Core Processor",
            12,
            files=pci_card(*RTX_3060),
            library=nvidia(Part("NVIDIA GeForce RTX 3060", 12 * GIB, 11400 * MIB, 256 * MIB)),
            packages=GPU_PACKAGES,
        ),
        "two_rtx_4090": Built(
            (128600, 110000),
            "AMD Ryzen Threadripper PRO 5955WX 16-Cores",
            32,
            library=nvidia(
                *(Part("NVIDIA GeForce RTX 4090", 24564 * MIB, free * MIB, capability=(8, 9)) for free in (24100, 900))
            ),
            packages=GPU_PACKAGES,
        ),
        "one_of_two_cards_shown": Built(
            (64200, 50000),
            "AMD Ryzen 9 5950X 16-Core Processor",
            32,
            library=nvidia(*(Part("NVIDIA RTX A5000", 24 * GIB, 23 * GIB) for _ in range(2))),
            environ={"CUDA_VISIBLE_DEVICES": "1"},
            packages=GPU_PACKAGES,
        ),
        "a100_slices": Built(
            (1031600, 950000), "AMD EPYC 7742 64-Core Processor", 128, library=nvidia(A100), packages=GPU_PACKAGES
        ),
        "h100": Built(
            (2063900, 1900000),
            "Intel(R) Xeon(R) Platinum 8480C",
            96,
            AMX,
            library=nvidia(Part("NVIDIA H100 80GB HBM3", 81559 * MIB, 80900 * MIB, 400 * MIB, (9, 0))),
            packages=GPU_PACKAGES,
        ),
        "gh200": Built(
            (490000, 470000),
            "0xd4f",
            72,
            "fp asimd asimddp i8mm bf16 sve",
            architecture="aarch64",
            library=nvidia(Part("NVIDIA GH200 480GB", 97871 * MIB, 97000 * MIB, capability=(9, 0))),
            packages=GPU_PACKAGES,
        ),
        "cloud_t4_in_container": Built(
            (15990, 13000),
            "Intel(R) Xeon(R) CPU @ 2.00GHz",
            4,
            AVX512,
            files={
                **V2,
                ".dockerenv": "",
                "sys/fs/cgroup/memory.max": f"{6 * GIB}",
                "sys/fs/cgroup/memory.current": f"{5 * GIB}",
                "sys/fs/cgroup/memory.stat": f"inactive_file {4 * GIB}\nslab_reclaimable {256 * MIB}\n",
                "sys/fs/cgroup/cpu.max": "200000 100000",
                **pci_card("0000:00:1e.0", NVIDIA, 0x1EB8, kind=0x030200),
            },
            library=nvidia(Part("Tesla T4", 15360 * MIB, 14900 * MIB, capability=(7, 5))),
            packages=GPU_PACKAGES,
        ),
        "container_hidden_card": Built(
            (64000, 52000),
            RYZEN,
            16,
            AVX512,
            files={".dockerenv": "", **pci_card(*RTX_3060)},
        ),
        "docker_v1_1gib": Built(
            (64000, 52000),
            "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz",
            28,
            files={
                **V1,
                ".dockerenv": "",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GIB}",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{900 * MIB}",
                "sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {700 * MIB}\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
        ),
        "lxc": Built(
            (4096, 3500),
            "Intel(R) N100",
            4,
            f"{AVX2} avx_vnni",
            environ={"container": "lxc"},
            files={**V2, "sys/fs/cgroup/memory.max": "max"},
        ),
        "strix_halo": Built(
            (127800, 110000),
            "AMD RYZEN AI MAX+ 395 w/ Radeon 8060S",
            32,
            f"{AVX512} avx512_bf16",
            files=amd_card(1, "0000:c3:00.0", 0x1586, 512, 200, 63900)
            | {
                "sys/bus/pci/drivers/amdxdna/bind": "",
                "sys/class/accel/accel0/device/driver": "link sys/bus/pci/drivers/amdxdna",
            },
        ),
        "strix_halo_set_aside": Built(
            (31500, 26000),
            "AMD RYZEN AI MAX+ 395 w/ Radeon 8060S",
            32,
            f"{AVX512} avx512_bf16",
            files=amd_card(1, "0000:c3:00.0", 0x1586, 98304, 300, 15750),
        ),
        "rx_7900_xtx": Built(
            (63900, 55000),
            RYZEN,
            16,
            f"{AVX512} avx512_bf16",
            files=amd_card(
                0, "0000:03:00.0", 0x744C, 24560, 1100, 31950, files={"mem_info_vram_vendor": "samsung"}
            )
            | amd_card(1, "0000:0b:00.0", 0x164E, 512, 20, 31950),
        ),
        "arc_a770": Built(
            (31800, 27000),
            "13th Gen Intel(R) Core(TM) i5-13600KF",
            20,
            f"{AVX2} avx_vnni",
            files=drm_card(
                0, "0000:03:00.0", INTEL, 0x56A0, "xe", {"tile0/physical_vram_size_bytes": f"{16 * GIB}"}
            ),
        ),
        "wsl2_rtx_4070": Built(
            (15900, 14000),
            "Intel(R) Core(TM) i7-14700K",
            28,
            f"{AVX2} avx_vnni",
            files={"proc/sys/kernel/osrelease": "5.15.167.4-microsoft-standard-WSL2\n"},
            library=nvidia(Part("NVIDIA GeForce RTX 4070", 12282 * MIB, 10800 * MIB, capability=(8, 9))),
            packages=GPU_PACKAGES,
        ),
        "driver_mismatch": Built(
            (31900, 25000),
            RYZEN,
            16,
            AVX512,
            files=pci_card(*RTX_3060),
            library=nvidia(fails={"nvmlInitWithFlags": pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH}),
            packages=GPU_PACKAGES,
        ),
        "card_lost": Built(
            (64200, 50000),
            RYZEN,
            16,
            AVX512,
            library=nvidia(Part(fails={"handle": pynvml.NVML_ERROR_GPU_IS_LOST}), Part()),
            packages=GPU_PACKAGES,
        ),
        "nvml_package_absent": Built(
            (31900, 25000), RYZEN, 16, AVX512, package=False, library=nvidia(Part()), packages=()
        ),
        "jetson_orin_nano": Built(
            (7620, 5900),
            "0xd42",
            6,
            "fp asimd asimddp",
            architecture="aarch64",
            files={"proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0"},
            library=nvidia(Part("Orin (nvgpu)", capability=(8, 7), fails=UNSUPPORTED), driver="540.3.0"),
        ),
        "gb10": Built(
            (122500, 110000),
            "0xd85",
            20,
            "fp asimd asimddp i8mm bf16 sve",
            architecture="aarch64",
            library=nvidia(Part("NVIDIA GB10", capability=(12, 1), fails=UNSUPPORTED), driver="580.95.05"),
        ),
        "raspberry_pi_5": Built(
            (8057, 7100),
            "0xd0b",
            4,
            "fp asimd asimddp",
            architecture="aarch64",
            files={"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"},
        ),
        "old_xeon": Built((32100, 28000), "Intel(R) Xeon(R) CPU X5650 @ 2.67GHz", 24, "fpu sse4_2"),
        "mac_m1_8gb": Built((8192, 3000), "", 8, system="Darwin", architecture="arm64", sysctls=mac("Apple M1", 8, 8)),
        "mac_m2_16gb": Built(
            (16384, 9000),
            "",
            8,
            system="Darwin",
            architecture="arm64",
            sysctls=mac("Apple M2", 8, 16, wired_limit_mb=0),
            working_set=11453251584,
        ),
        "mac_m3_max_64gb": Built(
            (65536, 40000),
            "",
            16,
            system="Darwin",
            architecture="arm64",
            sysctls=mac("Apple M3 Max", 16, 64, wired_limit_mb=57344),
        ),
    }  # fmt: skip


def device_list(machine: Machine) -> list[dict[str, Any]]:
    """What of a machine can hold a model, as plain data."""
    return [asdict(device) for device in devices(machine)]


def main() -> int:
    """Write the files."""
    with tempfile.TemporaryDirectory() as folder:
        found = {name: one.read(Path(folder) / name) for name, one in built().items()}
    for name, machine in found.items():
        text = json.dumps(machine.to_json(), indent=2)
        (DATA / "machines" / f"{name}.json").write_text(f"{text}\n", "utf-8")
    lists = {
        path.stem: device_list(Machine.from_json(json.loads(path.read_text("utf-8"))))
        for path in sorted((DATA / "machines").glob("*.json"))
        if path.stem != "golden"
    }
    (DATA / "machine_devices.json").write_text(f"{json.dumps(lists, indent=1)}\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
