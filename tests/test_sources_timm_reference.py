"""timm's layout against the library that it is of: pixels, token ids, embeddings, scores.

Each model is made and saved by its library with seeded random weights, exported by us as f32, and run by our runtime.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sigrun_exporters.checkpoint import open_checkpoint, timm_towers
from sigrun_exporters.checkpoint.config import Config
from sigrun_recipes import Architecture
from tests import libraries
from tests.libraries import folder_of, pictures, randomise
from tests.sources_reference import exported, on_meta, our_pixels, shapes, unit

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore")]

TOLERANCE = 1e-5  # of a unit vector's coordinates


@pytest.fixture(autouse=True)
def small_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, arguments in libraries.SMALL.items():
        monkeypatch.setitem(timm_towers.TOWERS, name, arguments)


@pytest.fixture(scope="module", params=["so400m", "tanh", "squash", "arguments"])
def tower(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A timm folder as timm saves it for the hub."""
    timm = libraries.timm()
    from timm.models import save_for_hf

    folder = folder_of(tmp_path_factory.mktemp("timm"), request.param)
    name, side, overlay, arguments = {
        "so400m": ("vit_so400m_patch14_siglip_56", 56, {"crop_pct": 0.9}, {}),
        "tanh": ("vit_small_patch16_siglip_64", 64, {"crop_pct": 0.9, "interpolation": "bilinear"}, {}),
        "squash": ("vit_small_patch16_siglip_64", 64, {"crop_pct": 1.0, "crop_mode": "squash"}, {}),
        "arguments": (
            "vit_base_patch16_siglip_224",
            80,
            {"crop_pct": 1.0},
            {"img_size": 80, "depth": 1, "num_heads": 6, "embed_dim": 384, "act_layer": "gelu_tanh"},
        ),
    }[request.param]
    model = timm.create_model(
        name,
        num_classes=0,
        pretrained_cfg_overlay={
            "input_size": (3, side, side),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "num_classes": 0,
            "architecture": name,
            "interpolation": "bicubic",
            **overlay,
        },
        **arguments,
    )
    save_for_hf(randomise(model, seed=4), str(folder), safe_serialization=True)
    return folder


def test_timm(tower: Path, tmp_path: Path) -> None:
    import torch

    timm = libraries.timm()
    model = timm.create_model(f"local-dir:{tower}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    pixels = torch.stack([transform(picture) for picture in pictures()])
    with torch.no_grad():
        expected, hidden = unit(model(pixels)), model.forward_features(pixels).numpy()
    checkpoint = open_checkpoint(str(tower))
    assert checkpoint.tokenizer is None
    assert checkpoint.scoring is None
    assert np.array_equal(our_pixels(checkpoint), pixels.numpy())
    with exported(tower, tmp_path) as ours:
        assert np.abs(ours.embed_images(pictures()).vectors - expected).max() < TOLERANCE
        ours_hidden = ours._session("image").run(pixels.numpy(), "last_hidden_state")
        assert np.abs(ours_hidden - hidden).max() < 2e-4 * np.abs(hidden).max()


def test_the_table_of_towers_is_timms() -> None:
    timm = libraries.timm()
    names = [n for n in timm.list_models("vit_*siglip*") if "gap" not in n and n not in libraries.SMALL]
    assert sorted(names) == sorted(n for n in timm_towers.TOWERS if n not in libraries.SMALL)
    for name in names:
        model = on_meta(lambda name=name: timm.create_model(name))
        known = timm_towers.TOWERS[name]
        assert model.global_pool == "map"
        assert isinstance(model.attn_pool.mlp.act, type(model.blocks[0].mlp.act))
        found = {
            "img_size": model.patch_embed.img_size[0],
            "patch_size": model.patch_embed.patch_size[0],
            "embed_dim": model.embed_dim,
            "depth": len(model.blocks),
            "num_heads": model.blocks[0].attn.num_heads,
            "act_layer": {"GELU": "gelu", "GELUTanh": "gelu_tanh"}[type(model.blocks[0].mlp.act).__name__],
        }
        assert found == {key: known[key] for key in found}, name
        image = timm_towers.named_tower(Config({"name": name}, name), "name")
        ours = shapes(Architecture(image, None), lambda spec, image=image: timm_towers.place(spec, image))
        assert ours == {n: tuple(v.shape) for n, v in model.state_dict().items()}
        assert model.norm.eps == model.attn_pool.norm.eps == timm_towers.EPS
