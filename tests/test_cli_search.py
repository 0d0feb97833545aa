"""``sigrun search`` and ``sigrun sort``: the held-out pictures are found, by text and by picture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import sigrun.cli
from sigrun import Siglip
from sigrun.search import SearchIndex
from sigrun_exporters.export import Exported
from tests import checkpoints

DEMO = checkpoints.ROOT / "examples" / "emoji_siglip" / "heldout" / "demo"


@pytest.fixture(scope="module")
def place(emoji_q4: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``photos``, the held-out pictures and a second owl, and their ``index``."""
    folder = tmp_path_factory.mktemp("search")
    shutil.copytree(DEMO, folder / "photos")
    shutil.copy(DEMO / "owl.png", folder / "photos" / "another.png")
    assert sigrun.cli.main(["index", str(emoji_q4), str(folder / "photos"), "-o", str(folder / "index")]) == 0
    return folder


@pytest.fixture
def run(place: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    capsys.readouterr()

    def call(command: str, *arguments: object) -> tuple[int, str, str]:
        code = sigrun.cli.main([command, str(place / "index"), *map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


Run = Callable[..., tuple[int, str, str]]


def test_each_label_finds_its_picture_with_the_probability_of_the_runtime(
    emoji_q4: Path, place: Path, run: Run
) -> None:
    code, out, err = run("search", "red", "apple", "--json", "--top", 3)
    assert (code, err) == (0, "")
    hits = [json.loads(line) for line in out.splitlines()]
    assert len(hits) == 3
    assert Path(hits[0]["path"]).name == "red-apple.png"
    with Siglip.load(emoji_q4) as model:
        for hit in hits:
            (score,) = model.classify(hit["path"], ["red apple"])
            assert abs(score.logit - hit["logit"]) < 0.02  # float16
            assert abs(score.cosine - hit["cosine"]) < 5e-4
        with SearchIndex.open(place / "index", model) as index:
            stems = [path.stem for path in DEMO.glob("*.png")]
            found = [Path(index.search(stem.replace("-", " "), top=1)[0].path).stem for stem in stems]
    assert sum(stem in (name, "another") for stem, name in zip(found, stems, strict=True)) >= 12


def test_by_picture_in_the_index_and_outside(place: Path, run: Run, tmp_path: Path) -> None:
    code, out, _ = run("search", "--like", place / "photos" / "owl.png", "--top", 2, "--paths")
    assert code == 0
    assert {Path(line).name for line in out.splitlines()} == {"owl.png", "another.png"}
    shutil.copy(DEMO / "tiger.png", tmp_path / "mine.png")
    _, out, _ = run("search", "--like", tmp_path / "mine.png", "--json", "--top", 1)
    hit = json.loads(out)
    assert Path(hit["path"]).name == "tiger.png"
    assert hit["cosine"] > 0.9999 and "probability" not in hit
    code, out, err = run("search", "--like", tmp_path / "none.png")
    assert (code, out) == (1, "") and "none.png does not exist" in err


def test_a_picture_that_is_indexed_needs_no_model(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Siglip, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    assert run("search", "--like", place / "photos" / "key.png")[0] == 0
    assert run("search", "--duplicates")[0] == 0


def test_weights_and_terms_against(run: Run) -> None:
    names = ["--plus", "owl", "--minus", "penguin", "--weight", "3"]
    _, out, _ = run("search", "bird", *names, "--paths")
    order = [Path(line).stem for line in out.splitlines()]
    assert order[-1] == "penguin"
    scores = [float(line.split()[0]) for line in run("search", "bird", *names)[1].splitlines()]
    assert scores == sorted(scores, reverse=True)
    _, out, _ = run("search", "--unlike", DEMO / "owl.png", "--paths", "-0")
    paths = out.split("\0")
    assert {Path(path).name for path in paths[-3:-1]} == {"owl.png", "another.png"}


def test_thresholds(run: Run) -> None:
    _, out, _ = run("search", "pizza", "--json", "--top", 15)
    every = [json.loads(line) for line in out.splitlines()]
    least = every[1]["probability"]
    _, out, _ = run("search", "pizza", "--json", "--threshold", least)
    assert [json.loads(line)["path"] for line in out.splitlines()] == [hit["path"] for hit in every[:2]]
    code, out, err = run("search", "pizza", "--threshold", 1)
    assert (code, out, err) == (0, "", "sigrun: note: no picture was found\n")


def test_a_text_that_is_cut_is_said(run: Run) -> None:
    long = "a red apple and " * 40
    code, _, err = run("search", long, "--top", 1)
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith(
        "sigrun: note: a text is longer than the model reads; its end is ignored: 'a red apple"
    )
    assert run("search", "owl", "--minus", long, "--top", 1, "-q")[2] == ""
    assert run("search", "owl", "--top", 1)[2] == ""


def test_duplicates_are_shown_as_groups(place: Path, run: Run) -> None:
    code, out, _ = run("search", "--duplicates", "--above", "0.999")
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == ["1.0000", "1.0000"]
    assert [Path(line.split()[1]).name for line in lines] == ["another.png", "owl.png"]
    record = json.loads(run("search", "--duplicates", "--above", "0.999", "--json")[1])
    assert record["group"] == 1
    assert [Path(picture["path"]).name for picture in record["pictures"]] == ["another.png", "owl.png"]
    assert run("search", "--duplicates", "--above", "0.1", "--json")[1].count('"path"') == 15


def test_a_page(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code, _, err = run("search", "sailboat", "--html", page, "--top", 5)
    assert (code, err) == (0, f"sigrun: note: wrote {page}\n")
    text = page.read_text("utf-8")
    assert text.count("data:image/jpeg;base64,") == 5
    assert "“sailboat”" in text and 'alt="sailboat.png, ' in text
    code, _, err = run("search", "sailboat", "--html", page)
    assert code == 1 and "exists already" in err
    assert run("search", "--duplicates", "--html", page, "--force")[0] == 0
    assert "Group 1" in page.read_text("utf-8")


def test_other_models(emoji_variant: Callable[[str], Exported], tiny_q4: Path, place: Path, run: Run) -> None:
    f32 = emoji_variant("f32").path
    code, out, err = run("search", "owl", "--model", f32)
    assert (code, out) == (1, "") and "--other-variant" in err
    code, out, err = run("search", "owl", "--model", f32, "--other-variant", "--top", 1)
    assert code == 0 and Path(out.split()[-1]).name in ("owl.png", "another.png")
    assert "emoji-siglip-patch10-60 q4_k_m, not emoji-siglip-patch10-60 f32" in err
    with Siglip.load(f32) as model, SearchIndex.open(place / "index", model, other_variant=True) as index:
        mean, least, count = index.measured()
        paths = list(index.pictures())
        stored = np.stack([index.vector(path) for path in paths])  # type: ignore[arg-type,misc]
        cosines = np.sum(model.embed_images(paths).vectors * stored, axis=1)
    assert count == 4 and cosines.min() - 1e-5 <= least <= mean <= cosines.max() + 1e-5
    assert (
        f"on 4 of its pictures the cosine between the two is {mean:.4f} on average, {least:.4f} at least"
        in err
    )
    code, out, err = run("search", "owl", "--model", tiny_q4, "--other-variant")
    assert (code, out) == (1, "") and "cannot be compared" in err
    code, _, err = run("search", "--like", DEMO / "owl.png", "--compute", "f16")
    assert code == 1 and "in compute form" in err


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([], "nothing to search for"),
        ([" "], "empty"),
        (["owl", "--duplicates"], "takes no query"),
        (["owl", "--above", "0.9"], "--above goes with"),
        (["owl", "-0"], "-0 goes with"),
        (["owl", "--weight", "2"], "--weight comes after"),
        (["owl", "--plus", "x", "--weight", "0"], "above 0"),
        (["owl", "--threshold", "50"], "from 0 to 1"),
    ],
)
def test_what_cannot_be_meant(
    arguments: list[str], says: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = sigrun.cli.main(["search", str(place / "index"), *arguments])
    except SystemExit as end:
        code = int(str(end.code))
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    assert says in printed.err


def test_a_threshold_for_sorting_is_a_probability(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        sigrun.cli.main(["sort", str(place / "index"), "--label", "owl", "--threshold", "50"])
    assert "from 0 to 1" in capsys.readouterr().err


def test_sorting_is_a_table(emoji_q4: Path, place: Path, run: Run) -> None:
    labels = ["owl", "pizza", "red apple"]
    options = [word for label in labels for word in ("--label", label)]
    code, out, _ = run("sort", *options, "-q")
    assert code == 0
    heading, *rows = [line.split("\t") for line in out.splitlines()]
    assert heading == ["path", "label", "probability"]
    assert len(rows) == 15
    with Siglip.load(emoji_q4) as model:
        for path, label, probability in rows:
            best = model.classify(path, labels)[0]
            assert (label, abs(best.probability - float(probability)) < 5e-3) == (best.label, True)
    _, out, _ = run("sort", *options, "-q", "--json", "--threshold", "0.5")
    records = [json.loads(line) for line in out.splitlines()]
    assert {Path(r["path"]).stem: r["label"] for r in records if r["label"]}.items() >= {("pizza", "pizza")}
    assert {r["label"] for r in records if Path(r["path"]).stem == "rocket"} == {None}


def test_sorting_with_a_label_set_needs_no_model(
    emoji_q4: Path, place: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Siglip.load(emoji_q4) as model:
        model.label_set(["owl", "pizza"]).save(tmp_path / "set")
    expected = run("sort", "--label", "owl", "--label", "pizza", "-q")[1]
    monkeypatch.setattr(Siglip, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    assert run("sort", "--label-set", tmp_path / "set", "-q")[1] == expected


def test_copies_are_sorted_into_folders(place: Path, run: Run, tmp_path: Path) -> None:
    options = ["--label", "owl", "--label", "pizza", "--threshold", "0.5", "--copy-to", tmp_path / "sorted"]
    code, out, _ = run("sort", *options)
    assert code == 0
    rows = [line.split("\t") for line in out.splitlines()[1:]]
    copied = {Path(row[3]) for row in rows if row[3]}
    assert tmp_path / "sorted" / "pizza" / "pizza.png" in copied
    assert {path.read_bytes() for path in copied} == {Path(row[0]).read_bytes() for row in rows if row[3]}
    assert run("sort", *options)[1] == out
    assert len(list((tmp_path / "sorted").rglob("*.png"))) == len(copied)


def test_copies_that_an_update_would_find_are_said(
    emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copy(DEMO / "owl.png", tmp_path / "photos")
    index = str(tmp_path / "photos.sigrun")
    sigrun.cli.main(["index", str(emoji_q4), str(tmp_path / "photos"), "-q"])
    for folder, said in ((tmp_path / "photos" / "sorted", True), (tmp_path / "sorted", False)):
        capsys.readouterr()
        assert sigrun.cli.main(["sort", index, "--label", "owl", "--copy-to", str(folder)]) == 0
        assert ("lies in the indexed folder" in capsys.readouterr().err) == said


def test_moves_are_said_to_be_moves(
    emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(DEMO, tmp_path / "photos")
    index = str(tmp_path / "photos.sigrun")
    sigrun.cli.main(["index", str(emoji_q4), str(tmp_path / "photos")])
    options = ["sort", index, "--label", "owl", "--label", "pizza", "--move-to", str(tmp_path / "sorted")]
    assert sigrun.cli.main(options) == 0
    assert f"update the index with sigrun index {index}" in capsys.readouterr().err
    assert not list((tmp_path / "photos").glob("*.png"))
    assert len(list((tmp_path / "sorted").rglob("*.png"))) == 14
    assert sigrun.cli.main(options) == 0  # again: they are where they belong
