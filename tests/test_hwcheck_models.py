"""Models worth comparing: published facts with their sources, predictions, and the command that shows them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from sigrun_hwcheck import check, cli
from sigrun_hwcheck.api import predicted
from sigrun_hwcheck.machine import Machine, Ram
from sigrun_hwcheck.models import BETTER, SMALLER, Comparison, compare
from sigrun_hwcheck.report_models import markdown, text, to_json
from sigrun_hwcheck.verdict import works
from sigrun_hwcheck.whatif import suppose
from sigrun_recipes import known
from tests.hwcheck_golden import SHOWN, machine, schema

GIB = 1 << 30

# OpenCLIP's docs/model_profile.csv: weights of the image tower and of the text tower in millions.
OPEN_CLIP = {
    "google/siglip-base-patch16-224": (92.88, 110.27),
    "google/siglip-base-patch16-256": (92.93, 110.27),
    "google/siglip-base-patch16-256-multilingual": (92.93, 277.7),
    "google/siglip-base-patch16-384": (93.18, 110.27),
    "google/siglip-base-patch16-512": (93.52, 110.27),
    "google/siglip-large-patch16-256": (315.96, 336.19),
    "google/siglip-large-patch16-384": (316.28, 336.19),
    "google/siglip-so400m-patch14-224": (427.68, 449.68),
    "google/siglip-so400m-patch14-384": (428.23, 449.73),
}
# Its docs/openclip_results.csv, column "ImageNet 1k".
OPEN_CLIP_TOP1 = {
    "ViT-SO400M-14-SigLIP-384": 0.8308,
    "ViT-SO400M-14-SigLIP": 0.8203,
    "ViT-L-16-SigLIP-384": 0.8207,
    "ViT-L-16-SigLIP-256": 0.8045,
    "ViT-B-16-SigLIP-512": 0.7914,
    "ViT-B-16-SigLIP-384": 0.7849,
    "ViT-B-16-SigLIP": 0.7604,
    "ViT-B-16-SigLIP-256": 0.7653,
    "ViT-B-16-SigLIP-i18n-256": 0.7513,
}
# big_vision's README_siglip2.md, column "INet 0-shot".
BIG_VISION_TOP1 = {
    "B/16 224": 78.2,
    "B/16 256": 79.1,
    "B/16 384": 80.6,
    "B/16 512": 81.2,
    "B/32 256": 74.0,
    "L/16 256": 82.5,
    "L/16 384": 83.1,
    "L/16 512": 83.5,
    "So400m/14 224": 83.2,
    "So400m/14 384": 84.1,
    "So400m/16 256": 83.4,
    "So400m/16 384": 84.1,
    "So400m/16 512": 84.3,
    "g-opt/16 256": 84.5,
    "g-opt/16 384": 85.0,
}
SIZES = {"base": "B", "large": "L", "so400m": "So400m", "giant": "g-opt"}


@pytest.fixture(scope="module")
def laptop() -> Comparison:
    """All models on a laptop of 8 GB."""
    return compare(machine=machine("laptop_8gb"))


def with_free(nbytes: int | None) -> Machine:
    """The laptop with so much free."""
    return replace(machine("laptop_8gb"), ram=Ram(16 * GIB, nbytes))


def test_weights_are_those_that_others_count() -> None:
    found = {
        m.repo: [round(m.architecture.parameters(t) / 1e6, 2) for t in ("image", "text")] for m in known()
    }
    assert {repo: tuple(found[repo]) for repo in OPEN_CLIP} == OPEN_CLIP


def test_every_figure_is_that_of_its_row() -> None:
    for model in known():
        told = model.zero_shot
        if told is None:
            assert model.repo == "google/siglip-so400m-patch16-256-i18n"
        elif "mlfoundations/open_clip" in told.source.url:
            assert told.imagenet_top1 == pytest.approx(100 * OPEN_CLIP_TOP1[told.row], abs=1e-9)
        else:
            assert "google-research/big_vision" in told.source.url
            assert told.imagenet_top1 == BIG_VISION_TOP1[told.row]


def test_every_row_is_that_of_its_model() -> None:
    rows = [m.zero_shot.row for m in known() if m.zero_shot is not None]
    assert sorted(rows) == sorted([*OPEN_CLIP_TOP1, *BIG_VISION_TOP1])
    for model in known():
        image, told = model.architecture.image, model.zero_shot
        assert image is not None
        size = next(letter for name, letter in SIZES.items() if f"-{name}-" in model.repo)
        if told is not None and model.family == "SigLIP 2":
            assert told.row == f"{size}/{image.patch_size} {image.image_size}"
        elif told is not None:
            start = f"ViT-{size.upper() if size == 'So400m' else size}-{image.patch_size}-SigLIP"
            assert told.row.startswith(start)
            assert told.row.endswith(str(image.image_size)) or image.image_size == 224
            assert ("i18n" in told.row) == model.multilingual


def test_names_say_what_the_towers_are() -> None:
    for model in known():
        image = model.architecture.image
        assert image is not None
        assert f"patch{image.patch_size}-{image.image_size}" in model.repo
        assert (model.family == "SigLIP 2") == model.repo.startswith("google/siglip2-")
        assert model.licence == "apache-2.0"
        assert model.zero_shot is None or "/blob/" in model.zero_shot.source.url  # of one commit


@pytest.mark.parametrize("name", ["f32", "q4_k_m"])
def test_the_default_is_judged_as_hwcheck_itself_does(name: str) -> None:
    on = machine("two_rtx_4090")
    found = compare(name, machine=on)
    plain = check(machine=on)
    assert found.place is not None
    for row in plain.rows:
        if row.stored.variant == name and row.tower == "both" and row.place.key == found.place.key:
            assert found.default.row is not None
            assert found.default.row.last == row.last
            assert found.default.disk_bytes == row.disk_bytes
            break
    else:
        pytest.fail("the plain check has no such row")


def test_from_small_to_large(laptop: Comparison) -> None:
    assert len(laptop.candidates) == len(known()) == 25
    by_family: dict[str, list[tuple[int, int]]] = {}
    for one in laptop.candidates:
        image = one.known.architecture.image
        assert image is not None
        by_family.setdefault(one.known.family, []).append((image.width, image.tokens))
    assert [*by_family] == ["SigLIP", "SigLIP 2"]
    assert all(sizes == sorted(sizes) for sizes in by_family.values())


@pytest.mark.parametrize("free_mib", [250, 500, 1100, 2500])
def test_steps_up_and_down_are_what_they_say(free_mib: int) -> None:
    found = compare(machine=with_free(free_mib << 20))
    need = {one.known.repo: one.row.last.need.bytes.best_bytes for one in found.candidates if one.row}
    default, fitting = found.default, [one for one in found.candidates if works(one.verdict)]
    assert default.top1 is not None
    better = [one for one in fitting if one.top1 is not None and one.top1 >= default.top1 + BETTER]
    lighter = [
        one
        for one in fitting
        if one.top1 is not None and need[one.known.repo] <= SMALLER * need[default.known.repo]
    ]
    assert (found.up is None) == (not better)
    assert (found.down is None) == (not lighter)
    if found.up is not None:
        assert need[found.up.known.repo] == min(need[one.known.repo] for one in better)
    if found.down is not None:
        assert found.down.top1 == max(one.top1 or 0 for one in lighter)
    for one in found.candidates:
        assert works(one.verdict) == (need[one.known.repo] <= free_mib << 20)


def test_a_tower_alone_needs_and_weighs_less(laptop: Comparison) -> None:
    image, words = (compare(machine=machine("laptop_8gb"), tower=t) for t in ("image", "text"))
    for both, one, other in zip(laptop.candidates, image.candidates, words.candidates, strict=True):
        assert both.row is not None and one.row is not None and other.row is not None
        assert one.disk_bytes + other.disk_bytes == both.disk_bytes
        for alone in (one, other):
            assert alone.row is not None
            assert alone.row.last.need.bytes.best_bytes < both.row.last.need.bytes.best_bytes


def test_memory_that_is_not_known_fits_nothing() -> None:
    found = compare(machine=with_free(None))
    assert {one.verdict for one in found.candidates} == {"unknown"}
    assert found.up is None and found.down is None
    assert "cannot be told" in text(found) and "sigrun-export" not in text(found)


@pytest.mark.parametrize("name", SHOWN)
def test_the_text_reads_well_on_every_machine(name: str) -> None:
    found = compare(machine=machine(name))
    for full, width in ((False, 80), (True, 100)):
        printed = text(found, full=full)
        lines = [line for line in printed.splitlines() if not line.startswith("  sigrun-export ")]
        assert [line for line in lines if len(line) > width or line != line.rstrip()] == []
        assert printed.isascii() and printed.endswith("\n") and "None" not in printed
        for model in known():
            assert model.repo.partition("-")[2] in printed
    jsonschema.validate(json.loads(json.dumps(to_json(found))), schema("models"))


def test_markdown_has_a_line_for_each_and_every_source(laptop: Comparison) -> None:
    printed = markdown(laptop)
    table = [line for line in printed.splitlines() if line.startswith("| google/")]
    assert len(table) == 25 and len({line.count("|") for line in table}) == 1
    for reference in {m.zero_shot.source for m in known() if m.zero_shot is not None}:
        assert reference.url in printed
    cells = [cell.strip() for cell in next(line for line in table if "(default)" in line).split("|")]
    assert cells[2:10] == ["apache-2.0", "English", "384", "729", "64", "428.2", "449.7", "83.08 [1]"]


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "--ram", "4GiB", "--variant", "q8_0", "--tower", "image", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, schema("models"))
    assert (found["variant"], found["tower"], found["device"]["key"]) == ("q8_0", "image", "ram")
    assert found["device"]["free_bytes"] == 2 * GIB
    by_repo = {one["repo"]: one for one in found["models"]}
    default = by_repo[found["default"]]
    stored = next(s for s in predicted() if s.variant == "q8_0")
    assert default["disk_bytes"] == stored.nbytes("image")
    assert default["zero_shot"]["imagenet_top1"] == 83.08
    assert cli.main(["models", "--gpu", "RTX 3060 12GB"]) == 0
    printed = capsys.readouterr()
    assert "RTX 3060" in printed.out and printed.err == ""
    assert cli.main(["models", "--markdown", "--gpu", "RTX 3060 12GB"]) == 0
    assert capsys.readouterr().out.startswith("###")


def test_a_supposed_card_is_what_is_judged() -> None:
    made_up, supposed = suppose(machine("laptop_8gb"), gpus=["RTX 3060 12GB"])
    found = compare(machine=made_up, supposed=supposed)
    assert found.place is not None and found.place.key == "nvidia:0"
    assert found.report.judged == ("nvidia:0",)


@pytest.mark.parametrize(
    "wrong", [["--variant", "q3_x"], ["--batch", "0"], ["--ram", "8 bananas"], ["file.gguf"]]
)
def test_wrong_usage(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["models", *wrong])
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_a_file_of_the_commands_name_is_told_and_a_folder_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exports go to a folder of that name by default."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert cli.main(["models", "--json"]) == 0
    assert capsys.readouterr().err == ""
    (tmp_path / "models").rmdir()
    (tmp_path / "models").write_bytes(b"")
    assert cli.main(["models", "--json"]) == 0
    assert "that is ./models" in capsys.readouterr().err
