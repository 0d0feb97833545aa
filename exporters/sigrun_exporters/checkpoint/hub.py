"""Finds a checkpoint's folder: a local path as it is, or a hub id fetched file by file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sigrun.errors import CheckpointError

WANTED = (
    "README.md",  # for the licence in its front matter
    "config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "spiece.model",
    "model.safetensors",
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WAY_OUT = "pass a local folder with the checkpoint's files, or try: make demo"


@dataclass(frozen=True)
class Folder:
    """A checkpoint's files on this machine. ``model`` is its hub id or folder name."""

    path: Path
    model: str
    revision: str | None


def locate(model: str, revision: str | None = None) -> Folder:
    """The folder that holds ``model``, fetched from the hub if it is a hub id and no such folder exists.

    Args:
        model: a local folder or a hub id such as ``google/siglip-so400m-patch14-384``.
        revision: a commit, tag or branch of the hub repository.

    Raises:
        CheckpointError: no such folder; or the hub cannot be reached, or has no such model or file.
    """
    try:
        path = Path(model).expanduser()
        found = path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such user, a NUL
        raise CheckpointError(f"{model[:80]!r} is no path: {error}", hint=_WAY_OUT) from error
    if not model:
        raise CheckpointError("no model was named", hint=_WAY_OUT)
    if found:
        if revision is not None:
            raise CheckpointError(f"{model} is a local folder: a revision ({revision}) means nothing there")
        return Folder(path, path.resolve().name, None)
    if path.exists():
        raise CheckpointError(
            f"{model} is a file, not a checkpoint folder", hint="pass the folder that holds it"
        )
    if not _HUB_ID.fullmatch(model) or model.startswith((".", "/", "~")):
        raise CheckpointError(f"there is no folder {model}", hint=_WAY_OUT)
    return _fetch(model, revision)


def _fetch(model: str, revision: str | None) -> Folder:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        found = snapshot_download(model, revision=revision, allow_patterns=list(WANTED))
    except GatedRepoError as error:
        raise CheckpointError(
            f"{model}: the hub asks for a login before it gives this model", hint="run: hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{model}: the hub has no revision '{revision}' of it") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{model}: neither a local folder nor a model on the hub", hint=_WAY_OUT
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0].removeprefix("Got: ") if str(error) else type(error).__name__
        raise CheckpointError(
            f"{model}: not a folder here, and the hub cannot be reached: {reason}", hint=_WAY_OUT
        ) from error
    path = Path(found)
    # The hub's cache names a snapshot's folder by its commit.
    return Folder(path, model, path.name if re.fullmatch(r"[0-9a-f]{40}", path.name) else revision)
