"""The page of hits: whole in itself, hostile names harmless, and every picture described."""

from __future__ import annotations

import base64
import io
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from sigrun.search import gallery
from sigrun.search.gallery import Section, Shown
from tests import browser

EVIL = "<img src=x onerror=alert(1)>\"'&\u202egnp.png" if sys.platform != "win32" else "o&'\u202egnp.png"


class Tags(HTMLParser):
    """Collects tags with their attributes, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def drawn(*sections: Section, title: str = "a query") -> Tags:
    out = io.StringIO()
    gallery.write(out, title, "about", sections)
    tags = Tags()
    tags.feed(out.getvalue())
    tags.close()
    assert tags.open == []
    return tags


def picture(path: Path, width: int, height: int) -> Shown:
    Image.new("RGB", (width, height), (200, 30, 30)).save(path, "PNG")
    return Shown(str(path), "87.3 %", 0.873)


def test_hostile_names_and_queries_stay_text(tmp_path: Path) -> None:
    (tmp_path / "<b>").mkdir() if sys.platform != "win32" else None
    shown = picture(tmp_path / EVIL.replace("/", ""), 40, 20)
    page = drawn(Section("<h1>", [shown]), title="</title><script>alert(1)</script>")
    names = [tag for tag, _ in page.tags]
    assert names.count("img") == names.count("li") == names.count("a") == 1
    assert "script" not in names
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "\u202e" not in page.text
    assert "\\u202egnp.png" in page.text
    assert "</title><script>alert(1)</script>" in page.text


def test_the_page_asks_for_nothing(tmp_path: Path) -> None:
    page = drawn(Section("", [picture(tmp_path / "a.png", 10, 10)]))
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        for name in ("src", "srcset", "action", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:image/jpeg;base64,"[:5])
        if tag == "a":
            assert (attributes["href"] or "").startswith("file:///")
    assert "url(" not in gallery._STYLE and "@import" not in gallery._STYLE
    (policy,) = [a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@pytest.mark.parametrize(
    ("size", "ratio"), [((300, 100), 3), ((4000, 20), 3), ((20, 4000), 1 / 3), ((1, 1), 1)]
)
def test_thumbnails_have_the_shape_of_the_picture(
    tmp_path: Path, size: tuple[int, int], ratio: float
) -> None:
    page = drawn(Section("", [picture(tmp_path / "a.png", *size)]))
    (attributes,) = [a for t, a in page.tags if t == "img"]
    data = base64.b64decode((attributes["src"] or "").partition(",")[2])
    with Image.open(io.BytesIO(data)) as thumbnail:
        assert thumbnail.format == "JPEG"
        assert thumbnail.height == gallery.HEIGHT
        assert thumbnail.width == round(gallery.HEIGHT * ratio) == int(attributes["width"] or 0)
        red, green, blue = thumbnail.getpixel((thumbnail.width // 2, 5))  # type: ignore[misc]
        assert abs(red - 200) < 6 and abs(green - 30) < 6 and abs(blue - 30) < 6
    assert attributes["alt"] == "a.png, 87.3 %"


def test_what_is_gone_and_what_was_not_found(tmp_path: Path) -> None:
    page = drawn(Section("Group 1", [Shown(str(tmp_path / "gone.png"), "0.9812")]))
    assert "no preview" in page.text
    assert [a["aria-label"] for _, a in page.tags if "aria-label" in a] == ["gone.png, 0.9812"]
    assert not re.search("bar", str(page.tags))
    assert "No picture was found" in drawn().text
    assert "No picture was found" in drawn(Section("", [])).text


@pytest.mark.skipif(browser.found() is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [360, 1100])
def test_in_a_browser(tmp_path: Path, width: int) -> None:
    """Every picture is drawn in its shape, nothing is fetched or complained about, nothing hangs over the edge."""
    sizes = [(300, 100), (100, 300), (200, 200), (4000, 20), (20, 4000), (1, 1)]
    shown = [picture(tmp_path / f"{'long name ' * 9}{n}.png", *size) for n, size in enumerate(sizes)]
    out = tmp_path / "page.html"
    with out.open("w", encoding="utf-8") as file:
        gallery.write(file, "a query " * 20, "about", [Section("One", shown[:1]), Section("", shown * 3)])
    with browser.browser(browser.found() or "", tmp_path / "profile") as chromium:
        page = chromium.page(width, 800)
        page.open(out.as_uri())
        page.run("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
        page.run("Promise.all([...document.images].map(image => image.decode())).then(() => 1)")
        boxes = page.run(
            "[...document.images].map(i => [i.width, i.height, i.naturalWidth / i.naturalHeight])"
        )
        assert len(boxes) == 19
        assert all(abs(w / h - ratio) < 0.05 * ratio and w > 90 for w, h, ratio in boxes)
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        assert page.run(
            "[...document.querySelectorAll('li')].every(i => i.getBoundingClientRect().right <= innerWidth)"
        )
        found = [event["method"] for event in page.events]
        assert "Log.entryAdded" not in found and "Runtime.exceptionThrown" not in found
        asked = [
            e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"
        ]
        assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
        assert [url for url in asked if url.startswith("file:")] == [out.as_uri()]
