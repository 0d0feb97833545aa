"""A model for programs with a user interface: hand work over, hear of it through callbacks, cancel it at any time.

engine = Engine("siglip-so400m-patch14-384-q4_k_m.gguf", call=window.later)
job = engine.images(paths, on_row=window.show, on_progress=window.progress)
job.cancel()
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence, Sized
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, TypeVar, overload

from sigrun.errors import SigrunError
from sigrun.jobs import Call, Job, Outbox, Progress
from sigrun.turns import Run, Task, Turns

if TYPE_CHECKING:
    from sigrun.embeddings import EmbeddedPicture, Embeddings
    from sigrun.info import Info
    from sigrun.labels import LabelSet
    from sigrun.manifest import TowerName
    from sigrun.model import Siglip
    from sigrun.pictures import Decode, Picture
    from sigrun.prepared import Cache
    from sigrun.scores import Score

T = TypeVar("T")
Told = Callable[[int, int | None], object]
"""Called with the number of items that are done and the number that there are, if that is known."""

ROOM: Final = 16  # rows that wait for their callback, beyond which computing waits
FEW: Final = 16  # texts; so many do not keep other short jobs waiting


class Engine:
    """A model on a thread of its own. Making one returns at once: the model is opened when it is first needed.

    Jobs take turns. Short ones, such as a text to search for, go before the next picture of a long one. Those that give
    rows go on side by side; of the other long ones, one at a time goes on between them. The thread is there while there
    is work, and callbacks are never called by two threads at once.
    An engine has no signal handlers, prints nothing, and does not keep the interpreter from ending.

    Args:
        path: an artifact.
        compute, provider, threads, max_pixels, decode, cache: as :meth:`sigrun.Siglip.load` takes them.
        call: has a function called where callbacks belong, such as ``loop.call_soon_threadsafe`` or what emits a
            signal of Qt; it must keep their order and not wait until they have run. Without it they are called on the
            engine's thread, which does nothing else meanwhile.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        compute: str = "auto",
        provider: str = "auto",
        threads: int | None = None,
        max_pixels: int | None = None,
        decode: Decode = "exact",
        cache: Cache = "auto",
        call: Call | None = None,
    ) -> None:
        self.path = path
        self._options: dict[str, Any] = {
            "compute": compute, "provider": provider, "threads": threads, "decode": decode, "cache": cache,
        }  # fmt: skip
        if max_pixels is not None:
            self._options["max_pixels"] = max_pixels
        self._call: Call = call or (lambda function: function())
        self._turns = Turns(self._open)

    def __repr__(self) -> str:
        closed = " closed" if self._turns.closed else ""
        return f"<Engine {os.fspath(self.path)} jobs={len(self._turns)}{closed}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an Engine cannot be pickled: make another one where it is needed")

    # ---- what may be asked for ----

    def load(self, towers: Sequence[TowerName] = ()) -> Job[Info]:
        """Open the model now, and load towers, rather than when they are first needed."""

        def load(model: Siglip, progress: Callable[[int], object]) -> Info:
            for tower in towers:
                model.preload(tower)
                progress(1)
            return model.info

        return self._submit(load, None, len(towers), short=True)

    def do(self, function: Callable[[Siglip], T]) -> Job[T]:
        """Have anything done with the model, on the engine's thread; only before it begins can it be cancelled."""
        return self._submit(lambda model, _: function(model), None, None, short=True)

    @overload
    def images(
        self, pictures: Iterable[Picture], *, features: bool = False, on_progress: Told | None = None
    ) -> Job[Embeddings]: ...

    @overload
    def images(
        self,
        pictures: Iterable[Picture],
        *,
        on_row: Callable[[EmbeddedPicture], object],
        features: bool = False,
        on_progress: Told | None = None,
    ) -> Job[int]: ...

    def images(
        self,
        pictures: Iterable[Picture],
        *,
        on_row: Callable[[EmbeddedPicture], object] | None = None,
        features: bool = False,
        on_progress: Told | None = None,
    ) -> Job[Embeddings] | Job[int]:
        """Embed pictures; one that cannot be read is an error of its row.

        Args:
            pictures: any number of them, asked for on the engine's thread, a little ahead of what is computed.
            on_row: called with each row, in order. Nothing is kept then, so that there may be no end of pictures;
                computing waits while rows wait for their callback.
            features: give the last hidden state of each, too.
            on_progress: called now and then.

        Returns:
            The embeddings, or with ``on_row`` the number of rows.
        """
        total = len(pictures) if isinstance(pictures, Sized) else None
        if on_row is not None:
            return self._run(pictures, on_row, features, (on_progress, total), self._call)[0]

        def embed(model: Siglip, progress: Callable[[int], object]) -> Embeddings:
            return model.embed_images(pictures, features=features, on_progress=progress)

        return self._submit(embed, on_progress, total, short=total == 1)

    async def rows(
        self, pictures: Iterable[Picture], *, features: bool = False
    ) -> AsyncGenerator[EmbeddedPicture]:
        """Embed pictures and give each row to ``async for``, in order; computing waits for who iterates.

        Left early, call ``aclose()``, or use ``contextlib.aclosing``.

        Raises:
            SigrunError: the job failed, or the engine was closed meanwhile.
        """
        import asyncio

        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[EmbeddedPicture | None] = asyncio.Queue()
        job, outbox = self._run(
            pictures, queue.put_nowait, features, (None, None), loop.call_soon_threadsafe, counted=False
        )
        job.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (row := await queue.get()) is not None:
                outbox.taken()
                yield row
            if job.cancelled():
                raise self._closed()
            job.result()
        finally:
            job.cancel()

    def texts(self, texts: Sequence[str], *, on_progress: Told | None = None) -> Job[Embeddings]:
        """Embed texts, as :meth:`sigrun.Siglip.embed_texts` does."""

        def embed(model: Siglip, progress: Callable[[int], object]) -> Embeddings:
            return model.embed_texts(texts, on_progress=progress)

        return self._submit(embed, on_progress, len(texts), short=len(texts) <= FEW)

    def label_set(
        self,
        labels: Sequence[str],
        *,
        template: str = "{}",
        templates: Sequence[str] | None = None,
        on_progress: Told | None = None,
    ) -> Job[LabelSet]:
        """Embed labels to score pictures with, as :meth:`sigrun.Siglip.label_set` does."""

        def make(model: Siglip, progress: Callable[[int], object]) -> LabelSet:
            return model.label_set(labels, template=template, templates=templates, on_progress=progress)

        count = len(labels) * len(templates or [template])
        return self._submit(make, on_progress, len(labels), short=count <= FEW)

    def classify(
        self,
        picture: Picture,
        labels: Sequence[str] | LabelSet,
        *,
        top: int | None = None,
        threshold: float | None = None,
    ) -> Job[list[Score]]:
        """Score one picture against labels, best first, as :meth:`sigrun.Siglip.classify` does."""
        return self.do(lambda model: model.classify(picture, labels, top=top, threshold=threshold))

    def close(self, *, wait: bool = True) -> None:
        """Cancel every job and give everything back.

        Args:
            wait: until that is done, which takes as long as a picture; without, it happens in the background.
        """
        self._turns.close(wait)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- inside ----

    def _open(self) -> Siglip:
        from sigrun.model import Siglip

        return Siglip.load(self.path, **self._options)

    def _submit(
        self,
        function: Callable[[Siglip, Callable[[int], object]], T],
        on_progress: Told | None,
        total: int | None,
        *,
        short: bool,
    ) -> Job[T]:
        job = self._turns.job(self._call)
        self._add(Task(job, function, Progress(job, self._call, on_progress, total), short))
        return job

    def _run(
        self,
        pictures: Iterable[Picture],
        on_row: Callable[[EmbeddedPicture], object],
        features: bool,
        progress: tuple[Told | None, int | None],
        call: Call,
        *,
        counted: bool = True,
    ) -> tuple[Job[int], Outbox]:
        job = self._turns.job(call)
        outbox = Outbox(job, call, on_row, room=ROOM, freed=self._turns.wake, counted=counted)
        self._add(Run(job, pictures, features, outbox, Progress(job, call, *progress)))
        return job, outbox

    def _add(self, work: Task[Any] | Run) -> None:
        if not self._turns.add(work):
            raise self._closed()

    def _closed(self) -> SigrunError:
        return SigrunError(f"{os.fspath(self.path)}: the engine is closed", hint="make another one")
