"""Samples from tar shards as ``webdataset`` writes them; nothing is unpacked to the disk.

Neighbouring files whose paths are the same up to the first dot of the name are one sample. Only regular files count;
links are not followed. A shard that ends before its end mark was cut off: what is whole is read, and one more row
says so.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader, FileIO, RawIOBase
from pathlib import Path
from typing import Any

from sigrun.bulk.samples import MOST_BYTES, Sample, unreadable
from sigrun.gather import SUFFIXES, safe

MOST_HEADER = 1 << 20  # bytes of a header that holds a long name
BUFFER = 1 << 16  # bytes that are read at a time, at least
TEXTS = ("txt", "text", "caption", "json", "cls", "id", "index", "csv", "tsv", "xml", "html")
"""Endings of files that are passed through as text; others are bytes."""
FAILURES = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError)
_LONG = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class _Header(tarfile.TarInfo):
    """A header that is whole, or an error; tarfile itself takes a broken one for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        if not buf:
            raise tarfile.ReadError("its end mark is missing")
        if len(buf) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("a header is cut short")
        if not any(buf):
            return super().frombuf(buf, encoding, errors)  # raises what marks the end
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"a header is damaged: {error}") from error
        if header.type in _LONG and header.size > MOST_HEADER:
            raise tarfile.ReadError("a header holds over a megabyte")
        if header.size < 0:
            raise tarfile.ReadError("a file has a negative size")
        return header

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the end mark
                raise
            raise tarfile.ReadError(f"a header is damaged: {error}") from error


class _Drive(RawIOBase):
    """A file that remembers why it could not be read: what comes of it in between may look like damage."""

    def __init__(self, raw: FileIO) -> None:
        self.failure: OSError | None = None
        self._raw = raw

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._raw.seek(offset, whence)  # fails where a damaged header leads nowhere

    def readinto(self, buffer: Any, /) -> int | None:
        try:
            return self._raw.readinto(buffer)
        except OSError as error:
            self.failure = error
            raise


@dataclass
class _Group:
    """Files of one sample."""

    key: str
    picture: bytes | None = None
    error: str | None = None
    kept: dict[str, Any] = field(default_factory=dict)

    def sample(self) -> Sample:
        error = self.error
        if self.picture is None and error is None:
            error = "there is no picture in this sample"
        return Sample(safe(self.key), None if error else self.picture, error, self.kept)


def samples(path: Path, column: str | None, keep: Sequence[str], skip: int) -> Iterator[Sample]:
    """The samples of a shard, in order.

    Args:
        path: a tar file, plain or packed with gzip, bzip2 or xz.
        column: the ending of the pictures, such as ``jpg``; by default any picture's.
        keep: endings of files to pass through.
        skip: leave out so many samples.

    Raises:
        SigrunError: the drive does not give the shard's bytes.
    """
    try:
        raw = path.open("rb", buffering=0)
    except OSError as error:
        raise unreadable(path, error) from error
    with raw:
        drive = _Drive(raw)
        for sample in _samples(drive, column, keep, skip):
            if drive.failure is not None:
                break
            yield sample
    if drive.failure is not None:
        raise unreadable(path, drive.failure) from drive.failure


def _samples(drive: _Drive, column: str | None, keep: Sequence[str], skip: int) -> Iterator[Sample]:
    count = 0
    group: _Group | None = None
    try:
        file = BufferedReader(drive, BUFFER)
        with tarfile.open(None, "r:*", file, tarinfo=_Header, encoding="utf-8") as archive:
            remembered: Any = archive
            while (header := archive.next()) is not None:
                remembered.members = []  # it would keep them all
                if header.size < 0:  # by an extended header: what comes next would lie before it, for ever
                    raise tarfile.ReadError("a file has a negative size")
                if not header.isreg():
                    continue
                key, ending = _split(header.name)
                if group is None or group.key != key:
                    if group is not None:
                        if count >= skip:
                            yield group.sample()
                        count += 1
                    group = _Group(key)
                _take(archive, header, ending, group, column, keep)
    except FAILURES as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        rows = [Sample(None, None, f"the shard is damaged or cut off here, what follows is lost: {reason}")]
        if group is not None and group.picture is not None:
            rows.insert(0, group.sample())
        yield from rows[max(0, skip - count) :]
        return
    if group is not None and count >= skip:
        yield group.sample()


def _take(
    archive: tarfile.TarFile,
    header: tarfile.TarInfo,
    ending: str,
    group: _Group,
    column: str | None,
    keep: Sequence[str],
) -> None:
    """Read a file of a sample, if it is wanted."""
    picture = ending == column if column is not None else f".{ending.rsplit('.', 1)[-1]}" in SUFFIXES
    picture = picture and group.picture is None and group.error is None
    if not picture and ending not in keep:
        return
    if header.size > MOST_BYTES:
        if picture:
            group.error = f"the picture has {header.size:,} bytes; at most {MOST_BYTES:,} are read"
        return
    file = archive.extractfile(header)
    data = b"" if file is None else file.read()
    if len(data) != header.size:
        raise tarfile.ReadError("unexpected end of data")
    if picture:
        group.picture = data
        group.error = None if data else "the picture is empty"
    if ending in keep:
        group.kept[ending] = data.decode("utf-8", "replace") if ending in TEXTS else data


def _split(name: str) -> tuple[str, str]:
    """The key of a file's sample, and its ending in small letters: ``a/b.seg.png`` is ``a/b`` and ``seg.png``."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()
