"""Canonical text."""

from __future__ import annotations

import string
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigrun.canonical import CANONICALISATIONS, canonicalise
from sigrun.errors import TextError


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("a photo of a cat", "a photo of a cat"),
        ("A Photo, of a CAT!", "a photo of a cat"),
        ("  blue\t hair\n portrait ", "blue hair portrait"),
        ("golden_retriever", "goldenretriever"),
        ("This is a photo of {}.", "this is a photo of"),
        ("AT&T &amp; R&D", "att amp rd"),
        ("- leading dash", "leading dash"),
        ("ΣΟΦΟΣ", "σοφοσ"),  # character by character: no final sigma
        ("σοφος", "σοφος"),
        ("İstanbul", "i̇stanbul"),
        ("ẞ", "ß"),
        ("a▁b", "a b"),
        ("a\u00a0\u2003b", "a b"),
        ("ａ！", "ａ！"),  # full-width punctuation is not ASCII punctuation
        ("</s>", "s"),
        ("a\x00b", "a\x00b"),
        ("!?", ""),
        ("", ""),
    ],
)
def test_hf(text: str, canonical: str) -> None:
    assert canonicalise(text, "hf") == canonical


def test_lower_casing_a_text_is_lower_casing_its_characters_but_for_sigma() -> None:
    # transformers lower-cases character by character, canonicalise() whole texts: only Σ depends on its neighbours
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        if not 0xD800 <= code < 0xE000 and char != "Σ":
            assert f"a{char}".lower() == f"a{char.lower()}"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("A Photo, of a CAT!", "a photo of a cat"),
        ("golden_retriever", "golden retriever"),
        ("black & white", "black white"),
        ("AT&T", "att"),
        ("  a\r\n\tb\f", "a b"),
        ("!?", ""),
    ],
)
def test_openclip_needs_no_ftfy_for_plain_text(
    text: str, canonical: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    assert canonicalise(text, "openclip") == canonical


@pytest.mark.parametrize("text", ["café", "&lt;b&gt;", "&EACUTE;", "a\x0bb", "a\x1b[31mb", "\x7f", "a&ltb"])
def test_openclip_asks_for_ftfy_where_it_could_matter(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(TextError, match="ftfy") as caught:
        canonicalise(text, "openclip")
    assert caught.value.hint == "pip install ftfy"


def test_openclip_uses_ftfy_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(fix_text=lambda text: text.replace("cafÃ©", "café"))
    monkeypatch.setitem(sys.modules, "ftfy", fake)
    assert canonicalise("A cafÃ©_&amp;amp; ΣΟΣ", "openclip") == "a café σος"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("A Photo, of a CAT!", "a photo, of a cat!"),
        ("  Two  spaces\n", "  two  spaces\n"),
        ("ΣΟΦΟΣ", "σοφοσ"),  # character by character: no final sigma
        ("a▁B_c", "a▁b_c"),
        ("<START_OF_TURN>", "<start_of_turn>"),
        ("", ""),
    ],
)
def test_lower_does_nothing_else(text: str, canonical: str) -> None:
    assert canonicalise(text, "lower") == canonical


def test_none_changes_nothing() -> None:
    assert canonicalise(" A_b! \n", "none") == " A_b! \n"


def test_unknown_recipe() -> None:
    with pytest.raises(ValueError, match="hf, openclip, lower, none"):
        canonicalise("a", "clip")  # type: ignore[arg-type]


def test_recipes_are_listed() -> None:
    assert CANONICALISATIONS == ("hf", "openclip", "lower", "none")


@given(st.text())
def test_hf_gives_one_spelling(text: str) -> None:
    canonical = canonicalise(text, "hf")
    assert canonical == canonical.strip()
    assert "  " not in canonical
    assert not set(canonical) & set(string.punctuation)
    assert canonicalise(canonical, "hf") == canonical


@given(st.text(alphabet=string.ascii_letters + string.digits + " _.,!?-()'\""))
def test_openclip_gives_one_spelling(text: str) -> None:
    canonical = canonicalise(text, "openclip")
    assert canonicalise(canonical, "openclip") == canonical
    assert canonical == canonicalise(text.replace("_", " "), "hf")
