"""What stands in the cells of a data set, as pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from sigrun.errors import PictureError
from sigrun.pictures import Picture


def picture_in(cell: Any) -> Picture:
    """The picture in a cell: bytes, a path, ``{"bytes", "path"}`` as the package ``datasets`` has it, or anything else
    that ``Siglip`` takes, which then says whether it is one.

    Raises:
        PictureError: the cell is empty.
    """
    if isinstance(cell, Mapping):
        data = cell.get("bytes")
        cell = cell.get("path") if is_nothing(data) else data
    if isinstance(cell, bytearray | memoryview):
        cell = bytes(cell)
    if is_nothing(cell) or (isinstance(cell, str | bytes) and not cell):
        raise PictureError("there is no picture in this row")
    picture: Picture = cell
    return picture


def is_nothing(cell: Any) -> bool:
    """Whether a cell is empty: None, or what pandas puts there instead."""
    if cell is None:
        return True
    if isinstance(cell, float):
        return cell != cell
    return type(cell).__name__ in ("NAType", "NaTType") and not isinstance(cell, str | bytes | os.PathLike)
