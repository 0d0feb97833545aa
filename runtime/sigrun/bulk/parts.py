"""Parquet files of a finished stretch of rows: what of a job survives, whatever ends the process.

A part is written beside its place and renamed when its bytes are on the disk, so that a file of its name is whole. Its
footer says whose it is. What is there already is therefore known from the parts alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sigrun.bulk.containers import Found, arrow_vectors
from sigrun.bulk.packages import pyarrow
from sigrun.bulk.samples import Sample
from sigrun.errors import OutputError
from sigrun.output import finished

ROW_GROUP = 1024  # rows
COLUMNS = ("source", "row", "item", "embedding", "error")
_KEY = b"sigrun.part"


@dataclass(frozen=True)
class Place:
    """Which stretch of rows a part holds.

    Attributes:
        run: hash of all that the rows follow from.
        task: number of the task.
        part: its place among the task's parts.
        source: the shard as the rows name it.
        first: place of its first row in the shard.
    """

    run: str
    task: int
    part: int
    source: str
    first: int

    @property
    def name(self) -> str:
        """The file's name."""
        return f"part-{self.task:06d}-{self.part:05d}.parquet"


@dataclass(frozen=True)
class Part:
    """A finished part, as the manifest lists it.

    Attributes:
        file: its name.
        source: the shard as the rows name it.
        first: place of its first row in the shard.
        rows: how many it has.
        errors: how many of them failed.
        last: whether the task ends with it.
        compute: compute form that was used.
        provider: where that ran.
        nbytes: size of the file.
        sha256: hash of the file.
    """

    file: str
    source: str
    first: int
    rows: int
    errors: int
    last: bool
    compute: str
    provider: str
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class Rows:
    """What a part holds.

    Attributes:
        samples: its rows as they were read.
        found: what became of them.
        last: whether the task ends here.
        compute: compute form that was used.
        provider: where that ran.
    """

    samples: Sequence[Sample]
    found: Found
    last: bool
    compute: str
    provider: str


def read(folder: Path, place: Place) -> Part | None:
    """The part at a place, if it is there, whole and of this run."""
    pa = pyarrow()
    path = folder / place.name
    try:
        with pa.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            about = json.loads((file.schema_arrow.metadata or {}).get(_KEY, b"null"))
            if not isinstance(about, dict) or not _same(about, place):
                return None
            errors = 0
            for batch in file.iter_batches(ROW_GROUP):  # all of it, so that damage shows
                words = batch.column("error")
                errors += len(words) - words.null_count
            rows = file.metadata.num_rows
        return Part(
            place.name,
            place.source,
            place.first,
            rows,
            errors,
            bool(about["last"]),
            str(about["compute"]),
            str(about["provider"]),
            path.stat().st_size,
            _hash(path),
        )
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return None


def write(folder: Path, place: Place, rows: Rows, kept: bytes, about: Mapping[str, str]) -> Part:
    """Write a part; once this returns it survives whatever happens to the process.

    Args:
        folder: where the parts lie.
        place: which stretch of rows it is.
        rows: what it holds.
        kept: the schema of the columns that are passed through.
        about: ``space``, ``model`` and ``variant``.

    Raises:
        OutputError: it cannot be written.
    """
    pa = pyarrow()
    path = folder / place.name
    table = _table(pa, place, rows, kept, about)
    try:
        with finished(path, force=True) as partial:
            pa.parquet.write_table(
                table, partial, row_group_size=ROW_GROUP, use_dictionary=["source"], write_page_checksum=True
            )
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            digest, nbytes = _hash(partial), partial.stat().st_size
    except OutputError as error:  # of this file alone
        reason = getattr(error.__cause__, "strerror", None) or error.message
        raise OutputError(
            f"{path} cannot be written: {reason}; the files that are finished are kept",
            hint="when this is mended, the same command goes on",
        ) from error
    errors = sum(why is not None for why in rows.found.errors)
    return Part(
        place.name,
        place.source,
        place.first,
        len(rows.samples),
        errors,
        rows.last,
        rows.compute,
        rows.provider,
        nbytes,
        digest,
    )


def _same(about: Mapping[str, Any], place: Place) -> bool:
    return about.get("place") == [place.run, place.task, place.part, place.source, place.first]


def _table(pa: Any, place: Place, rows: Rows, kept: bytes, about: Mapping[str, str]) -> Any:
    samples = rows.samples
    # Lists of one size in memory, plain lists in the file: pyarrow before 26 cannot read the others where one is null.
    vectors = arrow_vectors(pa, rows.found).cast(pa.list_(pa.float32()))
    fields = [
        pa.field("source", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("item", pa.string()),
        pa.field("embedding", vectors.type),
        pa.field("error", pa.string()),
    ]
    columns = [
        pa.array([place.source] * len(samples), pa.string()),
        pa.array(range(place.first, place.first + len(samples)), pa.int64()),
        pa.array([sample.item for sample in samples], pa.string()),
        vectors,
        pa.array(rows.found.errors, pa.string()),
    ]
    for field in pa.ipc.read_schema(pa.py_buffer(kept)) if kept else ():
        fields.append(field)
        columns.append(_kept(pa, [sample.kept.get(field.name) for sample in samples], field.type))
    note = {
        "place": [place.run, place.task, place.part, place.source, place.first],
        "last": rows.last,
        "compute": rows.compute,
        "provider": rows.provider,
    }
    metadata = {f"sigrun.{name}": value for name, value in about.items()} | {_KEY: json.dumps(note)}
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=metadata))


def _kept(pa: Any, values: list[Any], kind: Any) -> Any:
    """A column that is passed through."""
    if not any(isinstance(value, pa.Array) for value in values):
        return pa.array(values, kind)
    return pa.concat_arrays([pa.nulls(1, kind) if value is None else value for value in values])


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
