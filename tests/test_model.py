"""The runtime as a user holds it."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sigrun
from sigrun import (
    ArtifactError,
    Embeddings,
    LabelSet,
    PictureError,
    ProviderError,
    Siglip,
    SigrunError,
    SpaceError,
    TextError,
)
from sigrun.embeddings import same_space

RED = Image.new("RGB", (40, 30), (200, 20, 10))
BLUE = Image.new("RGB", (31, 64), (0, 30, 220))


@pytest.fixture(scope="module")
def model(emoji_q4: Path) -> Siglip:
    return Siglip.load(emoji_q4, threads=1)


def test_public_names_are_the_documented_ones() -> None:
    assert sorted(sigrun.__all__) == sigrun.__all__
    for name in sigrun.__all__:
        assert getattr(sigrun, name) is not None


def test_every_way_to_hand_over_a_picture_gives_the_same_row(model: Siglip, tmp_path: Path) -> None:
    path = tmp_path / "rot räder.png"
    RED.save(path)
    encoded = path.read_bytes()
    embedded = model.embed_images([path, str(path), encoded, BytesIO(encoded), RED, np.asarray(RED)])
    assert embedded.errors == {}
    assert embedded.vectors.shape == (6, model.info.manifest.architecture["image"]["width"])
    assert embedded.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embedded.vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(embedded.vectors, embedded.vectors[[0] * 6], atol=2e-6)


@pytest.mark.parametrize(("form", "apart"), [("exact", 2e-6), ("int8", 0)])
def test_rows_do_not_depend_on_their_neighbours(emoji_q4: Path, form: str, apart: float) -> None:
    """In form int8, where what runs together shares a scale, not by a bit: items run one at a time."""
    with Siglip.load(emoji_q4, threads=1, compute=form) as model:
        many = model.embed_images([RED, BLUE] * 40).vectors
        alone = model.embed_images([RED]).vectors
        np.testing.assert_allclose(many[::2], np.repeat(alone, 40, 0), rtol=0, atol=apart)
        texts = model.embed_texts(["red apple", "owl", "a very long sentence about nothing at all"]).vectors
        np.testing.assert_allclose(texts[1:2], model.embed_texts(["owl"]).vectors, rtol=0, atol=apart)


def test_a_bad_picture_is_an_error_of_its_row(model: Siglip, tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "words.jpg").write_text("not a picture")
    items = [RED, tmp_path / "empty.png", tmp_path / "words.jpg", tmp_path / "none.png", tmp_path, BLUE]
    embedded = model.embed_images(items)
    assert sorted(embedded.errors) == [1, 2, 3, 4]
    for row, name in ((1, "empty.png"), (2, "words.jpg"), (3, "none.png")):
        assert name in embedded.errors[row].message
    assert np.isnan(embedded.vectors[1:5]).all()
    np.testing.assert_allclose(embedded.vectors[[0, 5]], model.embed_images([RED, BLUE]).vectors, atol=2e-6)
    scored = model.score(embedded, model.label_set(["red", "blue"]))
    assert [len(scores) for scores in scored] == [2, 0, 0, 0, 0, 2]


@pytest.mark.parametrize(
    "one", ["a.png", b"bytes", Path("a.png"), RED, np.zeros((9, 9, 3), np.uint8), BytesIO(b"x")]
)
def test_one_picture_is_not_a_list_of_pictures(model: Siglip, one: object) -> None:
    with pytest.raises(PictureError, match=r"write \[picture\]"):
        model.embed_images(one)  # type: ignore[arg-type]


def test_any_iterable_of_texts_will_do(model: Siglip) -> None:
    expected = model.embed_texts(["owl", "rocket"]).vectors
    np.testing.assert_array_equal(model.embed_texts(np.array(["owl", "rocket"])).vectors, expected)
    assert model.label_set(label for label in ("owl", "rocket")).labels == ("owl", "rocket")


def test_progress_counts_every_text(model: Siglip) -> None:
    counts: list[int] = []
    model.label_set(["owl"] * 60, on_progress=counts.append)
    assert sum(counts) == 60
    assert len(counts) > 1


def test_nothing_in_nothing_out(model: Siglip) -> None:
    assert model.embed_images([]).vectors.shape == (0, 160)
    assert model.embed_texts([]).vectors.shape == (0, 160)


def test_scores_stand_for_themselves(model: Siglip) -> None:
    alone = model.classify(RED, ["red apple"])[0]
    together = {s.label: s for s in model.classify(RED, ["owl", "red apple", "rocket"])}
    assert together["red apple"].probability == pytest.approx(alone.probability, abs=1e-5)
    scoring = model.info.manifest.scoring
    cosine = float((model.embed_images([RED]).vectors @ model.embed_texts(["red apple"]).vectors.T)[0, 0])
    logit = np.exp(scoring.logit_scale) * cosine + scoring.logit_bias
    assert alone.logit == pytest.approx(logit, abs=1e-4)
    assert alone.probability == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)
    logits = [s.logit for s in model.classify(RED, ["owl", "red apple", "rocket"])]
    assert logits == sorted(logits, reverse=True)


def test_templates_and_label_sets(model: Siglip) -> None:
    labels = model.label_set(["owl", "rocket"], template="a picture of {}")
    assert labels.labels == ("owl", "rocket")
    expected = model.embed_texts(["a picture of owl", "a picture of rocket"]).vectors
    np.testing.assert_array_equal(labels.embeddings.vectors, expected)
    assert {s.label for s in model.classify(RED, labels)} == {"owl", "rocket"}


def test_a_text_beyond_the_context_is_cut_and_said(model: Siglip) -> None:
    embedded = model.embed_texts(["owl", "owl " * 200, "owl " * 300])
    assert embedded.cut == (1, 2)
    np.testing.assert_allclose(embedded.vectors[1], embedded.vectors[2], atol=1e-6)


@pytest.mark.parametrize("labels", [[], "a cat", [""], ["a cat", "   "], ["!!!"], [3]])
def test_labels_that_cannot_be_scored(model: Siglip, labels: list[str]) -> None:
    with pytest.raises(TextError):
        model.classify(RED, labels)


def test_a_template_without_a_place_for_the_label(model: Siglip) -> None:
    with pytest.raises(TextError, match=r"\{\}"):
        model.label_set(["owl"], template="a picture")


def test_classify_raises_for_a_bad_picture(model: Siglip, tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"none\.png"):
        model.classify(tmp_path / "none.png", ["owl"])


def test_spaces_are_not_mixed(model: Siglip, tiny_q4: Path) -> None:
    with Siglip.load(tiny_q4) as other:
        labels = other.label_set(["owl"])
        with pytest.raises(SpaceError, match=model.space):
            model.classify(RED, labels)
        with pytest.raises(SpaceError):
            model.score(other.embed_images([RED]), model.label_set(["owl"]))
    same_space("a", "a")


def test_towers_come_and_go(emoji_q4: Path) -> None:
    with Siglip.load(emoji_q4) as model:
        assert model.info.loaded == ()
        before = model.embed_texts(["owl"]).vectors
        assert model.info.loaded == ("text",)
        model.unload("text")
        model.unload("text")
        assert model.info.loaded == ()
        np.testing.assert_array_equal(model.embed_texts(["owl"]).vectors, before)
    with Siglip.load(emoji_q4, towers="both") as model:
        assert set(model.info.loaded) == {"image", "text"}


def test_load_refuses_what_is_not_there(emoji_q4: Path, tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="int9"):
        Siglip.load(emoji_q4, compute="int9")
    with pytest.raises(ProviderError, match="tpu"):
        Siglip.load(emoji_q4, provider="tpu")
    with pytest.raises(ProviderError, match="threads"):
        Siglip.load(emoji_q4, threads=0)
    with pytest.raises(ArtifactError, match=r"none\.gguf"):
        Siglip.load(tmp_path / "none.gguf")
    for pixels in (0, -1):
        with pytest.raises(ValueError, match="max_pixels must be at least 1"):
            Siglip.load(emoji_q4, max_pixels=pixels)


@pytest.mark.parametrize("action", ["preload", "unload"])
def test_a_tower_that_cannot_be_is_refused(model: Siglip, action: str) -> None:
    with pytest.raises(ValueError, match="tower must be image or text, not 'vision'"):
        getattr(model, action)("vision")


@pytest.mark.parametrize("spoiled", [np.uint8, np.float32])
def test_a_session_works_on_packed_matrices_in_place(
    emoji_q4: Path, monkeypatch: pytest.MonkeyPatch, spoiled: type
) -> None:
    """They are not copied, so they must live with it."""
    from sigrun import sessions

    kept: list[dict[str, np.ndarray]] = []
    unpack = sessions._unpack

    def spying(*arguments: object) -> object:
        arrays = unpack(*arguments)  # type: ignore[arg-type]
        kept.append(arrays)  # type: ignore[arg-type]
        return arrays

    with Siglip.load(emoji_q4, towers="image") as model:
        expected = model.embed_images([RED]).vectors
        gc.collect()
        filler = [np.full(1 << 18, 7, np.uint8) for _ in range(50)]  # what would land in freed arrays
        np.testing.assert_array_equal(model.embed_images([RED]).vectors, expected)
        assert len(filler) == 50
    monkeypatch.setattr(sessions, "_unpack", spying)
    with Siglip.load(emoji_q4, towers="image") as model:
        for array in kept[0].values():
            if array.dtype == spoiled:
                array.fill(1)
        assert not np.array_equal(model.embed_images([RED]).vectors, expected)


def test_the_file_that_graphs_name_is_empty() -> None:
    """No weight may ever come from there: reading it must fail."""
    from sigrun.sessions import EXTERNAL

    assert [p.name for p in EXTERNAL.iterdir()] == ["weights"]
    assert (EXTERNAL / "weights").stat().st_size == 0


def test_threads_share_a_model(emoji_q4: Path) -> None:
    with Siglip.load(emoji_q4, threads=1) as model:
        expected = model.embed_images([RED]).vectors
        failures: list[object] = []

        def work() -> None:
            for _ in range(10):
                if not np.allclose(model.embed_images([RED]).vectors, expected, atol=2e-6):
                    failures.append("image")
                model.embed_texts(["owl"])

        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert failures == []


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(PictureError("a.png: no picture", hint="try another")))
    assert isinstance(error, PictureError)
    assert (error.message, error.hint) == ("a.png: no picture", "try another")
    assert str(error) == "a.png: no picture\n  hint: try another"
    assert issubclass(PictureError, SigrunError)


def test_results_are_plain_values() -> None:
    embeddings = Embeddings(np.zeros((2, 3), np.float32), "space")
    assert len(embeddings) == 2
    assert LabelSet(("a", "b"), embeddings).labels == ("a", "b")


def test_works_with_stdout_and_stderr_closed(emoji_q4: Path) -> None:
    code = (
        "import sys; sys.stdout = sys.stderr = None\n"
        "from sigrun import Siglip\nimport numpy as np\n"
        "m = Siglip.load(sys.argv[1]); m.classify(np.zeros((9, 9, 3), np.uint8), ['owl'])"
    )
    assert subprocess.run([sys.executable, "-c", code, emoji_q4], check=False).returncode == 0
