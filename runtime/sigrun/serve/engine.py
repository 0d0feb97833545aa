"""The model behind the routes: what clients may ask of it, computed without holding up the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import numpy as np

from sigrun import zero_shot
from sigrun.embeddings import Embeddings
from sigrun.errors import SigrunError, SpaceError
from sigrun.labels import LabelSet, Origin
from sigrun.manifest import TowerName
from sigrun.model import Siglip
from sigrun.scores import Scoring
from sigrun.serve.errors import ApiError, unprocessable
from sigrun.serve.fetch import Fetcher
from sigrun.serve.items import Bad, Bytes, Item, Remote, Text, too_large
from sigrun.serve.searching import ServedIndex
from sigrun.serve.settings import ServeSettings
from sigrun.serve.tower import ServedTower
from sigrun.serve.vectors import Vector
from sigrun.templates import PLACE

T = TypeVar("T")


class Engine:
    """A model that answers many requests at once. Made and used in one event loop."""

    def __init__(
        self,
        model: Siglip,
        settings: ServeSettings,
        *,
        observe: Callable[[str, int, float], object] = lambda tower, count, seconds: None,
        fetcher: Fetcher | None = None,
    ) -> None:
        self.model = model
        self.settings = settings
        self.manifest = model.info.manifest
        self.created = int(time.time())
        self.fetcher = fetcher or Fetcher(settings.fetch)
        self._fetched = 0  # bytes of the pictures that were fetched and are held
        self.towers: dict[TowerName, ServedTower] = {
            tower: ServedTower(model, tower, settings.limits, observe)
            for tower in ("image", "text")
            if tower in model.info.tower_nbytes
        }
        for name, labels in settings.label_sets.items():
            if labels.space != model.space:
                raise SpaceError(
                    f"label set '{name}' was made by a model of another embedding space: {labels.space}, "
                    f"not {model.space}",
                    hint="make it again with this model",
                )
        self.index: ServedIndex | None = None
        if settings.index is not None:
            self.index = ServedIndex(settings.index, model, other_variant=settings.other_variant)

    @property
    def name(self) -> str:
        """What the model is called."""
        return f"{self.manifest.model}-{self.manifest.variant}"

    @property
    def names(self) -> tuple[str, ...]:
        """All that it may be asked for as."""
        return (self.name, self.manifest.model, self.manifest.source.model, *self.settings.aliases)

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        architecture = self.manifest.architecture
        return int(
            architecture["image"]["width"] if "image" in self.towers else architecture["text"]["projection"]
        )

    @property
    def tokens(self) -> dict[TowerName, int]:
        """Tokens of one item in each tower."""
        image, text = (self.manifest.architecture.get(tower, {}) for tower in ("image", "text"))
        lengths: dict[TowerName, int] = {}
        if "image" in self.towers:
            lengths["image"] = (int(image["image_size"]) // int(image["patch_size"])) ** 2
        if "text" in self.towers:
            lengths["text"] = int(text["context"])
        return lengths

    def check_model(self, asked: str | None) -> None:
        """Refuse a request for another model: its vectors would not fit those that the client has."""
        if asked is not None and asked not in self.names:
            raise ApiError(
                404, "the model asked for is not the one that is served here",
                hint=f"ask for {self.name}, or leave model away; --model-name serves it under further names",
                code="model_not_found", param="model",
            )  # fmt: skip

    async def vectors(self, items: Sequence[Item | Bad], patience: float) -> list[Vector | SigrunError]:
        """A vector or an error for each item, in order; both towers work at the same time.

        Raises:
            ApiError: a tower or the room for fetched pictures is not there; nothing of the items is left behind then.
        """
        held: list[int] = []
        try:
            return await self._vectors(items, patience, held)
        finally:
            self._fetched -= sum(held)

    async def _vectors(
        self, items: Sequence[Item | Bad], patience: float, held: list[int]
    ) -> list[Vector | SigrunError]:
        results: list[Vector | SigrunError | None] = [None] * len(items)
        remote = [index for index, item in enumerate(items) if isinstance(item, Remote)]
        fetched = dict(
            zip(remote, await _together([self._fetch(items[i], held) for i in remote]), strict=True)
        )
        work: dict[TowerName, list[tuple[int, str | bytes]]] = {"image": [], "text": []}
        for index, given in enumerate(items):
            item = fetched.get(index, given)
            match item:
                case Bad(error):
                    results[index] = error
                case Text(text):
                    work["text"].append((index, text))
                case Bytes(data):
                    work["image"].append((index, data))
        wanted = [(self._tower(tower), places) for tower, places in work.items() if places]
        computed = await _together(
            [tower.vectors([item for _, item in places], patience) for tower, places in wanted]
        )
        for (_, places), found in zip(wanted, computed, strict=True):
            for (index, _), result in zip(places, found, strict=True):
                results[index] = result
        return [result for result in results if result is not None]

    async def label_set(self, labels: Sequence[str], templates: tuple[str, ...], patience: float) -> LabelSet:
        """Labels embedded as :meth:`sigrun.Siglip.label_set` does it, through the queue.

        Raises:
            ApiError: a label cannot be used.
        """
        texts = [template.replace(PLACE, label) for label in labels for template in templates]
        longest = max(map(len, texts))
        if longest > 4 * self.settings.limits.text_characters:
            raise unprocessable("a label in its template is too long", "labels")
        found = await self._tower("text").vectors(texts, patience)
        rows: dict[str, Vector] = {}
        for number, (text, result) in enumerate(zip(texts, found, strict=True)):
            if not isinstance(result, Vector):
                where = f"labels[{number // len(templates)}]"
                raise unprocessable(f"{where}: {result.message}", where, hint=result.hint)
            rows[text] = result

        def look_up(wanted: Sequence[str], on_progress: object) -> Embeddings:
            chosen = [rows[text] for text in wanted]
            cut = tuple(row for row, vector in enumerate(chosen) if vector.note is not None)
            return Embeddings(np.stack([vector.values for vector in chosen]), self.model.space, cut=cut)

        origin = Origin(self.name, self.manifest.canonicalisation or "none", self.manifest.scoring)
        return zero_shot.make(look_up, labels, templates, origin)

    def scoring(self, labels: LabelSet | None = None) -> Scoring:
        """The constants to score with.

        Raises:
            ApiError: there are none: the artifact has one tower.
        """
        own = self.manifest.scoring
        scoring = own if labels is None else labels.constants(own)
        if scoring is None:
            raise unprocessable(
                "this artifact has no scoring constants: it was exported with one tower", None
            )
        return scoring

    async def describe(self) -> dict[str, Any]:
        """The model, for ``/v1/models``."""
        info = self.model.info
        towers = {}
        for name, tower in self.towers.items():
            running = info.running.get(name)
            towers[name] = {
                "loaded": running is not None,
                "loading": tower.loading,
                "stored_bytes": info.tower_nbytes[name],
                "memory_bytes": tower.memory_bytes if running is not None else None,
                "compute": running.compute if running is not None else None,
                "provider": running.provider if running is not None else None,
            }
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "sigrun",
            "aliases": sorted(set(self.names) - {self.name}),
            "space": self.model.space,
            "dimensions": self.width,
            "variant": self.manifest.variant,
            "source": self.manifest.source.model,
            "artifact_bytes": info.nbytes,
            "compute": info.compute,
            "provider": info.provider,
            "threads": info.threads,
            "towers": towers,
            "label_sets": {name: len(labels) for name, labels in sorted(self.settings.label_sets.items())},
            "url_hosts": list(self.settings.fetch.hosts),
            "index": None if self.index is None else {"pictures": await self.index.count()},
        }

    async def preload(self) -> None:
        """Load the towers that the settings name.

        Raises:
            SigrunError: one cannot be loaded.
        """
        for tower in self.settings.preload:
            if tower not in self.towers:
                self.model.preload(tower)  # raises what there is to say
            await self.towers[tower].ready(3600)

    async def watch_idle(self, report: Callable[[str, int], object]) -> None:
        """Give idle towers back, for ever; ``report`` learns of each with the bytes that came back."""
        seconds = self.settings.limits.idle_seconds
        while seconds is not None:
            await asyncio.sleep(min(10.0, max(0.05, seconds / 4)))
            for tower in self.towers.values():
                freed = await tower.unload_if_idle(seconds)
                if freed is not None:
                    report(tower.tower, freed)

    def close(self, seconds: float) -> None:
        """Finish what waits and give everything back."""
        end = time.monotonic() + seconds
        for tower in self.towers.values():
            tower.close(max(0.1, end - time.monotonic()))
        if self.index is not None:
            self.index.close()
        self.model.close()

    def _tower(self, tower: TowerName) -> ServedTower:
        if tower not in self.towers:
            kind = "pictures" if tower == "image" else "texts"
            raise unprocessable(f"this artifact has no {tower} tower: it cannot embed {kind}", None)
        return self.towers[tower]

    async def _fetch(self, item: object, held: list[int]) -> Item | Bad:
        assert isinstance(item, Remote)
        try:
            data = await self.fetcher.fetch(item.url)
        except ApiError as error:
            return Bad(error)
        if len(data) > self.settings.limits.picture_bytes:
            return Bad(too_large("the picture fetched", self.settings.limits.picture_bytes))
        if self._fetched + len(data) > self.settings.limits.held_bytes:  # though their requests are short
            raise ApiError(
                429,
                f"{self._fetched} bytes of fetched pictures are held, and no more can be",
                hint="send fewer addresses at a time, or try again later",
                code="overloaded",
                headers={"retry-after": "2"},
            )
        self._fetched += len(data)
        held.append(len(data))
        return Bytes(data)


async def _together(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """What they give, in order. Where one fails the others end too: nobody would wait for them any more."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
