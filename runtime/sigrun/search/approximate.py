"""Candidates from an approximate index, for millions of pictures: usearch, where it is installed.

The graph lies in the index's folder, named after the vectors that it is of. Candidates are scored exactly afterwards,
so scores are the same; a hit may be missing. Without the package, or with few pictures, exact search is the way.
"""

from __future__ import annotations

import contextlib
import importlib
import secrets
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sigrun.errors import OutputError, ProviderError, SigrunError
from sigrun.gather import safe
from sigrun.onnx_runtime import onnxruntime
from sigrun.search.vectors import Rows

PREFIX: Final = "usearch."
EXPANSION: Final = 512  # nodes that a search keeps in view; more find more
CONNECTIVITY: Final = 32
ADDED: Final = 256  # the same while the graph is built
MORE: Final = 4  # candidates for each hit that is wanted
_BLOCK: Final = 4096


def candidates(
    folder: Path, key: tuple[int, int], rows: Rows, vector: NDArray[np.float32], top: int
) -> NDArray[np.int64]:
    """Rows that are likely among the ``top`` nearest of a unit vector.

    Args:
        folder: the index.
        key: generation and number of the vectors.
        rows: the vectors.
        vector: float32 [width].
        top: how many hits are wanted.

    Raises:
        SigrunError: usearch is not installed, or the graph was not built for these vectors.
    """
    path = graph(folder, key)
    if not path.is_file():
        raise SigrunError(
            "there is no approximate index of these pictures, or it is older than they are",
            hint="make it with `sigrun index INDEX --approximate`",
        )
    found = _viewed(str(path), rows.width).search(vector, min(len(rows), max(100, MORE * top)))
    near = np.asarray(found.keys, np.int64)
    return near[(near >= 0) & (near < len(rows))]


@lru_cache(maxsize=2)
def _viewed(path: str, width: int) -> Any:
    """A graph, mapped into memory. Its name changes with its content, so it may be kept."""
    index = _usearch()(ndim=width, metric="ip", dtype="i8", expansion_search=EXPANSION)
    try:
        index.view(path)
    except Exception as error:
        raise SigrunError(
            f"{safe(path)} cannot be read: {error}", hint="make it again: sigrun index INDEX --approximate"
        ) from error
    return index


def build(
    folder: Path, key: tuple[int, int], rows: Rows, on_done: Callable[[int], object] = lambda _: None
) -> Path:
    """Build the graph of all vectors and put it in the place of older ones.

    Raises:
        SigrunError: usearch is not installed.
        OutputError: the graph cannot be written.
    """
    index = _usearch()(
        ndim=rows.width,
        metric="ip",
        dtype="i8",
        connectivity=CONNECTIVITY,
        expansion_add=ADDED,
        expansion_search=EXPANSION,
    )
    for first, vectors in rows.blocks(_BLOCK):
        index.add(np.arange(first, first + len(vectors)), vectors)
        on_done(len(vectors))
    path = graph(folder, key)
    partial = path.with_name(f"{PREFIX}{secrets.token_hex(6)}.partial")
    try:
        index.save(str(partial))
        partial.replace(path)
        for old in folder.glob(f"{PREFIX}*"):
            if old.name != path.name:
                with contextlib.suppress(OSError):
                    old.unlink()
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{folder}: the approximate index cannot be written: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return path


def graph(folder: Path, key: tuple[int, int]) -> Path:
    """The file of the graph of some vectors."""
    return folder / f"{PREFIX}{key[0]}.{key[1]}"


def _usearch() -> Callable[..., Any]:
    # ONNX Runtime 1.31 crashes the process where it is imported after usearch 2.26; the other way round is well.
    with contextlib.suppress(ProviderError):
        onnxruntime()
    try:
        made: Callable[..., Any] = importlib.import_module("usearch.index").Index
    except ImportError as error:
        raise SigrunError(
            "the approximate index needs the package usearch",
            hint="pip install 'sigrun[search]' (in a clone: pip install '.[search]')",
        ) from error
    return made
