"""Samples from Parquet files that hold the bytes of pictures."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sigrun.bulk.packages import pyarrow
from sigrun.bulk.samples import MOST_BYTES, Sample, unreadable
from sigrun.errors import SigrunError
from sigrun.gather import safe

ROWS = 16  # rows read at a time


def schema_of(path: Path) -> Any | None:
    """The Arrow schema of a file; none if it cannot be read."""
    pa = pyarrow()
    try:
        with pa.parquet.ParquetFile(path) as file:
            return file.schema_arrow
    except (pa.ArrowException, OSError):
        return None


def picture_column(schema: Any, wanted: str | None, path: Path) -> str:
    """The column of pictures.

    Args:
        schema: Arrow schema of the file.
        wanted: what the user named, if anything.
        path: the file, for messages.

    Raises:
        SigrunError: it is not there, holds no bytes, or there is more than one and none was named.
    """
    able: list[str] = [field.name for field in schema if _holds_pictures(field.type)]
    columns = ", ".join(schema.names)
    if wanted is not None:
        if wanted not in schema.names:
            raise SigrunError(f"{path} has no column '{wanted}'; its columns are: {columns}")
        if wanted not in able:
            raise SigrunError(
                f"{path}: column '{wanted}' holds {schema.field(wanted).type}, not the bytes of pictures",
                hint=f"columns of bytes here: {', '.join(able) or 'none'}",
            )
        return wanted
    if len(able) != 1:
        found = "more than one column" if able else "no column"
        raise SigrunError(
            f"{path} has {found} that may hold pictures; its columns are: {columns}",
            hint=f"name one with --column: {', '.join(able)}" if able else None,
        )
    return able[0]


def _holds_pictures(kind: Any) -> bool:
    """Whether a type is bytes, or a struct with bytes as the package ``datasets`` writes pictures."""
    types = pyarrow().types
    if types.is_struct(kind):
        return any(field.name == "bytes" and _holds_pictures(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def samples(path: Path, column: str, keep: Sequence[str], skip: int) -> Iterator[Sample]:
    """The rows of a file, in order; those of a part that cannot be read are errors.

    Args:
        path: a Parquet file.
        column: the column of pictures.
        keep: columns to pass through.
        skip: leave out so many rows.

    Raises:
        SigrunError: the drive does not give the file's bytes.
    """
    pa = pyarrow()
    try:
        file = pa.parquet.ParquetFile(
            path, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True
        )
    except (pa.ArrowException, OSError) as error:
        _raise_of_drive(path, error)
        if not skip:
            yield Sample(None, None, f"the file cannot be read as Parquet: {_words(error)}")
        return
    with file:
        first = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if first + rows > skip:
                yield from _group(path, file, group, rows, max(0, skip - first), column, keep)
            first += rows


def _group(
    path: Path, file: Any, group: int, rows: int, skip: int, column: str, keep: Sequence[str]
) -> Iterator[Sample]:
    """The rows of one row group."""
    done = 0
    try:
        for batch in file.iter_batches(ROWS, row_groups=[group], columns=[column, *keep]):
            for row in range(batch.num_rows):
                if done >= skip:
                    yield _sample(batch, row, column, keep)
                done += 1
    except (pyarrow().ArrowException, OSError) as error:
        _raise_of_drive(path, error)
        why = f"this part of the Parquet file cannot be read: {_words(error)}"
        yield from (Sample(None, None, why) for _ in range(max(done, skip), rows))


def _sample(batch: Any, row: int, column: str, keep: Sequence[str]) -> Sample:
    kept = {name: batch.column(name).slice(row, 1) for name in keep}
    cell = batch.column(column)[row]
    try:
        cell = cell.as_py()
    except UnicodeDecodeError:  # the name beside the bytes, which Parquet does not check
        cell = cell["bytes"].as_py()
    item = None
    if isinstance(cell, dict):
        path, cell = cell.get("path"), cell.get("bytes")
        item = safe(path) if isinstance(path, str) else None
    if not cell:
        why = "there are no picture bytes in this row"
        return Sample(item, None, why if item is None else f"{why}, only the name {item}", kept)
    if len(cell) > MOST_BYTES:
        return Sample(
            item, None, f"the picture has {len(cell):,} bytes; at most {MOST_BYTES:,} are read", kept
        )
    return Sample(item, cell, None, kept)


def _raise_of_drive(path: Path, error: Exception) -> None:
    """Raise :class:`SigrunError` if it was the drive that failed.

    For damage Arrow raises OSError, too, but without a number, or with EINVAL where it is led to a place that no
    file has.
    """
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        raise unreadable(path, error) from error


def _words(error: Exception) -> str:
    return str(error).split("\n", 1)[0].rstrip(".") or type(error).__name__
