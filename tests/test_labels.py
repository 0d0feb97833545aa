"""Label sets made by a model: templates, ensembles, cuts, and scoring with a set from a file."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sigrun import ArtifactError, Embeddings, LabelSet, Scoring, Siglip, SpaceError, TextError
from sigrun.scores import logits, probability
from sigrun.templates import ENSEMBLES, IMAGENET_80

RED = Image.new("RGB", (40, 30), (200, 20, 10))
LABELS = ["owl", "red apple", "Rocket!"]
THREE = ("{}", "a photo of {}.", "the {} in a {}")


@pytest.fixture(scope="module")
def model(emoji_q4: Path) -> Siglip:
    return Siglip.load(emoji_q4, compute="exact", threads=1)


@pytest.fixture(scope="module")
def images(model: Siglip) -> Embeddings:
    return model.embed_images([RED, b"no picture", Image.new("L", (9, 9), 255)])


def test_the_imagenet_templates() -> None:
    assert len(IMAGENET_80) == len(set(IMAGENET_80)) == 80
    assert all(template.count("{}") == 1 for template in IMAGENET_80)
    assert ENSEMBLES["imagenet80"] is IMAGENET_80
    with pytest.raises(TypeError):
        ENSEMBLES["mine"] = ()  # type: ignore[index]


def test_an_ensemble_is_the_mean_of_unit_vectors(model: Siglip) -> None:
    found = model.label_set(LABELS, templates=THREE)
    assert found.labels == tuple(LABELS)
    assert found.templates == THREE
    for row, label in enumerate(LABELS):
        alone = model.embed_texts([t.replace("{}", label) for t in THREE]).vectors.astype(np.float64)
        mean = alone.mean(0)
        np.testing.assert_allclose(found.embeddings.vectors[row], mean / np.linalg.norm(mean), atol=2e-6)
    assert found.embeddings.vectors.dtype == np.float32


def test_one_template_in_either_argument_is_the_same(model: Siglip) -> None:
    one, other = (
        model.label_set(LABELS, template="a {}"),
        model.label_set(LABELS, templates=["a {}"]),
    )
    np.testing.assert_array_equal(one.embeddings.vectors, other.embeddings.vectors)
    assert one.templates == other.templates == ("a {}",)
    assert model.label_set(LABELS).templates == ("{}",)


def test_progress_counts_labels_not_texts(model: Siglip) -> None:
    counts: list[int] = []
    model.label_set(["owl"] * 50, templates=THREE, on_progress=counts.append)
    assert sum(counts) == 50
    assert len(counts) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": "a {}", "templates": ["a {}"]}, "template and templates are both given"),
        ({"templates": []}, "the list of templates is empty"),
        ({"templates": "a {}"}, "must be a list of sentences"),
        ({"templates": ["a {}", "a"]}, r"'a' has no \{\}"),
        ({"templates": ["{}", 3]}, "must be a text, not 3"),
    ],
)
def test_templates_that_cannot_be_meant(model: Siglip, options: dict[str, object], message: str) -> None:
    with pytest.raises(TextError, match=message):
        model.label_set(["owl"], **options)  # type: ignore[arg-type]


def test_a_label_is_cut_where_any_of_its_texts_is(model: Siglip) -> None:
    long = "{} " + "and an owl " * 60
    assert model.label_set(["owl", "owl " * 200], template="{}").embeddings.cut == (1,)
    assert model.label_set(["owl", "apple"], templates=["{}", long]).embeddings.cut == (0, 1)
    many = ["owl"] * 40 + ["owl " * 200]  # beyond the first texts that are embedded together
    assert model.label_set(many, templates=["{}", "a {}"]).embeddings.cut == (40,)


def test_a_set_says_where_it_is_from(model: Siglip, tmp_path: Path) -> None:
    made = model.label_set(LABELS, templates=THREE)
    made.save(tmp_path / "set")
    found = LabelSet.load(tmp_path / "set")
    manifest = model.info.manifest
    assert found.origin is not None
    assert found.origin.model == f"{manifest.model} {manifest.variant}"
    assert found.origin.canonicalisation == manifest.canonicalisation == "hf"
    assert found.origin.scoring == manifest.scoring
    assert found.space == model.space
    np.testing.assert_array_equal(found.embeddings.vectors, made.embeddings.vectors)


def test_a_set_from_a_file_never_loads_the_text_tower(emoji_q4: Path, model: Siglip, tmp_path: Path) -> None:
    made = model.label_set(LABELS)
    made.save(tmp_path / "set")
    expected = model.classify(RED, made)
    with Siglip.load(emoji_q4, compute="exact", threads=1) as fresh:
        assert fresh.classify(RED, LabelSet.load(tmp_path / "set")) == expected
        assert fresh.info.loaded == ("image",)
    code = (
        "import sys\nfrom sigrun import LabelSet, Siglip\nimport numpy as np\n"
        "m = Siglip.load(sys.argv[1], towers='image', compute='exact')\n"
        "m.classify(np.zeros((9, 9, 3), np.uint8), LabelSet.load(sys.argv[2]))\n"
        "assert m.info.loaded == ('image',)\nassert 'sentencepiece' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, emoji_q4, tmp_path / "set"], check=True)


def test_a_set_is_read_without_a_model(model: Siglip, tmp_path: Path) -> None:
    model.label_set(LABELS).save(tmp_path / "set")
    code = (
        "import sys\nfrom sigrun import LabelSet\nassert len(LabelSet.load(sys.argv[1])) == 3\n"
        "assert not {'onnxruntime', 'sentencepiece'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "set"], check=True)


def test_a_set_of_another_space_is_refused(model: Siglip, tiny_q4: Path, images: Embeddings) -> None:
    with Siglip.load(tiny_q4) as other:
        foreign = other.label_set(LABELS)
    for use in (
        lambda: model.classify(RED, foreign),
        lambda: model.score(images, foreign),
        lambda: model.calibrate(foreign, [RED, RED], ["owl", "owl"]),
    ):
        with pytest.raises(SpaceError, match=foreign.space):
            use()


def test_scores_hold_cosines_and_obey_the_limits(model: Siglip, images: Embeddings) -> None:
    labels = model.label_set(LABELS)
    first, failed, last = model.score(images, labels)
    assert failed == []
    for scores, row in ((first, 0), (last, 2)):
        assert len(scores) == 3
        for score in scores:
            vector = labels.embeddings.vectors[LABELS.index(score.label)]
            assert score.cosine == pytest.approx(float(images.vectors[row] @ vector), abs=1e-6)
    assert [len(s) for s in model.score(images, labels, top=2)] == [2, 0, 2]
    assert model.score(images, labels, top=2)[0] == first[:2]
    least = first[1].probability
    assert model.score(images, labels, threshold=least)[0] == first[:2]
    assert model.score(images, labels, threshold=1.0) == [[], [], []]
    assert model.classify(RED, labels, top=1) == model.classify(RED, LABELS)[:1]
    assert len(model.classify(RED, labels, threshold=0.0)) == 3


def test_limits_are_checked_before_any_work(model: Siglip) -> None:
    with pytest.raises(ValueError, match="top must be"):
        model.classify("none.png", LABELS, top=0)
    with pytest.raises(ValueError, match="threshold is"):
        model.score(
            Embeddings(np.empty((0, 160), np.float32), model.space), model.label_set(LABELS), threshold=2
        )


def test_rows_that_are_no_numbers_have_no_scores_though_no_error_says_so(model: Siglip) -> None:
    vectors = np.stack([np.full(160, np.nan, np.float32), model.embed_images([RED]).vectors[0]])
    found = model.score(Embeddings(vectors, model.space), model.label_set(LABELS))
    assert [len(scores) for scores in found] == [0, 3]


def test_a_calibrated_set_is_scored_with_its_own_constants(model: Siglip, images: Embeddings) -> None:
    plain = model.label_set(LABELS)
    mine = Scoring(2.0, -1.0)
    found = {s.label: s for s in model.score(images, replace(plain, scoring=mine))[0]}
    expected = logits(images.vectors[:1], plain.embeddings.vectors, mine)[0]
    for label, logit in zip(LABELS, expected, strict=True):
        assert found[label].logit == pytest.approx(float(logit), abs=1e-5)
        assert found[label].probability == pytest.approx(float(probability(logit)), abs=1e-6)


def test_an_image_tower_alone_scores_with_the_constants_of_the_set(
    model: Siglip, images: Embeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such an artifact has no constants; those of the model that made the set, in the same space, serve."""
    made = model.label_set(LABELS)
    expected = model.score(images, made)
    manifest = replace(model._artifact.manifest, scoring=None)
    monkeypatch.setattr(model._artifact, "manifest", manifest)
    assert model.score(images, made) == expected
    with pytest.raises(ArtifactError, match="tower"):
        model.score(images, replace(made, origin=None))
