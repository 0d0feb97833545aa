"""``sigrun evaluate`` on folders as users have them: real drawings, bad pictures among them, bad folders."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

import sigrun.cli
from benchmarks.emoji_accuracy import EXAMPLE, drawings
from sigrun import Siglip

DEMO = EXAMPLE / "heldout" / "demo"
NAMES = sorted(path.stem for path in DEMO.glob("*.png"))
COUNT = 2 * len(NAMES) + 1


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per class, with two drawings of each; an owl among the tigers; three files that are no pictures."""
    root = tmp_path_factory.mktemp("photos")
    cells, captions = drawings()
    for name in NAMES:
        folder = root / name.replace("-", "_") / "more"
        folder.mkdir(parents=True)
        shutil.copy(DEMO / f"{name}.png", folder.parent)
        cells[captions.index(name.replace("-", " "))].save(folder / "small.png")
    shutil.copy(DEMO / "owl.png", root / "tiger" / "liar.png")
    (root / "owl" / "broken.png").write_bytes(b"no picture at all")
    (root / "owl" / "cut.png").write_bytes((DEMO / "owl.png").read_bytes()[:300])
    (root / "tiger" / "empty.jpg").touch()
    (root / "Thumbs.db").touch()
    return root


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = sigrun.cli.main(["evaluate", *(str(a) for a in arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def figures(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    code, out, err = run(capsys, *arguments, "--json", "-")
    assert (code, err) == (0, "")
    record: dict[str, Any] = json.loads(out)
    return record


def test_a_folder_per_class(emoji_q4: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, emoji_q4, photos)
    assert (code, err) == (0, "")
    assert f"{COUNT} pictures of {len(NAMES)} classes judged; 3 could not be read" in out
    right = re.search(r"top-1 +([\d.]+) %  \(95 % interval ([\d.]+) to ([\d.]+) %; (\d+) of (\d+)\)", out)
    assert right is not None
    share, low, high, count, total = map(float, right.groups())
    assert total == COUNT and share == pytest.approx(100 * count / total, abs=0.06)
    assert low < share < high
    assert re.search(r"confusions(.*\n)* +tiger +taken for  owl +1 of 3", out)
    for said in ("top-5", "mean per class", "pictures/s", "broken.png", "cut.png", "empty.jpg is empty"):
        assert said in out


def test_the_json_says_the_same(
    emoji_q4: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = figures(capsys, emoji_q4, photos)
    assert set(record) == {"format", "limit", "seed", "templates", "evaluation"}
    found = record["evaluation"]
    _, out, _ = run(capsys, emoji_q4, photos, "--json", tmp_path / "found.json")
    assert f"{found['top1']['count']} of {found['judged']}" in out
    written = json.loads((tmp_path / "found.json").read_text("utf-8"))["evaluation"]
    for changing in ("seconds", "start_seconds", "pictures_per_second"):
        assert written.pop(changing) > 0
        found.pop(changing)
    assert written == found
    assert [c["class"] for c in found["classes"]] == [name.replace("-", " ") for name in NAMES]
    assert all(sum(c["answers"].values()) == c["top1"]["of"] for c in found["classes"])
    tiger = next(c for c in found["classes"] if c["class"] == "tiger")
    assert tiger["answers"]["owl"] == 1 and tiger["top1"]["of"] == 3
    assert any(wrong["picture"].endswith("liar.png") for wrong in found["wrong"])
    assert len(found["unreadable"]) == 3
    assert found["judged"] - found["top1"]["count"] == len(found["wrong"])


def test_what_there_is_to_know_of_a_picture_is_told(
    emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("owl", "tiger"):
        (tmp_path / name).mkdir()
        shutil.copy(DEMO / f"{name}.png", tmp_path / name)
    with Image.open(DEMO / "owl.png") as drawing:
        frames = [drawing.convert("RGB").rotate(angle) for angle in (0, 30, 60)]
    path = tmp_path / "owl" / "moves.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    said = "one of 3 frames: the first was taken"
    found = figures(capsys, emoji_q4, tmp_path)["evaluation"]
    assert found["picture_notes"] == [{"picture": str(path), "note": said}]
    assert (found["judged"], found["unreadable"]) == (3, [])
    assert f"  notes on pictures\n    {path}: {said}" in run(capsys, emoji_q4, tmp_path)[1]


def test_a_comparison(
    emoji_q4: Path, emoji_f32: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(
        capsys,
        emoji_q4,
        photos,
        "--compare",
        emoji_f32,
        "--json",
        tmp_path / "c.json",
        "--plot",
        tmp_path / "c.svg",
    )
    assert (code, err) == (0, "")
    for said in ("compared with", "  f32  ", "difference", "lost, won", "McNemar's exact p", "image cosine"):
        assert said in out
    record = json.loads((tmp_path / "c.json").read_text("utf-8"))
    assert record["comparison"]["top1"]["subject"] == record["evaluation"]["top1"]
    assert record["comparison"]["top1"]["reference"] == record["reference"]["top1"]
    assert 0.98 < record["comparison"]["worst_cosine"] < record["comparison"]["mean_cosine"] < 1
    assert record["reference"]["subject"]["variant"] == "f32"
    words = ["".join(e.itertext()) for e in ElementTree.parse(tmp_path / "c.svg").iter()]
    assert "top-1, q4_k_m" in words and "top-1, f32" in words
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.json", "c.svg"]


def test_a_comparison_of_two_forms(emoji_q4: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = figures(
        capsys, emoji_q4, photos, "--compute", "int8", "--compare-compute", "exact", "--limit", "1"
    )
    assert record["evaluation"]["subject"]["compute"] == "int8"
    assert record["reference"]["subject"]["compute"] == "exact"
    assert 0.99 < record["comparison"]["worst_cosine"] < 1
    assert record["comparison"]["right_probability_error"] > 0
    assert record["evaluation"]["dataset"]["pictures"] == len(NAMES)


def test_the_same_artifact_in_the_same_form_is_not_compared(
    emoji_q4: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = ["--compare-compute", "int8"], ["--compute", "int8", "--compare-compute", "auto"]
    for more in (["--compare", emoji_q4], ["--compare-compute", "auto"], *same):
        code, out, err = run(capsys, emoji_q4, photos, *more)
        assert (code, out) == (2, "")
        assert "compared with itself" in err


def test_classes_from_a_file_and_templates(
    emoji_q4: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "classes.tsv").write_text("owl\tan owl\nfire_engine\tfire engine\nnone\ta rocket\n", "utf-8")
    given = ("--classes", tmp_path / "classes.tsv", "--template", "{}", "--template", "a drawing of {}")
    record = figures(capsys, emoji_q4, photos, *given)
    assert record["templates"] == ["{}", "a drawing of {}"]
    found = record["evaluation"]
    assert [c["class"] for c in found["classes"]] == ["an owl", "fire engine", "a rocket"]
    assert found["classes"][2]["top1"] is None
    assert (found["top5"], found["judged"]) == (None, 4)
    assert any("not among the classes" in note for note in found["notes"])
    record = figures(
        capsys, emoji_q4, photos, "--classes", tmp_path / "classes.tsv", "--ensemble", "imagenet80"
    )
    assert len(record["templates"]) == 80


def test_labels_from_a_label_set(
    emoji_q4: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = [name.replace("-", " ") for name in NAMES]
    labels[labels.index("fire engine")] = "fire_engine"  # as the folder is called
    with Siglip.load(emoji_q4) as model:
        model.label_set([*labels, "moon", "sun"]).save(tmp_path / "all.labels.safetensors")
        model.label_set(["owl", "moon"]).save(tmp_path / "few.labels.safetensors")
    found = figures(capsys, emoji_q4, photos, "--label-set", tmp_path / "all.labels.safetensors")[
        "evaluation"
    ]
    assert found["dataset"]["labels"] == len(NAMES) + 2
    assert "fire_engine" in [c["class"] for c in found["classes"]]
    assert found["top1"]["share"] > 0.5
    code, out, err = run(capsys, emoji_q4, photos, "--label-set", tmp_path / "few.labels.safetensors")
    assert (code, out) == (1, "")
    assert "classes are not among the labels" in err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["{photos}", "--template", "a photo"], 1, "no {} where"),
        (["{photos}", "--template", "{}", "--ensemble", "imagenet80"], 2, "not several"),
        (["{photos}", "--label-set", "none.safetensors", "--template", "{}"], 2, "not several"),
        (["{photos}", "--label-set", "none.safetensors"], 1, "none.safetensors"),
        (["{photos}", "--classes", "none.tsv"], 1, "cannot read the classes"),
        (["{photos}", "--json", "no/folder/x.json"], 1, "there is no folder"),
        (["{photos}", "--plot", "{tmp}/there.svg"], 1, "exists already"),
        (["{photos}", "--plot", "{tmp}/x.png"], 1, "drawings are written as .svg"),
        (["{photos}", "--compare", "none.gguf"], 1, "none.gguf"),
        (["{photos}/owl"], 1, "there is one class only"),
        (["{tmp}/none"], 1, "cannot be searched"),
        (["{tmp}"], 1, "there are no classes"),
        (["{tmp}/bad"], 1, "none of the 2 pictures can be read"),
        (["{tmp}/bare"], 1, "there are no pictures"),
    ],
)
def test_what_cannot_be_evaluated_is_said_plainly(
    emoji_q4: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    if "{tmp}" not in arguments:
        for name in ("bad/owl", "bad/fox", "bare/owl", "bare/fox"):
            (tmp_path / name).mkdir(parents=True)
        for name in ("owl", "fox"):
            (tmp_path / "bad" / name / "1.png").write_bytes(b"no")
        (tmp_path / "there.svg").touch()
    given = [a.replace("{photos}", str(photos)).replace("{tmp}", str(tmp_path)) for a in arguments]
    found, out, err = run(capsys, emoji_q4, *given)
    assert (found, out) == (code, "")
    assert says in err
    assert err.startswith("sigrun: error: ") and err.count("error:") == 1


def test_an_interrupt_tells_how_far_it_got_and_writes_nothing(
    emoji_q4: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = Siglip.iter_images

    def interrupted(model: Siglip, pictures: Any) -> Iterator[Any]:
        for found in whole(model, pictures):
            if found.row == 7:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(Siglip, "iter_images", interrupted)
    code, out, err = run(
        capsys, emoji_q4, photos, "--json", tmp_path / "x.json", "--plot", tmp_path / "x.svg"
    )
    assert (code, out) == (130, "")
    assert f"stopped after 7 of {COUNT + 3} pictures" in err
    assert list(tmp_path.iterdir()) == []


def test_figures_are_printed_though_a_file_cannot_be_written(
    emoji_q4: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_room(self: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", no_room)
    code, out, err = run(capsys, emoji_q4, photos, "--limit", "1", "--json", tmp_path / "x.json")
    assert code == 1
    assert "the disk is full" in err
    assert "  top-1  " in out
    assert list(tmp_path.iterdir()) == []


def test_the_other_artifact_is_looked_at_before_the_first_runs(
    emoji_q4: Path,
    photos: Path,
    tmp_path: Path,
    tiny_q4: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Siglip.load(emoji_q4) as model:
        labels = model.label_set([name.replace("-", " ") for name in NAMES])
        labels.save(tmp_path / "all.labels.safetensors")

    def runs(*_: object, **__: object) -> None:
        raise AssertionError("the first artifact ran")

    monkeypatch.setattr(Siglip, "iter_images", runs)
    words = (emoji_q4, photos, "--label-set", tmp_path / "all.labels.safetensors", "--compare", tiny_q4)
    code, out, err = run(capsys, *words)
    assert (code, out) == (1, "")
    assert "two embedding spaces" in err


def test_the_text_controls_no_terminal(
    emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, drawn in (("a\x1b[31mb", "owl"), ("c\td", "tiger")):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(DEMO / f"{drawn}.png", folder)
        (folder / "e\x1b[2Jf.png").touch()
    code, out, err = run(capsys, emoji_q4, tmp_path)
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert "2 could not be read" in out
