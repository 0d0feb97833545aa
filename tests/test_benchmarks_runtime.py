"""What the benchmarks say of our own runtime: profiles, loads, batches, a thousand pictures."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import many_pictures, profile, true_size
from benchmarks.children import Run
from benchmarks.profile import Node, nodes_of


def event(name: str, operator: str, microseconds: int) -> dict[str, Any]:
    return {
        "cat": "Node",
        "name": f"{name}_kernel_time",
        "dur": microseconds,
        "args": {"op_name": operator},
    }


EVENTS = [
    {"cat": "Session", "name": "session_initialization", "dur": 10**9},
    *(
        found
        for scale in (100, 1, 2, 3)  # the first run is slow
        for found in (
            event("v.blk.0.ffn_up", "DynamicQuantizeMatMul", 40_000 * scale),
            event("v.blk.0.ffn_down", "MatMul", 20_000 * scale),
            event("MatMul_0", "MatMul", 20_000 * scale),
            {"cat": "Node", "name": "MatMul_0_fence_before", "dur": 5, "args": {"op_name": "MatMul"}},
            event("Odd_0", "Odd", 20_000 * scale),
        )
    ),
]


def test_a_profile_counts_what_ran_after_the_first_run() -> None:
    nodes = nodes_of(EVENTS, runs=4, first=1)
    assert nodes[0] == Node("v.blk.0.ffn_up", "DynamicQuantizeMatMul", (0.04, 0.08, 0.12))
    assert [node.kind for node in nodes] == ["linear layers", "linear layers", "attention", "the rest"]
    with pytest.raises(ValueError, match="ran 4 times in 3 runs"):
        nodes_of(EVENTS, runs=3, first=1)


def test_a_profile_is_shared_out_by_kind_and_by_operator() -> None:
    text = profile.markdown(nodes_of(EVENTS, runs=4, first=1), 0.25, "image tower")
    assert "0.250 s an item, of which operators 0.200 s" in text
    assert "| linear layers | 2 | 0.1200 | 60.0% |" in text
    assert "| MatMul | 2 | 0.0800 | 40.0% |" in text
    assert text.index("linear layers") < text.index("attention")


@pytest.mark.parametrize("tower", ["image", "text"])
def test_every_operator_of_a_tower_has_a_kind(emoji_q4: Path, tower: Any) -> None:
    nodes, seconds = profile.profile(emoji_q4, tower, "int8", 1, 2)
    kinds = {node.kind: set[str]() for node in nodes}
    for node in nodes:
        kinds[node.kind].add(node.operator)
    assert {"linear layers", "attention", "GELU", "LayerNorm", "additions"} <= set(kinds)
    assert kinds.get("the rest", set()) <= {"LpNormalization"}
    assert sum(min(node.seconds) for node in nodes) > 0 and seconds > 0


def test_photographs_are_what_their_names_promise(tmp_path: Path, emoji_q4: Path) -> None:
    nbytes = many_pictures.make_photos(tmp_path / "photos", 2)
    files = sorted((tmp_path / "photos").iterdir())
    assert nbytes == sum(file.stat().st_size for file in files)
    with Image.open(files[0]) as first, Image.open(files[1]) as second:
        assert first.format == "JPEG" and first.size == many_pictures.SIZE
        pixels = np.asarray(first, np.float32)
        assert np.abs(pixels - np.asarray(second, np.float32)).mean() > 10  # two different ones
    assert pixels.std() > 20 and np.abs(np.diff(pixels, axis=1)).mean() > 1  # contrast, and grain
    for way in many_pictures.WAYS:
        assert many_pictures.run(way, emoji_q4, tmp_path / "photos", 3, "exact") > 0


def test_the_table_of_pictures() -> None:
    found = {way: {"seconds": 20.0, "peak_bytes": 2**28} for way in many_pictures.WAYS}
    lines = many_pictures.markdown(found, 1000, 500_000, "int8").splitlines()
    assert lines[0].startswith("1,000 JPEG files") and "500 kB" in lines[0]
    assert len([line for line in lines if line.endswith("| 20.0 | 50.0 | 256 MiB |")]) == len(
        many_pictures.WAYS
    )


def test_tables_of_the_published_size() -> None:
    seen = {
        "load_s": 0.5,
        "median_s": 0.25,
        "from_start_s": 1.5,
        "peak_bytes": 2**29,
        "threads": 2,
        "batch_item_s": [0.25, 0.2, 0.3, 0.4],
    }
    towers: dict[Any, Any] = {(t, form): dict(seen) for form in true_size.FORMS for t in ("image", "text")}
    for tower in ("image", "text"):
        towers[tower, "int8, again"]["batch_item_s"] = []
    predicted: dict[Any, Any] = dict.fromkeys(towers, (2**29, 2**30))
    predicted["text", "exact"] = None
    artifact: Any = SimpleNamespace(
        manifest=SimpleNamespace(variant="q4_k_m", bits_per_weight={"image": 5.0, "text": 5.5}),
        nbytes=1000,
        towers=("image", "text"),
        tower_nbytes=lambda name: 2**20,
    )
    imports = {"pass": 0.01, "import sigrun": 0.03}
    commands = true_size.Commands(Run(0.0, 2.0, 2**30, ""), Run(0.0, 0.5, 2**26, ""), imports)
    lines = true_size.markdown(artifact, towers, predicted, commands).splitlines()
    assert lines[0].startswith("q4_k_m: 1,000 bytes; image tower 1.0 MiB, 5.00 bits per weight")
    assert "| image, int8, again | 0.50 s | 0.250 s | 1.50 s | 512 MiB | 512 / 1,024 MiB |" in lines
    assert "| text, exact | 0.50 s | 0.250 s | 1.50 s | 512 MiB | – |" in lines
    assert lines.count("| image, int8 | 0.250 | 0.200 | 0.300 | 0.400 |") == 1
    assert not [line for line in lines if "again" in line and "0.300" in line]
    assert "| `import sigrun`, beyond that | 20 ms | – |" in lines


def test_the_tower_of_a_file_is_measured_in_batches(emoji_q4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import children

    monkeypatch.setenv("SIGRUN_CACHE", "off")
    done = children.python(
        "-m", "benchmarks.tower", str(emoji_q4), "text", "--repeat", "1", "--batches", "1,3"
    )
    found = json.loads(done.output)
    assert len(found["batch_item_s"]) == 2 and min(found["batch_item_s"]) > 0
    assert found["peak_bytes"] <= done.peak_bytes * 1.01
