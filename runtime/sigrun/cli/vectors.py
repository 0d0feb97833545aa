"""Files of embeddings: NumPy's and Parquet, written row by row from what a run kept, never all in memory."""

from __future__ import annotations

import importlib
import io
import itertools
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sigrun.errors import OutputError, SigrunError
from sigrun.gather import safe
from sigrun.output import finished

ROWS = 1024  # rows copied at a time
CHUNK = 1 << 20  # bytes copied at a time


@dataclass(frozen=True)
class Table:
    """All that is written of a run.

    Attributes:
        items: the names of pictures, or the texts.
        errors: row → why it failed.
        vectors: a file of float32 [items, width], row after row; a row that failed is NaN.
        width: numbers in a vector.
        features: a file of float32 [items, tokens, width], and the shape of one row; none if not asked for.
        about: ``space``, ``model`` and ``variant`` of the artifact.
    """

    items: Sequence[str]
    errors: Mapping[int, str]
    vectors: Path
    width: int
    features: tuple[Path, tuple[int, ...]] | None
    about: Mapping[str, str]

    def why(self) -> Iterator[str]:
        """For each row why it failed, empty where it did not."""
        return (self.errors.get(row, "") for row in range(len(self.items)))


def writer(path: Path, *, features: bool) -> Callable[[Path, Table, bool], None]:
    """What writes a file of this suffix.

    Raises:
        OutputError: nothing does, or not with features.
        SigrunError: a package that it takes is not installed.
    """
    write = {".npz": _npz, ".npy": _npy, ".parquet": _parquet}.get(path.suffix.lower())
    if write is None:
        raise OutputError(
            f"{path}: embeddings are written as .npz, .npy or .parquet, not as '{path.suffix}'",
            hint="name the file so, or leave -o away for JSON lines",
        )
    if write is _parquet:
        if features:
            raise OutputError(f"{path}: features go into .npz or .npy only", hint="choose one of them")
        _pyarrow()
    return write


def companions(path: Path, *, features: bool) -> list[Path]:
    """The other files that are written beside ``path``."""
    if path.suffix.lower() != ".npy":
        return []
    return [_beside(path, ".npy.json"), *([_beside(path, ".features.npy")] if features else [])]


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.stem + suffix)


def _npz(path: Path, table: Table, force: bool) -> None:
    """One archive: vectors, items, errors, space, model, variant, and features if there are."""
    with (
        finished(path, force=force) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):

        def entry(name: str) -> IO[bytes]:
            return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)

        with entry("vectors") as file:
            _copy(file, table.vectors, (len(table.items), table.width))
        with entry("items") as file:
            _texts(file, lambda: iter(table.items), len(table.items))
        with entry("errors") as file:
            _texts(file, table.why, len(table.items))
        for name, value in table.about.items():
            with entry(name) as file:
                _array(file, np.array(value))
        if table.features is not None:
            with entry("features") as file:
                _copy(file, table.features[0], (len(table.items), *table.features[1]))


def _npy(path: Path, table: Table, force: bool) -> None:
    """Vectors alone, which can be mapped into memory; the rest beside them as JSON, features as another array."""
    beside = _beside(path, ".npy.json")
    record = {
        **table.about,
        "items": list(table.items),
        "errors": {str(r): w for r, w in table.errors.items()},
    }
    with finished(beside, force=force) as partial:
        partial.write_text(json.dumps(record, indent=1), "utf-8")
    if table.features is not None:
        with finished(_beside(path, ".features.npy"), force=force) as partial, partial.open("wb") as file:
            _copy(file, table.features[0], (len(table.items), *table.features[1]))
    with finished(path, force=force) as partial, partial.open("wb") as file:
        _copy(file, table.vectors, (len(table.items), table.width))


def _parquet(path: Path, table: Table, force: bool) -> None:
    """Columns item, embedding (null where it failed) and error (null where it did not)."""
    pa, parquet = _pyarrow()
    schema = pa.schema(
        [
            pa.field("item", pa.string(), nullable=False),
            pa.field("embedding", pa.list_(pa.float32())),  # older readers fail on a null of a fixed size
            pa.field("error", pa.string()),
        ],
        metadata={f"sigrun.{name}": value for name, value in table.about.items()},
    )
    with finished(path, force=force) as partial, parquet.ParquetWriter(partial, schema) as out:
        for first in range(0, len(table.items), ROWS):
            items = [safe(item) for item in table.items[first : first + ROWS]]
            errors = [table.errors.get(first + row) for row in range(len(items))]
            block = np.fromfile(
                table.vectors, "<f4", len(items) * table.width, offset=4 * first * table.width
            )  # [rows * width]
            good = np.array([error is None for error in errors])
            ends = np.concatenate([[0], np.cumsum(good * table.width)]).astype(np.int32)
            embeddings = pa.ListArray.from_arrays(
                pa.array(ends),
                pa.array(block.reshape(len(items), -1)[good].reshape(-1)),
                mask=pa.array(~good),
            )
            columns = [pa.array(items, pa.string()), embeddings, pa.array(errors, pa.string())]
            out.write_table(pa.Table.from_arrays(columns, schema=schema))


def _pyarrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise SigrunError(
            "Parquet files are written by the package 'pyarrow', which is not installed",
            hint="pip install pyarrow, or write .npz",
        ) from error


def _header(file: IO[bytes], dtype: str, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})


def _copy(file: IO[bytes], source: Path, shape: tuple[int, ...]) -> None:
    """Write a file of float32 as an array of ``shape``."""
    _header(file, "<f4", shape)
    with source.open("rb") as raw:
        while data := raw.read(CHUNK):
            file.write(data)


def _texts(file: IO[bytes], texts: Callable[[], Iterator[str]], count: int) -> None:
    """Write texts as an array of NumPy's own text type, which needs no pickle to be read."""
    longest = max((len(text) for text in texts()), default=1) or 1
    _header(file, f"<U{longest}", (count,))
    rest = texts()
    while block := list(itertools.islice(rest, ROWS)):
        file.write(np.array(block, f"<U{longest}").tobytes())


def _array(file: IO[bytes], array: NDArray[Any]) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    file.write(buffer.getvalue())
