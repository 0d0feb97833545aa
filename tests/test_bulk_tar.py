"""Samples from tar shards: whole, strange and damaged ones, against what was put in."""

from __future__ import annotations

import errno
import tarfile
from io import BytesIO, FileIO
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sigrun import SigrunError
from sigrun.bulk import samples as sample_limits
from sigrun.bulk import tar_source
from sigrun.bulk.samples import Sample
from tests import bulk_data
from tests.bulk_data import picture

COUNT = 5


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bulk_data.shard(tmp_path_factory.mktemp("tar") / "a.tar", range(COUNT))


def read(path: Path, column: str | None = None, keep: tuple[str, ...] = (), skip: int = 0) -> list[Sample]:
    return list(tar_source.samples(path, column, keep, skip))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_shard(tmp_path: Path, mode: str) -> None:
    found = read(bulk_data.shard(tmp_path / "a.tar", range(COUNT), mode), keep=("txt", "json"))
    assert [sample.item for sample in found] == [f"{seed:04d}" for seed in range(COUNT)]
    assert [sample.picture for sample in found] == [picture(seed) for seed in range(COUNT)]
    assert [sample.kept for sample in found] == [{"txt": f"number {seed}"} for seed in range(COUNT)]
    assert not any(sample.error for sample in found)


@pytest.mark.parametrize("skip", range(COUNT + 2))
def test_what_is_skipped_is_left_out(shard: Path, skip: int) -> None:
    assert read(shard, skip=skip) == read(shard)[skip:]


def test_groups(tmp_path: Path) -> None:
    """The key ends at the first dot of the name, not of the folders; a key that comes back is a new sample."""
    path = bulk_data.tar(
        tmp_path / "a.tar",
        [
            ("v1.0/a.seg.png", picture(1)),
            ("v1.0/a.JPG", picture(0)),
            ("v1.0/b.txt", b"no picture"),
            ("v1.0/a.png", picture(2)),
            ("c.png", b""),
        ],
    )
    found = read(path)
    assert [(s.item, s.picture) for s in found[:3:2]] == [("v1.0/a", picture(1)), ("v1.0/a", picture(2))]
    assert [(s.item, s.error) for s in found[1::2]] == [
        ("v1.0/b", "there is no picture in this sample"),
        ("c", "the picture is empty"),
    ]
    assert read(path, column="jpg")[0].picture == picture(0)
    assert read(path, column="seg.png", keep=("jpg",))[0].kept == {"jpg": picture(0)}


def test_only_regular_files_count(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (
            ("l.png", tarfile.SYMTYPE),
            ("h.png", tarfile.LNKTYPE),
            ("d.png", tarfile.DIRTYPE),
        ):
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, "/etc/passwd"
            archive.addfile(header)
        header = tarfile.TarInfo("../../out.png")
        header.size = len(picture(0))
        archive.addfile(header, BytesIO(picture(0)))
    assert [(s.item, s.picture) for s in read(path)] == [("../../out", picture(0))]
    assert [file.name for file in tmp_path.iterdir()] == ["a.tar"]


def test_long_names_and_other_letters(tmp_path: Path) -> None:
    names = ["n" * 300, "ünïcode/снег"]
    path = bulk_data.tar(tmp_path / "a.tar", [(f"{name}.png", picture(0)) for name in names])
    assert [sample.item for sample in read(path)] == names


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_shard_that_is_cut_gives_its_whole_pictures_and_says_so(
    shard: Path, tmp_path: Path, data: st.DataObject
) -> None:
    whole = shard.read_bytes()
    end = data.draw(st.integers(0, COUNT * 2 * 1024) | st.sampled_from(range(0, COUNT * 2 * 1024, 512)))
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole[:end])
    *good, last = read(cut)
    assert last.item is None
    assert last.error is not None
    assert "damaged or cut off" in last.error
    assert [s.picture for s in good] == [picture(seed) for seed in range(len(good))]
    with tarfile.open(shard) as archive:
        within = [m for m in archive if m.name.endswith(".png") and m.offset_data + m.size <= end]
    assert len(good) == len(within)


def test_only_the_end_mark_is_missing(shard: Path, tmp_path: Path) -> None:
    with tarfile.open(shard) as archive:
        end = archive.getmembers()[-1].offset_data + 512
    (tmp_path / "cut.tar").write_bytes(shard.read_bytes()[:end])
    found = read(tmp_path / "cut.tar")
    assert [s.picture for s in found] == [*(picture(seed) for seed in range(COUNT)), None]
    assert "its end mark is missing" in str(found[-1].error)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, COUNT * 2 * 1024 - 1), st.integers(1, 255))
def test_a_shard_with_a_flipped_byte_raises_nothing(shard: Path, tmp_path: Path, at: int, flip: int) -> None:
    data = bytearray(shard.read_bytes())
    data[at] ^= flip
    (tmp_path / "bad.tar").write_bytes(data)
    found = read(tmp_path / "bad.tar", keep=("txt",))
    for skip in (1, 3):
        assert read(tmp_path / "bad.tar", keep=("txt",), skip=skip) == found[skip:]


@pytest.mark.parametrize("data", [b"", b"no tar" * 500, b"\x1f\x8b\x08" + b"\0" * 50])
def test_what_is_no_shard_is_one_bad_row(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    (sample,) = read(tmp_path / "a.tar")
    assert "damaged or cut off" in str(sample.error)
    assert read(tmp_path / "a.tar", skip=1) == []


def test_a_packed_shard_that_is_cut(tmp_path: Path) -> None:
    path = bulk_data.shard(tmp_path / "a.tgz", range(200), "w:gz")
    path.write_bytes(path.read_bytes()[:-2000])
    *good, last = read(path)
    assert "damaged or cut off" in str(last.error)
    assert 0 < len(good) < 200
    assert [s.picture for s in good] == [picture(seed) for seed in range(len(good))]


def test_a_header_cannot_ask_for_much_memory(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    data = header.tobuf(tarfile.GNU_FORMAT) + b"x" * 4096
    (tmp_path / "a.tar").write_bytes(data)
    assert "over a megabyte" in str(read(tmp_path / "a.tar")[-1].error)


def extended(path: Path, name: str, records: dict[str, str]) -> Path:
    """A shard of four pictures, of which the one called ``name`` has an extended header."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for seed, key in enumerate("abcd"):
            header = tarfile.TarInfo(f"{key}.png")
            header.size = len(picture(seed))
            header.pax_headers = records if key == name else {}
            archive.addfile(header, BytesIO(picture(seed)))
    return path


@pytest.mark.parametrize("place", [b"14 first=word", b"15 second=word"])
def test_a_damaged_extended_header_is_no_end(tmp_path: Path, place: bytes) -> None:
    """One of a record without length, in the middle of a shard."""
    path = extended(tmp_path / "a.tar", "c", {"first": "word", "second": "word"})
    assert [s.picture for s in read(path)] == [picture(seed) for seed in range(4)]
    data = path.read_bytes()
    assert data.count(place) == 1
    path.write_bytes(data.replace(place, b"00" + place[2:]))
    found = read(path)
    assert [s.picture for s in found] == [picture(0), picture(1), None]
    assert "damaged or cut off" in str(found[-1].error)
    assert "a header is damaged" in str(found[-1].error)


def test_an_extended_header_leads_to_nothing_that_was_read_before(tmp_path: Path) -> None:
    """A negative size would put the next header before this one, and the shard would never end."""
    with tarfile.open(extended(tmp_path / "a.tar", "c", {"size": "1"})) as archive:
        second, third = (archive.getmember(name) for name in ("b.png", "c.png"))
    size = second.offset - third.offset_data
    assert size % 512 == 0
    found = list(
        islice(tar_source.samples(extended(tmp_path / "a.tar", "c", {"size": str(size)}), None, (), 0), 20)
    )
    assert [s.picture for s in found] == [picture(0), picture(1), None]
    assert "negative size" in str(found[-1].error)


@pytest.mark.parametrize("size", [2**62, 2**63, 10**30])
@pytest.mark.parametrize("column", [None, "jpg"])
def test_a_size_that_leads_nowhere_is_damage(tmp_path: Path, size: int, column: str | None) -> None:
    """Systems refuse to go to such a place with an error that has a number, as a failing drive's has."""
    found = read(extended(tmp_path / "a.tar", "c", {"size": str(size)}), column)
    assert len(found) == 3
    assert "damaged or cut off" in str(found[-1].error)


class Failing(FileIO):
    """A file on a drive that fails beyond some bytes."""

    good = 0

    def readinto(self, buffer: Any, /) -> int | None:
        room = self.good - self.tell()
        if room <= 0:
            raise OSError(errno.EIO, "Input/output error")
        return super().readinto(memoryview(buffer)[:room])


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("good", [0, 1500])
def test_a_drive_that_fails_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, good: int
) -> None:
    """No row says so: the job stops there, and goes on when the drive does."""
    path = bulk_data.shard(tmp_path / "a.tar", range(40), mode)
    assert path.stat().st_size > 2 * good
    found: list[Sample] = []
    with monkeypatch.context() as patched:
        patched.setattr(Failing, "good", good)
        patched.setattr(Path, "open", lambda self, *_, **__: Failing(self))
        with pytest.raises(SigrunError, match=r"a\.tar: cannot be read: Input/output error") as caught:
            found.extend(tar_source.samples(path, None, (), 0))
    assert "goes on" in str(caught.value.hint)
    assert not any(sample.error for sample in found)
    assert len(read(path)) == 40


def test_a_shard_that_is_gone_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(SigrunError, match="cannot be read: No such file"):
        read(tmp_path / "a.tar")


def test_a_picture_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sample_limits.MOST_BYTES == 512 << 20
    monkeypatch.setattr(tar_source, "MOST_BYTES", 1000)
    path = bulk_data.tar(tmp_path / "a.tar", [("a.png", b"x" * 1001), ("b.png", picture(0)[:1000])])
    found = read(path)
    assert found[0].error == "the picture has 1,001 bytes; at most 1,000 are read"
    assert found[1].error is None
