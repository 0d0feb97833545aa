"""Whole machines: what the readers make of each, what of it can hold a model, and how it reads as text and JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sigrun_hwcheck import facts
from sigrun_hwcheck.devices import Device, devices
from sigrun_hwcheck.machine import Card, Cpu, Gpus, Machine, MachineFileError, Ram
from tests.machine_snapshots import DATA, built, device_list

GIB = 1 << 30
BUILT = sorted(built())
RECORDED = sorted(p.stem for p in (DATA / "machines").glob("*.json") if p.stem != "golden")
DEVICES = json.loads((DATA / "machine_devices.json").read_text("utf-8"))


def recorded(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((DATA / "machines" / f"{name}.json").read_text("utf-8"))
    return data


@pytest.mark.parametrize("name", BUILT)
def test_machines_are_read_as_recorded(name: str, tmp_path: Path) -> None:
    assert json.loads(json.dumps(built()[name].read(tmp_path).to_json())) == recorded(name)


def test_every_recorded_machine_has_its_devices() -> None:
    assert sorted(DEVICES) == RECORDED
    assert set(BUILT) <= set(RECORDED)


@pytest.mark.parametrize("name", RECORDED)
def test_what_of_a_machine_can_hold_a_model(name: str) -> None:
    machine = Machine.from_json(recorded(name))
    assert device_list(machine) == DEVICES[name]


@pytest.mark.parametrize("name", RECORDED)
def test_no_device_has_more_than_there_is(name: str) -> None:
    """Unknown is never 0, nothing is free beyond the total, nothing borrowed beyond what is free in main memory."""
    machine = Machine.from_json(recorded(name))
    for device in devices(machine):
        assert device.total_bytes != 0
        if device.free_bytes is None:
            assert device.problem
            continue
        assert device.total_bytes is not None
        assert device.free_bytes <= device.total_bytes
        if device.shares_ram:
            assert machine.ram.free_bytes is not None
            assert device.free_bytes <= machine.ram.free_bytes


@pytest.mark.parametrize("name", RECORDED)
def test_facts_read_well(name: str) -> None:
    lines = list(facts.lines(Machine.from_json(recorded(name))))
    assert [line for line in lines if len(line) > 80 or not line.isascii() or line != line.rstrip()] == []
    assert not any("None" in line or " 0 bytes" in line for line in lines)


def by_key(name: str) -> dict[str, Device]:
    return {device.key: device for device in devices(Machine.from_json(recorded(name)))}


def test_memory_of_cards_and_slices_is_never_added_up() -> None:
    two = by_key("two_rtx_4090")
    assert [two[f"nvidia:{i}"].free_bytes for i in (0, 1)] == [24100 << 20, 900 << 20]
    assert set(by_key("a100_slices")) == {"ram", "nvidia:0.0", "nvidia:0.2"}


def test_hidden_cards_are_no_place() -> None:
    assert set(by_key("one_of_two_cards_shown")) == {"ram", "nvidia:1"}
    text = " ".join(" ".join(facts.lines(Machine.from_json(recorded("one_of_two_cards_shown")))).split())
    assert "not for this process: CUDA_VISIBLE_DEVICES leaves it out" in text


def test_unified_memory_is_main_memory_once() -> None:
    for name in ("jetson_orin_nano", "gb10"):
        found = by_key(name)
        assert found["nvidia:0"].shares_ram
        assert found["nvidia:0"].free_bytes == found["ram"].free_bytes


def test_unified_memory_of_a_container_is_the_containers() -> None:
    machine = Machine.from_json(recorded("gb10"))
    bound = replace(machine.ram, limit_bytes=8 * GIB, limit_free_bytes=6 * GIB, limit_source="cgroup v2")
    found = devices(replace(machine, ram=bound))[1]
    assert (found.total_bytes, found.free_bytes) == (8 * GIB, 6 * GIB)


def machine(card: Card, free: int | None = 10 * GIB) -> Machine:
    cpu = Cpu(None, "x86_64", None, None, None, {})
    return Machine("Linux", Ram(16 * GIB, free), cpu, (Gpus("amd", "ok", None, None, (card,)),))


def apu(own: int, own_free: int, borrowed: int | None, borrowed_free: int | None) -> Card:
    return Card(
        0, "APU", own, own_free, 0, None, None, "integrated", "shared", borrowed, borrowed_free
    )  # fmt: skip


@pytest.mark.parametrize(
    ("card", "free", "expected"),
    [
        (apu(GIB, GIB // 2, 8 * GIB, 7 * GIB), 10 * GIB, 7 * GIB + GIB // 2),
        (apu(GIB, GIB // 2, 8 * GIB, 7 * GIB), 5 * GIB, 5 * GIB),  # main memory is what is short
        (apu(96 * GIB, 95 * GIB, 8 * GIB, 7 * GIB), 5 * GIB, 95 * GIB),  # set aside, no part of main memory
        (apu(GIB, GIB, 8 * GIB, None), 5 * GIB, None),
        (apu(GIB, GIB, None, None), 5 * GIB, None),
        (apu(GIB, GIB, 8 * GIB, 7 * GIB), None, None),
    ],
)
def test_what_graphics_that_borrow_can_have(card: Card, free: int | None, expected: int | None) -> None:
    found = devices(machine(card, free))[1]
    assert found.free_bytes == expected
    assert (found.problem is None) == (expected is not None)


def test_graphics_without_a_limit_get_half_and_are_marked_as_estimated() -> None:
    card = Card(0, "UHD", None, None, None, None, kind="integrated", memory="shared", estimated=True)
    found = devices(machine(card))[1]
    assert (found.total_bytes, found.free_bytes, found.estimated) == (8 * GIB, 8 * GIB, True)
    assert devices(machine(card, 3 * GIB))[1].free_bytes == 3 * GIB


@pytest.mark.parametrize(
    ("place", "value", "word"),
    [
        (("gpus", 0, "cards", 0, "kind"), "great", "kind"),
        (("gpus", 0, "cards", 0, "estimated"), 1, "true or false"),
        (("gpus", 0, "cards", 0, "slice"), -1, "0 or more"),
        (("gpus", 0, "cards", 0, "compute_capability"), [8, 6, 1], "2 entries"),
        (("surroundings",), "cloud", "surroundings"),
        (("disks", 0, "purpose"), "swap", "purpose"),
        (("npus",), {}, "list"),
        (("onnxruntime", "providers", 0, "loads"), "yes", "true or false"),
        (("onnxruntime", "serial"), "1234", "no field 'serial'"),
        (("cpu", "quota_cpus"), float("inf"), "above 0"),
        (("cpu", "features", "avx2"), 1, "true or false"),
    ],
)
def test_wrong_values_are_refused(place: tuple[Any, ...], value: object, word: str) -> None:
    data = recorded("desktop_rtx_3060")
    at: Any = data
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    with pytest.raises(MachineFileError, match=word):
        Machine.from_json(data)


def test_a_machine_of_an_older_format_is_named() -> None:
    with pytest.raises(MachineFileError, match="format 2"):
        Machine.from_json(recorded("laptop_8gb") | {"format": 1})


def test_a_cut_up_card_is_not_said_to_be_unknown() -> None:
    text = " ".join(" ".join(facts.lines(Machine.from_json(recorded("a100_slices")))).split())
    assert "card 0: NVIDIA A100-SXM4-40GB, cut into slices (MIG), compute 8.0" in text
    assert "unknown" not in text
