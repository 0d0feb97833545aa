"""Damaged, foreign and hostile indexes: plain errors, whatever is in them."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sigrun.errors import ArtifactError, SigrunError
from sigrun.search import update
from sigrun.search.index import SearchIndex
from sigrun.search.scan import scan
from sigrun.search.store import Store
from tests.index_builder import Stub, about, brought_up_to_date, check, vector


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``photos`` and their ``index``."""
    place = tmp_path_factory.mktemp("made")
    (place / "photos").mkdir()
    for number in range(40):
        (place / "photos" / f"{number}.png").write_bytes(b"bad" if number == 3 else b"picture %d" % number)
    brought_up_to_date(place / "index", place / "photos", Stub())
    return place


def use(index: Path, folder: Path) -> None:
    """Everything that can be done with an index."""
    with SearchIndex.open(index) as reader:
        list(reader.errors())
        reader.search(vector(b"picture 1"), top=None)
        reader.duplicates(0.9)
        list(reader.pictures())
    with update.writer(index) as store:
        list(update.check(store))
        scan(store, str(folder), rehash=True)
        update.embed_all(store, str(folder), Stub())
        update.compact(store)


def test_flipped_and_missing_bytes(made: Path, tmp_path: Path) -> None:
    """A hundred times: a few bytes are others, or the end is missing. It works, or says why not in plain words."""
    chance = random.Random(1)
    refused = 0
    for turn in range(100):
        index = tmp_path / str(turn)
        shutil.copytree(made / "index", index)
        path = index / ("index.sqlite" if turn % 4 else "vectors.0")
        data = bytearray(path.read_bytes())
        if turn % 5 == 0:
            del data[chance.randrange(len(data)) :]
        else:
            for _ in range(chance.choice((1, 1, 4, 40))):
                data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            use(index, made / "photos")
        except SigrunError as error:
            refused += 1
            assert str(index) in error.message or "indexed folder" in error.message
        shutil.rmtree(index)
    assert refused > 20


def changed(made: Path, index: Path, statement: str, *values: object) -> Path:
    shutil.copytree(made / "index", index)
    db = sqlite3.connect(index / "index.sqlite")
    db.execute(statement, values)
    db.commit()
    db.close()
    return index


@pytest.mark.parametrize(
    "statement, value",
    [
        ("UPDATE pictures SET row = ? WHERE row = 3", 10**9),
        ("UPDATE pictures SET row = ? WHERE row = 3", -1),
        ("UPDATE pictures SET row = ? WHERE row = 3", "three"),
        ("UPDATE pictures SET row = ? WHERE row = 3", 2.5),
        ("UPDATE pictures SET path = ? WHERE row = 3", "text"),
        ("UPDATE pictures SET path = ? WHERE row = 3", b"../../etc/passwd"),
        ("UPDATE pictures SET path = ? WHERE row = 3", b"/etc/passwd"),
        ("UPDATE pictures SET path = ? WHERE row = 3", b"nul\0.png"),
        ("UPDATE pictures SET crc = ? WHERE row = 3", 0),
        ("UPDATE meta SET value = ? WHERE key = 'rows'", 10**8),
        ("UPDATE meta SET value = ? WHERE key = 'rows'", "many"),
        ("UPDATE meta SET value = ? WHERE key = 'generation'", 7),
        ("UPDATE meta SET value = ? WHERE key = 'changes'", None),
        ("UPDATE meta SET value = ? WHERE key = 'about'", "{}"),
        ("UPDATE meta SET value = ? WHERE key = 'about'", "[" * 100_000),
        ("UPDATE meta SET value = ? WHERE key = 'about'", b"\xff"),
        ("DELETE FROM meta WHERE key = ?", "about"),
    ],
)
def test_values_that_cannot_be(made: Path, tmp_path: Path, statement: str, value: object) -> None:
    index = changed(made, tmp_path / "index", statement, value)
    with pytest.raises(ArtifactError, match="damaged index"), SearchIndex.open(index) as reader:
        reader.search(vector(b"picture 1"), top=None)


def test_two_pictures_cannot_have_one_vector(made: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    shutil.copytree(made / "index", index)
    with closing(sqlite3.connect(index / "index.sqlite")) as db, db:
        for statement in (
            "CREATE TABLE other AS SELECT * FROM pictures WHERE row <> 0",  # without its constraints
            "DROP TABLE pictures",
            "ALTER TABLE other RENAME TO pictures",
            "UPDATE pictures SET row = 3 WHERE row = 2",
        ):
            db.execute(statement)
    with pytest.raises(ArtifactError, match="share a vector"):
        SearchIndex.open(index)


@pytest.mark.parametrize(
    "field, value",
    [
        ("folder", 1),
        ("width", -1),
        ("width", 10**9),
        ("width", True),
        ("encoding", "float64"),
        ("logit_scale", float("nan")),
        ("logit_scale", 1e9),
        ("preprocessing", None),
    ],
)
def test_what_an_index_says_of_itself(made: Path, tmp_path: Path, field: str, value: object) -> None:
    with SearchIndex.open(made / "index") as reader:
        said = json.loads(reader.about.to_json())
    index = changed(
        made,
        tmp_path / "index",
        "UPDATE meta SET value = ? WHERE key = 'about'",
        json.dumps({**said, field: value}),
    )
    with pytest.raises(ArtifactError, match="damaged index"):
        SearchIndex.open(index)


def test_another_format_and_no_index(made: Path, tmp_path: Path) -> None:
    index = changed(made, tmp_path / "index", "UPDATE meta SET value = ? WHERE key = 'format'", "2")
    with pytest.raises(ArtifactError, match="reads indexes of format 1, not '2'"):
        SearchIndex.open(index)
    for path in (tmp_path / "none", tmp_path, made / "photos" / "1.png"):
        with pytest.raises(ArtifactError, match="is not an index"):
            SearchIndex.open(path)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "index.sqlite").write_text("no database " * 100)
    with pytest.raises(ArtifactError, match="file is not a database"):
        SearchIndex.open(tmp_path / "text")


def test_a_vector_that_changed_is_found(made: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    shutil.copytree(made / "index", index)
    data = bytearray((index / "vectors.0").read_bytes())
    data[0] ^= 1
    (index / "vectors.0").write_bytes(data)
    store = Store.open(index)
    assert list(update.check(store)) == ["0.png: its vector is damaged"]
    store.close()
    with (
        SearchIndex.open(index) as reader,
        pytest.raises(ArtifactError, match=r"vector of .*0\.png has changed"),
    ):
        reader.search(vector(b"picture 0"))


def test_an_index_nobody_may_write_to_is_searched(made: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    shutil.copytree(made / "index", index)
    for path in index.iterdir():
        path.chmod(0o400)
    index.chmod(0o500)
    try:
        with SearchIndex.open(index) as reader:
            assert len(reader.search(vector(b"picture 0"))) == 20
            assert len(reader) == 39
    finally:
        index.chmod(0o700)


@pytest.mark.parametrize("damage", [b"no database", b"", None])
def test_a_damaged_index_is_made_anew_on_request(made: Path, tmp_path: Path, damage: bytes | None) -> None:
    index, photos = tmp_path / "index", made / "photos"
    shutil.copytree(made / "index", index)
    reader = SearchIndex.open(index)
    if damage is not None:
        (index / "index.sqlite").write_bytes(damage)
    with update.writer(index, lambda: about(photos), anew=True) as store:
        scan(store, str(photos))
        update.embed_all(store, str(photos), Stub())
    check(index, photos)
    assert sorted(path.name for path in index.iterdir()) == ["index.sqlite", "lock", "vectors.1"]
    if damage is None:  # a reader goes on with the new one
        assert len(reader.search(vector(b"picture 1"), top=None)) == 39
    reader.close()
