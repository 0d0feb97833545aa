"""Pictures inside texts."""

from __future__ import annotations

import base64
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigrun import data_uri
from sigrun.data_uri import data_uri_bytes
from sigrun.errors import PictureError
from sigrun.pictures import open_picture
from tests.picture_files import ARRAY, stored

DATA = stored()
PLAIN = base64.b64encode(DATA).decode()


@pytest.mark.parametrize(
    "uri",
    [
        f"data:image/png;base64,{PLAIN}",
        f"data:;base64,{PLAIN}",
        f"data:image/jpeg;base64,{PLAIN}",  # the bytes tell, whatever is said of them
        f"data:image/png;charset=utf-8;name=a%2Cb.png;base64,{PLAIN}",
        f"DATA:image/PNG;BASE64,{PLAIN}",
        f"  \n data:image/png; base64 ,{PLAIN}\n",
        f"data:image/png;base64,{PLAIN.rstrip('=')}",
        f"data:image/png;base64,{quote(PLAIN, safe='')}",
        f"data:image/png;base64,{base64.urlsafe_b64encode(DATA).decode()}",
        "data:image/png;base64,\r\n" + "\r\n\t".join(PLAIN[i : i + 76] for i in range(0, len(PLAIN), 76)),
        f"data:image/png,{quote(DATA, safe='')}",
        f"data:,{quote(DATA)}",
    ],
)
def test_the_ways_to_write_one(uri: str) -> None:
    assert (np.asarray(open_picture(uri)) == ARRAY).all()


@given(st.binary(max_size=200), st.sampled_from(["base64", "urlsafe", "percent"]))
def test_any_bytes_come_back(data: bytes, way: str) -> None:
    if way == "percent":
        uri = f"data:application/octet-stream,{quote(data)}"
    else:
        encode = base64.b64encode if way == "base64" else base64.urlsafe_b64encode
        uri = f"data:image/png;base64,{encode(data).decode()}"
    assert data_uri_bytes(uri) == data


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("data:", "no comma"),
        (f"data:image/png;base64 {PLAIN}", "no comma"),
        ("data:image/png;base64,", "is empty"),
        ("data:image/png,", "is empty"),
        (f"data:image/png;base64,{PLAIN[:30]}!{PLAIN[30:]}", "character 31 is '!'"),
        (f"data:image/png;base64,{PLAIN[:30]}ü{PLAIN[30:]}", "character 31 is '.xc3'"),
        ("data:image/png;base64,abcde", "its last character stands alone"),
        (f"data:image/png;base64,{PLAIN[:40]}=={PLAIN[40:]}", "character 41 is '='"),
        ("data:image/png;base64,\ud800", "no text"),
        ("data:text/plain,hello", "not a picture"),
        (f"data:image/png,{PLAIN}", "not a picture"),  # base64 that does not say so
        (f"data:image/png;base64,{PLAIN[:400]}", "cannot be decoded"),
    ],
)
def test_malformed_ones(uri: str, message: str) -> None:
    with pytest.raises(PictureError, match=message) as caught:
        open_picture(uri)
    assert caught.value.message.startswith("<data URI>")


@given(st.text(max_size=300))
def test_nothing_else_is_raised(rest: str) -> None:
    try:
        open_picture("data:" + rest)
    except PictureError as error:
        assert error.message.startswith("<data URI>")
        assert len(str(error)) < 300


def test_the_size_is_judged_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"data:image/png;base64,{PLAIN}"
    monkeypatch.setattr(data_uri, "MOST_CHARACTERS", len(uri))
    open_picture(uri)
    monkeypatch.setattr(data_uri, "MOST_CHARACTERS", len(uri) - 1)
    monkeypatch.setattr(data_uri, "b64decode", None)
    with pytest.raises(PictureError, match="million characters"):
        open_picture(uri)


def test_the_pixel_cap_holds() -> None:
    with pytest.raises(PictureError, match="max_pixels"):
        open_picture(f"data:;base64,{PLAIN}", max_pixels=599)


def test_messages_do_not_repeat_megabytes() -> None:
    for text in (
        "iVBORw0KGgo" * 100_000,
        "data:image/png;base64," + "?" * 1_000_000,
        "data:" + "x" * 1_000_000,
    ):
        with pytest.raises(PictureError) as caught:
            open_picture(text)
        assert len(str(caught.value)) < 300
    with pytest.raises(PictureError, match="given as a data URI"):
        open_picture("iVBORw0KGgo" * 100_000)


def test_a_path_that_begins_so_is_named_as_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("data:")
    try:
        folder.mkdir()
        (folder / "a.png").write_bytes(DATA)
    except OSError:
        pytest.skip("no such file names here")
    assert (np.asarray(open_picture(folder / "a.png")) == ARRAY).all()
    assert (np.asarray(open_picture("./data:/a.png")) == ARRAY).all()
