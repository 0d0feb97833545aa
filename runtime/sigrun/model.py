"""The model as a user holds it: pictures and texts in, embeddings and scores out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Literal, Self

from sigrun import pipeline, zero_shot
from sigrun.artifact import Artifact
from sigrun.batches import micro_batch
from sigrun.calibrate import Calibration, Truth, calibrate
from sigrun.cpus import default_threads
from sigrun.embeddings import EmbeddedPicture, Embeddings, same_space
from sigrun.info import Info as Info
from sigrun.labels import LabelSet, Origin
from sigrun.manifest import TOWERS, TowerName
from sigrun.pictures import DEFAULT_MAX_PIXELS, Decode, Picture, Rules
from sigrun.prepared import Cache
from sigrun.scores import Score, Scoring, check_limits
from sigrun.selftest import SelfTest
from sigrun.sessions import TowerSession
from sigrun.templates import chosen
from sigrun.texts import embed_texts, listed_texts
from sigrun.towers import Settings, Towers, no_such_tower


class Siglip:
    """A SigLIP model. Make one with :meth:`load`; safe to use from several threads."""

    def __init__(self, artifact: Artifact, settings: Settings) -> None:
        self._artifact = artifact
        self._settings = settings
        self._towers = Towers(artifact, settings)
        self._absolute = os.path.abspath(artifact.path)  # noqa: PTH100  (links stay links)

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
        decode: Decode = "exact",
        cache: Cache = "auto",
    ) -> Self:
        """Open an artifact.

        While a model is loaded, its file must not be changed in place, only replaced by a renamed one: parts of it
        are read when they are needed.

        Args:
            path: a ``.gguf`` file made by ``sigrun-export``.
            compute: ``exact`` multiplies the stored numbers in float32; ``int8`` rounds the layers anew to 8 bits,
                which CPUs multiply several times faster; ``f16`` and ``w4f16`` compute in 16 bits, for GPUs, and run
                on CPUs slowly. ``auto`` is, on CPUs, ``int8`` where the artifact's own verification passed, else
                ``exact``; on GPUs ``f16`` where it fits into free memory, else ``w4f16``.
            provider: where to run: ``cpu``, ``cuda``, ``cuda:1`` for the second device, and others, see
                ``sigrun.providers``. ``auto`` takes the first that is installed, starts and passes its self-test, and
                warns of those that it passes over; one that is named must work.
            threads: threads within one run; by default one for each physical core that the process may use.
            towers: which to unpack now; ``auto`` unpacks each when it is first used.
            max_pixels: pictures of more pixels are refused before they are decoded.
            decode: ``fast`` decodes large JPEGs at a fraction of their size, which changes their pixels a little.
            cache: the folder in which the matrices of form ``int8`` are kept, so that the next process need not round
                them again; none to keep nothing. ``auto`` is what the environment variable ``SIGRUN_CACHE`` names, a
                folder or ``off``, and without it ``sigrun`` among the user's caches.

        Raises:
            ArtifactError: the file is missing, damaged or foreign.
            ProviderError: the compute form or provider does not exist or does not work here.
            ValueError: ``towers`` or ``decode`` is unknown, or ``max_pixels`` less than 1.
        """
        settings = Settings(compute, provider, threads, max_pixels, decode, cache)
        wanted: dict[str, tuple[TowerName, ...]] = {
            "auto": (),
            "image": ("image",),
            "text": ("text",),
            "both": TOWERS,
        }
        if towers not in wanted:
            raise ValueError(f"towers must be one of {', '.join(wanted)}, not {towers!r}")
        model = cls(Artifact.open(path), settings)
        try:
            for tower in wanted[towers]:
                model._session(tower)
        except BaseException:
            model.close()
            raise
        return model

    def __repr__(self) -> str:
        return f"<Siglip {self._artifact.path} compute={self._settings.compute} loaded={self._loaded()}>"

    def __reduce__(self) -> tuple[object, ...]:
        return _reopened, (type(self), self._absolute, self._settings, self.space)

    @property
    def space(self) -> str:
        """The embedding space id."""
        return self._artifact.manifest.space

    @property
    def info(self) -> Info:
        """What this model is and which towers are in memory."""
        artifact = self._artifact
        first = self._towers.first()
        return Info(
            path=artifact.path,
            nbytes=artifact.nbytes,
            tower_nbytes={tower: artifact.tower_nbytes(tower) for tower in artifact.towers},
            loaded=self._loaded(),
            compute=first.compute,
            provider=first.provider,
            threads=self._towers.threads,
            manifest=artifact.manifest,
            running=self._towers.running(),
        )

    def embed_images(
        self,
        pictures: Iterable[Picture],
        *,
        features: bool = False,
        on_progress: Callable[[int], object] | None = None,
    ) -> Embeddings:
        """Embed pictures: paths, data URIs, bytes, file objects, Pillow images or uint8 arrays.

        A picture that cannot be read becomes an error of its row; the others are not touched by it. While some are
        computed, the next are decoded.

        Args:
            pictures: any number of them, asked for a little ahead of what is computed.
            features: give the last hidden state too, a vector a patch, as the eyes of a language model take it.
            on_progress: called now and then with the number of pictures that were done since the last call.

        Returns:
            Embeddings, float32 [n, width].
        """
        eyes = self._eyes(pictures)
        return pipeline.collect(pictures, eyes, space=self.space, features=features, on_progress=on_progress)

    def iter_images(
        self, pictures: Iterable[Picture], *, features: bool = False
    ) -> Iterator[EmbeddedPicture]:
        """Embed pictures one after the other, in the order given, however many: nothing is kept.

        As :meth:`embed_images` otherwise. What ``pictures`` raises is raised after the rows of those before. The
        threads that decode end with the iterator; ``close()`` ends it early.
        """
        return pipeline.embed(pictures, self._eyes(pictures), features=features)

    def _eyes(self, pictures: object) -> pipeline.Eyes:
        """What pictures are embedded with.

        Raises:
            PictureError: this is one picture where a list of pictures belongs.
        """
        pipeline.refuse_one_picture(pictures)
        preprocessing = self._artifact.manifest.preprocessing
        rules = Rules(self._settings.max_pixels, self._settings.decode, preprocessing.least)
        threads = pipeline.decoders(self._settings.threads or default_threads())
        return pipeline.Eyes(self._session("image"), preprocessing, rules, threads)

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
        listed = listed_texts(texts)
        session = self._session("text")
        tokenizer = self._towers.tokenizer()
        return embed_texts(
            listed, self._artifact, session, tokenizer, micro_batch(session.tokens, session.form), on_progress
        )

    def label_set(
        self,
        labels: Sequence[str],
        *,
        template: str = "{}",
        templates: Sequence[str] | None = None,
        on_progress: Callable[[int], object] | None = None,
    ) -> LabelSet:
        """Embed labels once, to classify many pictures with them.

        Args:
            labels: at least one, none empty.
            template: a sentence with ``{}`` where the label goes, such as ``This is a photo of {}.``
            templates: several sentences instead, such as ``sigrun.templates.IMAGENET_80``: a label's vector is then the
                mean of its unit vectors in each of them, of unit length again.
            on_progress: called now and then with the number of labels that were done since the last call.

        Raises:
            TextError: there are no labels, one is empty, a template has no ``{}``, or both kinds are given.
            ArtifactError: the artifact has no text tower.
        """
        manifest = self._artifact.manifest
        origin = Origin(
            f"{manifest.model} {manifest.variant}", manifest.canonicalisation or "none", manifest.scoring
        )

        def embed(texts: Sequence[str], advance: Callable[[int], object] | None) -> Embeddings:
            return self.embed_texts(texts, on_progress=advance)

        return zero_shot.make(embed, labels, chosen(template, templates), origin, on_progress)

    def classify(
        self,
        picture: Picture,
        labels: Sequence[str] | LabelSet,
        *,
        top: int | None = None,
        threshold: float | None = None,
    ) -> list[Score]:
        """Score one picture against labels, best first.

        Each probability stands for itself: how likely that text fits the picture. They do not sum to 1.

        Args:
            picture: what :meth:`embed_images` takes as one of its pictures.
            labels: texts, or a set made of them, which need not be embedded again.
            top: keep only so many.
            threshold: keep only labels of at least this probability.

        Raises:
            PictureError: the picture cannot be read.
            TextError: there are no labels or one is empty.
            SpaceError: the label set was made by another model.
            ArtifactError: the artifact has no text tower.
            ValueError: ``top`` or ``threshold`` cannot be meant.
        """
        check_limits(top, threshold)
        wanted = labels if isinstance(labels, LabelSet) else self.label_set(labels)
        same_space(self.space, wanted.space)
        embedded = self.embed_images([picture])
        if embedded.errors:
            raise embedded.errors[0]
        return self.score(embedded, wanted, top=top, threshold=threshold)[0]

    def score(
        self,
        images: Embeddings,
        labels: LabelSet,
        *,
        top: int | None = None,
        threshold: float | None = None,
    ) -> list[list[Score]]:
        """Score embedded pictures against labels: one list a picture, best first. Rows that failed give no scores.

        A set that was calibrated is scored with its own constants, any other with this model's.

        Args:
            images: pictures, embedded.
            labels: labels, embedded.
            top: keep only so many of each picture.
            threshold: keep only labels of at least this probability.

        Raises:
            SpaceError: the pictures or the labels were embedded by another model.
            ArtifactError: neither the set nor the artifact has scoring constants: they need both towers.
            ValueError: ``top`` or ``threshold`` cannot be meant.
        """
        same_space(self.space, images.space)
        return zero_shot.score(images, labels, self._scoring(labels), top=top, threshold=threshold)

    def calibrate(
        self,
        labels: LabelSet,
        pictures: Iterable[Picture],
        truths: Sequence[Truth],
        *,
        scale: bool = True,
        on_progress: Callable[[int], object] | None = None,
    ) -> Calibration:
        """Fit bias and scale of the scores to a few pictures whose labels are known.

        Ranking does not change; probabilities become those of your pictures and labels. The result holds the set with
        the new constants, and what they do to pictures that the fit did not see.

        Args:
            labels: the set to calibrate.
            pictures: at least two of them readable. One that cannot be read is left out, and the result says so.
            truths: for each picture the label that fits it, or a list of all that do, which may be empty.
            scale: fit the scale too, not the bias alone.
            on_progress: called now and then with the number of pictures that were done since the last call.

        Raises:
            TextError: a truth is not among the labels, or they are not as many as the pictures.
            PictureError: fewer than two pictures can be read.
            SpaceError: the set was made by another model.
            ArtifactError: there are no constants to start from.
        """
        same_space(self.space, labels.space)
        scoring = self._scoring(labels)
        images = self.embed_images(pictures, on_progress=on_progress)
        return calibrate(labels, images, truths, scoring, scale=scale)

    def self_test(self, tower: TowerName | None = None) -> SelfTest:
        """Embed a known picture and a known text and compare with what the exporter computed.

        On CPUs this is done only when it is asked for: it costs as much as embedding a picture and a text. On any other
        provider it is done once, when a tower is first used.

        Args:
            tower: test this one alone.

        Returns:
            What was found; a tower that deviates or cannot run is no exception.

        Raises:
            ValueError: ``tower`` is neither ``image`` nor ``text``.
        """
        return self._towers.test(self._artifact.towers if tower is None else (tower,))

    def preload(self, tower: TowerName) -> None:
        """Load a tower now, if it is not yet, rather than when it is first used.

        Raises:
            ArtifactError: there is no such tower, the file is damaged, or the model is closed.
            ProviderError: it cannot run as asked.
            ValueError: ``tower`` is neither ``image`` nor ``text``.
        """
        self._session(_known(tower))

    def unload(self, tower: TowerName) -> None:
        """Give a tower's memory back; it is unpacked again when next used.

        Raises:
            ValueError: ``tower`` is neither ``image`` nor ``text``.
        """
        self._towers.unload(_known(tower))

    def close(self) -> None:
        """Give everything back. The model cannot be used any more."""
        self._towers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _session(self, tower: TowerName) -> TowerSession:
        return self._towers.get(tower)

    def _scoring(self, labels: LabelSet) -> Scoring:
        scoring = labels.constants(self._artifact.manifest.scoring)
        if scoring is None:
            raise no_such_tower(self._artifact, "text" if "image" in self._artifact.towers else "image")
        return scoring

    def _loaded(self) -> tuple[TowerName, ...]:
        return tuple(self._towers.running())


def _known(tower: TowerName) -> TowerName:
    if tower not in TOWERS:
        raise ValueError(f"tower must be {' or '.join(TOWERS)}, not {tower!r}")
    return tower


def _reopened(kind: type[Siglip], path: str, settings: Settings, space: str) -> Siglip:
    """A model that was pickled, from its path.

    Raises:
        SpaceError: there is a model of another embedding space by now.
    """
    model = kind(Artifact.open(path), settings)
    try:
        same_space(space, model.space)
    except BaseException:
        model.close()
        raise
    return model
