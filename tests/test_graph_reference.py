"""The towers' graphs against transformers on the same weights, and against optimum's own export."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from sigrun import Siglip
from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_exporters.export import export
from sigrun_recipes import Architecture, ImageTower, TextTower, load
from tests import checkpoints
from tests.conftest import UNVERIFIED, roomy

pytestmark = pytest.mark.reference

SO400M_WIDTHS = Architecture(
    ImageTower(layers=2, width=1152, heads=16, mlp=4304, eps=1e-6, image_size=384, patch_size=14),
    TextTower(
        layers=2,
        width=1152,
        heads=16,
        mlp=4304,
        eps=1e-6,
        vocabulary=checkpoints.EMOJI_VOCABULARY,
        context=64,
        projection=1152,
    ),
)
BATCHES = (1, 2, 7)
TOLERANCE = 1e-5  # of a unit vector's coordinates


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with SO400M's widths and few layers."""
    return checkpoints.write(tmp_path_factory.mktemp("wide") / "wide", SO400M_WIDTHS, seed=5)


@pytest.fixture(scope="module", params=["wide", "emoji"])
def folder(request: pytest.FixtureRequest) -> Path:
    if request.param == "wide":
        path: Path = request.getfixturevalue("wide")
        return path
    return checkpoints.EMOJI


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    from transformers import SiglipModel

    return SiglipModel.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def ours(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siglip]:
    path = export(
        open_checkpoint(str(folder)), load("f32"), tmp_path_factory.mktemp("models"), UNVERIFIED
    ).path
    with Siglip.load(path, compute="exact") as model:
        yield model


def unit(x: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    values: np.ndarray[Any, np.dtype[np.float32]] = x.detach().numpy()
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(count)
    sizes = [(40, 90), (384, 384), (500, 300), (61, 60), (5, 9), (384, 200), (100, 100)]
    return [Image.fromarray(rng.integers(0, 256, (*sizes[i % 7], 3), np.uint8)) for i in range(count)]


@pytest.mark.parametrize("batch", BATCHES)
def test_image_tower(folder: Path, theirs: Any, ours: Siglip, batch: int) -> None:
    import torch
    from transformers import SiglipImageProcessor

    pixels = SiglipImageProcessor.from_pretrained(folder)(pictures(batch), return_tensors="pt")[
        "pixel_values"
    ]
    with torch.no_grad():
        output = theirs.vision_model(pixels)
    embeds = ours.embed_images(pictures(batch)).vectors
    assert np.abs(embeds - unit(output.pooler_output)).max() < TOLERANCE
    session = ours._session("image")
    hidden = session.run(pixels.numpy(), "last_hidden_state")
    expected = output.last_hidden_state.numpy()
    assert hidden.shape == expected.shape
    assert np.abs(hidden - expected).max() < 2e-4 * np.abs(expected).max()


@pytest.mark.parametrize("batch", BATCHES)
def test_text_tower(folder: Path, theirs: Any, ours: Siglip, batch: int) -> None:
    import torch
    from transformers import SiglipTokenizer

    texts = ["Red apple!", "a fire engine", "owl", "x " * 90, "naïve café", "snowman without snow", "?? 42"][
        :batch
    ]
    tokens = SiglipTokenizer.from_pretrained(folder)(
        texts, padding="max_length", truncation=True, max_length=64, return_tensors="pt"
    )
    with torch.no_grad():
        output = theirs.text_model(tokens["input_ids"])
    embedded = ours.embed_texts(texts)
    assert np.abs(embedded.vectors - unit(output.pooler_output)).max() < TOLERANCE
    assert embedded.cut == ((3,) if batch > 3 else ())


def test_scores(folder: Path, theirs: Any, ours: Siglip) -> None:
    """Logits and probabilities of the joint model, end to end from picture and text."""
    import torch
    from transformers import SiglipImageProcessor, SiglipTokenizer

    texts = ["red apple", "fire engine", "owl"]
    pixels = SiglipImageProcessor.from_pretrained(folder)(pictures(2), return_tensors="pt")["pixel_values"]
    ids = SiglipTokenizer.from_pretrained(folder)(texts, padding="max_length", return_tensors="pt")[
        "input_ids"
    ]
    with torch.no_grad():
        expected = theirs(input_ids=ids, pixel_values=pixels).logits_per_image
    found = ours.score(ours.embed_images(pictures(2)), ours.label_set(texts))
    for row, scores in enumerate(found):
        by_label = {s.label: s for s in scores}
        for column, text in enumerate(texts):
            assert by_label[text].logit == pytest.approx(float(expected[row, column]), abs=1e-3)
            assert by_label[text].probability == pytest.approx(
                float(expected.sigmoid()[row, column]), abs=1e-4
            )


@pytest.mark.parametrize("variant", ["q4_k_m", "q5_k_m", "q8_0"])
def test_the_exact_form_is_torch_on_the_stored_numbers(wide: Path, tmp_path: Path, variant: str) -> None:
    """Put the numbers that the artifact stores into transformers' own model: the same embeddings must come out."""
    import torch
    from transformers import SiglipModel

    from sigrun.artifact import Artifact
    from sigrun_exporters.checkpoint.huggingface import source_name, source_shape

    path = export(open_checkpoint(str(wide)), roomy(variant), tmp_path, UNVERIFIED).path
    model = SiglipModel.from_pretrained(wide).eval()
    state = model.state_dict()
    with Artifact.open(path) as artifact:
        for spec in SO400M_WIDTHS.tensors():
            name, part = source_name(spec)
            stored = artifact.dense(spec.name)[tuple(slice(n) for n in spec.shape)]
            values = torch.from_numpy(np.array(stored))
            if part is None:
                state[name].copy_(values.reshape(source_shape(spec, SO400M_WIDTHS.tower(spec.tower))))
            else:
                state[name][part * len(values) : (part + 1) * len(values)] = values
    with Siglip.load(path, compute="exact") as ours, torch.no_grad():
        ids = torch.from_numpy(ours._towers.tokenizer().encode(["an owl", "red"]).ids)
        text = unit(model.text_model(ids).pooler_output)
        assert np.abs(ours.embed_texts(["an owl", "red"]).vectors - text).max() < TOLERANCE
        pixels = torch.randn(1, 3, 384, 384, generator=torch.Generator().manual_seed(0))
        image = unit(model.vision_model(pixels).pooler_output)
        assert np.abs(ours._session("image").embed(pixels.numpy()) - image).max() < TOLERANCE


@pytest.mark.filterwarnings("ignore")  # what optimum, torch and transformers warn of among themselves
def test_optimum_exports_the_same_function(tmp_path: Path) -> None:
    """optimum's joint ONNX graph of the bundled model gives our embeddings and logits."""
    from optimum.exporters.onnx import main_export

    main_export(str(checkpoints.EMOJI), tmp_path, task="zero-shot-image-classification", do_validation=False)
    path = export(open_checkpoint(str(checkpoints.EMOJI)), load("f32"), tmp_path / "ours", UNVERIFIED).path
    texts = ["red apple", "owl"]
    with Siglip.load(path, compute="exact") as model:
        ids = model._towers.tokenizer().encode(texts).ids
        joint = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(0)
        size = model.info.manifest.preprocessing.width
        pixels = rng.standard_normal((2, 3, size, size), np.float32)
        names = [o.name for o in joint.get_outputs()]
        out = dict(zip(names, joint.run(None, {"input_ids": ids, "pixel_values": pixels}), strict=True))
        assert np.abs(model._session("image").embed(pixels) - out["image_embeds"]).max() < TOLERANCE
        assert np.abs(model.embed_texts(texts).vectors - out["text_embeds"]).max() < TOLERANCE
