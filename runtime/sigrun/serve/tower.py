"""One tower behind its queue: loaded at first use, given back when idle."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

from sigrun.errors import SigrunError, TextError
from sigrun.manifest import TowerName
from sigrun.model import Siglip
from sigrun.serve.batcher import Batcher
from sigrun.serve.errors import unavailable
from sigrun.serve.memory import give_back, resident_bytes
from sigrun.serve.settings import Limits
from sigrun.serve.vectors import Recent, Vector, key_of

_MEASURING = threading.Lock()  # towers that are loaded at once could not tell whose memory is whose
GPU_WAIT = 0.005  # seconds; a GPU computes several items in little more time than one


class ServedTower:
    """The image or the text tower of a model, for many requests at once."""

    def __init__(
        self, model: Siglip, tower: TowerName, limits: Limits, observe: Callable[[str, int, float], object]
    ) -> None:
        self.tower = tower
        self.memory_bytes: int | None = None  # by which the process grew when the tower was loaded
        self.last_used = time.monotonic()
        self._model = model
        self._limits = limits
        self._recent = Recent(limits.kept_vectors)
        self._loading: asyncio.Task[None] | None = None
        self._batcher: Batcher[str | bytes, Vector] = Batcher(
            tower,
            self._compute,
            batch=limits.batch,
            queue=limits.queue,
            wait=self._patience,
            observe=lambda count, seconds: observe(tower, count, seconds),
        )

    @property
    def depth(self) -> int:
        """Items that wait or are computed."""
        return self._batcher.depth

    @property
    def loaded(self) -> bool:
        """Whether the tower is in memory."""
        return self.tower in self._model.info.loaded

    @property
    def loading(self) -> bool:
        """Whether the tower is being loaded."""
        return self._loading is not None

    async def vectors(self, items: Sequence[str | bytes], patience: float) -> list[Vector | SigrunError]:
        """A vector or an error for each text or picture, in order. Equal items are computed once.

        Args:
            items: texts, or the bytes of picture files.
            patience: seconds to wait for the tower, if it must be loaded.

        Raises:
            ApiError: the tower is not ready yet, or its queue is full.
            SigrunError: the tower cannot be loaded.
        """
        keys = [key_of(item.encode("utf-8") if isinstance(item, str) else item) for item in items]
        found: dict[bytes, Vector | SigrunError] = {}
        missing: dict[bytes, str | bytes] = {}
        for key, item in zip(keys, items, strict=True):
            kept = self._recent.get(key)
            if kept is not None:
                found[key] = kept
            else:
                missing[key] = item
        if missing:
            await self.ready(patience)
            self.last_used = time.monotonic()
            computed = await self._batcher.submit(list(missing.values()))
            for key, result in zip(missing, computed, strict=True):
                found[key] = result
                if isinstance(result, Vector):
                    self._recent.put(key, result)
        self.last_used = time.monotonic()
        return [found[key] for key in keys]

    async def ready(self, patience: float) -> None:
        """Load the tower if it is not.

        Raises:
            ApiError: that takes longer than ``patience``; the loading goes on.
            SigrunError: it cannot be loaded.
        """
        if self._loading is None:
            if self.loaded:
                return
            self._loading = asyncio.create_task(self._load())
            self._loading.add_done_callback(self._loading_ended)
        task = self._loading
        try:
            await asyncio.wait_for(asyncio.shield(task), patience)
        except TimeoutError as error:
            if task.done():
                raise
            raise unavailable(
                f"the {self.tower} tower is being loaded",
                5,
                code="loading",
                hint="send it again, or Prefer: wait=60",
            ) from error

    def _loading_ended(self, task: asyncio.Task[None]) -> None:
        self._loading = None
        self.last_used = time.monotonic()  # whoever was told to come again shall find it
        if not task.cancelled():
            task.exception()  # those who waited were told

    async def _load(self) -> None:
        await self._batcher.do(self._open)

    async def unload_if_idle(self, seconds: float) -> int | None:
        """Give the memory back after so long without use; the bytes that came back, none if nothing was done."""
        if self.depth or self.loading or not self.loaded or time.monotonic() - self.last_used < seconds:
            return None
        return await self._batcher.do(self._close)

    def close(self, seconds: float) -> None:
        """Finish what waits and end."""
        self._batcher.close(seconds)

    # ---- in the tower's thread ----

    def _open(self) -> None:
        if self.loaded:
            return
        with _MEASURING:
            give_back()
            before = resident_bytes()
            self._model.preload(self.tower)
            if self.tower == "text":
                self._model.embed_texts(["ready"])  # the tokenizer, too, is made at first use
            give_back()
            after = resident_bytes()
        grown = 0 if before is None or after is None else after - before
        self.memory_bytes = grown if grown > 0 else None  # the other tower gave back more meanwhile

    def _close(self) -> int:
        with _MEASURING:
            before = resident_bytes()
            self._model.unload(self.tower)
            give_back()
            after = resident_bytes()
        self.memory_bytes = None
        return 0 if before is None or after is None else max(0, before - after)

    def _patience(self) -> float:
        if self._limits.wait_ms is not None:
            return self._limits.wait_ms / 1000
        running = self._model.info.running.get(self.tower)
        return GPU_WAIT if running is not None and running.provider != "cpu" else 0.0

    def _compute(self, items: Sequence[str | bytes]) -> list[Vector | SigrunError]:
        if self.tower == "image":
            return self._pictures([item for item in items if isinstance(item, bytes)])
        texts = [item for item in items if isinstance(item, str)]
        try:
            return self._texts(texts)
        except TextError:  # one of them cannot be used, and takes no other down
            return [self._text(text) for text in texts]

    def _pictures(self, pictures: list[bytes]) -> list[Vector | SigrunError]:
        embedded = self._model.embed_images(pictures)
        return [
            embedded.errors.get(row) or Vector(embedded.vectors[row].copy(), embedded.notes.get(row))
            for row in range(len(pictures))
        ]

    def _texts(self, texts: list[str]) -> list[Vector | SigrunError]:
        embedded = self._model.embed_texts(texts)
        cut = set(embedded.cut)
        note = "longer than the model reads: its end is ignored"
        return [
            Vector(embedded.vectors[row].copy(), note if row in cut else None) for row in range(len(texts))
        ]

    def _text(self, text: str) -> Vector | SigrunError:
        try:
            return self._texts([text])[0]
        except TextError as error:
            return TextError(error.message.replace("text 0", "the text", 1), hint=error.hint)
