"""One model among threads that do everything at once: the answers are those of a single thread, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sigrun import Siglip

WORKERS = 8
CALLS = 50  # of each worker
TEXTS = ("owl", "a red apple", "日本", "x" * 300)


def pictures() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (20 + 7 * i, 50 - 5 * i, 3), np.uint8) for i in range(4)]


@pytest.mark.parametrize("form", ["exact", "int8"])
def test_mixed_calls_from_eight_threads(tiny_q4: Path, form: str) -> None:
    """Pictures, texts, scores, bad pictures and texts, while towers are unloaded again and again."""
    seen = pictures()
    with Siglip.load(tiny_q4, compute=form, threads=2, cache=None) as model:
        labels = model.label_set(["owl", "apple", "train"])
        images = [model.embed_images([p]).vectors.tobytes() for p in seen]
        texts = [model.embed_texts([t]).vectors.tobytes() for t in TEXTS]
        scores = [model.classify(p, labels) for p in seen]
        done: list[str] = []

        def image(i: int) -> None:
            assert model.embed_images([seen[i]]).vectors.tobytes() == images[i]

        def text(i: int) -> None:
            assert model.embed_texts([TEXTS[i]]).vectors.tobytes() == texts[i]

        def score(i: int) -> None:
            assert model.classify(seen[i], labels) == scores[i]

        def bad(i: int) -> None:
            found = model.embed_images([b"no picture", seen[i]])
            assert list(found.errors) == [0]
            assert found.vectors[1].tobytes() == images[i]

        def one_by_one(i: int) -> None:
            (row,) = model.iter_images([seen[i]])  # form exact rounds batches of several otherwise
            assert row.vector is not None
            assert row.vector.tobytes() == images[i]

        def unload(i: int) -> None:
            model.unload("image" if i % 2 else "text")

        actions: list[Callable[[int], None]] = [image, image, text, text, score, bad, one_by_one, unload]

        def work(worker: int) -> None:
            rng = random.Random(worker)
            for _ in range(CALLS):
                action = rng.choice(actions)
                action(rng.randrange(4))
                done.append(action.__name__)

        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(work, range(WORKERS)))
        assert len(done) == WORKERS * CALLS
        assert {action.__name__ for action in actions} == set(done)
