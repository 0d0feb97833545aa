"""Graphics adapters of Windows: a DXGI of C functions called as COM, and a registry of dictionaries."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import pytest

from sigrun_hwcheck.probe import dxgi, registry, windows

MIB, GIB = 1 << 20, 1 << 30
AMD, INTEL, NVIDIA = 0x1002, 0x8086, 0x10DE


class Com:
    """A DXGI made of tables of C functions, as Windows lays them out; counts what is alive."""

    def __init__(self, adapters: list[dict[str, Any]]) -> None:
        self.adapters = adapters
        self.kept: list[Any] = []
        self.alive = 0

    def thing(self, methods: dict[int, Any]) -> int:
        table = (ctypes.c_void_p * 20)()
        methods[2] = (self.release, ())
        for place, (function, kinds) in methods.items():
            made = dxgi.METHOD(ctypes.c_int32, ctypes.c_void_p, *kinds)(function)
            self.kept.append(made)
            table[place] = ctypes.cast(made, ctypes.c_void_p).value
        box = ctypes.pointer(ctypes.cast(table, ctypes.c_void_p))
        self.kept += [table, box]
        self.alive += 1
        return ctypes.cast(box, ctypes.c_void_p).value or 0

    def release(self, this: Any) -> int:
        self.alive -= 1
        return 0

    def create(self, guid: Any, out: Any) -> int:
        assert bytes(guid._obj) == dxgi.FACTORY1.bytes_le
        out._obj.value = self.thing({12: (self.enumerate, (ctypes.c_uint32, ctypes.c_void_p))})
        return 0

    def enumerate(self, this: Any, number: int, out: int) -> int:
        if number >= len(self.adapters):
            return -2005270526  # DXGI_ERROR_NOT_FOUND
        about = self.adapters[number]

        def describe(this: Any, to: int) -> int:
            said = dxgi.Description.from_address(to)
            for i, letter in enumerate(about["name"]):
                said.name[i] = ord(letter)
            said.vendor, said.flags = about["vendor"], about.get("flags", 0)
            said.dedicated_video, said.shared_system = about["dedicated"], about.get("shared", 0)
            return 0

        def query(this: Any, guid: int, to: int) -> int:
            assert ctypes.string_at(guid, 16) == dxgi.ADAPTER3.bytes_le
            if "budget" not in about:
                return -2147467262  # E_NOINTERFACE
            kinds = (ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)
            ctypes.c_void_p.from_address(to).value = self.thing({14: (memory, kinds)})
            return 0

        def memory(this: Any, node: int, group: int, to: int) -> int:
            info = dxgi.MemoryInfo.from_address(to)
            info.budget, info.usage = (about["budget"], GIB) if group == dxgi.LOCAL else (0, 0)
            return 0

        two = (ctypes.c_void_p, ctypes.c_void_p)
        made = self.thing({0: (query, two), 10: (describe, (ctypes.c_void_p,))})
        ctypes.c_void_p.from_address(out).value = made
        return 0


def test_adapters_of_windows_and_everything_released() -> None:
    com = Com(
        [
            {"name": "AMD Radeon RX 9070", "vendor": AMD, "dedicated": 16 * GIB, "budget": 15 * GIB},
            {"name": "Old", "vendor": INTEL, "dedicated": 128 * MIB, "shared": 8 * GIB},
            {
                "name": "Microsoft Basic Render Driver",
                "vendor": 0x1414,
                "dedicated": 0,
                "flags": dxgi.SOFTWARE,
            },
        ]
    )
    first, second = dxgi.listed(com.create)
    assert (first.name, first.dedicated_bytes) == ("AMD Radeon RX 9070", 16 * GIB)
    assert (first.local_budget, first.local_usage) == (15 * GIB, GIB)
    assert (second.name, second.local_budget, second.shared_bytes) == ("Old", None, 8 * GIB)
    assert com.alive == 0


def test_the_structures_are_as_large_as_windows_ones() -> None:
    assert ctypes.sizeof(dxgi.MemoryInfo) == 32
    assert ctypes.sizeof(dxgi.Description) == (312 if ctypes.sizeof(ctypes.c_void_p) == 8 else 296)


def adapter(
    name: str, vendor: int, dedicated: int, budget: int | None, shared: int = 8 * GIB
) -> dxgi.Adapter:
    return dxgi.Adapter(name, vendor, dedicated, shared, budget, None if budget is None else GIB, 0, 0)


def no_dxgi() -> list[dxgi.Adapter]:
    raise OSError


def test_windows_cards_by_vendor_and_nvidia_left_to_nvml() -> None:
    listed = [
        adapter("GeForce", NVIDIA, 8 * GIB, 7 * GIB),
        adapter("Radeon", AMD, 16 * GIB, 15 * GIB),
        adapter("Iris", INTEL, 128 * MIB, 9 * GIB),
        adapter("Virtual", 0x1414, 0, None),
    ]
    found = windows.read(lambda: listed, list, nvidia_known=True)
    assert [g.vendor for g in found] == ["amd", "intel"]
    radeon, iris = found[0].cards[0], found[1].cards[0]
    assert (radeon.memory, radeon.total_bytes, radeon.free_bytes) == ("own", 16 * GIB, 14 * GIB)
    assert (iris.kind, iris.memory, iris.total_bytes) == ("integrated", "shared", None)
    assert (iris.shared_total_bytes, iris.shared_free_bytes) == (8 * GIB + 128 * MIB, 8 * GIB)
    broken = windows.read(lambda: listed, list, nvidia_known=False)
    assert [g.vendor for g in broken] == ["amd", "intel", "nvidia"]


class Registry:
    """A winreg of nested dictionaries."""

    HKEY_LOCAL_MACHINE: Any

    def __init__(self, drivers: dict[str, dict[str, object]]) -> None:
        self.HKEY_LOCAL_MACHINE = {registry.CLASS: drivers}

    class Key(dict[str, Any]):
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: object) -> None:
            return None

    def OpenKey(self, key: Any, name: str) -> Any:  # noqa: N802
        return self.Key(key[name])

    def QueryInfoKey(self, key: Any) -> tuple[int]:  # noqa: N802
        return (len(key),)

    def EnumKey(self, key: Any, number: int) -> str:  # noqa: N802
        return list(key)[number]

    def QueryValueEx(self, key: Any, name: str) -> tuple[Any, int]:  # noqa: N802
        if name not in key:
            raise FileNotFoundError(name)
        return key[name], 1


def test_the_registry_has_64_bits_for_memory() -> None:
    fake = Registry(
        {
            "0000": {
                "DriverDesc": "AMD Radeon AI PRO R9700",
                "MatchingDeviceId": r"PCI\VEN_1002&DEV_7551",
                "HardwareInformation.qwMemorySize": 32 * GIB,
                "HardwareInformation.MemorySize": 0xFFF00000,
            },
            "0001": {
                "DriverDesc": "Intel(R) Arc(TM) A770",
                "MatchingDeviceId": r"pci\ven_8086&dev_56a0",
                "HardwareInformation.qwMemorySize": (16 * GIB).to_bytes(8, "little"),
            },
            "0002": {"DriverDesc": "Intel(R) UHD Graphics", "MatchingDeviceId": r"pci\ven_8086&dev_9bc4"},
            "Properties": {},
        }
    )
    found = registry.display_drivers(fake)
    assert [(d.vendor, d.memory_bytes) for d in found] == [(AMD, 32 * GIB), (INTEL, 16 * GIB), (INTEL, None)]
    cards = {g.vendor: g.cards for g in windows.read(no_dxgi, lambda: found, nvidia_known=False)}
    assert (cards["amd"][0].total_bytes, cards["amd"][0].free_bytes) == (32 * GIB, None)
    assert [(c.index, c.memory) for c in cards["intel"]] == [(0, "own"), (1, "shared")]
    assert cards["intel"][1].problem


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has both")
def test_elsewhere_there_is_no_dxgi_and_no_registry() -> None:
    with pytest.raises(OSError, match="Windows"):
        dxgi.adapters()
    assert registry.display_drivers() == []
