"""Every example host answers what the Python runtime answers: odd labels, every kind of PNG and JPEG."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from sigrun import LabelSet, Siglip
from sigrun.scores import Scoring
from tests import browser as driver
from tests import hosts
from tests.hosts import Files, Scores
from tests.hosts_table import difference, drawings, drawn_labels

pytestmark = pytest.mark.hosts

PROBABILITY = 1e-5
EXACT = 5e-5  # of a logit; the page sums in another order
ONE_STEP = 2e-3  # of a logit: preprocess.onnx has a few values one step of 255 off
STEPS = {"small.png", "photo.jpg"}
TALL = {"tall.png"}  # preprocess.onnx resizes columns first, Pillow 13 the rows of what is tall
HIGH_BYTE = {"16-bit-grey.png"}  # sharp and browsers drop the lower byte of 16 bits, Python rounds them
PROFILE = {"profile.png"}  # the C++ program applies none
NODE = ("onnxruntime-node", "sharp", "@huggingface/tokenizers")
WEB = ("onnxruntime-web", "@huggingface/tokenizers")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    with hosts.files(tmp_path_factory.mktemp("model")) as made:
        yield made


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return hosts.pictures(tmp_path_factory.mktemp("kinds") / "pictures")


@pytest.fixture(scope="module")
def ours(model: Files, paths: list[Path]) -> Scores:
    return hosts.python_scores(model.gguf, paths)


def compare(theirs: Scores, ours: Scores, apart: frozenset[str] = frozenset()) -> None:
    """All scores are the runtime's, but for pictures in ``apart``, which are known to differ."""
    found = difference(theirs, ours)
    assert set(found.first) <= apart
    for picture, (probability, logit) in found.pictures.items():
        if picture in apart:
            assert logit > ONE_STEP, f"{picture}: {logit}: no longer apart"
            assert picture in PROFILE or logit < 0.1, f"{picture}: {logit}"
        elif picture in TALL:
            assert probability < 1e-3 and logit < 0.05, f"{picture}: {probability}, {logit}"
        else:
            assert probability < PROBABILITY, f"{picture}: {probability}"
            assert logit < (ONE_STEP if picture in STEPS else EXACT), f"{picture}: {logit}"


def test_pictures_and_labels_tell_faults_apart(ours: Scores) -> None:
    """What the comparison can see: a picture that is not turned, alpha that is dropped, labels taken for each other."""
    for i in range(2, 9):
        assert difference({"a": ours[f"orientation-{i}.jpg"]}, {"a": ours["orientation-1.jpg"]}).logit > 0.1
    assert difference({"a": ours["alpha.png"]}, {"a": ours["owl.png"]}).logit > 0.1
    logits = sorted(logit for _, logit in ours["owl.png"].values())
    assert all(b - a > ONE_STEP for a, b in pairwise(logits))


@pytest.mark.skipif(hosts.no_node(*NODE) is not None, reason=str(hosts.no_node(*NODE)))
def test_node(model: Files, paths: list[Path], ours: Scores) -> None:
    compare(hosts.node_scores(model, paths), ours, frozenset(HIGH_BYTE))


@pytest.mark.skipif(hosts.no_node(*NODE) is not None, reason=str(hosts.no_node(*NODE)))
def test_node_with_a_label_set(model: Files, paths: list[Path], ours: Scores) -> None:
    compare(hosts.node_scores(model, paths, None), ours, frozenset(HIGH_BYTE))


@pytest.mark.skipif(hosts.no_cpp() is not None, reason=str(hosts.no_cpp()))
@pytest.mark.skipif(hosts.no_node(*NODE) is not None, reason=str(hosts.no_node(*NODE)))
def test_calibrated_label_sets_bring_their_own_constants(model: Files, tmp_path: Path) -> None:
    whole, path = LabelSet.load(model.labels), tmp_path / "calibrated"
    replace(whole, scoring=Scoring(2.0, -1.5)).save(path)
    picture = hosts.DEMO / "owl.png"
    with Siglip.load(model.gguf, compute="exact") as opened:
        scored = opened.classify(picture, LabelSet.load(path))
        ours = {picture.name: {s.label: (s.probability, s.logit) for s in scored}}
    assert abs(ours["owl.png"]["owl"][1]) < 1.5
    compare(hosts.node_scores(replace(model, labels=path), [picture], None), ours)
    compare(hosts.cpp_scores(model, [picture], path), ours)


@pytest.mark.skipif(hosts.no_node(*WEB) is not None, reason=str(hosts.no_node(*WEB)))
@pytest.mark.skipif(driver.found() is None, reason="there is no Chromium on this machine")
@pytest.mark.parametrize("threads", [1, 2])
def test_the_page(model: Files, paths: list[Path], ours: Scores, threads: int, tmp_path: Path) -> None:
    with hosts.opened_page(model.bundle, tmp_path, threads) as page:
        said = page.run("document.getElementById('status').textContent")
        assert said == f"ready, {threads} thread{'s' * (threads > 1)}"
        compare(hosts.page_scores(page, paths), ours, frozenset(HIGH_BYTE))


@pytest.mark.skipif(hosts.no_cpp() is not None, reason=str(hosts.no_cpp()))
def test_cpp(model: Files, paths: list[Path], ours: Scores) -> None:
    compare(hosts.cpp_scores(model, paths), ours, frozenset(PROFILE))


@pytest.mark.skipif(
    hosts.no_node("@huggingface/transformers") is not None,
    reason=str(hosts.no_node("@huggingface/transformers")),
)
def test_transformers_js_loads_the_hubs_layout(model: Files, tmp_path: Path) -> None:
    """The same label first for every drawing; the same numbers once it need not resize them."""
    labels = drawn_labels()
    own, small = drawings(tmp_path), drawings(tmp_path / "small", hosts.SIDE)
    found = hosts.transformers_js_scores(model, own, labels)
    assert difference(found, hosts.python_scores(model.gguf, own, labels)).first == ()
    found = hosts.transformers_js_scores(model, small, labels)
    same = difference(found, hosts.python_scores(model.gguf, small, labels))
    assert same.first == ()
    assert same.probability < PROBABILITY
