"""The folder of a job: what it is, who is writing there, and the manifest when all is done.

Everything but the parts begins with ``_``, which readers of Parquet folders pass over.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sigrun.bulk.parts import Part
from sigrun.errors import OutputError
from sigrun.locks import only_writer
from sigrun.output import PARTIAL, finished

FORMAT = 1
RUN, MANIFEST, LOCK = "_run.json", "_manifest.json", "_lock"
RESTART = "pass --restart to begin anew, or name another folder"
_PART = re.compile(r"part-\d{6,}-\d{5,}\.parquet")
_LEFT = re.compile(rf"\.(part-|_run|_manifest).*{re.escape(PARTIAL)}")
WORDS = {
    "kind": "--format",
    "source": "the data set",
    "column": "--column",
    "keep": "--keep",
    "artifact": "the model",
    "compute": "--compute",
    "provider": "--provider",
    "decode": "--decode",
    "max_pixels": "--max-megapixels",
    "rows": "--rows",
    "format": "Sigrun's version",
}
"""What users call the settings of a job."""


@contextmanager
def opened(folder: Path, settings: Mapping[str, Any], *, restart: bool) -> Iterator[None]:
    """Begin a job in a folder, or go on with the one that was left there; nobody else may, while this is open.

    Args:
        folder: where the data set goes.
        settings: all that its rows follow from.
        restart: throw away what an earlier job left.

    Raises:
        OutputError: the folder is another job's, in use, holds other files, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        alien = sorted(path.name for path in folder.iterdir() if not _ours(path.name))
        if alien:
            raise OutputError(
                f"{folder} holds files that are not Sigrun's, such as {alien[0]}: nothing is written there",
                hint="name a new folder",
            )
        with only_writer(folder / LOCK, done=(folder / MANIFEST).exists):
            for path in list(folder.iterdir()):
                if _LEFT.fullmatch(path.name) or (restart and path.name != LOCK):
                    path.unlink(missing_ok=True)
            _same(folder, {"format": FORMAT, **settings})
            yield
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot write: {error.strerror or error}",
            hint="what is finished stays there: when this is mended, the same command goes on",
        ) from error


def complete(folder: Path) -> Mapping[str, Any] | None:
    """The manifest of a finished job whose parts all lie there, as long as they were; none if there is work left."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        sizes = {shard["file"]: shard["bytes"] for shard in manifest["shards"]}
        there = {path.name: path.stat().st_size for path in folder.iterdir() if _PART.fullmatch(path.name)}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return manifest if isinstance(manifest, dict) and sizes == there else None


def finish(
    folder: Path, settings: Mapping[str, Any], about: Mapping[str, Any], parts: Sequence[Part]
) -> dict[str, Any]:
    """Write the manifest from the parts, and clear away what only an unfinished job needs.

    Raises:
        OutputError: it cannot be written.
    """
    names = {part.file for part in parts}
    for path in folder.iterdir():
        if _LEFT.fullmatch(path.name):
            path.unlink(missing_ok=True)  # of a worker that was killed while it wrote, and replaced
        elif _PART.fullmatch(path.name) and path.name not in names:
            path.unlink()  # of a source that was damaged differently when it was read before
    manifest = {
        **about,
        "format": FORMAT,
        "compute": sorted({part.compute for part in parts}),
        "provider": sorted({part.provider for part in parts}),
        "rows": sum(part.rows for part in parts),
        "errors": sum(part.errors for part in parts),
        "settings": {"format": FORMAT, **settings},
        "shards": [_listed(part) for part in parts],
    }
    with finished(folder / MANIFEST, force=True) as partial:
        _write(partial, manifest)
    (folder / RUN).unlink(missing_ok=True)
    return manifest


def _listed(part: Part) -> dict[str, Any]:
    entry = asdict(part)
    entry["bytes"] = entry.pop("nbytes")
    del entry["last"], entry["compute"], entry["provider"]
    return entry


def _same(folder: Path, settings: Mapping[str, Any]) -> None:
    """Note the settings, or refuse unless an earlier job here had the same."""
    before: Any = None
    found = False
    for name, inside in ((MANIFEST, True), (RUN, False)):
        try:
            before = json.loads((folder / name).read_text("utf-8"))
            before = before["settings"] if inside else before
            found = True
            break
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{folder / name} is damaged", hint=RESTART) from error
    if not found:
        with finished(folder / RUN, force=True) as partial:
            _write(partial, settings)
        return
    if not isinstance(before, dict):
        raise OutputError(f"{folder} is damaged: it does not say what it holds", hint=RESTART)
    changed = [name for name in settings if settings[name] != before.get(name)]
    if changed:
        words = ", ".join(WORDS.get(name, name) for name in changed)
        raise OutputError(
            f"{folder} holds another job's data set: {words} changed since then",
            hint=f"repeat that job's command to go on with it, {RESTART}",
        )


def _ours(name: str) -> bool:
    return name in (RUN, MANIFEST, LOCK) or any(kind.fullmatch(name) for kind in (_PART, _LEFT))


def _write(path: Path, record: object) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(record, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
