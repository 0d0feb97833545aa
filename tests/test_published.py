"""What others published of SO400M: the hashes of its files, and an embedding of a picture drawn by a formula."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sigrun.artifact import Artifact
from sigrun.manifest import Manifest, Source
from sigrun.verification import Agreement, Cosines, Golden, Verification, golden_picture
from sigrun_exporters.verify import published
from sigrun_exporters.verify.published import LEAST_COSINE, check_embedding, check_files, compared
from sigrun_recipes import default_model, known

SO400M = default_model()
FOLDER = Path(published.__file__).parent
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def vector() -> NDArray[np.float64]:
    with np.load(FOLDER / "published_so400m.npz") as arrays:
        assert str(arrays["model_id"]) == SO400M.repo
        assert str(arrays["model_revision"]) == SO400M.revision
        return arrays["p8"].astype(np.float64)


def near(vector: NDArray[np.float64], cosine: float) -> NDArray[np.float64]:
    """A unit vector at a given cosine to another."""
    unit = vector / np.linalg.norm(vector)
    other = np.random.default_rng(0).standard_normal(len(unit))
    other -= (other @ unit) * unit
    return cosine * unit + math.sqrt(1 - cosine**2) * other / np.linalg.norm(other)


def source(**changes: str) -> Source:
    """The published checkpoint's own account of itself, with some hashes changed."""
    return Source(SO400M.repo, SO400M.revision, "apache-2.0", {**SO400M.files, **changes})


def test_the_vectors_are_the_published_file_unchanged() -> None:
    digest = hashlib.sha256((FOLDER / "published_so400m.npz").read_bytes()).hexdigest()
    assert digest == "f473ffa0d0a367313a6b8e9b17ad1871c6b67b7b5d14dae72867fb774dc6b1bd"


def test_the_note_names_whose_they_are_and_that_they_were_never_used() -> None:
    note = (FOLDER / "published_so400m.md").read_text("utf-8")
    for part in (
        "miracle2k/siglip-so400m-coreml",
        "Apache-2.0",
        "has never been run on the published weights",
    ):
        assert part in note
    assert published.__doc__ is not None and "ever been run on the published weights" in published.__doc__


def test_known_hashes_are_of_the_pinned_revision() -> None:
    assert SO400M.revision == "9fdffc58afc957d1a03a25b10dba0329ab15c2a3"
    assert SO400M.files[WEIGHTS] == "ea2abad2b7f8a9c1aa5e49a244d5d57ffa71c56f720c94bc5d240ef4d6e1d94a"
    assert len(SO400M.files) == 7
    for model in known():
        assert bool(model.files) == (model.revision is not None)
        assert all(len(h) == 64 and set(h) <= set("0123456789abcdef") for h in model.files.values())


def test_the_golden_picture_is_the_formula_of_the_published_one() -> None:
    picture = golden_picture(384)
    assert picture.shape == (384, 384, 3) and picture.dtype == np.uint8
    for x, y in ((0, 0), (1, 0), (0, 1), (383, 200), (17, 383)):
        expected = [(13 * x + 7 * y) % 256, (3 * x + 17 * y) % 256, (19 * x + 5 * y) % 256]
        assert picture[y, x].tolist() == expected


@pytest.mark.parametrize("cosine", [1.0, 0.999, LEAST_COSINE + 1e-5])
def test_an_embedding_near_the_published_one_passes(vector: NDArray[np.float64], cosine: float) -> None:
    found, problem = check_embedding(near(vector, cosine).astype(np.float32))
    assert found == pytest.approx(cosine, abs=1e-6)
    assert problem is None


@pytest.mark.parametrize("cosine", [LEAST_COSINE - 1e-5, 0.9, 0.0, -1.0])
def test_an_embedding_away_from_it_fails(vector: NDArray[np.float64], cosine: float) -> None:
    found, problem = check_embedding(near(vector, cosine))
    assert found == pytest.approx(cosine, abs=1e-6)
    assert problem is not None and f"{found:.5f}" in problem


def test_the_length_of_the_vectors_does_not_matter(vector: NDArray[np.float64]) -> None:
    assert check_embedding(3 * vector) == (1.0, None)


def test_vectors_that_cannot_be_compared(vector: NDArray[np.float64]) -> None:
    assert check_embedding(0 * vector)[1] is not None
    assert check_embedding(np.nan * vector)[1] is not None
    with pytest.raises(ValueError, match=r"\(1152,\), this one \(3,\)"):
        check_embedding([1.0, 0.0, 0.0])


def test_the_published_files_have_no_problem() -> None:
    assert check_files(source()) == []
    assert check_files(replace(source(), revision=None)) == []
    assert check_files(replace(source(), model=SO400M.repo.split("/")[1])) == []
    few = {name: SO400M.files[name] for name in (WEIGHTS, "spiece.model")}
    assert check_files(replace(source(), files={**few, "README.md": "0" * 64})) == []


def test_a_wrong_hash_is_named() -> None:
    problems = check_files(source(**{"spiece.model": "0" * 64}))
    assert len(problems) == 1
    for part in ("spiece.model", "0" * 64, SO400M.files["spiece.model"]):
        assert part in problems[0]


def test_another_revision_is_named() -> None:
    problems = check_files(replace(source(), revision="abc"))
    assert len(problems) == 1 and "abc" in problems[0] and str(SO400M.revision) in problems[0]


def test_weights_in_another_file_are_named() -> None:
    files = {"model-00001-of-00002.safetensors": "1" * 64, "spiece.model": SO400M.files["spiece.model"]}
    assert check_files(replace(source(), files=files)) == ["the weights are in no file whose hash is known"]


def test_a_renamed_folder_is_known_by_its_weights() -> None:
    renamed = replace(source(**{"spiece.model": "0" * 64}), model="my-copy")
    assert len(check_files(renamed)) == 1


def test_models_without_known_hashes_have_nothing_to_miss() -> None:
    for model in ("google/siglip-base-patch16-224", "emoji-siglip-patch10-60"):
        assert check_files(Source(model, None, None, {WEIGHTS: "0" * 64})) == []


def verified(manifest: Manifest, vector: NDArray[np.float64], own: float) -> Manifest:
    """A manifest as if the published checkpoint had been exported, its own worst cosine and golden vector given."""
    agreement = Agreement(1, 1, {"image": Cosines(own, own)}, None, ())
    return replace(
        manifest,
        source=source(),
        verification=Verification(1, 1, "0" * 64, {"exact": agreement}, {}),
        golden=Golden(tuple(vector.tolist()), "", None),
    )


def test_an_export_is_held_against_them(tiny_q4: Path, vector: NDArray[np.float64]) -> None:
    with Artifact.open(tiny_q4) as artifact:
        manifest = artifact.manifest
    assert compared(manifest) is None  # nothing is published of a random checkpoint

    found = compared(verified(manifest, near(vector, 0.999), 1.0))
    assert found is not None
    assert (found.model, found.problems, found.problem) == (SO400M.repo, (), None)
    assert found.cosine == pytest.approx(0.999, abs=1e-6)

    found = compared(verified(manifest, near(vector, 0.99), 1.0))
    assert found is not None and found.problem is not None

    # A variant at 0.98 to its checkpoint may be further from the published vector, but not at any distance:
    # cos(acos 0.995 + acos 0.98) = 0.97510 - 0.01987 = 0.95523.
    for cosine, passes in ((0.99, True), (0.9553, True), (0.9551, False)):
        found = compared(verified(manifest, near(vector, cosine), 0.98))
        assert found is not None and (found.problem is None) == passes

    unverified = replace(manifest, source=source(), golden=None)
    found = compared(unverified)
    assert found is not None and found.cosine is None and found.problem is None

    # Other weights under the model's name: their files are a problem, their embedding is not compared.
    other = verified(manifest, near(vector, 0.5), 1.0)
    found = compared(replace(other, source=source(**{WEIGHTS: "0" * 64})))
    assert found is not None and len(found.problems) == 1 and found.cosine is None
