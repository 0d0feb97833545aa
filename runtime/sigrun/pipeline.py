"""Pictures through the image tower: while some are computed, the next are decoded.

Pictures are asked for in the caller's thread and come out in the order in which they came in. A micro-batch and a few
more are held at once, however many there are. Which pictures are computed together depends on the pictures alone,
never on how fast they were decoded.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sigrun.batches import micro_batch
from sigrun.embeddings import EmbeddedPicture, Embeddings
from sigrun.errors import PictureError
from sigrun.pictures import Picture, Rules, read_picture, settled
from sigrun.pixels import Preprocessing, to_pixels

EMBEDDING: Final = "image_embeds"
FEATURES: Final = "last_hidden_state"  # after the last layer norm, as transformers has it
_MOST_DECODERS: Final = 4
_ROWS_HELD: Final = (
    32  # beyond a micro-batch: rows that failed and wait behind one that is yet to be computed
)


class Tower(Protocol):
    """What is asked of an image tower's session."""

    form: str
    width: int
    tokens: int

    def run_many(
        self, batch: NDArray[np.float32], outputs: tuple[str, ...]
    ) -> tuple[NDArray[np.float32], ...]:
        """Several outputs of one run on a batch [n, 3, height, width], each float32 [n, ...]."""
        ...


@dataclass(frozen=True, slots=True)
class Eyes:
    """What pictures are embedded with.

    Attributes:
        tower: the image tower.
        preprocessing: the tower's.
        rules: for reading pictures.
        threads: how many decode; 0 to decode in turn with the computing.
    """

    tower: Tower
    preprocessing: Preprocessing
    rules: Rules
    threads: int


def decoders(cpus: int) -> int:
    """Threads that decode beside the computing: none on a single CPU, where they would only take turns with it.

    One for each CPU, because with a small model decoding is all there is; with a large one they mostly wait.
    """
    return 0 if cpus == 1 else min(_MOST_DECODERS, cpus)


def collect(
    pictures: Iterable[Picture],
    eyes: Eyes,
    *,
    space: str,
    features: bool = False,
    on_progress: Callable[[int], object] | None = None,
) -> Embeddings:
    """Embed all pictures; see :func:`embed` for what is not said here.

    Args:
        space: their embedding space id.
        on_progress: called with the number of pictures, read or failed, each time that some are done.
    """
    size = len(pictures) if isinstance(pictures, Sized) else 0
    vectors = _Rows(size, (eyes.tower.width,))
    hidden = _Rows(size, (eyes.tower.tokens, eyes.tower.width)) if features else None
    errors: dict[int, PictureError] = {}
    notes: dict[int, str] = {}
    for done in _parts(pictures, eyes, features):
        for picture in done:
            vectors.append(picture.vector)
            if hidden is not None:
                hidden.append(picture.features)
            if picture.error is not None:
                errors[picture.row] = picture.error
            if picture.note is not None:
                notes[picture.row] = picture.note
        if on_progress is not None:
            on_progress(len(done))
    stacked = None if hidden is None else hidden.all()
    return Embeddings(vectors.all(), space, errors, features=stacked, notes=notes)


def embed(pictures: Iterable[Picture], eyes: Eyes, *, features: bool = False) -> Iterator[EmbeddedPicture]:
    """Embed pictures one after the other.

    Args:
        pictures: asked for in the caller's thread, a little ahead of what is computed. Paths, data URIs and bytes are
            read and decoded beside the computing; streams, images and arrays, which their owner may change before
            their turn comes, as soon as they are handed over.
        eyes: what they are embedded with.
        features: give the last hidden state of each picture, too.

    Yields:
        A row a picture, in order. What ``pictures`` raises is raised after the rows of the pictures before.
    """
    for done in _parts(pictures, eyes, features):
        yield from done


def refuse_one_picture(pictures: object) -> None:
    """Raise PictureError if somebody handed over a picture where a list of pictures belongs."""
    one = isinstance(pictures, str | bytes | os.PathLike | Image.Image) or hasattr(pictures, "read")
    if one or (isinstance(pictures, np.ndarray) and pictures.ndim <= 3):
        raise PictureError(
            f"pictures must be a list of pictures, not one {type(pictures).__name__}", hint="write [picture]"
        )


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A picture ready for the tower, or why it is not."""

    pixels: NDArray[np.float32] | None  # [3, height, width]
    error: PictureError | None = None
    note: str | None = None


class _Rows:
    """Rows of one shape that become an array: float32 [n, *shape], where a row that is missing is NaN."""

    def __init__(self, expected: int, shape: tuple[int, ...]) -> None:
        self._array = np.empty((expected, *shape), np.float32)
        self._count = 0

    def append(self, row: NDArray[np.float32] | None) -> None:
        if self._count == len(self._array):
            grown = np.empty((self._count * 3 // 2 + 8, *self._array.shape[1:]), np.float32)
            grown[: self._count] = self._array
            self._array = grown
        self._array[self._count] = np.nan if row is None else row
        self._count += 1

    def all(self) -> NDArray[np.float32]:
        return self._array if self._count == len(self._array) else self._array[: self._count].copy()


def _parts(pictures: Iterable[Picture], eyes: Eyes, features: bool) -> Iterator[list[EmbeddedPicture]]:
    """The rows, as many at a time as were done together."""
    tower, size = eyes.tower, micro_batch(eyes.tower.tokens, eyes.tower.form)
    outputs = (EMBEDDING, FEATURES) if features else (EMBEDDING,)
    threads = 0 if isinstance(pictures, Sized) and len(pictures) == 1 else eyes.threads

    def prepare(picture: Picture) -> _Prepared:
        try:
            opened = read_picture(picture, eyes.rules)
            return _Prepared(to_pixels(opened.image, eyes.preprocessing, opened.box), None, opened.note)
        except PictureError as error:
            return _Prepared(None, error)

    ahead = _ahead(pictures, prepare, threads, size + 2 * threads)
    waiting: list[_Prepared] = []
    first = good = 0
    failure: Exception | None = None
    try:
        while failure is None:
            try:
                waiting.append(next(ahead))
                good += waiting[-1].pixels is not None
                if 0 < good < size and len(waiting) < size + _ROWS_HELD:
                    continue
            except StopIteration:
                break
            except Exception as error:
                failure = error
            if waiting:
                yield _computed(first, waiting, tower, outputs)
            first, waiting, good = first + len(waiting), [], 0
        if waiting:
            yield _computed(first, waiting, tower, outputs)
    finally:
        ahead.close()
    if failure is not None:
        raise failure


def _computed(
    first: int, waiting: list[_Prepared], tower: Tower, outputs: tuple[str, ...]
) -> list[EmbeddedPicture]:
    """The rows of prepared pictures, the first of which is row ``first``."""
    batch = [prepared.pixels for prepared in waiting if prepared.pixels is not None]
    results = zip(*tower.run_many(np.stack(batch), outputs), strict=True) if batch else iter(())
    rows = []
    for row, prepared in enumerate(waiting, first):
        if prepared.pixels is None:
            rows.append(EmbeddedPicture(row, None, prepared.error))
        else:
            vector, *more = next(results)
            rows.append(EmbeddedPicture(row, vector, None, prepared.note, more[0] if more else None))
    return rows


def _begun(
    prepare: Callable[[Picture], _Prepared], picture: Picture, pool: ThreadPoolExecutor | None
) -> _Prepared | Future[_Prepared]:
    """A picture made ready, by a pool later or else now."""
    if pool is not None:
        try:
            return pool.submit(prepare, picture)
        except RuntimeError:  # the process can start no more threads, or is about to end
            pass
    return prepare(picture)


def _ahead(
    pictures: Iterable[Picture], prepare: Callable[[Picture], _Prepared], threads: int, depth: int
) -> Generator[_Prepared]:
    """Pictures made ready, in order, by so many threads; up to ``depth`` of them before they are asked for.

    The threads end with the generator. What ``pictures`` raises is raised when all before it were handed out.
    """
    pending: deque[_Prepared | Future[_Prepared]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="sigrun-decode") if threads else None
    source = iter(pictures)
    failure: Exception | None = None
    try:
        more = True
        while more or pending:
            while more and len(pending) < (depth if pool is not None else 1):
                try:
                    picture = next(source)
                except StopIteration:
                    more = False
                    break
                except Exception as error:
                    more, failure = False, error
                    break
                pending.append(_begun(prepare, picture, pool if settled(picture) else None))
            if pending:
                ready = pending.popleft()
                yield ready.result() if isinstance(ready, Future) else ready
        if failure is not None:
            raise failure
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)
