"""Decoding beside the computing: order, bounds, failures, and threads that end."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from sigrun import PictureError, ProviderError, Siglip, pipeline
from sigrun.batches import micro_batch
from sigrun.pictures import Picture, Rules
from sigrun.pipeline import Eyes, collect, decoders, embed
from sigrun.pixels import Preprocessing
from tests.picture_files import stored

PREPROCESSING = Preprocessing(8, 8, (0.0,) * 3, (1 / 255,) * 3, "nearest")


class Scales:
    """A tower that gives back the first pixel, and remembers how it was asked."""

    width = 3
    form = "exact"
    tokens = 300  # three at once

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run_many(
        self, batch: NDArray[np.float32], outputs: tuple[str, ...]
    ) -> tuple[NDArray[np.float32], ...]:
        self.batches.append(len(batch))
        vectors = batch[:, :, 0, 0]
        given = {"image_embeds": vectors, "last_hidden_state": np.repeat(vectors[:, None], self.tokens, 1)}
        return tuple(given[name] for name in outputs)


def eyes(threads: int = 2, tower: Any = None) -> Eyes:
    return Eyes(tower or Scales(), PREPROCESSING, Rules(), threads)


def coloured(number: int) -> bytes:
    """A picture file whose every pixel is the number."""
    return stored("PNG", Image.new("RGB", (4, 4), (number >> 8, number & 255, 7)))


def number(vector: NDArray[np.float32] | None) -> int | None:
    return None if vector is None else round(float(vector[0])) * 256 + round(float(vector[1]))


def decode_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("sigrun-decode")]


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    assert decode_threads() == []


def test_the_towers_tokens_say_how_many_are_computed_at_once() -> None:
    assert micro_batch(Scales.tokens, Scales.form) == 3
    assert micro_batch(10**6, "exact") == 1


def test_items_that_would_share_a_scale_run_alone() -> None:
    assert micro_batch(1, "int8") == 1


@given(
    kinds=st.lists(st.sampled_from(["file", "path", "image", "stream", "broken"]), max_size=45),
    threads=st.integers(0, 2),
)
@settings(max_examples=60, deadline=None)
def test_rows_come_in_order_whatever_they_are(kinds: list[str], threads: int) -> None:
    def one(row: int, kind: str) -> Picture:
        data = coloured(row)
        made: dict[str, Picture] = {
            "file": data,
            "path": f"nowhere/{row}",
            "image": Image.open(BytesIO(data)),
            "stream": BytesIO(data),
            "broken": data[:40],
        }
        return made[kind]

    tower = Scales()
    rows = list(embed((one(*item) for item in enumerate(kinds)), eyes(threads, tower)))
    assert [r.row for r in rows] == list(range(len(kinds)))
    for row, kind in zip(rows, kinds, strict=True):
        failed = kind in ("path", "broken")
        assert number(row.vector) == (None if failed else row.row)
        assert (row.error is not None) == failed
    assert all(n <= 3 for n in tower.batches)
    assert sum(tower.batches) == sum(k not in ("path", "broken") for k in kinds)


def test_what_is_computed_together_depends_on_the_pictures_alone() -> None:
    pictures = [coloured(1), b"x", coloured(2), coloured(3), coloured(4)]
    towers = [Scales() for _ in range(3)]
    for threads, tower in enumerate(towers):
        list(embed(pictures, eyes(threads, tower)))
    assert [tower.batches for tower in towers] == [[3, 1]] * 3


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_few_pictures_are_asked_for_ahead(threads: int) -> None:
    asked = 0

    def endless() -> Iterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield coloured(asked)

    rows = embed(endless(), eyes(threads))
    for done in range(1, 40):
        next(rows)
        assert asked <= done + 2 * 3 + 2 * threads
    rows.close()


def test_a_long_row_of_failures_is_not_held_back() -> None:
    """Failed rows behind a picture that still waits for others to be computed with."""
    asked = 0

    def pictures() -> Iterator[bytes]:
        nonlocal asked
        yield coloured(5)
        while True:
            asked += 1
            yield b"broken"

    rows = embed(pictures(), eyes())
    assert number(next(rows).vector) == 5
    assert asked < 60
    rows.close()


def test_a_failure_of_the_iterable_comes_after_the_rows_before() -> None:
    def failing() -> Iterator[bytes]:
        for row in range(7):
            yield coloured(row)
        raise ZeroDivisionError("the database is gone")

    found = []
    with pytest.raises(ZeroDivisionError, match="the database is gone"):
        for picture in embed(failing(), eyes()):
            found.append(number(picture.vector))
    assert found == list(range(7))
    with pytest.raises(ZeroDivisionError):
        collect(failing(), eyes(), space="s")


def test_an_interrupt_is_not_kept_waiting() -> None:
    def interrupted() -> Iterator[bytes]:
        yield coloured(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(embed(interrupted(), eyes()))


def test_a_failure_of_the_tower_is_raised() -> None:
    class Broken(Scales):
        def run_many(self, *arguments: Any) -> Any:
            raise ProviderError("no memory")

    with pytest.raises(ProviderError, match="no memory"):
        list(embed([coloured(i) for i in range(20)], eyes(2, Broken())))


def test_an_unforeseen_failure_of_decoding_is_raised_after_the_rows_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = pipeline.read_picture

    def failing(picture: Picture, rules: Rules) -> Any:
        if picture == coloured(4):
            raise MemoryError
        return read(picture, rules)

    monkeypatch.setattr(pipeline, "read_picture", failing)
    found = []
    with pytest.raises(MemoryError):
        for picture in embed([coloured(i) for i in range(9)], eyes()):
            found.append(number(picture.vector))
    assert found == [0, 1, 2, 3]


def test_closing_early_ends_the_threads() -> None:
    rows = embed((coloured(i) for i in range(1000)), eyes())
    next(rows)
    assert decode_threads()
    rows.close()
    assert decode_threads() == []
    for _ in embed((coloured(i) for i in range(1000)), eyes()):
        break
    # the generator that was left is collected at once, and its threads with it


def test_the_next_are_decoded_while_some_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tower waits inside its run until a later picture was decoded: without overlap it waits for ever."""
    read = pipeline.read_picture
    later = threading.Event()

    def watched(picture: Picture, rules: Rules) -> Any:
        opened = read(picture, rules)
        if picture == coloured(3):
            later.set()
        return opened

    class Waits(Scales):
        def run_many(self, batch: Any, outputs: Any) -> Any:
            assert later.wait(30), "nothing was decoded meanwhile"
            return super().run_many(batch, outputs)

    monkeypatch.setattr(pipeline, "read_picture", watched)
    assert len(list(embed([coloured(i) for i in range(4)], eyes(1, Waits())))) == 4


def test_pictures_are_asked_for_and_streams_read_in_the_callers_thread() -> None:
    names = set()

    class Watched(BytesIO):
        def read(self, *arguments: Any) -> bytes:
            names.add(threading.current_thread().name)
            return super().read(*arguments)

    def pictures() -> Iterator[Any]:
        for i in range(9):
            names.add(threading.current_thread().name)
            yield Watched(coloured(i))

    list(embed(pictures(), eyes()))
    assert names == {threading.current_thread().name}


def test_the_same_stream_twice_is_read_in_order() -> None:
    """From where it stands to its end, so that nothing is left for the second."""
    stream = BytesIO(coloured(3))
    first, second = embed([stream, stream], eyes())
    assert number(first.vector) == 3
    assert second.error is not None
    assert "is empty" in second.error.message


def test_buffers_may_be_used_again() -> None:
    """What a video reader does: one array, filled anew for each frame."""

    def frames() -> Iterator[NDArray[np.uint8]]:
        buffer = np.empty((4, 4, 3), np.uint8)
        for i in range(20):
            buffer[:] = (0, i, 7)
            yield buffer

    assert [number(p.vector) for p in embed(frames(), eyes())] == list(range(20))


def test_frames_of_one_image_may_be_taken_in_turn() -> None:
    frames = [Image.new("RGB", (4, 4), (0, i, 7)) for i in (10, 11, 12, 13, 14, 15)]
    data = stored("PNG", frames[0], save_all=True, append_images=frames[1:])
    with Image.open(BytesIO(data)) as image:
        found = [number(p.vector) for p in embed(ImageSequence.Iterator(image), eyes())]
    assert found == [10, 11, 12, 13, 14, 15]


def test_all_that_is_known_is_collected() -> None:
    animation = stored(
        "GIF", Image.new("L", (4, 4), 9), save_all=True, append_images=[Image.new("L", (4, 4))]
    )
    counts: list[int] = []
    pictures = [coloured(1), b"", animation, coloured(2), coloured(3)]
    for source in (pictures, iter(pictures)):
        counts.clear()
        found = collect(source, eyes(), space="here", features=True, on_progress=counts.append)
        assert found.space == "here"
        assert list(found.errors) == [1]
        assert found.notes == {2: "one of 2 frames: the first was taken"}
        assert sum(counts) == 5
        assert found.vectors.shape == (5, 3)
        assert found.features is not None
        assert found.features.shape == (5, 300, 3)
        assert np.isnan(found.vectors[1]).all()
        assert np.isnan(found.features[1]).all()
        good = [0, 2, 3, 4]
        assert [number(found.vectors[row]) for row in good] == [1, 9 * 256 + 9, 2, 3]
        assert (found.features[good] == found.vectors[good][:, None]).all()
    assert collect(pictures, eyes(), space="here").features is None


def test_nothing_and_only_failures() -> None:
    nothing = collect([], eyes(), space="s", features=True)
    assert nothing.features is not None
    assert (nothing.vectors.shape, nothing.features.shape) == ((0, 3), (0, 300, 3))
    failed = collect([b"", b"x"], eyes(), space="s", features=True)
    assert failed.features is not None
    assert np.isnan(failed.vectors).all()
    assert np.isnan(failed.features).all()
    assert failed.features.shape == (2, 300, 3)


def test_a_lying_length_does_no_harm() -> None:
    class Liar(list[bytes]):
        def __len__(self) -> int:
            return 2

    found = collect(Liar([coloured(i) for i in range(30)]), eyes(), space="s")
    assert [number(v) for v in found.vectors] == list(range(30))


def test_where_no_thread_can_be_started_pictures_are_read_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    rows = list(embed([coloured(i) for i in range(9)], eyes()))
    monkeypatch.undo()
    assert [number(r.vector) for r in rows] == list(range(9))


def test_a_single_cpu_decodes_and_computes_in_turn() -> None:
    assert [decoders(n) for n in (1, 2, 3, 4, 64)] == [0, 2, 3, 4, 4]
    rows = embed([coloured(i) for i in range(9)], eyes(0))
    next(rows)
    assert decode_threads() == []
    assert len(list(rows)) == 8


# --- through the model


def test_a_model_gives_rows_lazily(emoji_q4: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(coloured(200))
    pictures = [tmp_path / "a.png", coloured(90), tmp_path / "none.png"] * 40
    with Siglip.load(emoji_q4, threads=1) as model:
        whole = model.embed_images(pictures, on_progress=None)
        rows = model.iter_images(iter(pictures))
        first = next(rows)
        assert first.vector is not None
        found = [first, *rows]
        assert [r.row for r in found] == list(range(120))
        for row in found:
            if row.row % 3 == 2:
                assert row.vector is None
                assert row.error is not None
                assert row.error.message == whole.errors[row.row].message
            else:
                assert row.vector is not None
                np.testing.assert_array_equal(row.vector, whole.vectors[row.row])
        with pytest.raises(PictureError, match=r"write \[picture\]"):
            model.iter_images(tmp_path / "a.png")  # type: ignore[arg-type]  # at once, not at the first row
        assert pickle.loads(pickle.dumps(found[2])).error.message == found[2].error.message  # type: ignore[union-attr]


def test_several_threads_may_embed_at_once(emoji_q4: Path) -> None:
    with Siglip.load(emoji_q4, threads=1) as model:
        expected = model.embed_images([coloured(1), coloured(700)] * 25).vectors
        results: list[NDArray[np.float32]] = []
        workers = [
            threading.Thread(
                target=lambda: results.append(model.embed_images([coloured(1), coloured(700)] * 25).vectors)
            )
            for _ in range(3)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert len(results) == 3
    for result in results:
        np.testing.assert_allclose(result, expected, atol=2e-6)


def test_the_rows_of_a_generator_do_not_wait_for_its_end() -> None:
    """A source that is slow by itself, such as a camera, is asked from the caller's thread while others are decoded."""

    def camera() -> Iterator[bytes]:
        for i in range(12):
            time.sleep(0.001)
            yield coloured(i)

    assert [number(p.vector) for p in embed(camera(), eyes())] == list(range(12))
