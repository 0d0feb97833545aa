"""A callable for engines that hand batches of rows to workers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sigrun.artifact import Artifact
from sigrun.bulk.cells import is_nothing, picture_in
from sigrun.bulk.containers import Found, cells, extended
from sigrun.bulk.loaded import How, forget, loaded
from sigrun.decoders import DEFAULT_MAX_PIXELS, Decode
from sigrun.errors import PictureError, TextError
from sigrun.manifest import Manifest
from sigrun.pictures import Picture
from sigrun.prepared import Cache

Batch = TypeVar("Batch")


class Embedder:
    """Adds an embedding to each row of a batch.

    It holds settings only, so that it is small to send to workers; the model is loaded there, on the first row that
    needs it, once a process. Batches are dicts of arrays or lists, Arrow tables or record batches, or pandas data
    frames; what comes out is of the same kind, with two more columns:

    * ``embedding``: float32 [width], unit length. Of a row that failed it is null, in a dict of arrays NaN.
    * ``error``: why the row failed, else null.

    In every compute form but ``int8``, which is what ``auto`` takes on CPUs where the artifact allows it, items of one
    batch run together, which may change the last bits of their vectors.

    Args:
        model: a ``.gguf`` file; every worker must find it there.
        pictures: the column of pictures: paths, the bytes of files, ``{"bytes", "path"}`` as the package ``datasets``
            has them, arrays or Pillow images.
        texts: a column of texts instead.
        embedding: name of the new column.
        error: name of the other.
        compute, provider, threads, max_pixels, decode, cache: as for ``Siglip.load``.

    Raises:
        ValueError: both ``pictures`` and ``texts`` are given.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        pictures: str | None = None,
        texts: str | None = None,
        embedding: str = "embedding",
        error: str = "error",
        compute: str = "auto",
        provider: str = "auto",
        threads: int | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        decode: Decode = "exact",
        cache: Cache = "auto",
    ) -> None:
        if pictures is not None and texts is not None:
            raise ValueError("give either pictures= or texts=")
        path = os.path.abspath(model)  # noqa: PTH100  (links stay links)
        self.how = How(path, compute, provider, threads, max_pixels, decode, cache)
        self.texts = texts is not None
        self.column = texts if texts is not None else pictures or "image"
        self.embedding = embedding
        self.error = error

    def __repr__(self) -> str:
        return f"<Embedder {self.how.path} of {'texts' if self.texts else 'pictures'} in '{self.column}'>"

    def __call__(self, batch: Batch) -> Batch:
        """The batch with its embeddings; what fails is an error of its row alone.

        Raises:
            SigrunError: the batch has no such column, has one of the new ones already, or is no batch.
            ArtifactError: the model cannot be loaded.
            ProviderError: it cannot run as asked.
        """
        rows = cells(batch, self.column, (self.embedding, self.error))
        result: Batch = extended(batch, self.embed(rows), self.embedding, self.error)
        return result

    def each(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Every batch with its embeddings, one after the other, as Spark's ``mapInPandas`` wants it."""
        for batch in batches:
            yield self(batch)

    def embed(self, rows: Sequence[Any]) -> Found:
        """The embeddings of cells that stand in no batch; for engines that hand over columns."""
        if not rows:
            return Found(np.empty((0, self.width), np.float32), [])
        return self._texts(rows) if self.texts else self._pictures(rows)

    @property
    def width(self) -> int:
        """How many numbers an embedding has; the model need not be loaded for that."""
        with Artifact.open(self.how.path) as artifact:
            return width_of(artifact.manifest)

    def close(self) -> None:
        """Give the model's memory back, where this process holds it. The next call loads it again."""
        forget(self.how)

    def _pictures(self, rows: Sequence[Any]) -> Found:
        errors: list[str | None] = [None] * len(rows)
        good: list[Picture] = []
        places: list[int] = []
        for row, cell in enumerate(rows):
            try:
                good.append(picture_in(cell))
                places.append(row)
            except PictureError as error:
                errors[row] = error.message
        embedded = loaded(self.how).embed_images(good)
        for row, failure in embedded.errors.items():
            errors[places[row]] = failure.message
        return Found(_spread(embedded.vectors, places, len(rows)), errors)

    def _texts(self, rows: Sequence[Any]) -> Found:
        errors: list[str | None] = ["there is no text in this row" if is_nothing(r) else None for r in rows]
        places = [row for row, why in enumerate(errors) if why is None]
        model = loaded(self.how)
        try:
            vectors = model.embed_texts([rows[row] for row in places]).vectors
        except TextError:  # one of them at least: find out which
            parts = [model.embed_texts([]).vectors]
            left = []
            for row in places:
                try:
                    parts.append(model.embed_texts([rows[row]]).vectors)
                    left.append(row)
                except TextError as error:
                    errors[row] = error.message.replace("text 0 ", "the text ", 1)
            places, vectors = left, np.concatenate(parts)
        return Found(_spread(vectors, places, len(rows)), errors)


def width_of(manifest: Manifest) -> int:
    """How many numbers an embedding of a model has."""
    towers = manifest.architecture
    if "image" in towers:
        return int(towers["image"]["width"])
    return int(towers["text"]["projection"])


def _spread(vectors: NDArray[np.float32], places: Sequence[int], count: int) -> NDArray[np.float32]:
    """Vectors [m, width] at their places among [count, width] rows; the others are NaN."""
    if len(places) == count:
        return vectors
    out = np.full((count, vectors.shape[1]), np.nan, np.float32)
    out[list(places)] = vectors
    return out
