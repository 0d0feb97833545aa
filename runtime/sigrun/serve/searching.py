"""The index behind ``/v1/search``: searched in a thread of its own, opened anew where another took its place."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sigrun.errors import PictureError, SigrunError, TextError
from sigrun.gather import safe
from sigrun.model import Siglip
from sigrun.search import Hit, Query, SearchIndex
from sigrun.serve.errors import ApiError, unavailable, unprocessable
from sigrun.serve.middleware import log_line
from sigrun.serve.thumbnails import thumbnail

T = TypeVar("T")

_REMEMBERED = 10_000  # pictures that were found lately, and may be asked for


@dataclass(frozen=True)
class Listed:
    """A picture that was found.

    Attributes:
        hit: its scores.
        path: where it lies below the indexed folder, with slashes.
        name: by which its thumbnail can be asked for.
    """

    hit: Hit
    path: str
    name: str


class ServedIndex:
    """An index that is searched for many requests, one after the other.

    Clients never name a file: a thumbnail has a name that only an answer tells, and is made only while the picture
    is in the index and as it was when it was indexed.

    Args:
        folder: the index.
        model: what embeds queries.
        other_variant: allow an index that another variant of the model made.

    Raises:
        ArtifactError: there is no index, or it is damaged.
        SpaceError: it is of another space, or of another variant and that is not allowed.
    """

    def __init__(self, folder: Path, model: Siglip, *, other_variant: bool = False) -> None:
        self._folder = folder
        self._model = model
        self._other_variant = other_variant
        self._secret = secrets.token_bytes(32)
        self._known: OrderedDict[str, str] = OrderedDict()  # a thumbnail's name → the picture's path
        self._identity, self._index = self._opened()
        self._searching = ThreadPoolExecutor(1, "sigrun-serve-search")
        self._drawing = ThreadPoolExecutor(1, "sigrun-serve-thumbnail")

    async def search(
        self, query: Query, top: int, threshold: float | None, *, pictures: bool
    ) -> tuple[list[Listed], int]:
        """What fits a query, best first, and of how many pictures.

        Args:
            query: its terms.
            top: at most so many.
            threshold: the least probability of each text that counts for.
            pictures: whether a term is a picture; how the image tower runs then matters.

        Raises:
            ApiError: the query cannot be meant, or the index cannot be searched.
        """
        return await self._run(self._searching, lambda: self._search(query, top, threshold, pictures))

    async def count(self) -> int | None:
        """Pictures in the index; none if it cannot be read now."""
        try:
            return await self._run(self._searching, lambda: len(self._current()))
        except ApiError:
            return None

    async def thumbnail(self, name: str) -> bytes:
        """A small JPEG of a picture that was found.

        Raises:
            ApiError: no such picture was found lately, or it is gone.
        """
        path = self._known.get(name)
        if path is None or not await self._run(self._searching, lambda: self._is_there(path)):
            raise _no_thumbnail("no picture of that name was found lately, or it has changed since")
        try:
            limit = self._index.about.max_pixels
            return await self._run(self._drawing, lambda: thumbnail(path, limit))
        except PictureError as error:  # its words hold its path
            raise _no_thumbnail("the picture cannot be read any more") from error

    def close(self) -> None:
        """End the threads and close the index."""
        for pool in (self._searching, self._drawing):
            pool.shutdown(cancel_futures=True)
        self._index.close()

    async def _run(self, pool: ThreadPoolExecutor, task: Callable[[], T]) -> T:
        """Run something in a thread; what it says of the index's files is for the log alone."""
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, task)
        except (ApiError, PictureError):
            raise
        except TextError as error:
            raise unprocessable(error.message, "query", hint=error.hint) from error
        except SigrunError as error:
            log_line({"error": type(error).__name__, "message": error.message})
            raise unavailable(
                "the index cannot be searched now; the server's log says why", 5, code="index_unavailable"
            ) from error

    # ---- in the thread ----

    def _opened(self) -> tuple[tuple[int, int] | None, SearchIndex]:
        identity = identity_of(self._folder)
        return identity, SearchIndex.open(self._folder, self._model, other_variant=self._other_variant)

    def _current(self) -> SearchIndex:
        """The index, opened anew if its folder holds another by now. Updates of one index need no opening."""
        if identity_of(self._folder) != self._identity:
            old = self._index
            self._identity, self._index = self._opened()
            old.close()
        return self._index

    def _search(
        self, query: Query, top: int, threshold: float | None, pictures: bool
    ) -> tuple[list[Listed], int]:
        index = self._current()
        count = len(index)  # looks at it, after which it is known what made it
        self._check(index, pictures)
        hits = index.search(query, top=top, threshold=threshold)
        self._check(index, pictures)  # again, as it may have been rebuilt by another model meanwhile
        root = os.path.join(index.about.folder, "")  # noqa: PTH118
        return [self._listed(hit, root) for hit in hits], count

    def _check(self, index: SearchIndex, pictures: bool) -> None:
        """Refuse hits of an index whose vectors do not belong to the model's.

        Raises:
            SpaceError: the index is of another space.
            ApiError: it is of another variant, or compute form.
        """
        difference = index.difference
        if difference is None or self._other_variant:
            return
        other_weights = index.about.weights != self._model.info.manifest.weights_sha256
        if other_weights or pictures:  # of a text it does not matter in which form pictures are computed here
            raise ApiError(
                409,
                f"the index was made by {difference}: scores would differ from those of one model",
                hint="start the server with the model and --compute that made it, or with --other-variant",
                code="other_variant",
            )

    def _listed(self, hit: Hit, root: str) -> Listed:
        path = hit.path.removeprefix(root)
        path = path if os.sep == "/" else path.replace(os.sep, "/")
        digest = hashlib.blake2b(os.fsencode(hit.path), key=self._secret, digest_size=16)
        name = digest.hexdigest()
        self._known[name] = hit.path
        self._known.move_to_end(name)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return Listed(hit, safe(path), name)

    def _is_there(self, path: str) -> bool:
        return self._current().vector(path) is not None


def identity_of(folder: Path) -> tuple[int, int] | None:
    """Which database a folder holds; none if there is none."""
    try:
        found = (folder / "index.sqlite").stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _no_thumbnail(message: str) -> ApiError:
    return ApiError(404, message, hint="search again", code="no_thumbnail")
