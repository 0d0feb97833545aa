"""What a data set is read from: a folder of pictures, tar shards or Parquet files, cut into tasks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sigrun.bulk import parquet_source, tar_source
from sigrun.bulk.packages import pyarrow
from sigrun.bulk.samples import Sample
from sigrun.errors import PictureError, SigrunError
from sigrun.gather import Found, is_picture_name, pictures_in, safe

Kind = Literal["pictures", "tar", "parquet"]
KINDS: tuple[Kind, ...] = ("pictures", "tar", "parquet")
TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_WORDS = {"pictures": "pictures", "tar": "tar shards", "parquet": "Parquet files"}


@dataclass(frozen=True)
class Task:
    """Rows that one worker reads from first to last: a shard, or a stretch of a folder's list.

    Attributes:
        number: its place among the tasks.
        source: the shard as the rows name it: its path below the data set.
        path: the shard, or the folder.
        first: place of its first row among the source's.
        files: pictures, for a folder; those that cannot be found have an error.
    """

    number: int
    source: str
    path: str
    first: int = 0
    files: tuple[Found, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """A data set that was looked at.

    Attributes:
        kind: what it is read from.
        column: the column of pictures in Parquet, or their ending in tar shards; none to take any picture.
        kept: column → its type, as pyarrow's serialized schema; empty if nothing is passed through.
        keep: the names of those.
        tasks: what there is to do.
        rows: how many rows there are, where that is known without reading everything.
        fingerprint: hash over the names and sizes of all files.
    """

    kind: Kind
    column: str | None
    keep: tuple[str, ...]
    kept: bytes
    tasks: tuple[Task, ...]
    rows: int | None
    fingerprint: str

    def samples(self, task: Task, skip: int) -> Iterator[Sample]:
        """The rows of a task, in order, without the first ``skip``."""
        path = Path(task.path)
        if self.kind == "tar":
            return tar_source.samples(path, self.column, self.keep, skip)
        if self.kind == "parquet":
            assert self.column is not None
            return parquet_source.samples(path, self.column, self.keep, skip)
        return _listed(task, skip)


def open_dataset(
    source: Path, kind: Kind | None, column: str | None, keep: Sequence[str], rows: int
) -> Dataset:
    """Look at a data set, reading no pictures.

    Args:
        source: a folder, or a single shard.
        kind: what to take from it; by default what there is.
        column: the column or ending of pictures, if the user named one.
        keep: columns to pass through.
        rows: pictures of a folder that make one task.

    Raises:
        SigrunError: there is nothing there, or not the columns that were named.
        PictureError: there are no pictures.
    """
    source = source.absolute()
    if not source.exists():
        raise SigrunError(f"{source} does not exist")
    chosen = kind or _kind_of(source)
    if chosen == "pictures":
        return _folder(source, column, keep, rows)
    paths = [source] if source.is_file() else list(_files(source, chosen))
    if not paths:
        raise SigrunError(f"there are no {_WORDS[chosen]} in {source}")
    top = source.parent if source.is_file() else source
    tasks = tuple(
        Task(number, safe(path.relative_to(top).as_posix()), str(path)) for number, path in enumerate(paths)
    )
    digest = hashlib.sha256()
    for task, path in zip(tasks, paths, strict=True):
        digest.update(f"{task.source}\0{path.stat().st_size}\0".encode())
    if chosen == "tar":
        wanted = None if column is None else column.lower().lstrip(".")
        names = tuple(name.lower().lstrip(".") for name in keep)
        return Dataset("tar", wanted, names, _tar_types(names), tasks, None, digest.hexdigest())
    column, types, count = _columns(paths, column, keep)
    return Dataset("parquet", column, tuple(keep), types, tasks, count, digest.hexdigest())


def _folder(source: Path, column: str | None, keep: Sequence[str], rows: int) -> Dataset:
    if column is not None or keep:
        raise SigrunError("a folder of pictures has no columns", hint="leave out --column and --keep")
    if not source.is_dir():
        raise SigrunError(
            f"{source} is neither a folder nor a shard", hint=f"shards end in {', '.join(TAR)} or .parquet"
        )
    top = str(source)
    found = list(pictures_in(top))
    if not any(picture.error is None for picture in found):
        raise PictureError(f"there are no pictures in {source}")
    digest = hashlib.sha256()
    for picture in found:
        name = os.path.relpath(picture.name, top).encode("utf-8", "surrogatepass")
        digest.update(b"%s\0%d\0" % (name, _size(picture.name)))
    starts = range(0, len(found), rows)
    tasks = tuple(
        Task(number, safe(source.name), top, first, tuple(found[first : first + rows]))
        for number, first in enumerate(starts)
    )
    return Dataset("pictures", None, (), b"", tasks, len(found), digest.hexdigest())


def _size(path: str) -> int:
    """Bytes of a file; -1 if it cannot be looked at."""
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):
        return -1


def _listed(task: Task, skip: int) -> Iterator[Sample]:
    for found in task.files[skip:]:
        item = safe(Path(os.path.relpath(found.name, task.path)).as_posix())
        if found.error is None:
            yield Sample(item, found.name)
        else:
            yield Sample(item, None, found.error.message)


def _kind_of(source: Path) -> Kind:
    there = [kind for kind in KINDS if next(_files(source, kind), None) is not None]
    if len(there) > 1:
        raise SigrunError(
            f"{source} holds {' and '.join(_WORDS[kind] for kind in there)}",
            hint=f"say which to take with --format {'|'.join(there)}",
        )
    return there[0] if there else "pictures"


def _files(source: Path, kind: Kind) -> Iterator[Path]:
    """The files of a kind, in a folder and all folders in it, sorted; not those that begin with a dot or ``_``."""
    if source.is_file():
        if _is(source.name, kind):
            yield source
        return
    for folder, folders, files in os.walk(source):
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        yield from (Path(folder, name) for name in sorted(files) if name[0] not in "._" and _is(name, kind))


def _is(name: str, kind: Kind) -> bool:
    small = name.lower()
    if kind == "tar":
        return small.endswith(TAR)
    return small.endswith(".parquet") if kind == "parquet" else is_picture_name(name)


def _tar_types(names: Sequence[str]) -> bytes:
    pa = pyarrow()
    text, data = pa.string(), pa.binary()
    return _serialized([(name, text if name in tar_source.TEXTS else data) for name in names])


def _columns(paths: Sequence[Path], column: str | None, keep: Sequence[str]) -> tuple[str, bytes, int | None]:
    """The column of pictures, the types of those that are kept, and the number of rows, from all files."""
    types: list[tuple[str, Any]] | None = None
    for path in paths:
        schema = parquet_source.schema_of(path)
        if schema is None:  # its rows will say so
            continue
        column = parquet_source.picture_column(schema, column, path)
        missing = [name for name in keep if name not in schema.names]
        if missing:
            raise SigrunError(
                f"{path} has no column '{missing[0]}'; its columns are: {', '.join(schema.names)}"
            )
        here = [(name, schema.field(name).type) for name in keep]
        if types is not None and here != types:
            raise SigrunError(f"{path}: columns that are kept have other types than in the files before")
        types = here
    if types is None or column is None:
        raise SigrunError(f"none of the Parquet files can be read: {paths[0]} is the first")
    return column, _serialized(types), None


def _serialized(fields: Sequence[tuple[str, Any]]) -> bytes:
    return bytes(pyarrow().schema(fields).serialize()) if fields else b""
