"""hwcheck doctor: what it keeps leads to the same conclusions again, names nobody, and reads well."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sigrun_hwcheck import Machine, cli, doctor
from sigrun_hwcheck.doctor import Examination, examine
from sigrun_hwcheck.probe import Sources, read_machine, runtime
from sigrun_hwcheck.probe.replaying import replayed
from sigrun_hwcheck.whatif import read_file
from tests import machine_builder
from tests.machine_roots import drm_card, pci_card, tree
from tests.machine_snapshots import built
from tests.nvml_fake import Library, Part, installed

GIB = 1 << 30
UUID = "8f3e1c2a-77aa-4b1b-9c3d-0123456789ab"
SECRETS = (
    "freya",  # the user
    "asgard",  # the machine
    UUID,
    UUID[:8],
    "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00",  # a container
    "00:1b:44:11:3a:b7",
    "10000000deadbeef",  # a board's serial number
    "SN-4711",
    "holiday",
    "secret",
)


def examined(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Examination:
    """A built machine, examined."""
    monkeypatch.setattr(
        machine_builder, "read_machine", lambda sources: examine(sources, try_providers=False)
    )
    found: Any = built()[name].read(root)
    assert isinstance(found, Examination)
    return found


@pytest.mark.parametrize("name", sorted(built()))
def test_what_was_read_leads_to_the_same_machine_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = examined(name, tmp_path / "first", monkeypatch)
    kept = json.loads(json.dumps(found.to_json()))
    (tmp_path / "second").mkdir()
    again = read_machine(replayed(kept["raw"], tmp_path / "second"))
    assert again == found.machine == Machine.from_json(kept["machine"])


@pytest.mark.parametrize("name", sorted(built()))
def test_taking_notes_changes_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = built()[name].read(tmp_path / "plain")
    assert examined(name, tmp_path / "noted", monkeypatch).machine == plain


@pytest.mark.parametrize("name", sorted(built()))
def test_the_summary_reads_well(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor.text(examined(name, tmp_path, monkeypatch))
    assert [line for line in found.splitlines() if len(line) > 80 or line != line.rstrip()] == []
    assert found.isascii() and found.endswith("\n") and "None" not in found
    assert str(tmp_path) not in found
    for title, _, _ in doctor.SUBJECTS:
        assert f"\n{title}\n" in found
    assert found.count("  -> ") >= len(doctor.SUBJECTS)


def telltale(root: Path) -> Sources:
    """A machine everything of which names somebody."""
    container = f"/docker/{SECRETS[4]}"
    user = "/user.slice/user-1000.slice/user@1000.service/app.slice/app-holiday-4711.scope"
    tree(
        root,
        {
            "proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 9000000 kB\nSecretFreya: x\n",
            "proc/cpuinfo": (
                "processor\t: 0\nmodel name\t: CPU of asgard\nflags\t: avx2\nphysical id\t: 0\ncore id\t: 0\n"
                "Serial\t: 10000000deadbeef\n\nHardware\t: SN-4711\n"
            ),
            "proc/self/status": "Name:\tfreya-app\nUid:\t1000\nCpus_allowed_list:\t0-3\n",
            "proc/self/cgroup": f"0::{user}\n",
            "proc/1/cgroup": f"0::{container}\n",
            "proc/self/mountinfo": (
                "30 1 0:1 / /home/freya/holiday rw - ext4 /dev/mapper/asgard-secret rw\n"
                "31 1 0:2 / /sys/fs/cgroup rw,nosuid - cgroup2 secret rw\n"
                r"32 1 0:3 /docker/secret /mnt/freya\040box rw - cgroup secret rw,memory" + "\n"
            ),
            "proc/sys/kernel/osrelease": "6.1.0-freya-on-asgard\n",
            "proc/device-tree/model": "Raspberry Pi of asgard\0",
            "etc/nv_tegra_release": "# R36 (release), BOARD: SN-4711, by freya\n",
            f"sys/fs/cgroup{user}/memory.max": f"{4 * GIB}\n",
            f"sys/fs/cgroup{user}/memory.current": f"{GIB}\n",
            f"sys/fs/cgroup{user}/memory.stat": "inactive_file 1048576\nsecret_freya abc\n",
            "mnt/freya box/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/cpu.max": "max 100000\n",
            "usr/share/misc/pci.ids": "10de  NVIDIA\n\t2504  GA106\nabcd  freya's secret vendor\n\t2504  holiday\n",
            "dev/mapper/asgard-secret": "",
            "dev/dri/card0": "",
        }
        | pci_card("0000:01:00.0", 0x10DE, 0x2504)
        | drm_card(
            0,
            "0000:03:00.0",
            0x1002,
            0x744C,
            "amdgpu",
            {
                "mem_info_vram_total": f"{8 * GIB}\n",
                "mem_info_vram_used": f"{GIB}\n",
                "product_name": f"Radeon of freya {SECRETS[5]}\n",
                "unique_id": "10000000deadbeef\n",
                "serial_number": "SN-4711\n",
            },
        ),
    )
    return Sources(
        root=root,
        system="Linux",
        architecture="x86_64",
        environ={
            "CUDA_VISIBLE_DEVICES": f"GPU-{UUID[:8]}",
            "KUBERNETES_SERVICE_HOST": "asgard",
            "HOME": "/home/freya",
            "USER": "freya",
        },
        disk_usage=lambda folder: (512 * GIB, 200 * GIB),
        output=root / "home" / "freya" / "holiday",
        package_version=lambda package: "1.31.1" if package == "onnxruntime" else None,
        try_provider=lambda name: runtime.Answer(
            1,
            "",
            f"freya@asgard.example: cannot open '/home/freya/my holiday/lib.so', /opt/secret/x.so of {UUID} on asgard",
        ),
        platform="linux",
    )


@pytest.fixture
def told(tmp_path: Path) -> Examination:
    """The telltale machine, examined."""
    cards = [Part(uuid=f"GPU-{UUID}"), Part(uuid="GPU-11111111-2222-3333-4444-555555555555")]
    with installed(Library(cards)):
        return examine(telltale(tmp_path), names=("freya", "asgard", "asgard.example"))


@pytest.mark.skipif(sys.platform == "win32", reason="folders of /sys have names that Windows forbids")
def test_nothing_that_names_anybody_is_kept(told: Examination, tmp_path: Path) -> None:
    everything = json.dumps(told.to_json()) + doctor.text(told)
    assert [secret for secret in SECRETS if secret.lower() in everything.lower()] == []
    assert str(tmp_path) not in everything
    # and yet what matters is there
    assert told.machine.ram.limit_bytes == 4 * GIB
    assert told.machine.ram.limit_free_bytes == 3 * GIB + (1 << 20)
    nvidia, amd = told.machine.gpus
    assert [card.hidden is None for card in nvidia.cards] == [True, False]
    assert amd.cards[0].total_bytes == 8 * GIB


@pytest.mark.skipif(sys.platform == "win32", reason="folders of /sys have names that Windows forbids")
def test_what_is_left_still_leads_to_the_same_memory_and_cards(told: Examination, tmp_path: Path) -> None:
    kept = json.loads(json.dumps(told.to_json()))
    (tmp_path / "again").mkdir()
    again = read_machine(replayed(kept["raw"], tmp_path / "again"))
    assert again.ram == told.machine.ram
    assert again.surroundings == told.machine.surroundings == "container"
    assert again.gpus == told.machine.gpus


def test_the_file_is_a_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "machine.json"
    assert cli.main(["doctor", "--quick", "-o", str(file)]) == 0
    printed = capsys.readouterr()
    assert printed.err == "" and "Memory" in printed.out
    kept = json.loads(file.read_text("utf-8"))
    assert set(kept) == {"doctor", "sigrun", "machine", "concluded", "raw"}
    assert read_file(file) == Machine.from_json(kept["machine"])
    assert cli.main(["--machine", str(file), "--json"]) in (0, 1, 3)
    assert json.loads(capsys.readouterr().out)["machine"] == kept["machine"]


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "machine.json"
    file.write_text("mine", "utf-8")
    assert cli.main(["doctor", "--quick", "-o", str(file)]) == 2
    assert "machine.json" in capsys.readouterr().err
    assert file.read_text("utf-8") == "mine"
    assert cli.main(["doctor", "--quick", "-o", str(file), "--force"]) == 0
    assert json.loads(file.read_text("utf-8"))["doctor"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["machine.json"]


def test_json_is_what_the_file_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--quick", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    again = Machine.from_json(printed["machine"])
    assert json.loads(json.dumps(again.to_json())) == printed["machine"]
    assert printed["concluded"] and printed["raw"]["values"]["system"] == printed["machine"]["system"]
