"""What the cache holds, and emptying it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from sigrun import Siglip, selftest
from sigrun.prepared import cache_entries, clear
from sigrun.selftest import TowerTest

GREY = np.full((40, 50, 3), 99, np.uint8)
KEY = "0123456789abcdef" * 4


def test_entries_are_the_matrices_of_each_tower(emoji_q4: Path, tmp_path: Path) -> None:
    assert cache_entries(tmp_path / "none") == []
    with Siglip.load(emoji_q4, cache=tmp_path, towers="both") as model:
        sizes = {
            tower: sum(
                model.info.manifest.tensors[name].shape[0] * model.info.manifest.tensors[name].shape[1]
                for name, packing in forms["int8"].weights.items()
                if packing == "int8"
            )
            for tower, forms in model.info.manifest.graphs.items()
        }
    entries = cache_entries(tmp_path)
    assert len(entries) == 2
    for entry, least in zip(sorted(entries, key=lambda e: e.nbytes), sorted(sizes.values()), strict=True):
        assert least < entry.nbytes
        assert entry.nbytes == sum(p.stat().st_size for p in entry.path.iterdir())
    os.utime(entries[0].path, (1, 1))
    assert [e.path for e in cache_entries(tmp_path)] == [entries[1].path, entries[0].path]


def test_clearing_takes_only_what_is_ours(emoji_q4: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("x")
    with Siglip.load(emoji_q4, cache=cache, threads=1) as model:
        before = model.embed_images([GREY]).vectors
        selftest.remember(cache, KEY, TowerTest("image", "f16", "cuda", 1.0, 0.9))
        (cache / ".sigrun-half").mkdir()
        (cache / ".sigrun-half" / "some").write_bytes(b"123")
        foreign = ["notes.txt", KEY[:-1], f"{KEY}.txt", KEY.upper(), ".sigrun-", "sigrun-x"]
        for name in foreign:
            (cache / name).write_text("foreign")
        if sys.platform != "win32":
            (cache / ("f" * 64)).symlink_to(elsewhere)
        removed = clear(cache)
        assert len(removed) == (4 if sys.platform != "win32" else 3)
        assert sorted(p.name for p in cache.iterdir()) == sorted(foreign)
        assert (elsewhere / "precious").read_text() == "x"
        np.testing.assert_array_equal(model.embed_images([GREY]).vectors, before)
    assert clear(cache) == []
    assert clear(tmp_path / "none") == []


def test_a_folder_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError):
        cache_entries(tmp_path / "file")
