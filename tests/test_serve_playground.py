"""The playground in a real browser: pictures dropped and pasted, labels typed, bars, words for what goes wrong."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sigrun import Siglip
from sigrun.cli import main

pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("starlette", reason="needs the extra serve")

from sigrun.serve.settings import ServeSettings
from tests import browser as driver
from tests.serving import DEMO, Client, serving

PROGRAM = driver.found()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium on this machine")

TAB = ("Tab", 9)
TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[driver.Browser]:
    assert PROGRAM is not None
    with driver.browser(PROGRAM, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def api(emoji_q4: Path) -> Iterator[Client]:
    with serving(emoji_q4) as client:
        yield client


@pytest.fixture
def page(chromium: driver.Browser, api: Client) -> Iterator[driver.Page]:
    opened = chromium.page()
    opened.open(api.url + "/")
    yield opened
    assert complaints(opened) == []
    opened.call("Page.close")


def complaints(page: driver.Page) -> list[Any]:
    """What the browser had to say: exceptions, and whatever the content policy stopped."""
    wrong = [e for e in page.events if e["method"] == "Runtime.exceptionThrown"]
    return wrong + [
        e
        for e in page.events
        if e["method"] == "Log.entryAdded" and e["params"]["entry"]["source"] == "security"
    ]


def type_labels(page: driver.Page, text: str) -> None:
    page.run("document.getElementById('labels').focus()")
    page.call("Input.insertText", text=text)


def bars(page: driver.Page, column: str = "a") -> dict[str, float]:
    """Label to the width of its bar, as a share of its track."""
    found = page.run(
        "Object.fromEntries([...document.querySelectorAll('#scores tbody tr')].map((line) => [line.cells[0]"
        f".textContent, parseFloat(line.querySelector('.{column} .bar').style.width) / 100]))"
    )
    return {str(label): float(width) for label, width in found.items()}


def test_a_picture_is_dropped_and_labels_are_typed(page: driver.Page, api: Client, emoji_q4: Path) -> None:
    page.drop("[data-side=a] .drop", DEMO / "owl.png")
    page.wait("!document.querySelector('[data-side=a] img').hidden")
    type_labels(page, "owl\npizza")
    page.wait("document.querySelectorAll('#scores tbody tr').length === 2")
    with Siglip.load(emoji_q4) as model:
        expected = {s.label: s.probability for s in model.classify(DEMO / "owl.png", ["owl", "pizza"])}
    found = bars(page)
    assert list(found) == list(expected), "the best label is first"
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-9)
    type_labels(page, "\nkey")
    page.wait("document.querySelectorAll('#scores tbody tr').length === 3")
    assert page.run("document.getElementById('summary').textContent").startswith("Picture A: owl, ")
    assert "not in memory" not in page.wait("document.getElementById('memory').textContent")
    assert re.search(
        r"emoji-siglip-patch10-60-q4_k_m · .* MiB · int8 on cpu", page.run("document.body.innerText")
    )
    assert re.search(r"[\d.]+ ms in the model", page.run("document.getElementById('latency').textContent"))
    page.run("(() => { const s = document.getElementById('activation'); s.value = 'softmax';"
             "s.dispatchEvent(new Event('change')); })()")  # fmt: skip
    page.wait("document.getElementById('caption').textContent.startsWith('Shares')")
    page.wait(
        "[...document.querySelectorAll('.a .bar')].reduce((sum, bar) => sum + parseFloat(bar.style.width), 0) > 99.9"
    )


def test_nothing_comes_from_elsewhere(page: driver.Page, api: Client) -> None:
    page.drop("[data-side=a] .drop", DEMO / "owl.png")
    type_labels(page, "owl")
    page.wait("document.querySelectorAll('#scores tbody tr').length === 1")
    asked = [e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
    assert len(asked) > 2
    assert all(url.startswith((api.url, "blob:" + api.url, "data:")) for url in asked), asked


def test_two_pictures_are_compared(page: driver.Page, emoji_q4: Path) -> None:
    page.drop("[data-side=a] .drop", DEMO / "owl.png")
    page.drop("[data-side=b] .drop", DEMO / "pizza.png")
    text = page.wait("document.getElementById('pair').textContent")
    with Siglip.load(emoji_q4) as model:
        a, b = model.embed_images([DEMO / "owl.png", DEMO / "pizza.png"]).vectors
    assert f"Cosine of the two pictures: {float(a @ b):.4f}" in text
    type_labels(page, "owl\npizza")
    page.wait("document.querySelectorAll('#scores tbody tr').length === 2")
    first, second = bars(page, "a"), bars(page, "b")
    assert max(first, key=lambda label: first[label]) == "owl"
    assert max(second, key=lambda label: second[label]) == "pizza"
    page.run("document.querySelector('[data-side=b] [data-remove]').click()")
    page.wait("document.getElementById('pair').textContent === ''")


def test_a_picture_is_pasted(page: driver.Page) -> None:
    """What the clipboard holds cannot be set from outside: the event is made, the page's own code takes it."""
    paste = """fetch('data:,').then(() => {
        const canvas = document.createElement('canvas'); canvas.width = canvas.height = 8;
        canvas.getContext('2d').fillRect(0, 0, 8, 8);
        return new Promise((done) => canvas.toBlob(done)); }).then((blob) => {
        const data = new DataTransfer(); data.items.add(new File([blob], 'shot.png', {type: 'image/png'}));
        document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, cancelable: true})); })"""
    page.run(paste.replace("fetch('data:,')", "Promise.resolve()"))
    page.wait("document.querySelector('[data-side=a] [data-name]').textContent === 'shot.png'")
    type_labels(page, "a black square")
    page.wait("document.querySelectorAll('#scores tbody tr').length === 1")


def test_what_goes_wrong_is_said_in_words(page: driver.Page, tmp_path: Path, api: Client) -> None:
    (tmp_path / "no.png").write_bytes(b"this is no picture")
    page.drop("[data-side=a] .drop", tmp_path / "no.png")
    type_labels(page, "owl")
    said = page.wait("document.getElementById('wrong').textContent")
    assert "Picture A" in said
    assert "is not a picture" in said
    assert page.run("document.getElementById('scores').hidden")
    page.drop("[data-side=a] .drop", DEMO / "owl.png")
    page.wait("document.querySelectorAll('#scores tbody tr').length === 1")
    assert page.run("document.getElementById('wrong').textContent") == ""
    page.run("(() => { const t = document.getElementById('template'); t.value = 'no place';"
             "t.dispatchEvent(new Event('input')); })()")  # fmt: skip
    assert "template has no {}" in page.wait("document.getElementById('wrong').textContent")
    assert page.run("document.getElementById('hint').hidden"), "nothing is missing"


def test_a_long_wait_is_said(
    chromium: driver.Browser, emoji_q4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(emoji_q4) as client:
        go, model = threading.Event(), client.service.engine.model
        embed = model.embed_images

        def slow(pictures: Any) -> Any:
            assert go.wait(30)
            return embed(pictures)

        monkeypatch.setattr(model, "embed_images", slow)
        page = chromium.page()
        page.open(client.url + "/")
        page.drop("[data-side=a] .drop", DEMO / "owl.png")
        type_labels(page, "owl")
        page.wait(
            "!document.getElementById('busy').hidden && document.body.getAttribute('aria-busy') === 'true'"
        )
        go.set()
        page.wait("document.querySelectorAll('#scores tbody tr').length === 1")
        page.wait("document.getElementById('busy').hidden && !document.body.hasAttribute('aria-busy')")
        page.call("Page.close")


def test_a_server_with_a_token_asks_for_it(chromium: driver.Browser, emoji_q4: Path) -> None:
    with serving(emoji_q4, ServeSettings(port=0, token=TOKEN)) as client:
        page = chromium.page()
        page.open(client.url + "/")
        assert "wants a token" in page.wait("document.getElementById('wrong').textContent")
        page.run("document.getElementById('token').focus()")
        page.call("Input.insertText", text=TOKEN)
        page.key("Enter", 13, "\r")
        page.run("document.getElementById('token').blur()")
        page.wait("document.getElementById('artifact').textContent.startsWith('emoji-siglip')")
        page.drop("[data-side=a] .drop", DEMO / "owl.png")
        type_labels(page, "owl")
        page.wait("document.querySelectorAll('#scores tbody tr').length === 1")
        assert complaints(page) == []
        page.call("Page.close")


def test_a_server_that_has_gone_is_said(chromium: driver.Browser, emoji_q4: Path) -> None:
    page = chromium.page()
    with serving(emoji_q4) as client:
        page.open(client.url + "/")
        page.wait("document.getElementById('artifact').textContent.startsWith('emoji-siglip')")
    page.drop("[data-side=a] .drop", DEMO / "owl.png")
    type_labels(page, "owl")
    assert "does not answer" in page.wait("document.getElementById('wrong').textContent")
    page.call("Page.close")


def test_the_keyboard_reaches_everything(page: driver.Page) -> None:
    page.run("document.body.focus()")
    reached = []
    for _ in range(8):
        page.key(*TAB)
        reached.append(page.run("document.activeElement.id || document.activeElement.getAttribute('href')"))
    assert reached[:6] == ["file-a", "file-b", "labels", "template", "activation", "/docs"]
    page.run("document.getElementById('file-a').focus()")
    outline = page.run("getComputedStyle(document.querySelector('[data-side=a] .drop')).outlineStyle")
    assert outline == "solid", "one sees where one is"


def test_a_screen_reader_hears_everything(page: driver.Page) -> None:
    page.drop("[data-side=a] .drop", DEMO / "owl.png")
    type_labels(page, "owl\npizza")
    page.wait("document.querySelectorAll('#scores tbody tr').length === 2")
    page.call("Accessibility.enable")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    heard = {(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]}
    for expected in (
        ("heading", "Sigrun playground"),
        ("image", "Picture A: owl.png"),
        ("button", "Remove picture A"),
        ("textbox", "Labels, one a line"),
        ("textbox", "Sentence around each label"),
        ("combobox", "Scores"),
        ("rowheader", "owl"),
        ("columnheader", "Picture A"),
        ("link", "The API"),
    ):
        assert expected in heard, (expected, sorted(heard))
    assert any(role == "button" and name.startswith("Picture A: choose a file") for role, name in heard)
    assert {"status", "alert"} <= {role for role, _ in heard}
    assert any(role in ("cell", "gridcell") and name.endswith(" %") for role, name in heard)
    for node in nodes:
        if not node["ignored"] and node["role"]["value"] in (
            "button",
            "textbox",
            "combobox",
            "link",
            "image",
        ):
            assert node.get("name", {}).get("value"), node


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_read_in_light_and_dark(page: driver.Page, scheme: str) -> None:
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    colour = {
        name: luminance(page.run(f"getComputedStyle(document.documentElement).getPropertyValue('--{name}')"))
        for name in ("ground", "card", "ink", "soft", "wrong", "a", "b", "focus", "edge")
    }
    assert (colour["ground"] < colour["ink"]) == (scheme == "dark")
    for text in ("ink", "soft", "wrong"):
        for behind in ("ground", "card"):
            assert contrast(colour[text], colour[behind]) >= 4.5, (text, behind)
    for mark in ("a", "b", "focus", "edge"):
        assert contrast(colour[mark], colour["ground"]) >= 3, mark
    assert contrast(colour["edge"], colour["card"]) >= 3, "one sees where a field is"


def luminance(colour: str) -> float:
    """WCAG's relative luminance of ``#rrggbb``."""
    parts = [int(colour.strip()[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: float, other: float) -> float:
    """WCAG's contrast ratio."""
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_the_page_of_the_api_lists_the_routes(chromium: driver.Browser, api: Client) -> None:
    page = chromium.page()
    page.open(api.url + "/docs")
    page.wait("document.querySelectorAll('section').length > 8")
    text = page.run("document.body.innerText")
    for route in (
        "POST /v1/embeddings",
        "POST /v1/classify",
        "POST /v1/score",
        "POST /v1/rerank",
        "GET /metrics",
    ):
        assert route in text
    assert complaints(page) == []
    page.call("Page.close")


def test_the_index_is_searched(
    chromium: driver.Browser, emoji_q4: Path, tmp_path: Path, page: driver.Page
) -> None:
    assert page.run("document.getElementById('search-section').hidden"), "there is no index"
    assert main(["index", str(emoji_q4), str(DEMO), "-o", str(tmp_path / "index"), "-q"]) == 0
    settings = ServeSettings(port=0, index=tmp_path / "index", token=TOKEN)
    with serving(emoji_q4, settings) as client:
        opened = chromium.page()
        opened.open(client.url + "/")
        opened.wait("!document.getElementById('token-field').hidden")
        opened.run("document.getElementById('token').focus()")
        opened.call("Input.insertText", text=TOKEN)
        opened.run("document.getElementById('token').blur()")
        opened.wait("!document.getElementById('search-section').hidden")
        opened.run("document.getElementById('words').focus()")
        opened.call("Input.insertText", text="a pizza")
        opened.key("Enter", 13, "\r")
        opened.wait(
            "[...document.querySelectorAll('#hits img')].filter((i) => i.naturalWidth > 0).length === 14"
        )
        hits = "[...document.querySelectorAll('#hits li')].map((line) => line.innerText)"
        assert re.fullmatch(r"pizza\.png\s+[\d.]+ %", opened.run(hits)[0])
        assert opened.run("document.getElementById('found').textContent") == "The best 14 of 14 pictures."
        assert opened.run("document.getElementById('like').disabled")
        opened.drop("[data-side=a] .drop", DEMO / "owl.png")
        opened.wait("!document.getElementById('like').disabled")
        opened.run("document.getElementById('words').value = ''; document.getElementById('like').click()")
        opened.run("document.querySelector('#search button').click()")
        opened.wait(f"/^owl.png\\s+cosine (1.0000|0.999)/.test(({hits})[0])")
        opened.run(
            "document.getElementById('like').click(); document.querySelector('#search button').click()"
        )
        opened.wait("document.getElementById('found').textContent === 'Give words to look for.'")
        shutil.rmtree(tmp_path / "index")
        opened.run(
            "document.getElementById('words').value = 'x'; document.querySelector('#search button').click()"
        )
        assert "cannot be searched" in opened.wait("document.getElementById('search-wrong').textContent")
        assert complaints(opened) == []
        opened.call("Page.close")


def test_it_fits_a_telephone_and_a_wide_screen(page: driver.Page) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    page.drop("[data-side=a] .drop", DEMO / "owl.png")
    page.run("document.querySelector('[data-side=b] .drop').scrollIntoView()")
    page.drop("[data-side=b] .drop", DEMO / "pizza.png")
    type_labels(page, "owl\na slice of pizza with cheese\n" + "unbroken" * 9)
    page.wait("document.querySelectorAll('#scores tbody tr').length === 3")
    assert page.run("document.documentElement.scrollWidth") <= 360, "nothing lies beyond its edge"
    assert page.run("Math.min(...[...document.querySelectorAll('.track')].map((e) => e.clientWidth))") >= 60
    page.call("Emulation.setDeviceMetricsOverride", width=1300, height=740, deviceScaleFactor=1, mobile=False)
    left = "document.querySelector('%s').getBoundingClientRect().left"
    assert page.run(left % "h1") == page.run(left % "footer span") == page.run(left % "section")
