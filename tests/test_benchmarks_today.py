"""The comparison with other runtimes: turns, figures, tables, one tower in a process of its own. Needs no other one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from PIL import Image

from benchmarks.children import Run, run
from benchmarks.today import files as files_module
from benchmarks.today import given, rounds
from benchmarks.today.__main__ import markdown, place
from benchmarks.today.catalogue import LEFT_OUT, ONNX, PEERS, TORCH, Peer, disk_bytes, tower_path
from benchmarks.today.draw import draw
from benchmarks.today.environments import ROOT, MissingError
from benchmarks.today.figures import Disk, Row, rows
from benchmarks.today.files import STEPS, Files
from benchmarks.today.rounds import Placed, Plan, Results, Seen, measure
from benchmarks.today.tables import plot, tower_table
from sigrun import Siglip
from sigrun.pixels import to_pixels
from sigrun_exporters.checkpoint import open_checkpoint
from tests.checkpoints import EMOJI


def seen(
    *seconds: float, batch: float | None = None, vectors: Sequence[Sequence[float]] = ((1, 0), (0, 1))
) -> Seen:
    return Seen(
        seconds, batch, 0.5, 2.0 + seconds[0], round(seconds[0] * 2**20), np.array(vectors, np.float32)
    )


def plan(tmp_path: Path, **settings: int) -> Plan:
    return Plan(
        tmp_path / "inputs.npz", tmp_path, settings.get("rounds", 1), 2, settings.get("batch", 8), ("image",)
    )


def test_a_row_is_the_median_of_the_rounds_and_its_ratio_that_of_the_same_round() -> None:
    results = Results(
        {
            ("ours", "image"): [seen(1, 2, 9, batch=4), seen(5, 6, 7), seen(3, 4, 5, batch=2)],
            (ONNX, "image"): [seen(4, 4), seen(3, 3), seen(8, 8)],
            ("ours", "text"): [seen(50, 50)],
        }
    )
    truth = np.array([[1, 0], [0.6, 0.8]], np.float32)
    found = rows(results, "image", truth, {ONNX: Disk(5), "absent": Disk(1), "ours": Disk(7, 2)}, 8)
    assert [row.name for row in found] == [ONNX, "ours"]
    ours = found[1]
    assert (ours.median_s, ours.least_s) == (4, 1)  # of the medians 2, 6, 4; of all seconds
    assert ours.to_onnx == 0.5  # of 2/4, 6/3, 4/8; not 4/4 of the medians
    assert ours.to_torch is None
    assert ours.batch_rate == 8 / 3
    assert (ours.start_s, ours.peak_bytes) == (5.0, 5 * 2**20)
    assert (ours.mean_cosine, ours.worst_cosine) == (pytest.approx(0.9), pytest.approx(0.8))
    assert (ours.disk_bytes, ours.cache_bytes) == (7, 2)
    assert found[0].to_onnx == 1 and found[0].batch_rate is None


def a_row(name: str, median: float, to_onnx: float | None = None, batch: float | None = 3.0) -> Row:
    return Row(name, median, median / 2, to_onnx, None, batch, 3.25, 0.5, 2**29, 0.99, 0.98, 2**30, 0)


def test_tables_have_a_cell_for_each_head() -> None:
    listed = [a_row("a", 0.5, 0.25), a_row("b", 2.0, batch=None)]
    lines = tower_table("image", listed, 8).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2] == (
        "| a | 0.500 / 0.250 | 0.25 | – | 3.00 | 3.2 s | 0.50 s | 512 MiB | 0.99000 / 0.98000 | 1,024 MiB |"
    )
    assert "| – | – | – | 3.2 s" in lines[3]
    assert "8 at once" in lines[0]


def test_the_section_says_how_it_was_measured_and_who_is_not_in_it(tmp_path: Path) -> None:
    text = markdown({"text": [a_row("a", 1.0)]}, {"x": "cannot be had", **LEFT_OUT}, plan(tmp_path, rounds=3))
    assert "### Text tower" in text and "3 rounds" in text and "2 threads" in text
    assert "* x: cannot be had." in text and "fastembed" in text
    assert "{" not in text


def test_the_drawing_is_svg_with_the_shortest_on_top() -> None:
    root = ElementTree.fromstring(plot([a_row("slow <&>", 4.0), a_row("Sigrun", 1.0, 0.25)], "2 threads"))
    space = {"s": "http://www.w3.org/2000/svg"}
    names = [group.findtext("s:text", namespaces=space) for group in root.findall("s:g", space)]
    assert names == ["Sigrun", "slow <&>"]
    widths = [float(r.attrib["width"]) for r in root.findall("s:g/s:rect", space)]
    assert widths[1] == pytest.approx(4 * widths[0], rel=1e-3)
    assert "1.00 s, 0.25 × fp32 ONNX" in "".join(root.itertext())


def test_peers_take_turns_and_a_broken_one_has_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    turns: list[tuple[str, int]] = []

    def child(placed: Placed, tower: str, plan: Plan, batch: int) -> Seen:
        turns.append((placed.peer.name, batch))
        if placed.peer.name == "broken":
            raise SystemExit("python -m benchmarks.today.child: exit 1")
        return seen(1.0)

    monkeypatch.setattr(rounds, "_child", child)
    peers = [Peer("a", "sigrun", cache="filled"), Peer("broken", "onnxruntime"), Peer("b", "onnxruntime")]
    results = measure([Placed(peer, tmp_path) for peer in peers], plan(tmp_path, rounds=3))
    assert turns[0] == ("a", 0)  # fills its cache before anything is timed
    first, second, third = turns[1:4], turns[4:6], turns[6:]
    assert first == [("a", 8), ("broken", 8), ("b", 8)]
    assert second == [("b", 0), ("a", 0)]
    assert third == [("a", 8), ("b", 8)]
    assert results.failed == {"broken": "failed (exit 1)"}
    assert {name: len(each) for (name, _), each in results.seen.items()} == {"a": 3, "b": 3}


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Steps that were run, by a stand-in that writes one file each."""
    steps: list[str] = []

    def convert(command: Sequence[str], environment: object = None) -> Run:
        step, folder = command[3], Path(command[5])
        steps.append(step)
        if step == "nbits32":
            sys.exit("python: exit 1")
        (folder / "image.onnx").write_bytes(b"12345")
        return Run(0.0, 0.0, 0, "")

    monkeypatch.setattr(files_module, "run", convert)
    monkeypatch.setattr(files_module, "versions", lambda python: {"tool": "1"})
    return steps


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in EMOJI.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_files_are_made_once_while_their_source_is_the_same(
    converted: list[str], checkpoint: Path, tmp_path: Path
) -> None:
    made = Files(checkpoint, tmp_path / "work").made("dynamic")
    assert converted == ["onnx", "dynamic"]
    assert disk_bytes(Peer("x", "onnxruntime", files="dynamic"), made) == 5
    again = Files(checkpoint, tmp_path / "work")
    assert again.made("dynamic") == made and len(converted) == 2
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    assert again.made("dynamic") == made
    assert converted == ["onnx", "dynamic"] * 2


def test_a_step_that_fails_leaves_nothing_and_its_peer_is_left_out(
    converted: list[str], checkpoint: Path, tmp_path: Path
) -> None:
    files = Files(checkpoint, tmp_path / "work")
    with pytest.raises(MissingError, match="exit 1"):
        files.made("nbits32")
    assert {p.name for p in files.folder.iterdir()} == {"inputs.npz", "onnx"}
    wanted = [
        Peer(TORCH, "transformers"),
        Peer("4 bit", "onnxruntime", files="nbits32"),
        Peer("oc", "open_clip"),
    ]
    placed, missing = place(wanted, files, tmp_path, {})
    assert [each.peer.name for each in placed] == [TORCH]
    assert set(missing) == {"4 bit", "oc"}  # the second knows this architecture by no name


def test_every_peer_has_files_that_a_step_makes() -> None:
    assert len({peer.name for peer in PEERS}) == len(PEERS)
    assert {ONNX, TORCH} <= {peer.name for peer in PEERS}
    for peer in PEERS:
        if peer.runtime in ("onnxruntime", "openvino", "open_clip"):
            assert peer.files in STEPS
    assert tower_path(Peer("x", "openvino"), Path("f"), "text") == Path("f/text.xml")


def test_everyone_gets_the_same_pixels(tmp_path: Path) -> None:
    drawn = draw(EMOJI)
    given.write(drawn, tmp_path / "inputs.npz")
    back = given.read(tmp_path / "inputs.npz")
    assert back.texts == drawn.texts and np.array_equal(back.fitted_ids, drawn.fitted_ids)
    preprocessing = open_checkpoint(str(EMOJI)).preprocessing
    ours = [to_pixels(Image.fromarray(picture), preprocessing) for picture in back.pictures]
    assert np.array_equal(back.items("image"), np.stack(ours))
    assert len(back.calibration("image")) == len(back.calibration("text")) == given.FITTED
    assert not set(map(bytes, back.pictures)) & set(map(bytes, back.fitted_pictures))


@pytest.fixture
def child(tmp_path: Path) -> Callable[..., tuple[dict[str, object], np.ndarray]]:
    """Runs a tower in a process of its own."""
    given.write(draw(EMOJI), tmp_path / "inputs.npz")

    def start(runtime: str, path: Path, tower: str, option: str = "") -> tuple[dict[str, object], np.ndarray]:
        vectors = tmp_path / "vectors.npy"
        command = [sys.executable, "-m", "benchmarks.today.child", runtime, str(path), tower]
        command += [str(tmp_path / "inputs.npz"), str(vectors), "--option", option, "--batch", "3"]
        done = run(command, {"PYTHONPATH": str(ROOT), "SIGRUN_CACHE": "off"})
        found = json.loads(done.output)
        assert done.started < found["first_at"] < done.started + done.seconds
        return found, np.load(vectors)

    return start


def test_a_child_embeds_one_item_at_a_time(
    child: Callable[..., tuple[dict[str, object], np.ndarray]], emoji_q4: Path
) -> None:
    drawn = draw(EMOJI)
    with Siglip.load(emoji_q4, compute="exact") as model:
        expected = {
            "image": np.concatenate([model.embed_images([p]).vectors for p in drawn.pictures]),
            "text": np.concatenate([model.embed_texts([t]).vectors for t in drawn.texts]),
        }
    for tower, vectors in expected.items():
        found, rows_of_child = child("sigrun", emoji_q4, tower, "exact")
        assert np.abs(rows_of_child - vectors).max() < 1e-5
        assert len(found["seconds"]) == len(vectors) - 1  # type: ignore[arg-type]
        assert set(found) == {"load_s", "first_at", "seconds", "batch_s", "peak_bytes"}


def test_a_child_hands_pixels_to_onnx_runtime(
    child: Callable[..., tuple[dict[str, object], np.ndarray]], tmp_path: Path
) -> None:
    shape = ["n", 3, "side", "side"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("ReduceMean", ["pixel_values", "axes"], ["image_embeds"], keepdims=0)],
        "means",
        [onnx.helper.make_tensor_value_info("pixel_values", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("image_embeds", onnx.TensorProto.FLOAT, ["n", 3])],
        [onnx.helper.make_tensor("axes", onnx.TensorProto.INT64, [2], [2, 3])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "image.onnx")
    _, found = child("onnxruntime", tmp_path / "image.onnx", "image")
    assert np.abs(found - draw(EMOJI).items("image").mean(axis=(2, 3))).max() < 1e-5
