"""Batches as engines hand them over: dicts of columns, Arrow tables and record batches, pandas data frames."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigrun.errors import SigrunError


@dataclass(frozen=True)
class Found:
    """What became of the rows of a batch.

    Attributes:
        vectors: float32 [n, width]; a row that failed is NaN.
        errors: for each row why it failed, None where it did not.
    """

    vectors: NDArray[np.float32]
    errors: Sequence[str | None]


def cells(batch: Any, column: str, new: Sequence[str]) -> list[Any]:
    """The cells of a column.

    Args:
        batch: any of the containers.
        column: which.
        new: columns that will be added.

    Raises:
        SigrunError: the batch has no such column, has one of the new ones already, or is no batch.
    """
    names = _names(batch)
    if column not in names:
        raise SigrunError(
            f"the batch has no column '{column}'; its columns are: {', '.join(names) or 'none'}",
            hint="name the one to embed with pictures= or texts=",
        )
    for name in new:
        if name in names:
            raise SigrunError(
                f"the batch has a column '{name}' already",
                hint="choose other names for the results with embedding= and error=",
            )
    values = batch[column] if isinstance(batch, Mapping) or not _arrow(batch) else batch.column(column)
    return values.to_pylist() if _arrow(values) else list(values)


def extended(batch: Any, found: Found, embedding: str, error: str) -> Any:
    """A container of the same kind with all columns of ``batch`` and the two new ones."""
    if isinstance(batch, Mapping):
        return {**batch, **_dict_columns(batch, found, embedding, error)}
    if _arrow(batch):
        return _arrow_extended(batch, found, embedding, error)
    out = batch.copy(deep=False)
    out[embedding] = _objects(_rows(found))
    out[error] = sys.modules["pandas"].Series(_objects(found.errors), index=batch.index, dtype=object)
    return out


def _names(batch: Any) -> list[str]:
    if isinstance(batch, Mapping):
        return [str(name) for name in batch]
    if _arrow(batch) and hasattr(batch, "column_names"):
        return list(batch.column_names)
    if _from(batch, "pandas") and hasattr(batch, "columns"):
        return [str(name) for name in batch.columns]
    raise SigrunError(
        f"a {type(batch).__name__} is not a batch",
        hint="give a dict of columns, an Arrow table or record batch, or a pandas data frame",
    )


def _dict_columns(batch: Mapping[str, Any], found: Found, embedding: str, error: str) -> dict[str, Any]:
    """Arrays where the others are arrays, else lists."""
    if any(isinstance(column, np.ndarray) for column in batch.values()):
        return {embedding: found.vectors, error: _objects(found.errors)}
    return {embedding: _rows(found), error: list(found.errors)}


def _arrow_extended(batch: Any, found: Found, embedding: str, error: str) -> Any:
    pa = sys.modules["pyarrow"]  # whoever made the batch has loaded it
    vectors = arrow_vectors(pa, found)
    words = pa.array(found.errors, pa.string())
    return batch.append_column(pa.field(embedding, vectors.type), vectors).append_column(
        pa.field(error, words.type), words
    )


def arrow_vectors(pa: Any, found: Found) -> Any:
    """Vectors as an Arrow array of lists of one fixed size, null where a row failed.

    Args:
        pa: the module pyarrow.
        found: what became of the rows.
    """
    flat = np.ascontiguousarray(found.vectors).reshape(-1)
    failed = np.array([why is not None for why in found.errors], bool)
    kind = pa.list_(pa.float32(), found.vectors.shape[1])
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=kind, mask=pa.array(failed))


def _rows(found: Found) -> list[NDArray[np.float32] | None]:
    return [row if why is None else None for row, why in zip(found.vectors, found.errors, strict=True)]


def _objects(values: Sequence[Any]) -> NDArray[np.object_]:
    out = np.empty(len(values), object)
    for at, value in enumerate(values):
        out[at] = value
    return out


def _arrow(thing: object) -> bool:
    return _from(thing, "pyarrow")


def _from(thing: object, package: str) -> bool:
    """Whether something is of a class of a package, without importing that."""
    return any(kind.__module__.split(".")[0] == package for kind in type(thing).__mro__)
