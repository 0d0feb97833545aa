"""NVIDIA cards through the real binding, with a fake library below it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pynvml
import pytest

from sigrun_hwcheck.machine import Card, Gpus
from sigrun_hwcheck.probe import nvidia
from tests.machine_roots import pci_card, tree
from tests.nvml_fake import GIB, Library, Part, installed

NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
NO_PERMISSION = pynvml.NVML_ERROR_NO_PERMISSION
LOST = pynvml.NVML_ERROR_GPU_IS_LOST


def ask(library: Library | None, root: Path, environ: dict[str, str] | None = None, **more: Any) -> Gpus:
    with installed(library):
        return nvidia.read(root=root, environ=environ, **more)


def both_memories(code: int) -> dict[str, int]:
    return {"nvmlDeviceGetMemoryInfo": code, "nvmlDeviceGetMemoryInfo_v2": code}


def test_cards_with_what_is_free_on_each(tmp_path: Path) -> None:
    library = Library([Part(), Part("NVIDIA RTX A6000", 48 * GIB, 20 * GIB, GIB, (8, 6))])
    found = ask(library, tmp_path)
    assert (found.state, found.detail, found.driver) == ("ok", None, "570.86.10")
    first, second = found.cards
    assert first == Card(0, "NVIDIA GeForce RTX 3060", 12 * GIB, 11 * GIB, GIB, (8, 6), slot="0000:01:00.0")
    assert (second.total_bytes, second.free_bytes, second.used_bytes) == (48 * GIB, 20 * GIB, 27 * GIB)
    assert library.shut == 1


def test_nothing_that_identifies_a_card_is_kept(tmp_path: Path) -> None:
    found = ask(Library([Part(uuid="GPU-secret", slices=[Part(uuid="MIG-secret")])]), tmp_path)
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    ("code", "state", "word"),
    [
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "no_driver", "not running"),
        (NO_PERMISSION, "no_permission", "no permission"),
        (NOT_SUPPORTED, "not_supported", "does not support"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "version_mismatch", "different versions"),
        (pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, "old_driver", "too old"),
        (pynvml.NVML_ERROR_UNKNOWN, "error", "999"),
        (LOST, "error", "fallen off the bus"),
    ],
)
@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlDeviceGetCount_v2"])
def test_each_reason_for_no_answer_is_told_apart(
    function: str, code: int, state: str, word: str, tmp_path: Path
) -> None:
    found = ask(Library([Part()], {function: code}), tmp_path)
    assert (found.state, found.cards) == (state, ())
    assert found.detail is not None
    assert word in found.detail


def test_no_library_no_card_no_package(tmp_path: Path) -> None:
    def missing() -> Any:
        raise ImportError

    assert ask(None, tmp_path).state == "no_library"
    assert ask(Library([]), tmp_path).state == "no_devices"
    assert nvidia.read(missing, tmp_path).state == "no_binding"


def test_a_driver_too_old_for_the_second_memory_interface(tmp_path: Path) -> None:
    card = ask(Library([Part()], missing={"nvmlDeviceGetMemoryInfo_v2"}), tmp_path).cards[0]
    assert (card.free_bytes, card.problem) == (11 * GIB, None)


@pytest.mark.parametrize(
    "missing", ["nvmlDeviceGetMigMode", "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetUUID", "nvmlDeviceGetName"]
)
def test_a_driver_that_lacks_a_function_still_tells_the_memory(missing: str, tmp_path: Path) -> None:
    assert ask(Library([Part()], missing={missing}), tmp_path).cards[0].free_bytes == 11 * GIB


@pytest.mark.parametrize("code", [NOT_SUPPORTED, NO_PERMISSION, LOST])
def test_a_card_that_tells_no_memory_is_unknown_neither_empty_nor_unified(code: int, tmp_path: Path) -> None:
    card = ask(Library([Part(fails=both_memories(code))]), tmp_path).cards[0]
    assert (card.total_bytes, card.free_bytes, card.used_bytes, card.memory) == (None, None, None, "own")
    assert card.problem


def test_a_card_of_zero_bytes_is_unknown(tmp_path: Path) -> None:
    card = ask(Library([Part(total=0, free=0)]), tmp_path).cards[0]
    assert (card.total_bytes, card.free_bytes) == (None, None)
    assert card.problem


def test_a_lost_card_does_not_hide_the_other(tmp_path: Path) -> None:
    lost, well = ask(Library([Part(fails={"handle": LOST}), Part()]), tmp_path).cards
    assert lost.name is None
    assert lost.problem == "the card has fallen off the bus: restart the machine"
    assert well.free_bytes == 11 * GIB


@pytest.mark.parametrize("name", ["Orin (nvgpu)", "NVIDIA GB10", "NVIDIA Jetson AGX Thor", "NVIDIA Tegra X2"])
@pytest.mark.parametrize("how", ["not supported", "zero", "success"])
def test_integrated_cards_work_in_main_memory_whatever_the_driver_answers(
    name: str, how: str, tmp_path: Path
) -> None:
    total = 0 if how == "zero" else 120 * GIB
    part = Part(name, total, total // 4, fails=both_memories(NOT_SUPPORTED) if how == "not supported" else {})
    card = ask(Library([part]), tmp_path).cards[0]
    assert (card.kind, card.memory, card.problem) == ("integrated", "unified", None)
    assert (card.total_bytes, card.free_bytes) == (None, None)


def test_an_integrated_card_that_fails_is_unknown_not_unified(tmp_path: Path) -> None:
    card = ask(Library([Part("Orin (nvgpu)", fails=both_memories(LOST))]), tmp_path).cards[0]
    assert card.memory == "own"
    assert card.problem


@pytest.mark.parametrize("name", ["NVIDIA GH200 480GB", "NVIDIA GB200", "NVIDIA GB100"])
def test_cards_beside_grace_have_memory_of_their_own(name: str, tmp_path: Path) -> None:
    assert ask(Library([Part(name, 95 * GIB, 90 * GIB)]), tmp_path).cards[0].memory == "own"


def test_a_card_plugged_into_a_jetson_board_keeps_its_own_memory(tmp_path: Path) -> None:
    tree(tmp_path, {"proc/device-tree/model": "NVIDIA Jetson AGX Orin\0"})
    inner, plugged = Part("Unnamed", fails=both_memories(NOT_SUPPORTED)), Part("NVIDIA RTX A6000")
    found = ask(Library([inner, plugged]), tmp_path).cards
    assert [card.memory for card in found] == ["unified", "own"]


def test_a_jetson_whose_jetpack_has_no_nvml(tmp_path: Path) -> None:
    tree(tmp_path, {"proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0"})
    found = ask(None, tmp_path)
    assert (found.state, found.cards[0].name) == ("ok", "NVIDIA Jetson Nano Developer Kit")
    assert found.cards[0].memory == "unified"


def slices(**fails: int) -> Part:
    part = Part("NVIDIA A100-SXM4-40GB", 40 * GIB, 39 * GIB, capability=(8, 0), fails=dict(fails))
    small = [Part(f"NVIDIA A100-SXM4-40GB MIG {n}g.{5 * n}gb", 5 * n * GIB, 4 * n * GIB) for n in (1, 2)]
    part.slices = [small[0], None, small[1]]
    return part


def test_slices_have_the_memory_of_their_own_handle(tmp_path: Path) -> None:
    part = slices(**both_memories(NO_PERMISSION))
    card, one, two = ask(Library([part]), tmp_path).cards
    assert (card.kind, card.free_bytes) == ("divided", None)
    assert [(s.kind, s.index, s.slice, s.free_bytes) for s in (one, two)] == [
        ("slice", 0, 0, 4 * GIB),
        ("slice", 0, 2, 8 * GIB),
    ]
    assert one.compute_capability == (8, 0)
    assert one.name == "NVIDIA A100-SXM4-40GB MIG 1g.5gb"


def test_a_slice_without_permission_is_unknown(tmp_path: Path) -> None:
    part = slices()
    assert part.slices[0] is not None
    part.slices[0].fails = both_memories(NO_PERMISSION)
    one = ask(Library([part]), tmp_path).cards[1]
    assert one.free_bytes is None
    assert "no permission" in str(one.problem)


def test_a_cut_up_card_with_no_slice_says_so(tmp_path: Path) -> None:
    part = slices()
    part.slices = [None]
    (card,) = ask(Library([part]), tmp_path).cards
    assert card.kind == "divided"
    assert "none can be used" in str(card.problem)


def test_one_slice_passed_into_a_container_is_found_by_its_name(tmp_path: Path) -> None:
    part = slices(nvmlDeviceGetMaxMigDeviceCount=NO_PERMISSION)
    given = Library([part])
    assert part.slices[2] is not None
    found = ask(given, tmp_path, {"CUDA_VISIBLE_DEVICES": part.slices[2].uuid}).cards
    assert [(c.kind, c.free_bytes) for c in found] == [("divided", None), ("slice", 8 * GIB)]


UUID = "GPU-{:08x}-1111-2222-3333-444444444444"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, [True, True, True]),
        ("", [False, False, False]),
        ("-1", [False, False, False]),
        ("1", [False, True, False]),
        (" 2, 0 ", [True, False, True]),
        ("0,-1,2", [True, False, False]),  # what follows a wrong entry is not read
        ("0,7,2", [True, False, False]),
        ("01", [False, True, False]),
        ("1,1", [False, False, False]),
        ("NoDevFiles", [False, False, False]),
        (UUID.format(2), [False, False, True]),
        (UUID.format(1)[:12], [False, True, False]),
        ("GPU-0000", [False, False, False]),  # the beginning of more than one
        ("MIG-00000000-0000", [False, False, False]),
    ],
)
def test_cuda_visible_devices(value: str | None, shown: list[bool], tmp_path: Path) -> None:
    environ = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    found = ask(Library([Part(), Part(), Part()]), tmp_path, environ)
    assert [card.hidden is None for card in found.cards] == shown
    assert found.detail is None


def test_uuids_that_cannot_be_read_leave_it_open(tmp_path: Path) -> None:
    library = Library([Part()], missing={"nvmlDeviceGetUUID"})
    (card,) = ask(library, tmp_path, {"CUDA_VISIBLE_DEVICES": "GPU-1234"}).cards
    assert card.hidden is None
    assert "cannot be told" in str(card.problem)


def test_unlike_cards_are_numbered_by_cuda_in_its_own_way(tmp_path: Path) -> None:
    two = Library([Part("NVIDIA GeForce GTX 1050"), Part("NVIDIA GeForce RTX 4090")])
    found = ask(two, tmp_path, {"CUDA_VISIBLE_DEVICES": "0"})
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in str(found.detail)
    by_slot = {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert ask(two, tmp_path, by_slot).detail is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("MIG-00000000-0002-2222-3333-444444444444", [2]),
        ("MIG-00000000-0000", [0]),
        (f"MIG-{UUID.format(0)}/1/0", [0, 2]),  # older drivers name slices after their card
        ("0", [0, 2]),
        ("", []),
    ],
)
def test_cuda_visible_devices_names_slices(value: str, shown: list[int], tmp_path: Path) -> None:
    found = ask(Library([slices()]), tmp_path, {"CUDA_VISIBLE_DEVICES": value}).cards[1:]
    assert [card.slice for card in found if card.hidden is None] == shown


def test_a_card_on_the_host_is_not_taken_for_usable_in_the_container(tmp_path: Path) -> None:
    tree(tmp_path, pci_card("0000:01:00.0", 0x10DE, 0x2504))
    found = ask(None, tmp_path, surroundings="container")
    assert (found.state, found.cards) == ("not_passed_in", ())
    assert "--gpus all" in str(found.detail)


def test_a_card_without_its_driver(tmp_path: Path) -> None:
    ids = "10de  NVIDIA Corporation\n\t2504  GA106 [GeForce RTX 3060]\n"
    tree(tmp_path, pci_card("0000:01:00.0", 0x10DE, 0x2504) | {"usr/share/misc/pci.ids": ids})
    found = ask(None, tmp_path)
    assert found.state == "no_library"
    assert found.detail == "GA106 [GeForce RTX 3060]: in this machine, but NVIDIA's driver is not installed"


def test_sound_on_the_card_is_no_card(tmp_path: Path) -> None:
    tree(tmp_path, pci_card("0000:01:00.1", 0x10DE, 0x228E, kind=0x040300))
    assert ask(None, tmp_path, surroundings="container").state == "no_library"


def test_a_sleeping_card_is_not_woken(tmp_path: Path) -> None:
    tree(tmp_path, pci_card("0000:01:00.0", 0x10DE, 0x2504, power="suspended"))

    def never() -> Any:
        raise AssertionError("asked")

    found = nvidia.read(never, tmp_path)
    assert (found.state, found.cards[0].free_bytes) == ("asleep", None)
    assert "not woken" in str(found.cards[0].problem)


def test_only_the_waking_card_is_asked_where_another_sleeps(tmp_path: Path) -> None:
    tree(tmp_path, pci_card("0000:01:00.0", 0x10DE, 0x2504, power="suspended"))
    tree(tmp_path, pci_card("0000:02:00.0", 0x10DE, 0x2504))
    library = Library([Part(), Part()])
    sleeping, waking = ask(library, tmp_path).cards
    assert library.asked == [1]
    assert (sleeping.free_bytes, waking.free_bytes) == (None, 11 * GIB)
    assert waking.slot == "0000:02:00.0"


def test_wsl_where_the_loader_does_not_look(tmp_path: Path) -> None:
    tree(tmp_path, {"usr/lib/wsl/lib/libnvidia-ml.so.1": ""})
    opened = []

    def open_library(path: str) -> Any:
        opened.append(path)
        return Library([Part()]).functions()

    found = ask(None, tmp_path, surroundings="wsl2", open_library=open_library)
    assert opened == [str(tmp_path / "usr/lib/wsl/lib/libnvidia-ml.so.1")]
    assert (found.state, found.cards[0].free_bytes) == ("ok", 11 * GIB)
    assert "Task Manager" in str(found.detail)


def test_a_library_that_cannot_be_opened_is_none(tmp_path: Path) -> None:
    tree(tmp_path, {"usr/lib/wsl/lib/libnvidia-ml.so.1": ""})

    def open_library(path: str) -> Any:
        raise OSError(path)

    assert ask(None, tmp_path, open_library=open_library).state == "no_library"
