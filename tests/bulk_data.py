"""Small data sets of every layout that is read, from seeded pictures."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@cache
def picture(seed: int) -> bytes:
    """A PNG file of colours in large squares, another for each seed."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    out = BytesIO()
    Image.fromarray(colours.repeat(10, 0).repeat(10, 1)).save(out, "PNG")
    return out.getvalue()


def folder(path: Path, count: int) -> Path:
    """A folder of pictures, some deeper down."""
    for seed in range(count):
        file = path / ("deep" if seed % 3 == 0 else "") / f"{seed:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(seed))
    return path


def tar(path: Path, members: Sequence[tuple[str, bytes]], mode: str = "w") -> Path:
    """A tar file of files, in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, BytesIO(data))
    return path


def shard(path: Path, seeds: range, mode: str = "w") -> Path:
    """A webdataset shard: a picture and a caption a sample."""
    members = [
        member
        for seed in seeds
        for member in ((f"{seed:04d}.png", picture(seed)), (f"{seed:04d}.txt", f"number {seed}".encode()))
    ]
    return tar(path, members, mode)


def parquet(path: Path, columns: Mapping[str, Any], **options: Any) -> Path:
    """A Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), path, **options)
    return path


def structs(seeds: range) -> list[dict[str, Any]]:
    """Pictures as the package ``datasets`` stores them."""
    return [{"bytes": picture(seed), "path": f"{seed:04d}.png"} for seed in seeds]
