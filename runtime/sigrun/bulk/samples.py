"""Rows of a source as they are read, before their pictures are embedded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sigrun.errors import SigrunError
from sigrun.pictures import Picture

MOST_BYTES = 512 << 20
"""Bytes of one picture in a shard, beyond which it is not even read."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a source.

    Attributes:
        item: how the source names it; none where it does not.
        picture: its picture; none where ``error`` says why there is none.
        error: why there is no picture.
        kept: column → what is passed through: text, bytes, or an Arrow array of one, in which every type comes out as
            it went in; a missing one is null.
    """

    item: str | None
    picture: Picture | None
    error: str | None = None
    kept: Mapping[str, Any] = field(default_factory=dict)


def unreadable(path: Path, error: OSError) -> SigrunError:
    """What to raise where a drive did not give a shard's bytes, which says nothing about the shard.

    No row is made of it, so that the job that goes on reads the shard again.
    """
    return SigrunError(
        f"{path}: cannot be read: {error.strerror or error}",
        hint="what is finished is kept: when this is mended, the same command goes on",
    )
