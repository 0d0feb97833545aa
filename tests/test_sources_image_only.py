"""An image tower alone: what it does, and what it says where a text tower is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from sigrun import ArtifactError, Siglip, SpaceError
from sigrun.artifact import Artifact
from tests.sources import small_timm, to_f32, written_in


@pytest.fixture(autouse=True)
def small_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    small_timm(monkeypatch)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return written_in(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def image_only(written: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return to_f32(written["timm"], tmp_path_factory.mktemp("image-only"))


def test_an_image_tower_alone_says_so_when_asked_about_texts(image_only: Path) -> None:
    picture = Image.new("RGB", (40, 30), (200, 10, 10))
    with Siglip.load(image_only) as model:
        assert model.info.manifest.scoring is None
        assert model.info.manifest.canonicalisation is None
        assert model.info.tower_nbytes.keys() == {"image"}
        images = model.embed_images([picture])
        assert images.vectors.shape == (1, 96)
        for ask in (
            lambda: model.embed_texts(["a"]),
            lambda: model.embed_texts([]),
            lambda: model.label_set(["a", "b"]),
            lambda: model.classify(picture, ["a", "b"]),
        ):
            with pytest.raises(
                ArtifactError, match="no text tower: the checkpoint it was exported from"
            ) as caught:
                ask()
            assert "embed pictures" in str(caught.value)
    for towers in ("text", "both"):
        with pytest.raises(ArtifactError, match="no text tower"):
            Siglip.load(image_only, towers=towers)  # type: ignore[arg-type]


def test_labels_of_another_model_do_not_help_it(
    image_only: Path, written: dict[str, Path], tmp_path: Path
) -> None:
    with (
        Siglip.load(image_only) as model,
        Siglip.load(to_f32(written["openclip"], tmp_path)) as other,
    ):
        labels = other.label_set(["a", "b"])
        with pytest.raises(SpaceError, match="two embedding spaces"):
            model.score(model.embed_images([Image.new("RGB", (9, 9))]), labels)


def test_its_tokenizer_is_refused_by_name(image_only: Path) -> None:
    with Artifact.open(image_only) as artifact, pytest.raises(ArtifactError, match="no text tower"):
        artifact.tokenizer()


def test_commands_take_an_image_tower_alone(
    image_only: Path, written: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sigrun.cli import main as run
    from sigrun_exporters.cli import main as export_main
    from sigrun_hwcheck.cli import main as check

    picture = tmp_path / "red.png"
    Image.new("RGB", (40, 30), (200, 10, 10)).save(picture)
    assert run(["info", str(image_only)]) == 0
    out = capsys.readouterr().out
    assert "no text tower" in out
    assert "shorter side made 36, then the middle 33 x 33 cropped" in out
    assert "scoring" not in out
    assert run(["info", str(image_only), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scoring"] is None
    assert run(["embed", str(image_only), str(picture)]) == 0
    assert capsys.readouterr().out
    assert run(["embed", str(image_only), "--text", "red"]) != 0
    assert "no text tower" in capsys.readouterr().err
    assert run(["classify", str(image_only), str(picture), "--label", "red"]) != 0
    assert "no text tower" in capsys.readouterr().err
    assert export_main(["recipes", str(written["timm"])]) == 0
    assert capsys.readouterr().out.count("-  ") >= 1
    assert export_main(["recipes", str(written["timm"]), "--json"]) == 0
    variants = json.loads(capsys.readouterr().out)["variants"]
    assert {tower for v in variants for tower in v.get("towers", ())} == {"image"}
    out_folder = ["--variant", "f32", "--no-verify", "-o", str(tmp_path)]
    assert export_main(["convert", str(written["timm"]), *out_folder]) == 0
    assert Path(capsys.readouterr().out.split()[0]).exists()
    assert check([str(image_only)]) == 0
    assert "text" not in capsys.readouterr().out.lower().replace("context", "")
