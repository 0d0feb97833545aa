"""Texts through the text tower, some at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sigrun.artifact import Artifact
from sigrun.embeddings import Embeddings
from sigrun.errors import TextError
from sigrun.sessions import TowerSession
from sigrun.tokens import Tokenizer


def listed_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list.

    Raises:
        TextError: it is one text, not a list of them.
    """
    if isinstance(texts, str):
        raise TextError("texts must be a list of strings, not one string", hint="write [text]")
    return list(texts)


def embed_texts(
    texts: Sequence[str],
    artifact: Artifact,
    session: TowerSession,
    tokenizer: Tokenizer,
    size: int,
    on_progress: Callable[[int], object] | None = None,
) -> Embeddings:
    """Embed texts, ``size`` at a time; the arguments are those of :meth:`sigrun.Siglip.embed_texts`.

    Returns:
        Embeddings, float32 [n, projection].

    Raises:
        TextError: a text is empty or not a string.
    """
    tokens = tokenizer.encode(texts)
    parts = [np.empty((0, session.width), np.float32)]
    for start in range(0, len(texts), size):
        ids = tokens.ids[start : start + size]  # [n, context]
        parts.append(session.embed(artifact.token_rows(ids)))
        if on_progress is not None:
            on_progress(len(ids))
    cut = tuple(np.flatnonzero(tokens.cut).tolist())
    return Embeddings(np.concatenate(parts), artifact.manifest.space, cut=cut)
