"""Pictures whose class is known: a folder per class, or lists that a program has made."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sigrun.errors import PictureError, TextError
from sigrun.gather import decoded, is_picture_name, pictures_in, safe
from sigrun.pictures import Picture

MOST_NAMED = 5  # names listed in a note
MOST_CLASS_FILE = 64 << 20  # bytes
_ID = re.compile(r"n?\d+")  # a folder called by a number or a WordNet id says nothing to a model
_LAYOUT = "the folder must hold one folder for each class, named as the class, with its pictures in it"


@dataclass(frozen=True)
class Dataset:
    """Pictures and the class of each.

    Attributes:
        classes: the text of each class: all different, at least two. One without pictures is a possible answer.
        pictures: paths or anything else that :meth:`Siglip.embed_images` takes.
        truths: for each picture the number of its class in ``classes``.
        root: the folder they came from, if any.
        notes: what was left out, in sentences.

    Raises:
        TextError: there are fewer than two classes, or two are alike or one is empty.
        PictureError: there are no pictures.
        ValueError: pictures and truths do not fit together.
    """

    classes: tuple[str, ...]
    pictures: tuple[Picture, ...]
    truths: tuple[int, ...]
    root: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = f"{safe(self.root)}: " if self.root else ""
        if len(self.classes) < 2:
            raise TextError(f"{where}{_too_few(self.classes)}")
        if len(set(self.classes)) != len(self.classes) or not all(c.strip() for c in self.classes):
            raise TextError(f"{where}the classes must be different texts, none empty")
        if not self.pictures:
            raise PictureError(f"{where}there are no pictures in the folders of the classes", hint=_LAYOUT)
        if len(self.pictures) != len(self.truths):
            raise ValueError(f"{len(self.pictures)} pictures do not go with {len(self.truths)} truths")
        if not all(0 <= truth < len(self.classes) for truth in self.truths):
            raise ValueError(f"a truth is no number of a class: they are 0 to {len(self.classes) - 1}")

    @classmethod
    def from_folder(
        cls,
        path: str | os.PathLike[str],
        *,
        classes: Mapping[str, str] | None = None,
        limit: int | None = None,
        seed: int = 0,
    ) -> Self:
        """Pictures in a folder per class, and in all folders under those.

        Hidden folders and files are passed over, and so are files whose names are no pictures'. Links are followed,
        except back to ``path`` or above it.

        Args:
            path: the folder that holds the folders of the classes.
            classes: folder name → text of its class; several folders may be of one class, and the pictures of
                folders that are not named are left out. By default the texts are the folders' names
                (see :func:`class_name`).
            limit: take at most so many pictures of a class, chosen by ``seed`` and their names: the same each
                time, and a smaller limit takes some of those that a larger one takes.
            seed: makes another choice.

        Raises:
            PictureError: the folder cannot be read or holds no pictures of a class.
            TextError: there are fewer than two classes, or none of the folders is among them.
            ValueError: the limit is less than 1.
        """
        if limit is not None and limit < 1:
            raise ValueError(f"a limit of {limit} pictures leaves none")
        root = Path(path)
        folders, loose, notes = _folders(root)
        wanted, unknown = _texts(folders, classes)
        pictures: dict[str, list[str]] = {}
        looped = 0
        for name, text in wanted.items():
            found = pictures.setdefault(text, [])
            if name not in folders:
                continue
            inside = _Inside(root)
            for picture in pictures_in(str(folders[name])):
                if picture.error is not None:
                    notes.append(picture.error.message)
                elif inside.holds(picture.name):
                    found.append(picture.name)
                else:
                    looped += 1
        texts = tuple(pictures)
        chosen = [_some(found, root, limit, seed) for found in pictures.values()]
        empty = [text for text, found in pictures.items() if not found]
        if classes is None and wanted and all(_ID.fullmatch(name) for name in wanted):
            notes.append(
                "the folders' names look like numbers, which no model knows: name their classes in a file"
            )
        if loose:
            notes.append(f"{_named('picture', loose)} beside the folders, so of no class: left out")
        if unknown:
            notes.append(f"{_named('folder', unknown)} not among the classes: left out")
        if looped:
            notes.append(f"{looped} pictures behind links back to {safe(str(root))} or above it: left out")
        if empty:
            notes.append(f"{_named('class', empty)} without pictures: a possible answer all the same")
        total, kept = sum(map(len, pictures.values())), sum(map(len, chosen))
        if kept < total:
            notes.append(f"at most {limit} pictures of a class: {kept:,} of {total:,} (seed {seed})")
        if not total and loose:
            raise PictureError(f"{safe(str(root))}: its pictures are of no class", hint=_LAYOUT)
        if len(texts) < 2 and classes is None:
            raise TextError(f"{safe(str(root))}: {_too_few(texts)}", hint=_LAYOUT)
        if classes is not None and len(unknown) == len(folders):
            raise TextError(
                f"{safe(str(root))} has none of the {len(wanted):,} folders that the classes name",
                hint=f"it has {_named('folder', list(folders))}" if folders else _LAYOUT,
            )
        return cls(
            classes=texts,
            pictures=tuple(picture for found in chosen for picture in found),
            truths=tuple(number for number, found in enumerate(chosen) for _ in found),
            root=str(root),
            notes=tuple(notes),
        )

    def name(self, row: int) -> str:
        """A picture's path, or its number where it is none."""
        picture = self.pictures[row]
        if isinstance(picture, str | os.PathLike) and not str(picture).startswith("data:"):
            return safe(os.fsdecode(os.fspath(picture)))
        return f"picture {row + 1}"


def class_name(folder: str) -> str:
    """The text of a class from the name of its folder.

    ``_`` is a space. ``-`` is one too in a name without spaces and ``_``, where it stands between the words of a
    slug: ``fire-engine`` is a fire engine, ``t-shirt_dress`` a t-shirt dress. What else is wanted, a file of classes
    says.
    """
    name = unicodedata.normalize("NFC", folder)  # macOS takes accents apart
    if not re.search(r"[\s_]", name):
        name = name.replace("-", " ")
    return " ".join(name.replace("_", " ").split()) or folder


def classes_among(path: str | os.PathLike[str], labels: Iterable[str]) -> dict[str, str]:
    """Folder name → text of its class, for folders in ``path`` that are named as labels are, or as :func:`class_name`
    reads them; a text that is no label is for the caller to refuse.

    Raises:
        PictureError: the folder cannot be read.
    """
    known = set(labels)
    folders, _, _ = _folders(Path(path))
    return {name: name if name in known else class_name(name) for name in folders}


def read_classes(path: str | os.PathLike[str]) -> dict[str, str]:
    """Folder name → text of its class, from a file: a JSON object, or a line each with a tab between the two.

    Raises:
        TextError: it cannot be read, or a line or value is not as it must be.
    """
    shown = safe(os.fsdecode(os.fspath(path)))
    try:
        with Path(path).open("rb") as file:
            data = file.read(MOST_CLASS_FILE + 1)
        text = decoded(data)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path, or it is not UTF-8
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise TextError(f"{shown}: cannot read the classes: {reason}") from error
    if len(data) > MOST_CLASS_FILE:
        raise TextError(f"{shown} is no file of classes: it has more than {MOST_CLASS_FILE:,} bytes")
    pairs = _json_pairs(text, shown) if text.lstrip().startswith(("{", "[")) else _line_pairs(text, shown)
    classes: dict[str, str] = {}
    for folder, name in pairs:
        if not name.strip():
            raise TextError(f"{shown}: the class of folder {folder!r} is empty")
        if folder in classes:
            raise TextError(f"{shown} names the folder {folder!r} twice")
        classes[folder] = name.strip()
    return classes


def _json_pairs(text: str, shown: str) -> Sequence[tuple[str, str]]:
    try:
        pairs = json.loads(text, object_pairs_hook=lambda pairs: pairs)  # as pairs, so that no key gets lost
    except (ValueError, RecursionError) as error:
        raise TextError(f"{shown} is no JSON: {error}") from error
    good = isinstance(pairs, list) and all(
        isinstance(pair, tuple) and isinstance(pair[1], str) for pair in pairs
    )
    if not good:
        raise TextError(f'{shown} must be a JSON object such as {{"folder": "text of its class"}}')
    found: list[tuple[str, str]] = pairs
    return found


def _line_pairs(text: str, shown: str) -> Iterable[tuple[str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            folder, tab, name = line.partition("\t")
            if not tab:
                raise TextError(
                    f"{shown}: line {number} has no tab between a folder's name and the text of its class: {line!r}"
                )
            yield folder.strip(), name


class _Inside:
    """Tells what a class folder holds from what is reached through a link back to where the search began."""

    def __init__(self, root: Path) -> None:
        real = root.resolve()
        self._above = {real, *real.parents}
        self._known = {root: True}

    def holds(self, picture: str) -> bool:
        """Whether no folder on the way to this picture is the root again, or above it."""
        return self._folder(Path(picture).parent)

    def _folder(self, folder: Path) -> bool:
        if folder not in self._known:
            way = self._folder(folder.parent) if folder.parent != folder else True
            self._known[folder] = way and folder.resolve() not in self._above
        return self._known[folder]


def _folders(root: Path) -> tuple[dict[str, Path], list[str], list[str]]:
    """The folders in a folder, the pictures beside them, and what is to be said of them."""
    shown = safe(str(root))
    folders: dict[str, Path] = {}
    loose = []
    notes: list[str] = []
    try:
        above = {root.resolve(), *root.resolve().parents}
        for path in sorted(root.iterdir()):
            if path.name.startswith("."):
                continue
            if not path.is_dir():
                loose += [path.name] if is_picture_name(path.name) else []
            elif path.resolve() in above:
                notes.append(f"{safe(path.name)} is a link back to {shown} or above it: left out")
            else:
                folders[path.name] = path
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise PictureError(f"{shown} cannot be searched for classes: {reason}", hint=_LAYOUT) from error
    return folders, loose, notes


def _texts(
    folders: Mapping[str, Path], classes: Mapping[str, str] | None
) -> tuple[dict[str, str], list[str]]:
    """Folder name → text of its class, and the folders that have none."""
    if classes is None:
        return {name: class_name(name) for name in folders}, []
    as_named = {unicodedata.normalize("NFC", name): name for name in folders}
    wanted = {as_named.get(unicodedata.normalize("NFC", name), name): text for name, text in classes.items()}
    return wanted, [name for name in folders if name not in wanted]


def _some(found: list[str], root: Path, limit: int | None, seed: int) -> list[str]:
    """At most ``limit`` of the pictures, in their order."""
    if limit is None or len(found) <= limit:
        return found

    def draw(picture: str) -> bytes:
        name = Path(picture).relative_to(root).as_posix()
        return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest()

    kept = set(sorted(found, key=draw)[:limit])
    return [picture for picture in found if picture in kept]


def _named(kind: str, names: Sequence[str]) -> str:
    """``3 folders (a, b, c)``, with the first names alone if there are many."""
    plural = kind if len(names) == 1 else f"{kind}es" if kind.endswith("s") else f"{kind}s"
    shown = ", ".join(map(safe, names[:MOST_NAMED])) + (", …" if len(names) > MOST_NAMED else "")
    return f"{len(names):,} {plural} ({shown})"


def _too_few(classes: Sequence[str]) -> str:
    found = f"there is one class only, {classes[0]!r}" if classes else "there are no classes"
    return f"{found}: nothing to choose between"
