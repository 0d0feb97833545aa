"""``/v1/search``: the hits of the Python API, an index that changes, and thumbnails that give no file away."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sigrun import Siglip
from sigrun.cli import main
from sigrun.errors import ArtifactError, SpaceError
from sigrun.search import Hit, Query, SearchIndex

pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("starlette", reason="needs the extra serve")

from sigrun.serve.settings import Limits, ServeSettings
from sigrun.serve.thumbnails import SIDE
from tests.serving import DEMO, Client, picture, serving, uri

COUNT = len(list(DEMO.glob("*.png")))


def indexed(artifact: Path, folder: Path, *more: str) -> Path:
    """The index of a folder, made or brought up to date as a user does it."""
    index = folder.with_name(f"{folder.name}.sigrun")
    assert main(["index", str(artifact), str(folder), "-o", str(index), "-q", *more]) == 0
    return index


@pytest.fixture(scope="module")
def index(emoji_q4: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("indexed")
    shutil.copytree(DEMO, place / "drawings" / "below")
    return indexed(emoji_q4, place / "drawings")


@pytest.fixture(scope="module")
def api(emoji_q4: Path, index: Path) -> Iterator[Client]:
    with serving(emoji_q4, ServeSettings(port=0, index=index)) as client:
        yield client


@pytest.fixture(scope="module")
def expected(emoji_q4: Path, index: Path) -> Iterator[SearchIndex]:
    with Siglip.load(emoji_q4) as model, SearchIndex.open(index, model) as opened:
        yield opened


def rows(api: Client, **body: Any) -> list[dict[str, Any]]:
    answer = api.post("/v1/search", body)
    assert answer.status == 200, answer.raw
    found: list[dict[str, Any]] = answer.json["data"]
    assert [row["index"] for row in found] == list(range(len(found)))
    return found


def same(found: list[dict[str, Any]], hits: list[Hit], index: SearchIndex) -> None:
    """The answer has the hits that the Python API gives, by paths below the folder."""
    assert [row["path"] for row in found] == [
        Path(hit.path).relative_to(index.about.folder).as_posix() for hit in hits
    ]
    for row, hit in zip(found, hits, strict=True):
        plain = {name: value for name, value in hit.to_json().items() if name != "path"}
        assert {name: row[name] for name in plain} == pytest.approx(plain, rel=1e-6)
        assert set(row) == {"object", "index", "path", "thumbnail", *plain}


# ---- hits ----


def test_a_text_finds_what_it_finds_in_python(api: Client, expected: SearchIndex) -> None:
    found = rows(api, query="pizza", top=5)
    same(found, expected.search("pizza", top=5), expected)
    assert found[0]["path"] == "below/pizza.png"
    assert found[0]["probability"] > 0
    assert len(rows(api, query="pizza")) == COUNT


def test_a_picture_finds_itself(api: Client, expected: SearchIndex) -> None:
    for query in (uri(picture("owl")), {"image": uri(picture("owl"))}, [{"image": uri(picture("owl"))}]):
        found = rows(api, query=query, top=3)
        same(found, expected.search(expected.picture(DEMO / "owl.png"), top=3), expected)
        assert found[0]["path"] == "below/owl.png"
        assert found[0]["cosine"] == pytest.approx(1, abs=1e-3)
        assert "probability" not in found[0]


def test_terms_are_weighed_together(api: Client, expected: SearchIndex) -> None:
    query = ["fire", {"image": uri(picture("rocket")), "weight": 0.5}, {"text": "red", "weight": -1}]
    hits = expected.search(
        Query(
            (
                expected.text("fire"),
                expected.picture(DEMO / "rocket.png", 0.5),
                expected.text("red", -1.0),
            )
        )
    )
    same(rows(api, query=query), hits, expected)
    assert rows(api, query=["fire", "red"]) != rows(api, query=["fire", {"text": "red", "weight": -1}])


def test_a_threshold_keeps_what_fits(api: Client, expected: SearchIndex) -> None:
    hits = expected.search("pizza", top=None, threshold=0.01)
    assert 0 < len(hits) < COUNT
    same(rows(api, query="pizza", threshold=0.01), hits, expected)
    assert rows(api, query="pizza", threshold=1) == []


def test_answers_say_of_what_they_are(api: Client, expected: SearchIndex) -> None:
    answer = api.post("/v1/search", {"query": "owl"}).json
    assert (answer["space"], answer["searched"]) == (expected.about.space, COUNT)
    assert answer["usage"] == {"prompt_tokens": 64, "total_tokens": 64}
    (described,) = api.get("/v1/models").json["data"]
    assert described["index"] == {"pictures": COUNT}
    assert str(expected.about.folder) not in str(answer) + str(described), "no path of this machine is told"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "query"),
        ({"query": []}, "query"),
        ({"query": [""]}, "query[0]"),
        ({"query": ["a"] * 33}, "query"),
        ({"query": [1, 2]}, "query[0]"),
        ({"query": {"text": "a", "weight": 0}}, "query.weight"),
        ({"query": ["a", {"text": "a", "weight": "1"}]}, "query[1].weight"),
        ({"query": ["a", {"text": "a", "weight": True}]}, "query[1].weight"),
        ({"query": ["a", {"text": "a", "weight": 1e300}]}, "query[1].weight"),
        ({"query": ["a", {"image": "AAAA"}]}, "query[1]"),
        ({"query": ["a", {"image": "file:///etc/passwd"}]}, "query[1].image"),
        ({"query": "a", "top": 0}, "top"),
        ({"query": "a", "top": 1001}, "top"),
        ({"query": "a", "threshold": 1.5}, "threshold"),
        ({"query": uri(picture("owl")), "threshold": 0.5}, "threshold"),
        ({"query": {"text": "a", "weight": -1}, "threshold": 0.5}, "threshold"),
    ],
)
def test_queries_that_cannot_be_meant(api: Client, body: dict[str, Any], param: str) -> None:
    answer = api.post("/v1/search", body)
    assert (answer.status, answer.error["param"]) == (422, param), answer.raw


def test_a_server_without_an_index_says_how_to_start_with_one(emoji_q4: Path) -> None:
    with serving(emoji_q4) as client:
        for answer in (client.post("/v1/search", {"query": "a"}), client.get("/v1/search/thumbnails/x")):
            assert (answer.status, answer.error["code"]) == (404, "no_index")
            assert "--index" in answer.error["message"]
        assert client.get("/v1/models").json["data"][0]["index"] is None


# ---- an index that changes, or is another ----


def test_a_changed_index_is_seen(emoji_q4: Path, tmp_path: Path) -> None:
    folder = tmp_path / "drawings"
    folder.mkdir()
    shutil.copy(DEMO / "owl.png", folder)
    found = indexed(emoji_q4, folder)
    with serving(emoji_q4, ServeSettings(port=0, index=found)) as client:
        assert [row["path"] for row in rows(client, query="pizza")] == ["owl.png"]
        shutil.copy(DEMO / "pizza.png", folder)
        indexed(emoji_q4, folder)
        assert [row["path"] for row in rows(client, query="pizza")] == ["pizza.png", "owl.png"]
        shutil.rmtree(found)
        gone = client.post("/v1/search", {"query": "pizza"})
        assert (gone.status, gone.error["code"]) == (503, "index_unavailable")
        assert str(tmp_path) not in gone.error["message"]
        assert client.get("/v1/models").json["data"][0]["index"] == {"pictures": None}
        (folder / "owl.png").unlink()
        indexed(emoji_q4, folder)
        assert [row["path"] for row in rows(client, query="pizza")] == ["pizza.png"]


def test_an_index_of_another_space_is_refused_at_start(emoji_q4: Path, tiny_q4: Path, index: Path) -> None:
    for other in (False, True):
        with (
            pytest.raises(SpaceError, match="cannot be compared"),
            serving(tiny_q4, ServeSettings(port=0, index=index, other_variant=other)),
        ):
            pass
    with (
        pytest.raises(ArtifactError, match="not an index"),
        serving(emoji_q4, ServeSettings(port=0, index=index.parent)),
    ):
        pass


def test_an_index_of_another_variant_is_allowed_on_request(
    emoji_q4: Path, emoji_f32: Path, index: Path
) -> None:
    with (
        pytest.raises(SpaceError, match="other-variant"),
        serving(emoji_f32, ServeSettings(port=0, index=index)),
    ):
        pass
    with serving(emoji_f32, ServeSettings(port=0, index=index, other_variant=True)) as client:
        assert rows(client, query="pizza", top=1)[0]["path"] == "below/pizza.png"


def test_an_index_that_is_rebuilt_by_another_model_is_no_longer_searched(
    emoji_q4: Path, emoji_f32: Path, tiny_q4: Path, tmp_path: Path
) -> None:
    shutil.copytree(DEMO, tmp_path / "drawings")
    found = indexed(emoji_q4, tmp_path / "drawings")
    with serving(emoji_q4, ServeSettings(port=0, index=found)) as client:
        assert rows(client, query="pizza", top=1)
        indexed(emoji_f32, tmp_path / "drawings", "--rebuild")
        answer = client.post("/v1/search", {"query": "pizza"})
        assert (answer.status, answer.error["code"]) == (409, "other_variant")
        indexed(tiny_q4, tmp_path / "drawings", "--rebuild")
        assert client.post("/v1/search", {"query": "pizza"}).error["code"] == "index_unavailable"
        indexed(emoji_q4, tmp_path / "drawings", "--rebuild")
        assert rows(client, query="pizza", top=1)[0]["path"] == "pizza.png"


def test_pictures_in_another_compute_form_are_not_compared(emoji_q4: Path, tmp_path: Path) -> None:
    shutil.copytree(DEMO, tmp_path / "drawings")
    found = indexed(emoji_q4, tmp_path / "drawings", "--compute", "exact")
    with serving(emoji_q4, ServeSettings(port=0, index=found)) as client:  # in form int8
        answer = client.post("/v1/search", {"query": uri(picture("owl"))})
        assert (answer.status, answer.error["code"]) == (409, "other_variant")
        assert "compute form exact" in answer.error["message"]
        assert rows(client, query="pizza", top=1), "texts are as they were"


# ---- thumbnails ----


def test_a_thumbnail_is_made_of_pixels_alone(emoji_q4: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 255, (4, 8, 3), np.uint8)).resize((1200, 600))
    notes = Image.Exif()
    notes[0x0112] = 6  # lies on its side
    notes[0x010E] = "taken at a secret place"
    photo.save(folder / "photo.jpg", exif=notes, comment=b"a secret comment")
    with serving(emoji_q4, ServeSettings(port=0, index=indexed(emoji_q4, folder))) as client:
        (row,) = rows(client, query="a photo")
        answer = client.get(row["thumbnail"])
    assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    small = Image.open(BytesIO(answer.raw))
    assert small.size == (SIDE // 2, SIDE), "upright"
    assert b"secret" not in answer.raw
    assert not small.getexif()
    upright = photo.rotate(-90, expand=True).resize(small.size, Image.Resampling.LANCZOS)
    difference = np.abs(np.asarray(small, np.float32) - np.asarray(upright, np.float32))
    assert difference.mean() < 3, "it is that picture"


def test_thumbnails_are_of_indexed_pictures_as_they_were(emoji_q4: Path, tmp_path: Path) -> None:
    shutil.copytree(DEMO, tmp_path / "drawings")
    found = indexed(emoji_q4, tmp_path / "drawings")
    with serving(emoji_q4, ServeSettings(port=0, index=found)) as client:
        names = {row["path"]: row["thumbnail"] for row in rows(client, query="an owl")}
        assert len(set(names.values())) == COUNT
        assert client.get(names["owl.png"]).status == 200
        (tmp_path / "drawings" / "owl.png").write_bytes(picture("pizza"))
        (tmp_path / "drawings" / "key.png").unlink()
        (tmp_path / "drawings" / "pizza.png").unlink()
        (tmp_path / "secret.png").write_bytes(picture("rocket"))
        (tmp_path / "drawings" / "pizza.png").symlink_to(tmp_path / "secret.png")
        for name in ("owl.png", "key.png", "pizza.png"):
            answer = client.get(names[name])
            assert (answer.status, answer.error["code"]) == (404, "no_thumbnail"), name
        assert client.get(names["rocket.png"]).status == 200


def test_a_thumbnail_cannot_be_asked_for_by_anything_but_its_name(api: Client, index: Path) -> None:
    good = rows(api, query="an owl", top=1)[0]["thumbnail"]
    name = good.rpartition("/")[2]
    for bad in (
        "0", "1", "-1", "below%2Fowl.png", "..%2f..%2fetc%2fpasswd", name[:-1], name.upper() + "0", "%00",
        str(index.parent / "drawings" / "below" / "owl.png").replace("/", "%2F"), name + "%00",
    ):  # fmt: skip
        answer = api.get(f"/v1/search/thumbnails/{bad}")
        assert answer.status == 404, bad
        assert answer.error["message"]
    assert api.get(good).status == 200
    assert api.log[-1]["route"] == "/v1/search/thumbnails/{name}"
    assert name not in str(api.log)


def test_thumbnails_need_the_token(emoji_q4: Path, index: Path) -> None:
    token = {"authorization": "Bearer correct-horse-battery"}
    settings = ServeSettings(port=0, index=index, token="correct-horse-battery", limits=Limits())
    with serving(emoji_q4, settings) as client:
        answer = client.post("/v1/search", {"query": "owl"}, token)
        where = answer.json["data"][0]["thumbnail"]
        assert client.get(where).status == 401
        assert client.get(where, **token).status == 200
