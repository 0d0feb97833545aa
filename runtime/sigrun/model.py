"""The model as a user holds it: pictures and texts in, embeddings and scores out."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sigrun.artifact import Artifact
from sigrun.embeddings import Embeddings, LabelSet, same_space
from sigrun.errors import ArtifactError, PictureError, ProviderError, TextError
from sigrun.manifest import TOWERS, Manifest, TowerName
from sigrun.pixels import DEFAULT_MAX_PIXELS, Picture, open_picture, to_pixels
from sigrun.prepared import Cache, cache_folder
from sigrun.scores import Score, logits, rank
from sigrun.sessions import FORMS, PROVIDERS, TowerSession, usable_cpus
from sigrun.tokens import Tokenizer

MOST_THREADS = 256
MICRO_BATCH_TOKENS = 1500
"""Tokens run at once: on a CPU larger batches are no faster per picture and hold more memory."""


@dataclass(frozen=True)
class Info:
    """What a loaded model is.

    Attributes:
        path: the artifact.
        nbytes: its size in bytes.
        tower_nbytes: tower → bytes of its stored weights.
        loaded: towers in memory now.
        compute: compute form.
        provider: where it runs.
        threads: threads within one run.
        manifest: everything the file says of itself.
    """

    path: str
    nbytes: int
    tower_nbytes: Mapping[str, int]
    loaded: tuple[TowerName, ...]
    compute: str
    provider: str
    threads: int
    manifest: Manifest


class Siglip:
    """A SigLIP model. Make one with :meth:`load`; safe to use from several threads."""

    def __init__(
        self,
        artifact: Artifact,
        compute: str,
        provider: str,
        threads: int,
        max_pixels: int,
        cache: Path | None = None,
    ) -> None:
        self._artifact = artifact
        self._compute = compute
        self._provider = provider
        self._threads = threads
        self._max_pixels = max_pixels
        self._cache = cache
        self._sessions: dict[TowerName, TowerSession] = {}
        self._tokenizer: Tokenizer | None = None
        self._lock = threading.RLock()

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        compute: str = "auto",
        provider: str = "auto",
        threads: int | None = None,
        towers: Literal["auto", "image", "text", "both"] = "auto",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        cache: Cache = "auto",
    ) -> Self:
        """Open an artifact.

        While a model is loaded, its file must not be changed in place, only replaced by a renamed one: parts of it
        are read when they are needed.

        Args:
            path: a ``.gguf`` file made by ``sigrun-export``.
            compute: ``exact`` multiplies the stored numbers in float32; ``int8`` rounds the layers anew to 8 bits,
                which CPUs multiply several times faster; ``auto`` is ``exact`` in this version.
            provider: where to run; this version has ``cpu``, and ``auto`` means it.
            threads: threads within one run; by default one for each CPU that the process may use.
            towers: which to unpack now; ``auto`` unpacks each when it is first used.
            max_pixels: pictures of more pixels are refused before they are decoded.
            cache: the folder in which the matrices of form ``int8`` are kept, so that the next process need not round
                them again; none to keep nothing. ``auto`` is what the environment variable ``SIGRUN_CACHE`` names, a
                folder or ``off``, and without it ``sigrun`` among the user's caches.

        Raises:
            ArtifactError: the file is missing, damaged or foreign.
            ProviderError: the compute form or provider does not exist here.
        """
        form = FORMS[0] if compute == "auto" else compute
        if form not in FORMS:
            raise ProviderError(f"there is no compute form '{compute}'; there are: auto, {', '.join(FORMS)}")
        where = next(iter(PROVIDERS)) if provider == "auto" else provider
        if where not in PROVIDERS:
            raise ProviderError(f"there is no provider '{provider}'; there are: auto, {', '.join(PROVIDERS)}")
        if threads is not None and not 1 <= threads <= MOST_THREADS:
            raise ProviderError(f"threads must be 1 to {MOST_THREADS}, not {threads}")
        wanted: dict[str, tuple[TowerName, ...]] = {
            "auto": (),
            "image": ("image",),
            "text": ("text",),
            "both": TOWERS,
        }
        if towers not in wanted:
            raise ValueError(f"towers must be one of {', '.join(wanted)}, not {towers!r}")
        kept = cache_folder(cache)
        model = cls(Artifact.open(path), form, where, threads or usable_cpus(), max_pixels, kept)
        try:
            for tower in wanted[towers]:
                model._session(tower)
        except BaseException:
            model.close()
            raise
        return model

    def __repr__(self) -> str:
        return f"<Siglip {self._artifact.path} compute={self._compute} loaded={self._loaded()}>"

    @property
    def space(self) -> str:
        """The embedding space id."""
        return self._artifact.manifest.space

    @property
    def info(self) -> Info:
        """What this model is and which towers are in memory."""
        artifact = self._artifact
        return Info(
            path=artifact.path,
            nbytes=artifact.nbytes,
            tower_nbytes={tower: artifact.tower_nbytes(tower) for tower in artifact.towers},
            loaded=self._loaded(),
            compute=self._compute,
            provider=self._provider,
            threads=self._threads,
            manifest=artifact.manifest,
        )

    def embed_images(self, pictures: Iterable[Picture]) -> Embeddings:
        """Embed pictures: paths, bytes, file objects, Pillow images or uint8 arrays.

        A picture that cannot be read becomes an error of its row; the others are not touched by it.

        Returns:
            Embeddings, float32 [n, width].
        """
        if _one_picture(pictures):
            raise PictureError(
                f"pictures must be a list of pictures, not one {type(pictures).__name__}",
                hint="write [picture]",
            )
        session = self._session("image")
        preprocessing = self._artifact.manifest.preprocessing
        vectors: list[NDArray[np.float32]] = []
        errors: dict[int, PictureError] = {}
        pending: list[tuple[int, NDArray[np.float32]]] = []

        def flush() -> None:
            if pending:
                embeds = session.embed(np.stack([pixels for _, pixels in pending]))
                for (row, _), vector in zip(pending, embeds, strict=True):
                    vectors[row] = vector
                pending.clear()

        blank = np.full(session.width, np.nan, np.float32)
        for row, picture in enumerate(pictures):
            vectors.append(blank)
            try:
                pending.append(
                    (row, to_pixels(open_picture(picture, max_pixels=self._max_pixels), preprocessing))
                )
            except PictureError as error:
                errors[row] = error
            if len(pending) == _micro_batch(session):
                flush()
        flush()
        stacked = np.stack(vectors) if vectors else np.empty((0, session.width), np.float32)
        return Embeddings(stacked, self.space, errors)

    def embed_texts(
        self, texts: Sequence[str], *, on_progress: Callable[[int], object] | None = None
    ) -> Embeddings:
        """Embed texts; each is made canonical, cut into tokens and padded as the model was trained.

        Args:
            texts: the texts.
            on_progress: called after each micro-batch with the number of texts in it.

        Returns:
            Embeddings, float32 [n, projection].

        Raises:
            TextError: a text is empty or not a string.
            ArtifactError: the artifact has no text tower.
        """
        if isinstance(texts, str):
            raise TextError("texts must be a list of strings, not one string", hint="write [text]")
        listed = list(texts)
        session = self._session("text")
        if not listed:
            return Embeddings(np.empty((0, session.width), np.float32), self.space)
        tokens = self._text_tokenizer().encode(listed)
        size = _micro_batch(session)
        parts = []
        for start in range(0, len(listed), size):
            ids = tokens.ids[start : start + size]  # [n, context]
            parts.append(session.embed(self._artifact.token_rows(ids)))
            if on_progress is not None:
                on_progress(len(ids))
        return Embeddings(np.concatenate(parts), self.space, cut=tuple(np.flatnonzero(tokens.cut).tolist()))

    def label_set(
        self,
        labels: Sequence[str],
        *,
        template: str = "{}",
        on_progress: Callable[[int], object] | None = None,
    ) -> LabelSet:
        """Embed labels once, to classify many pictures with them.

        Args:
            labels: at least one, none empty.
            template: a sentence with ``{}`` where the label goes, such as ``This is a photo of {}.``
            on_progress: called after each micro-batch with the number of labels in it.

        Raises:
            TextError: there are no labels, one is empty, or the template has no ``{}``.
            ArtifactError: the artifact has no text tower.
        """
        listed = [] if isinstance(labels, str) else list(labels)
        if not listed:
            given = isinstance(labels, str) and labels
            raise TextError(
                "there is no list of labels to score",
                hint=f'write ["{labels}"]' if given else 'give at least one, such as ["a cat"]',
            )
        if "{}" not in template:
            raise TextError(f"the template {template!r} has no {{}} where the label would go")
        for number, label in enumerate(listed, 1):
            if not isinstance(label, str):
                raise TextError(f"label {number} is not a text: {label!r}")
            if not label.strip():
                raise TextError(f"label {number} is empty: {label!r}")
        filled = [template.replace("{}", label) for label in listed]
        return LabelSet(tuple(listed), self.embed_texts(filled, on_progress=on_progress))

    def classify(self, picture: Picture, labels: Sequence[str] | LabelSet) -> list[Score]:
        """Score one picture against labels, best first.

        Each probability stands for itself: how likely that text fits the picture. They do not sum to 1.

        Raises:
            PictureError: the picture cannot be read.
            TextError: there are no labels or one is empty.
            SpaceError: the label set was made by another model.
            ArtifactError: the artifact has no text tower.
        """
        chosen = labels if isinstance(labels, LabelSet) else self.label_set(labels)
        embedded = self.embed_images([picture])
        if embedded.errors:
            raise embedded.errors[0]
        return self.score(embedded, chosen)[0]

    def score(self, images: Embeddings, labels: LabelSet) -> list[list[Score]]:
        """Score embedded pictures against labels: one list a picture, best first. Rows that failed give no scores.

        Raises:
            SpaceError: the pictures or the labels were embedded by another model.
            ArtifactError: the artifact has no text tower, so no scoring constants.
        """
        scoring = self._artifact.manifest.scoring
        if scoring is None:
            raise no_such_tower(self._artifact, "text" if "image" in self._artifact.towers else "image")
        same_space(self.space, images.space)
        same_space(self.space, labels.embeddings.space)
        matrix = logits(images.vectors, labels.embeddings.vectors, scoring)  # [n, labels]
        return [
            [] if row in images.errors else rank(labels.labels, matrix[row]) for row in range(len(images))
        ]

    def unload(self, tower: TowerName) -> None:
        """Give a tower's memory back; it is unpacked again when next used."""
        with self._lock:
            self._sessions.pop(tower, None)

    def close(self) -> None:
        """Give everything back."""
        with self._lock:
            self._sessions.clear()
            self._artifact.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _session(self, tower: TowerName) -> TowerSession:
        with self._lock:
            session = self._sessions.get(tower)
            if session is None:
                if tower not in self._artifact.towers:
                    raise no_such_tower(self._artifact, tower)
                session = TowerSession(self._artifact, tower, self._compute, self._threads, cache=self._cache)
                self._sessions[tower] = session
            return session

    def _loaded(self) -> tuple[TowerName, ...]:
        with self._lock:
            return tuple(self._sessions)

    def _text_tokenizer(self) -> Tokenizer:
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = Tokenizer(self._artifact.tokenizer())
            return self._tokenizer


def no_such_tower(artifact: Artifact, tower: TowerName) -> ArtifactError:
    """The error of asking an artifact for a tower that it was exported without."""
    have = " and ".join(artifact.towers) or "no"
    return ArtifactError(
        f"{artifact.path}: has no {tower} tower: the checkpoint it was exported from "
        f"({artifact.manifest.source.model}) holds the {have} tower alone",
        hint="embed pictures with it; to score labels, export a checkpoint with both towers"
        if tower == "text"
        else "export a checkpoint with both towers",
    )


def _micro_batch(session: TowerSession) -> int:
    return max(1, MICRO_BATCH_TOKENS // session.tokens)


def _one_picture(pictures: object) -> bool:
    """Whether somebody handed over a picture where a list of pictures belongs."""
    if isinstance(pictures, np.ndarray):
        return pictures.ndim <= 3
    return isinstance(pictures, str | bytes | os.PathLike | Image.Image) or hasattr(pictures, "read")
