"""The small files of a checkpoint: JSON, the model card's licence, hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sigrun.errors import CheckpointError
from sigrun.manifest import Source
from sigrun_exporters.checkpoint.hub import Folder


def read_json(folder: Path, name: str, holds: str) -> Mapping[str, Any]:
    """A JSON object.

    Args:
        folder: the checkpoint.
        name: the file.
        holds: what such a folder holds, for the hint.

    Raises:
        CheckpointError: the file is missing, unreadable, or holds something else.
    """
    path = folder / name
    try:
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path}: is not a file")
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot read: {error.strerror or error}", hint=f"a checkpoint folder holds {holds}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: is not a JSON object")
    return data


def read_bytes(path: Path, what: str) -> bytes:
    """A whole file; ``what`` it is stands in the error."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read {what}: {error.strerror or error}") from error


def source(folder: Folder, files: Iterable[str]) -> Source:
    """Where a checkpoint came from, with the hashes of its files. Reads all of them."""
    return Source(
        model=folder.model,
        revision=folder.revision,
        licence=_licence(folder.path),
        files={name: _sha256(folder.path / name) for name in files},
    )


def _licence(folder: Path) -> str | None:
    """The licence that the model card's front matter names."""
    try:
        lines = (folder / "README.md").read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    if not lines or lines[0].strip() != "---":
        return None
    for line in lines[1:]:
        if line.strip() == "---":
            return None
        key, _, value = line.partition(":")
        if key.strip() == "license":
            return value.strip() or None
    return None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {error.strerror or error}") from error
