"""Finds a checkpoint's folder: a local path as it is, or a hub id fetched file by file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sigrun.errors import CheckpointError

SMALL = (
    "README.md",  # for the licence in its front matter
    "config.json",
    "open_clip_config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "spiece.model",
    "tokenizer.model",
    "tokenizer.json",
    "model.safetensors.index.json",
    "open_clip_model.safetensors.index.json",
)
"""What any layout may need beside its weights. It comes first, for it tells which weights are wanted: repositories
often hold the same ones in several formats, gigabytes each."""
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
        name = path.resolve().name
        if not name.isprintable() or any("\ud800" <= c <= "\udfff" for c in name):
            raise CheckpointError(
                f"the folder's name {name!r} cannot be part of a file's name", hint="rename it"
            )
        return Folder(path, name, None)
    if path.exists():
        raise CheckpointError(
            f"{model} is a file, not a checkpoint folder", hint="pass the folder that holds it"
        )
    if not _HUB_ID.fullmatch(model) or model.startswith((".", "/", "~")):
        raise CheckpointError(f"there is no folder {model}", hint=_WAY_OUT)
    return _fetch(model, revision)


def _stems(small: Path) -> list[str]:
    """Names of weights that go with the small files, the better first."""
    openclip = ["open_clip_model"] if (small / "open_clip_config.json").exists() else []
    return [*openclip, "model"] if (small / "config.json").exists() or not openclip else openclip


def _patterns(small: Path, stem: str) -> list[str]:
    """What to fetch for weights of that name."""
    split = (small / f"{stem}.safetensors.index.json").exists()
    return [f"{stem}.safetensors", *([f"{stem}-*-of-*.safetensors"] if split else [])]


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
        path = Path(snapshot_download(model, revision=revision, allow_patterns=list(SMALL)))
        commit = _commit(path) or revision
        for stem in _stems(path):
            snapshot_download(model, revision=commit, allow_patterns=_patterns(path, stem))
            if any(path.glob(f"{stem}*.safetensors")):
                break
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
    return Folder(path, model, commit)


def _commit(path: Path) -> str | None:
    """The hub's cache names a snapshot's folder by its commit."""
    return path.name if re.fullmatch(r"[0-9a-f]{40}", path.name) else None
