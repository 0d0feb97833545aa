"""Calibration data: pictures and texts like those a model will see, to weigh quantization errors by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from sigrun.errors import PictureError, SigrunError, TextError
from sigrun.gather import SUFFIXES, is_picture_name
from sigrun.pixels import Preprocessing, open_picture, to_pixels
from sigrun.progress import Progress
from sigrun.tokens import Tokenizer, TokenizerSpec

Note = Callable[[str], object]
"""Takes what the user should know, one line at a time."""


class CalibrationError(SigrunError):
    """Calibration data, or a file made of it, cannot be used."""


@dataclass(frozen=True)
class Calibration:
    """Pictures that can be read, and texts.

    Attributes:
        pictures: their files.
        texts: one line each.
        datasets: names of the folder and the file they come from.
        digest: hash over the contents of the pictures and the texts, in their order.
    """

    pictures: tuple[Path, ...]
    texts: tuple[str, ...]
    datasets: tuple[str, ...]
    digest: str

    def pixels(self, preprocessing: Preprocessing, part: slice) -> Pixels:
        """Some of the pictures as the image tower takes them, each read when it is asked for."""
        return Pixels(self.pictures[part], preprocessing)

    def ids(self, tokenizer: TokenizerSpec, note: Note) -> NDArray[np.int64]:
        """The texts as the text tower takes them, int64 [n, context]; those without a word are left out.

        Raises:
            CalibrationError: there are texts, and none has a word.
        """
        tokens = Tokenizer(tokenizer)
        rows = [np.empty((0, tokenizer.context), np.int64)]
        for text in self.texts:
            try:
                rows.append(tokens.encode([text]).ids)
            except TextError as error:
                note(f"caption left out: {error.message.removeprefix('text 0 ')}")
        if self.texts and len(rows) == 1:
            raise CalibrationError("none of the captions holds a word")
        return np.concatenate(rows)


class Pixels(Sequence[NDArray[np.float32]]):
    """Pixel values of picture files, float32 [3, height, width] each; nothing of them is kept."""

    def __init__(self, paths: Sequence[Path], preprocessing: Preprocessing) -> None:
        self._paths = paths
        self._preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, at: int) -> NDArray[np.float32]: ...

    @overload
    def __getitem__(self, at: slice) -> list[NDArray[np.float32]]: ...

    def __getitem__(self, at: int | slice) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        return to_pixels(open_picture(self._paths[at]), self._preprocessing)


def read_calibration(pictures: Path | None, captions: Path | None, note: Note) -> Calibration:
    """Find the user's calibration data and look at all of it once.

    Args:
        pictures: a folder; pictures in it and in its folders are taken by suffix, in the order of their paths.
        captions: a text file in UTF-8, one text a line; blank lines do not count.
        note: told of each picture that cannot be read; it is left out.

    Raises:
        CalibrationError: there is no readable picture or no text where some should be.
    """
    digest = hashlib.sha256()
    paths = tuple(_readable(pictures, note, digest.update)) if pictures is not None else ()
    texts = _lines(captions) if captions is not None else ()
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8")).digest())
    digest.update(f"{len(paths)} pictures, {len(texts)} texts".encode())
    datasets = tuple(source.resolve().name for source in (pictures, captions) if source is not None)
    return Calibration(paths, texts, datasets, digest.hexdigest())


def _readable(folder: Path, note: Note, update: Callable[[bytes], object]) -> Iterator[Path]:
    """The pictures in a folder that can be read; ``update`` gets the hash of each."""
    if not folder.is_dir():
        raise CalibrationError(
            f"{folder} is not a folder" if folder.exists() else f"{folder}: there is no such folder",
            hint="name the folder that holds the calibration pictures",
        )
    try:
        found = [p for p in folder.rglob("*") if is_picture_name(p.name) and p.is_file()]
    except OSError as error:
        raise CalibrationError(f"{folder}: cannot be listed: {error.strerror or error}") from error
    found.sort(key=lambda p: p.relative_to(folder).as_posix())
    read = 0
    with Progress("looking at the calibration pictures", len(found), "pictures") as bar:
        for path in found:
            try:
                open_picture(path)
                with path.open("rb") as file:
                    update(hashlib.file_digest(file, "sha256").digest())
                read += 1
                yield path
            except PictureError as error:
                note(f"calibration picture left out: {error.message}")
            except OSError as error:
                note(f"calibration picture left out: {path} cannot be read: {error.strerror or error}")
            bar.advance()
    if not read:
        raise CalibrationError(
            f"{folder}: none of its {len(found)} pictures can be read"
            if found
            else f"{folder}: there are no pictures in it or in its folders",
            hint=f"pictures are files that end in {' '.join(SUFFIXES)}",
        )


def _lines(path: Path) -> tuple[str, ...]:
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{path}: is not UTF-8 (byte {error.start:,})") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise CalibrationError(f"{path}: cannot read: {getattr(error, 'strerror', None) or error}") from error
    texts = tuple(line.strip() for line in content.split("\n") if line.strip())
    if not texts:
        raise CalibrationError(f"{path}: holds no text", hint="write one caption a line")
    return texts
