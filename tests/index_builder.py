"""Indexes for tests: of real files, by an embedder whose vectors follow from a file's content alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from sigrun.embeddings import EmbeddedPicture
from sigrun.errors import PictureError
from sigrun.search import update
from sigrun.search.about import About, Encoding
from sigrun.search.scan import Changes, scan
from sigrun.search.store import Store

WIDTH = 24


def about(folder: Path, *, width: int = WIDTH, encoding: Encoding = "float16") -> About:
    """What an index of a folder says that it is of."""
    return About(
        folder=str(folder),
        artifact="/models/stub.gguf",
        space="space-of-the-stub",
        model="stub",
        variant="q4_k_m",
        weights="0" * 64,
        compute="exact",
        provider="cpu",
        decode="exact",
        max_pixels=1_000_000,
        preprocessing={},
        width=width,
        encoding=encoding,
        logit_scale=2.5,
        logit_bias=-6.0,
        generator="tests",
    )


def vector(content: bytes, width: int = WIDTH) -> np.ndarray:
    """A unit vector that follows from a file's content."""
    seed = int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
    found = np.random.default_rng(seed).standard_normal(width)
    return (found / np.linalg.norm(found)).astype(np.float32)


class Stub:
    """Embeds files; remembers which. A file that begins with ``bad`` cannot be read."""

    def __init__(self, width: int = WIDTH) -> None:
        self.width = width
        self.asked: list[str] = []

    def __call__(self, pictures: Iterable[str]) -> Iterator[EmbeddedPicture]:
        for row, path in enumerate(pictures):
            self.asked.append(Path(path).name)
            content = Path(path).read_bytes()
            if content.startswith(b"bad"):
                yield EmbeddedPicture(row, None, PictureError(f"{path} is bad", hint="mend it"))
            else:
                yield EmbeddedPicture(row, vector(content, self.width))


def brought_up_to_date(
    index: Path,
    folder: Path,
    embed: update.Embed,
    *,
    encoding: Encoding = "float16",
    rehash: bool = False,
    retry: bool = False,
) -> Changes:
    """Make or update an index, as ``sigrun index`` does."""
    with update.writer(index, lambda: about(folder, encoding=encoding)) as store:
        changes = scan(store, str(folder), rehash=rehash, retry=retry)
        update.embed_all(store, str(folder), embed)
        return changes


def listed(index: Path) -> dict[str, np.ndarray | str]:
    """Everything in an index: path below the folder → vector, or why there is none."""
    from sigrun.search.vectors import Rows

    store = Store.open(index)
    try:
        with store.reading():
            rows, generation = store.number("rows"), store.number("generation")
            found = store.db.execute("SELECT path, row, error FROM pictures").fetchall()
        vectors = Rows(store.vectors(generation), rows, store.about.width, store.about.encoding, "x")
        return {
            key.decode("utf-8", "surrogateescape"): error
            if row is None
            else vectors.taken(np.array([row]))[0]
            for key, row, error in found
        }
    finally:
        store.close()


def check(index: Path, folder: Path) -> None:
    """An index holds every file of its folder once, with the vector of its content, and nothing else."""
    found = listed(index)
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}
    assert found.keys() == files.keys()
    for name, content in files.items():
        value = found[name]
        if content.startswith(b"bad"):
            assert isinstance(value, str) and "is bad" in value
        else:
            assert isinstance(value, np.ndarray)
            assert np.abs(value - vector(content)).max() < 5e-4
    store = Store.open(index)
    try:
        assert list(update.check(store)) == []
    finally:
        store.close()
