"""Cards of AMD, Intel and Apple, and NPUs: from folders and objects that look like theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sigrun_hwcheck.machine import Card, Gpus, Npu
from sigrun_hwcheck.probe import amd, apple, intel, npu
from tests.machine_roots import drm_card, pci_card, tree

MIB, GIB = 1 << 20, 1 << 30
AMD, INTEL = 0x1002, 0x8086
SLOT = "0000:03:00.0"


def pools(vram: int, vram_used: int, gtt: int, gtt_used: int) -> dict[str, str | bytes]:
    numbers = {"vram_total": vram, "vram_used": vram_used, "gtt_total": gtt, "gtt_used": gtt_used}
    return {f"mem_info_{name}": f"{number}\n" for name, number in numbers.items()}


def one(found: Gpus | None) -> Card:
    assert found is not None
    assert found.state == "ok", found
    (card,) = found.cards
    return card


def amd_card(root: Path, device: int, files: dict[str, str | bytes], **more: str) -> Card:
    return one(amd.read(tree(root, drm_card(0, SLOT, AMD, device, "amdgpu", files, **more))))


def test_a_card_of_amds_own_memory(tmp_path: Path) -> None:
    files = pools(24 * GIB, GIB, 64 * GIB, 0) | {"mem_info_vram_vendor": "samsung\n"}
    card = amd_card(tmp_path, 0x744C, files)
    assert (card.kind, card.memory, card.slot) == ("discrete", "own", SLOT)
    assert (card.total_bytes, card.free_bytes, card.used_bytes) == (24 * GIB, 23 * GIB, GIB)
    assert (card.shared_total_bytes, card.shared_free_bytes) == (None, None)


def test_an_apu_borrows_of_main_memory(tmp_path: Path) -> None:
    card = amd_card(tmp_path, 0x15BF, pools(512 * MIB, 256 * MIB, 14 * GIB, GIB))
    assert (card.kind, card.memory, card.name) == ("integrated", "shared", "Radeon 780M (Phoenix)")
    assert (card.total_bytes, card.free_bytes) == (512 * MIB, 256 * MIB)
    assert (card.shared_total_bytes, card.shared_free_bytes) == (14 * GIB, 13 * GIB)


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"gpu_metrics": b"\x80\x00\x01\x03"}, "discrete"),
        ({"gpu_metrics": b"\x80\x00\x02\x02"}, "integrated"),
        ({"gpu_metrics": b"\x08\x01\x03\x00"}, "integrated"),
        ({"gpu_metrics": b"\x80"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_what_a_card_is_does_not_follow_from_its_size(
    files: dict[str, str | bytes], kind: str, tmp_path: Path
) -> None:
    """2 GiB beside a table of 48 GiB is what an old card in a large machine looks like."""
    card = amd_card(tmp_path, 0x67FF, pools(2 * GIB, 0, 48 * GIB, 0) | files)
    assert card.kind == kind
    assert (card.memory == "shared") == (kind == "integrated")
    assert card.free_bytes == 2 * GIB


def test_an_amd_card_that_sleeps_is_not_asked(tmp_path: Path) -> None:
    files = pools(8 * GIB, 0, 8 * GIB, 0) | {"product_name": "Radeon RX 7600M\n"}
    found = amd.read(tree(tmp_path, drm_card(0, SLOT, AMD, 0x7480, "amdgpu", files, power="suspended")))
    assert found is not None
    assert (found.state, found.cards[0].name) == ("asleep", "Radeon RX 7600M")
    assert (found.cards[0].total_bytes, found.cards[0].free_bytes) == (None, None)


def test_memory_that_amdgpu_does_not_tell_is_unknown(tmp_path: Path) -> None:
    card = amd_card(tmp_path, 0x744C, {"mem_info_vram_total": "0\n", "mem_info_vram_vendor": "hynix\n"})
    assert (card.total_bytes, card.free_bytes) == (None, None)
    assert card.problem
    files: dict[str, str | bytes] = {"mem_info_vram_total": f"{GIB}\n"}
    half = amd_card(tmp_path / "half", 0x744C, files)
    assert (half.total_bytes, half.free_bytes) == (GIB, None)
    assert "what is used" in str(half.problem)


def test_one_card_with_many_connectors_and_nodes_is_one_card(tmp_path: Path) -> None:
    files = drm_card(0, SLOT, AMD, 0x15BF, "amdgpu", pools(GIB, 0, 14 * GIB, 0))
    tree(tmp_path, files)
    tree(
        tmp_path,
        {f"sys/class/drm/{n}/device": f"link sys/bus/pci/devices/{SLOT}" for n in ("card1", "renderD128")},
    )
    one(amd.read(tmp_path))


def test_integrated_and_discrete_side_by_side_stay_apart(tmp_path: Path) -> None:
    tree(tmp_path, drm_card(1, "0000:0b:00.0", AMD, 0x164E, "amdgpu", pools(512 * MIB, 0, 15 * GIB, 0)))
    own = pools(20 * GIB, 0, 15 * GIB, 0) | {"mem_info_vram_vendor": "micron"}
    tree(tmp_path, drm_card(0, SLOT, AMD, 0x744C, "amdgpu", own))
    found = amd.read(tmp_path)
    assert found is not None
    assert [(c.index, c.kind, c.total_bytes) for c in found.cards] == [
        (0, "discrete", 20 * GIB),
        (1, "integrated", 512 * MIB),
    ]


@pytest.mark.parametrize(("reader", "vendor"), [(amd.read, AMD), (intel.read, INTEL)])
def test_cards_that_are_not_in_the_container(reader: Any, vendor: int, tmp_path: Path) -> None:
    tree(tmp_path, drm_card(0, SLOT, vendor, 0x744C, "some", {}))
    found = reader(tmp_path, "container")
    assert (found.state, found.cards) == ("not_passed_in", ())
    tree(tmp_path, {"dev/dri/renderD128": ""})
    assert reader(tmp_path, "container").cards


@pytest.mark.parametrize(("reader", "vendor"), [(amd.read, AMD), (intel.read, INTEL)])
def test_cards_without_a_driver_and_none_at_all(reader: Any, vendor: int, tmp_path: Path) -> None:
    assert reader(tmp_path, "native") is None
    assert reader(tree(tmp_path, pci_card(SLOT, vendor, 0x1234)), "native").state == "no_driver"


def test_intels_integrated_graphics_have_no_memory_to_add(tmp_path: Path) -> None:
    ids = "8086  Intel Corporation\n\t1233  Other\n\t46a6  Alder Lake-P GT2 [Iris Xe Graphics]\n"
    files = drm_card(0, "0000:00:02.0", INTEL, 0x46A6, "i915", {}) | {"usr/share/hwdata/pci.ids": ids}
    card = one(intel.read(tree(tmp_path, files)))
    assert (card.kind, card.memory, card.estimated) == ("integrated", "shared", True)
    assert card.name == "Alder Lake-P GT2 [Iris Xe Graphics]"
    assert (card.total_bytes, card.free_bytes, card.shared_total_bytes) == (None, None, None)


def test_intels_own_cards(tmp_path: Path) -> None:
    sizes: dict[str, str | bytes] = {f"tile{i}/physical_vram_size_bytes": f"{8 * GIB}\n" for i in (0, 1)}
    card = one(intel.read(tree(tmp_path / "xe", drm_card(0, SLOT, INTEL, 0xE20B, "xe", sizes))))
    assert (card.kind, card.total_bytes, card.free_bytes) == ("discrete", 16 * GIB, None)
    assert card.problem == "its driver does not tell"
    silent = one(intel.read(tree(tmp_path / "i915", drm_card(0, SLOT, INTEL, 0x56A0, "i915", {}))))
    assert (silent.total_bytes, silent.free_bytes) == (None, None)
    assert "(i915)" in str(silent.problem)
    files = drm_card(0, SLOT, INTEL, 0x56A0, "i915", {})
    files |= {f"sys/class/drm/card0/lmem_{n}_bytes": f"{s * GIB}" for n, s in (("total", 16), ("avail", 15))}
    told = one(intel.read(tree(tmp_path / "told", files)))
    assert (told.total_bytes, told.free_bytes, told.problem) == (16 * GIB, 15 * GIB, None)


def mac(**values: int) -> Any:
    table = {"machdep.cpu.brand_string": b"Apple M2\0", "hw.memsize": (16 * GIB).to_bytes(8, "little")}
    table |= {f"iogpu.{name}": value.to_bytes(4, "little") for name, value in values.items()}
    return table.get


@pytest.mark.parametrize(
    ("values", "metal", "limit", "estimated"),
    [
        ({}, 11 * GIB, 11 * GIB, False),
        ({"wired_limit_mb": 14336}, 11 * GIB, 11 * GIB, False),
        ({"wired_limit_mb": 14336}, None, 14 * GIB, False),
        ({"wired_limit_mb": 0}, None, 16 * GIB * 2 // 3, True),
    ],
)
def test_the_working_set_of_a_mac(
    values: dict[str, int], metal: int | None, limit: int, estimated: bool
) -> None:
    card = one(apple.read(mac(**values), lambda: metal, "arm64"))
    assert (card.name, card.memory) == ("Apple M2", "unified")
    assert (card.shared_total_bytes, card.estimated) == (limit, estimated)


def test_a_mac_that_tells_nothing_is_unknown() -> None:
    card = one(apple.read(lambda name: None, lambda: None, "arm64"))
    assert (card.shared_total_bytes, card.estimated) == (None, False)
    assert card.problem
    assert apple.read(mac(), lambda: None, "x86_64") is None


def test_npus(tmp_path: Path) -> None:
    assert npu.read(tmp_path, "Linux", "x86_64") == ()
    for i, driver in enumerate(("intel_vpu", "amdxdna", "strange")):
        tree(
            tmp_path,
            {
                f"sys/bus/pci/drivers/{driver}/bind": "",
                f"sys/class/accel/accel{i}/device/driver": f"link sys/bus/pci/drivers/{driver}",
            },
        )
    tree(tmp_path, {"dev/fastrpc-cdsp": ""})
    assert npu.read(tmp_path, "Linux", "x86_64") == (
        Npu("Intel NPU", "intel_vpu"),
        Npu("AMD Ryzen AI NPU", "amdxdna"),
        Npu("NPU of unknown make", "strange"),
        Npu("Qualcomm Hexagon", "fastrpc"),
    )
    assert npu.read(tmp_path, "Darwin", "arm64") == (Npu("Apple Neural Engine", None),)
    assert npu.read(tmp_path, "Windows", "x86_64") == ()
