"""One worker's task: the rows of a shard, embedded into parts, but those that are there already."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sigrun.artifact import Artifact
from sigrun.bulk import parts
from sigrun.bulk.containers import Found
from sigrun.bulk.loaded import How, loaded
from sigrun.bulk.parts import Part, Place, Rows
from sigrun.bulk.samples import Sample
from sigrun.bulk.sources import Dataset, Task
from sigrun.errors import ArtifactError
from sigrun.manifest import Manifest
from sigrun.pictures import Picture


@dataclass(frozen=True)
class Order:
    """What all workers of a job are told.

    Attributes:
        how: the model.
        artifact: hash of what it says of itself, by which a worker knows that it has the same.
        about: ``space``, ``model`` and ``variant``.
        width: numbers in a vector.
        out: the folder of the parts.
        rows: rows in a part.
        run: hash of all that the rows follow from.
    """

    how: How
    artifact: str
    about: dict[str, str]
    width: int
    out: str
    rows: int
    run: str


def work(
    order: Order, dataset: Dataset, task: Task, on_progress: Callable[[int], object] | None = None
) -> list[Part]:
    """Do a task, or what is left of it.

    Args:
        order: of the job.
        dataset: what is embedded, without its tasks.
        task: which of them.
        on_progress: called with the number of rows that were done since the last call, or found done.

    Raises:
        ArtifactError: the model cannot be loaded, or is not the one of the job.
        OutputError: a part cannot be written.
    """
    folder = Path(order.out)
    done: list[Part] = []
    count = 0
    source: _Source | None = None
    while not done or not done[-1].last:
        place = Place(order.run, task.number, len(done), task.source, task.first + count)
        part = parts.read(folder, place)
        if part is not None:
            if source is not None:
                source.skip(part.rows)
            if on_progress is not None:
                on_progress(part.rows)
        else:
            if source is None:
                source = _Source(dataset.samples(task, count))
            part = parts.write(
                folder, place, _embedded(order, source, on_progress), dataset.kept, order.about
            )
        done.append(part)
        count += part.rows
    return done


class _Source:
    """Samples with a look at whether there is one more."""

    def __init__(self, samples: Iterator[Sample]) -> None:
        self._samples = samples
        self._next = next(samples, None)

    @property
    def empty(self) -> bool:
        return self._next is None

    def skip(self, count: int) -> None:
        for _ in itertools.islice(self, count):
            pass

    def __iter__(self) -> Iterator[Sample]:
        while self._next is not None:
            sample, self._next = self._next, next(self._samples, None)
            yield sample


def _embedded(order: Order, source: _Source, on_progress: Callable[[int], object] | None) -> Rows:
    """The next rows of a source; their pictures are decoded beside the computing and then let go."""
    samples: list[Sample] = []
    errors: list[str | None] = []
    places: list[int] = []

    def pictures() -> Iterator[Picture]:
        for sample in itertools.islice(source, order.rows):
            samples.append(Sample(sample.item, None, sample.error, sample.kept))
            errors.append(sample.error)
            if sample.picture is not None:
                places.append(len(samples) - 1)
                yield sample.picture

    _check_same(order.how, order.artifact)
    model = loaded(order.how)
    vectors = np.full((order.rows, order.width), np.nan, np.float32)
    reported = 0
    for done in model.iter_images(pictures()):
        row = places[done.row]
        if done.error is not None:
            errors[row] = done.error.message
        else:
            vectors[row] = done.vector
        if on_progress is not None:
            on_progress(row + 1 - reported)
            reported = row + 1
    if on_progress is not None:
        on_progress(len(samples) - reported)
    running = model.info.running["image"]
    return Rows(
        samples,
        Found(vectors[: len(samples)], errors),
        source.empty,
        running.compute,
        running.provider,
    )


_checked: set[tuple[How, str]] = set()


def artifact_hash(manifest: Manifest) -> str:
    """Hash of all that an artifact says of itself, the hashes of its weights and graphs among it."""
    return hashlib.sha256(manifest.to_json().encode("utf-8")).hexdigest()


def _check_same(how: How, artifact: str) -> None:
    """Raise :class:`ArtifactError` unless the file that lies at the path here is the job's."""
    if (how, artifact) in _checked:
        return
    with Artifact.open(how.path) as here:
        if artifact_hash(here.manifest) != artifact:
            raise ArtifactError(
                f"{how.path}: is not the model that the job began with",
                hint="every worker must find the same file there",
            )
    _checked.add((how, artifact))
