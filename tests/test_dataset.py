"""Folders of pictures whose class is known: what is found, what it is called, what is left out and said."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from sigrun.errors import PictureError, TextError
from sigrun.evaluation import Dataset, class_name, read_classes

LINKS = pytest.mark.skipif(sys.platform == "win32", reason="links need rights that a user has not")


def fill(root: Path, files: Iterable[str]) -> Path:
    """Empty files under a folder: nothing here opens a picture."""
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def held(dataset: Dataset) -> dict[str, list[str]]:
    """Class → its pictures, as paths under the root."""
    found: dict[str, list[str]] = {name: [] for name in dataset.classes}
    for picture, truth in zip(dataset.pictures, dataset.truths, strict=True):
        found[dataset.classes[truth]].append(Path(str(picture)).relative_to(dataset.root).as_posix())
    return found


def said(dataset: Dataset) -> str:
    return "\n".join(dataset.notes)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("owl", "owl"),
        ("fire_engine", "fire engine"),
        ("fire-engine", "fire engine"),
        ("t-shirt_dress", "t-shirt dress"),
        ("an x-ray", "an x-ray"),
        ("__two__spaces ", "two spaces"),
        ("cafe\u0301", "caf\u00e9"),
        ("---", "---"),
        ("Mixed Case", "Mixed Case"),
    ],
)
def test_the_class_a_folder_is_named_for(folder: str, name: str) -> None:
    assert class_name(folder) == name


def test_a_folder_per_class_is_searched_to_any_depth(tmp_path: Path) -> None:
    fill(
        tmp_path, ["red_fox/b.JPG", "red_fox/a.png", "red_fox/far/down/c.webp", "owl/1.jpeg", "owl/notes.txt"]
    )
    fill(tmp_path, [".git/x.png", "owl/.hidden.png", "owl/.thumbs/t.png", "README.md"])
    dataset = Dataset.from_folder(tmp_path)
    assert held(dataset) == {
        "owl": ["owl/1.jpeg"],
        "red fox": ["red_fox/a.png", "red_fox/b.JPG", "red_fox/far/down/c.webp"],
    }
    assert (dataset.notes, dataset.root) == ((), str(tmp_path))
    assert dataset.name(0) == str(tmp_path / "owl" / "1.jpeg")
    assert dataset == Dataset.from_folder(str(tmp_path))


def test_what_is_of_no_class_and_what_is_of_none_is_said(tmp_path: Path) -> None:
    fill(tmp_path, ["owl/1.png", "fox/1.png", "stray.jpg", "other.png", "readme.txt"])
    (tmp_path / "empty").mkdir()
    dataset = Dataset.from_folder(tmp_path)
    assert held(dataset) == {"empty": [], "fox": ["fox/1.png"], "owl": ["owl/1.png"]}
    assert "2 pictures (other.png, stray.jpg) beside the folders" in said(dataset)
    assert "1 class (empty) without pictures" in said(dataset)


def test_classes_from_a_mapping(tmp_path: Path) -> None:
    """Two folders of one class, one folder left out, one class that no folder is of."""
    fill(tmp_path, ["n01/a.png", "n02/b.png", "n03/c.png", "n04/d.png"])
    wanted = {"n01": "an owl", "n03": "an owl", "n02": "a fox", "n99": "a crow"}
    dataset = Dataset.from_folder(tmp_path, classes=wanted)
    assert held(dataset) == {"an owl": ["n01/a.png", "n03/c.png"], "a fox": ["n02/b.png"], "a crow": []}
    assert "1 folder (n04) not among the classes" in said(dataset)
    assert "1 class (a crow) without pictures" in said(dataset)
    assert "numbers" not in said(dataset)
    assert "look like numbers" in said(Dataset.from_folder(tmp_path))


def test_an_accent_that_the_file_system_takes_apart_is_the_same(tmp_path: Path) -> None:
    fill(tmp_path, ["cafe\u0301/a.png", "bar/b.png"])
    dataset = Dataset.from_folder(tmp_path, classes={"caf\u00e9": "a coffee house", "bar": "a bar"})
    assert {name: len(found) for name, found in held(dataset).items()} == {"a coffee house": 1, "a bar": 1}


def test_a_limit_takes_the_same_ones_each_time_and_fewer_of_the_same(tmp_path: Path) -> None:
    names = [f"{c}/{i:03}.png" for c in ("owl", "fox") for i in range(40)] + ["crow/1.png"]
    fill(tmp_path, names)
    ten, again, four, other = (
        held(Dataset.from_folder(tmp_path, limit=limit, seed=seed))
        for limit, seed in ((10, 0), (10, 0), (4, 0), (10, 1))
    )
    assert ten == again != other
    assert {name: len(found) for name, found in ten.items()} == {"crow": 1, "fox": 10, "owl": 10}
    for name, found in ten.items():
        assert set(four[name]) <= set(found)
        assert found == sorted(found)
    assert [p.removeprefix("owl/") for p in ten["owl"]] != [p.removeprefix("fox/") for p in ten["fox"]]
    dataset = Dataset.from_folder(tmp_path, limit=10)
    assert "21 of 81 (seed 0)" in said(dataset)
    assert Dataset.from_folder(tmp_path, limit=40).notes == ()
    with pytest.raises(ValueError, match="leaves none"):
        Dataset.from_folder(tmp_path, limit=0)


def test_a_choice_does_not_depend_on_where_the_folder_lies(tmp_path: Path) -> None:
    names = [f"{c}/{i}.png" for c in ("owl", "fox") for i in range(20)]
    here, there = fill(tmp_path / "here", names), fill(tmp_path / "there" / "deep", names)
    assert held(Dataset.from_folder(here, limit=5)) == held(Dataset.from_folder(there, limit=5))


@LINKS
def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", ["owl/1.png", "fox/1.png", "fox/far/2.png"])
    elsewhere = fill(tmp_path / "elsewhere", ["more/3.png"])
    (root / "owl" / "linked").symlink_to(elsewhere)  # pictures kept somewhere else
    (root / "crow").symlink_to(elsewhere / "more")  # a whole class kept somewhere else
    (root / "owl" / "self").symlink_to(root / "owl")
    (root / "owl" / "round").symlink_to(root)
    (root / "fox" / "up").symlink_to(tmp_path)
    (root / "all").symlink_to(root)
    (root / "nowhere").symlink_to(root / "gone")
    (root / "itself").symlink_to(root / "itself")
    dataset = Dataset.from_folder(root)
    assert held(dataset) == {
        "crow": ["crow/3.png"],
        "fox": ["fox/1.png", "fox/far/2.png"],
        "owl": ["owl/1.png", "owl/linked/more/3.png"],
    }
    assert "all is a link back to" in said(dataset)
    assert "behind links back to" in said(dataset)


def test_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, ["owl/1.png", "fox/1.png"])
    monkeypatch.chdir(tmp_path)
    for root in (".", "../" + tmp_path.name, Path()):
        assert held(Dataset.from_folder(root)) == {"fox": ["fox/1.png"], "owl": ["owl/1.png"]}


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    fill(tmp_path, ["owl/1.png", "fox/1.png", "fox/shut/2.png"])
    (tmp_path / "fox" / "shut").chmod(0)
    try:
        assert "cannot be searched" in said(Dataset.from_folder(tmp_path))
    finally:
        (tmp_path / "fox" / "shut").chmod(0o700)


def test_names_of_any_bytes(tmp_path: Path) -> None:
    if sys.platform not in ("linux", "freebsd"):
        pytest.skip("file names are Unicode here")
    fill(tmp_path, ["owl/1.png", "fox/\udcff.png", "l\udce4rm/1.png"])
    dataset = Dataset.from_folder(tmp_path, limit=5, classes={"owl": "owl", "fox": "fox"})
    assert [dataset.name(row).encode("utf-8")[-9:] for row in range(2)] == [b"owl/1.png", b"udcff.png"]
    assert "not among the classes" in said(dataset).encode("utf-8").decode("utf-8")


@pytest.mark.parametrize(
    ("files", "kind", "says"),
    [
        ([], TextError, "there are no classes"),
        (["owl/1.png"], TextError, "one class only, 'owl'"),
        (["1.png", "2.png"], PictureError, "of no class"),
        (["owl/", "fox/"], PictureError, "no pictures"),
        (["owl/a.txt", "fox/b.txt"], PictureError, "no pictures"),
    ],
)
def test_folders_that_cannot_be_evaluated(
    tmp_path: Path, files: list[str], kind: type[Exception], says: str
) -> None:
    for name in files:
        (tmp_path / name).mkdir() if name.endswith("/") else fill(tmp_path, [name])
    with pytest.raises(kind, match=says) as caught:
        Dataset.from_folder(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_no_such_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "none", tmp_path / "file", "a\0b"):
        with pytest.raises(PictureError, match="cannot be searched"):
            Dataset.from_folder(wrong)


def test_classes_that_no_folder_is_of(tmp_path: Path) -> None:
    fill(tmp_path, ["owl/1.png", "fox/1.png"])
    with pytest.raises(TextError, match="none of the 2 folders") as caught:
        Dataset.from_folder(tmp_path, classes={"Owl!": "owl", "Fox!": "fox"})
    assert "2 folders (fox, owl)" in str(caught.value)


def test_a_dataset_that_a_program_made() -> None:
    grey = np.zeros((2, 2), np.uint8)
    dataset = Dataset(
        ("owl", "fox"), (grey, b"png", "data:image/png;base64,AAAA", Path("a.png")), (0, 1, 1, 0)
    )
    assert [dataset.name(row) for row in range(4)] == ["picture 1", "picture 2", "picture 3", "a.png"]
    for classes, pictures, truths, kind in (
        (("owl",), (grey,), (0,), TextError),
        (("owl", "owl"), (grey,), (0,), TextError),
        (("owl", " "), (grey,), (0,), TextError),
        (("owl", "fox"), (), (), PictureError),
        (("owl", "fox"), (grey,), (), ValueError),
        (("owl", "fox"), (grey,), (2,), ValueError),
        (("owl", "fox"), (grey,), (-1,), ValueError),
    ):
        with pytest.raises(kind):
            Dataset(classes, pictures, truths)


@pytest.mark.parametrize(
    "content",
    [
        "n01\tan owl\n\nn02\t a fox \n",
        "\ufeffn01\tan owl\r\nn02\ta fox\r\n",
        '{"n01": "an owl", "n02": "a fox"}',
        '\n {"n01": "an owl", "n02": " a fox"}',
    ],
)
def test_a_file_of_classes(tmp_path: Path, content: str) -> None:
    path = tmp_path / "classes"
    path.write_text(content, "utf-8", newline="")
    assert read_classes(path) == {"n01": "an owl", "n02": "a fox"}
    path.write_text(content.removeprefix("\ufeff"), "utf-16")  # as PowerShell writes it
    assert read_classes(path) == {"n01": "an owl", "n02": "a fox"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"n01 an owl\n", "line 1 has no tab"),
        (b"n01\tan owl\nn02\n", "line 2 has no tab"),
        (b"n01\t\n", "is empty"),
        (b"n01\tan owl\nn01\ta fox\n", "twice"),
        (b'{"n01": "an owl", "n01": "a fox"}', "twice"),
        (b'{"n01": 3}', "must be a JSON object"),
        (b'{"n01": {"a": "b"}}', "must be a JSON object"),
        (b'[{"n01": "an owl"}]', "must be a JSON object"),
        (b'["n01"]', "must be a JSON object"),
        (b'{"n01": ', "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"n01\tgr\xfc\xdfe\n", "not UTF-8"),
        (None, "No such file"),
    ],
)
def test_a_file_of_no_classes(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "classes"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TextError, match=says) as caught:
        read_classes(path)
    assert str(path) in str(caught.value)
