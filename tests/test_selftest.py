"""The self-test: passes what computes right in every form, and fails what does not, for any one spoiled matrix."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sigrun import Siglip, selftest, sessions
from sigrun.artifact import Artifact
from sigrun.choice import FORMS
from sigrun.int8 import SEVEN_BITS, Int8
from sigrun.manifest import TOWERS, TowerName
from sigrun.sessions import TowerSession
from sigrun.tokens import Tokenizer


@pytest.fixture(scope="module")
def artifact(emoji_q4: Path) -> Iterator[Artifact]:
    with Artifact.open(emoji_q4) as opened:
        yield opened


def run(artifact: Artifact, tower: TowerName, form: str) -> selftest.TowerTest:
    session = TowerSession(artifact, tower, form, 2)
    return selftest.run(artifact, session, lambda: Tokenizer(artifact.tokenizer()))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_passes(emoji_q4: Path, form: str) -> None:
    with Siglip.load(emoji_q4, compute=form) as model:
        found = model.self_test()
    assert found.passed
    assert [(t.tower, t.form, t.provider) for t in found.tests] == [(t, form, "cpu") for t in TOWERS]
    for test, line in zip(found.tests, found.lines(), strict=True):
        assert test.cosine is not None
        assert test.limit is not None
        assert test.limit > 0.985
        assert test.cosine >= test.limit
        assert line.startswith(f"{test.tower} tower, form {form}, provider cpu: cosine ")
        assert line.endswith("expected: passed")


def test_one_tower_alone_is_loaded(emoji_q4: Path) -> None:
    with Siglip.load(emoji_q4) as model:
        assert [t.tower for t in model.self_test("text").tests] == ["text"]
        assert model.info.loaded == ("text",)


@pytest.mark.parametrize("tower", TOWERS)
def test_any_spoiled_matrix_fails_the_exact_form(
    artifact: Artifact, tower: TowerName, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = artifact.manifest.graphs[tower]["exact"].weights
    original = sessions._initializers
    for spoiled in [name for name, packing in weights.items() if packing == "nbits"][::5]:

        def spoil(of: Artifact, name: str, *how: object, spoiled: str = spoiled) -> object:
            for part, array in original(of, name, *how):  # type: ignore[arg-type]
                yield part, array[::-1].copy() if part == f"{spoiled}.scales" else array

        monkeypatch.setattr(sessions, "_initializers", spoil)
        found = run(artifact, tower, "exact")
        assert not found.passed, (spoiled, found)
        assert found.problem is not None
        assert "must reach" in found.problem
        assert found.line().endswith("FAILED")


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("change", ["zero", "turned"])
def test_a_spoiled_matrix_fails_form_int8(
    artifact: Artifact, tower: TowerName, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = artifact.manifest.graphs[tower]["int8"].weights
    original = Artifact.int8
    names = [name for name, packing in weights.items() if packing == "int8"]
    for spoiled in [name for name in names if "attn_v" in name or "ffn_up" in name][::2]:

        def spoil(self: Artifact, name: str, most: int, spoiled: str = spoiled) -> Int8:
            found = original(self, name, most)
            if name != spoiled:
                return found
            return Int8(np.zeros_like(found.q) if change == "zero" else -found.q, found.scales)

        monkeypatch.setattr(Artifact, "int8", spoil)
        assert not run(artifact, tower, "int8").passed, spoiled


def test_limits_follow_from_the_verification(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    verification = artifact.manifest.verification
    assert verification is not None
    for tower in TOWERS:
        assert selftest.least_cosine(artifact, tower, "exact") == 1 - 2e-6
        exact, int8 = (verification.forms[form].cosines[tower] for form in ("exact", "int8"))
        lost = max(exact.mean - int8.mean, exact.worst - int8.worst)
        assert lost > 0
        limit = selftest.least_cosine(artifact, tower, "int8")
        assert limit == pytest.approx(1 - 5e-4 - 2 * lost)
        assert selftest.least_cosine(artifact, tower, "f16") == pytest.approx(1 - 5e-4, abs=1e-4)
        with monkeypatch.context() as patch:
            patch.setattr(selftest, "largest", lambda: SEVEN_BITS)
            assert 1 - selftest.least_cosine(artifact, tower, "int8") == pytest.approx(4 * (1 - limit))


def test_seven_bits_pass(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "largest", lambda: SEVEN_BITS)
    monkeypatch.setattr(selftest, "largest", lambda: SEVEN_BITS)
    for tower in TOWERS:
        assert run(artifact, tower, "int8").passed


def test_what_cannot_be_tested_is_said(tiny_q4: Path) -> None:
    """Exported without verification."""
    with Siglip.load(tiny_q4) as model:
        found = model.self_test()
        assert not found.passed
        assert [t.cosine for t in found.tests] == [None, None]
        for line in found.lines():
            assert "exported without verification" in line


def test_nothing_is_raised(emoji_q4: Path) -> None:
    """Whatever is wrong is in the result."""
    model = Siglip.load(emoji_q4, provider="cuda")  # not on this machine
    found = model.self_test("image")
    assert not found.passed
    assert "cuda" in found.lines()[0]
    model.close()
    assert "is closed" in model.self_test("text").lines()[0]
    with Siglip.load(emoji_q4) as other:
        assert "audio" in other.self_test("audio").lines()[0]  # type: ignore[arg-type]
    assert not selftest.SelfTest(()).passed


def test_values_that_are_no_numbers_fail(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Artifact.dense

    def spoil(self: Artifact, name: str) -> object:
        return original(self, name) * (np.float32("nan") if name == "v.patch_embd.weight" else 1)

    monkeypatch.setattr(Artifact, "dense", spoil)
    found = run(artifact, "image", "exact")
    assert not found.passed
    assert "no numbers" in found.line()


def test_the_key_follows_from_all_that_matters(artifact: Artifact) -> None:
    session = TowerSession(artifact, "image", "exact", 2)
    key = selftest.key(artifact, session)
    assert key == selftest.key(artifact, TowerSession(artifact, "image", "exact", 1))
    others = [
        selftest.key(artifact, TowerSession(artifact, "image", "int8", 2)),
        selftest.key(artifact, TowerSession(artifact, "text", "exact", 2)),
    ]
    for name, value in (("device", "other"), ("provider", dataclasses.replace(session.provider, ep="X"))):
        before = getattr(session, name)
        setattr(session, name, value)
        others.append(selftest.key(artifact, session))
        setattr(session, name, before)
    assert len({key, *others}) == 5


def test_what_passed_is_remembered(tmp_path: Path) -> None:
    cache = tmp_path / "a" / "cache"
    test = selftest.TowerTest("image", "f16", "cuda", 0.9999, 0.999)
    assert not selftest.passed_before(cache, "k")
    selftest.remember(cache, "k", test)
    selftest.remember(cache, "k", test)
    assert selftest.passed_before(cache, "k")
    assert not selftest.passed_before(cache, "other")
    assert not selftest.passed_before(None, "k")
    selftest.remember(None, "k", test)
    (tmp_path / "file").write_bytes(b"")
    selftest.remember(tmp_path / "file", "k", test)
    assert not selftest.passed_before(tmp_path / "file", "k")
    if sys.platform != "win32":
        (cache / "k.tested").chmod(0o666)
        assert not selftest.passed_before(cache, "k"), "others may have written it"
