"""The streaming float32 reference: the checkpoint's own function, whatever the groups, a layer in memory at a time."""

from __future__ import annotations

import dataclasses
import weakref
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sigrun import Siglip
from sigrun.errors import CheckpointError
from sigrun.tokens import Tokenizer
from sigrun_exporters import reference as module
from sigrun_exporters.checkpoint import Checkpoint, open_checkpoint
from sigrun_exporters.export import export
from sigrun_exporters.graph.segments import segments
from sigrun_exporters.reference import Reference
from sigrun_recipes import load, plan
from tests import checkpoints
from tests.conftest import UNVERIFIED
from tests.plain_siglip import PlainSiglip

TEXTS = [f"a red apple, {number} of them" for number in range(35)]  # three micro-batches
PICTURES = 40


@pytest.fixture(scope="module", params=["tiny", "emoji"])
def checkpoint(request: pytest.FixtureRequest, tiny: Path) -> Checkpoint:
    return open_checkpoint(str(tiny if request.param == "tiny" else checkpoints.EMOJI))


@pytest.fixture
def tiny_checkpoint(tiny: Path) -> Checkpoint:
    return open_checkpoint(str(tiny))


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Micro-batches of a few items, each a group of its own."""
    monkeypatch.setattr(module, "MICRO_BATCH_TOKENS", 130)
    monkeypatch.setattr(module, "GROUP_BYTES", 1)


def pictures(checkpoint: Checkpoint, count: int = PICTURES) -> NDArray[np.float32]:
    assert checkpoint.architecture.image is not None
    size = checkpoint.architecture.image.image_size
    return np.random.default_rng(3).uniform(-1, 1, (count, 3, size, size)).astype(np.float32)


def ids(checkpoint: Checkpoint) -> NDArray[np.int64]:
    return Tokenizer(checkpoint.tokenizer).encode(TEXTS).ids


def test_it_is_the_f32_artifact(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """What the runtime makes of the f32 variant comes out of the segments too."""
    reference = Reference(checkpoint)
    with Siglip.load(export(checkpoint, load("f32"), tmp_path, UNVERIFIED).path) as model:
        images = model._session("image").embed(pictures(checkpoint))
        texts = model.embed_texts(TEXTS).vectors
    assert np.abs(reference.images(pictures(checkpoint)) - images).max() < 1e-6
    assert np.abs(reference.texts(ids(checkpoint)) - texts).max() < 1e-6


def test_it_is_the_function_written_down_in_numpy(checkpoint: Checkpoint) -> None:
    plain = PlainSiglip(checkpoint.architecture, checkpoint.read)
    reference = Reference(checkpoint)
    images = [plain.image(picture) for picture in pictures(checkpoint, 3)]
    texts = [plain.text(row) for row in ids(checkpoint)[:3]]
    assert np.abs(reference.images(pictures(checkpoint, 3)) - images).max() < 1e-6
    assert np.abs(reference.texts(ids(checkpoint)[:3]) - texts).max() < 1e-6


def test_groups_do_not_change_a_byte(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it when somebody watches."""
    monkeypatch.setattr(module, "MICRO_BATCH_TOKENS", 130)
    whole = Reference(checkpoint)
    assert whole.group("image") > PICTURES
    images, texts = whole.images(pictures(checkpoint)), whole.texts(ids(checkpoint))
    monkeypatch.setattr(module, "GROUP_BYTES", 1)
    parts = Reference(checkpoint)
    assert parts.group("image") < PICTURES / 2
    assert parts.group("text") == 2
    seen: list[str] = []
    again = parts.images(pictures(checkpoint), observe=lambda name, rows: seen.append(name))
    assert seen
    assert again.tobytes() == images.tobytes()
    assert parts.texts(ids(checkpoint)).tobytes() == texts.tobytes()


def test_a_group_holds_no_more_hidden_states_than_it_may(checkpoint: Checkpoint) -> None:
    reference = Reference(checkpoint)
    for name in ("image", "text"):
        tower = checkpoint.architecture.tower(name)
        assert tower is not None
        micro_batch = max(1, module.MICRO_BATCH_TOKENS // tower.tokens)
        assert reference.group(name) % micro_batch == 0
        assert reference.group(name) * tower.tokens * tower.width * 4 <= module.GROUP_BYTES


def test_one_layer_is_in_memory_at_a_time(tiny_checkpoint: Checkpoint, small_groups: None) -> None:
    """Weights are read anew for each group, and gone before the next segment's are read."""
    alive: dict[int, tuple[str, int]] = {}
    most, reads = 0, 0

    def read(name: str) -> NDArray[np.float32]:
        nonlocal most, reads
        array = tiny_checkpoint.read(name)
        key = reads = reads + 1
        alive[key] = (name, array.nbytes)
        weakref.finalize(array, alive.pop, key)
        segment = {n.split(".blk.")[1].split(".")[0] if ".blk." in n else "ends" for n, _ in alive.values()}
        assert len(segment) == 1, (
            f"{name} was read while {sorted(n for n, _ in alive.values())} were in memory"
        )
        most = max(most, sum(nbytes for _, nbytes in alive.values()))
        return array

    watched = dataclasses.replace(tiny_checkpoint, read=read)
    reference = Reference(watched)
    groups = -(-PICTURES // reference.group("image"))
    assert groups == 3
    reference.images(pictures(watched))
    tensors = list(tiny_checkpoint.architecture.tensors())
    assert reads == groups * sum(t.tower == "image" for t in tensors)
    assert most <= 4 * max(
        sum(t.size for t in tensors if t.tower == "image" and t.layer == layer) for layer in (None, 0, 1)
    )
    assert not alive


def test_pictures_are_asked_for_once_and_in_turn(tiny_checkpoint: Checkpoint, small_groups: None) -> None:
    class Lazy(list[NDArray[np.float32]]):
        asked: list[slice] = []  # noqa: RUF012 (one instance)

        def __getitem__(self, at: slice) -> list[NDArray[np.float32]]:  # type: ignore[override]
            self.asked.append(at)
            return super().__getitem__(at)

    lazy = Lazy(pictures(tiny_checkpoint))
    Reference(tiny_checkpoint).images(lazy)
    places = [i for at in lazy.asked for i in range(*at.indices(PICTURES))]
    assert places == list(range(PICTURES))


def test_observed_rows_are_what_the_matrices_multiply(checkpoint: Checkpoint) -> None:
    """Every linear layer is shown, with all its rows."""
    seen: dict[str, list[NDArray[np.float32]]] = {}

    def observe(name: str, rows: NDArray[np.float32]) -> None:
        seen.setdefault(name, []).append(rows)

    plain = PlainSiglip(checkpoint.architecture, checkpoint.read)
    for picture in pictures(checkpoint, 2):
        plain.image(picture)
    for row in ids(checkpoint)[:2]:
        plain.text(row)
    reference = Reference(checkpoint)
    reference.images(pictures(checkpoint, 2), observe=observe)
    reference.texts(ids(checkpoint)[:2], observe=observe)
    wanted = {t.name for t in checkpoint.architecture.tensors() if t.kind in ("linear", "patch")}
    assert set(seen) == set(plain.rows) == wanted
    for name, parts in seen.items():
        expected = np.concatenate(plain.rows[name])
        if name == "v.head.attn_q.weight":  # the probe, which all pictures share
            expected = expected[:1]
        found = np.concatenate(parts)
        assert found.shape == expected.shape, name
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max(), name


def test_progress_counts_each_item_once(tiny_checkpoint: Checkpoint, small_groups: None) -> None:
    done: list[float] = []
    Reference(tiny_checkpoint).images(pictures(tiny_checkpoint), progress=done.append)
    assert len(done) > PICTURES / 14 * 4
    assert sum(done) == pytest.approx(PICTURES)
    assert min(done) > 0


def test_nothing_gives_nothing(tiny_checkpoint: Checkpoint) -> None:
    reference = Reference(tiny_checkpoint)
    assert reference.images([]).shape == (0, 96)
    assert reference.texts(np.empty((0, 64), np.int64)).shape == (0, 96)


def test_weights_that_overflow_are_named(tiny_checkpoint: Checkpoint) -> None:
    broken = dataclasses.replace(
        tiny_checkpoint, read=lambda name: np.full_like(tiny_checkpoint.read(name), 1e38)
    )
    with pytest.raises(CheckpointError, match=r"tiny: the image tower gives values that are no numbers"):
        Reference(broken).images(pictures(broken, 1))


def test_segments_run_on_f32_only(tiny_checkpoint: Checkpoint) -> None:
    planned = plan(load("f16"), tiny_checkpoint.architecture)
    with pytest.raises(ValueError, match="f16"):
        segments(planned, "image")
