"""A data set into Parquet, on this machine or on Ray, as one job that may be stopped at any time."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sigrun.artifact import Artifact
from sigrun.bulk import folder, ray_engine
from sigrun.bulk.embedder import width_of
from sigrun.bulk.loaded import How, forget
from sigrun.bulk.parts import COLUMNS, Part
from sigrun.bulk.sources import Dataset, Kind, open_dataset
from sigrun.bulk.work import Order, artifact_hash, work
from sigrun.errors import OutputError, SigrunError

Engine = Literal["local", "ray"]
ROWS = 1024
"""Rows in a part by default: a killed worker loses fewer."""


@dataclass(frozen=True)
class Job:
    """What is embedded, and where to; make one with :meth:`planned`.

    Attributes:
        order: what the workers are told.
        dataset: what they read.
        settings: all that the rows follow from.
        about: what the manifest says of the job, beside its parts.
    """

    order: Order
    dataset: Dataset
    settings: Mapping[str, Any]
    about: Mapping[str, Any]

    @classmethod
    def planned(
        cls,
        how: How,
        source: Path,
        out: Path,
        *,
        kind: Kind | None = None,
        column: str | None = None,
        keep: Sequence[str] = (),
        rows: int = ROWS,
    ) -> Job:
        """Look at the model and the data set; nothing is written.

        Args:
            how: the model; its path absolute.
            source: a folder of pictures, tar shards or Parquet files, or one shard.
            out: the folder that the parts go to.
            kind: what to take from the source; by default what there is.
            column: the column of pictures in Parquet, or their ending in tar shards.
            keep: columns to pass through.
            rows: rows in a part.

        Raises:
            SigrunError: one of them cannot be used; the message says which and why.
        """
        source, out = source.absolute(), out.absolute()
        if out.resolve().is_relative_to(source.resolve()):
            raise OutputError(
                f"{out} lies in {source}: it would be read as part of it", hint="name another folder"
            )
        with Artifact.open(how.path) as artifact:
            manifest = artifact.manifest
            if "image" not in artifact.towers:
                raise SigrunError(f"{how.path}: has no image tower", hint="export it with both towers")
        dataset = open_dataset(source, kind, column, keep, rows)
        _check_keep(dataset.keep)
        artifact_sha256 = artifact_hash(manifest)
        settings: dict[str, Any] = {
            "kind": dataset.kind,
            "source": dataset.fingerprint,
            "column": dataset.column,
            "keep": list(dataset.keep),
            "rows": rows,
            "artifact": artifact_sha256,
            "compute": how.compute,
            "provider": how.provider,
            "decode": how.decode,
            "max_pixels": how.max_pixels,
        }
        run = hashlib.sha256(json.dumps(settings, sort_keys=True).encode("utf-8")).hexdigest()
        names = {"space": manifest.space, "model": manifest.model, "variant": manifest.variant}
        width = width_of(manifest)
        order = Order(how, artifact_sha256, names, width, str(out), rows, run)
        about = {
            **names,
            "width": width,
            "columns": [*COLUMNS, *dataset.keep],
            "source": {"path": source.name, "kind": dataset.kind, "sha256": dataset.fingerprint},
        }
        return cls(order, dataset, settings, about)

    def done(
        self,
        *,
        engine: Engine = "local",
        workers: int | None = None,
        restart: bool = False,
        on_progress: Callable[[int], object] | None = None,
    ) -> Mapping[str, Any]:
        """Do what is left of the job.

        Args:
            engine: where.
            workers: on Ray, how many; by default one a node.
            restart: throw away what an earlier job left in the folder.
            on_progress: called now and then with the number of rows that were done since the last call.

        Returns:
            The manifest.

        Raises:
            OutputError: the folder is another job's, or cannot be written.
            SigrunError: the model does not run, or Ray does not.
        """
        out = Path(self.order.out)
        with folder.opened(out, self.settings, restart=restart):
            manifest = folder.complete(out)
            if manifest is not None:
                return manifest
            advance = on_progress or _nobody
            if engine == "ray":
                results = ray_engine.run(self.order, self.dataset, workers, advance)
            else:
                results = self._local(advance)
            parts = dict(results)
            ordered = [part for number in sorted(parts) for part in parts[number]]
            return folder.finish(out, self.settings, self.about, ordered)

    def _local(self, on_progress: Callable[[int], object]) -> Iterator[tuple[int, list[Part]]]:
        """Each task with its parts, one after the other."""
        dataset = dataclasses.replace(self.dataset, tasks=())
        try:
            for task in self.dataset.tasks:
                yield task.number, work(self.order, dataset, task, on_progress)
        finally:
            forget(self.order.how)


def _nobody(_: int) -> None:
    pass


def _check_keep(keep: Sequence[str]) -> None:
    """Raise :class:`SigrunError` if a column that is passed through would stand there twice."""
    for name in keep:
        if name in COLUMNS or keep.count(name) > 1:
            raise SigrunError(
                f"--keep {name}: there is a column of that name already",
                hint=f"these are written in any case: {', '.join(COLUMNS)}",
            )
