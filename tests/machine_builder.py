"""One machine of the snapshots: folders, a fake NVIDIA library and what its system tells, read as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sigrun_hwcheck.machine import Machine
from sigrun_hwcheck.probe import Sources, cpu, nvml, read_machine
from sigrun_hwcheck.probe.dxgi import Adapter
from tests.machine_roots import drm_card, tree
from tests.nvml_fake import Library, Part, installed

MIB, GIB = 1 << 20, 1 << 30
AMD, INTEL, NVIDIA = 0x1002, 0x8086, 0x10DE
Files = dict[str, str | bytes]

AVX2 = "fpu sse4_2 avx avx2 fma"
AVX512 = f"{AVX2} avx512f avx512_vnni"
AMX = f"{AVX512} avx_vnni avx512_bf16 amx_bf16 amx_int8"
V2 = {
    "proc/self/cgroup": "0::/\n",
    "proc/self/mountinfo": "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
}
V1 = {
    "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
    "proc/self/mountinfo": "33 31 0:30 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "34 31 0:31 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n",
}

PCI_IDS = """\
# excerpt
1002  Advanced Micro Devices, Inc. [AMD/ATI]
\t744c  Navi 31 [Radeon RX 7900 XT/7900 XTX/7900 GRE/7900M]
10de  NVIDIA Corporation
\t25a2  GA107M [GeForce RTX 3050 Mobile]
8086  Intel Corporation
\t46a6  Alder Lake-P GT2 [Iris Xe Graphics]
\t56a0  DG2 [Arc A770]
\t5917  UHD Graphics 620
\t64a0  Lunar Lake [Intel Arc Graphics 130V / 140V]
"""


@dataclass
class Built:
    """A machine to be read: memory in MiB, total and available; processors; and what else it has."""

    memory: tuple[int, int]
    processor: str
    threads: int
    flags: str = AVX2
    system: str = "Linux"
    architecture: str = "x86_64"
    files: Files = field(default_factory=dict)
    library: Library | None = None
    package: bool = True
    environ: dict[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ("onnxruntime",)
    sysctls: dict[str, bytes] = field(default_factory=dict)
    working_set: int | None = None
    adapters: list[Adapter] | None = None
    windows: tuple[int, ...] = ()
    numpy: dict[str, bool] = field(default_factory=dict)

    def read(self, root: Path) -> Machine:
        """The machine, read from files below a root and from fakes."""
        tree(root, self.files)
        if self.system == "Linux":
            tree(root, self._linux())
        with installed(self.library):
            return read_machine(self._sources(root))

    def _linux(self) -> Files:
        total, available = self.memory
        x86 = self.architecture == "x86_64"
        entry = (
            "processor\t: {}\nmodel name\t: {}\nphysical id\t: 0\ncore id\t: {}\nflags\t: {}\n"
            if x86
            else "processor\t: {}\nBogoMIPS\t: {}{}\nFeatures\t: {}\n"
        )
        blocks = [
            entry.format(i, self.processor if x86 else "", i // 2 if x86 else "", self.flags)
            for i in range(self.threads)
        ]
        if not x86:
            implementer = f"CPU implementer\t: 0x41\nCPU part\t: {self.processor}\n"
            blocks = [block + implementer for block in blocks]
        cores: Files = (
            {}
            if x86
            else {
                f"sys/devices/system/cpu/cpu{i}/topology/core_cpus_list": f"{i}\n"
                for i in range(self.threads)
            }
        )
        return {
            "usr/share/misc/pci.ids": PCI_IDS,
            "proc/meminfo": f"MemTotal: {total << 10} kB\nMemAvailable: {available << 10} kB\n",
            "proc/cpuinfo": "\n".join(blocks),
            "proc/self/status": f"Name:\tpython\nCpus_allowed_list:\t0-{self.threads - 1}\n",
            **cores,
        }  # fmt: skip

    def _sources(self, root: Path) -> Sources:
        def binding() -> Any:
            if not self.package:
                raise ImportError
            return nvml.load_binding()

        def adapters() -> list[Adapter]:
            if self.adapters is None:
                raise OSError
            return self.adapters

        return Sources(
            root=root,
            system=self.system,
            architecture=self.architecture,
            environ=self.environ,
            memory=lambda: (self.memory[0] * MIB, self.memory[1] * MIB),
            usable_cpus=lambda: self.threads,
            binding=binding,
            sysctl=self.sysctls.get,
            working_set=lambda: self.working_set,
            adapters=adapters,
            display_drivers=list,
            windows=cpu.Windows(
                lambda number: number in self.windows,
                26100,
                lambda: self.processor,
                lambda: self.threads // 2,
                lambda: self.numpy,
            ),
            disk_usage=lambda folder: (512 * GIB, 200 * GIB),
            output=Path("/"),
            cache=None,
            package_version=lambda package: "1.31.1" if package in self.packages else None,
            platform={"Darwin": "darwin", "Windows": "win32"}.get(self.system, "linux"),
        )


def amd_card(number: int, slot: str, device: int, vram: int, used: int, gtt: int, **more: Any) -> Files:
    """An AMD card; memory in MiB."""
    sizes = {"vram_total": vram, "vram_used": used, "gtt_total": gtt, "gtt_used": 64}
    files: Files = {f"mem_info_{name}": f"{size * MIB}\n" for name, size in sizes.items()}
    return drm_card(number, slot, AMD, device, "amdgpu", files | more.get("files", {}))


def nvidia(*cards: Part, **more: Any) -> Library:
    return Library(list(cards), **more)


def mac(chip: str, cores: int, gib: int, **sysctls: int) -> dict[str, bytes]:
    numbers = {"hw.memsize": gib * GIB, "hw.physicalcpu": cores, "hw.logicalcpu": cores}
    numbers |= {
        f"hw.optional.arm.FEAT_{n}": v for n, v in (("DotProd", 1), ("I8MM", chip != "Apple M1"), ("BF16", 0))
    }
    numbers |= {"hw.optional.AdvSIMD": 1} | {f"iogpu.{n}": v for n, v in sysctls.items()}
    return {"machdep.cpu.brand_string": chip.encode() + b"\0"} | {
        n: int(v).to_bytes(8, "little") for n, v in numbers.items()
    }
