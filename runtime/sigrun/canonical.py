"""Canonical text: what happens to a label before the tokenizer sees it.

The towers were trained on one spelling of a text, so "A Cat!" has to become "a cat" before it is cut into
pieces. Several recipes exist and disagree, which is why the choice has a name, is stored in the artifact, and
takes part in the identity of the embedding space:

``hf``
    what ``transformers.SiglipTokenizer`` does (google/* checkpoints): lower-case, drop ASCII punctuation,
    collapse white space. Lower-casing goes character by character, so a capital sigma always becomes ``σ``,
    never ``ς``.
``openclip``
    what ``open_clip`` does for its SigLIP models (timm/* checkpoints): mend mojibake with ftfy, resolve HTML
    entities twice, turn ``_`` into a space, drop ASCII punctuation, lower-case the whole text, collapse white
    space.
``lower``
    what SigLIP 2 was trained on and transformers' Siglip2Tokenizer does (google/siglip2-* checkpoints): lower-case,
    character by character, and nothing else. Punctuation and spaces stay.
``none``
    nothing at all: for texts that are canonical already.
"""

from __future__ import annotations

import html
import importlib
import re
import string
from typing import Any, Literal, get_args

from sigrun.errors import TextError

Canonicalisation = Literal["hf", "openclip", "lower", "none"]

CANONICALISATIONS: tuple[Canonicalisation, ...] = get_args(Canonicalisation)

_DROP_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WHITE_SPACE = re.compile(r"\s+")
_WORD_MARK = "▁"  # U+2581: how SentencePiece writes a space; in a text it means no more than one

# On a text of these characters alone, and without an HTML entity, ftfy changes nothing that survives to the
# end.
_UNTOUCHED_BY_FTFY = re.compile(r"[\t\n\f\r -~]*")
_SHOWN = 60  # characters of a text that an error message quotes
_ENTITY = re.compile(r"&#?[0-9A-Za-z]{1,24};")


def canonicalise(text: str, how: Canonicalisation) -> str:
    """Spell a text the way the text tower was trained on.

    Args:
        text: any text.
        how: the recipe, as recorded in the artifact.

    Returns:
        The canonical text; it may be empty, for instance for ``"!?"``.

    Raises:
        TextError: ``openclip`` needs ftfy for this text and ftfy is not installed.
        ValueError: there is no such recipe.
    """
    if how == "hf":
        return _hf(text)
    if how == "openclip":
        return _openclip(text)
    if how == "lower":
        return _lower(text)
    if how == "none":
        return text
    raise ValueError(f"canonicalisation {how!r} is none of {', '.join(CANONICALISATIONS)}")


def _hf(text: str) -> str:
    text = _lower(text.replace(_WORD_MARK, " ")).translate(_DROP_PUNCTUATION)
    return _WHITE_SPACE.sub(" ", text).strip()


def _lower(text: str) -> str:
    """Lower case, character by character."""
    if "Σ" in text:  # the one capital whose small form depends on its neighbours
        text = text.replace("Σ", "σ")
    return text.lower()


def _openclip(text: str) -> str:
    text = _mend(text)
    text = html.unescape(html.unescape(text))
    text = text.replace("_", " ").translate(_DROP_PUNCTUATION).lower()
    return " ".join(text.split())


def _mend(text: str) -> str:
    """``ftfy.fix_text``, without ftfy where it provably changes nothing (plain ASCII, no HTML entity)."""
    if _UNTOUCHED_BY_FTFY.fullmatch(text) and not _ENTITY.search(text) and html.unescape(text) == text:
        return text
    try:
        ftfy: Any = importlib.import_module("ftfy")
    except ImportError as error:
        shown = ascii(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!a}…"
        raise TextError(
            f"the text {shown} is more than plain ASCII: this model's canonicalisation (openclip) sends it through "
            "ftfy, which is not installed",
            hint="pip install ftfy",
        ) from error
    mended: str = ftfy.fix_text(text)
    return mended
