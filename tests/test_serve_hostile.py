"""Hostile requests: each is answered in words, tells nothing it should not, and leaves the server as it was."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from sigrun import Siglip

pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("starlette", reason="needs the extra serve")

from sigrun.serve.settings import MIB
from tests.hostile import lives_on, served  # noqa: F401
from tests.picture_files import chunk, png, stored
from tests.serving import DEMO, JSON, Client, bare, picture, uri


def refused(api: Client, body: dict[str, Any], path: str = "/v1/embeddings") -> str:
    """The words in which a request is refused."""
    answer = api.post(path, body)
    assert answer.status in (400, 413, 422), (answer.status, answer.raw[:200])
    message = answer.error["message"]
    assert "Traceback" not in message
    assert len(message) < 600
    return str(message)


# ---- pictures ----


def bomb() -> bytes:
    """50,000 × 50,000 pixels in a few kilobytes."""
    row = zlib.compress(b"\0" * 100_000)
    return png(50_000, 50_000)[:-12] + chunk(b"IDAT", row) + chunk(b"IEND", b"")


def with_text(kind: bytes, nbytes: int) -> bytes:
    """A drawing with so many bytes of packed words or colour profile, which take a thousandth of that."""
    packed = zlib.compress(b"\0" * nbytes, 9)
    return picture()[:33] + chunk(kind, b"name\0\0" + packed) + picture()[33:]


def frames(count: int) -> bytes:
    """A GIF of many frames of one pixel."""
    head = b"GIF89a" + struct.pack("<HH", 9, 9) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    frame = b"\x21\xf9\x04\0\1\0\0\0\x2c" + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02\x44\x01\0"
    return head + frame * count + b";"


def tiff_in_a_circle() -> bytes:
    """A TIFF whose next directory is its first."""
    entry = struct.pack("<HHII", 256, 3, 1, 10)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + struct.pack("<I", 8)


PICTURES = {
    "60,000 pixels a side": (png(60_000, 60_000), "million are accepted"),
    "a GIF of 4 billion pixels": (frames(1)[:6] + b"\xff" * 4 + frames(1)[10:], "million are accepted"),
    "a PPM of 4 billion pixels": (b"P6 60000 60000 255\n", "million are accepted"),
    "a QOI of 4 billion pixels": (
        b"qoif" + struct.pack(">II", 60_000, 60_000) + b"\3\0",
        "million are accepted",
    ),
    "100 MB of packed words": (with_text(b"zTXt", 100_000_000), "too large"),
    "200 MB of packed colours": (with_text(b"iCCP", 200_000_000), "too large"),
    "a TIFF in a circle": (tiff_in_a_circle(), "TIFF"),
    "bomb": (bomb(), "million are accepted"),
    "claims 4 billion pixels a side": (png(2**31 - 1, 2**31 - 1), "million are accepted"),
    "no pixels": (png(0, 10), "picture"),
    "cut short": (picture()[:200], "truncated"),
    "empty": (b"", "empty"),
    "text": (b"hello", "not a picture"),
    "a nested data URI": (uri(picture()).encode(), "not a picture"),
    "SVG": (
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "not a picture",
    ),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    "PDF": (b"%PDF-1.7\n", "not a picture"),
    "pickle": (b"\x80\x04\x95", "not a picture"),
    "zip": (b"PK\x03\x04", "not a picture"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_that_are_none(api: Client, name: str) -> None:
    data, words = PICTURES[name]
    assert words in refused(api, {"input": [{"image": uri(data)}]})


def test_of_very_many_frames_the_first_is_taken(api: Client) -> None:
    row = api.post("/v1/embeddings", {"input": [uri(frames(40_000))]}).json["data"][0]
    assert len(row["embedding"]) == 160
    assert "one of 40000 frames" in row["note"].replace(",", "")


DATA_URIS = {
    "not base64": "data:image/png;base64,%%%",
    "half of a letter": "data:image/png;base64,iVBORw0KGgo=A",
    "too much padding": "data:image/png;base64,iVBO====",
    "five letters": "data:image/png;base64,iVBOR",
    "letters of elsewhere": "data:image/png;base64,ｉＶＢＯＲｗ０Ｋ",
    "a lone surrogate": "data:image/png;base64,\ud800",
    "no comma": "data:image/png;base64",
    "nothing": "data:,",
    "percents that are none": "data:image/svg+xml,%3csvg%zz",
    "words": "data:image/png,hello",
    "one in the other": "data:image/png;base64,data:image/png;base64,iVBORw0K",
    "a long kind": "data:" + "image/png;x=y;" * 1000 + "base64,AAAA",
    "blanks": "  data:image/png;base64,  ",
}


@pytest.mark.parametrize("name", DATA_URIS)
def test_data_uris_that_are_none(api: Client, name: str) -> None:
    assert refused(api, {"input": [{"image": DATA_URIS[name]}]})
    assert refused(api, {"input": DATA_URIS[name], "modality": "image"})


def test_a_picture_of_too_many_bytes(api: Client) -> None:
    data = stored("BMP", None) + b"\0" * (MIB + 1000)
    assert f"more than {MIB} bytes" in refused(api, {"input": [uri(data)]})


PATHS = (
    "/etc/passwd",
    "file:///etc/passwd",
    "FILE:/etc/passwd",
    "\\\\host\\share\\picture.png",
    "C:\\Windows\\win.ini",
    "../../../../etc/passwd",
    "/proc/self/environ",
    "/dev/zero",
    "data:image/png;base64,/etc/passwd",
    "jar:http://127.0.0.1!/x",
    "ftp://127.0.0.1/x.png",
    "gopher://127.0.0.1:70/_x",
    "picture.png",
    "~root/.ssh/id_rsa",
)


@pytest.mark.parametrize("path", PATHS)
def test_paths_are_never_opened(api: Client, path: str) -> None:
    for body in (
        {"input": [path], "modality": "image"},
        {"input": [{"image": path}]},
        {"input": [{"type": "image_url", "image_url": {"url": path}}]},
    ):
        words = refused(api, body)
        assert "root:" not in words
        assert "No such file" not in words
        assert "directory" not in words


def test_a_picture_that_exists_is_not_opened_by_its_path(api: Client, tmp_path: Path) -> None:
    there = tmp_path / "there.png"
    there.write_bytes(picture())
    for path in (str(there), there.as_uri()):
        refused(api, {"input": [{"image": path}]})
        answer = api.post("/v1/classify", {"input": path, "labels": ["owl"]}).json
        assert answer["data"][0]["predictions"] == []


@pytest.mark.parametrize("url", ["http://127.0.0.1/x.png", "https://example.com/x.png", "HTTP://[::1]/"])
def test_addresses_are_not_fetched_unless_the_server_was_told_to(api: Client, url: str) -> None:
    assert "fetches no addresses" in refused(api, {"input": [{"image": url}]})


def test_bare_base64_of_both_alphabets(api: Client) -> None:
    """What is only unusual is taken."""
    urlsafe = base64.urlsafe_b64encode(picture()).decode().rstrip("=")
    for text in (
        urlsafe,
        bare(picture()) + "\n",
        f"data:;base64,{urlsafe}",
        uri(picture(), "application/octet-stream"),
    ):
        assert api.post("/v1/embeddings", {"input": [{"image": text}]}).status == 200


# ---- JSON ----

BODIES: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "not JSON": (b"{", 400),
    "a list": (b"[]", 400),
    "a number": (b"1", 400),
    "null": (b"null", 400),
    "not UTF-8": (b'{"input": "\xff"}', 400),
    "UTF-16": ('{"input": "a"}'.encode("utf-16"), 400),
    "UTF-32": ('{"input": "a"}'.encode("utf-32"), 400),
    "a byte order mark": (b'\xef\xbb\xbf{"input": "a"}', 400),
    "half of UTF-8": (b'{"input": "\xe2\x82"}', 400),
    "Infinity": (b'{"input": "a", "threshold": Infinity}', 400),
    "minus Infinity": (b'{"input": "a", "threshold": -Infinity}', 400),
    "a name twice": (b'{"input": "a", "input": "b"}', 400),
    "a name twice inside": (b'{"input": [{"text": "a", "te\\u0078t": "b"}]}', 400),
    "more behind": (b'{"input": "a"} {"input": "b"}', 400),
    "a comment": (b'{"input": "a" /* b */}', 400),
    "a name that is half a letter": (b'{"\\ud800": 1, "input": {"\\udfff": "a"}}', 422),
    "content in content": (b'{"input": {"content": {"content": {"content": "a"}}}}', 422),
    "lists in lists": (b'{"input": [[[[[[["a"]]]]]]]}', 422),
    "NaN": (b'{"input": "a", "threshold": NaN}', 400),
    "nested 50,000 deep": (b'{"input":' + b"[" * 50_000 + b"]" * 50_000 + b"}", 400),
    "objects nested 20,000 deep": (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, 400),
    "half a million values": (b'{"input":[' + b"{}," * 500_000 + b"{}]}", 413),
    "a number of a million digits": (b'{"dimensions":' + b"9" * 1_000_000 + b"}", 400),
    "a huge exponent": (b'{"input":"a","dimensions":1e999}', 422),
    "a lone surrogate": (b'{"input": "\\ud800"}', 422),
    "a lone surrogate as model": (b'{"input": "a", "model": "\\udfff"}', 422),
    "a NUL": (b'{"input": {"image": "\\u0000"}}', 422),
    "token ids": (b'{"input": [1, 2, 3]}', 422),
    "nested token ids": (b'{"input": [[1, 2], [3]]}', 422),
    "true": (b'{"input": true}', 422),
    "an object of nothing": (b'{"input": {}}', 422),
    "an empty list": (b'{"input": []}', 422),
    "an empty text": (b'{"input": ["  "]}', 422),
    "too many items": (json.dumps({"input": ["a"] * 65}).encode(), 422),
    "a text of 10,001 characters": (json.dumps({"input": "a" * 10_001}).encode(), 422),
    "both at once": (b'{"input": {"text": "a", "image": "b"}}', 422),
    "two parts": (b'{"input": [{"content": [{"text": "a"}, {"text": "b"}]}]}', 422),
    "two messages": (b'{"messages": [{"content": "a"}, {"content": "b"}]}', 422),
    "half the model's width": (b'{"input": "a", "dimensions": 80}', 422),
    "negative width": (b'{"input": "a", "dimensions": -1}', 422),
    "raw vectors": (b'{"input": "a", "normalized": false}', 422),
    "unknown encoding": (b'{"input": "a", "encoding_format": "ubinary"}', 422),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_cannot_be_meant(api: Client, name: str) -> None:
    body, status = BODIES[name]
    answer = api.ask("POST", "/v1/embeddings", body, JSON)
    assert answer.status == status, answer.raw[:200]
    assert answer.error["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/classify", {"input": "AAAA"}),
        ("/v1/classify", {"input": "AAAA", "labels": []}),
        ("/v1/classify", {"input": "AAAA", "labels": ["a", ""]}),
        ("/v1/classify", {"input": "AAAA", "labels": "a"}),
        ("/v1/classify", {"input": "AAAA", "labels": ["a"], "label_set": "b"}),
        ("/v1/classify", {"input": "AAAA", "label_set": "../../etc/passwd"}),
        ("/v1/classify", {"input": "AAAA", "labels": ["a"], "template": "no place"}),
        ("/v1/classify", {"input": "AAAA", "labels": ["a"] * 64, "ensemble": "imagenet80"}),
        ("/v1/classify", {"input": "AAAA", "labels": ["a"], "threshold": 2}),
        ("/v1/classify", {"input": "AAAA", "labels": ["a"], "top_k": 0}),
        ("/v1/classify", {"input": "AAAA", "labels": ["a"], "activation": "relu"}),
        ("/v1/classify", {"input": "AAAA", "labels": ["{}" * 5000], "template": "{}{}{}{}{}{}{}{}"}),
        ("/v1/classify", {"input": ["AAAA"] * 64, "labels": ["a"] * 64}),
        ("/v1/classify", {"input": "AAAA", "labels": ["a"] * 10_000}),
        ("/v1/classify", {"input": "AAAA", "labels": ["a", "\ud800"]}),
        ("/v1/classify", {"input": "AAAA", "labels": ["a"], "template": "\udfff {}"}),
        ("/v1/classify", {"input": "AAAA", "labels": ["a"], "template": "{0} {label} {a.__class__}"}),
        ("/v1/classify", {"input": "AAAA", "labels": ["a"], "template": ["{}"] * 101}),
        ("/v1/classify", {"input": "AAAA", "labels": [["a"]]}),
        ("/v1/score", {"data_1": "a"}),
        ("/v1/score", {"data_1": ["a", "b"], "data_2": ["c", "d", "e"]}),
        ("/v1/score", {"data_1": "a", "data_2": "b", "text_1": "a", "text_2": "b"}),
        ("/v1/rerank", {"documents": ["a"]}),
        ("/v1/rerank", {"query": ["a", "b"], "documents": ["a"]}),
        ("/v1/rerank", {"query": "a", "documents": []}),
        ("/v1/rerank", {"query": "a", "documents": ["a"], "top_n": 1.5}),
    ],
)
def test_requests_that_cannot_be_meant(api: Client, path: str, body: dict[str, Any]) -> None:
    refused(api, body, path)


def test_braces_are_letters_but_for_the_place_of_the_label(api: Client, emoji_q4: Path) -> None:
    labels, template = ["an owl", "{}", "{0}", "{label.__class__}"], "{0} {{}} {x!r} a picture of {}"
    body = {"input": uri(picture()), "labels": labels, "template": template}
    row = api.post("/v1/classify", body).json["data"][0]
    with Siglip.load(emoji_q4) as model:
        expected = model.classify(DEMO / "owl.png", model.label_set(labels, template=template))
    assert [(found["label"], found["score"]) for found in row["predictions"]] == [
        (score.label, pytest.approx(score.probability, rel=1e-5)) for score in expected
    ]
