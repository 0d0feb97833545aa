"""An index as programs hold it: open it, search it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sigrun.embeddings import same_space
from sigrun.errors import SpaceError, TextError
from sigrun.gather import safe
from sigrun.labels import LabelSet
from sigrun.model import Siglip
from sigrun.pictures import Picture
from sigrun.scores import check_limits, probability, scaled
from sigrun.search import approximate
from sigrun.search.about import About, damaged, refuse_other_space
from sigrun.search.duplicates import groups
from sigrun.search.query import Mix, Query, Term, best, sample_rows
from sigrun.search.reader import TRIES, Reader, State, busy
from sigrun.search.store import Store


@dataclass(frozen=True, slots=True)
class Hit:
    """A picture that was found.

    Attributes:
        path: its path, below the indexed folder as that was named.
        score: what the ranking goes by: the logit of a single text, the cosine of a single picture or vector, and the
            sum of weighted deviations of several terms.
        cosine: with the single term of the query.
        logit, probability: where the query is a single text: how likely it fits, as the model was trained to say.
    """

    path: str
    score: float
    cosine: float | None = None
    logit: float | None = None
    probability: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, without what it does not have."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if value is not None}


class SearchIndex:
    """Reads an index; make one with :meth:`open`. Safe to use from several threads.

    A search sees the index as it is when the search begins, also while another process updates it.

    Args:
        store: the index.
        model: what embeds texts and pictures; without, only vectors and indexed pictures can be searched for.
    """

    def __init__(self, store: Store, model: Siglip | None, *, other_variant: bool = False) -> None:
        self._store, self._model, self._other_variant = store, model, other_variant
        self._refuse_other()
        self._reader = Reader(store)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], model: Siglip | None = None, *, other_variant: bool = False
    ) -> Self:
        """Open an index for searching.

        Args:
            path: its folder.
            model: a model of the same space.
            other_variant: allow a model with other weights than those that made the index, or another compute form.

        Raises:
            ArtifactError: there is no index, or it is damaged.
            SpaceError: the model is of another space, or another variant and that is not allowed.
        """
        store = Store.open(Path(path))
        try:
            return cls(store, model, other_variant=other_variant)
        except BaseException:
            store.close()
            raise

    @property
    def about(self) -> About:
        """What the index is of, and what made it."""
        return self._store.about

    def __len__(self) -> int:
        return len(self._reader.state().live)

    def close(self) -> None:
        """Close it."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- what to search for ----

    def text(self, text: str, weight: float = 1.0) -> Term:
        """A term of a query.

        Raises:
            TextError: the text is empty, or the index was opened without a model.
        """
        embedded = self._needed("a text").embed_texts([text])
        return Term(embedded.vectors[0], "text", weight, text, bool(embedded.cut))

    def picture(self, picture: Picture, weight: float = 1.0) -> Term:
        """A term of a query. A picture that is in the index, unchanged, is not opened.

        Raises:
            PictureError: it cannot be read.
            TextError: it is not in the index, which was opened without a model.
        """
        name = safe(os.fsdecode(picture)) if isinstance(picture, str | os.PathLike) else "a picture"
        if isinstance(picture, str | os.PathLike):
            known = self.vector(picture)
            if known is not None:
                return Term(known, "picture", weight, name)
        embedded = self._needed("a picture").embed_images([picture])
        if embedded.errors:
            raise embedded.errors[0]
        self._refuse_other()  # only now it is known how the image tower runs
        return Term(embedded.vectors[0], "picture", weight, name)

    def vector(self, path: str | os.PathLike[str]) -> NDArray[np.float32] | None:
        """The stored vector of a picture, float32 [width]; none if it is not in the index as it is now."""
        return self._reader.vector(path)

    @property
    def model(self) -> Siglip | None:
        """What embeds texts and pictures."""
        return self._model

    @property
    def difference(self) -> str | None:
        """How the model differs from the one that made the index, if it does."""
        return None if self._model is None else differs(self.about, self._model, self._store.where)

    def _refuse_other(self) -> None:
        """Raise SpaceError if the model is another than made the index, and that is not allowed."""
        difference = self.difference
        if difference and not self._other_variant:
            raise SpaceError(
                f"{self._store.where} was made by {difference}: scores would differ from those of one model",
                hint="search with the model that made it; or pass --other-variant (other_variant=True), "
                "which says how close the two are",
            )

    def _needed(self, what: str) -> Siglip:
        if self._model is None:
            raise TextError(
                f"{what} cannot be searched for without a model", hint="SearchIndex.open(path, model)"
            )
        return self._model

    # ---- searching ----

    def search(
        self,
        query: str | Query | Term | NDArray[np.float32],
        *,
        top: int | None = 20,
        threshold: float | None = None,
        quick: bool = False,
    ) -> list[Hit]:
        """Find pictures, best first.

        Args:
            query: a text; a term or several, as :meth:`text` and :meth:`picture` make them; or a unit vector [width].
            top: at most so many; all if none.
            threshold: only pictures that each text that counts for fits with at least this probability.
            quick: look among candidates that an approximate index names (needs the extra ``search``).

        Raises:
            TextError: the query is empty; or there is a threshold and no text; or a text and no model.
            SpaceError: a vector is of another length than those of the index.
            ArtifactError: the index is damaged, or cannot say probabilities.
            ValueError: ``top`` or ``threshold`` cannot be meant.
        """
        check_limits(top, threshold)
        wanted = self._query(query)
        if threshold is not None:
            if not wanted.wanted_texts:
                raise TextError("a threshold is a probability, which only a text that counts for has")
            if self.about.scoring is None:
                raise damaged(self._store.where, "its model has no scoring, so there are no probabilities")
        for _ in range(TRIES):
            state = self._reader.state()
            hits = self._search(state, wanted, top, threshold, quick)
            if hits is not None:
                return hits
        raise busy(self._store)

    def scores(self, labels: LabelSet) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """The cosines of every picture with labels: its path and float32 [labels], in the order of indexing.

        Raises:
            SpaceError: the labels were embedded by a model of another space.
        """
        same_space(self.about.space, labels.space)
        for part, named in self._reader.blocks():
            cosines = part @ labels.embeddings.vectors.T
            for path, place in named:
                yield path, cosines[place]

    def pictures(self) -> Iterator[str]:
        """The paths of all pictures that have a vector, sorted."""
        return self._reader.pictures()

    def errors(self) -> Iterator[tuple[str, str, str | None]]:
        """Pictures that could not be read: path, why, and the way out if there is one."""
        return self._reader.errors()

    def measured(self, sample: int = 4) -> tuple[float, float, int]:
        """How close the model is to the one that made the index, on some of its pictures.

        Returns:
            Mean and least cosine between a picture's vectors by the two, and of how many pictures; NaN of none.
        """
        model = self._needed("a picture")
        state = self._reader.state()
        wanted = state.live[
            np.linspace(0, len(state.live) - 1, min(16 * sample, len(state.live))).astype(np.int64)
        ]
        found = self._reader.named(state, wanted) or {}
        values: list[float] = []
        for row in wanted.tolist():
            if row in found and self.vector(found[row]) is not None and len(values) < sample:
                embedded = model.embed_images([found[row]])
                if not embedded.errors:
                    stored = state.rows.taken(np.array([row]))[0]
                    values.append(float(embedded.vectors[0] @ stored))
        if not values:
            return float("nan"), float("nan"), 0
        return float(np.mean(values)), min(values), len(values)

    def duplicates(
        self, above: float, on_done: Callable[[float], object] = lambda _: None
    ) -> list[list[tuple[str, float]]]:
        """Groups of pictures that are nearly alike, the largest first.

        Args:
            above: the least cosine of a pair.
            on_done: called with the number of pairs that were compared since the last call.

        Returns:
            For each group its pictures: path, and the cosine with the first.
        """
        state = self._reader.state()
        found = groups(state.rows, state.live, above, on_done)
        rows = np.array([row for group in found for row in group.rows], np.int64)
        named = self._reader.named(state, rows)
        if named is None:
            raise busy(self._store)
        listed = [
            [
                (named[row], cosine)
                for row, cosine in zip(group.rows, group.cosines, strict=True)
                if row in named
            ]
            for group in found
        ]
        return [group for group in listed if len(group) > 1]

    # ---- inside ----

    def _query(self, query: str | Query | Term | NDArray[np.float32]) -> Query:
        if isinstance(query, str):
            query = self.text(query)
        if isinstance(query, np.ndarray):
            query = Term(np.asarray(query, np.float32))
        if isinstance(query, Term):
            query = Query((query,))
        width = query.terms[0].vector.shape[0]
        if width != self.about.width:
            raise SpaceError(
                f"a vector of {width} numbers cannot be searched for: those of {self._store.where} have "
                f"{self.about.width}"
            )
        return query

    def _search(
        self, state: State, query: Query, top: int | None, threshold: float | None, quick: bool
    ) -> list[Hit] | None:
        """The hits in a state; none if the index was compacted meanwhile."""
        if not len(state.live):
            return []
        matrix = query.matrix()
        places = state.live
        sample = state.rows.taken(sample_rows(places)) @ matrix.T if len(query.terms) > 1 else matrix[:0]
        mix = Mix.of(query, sample)
        if quick and top is not None:
            key = (state.generation, state.rows.count)
            near = approximate.candidates(self._store.folder, key, state.rows, mix.vector(query), top)
            near = np.unique(near)
            places = near[state.live[np.searchsorted(state.live[:-1], near)] == near]
            cosines = state.rows.taken(places) @ matrix.T
        else:
            cosines = state.rows.cosines(matrix)
            if len(places) != len(cosines):
                cosines = cosines[places]
        scores = mix.scores(cosines)
        scoring = self.about.scoring
        if threshold is not None and scoring is not None:
            for term in query.wanted_texts:
                scores[probability(scaled(cosines[:, term], scoring)) < threshold] = -np.inf
        chosen = best(scores, top)
        named = self._reader.named(state, places[chosen])
        if named is None:
            return None
        hits = []
        for place in chosen.tolist():
            path = named.get(int(places[place]))
            if path is not None:  # removed a moment ago
                hits.append(self._hit(query, path, cosines[place], float(scores[place])))
        return hits

    def _hit(self, query: Query, path: str, cosines: NDArray[np.float32], score: float) -> Hit:
        single, scoring = query.single, self.about.scoring
        if single is None:
            return Hit(path, score)
        cosine = min(1.0, float(cosines[0]))  # float16 rounds the length, too
        if single.kind != "text" or scoring is None:
            return Hit(path, cosine, cosine)
        logit = scaled(cosines[:1], scoring)
        return Hit(path, float(logit[0]), cosine, float(logit[0]), float(probability(logit)[0]))


def differs(about: About, model: Siglip, where: str) -> str | None:
    """What made an index, if that is another variant than a model of the same space.

    Raises:
        SpaceError: the model is of another space.
    """
    refuse_other_space(about, model.space, where)
    manifest = model.info.manifest
    if manifest.weights_sha256 != about.weights:
        return f"{about.model} {about.variant}, not {manifest.model} {manifest.variant}"
    running = model.info.running.get("image")
    if running is not None and running.compute != about.compute:
        return f"{about.variant} in compute form {about.compute}, not {running.compute}"
    return None
