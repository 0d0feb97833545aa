"""Pictures from the web: only from allowed hosts, only from public addresses, and never more than was agreed."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("starlette", reason="needs the extra serve")

from sigrun.serve.addresses import Address, is_loopback, is_public, parse_address
from sigrun.serve.errors import ApiError
from sigrun.serve.fetch import Fetcher
from sigrun.serve.settings import FetchLimits, ServeSettings
from tests.serving import picture, serving

PUBLIC = "93.184.216.34"
LIMITS = FetchLimits(
    hosts=("pictures.example", "other.example:8080", "[2606:4700::1111]"), nbytes=50_000, seconds=20.0
)


# ---- addresses ----


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "100.127.255.254", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.7",
        "203.0.113.9", "192.88.99.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:100.64.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a00:1::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:db8::1", "fc00::1", "fd12:3456::1", "fe80::1", "fec0::1", "ff02::1", "100::1", "3fff::1", "5f00::1",
        "fd00:ec2::254", "fe80::1%eth0", "2606:4700::1111%1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    found = parse_address(address)
    assert found is not None
    assert not is_public(found)


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "100.63.255.255", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"]
)
def test_addresses_that_are_public(address: str) -> None:
    found = parse_address(address)
    assert found is not None
    assert is_public(found)


@given(st.ip_addresses())
def test_no_address_passes_that_python_holds_for_private(address: Address) -> None:
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast


@given(st.ip_addresses(v=4))
def test_a_mapped_address_is_judged_by_the_one_inside(address: ipaddress.IPv4Address) -> None:
    assert is_public(ipaddress.IPv6Address(f"::ffff:{address}")) == is_public(address)


def test_which_hosts_only_this_machine_can_reach() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "localhost.example", "")))


# ---- which addresses are asked ----

Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Web:
    """An internet of one server, and a record of whom it was asked for as."""

    def __init__(self, names: dict[str, list[str]], answering: Answering) -> None:
        self.names = names
        self.answering = answering
        self.resolved: list[str] = []
        self.connected: list[tuple[str, int, str | None]] = []

    async def resolve(self, host: str, port: int) -> list[Address]:
        self.resolved.append(host)
        return [ipaddress.ip_address(address) for address in self.names.get(host, [])]

    async def connect(
        self, host: str, port: int, *, ssl: Any = None, server_hostname: str | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.connected.append((host, port, server_hostname))
        assert (ssl is None) == (server_hostname is None)
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def __aenter__(self) -> Web:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.answering(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()


def answering(*parts: bytes, wait: float = 0.0) -> Answering:
    """A server that sends parts whatever it is asked."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(wait)

    return answer


def fetched(
    url: str, respond: Answering, limits: FetchLimits = LIMITS, **names: list[str]
) -> tuple[bytes | str, Web]:
    """What fetching gives: bytes, or the words of an error."""

    async def run() -> tuple[bytes | str, Web]:
        known = {"pictures.example": [PUBLIC], "other.example": [PUBLIC], **names}
        async with Web(known, respond) as web:
            fetcher = Fetcher(limits, resolve=web.resolve, connect=web.connect)
            try:
                return await fetcher.fetch(url), web
            except ApiError as error:
                assert error.status == 422
                return error.message, web

    return asyncio.run(run())


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


def test_a_picture_is_fetched_from_the_address_that_was_looked_at() -> None:
    body, web = fetched("http://Pictures.Example./a/b.png?c=d", answering(OK))
    assert body == b"hello"
    assert web.resolved == ["pictures.example"], "once"
    assert web.connected == [(PUBLIC, 80, None)]
    chunks = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
    assert fetched("http://pictures.example/", answering(chunks))[0] == b"hello"
    assert fetched("http://pictures.example/", answering(b"HTTP/1.0 200 OK\r\n\r\nhello"))[0] == b"hello"


def test_tls_is_asked_for_by_name_at_the_address() -> None:
    _, web = fetched("https://pictures.example/x", answering(OK))
    assert web.connected == [(PUBLIC, 443, "pictures.example")]


REFUSED = [
    "http://elsewhere.example/x",
    "http://pictures.example.evil.example/x",
    "http://xpictures.example/",
    "http://pictures.example:8080/",
    "http://pictures.example:22/",
    "http://other.example/",
    "http://user@pictures.example/",
    "http://pictures.example@127.0.0.1/",
    "http://127.0.0.1\\@pictures.example/",
    "http://pictures.example\\.evil.example/",
    "http://pictures.example#@evil.example:80/x y",
    "http://evil.example#pictures.example",
    "http://evil.example?pictures.example",
    "http://pictures.example%2eevil.example/",
    "http://pictures.example:port/",
    "http://pictures.example:99999/",
    "http://pictures.example/\r\nhost: evil",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[fe80::1%25eth0]/",
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0177.0.0.1/",
    "http://0/",
    "http://①②⑦.⓪.⓪.①/",
    "http://169.254.169.254/latest/meta-data/",
    "http://localhost/",
    "http:///x",
    "http:pictures.example",
    "ftp://pictures.example/x",
    "file:///etc/passwd",
    "gopher://pictures.example/",
    "//pictures.example/",
    "pictures.example/x.png",
    "http://pictures。example/",
    "http://[pictures.example]/",
    "",
]


@pytest.mark.parametrize("url", REFUSED)
def test_addresses_that_are_not_asked(url: str) -> None:
    words, web = fetched(url, answering(OK))
    assert isinstance(words, str)
    assert web.connected == []
    assert web.resolved == []


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["10.1.2.3"], ["169.254.169.254"], ["::1"], ["::ffff:10.0.0.1"], ["64:ff9b::a00:1"],
     ["2002:a00:1::"], ["100.64.1.1"], [PUBLIC, "127.0.0.1"], ["127.0.0.1", PUBLIC], ["fd00::1"]],
)  # fmt: skip
def test_an_allowed_name_of_a_private_address_is_not_asked(addresses: list[str]) -> None:
    words, web = fetched("http://pictures.example/", answering(OK), **{"pictures.example": addresses})
    assert "not public" in str(words)
    assert web.connected == []


def test_allowing_a_private_address_by_number_does_not_make_it_public() -> None:
    for host in ("127.0.0.1", "[::1]", "169.254.169.254", "2130706433"):
        limits = FetchLimits(hosts=(host,))
        words, web = fetched(f"http://{host}/", answering(OK), limits, **{"2130706433": ["127.0.0.1"]})
        assert "not public" in str(words)
        assert web.connected == []


def test_addresses_that_were_allowed_by_number_or_port() -> None:
    assert fetched("http://[2606:4700::1111]/x", answering(OK))[0] == b"hello"
    body, web = fetched("http://other.example:8080/x", answering(OK))
    assert (body, web.connected) == (b"hello", [(PUBLIC, 8080, None)])


# ---- redirects ----


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.1/", "http://elsewhere.example/", "file:///etc/passwd", "//elsewhere.example/x", "http://[::1]/",
     "gopher://pictures.example/", "http://pictures.example:22/", "http://other.example/"],
)  # fmt: skip
def test_a_redirect_leads_nowhere_that_would_not_be_asked(location: str) -> None:
    moved = f"HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode()
    words, web = fetched("http://pictures.example/", answering(moved))
    assert isinstance(words, str)
    assert len(web.connected) == 1


def test_each_redirect_is_resolved_and_judged_anew() -> None:
    """A name that answers with another address the second time (rebinding) is caught the second time."""

    async def run() -> None:
        moved = b"HTTP/1.1 307 Moved\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n"
        async with Web({}, answering(moved)) as web:
            answers = iter([PUBLIC, "127.0.0.1"])

            async def resolve(host: str, port: int) -> list[Address]:
                return [ipaddress.ip_address(next(answers))]

            fetcher = Fetcher(LIMITS, resolve=resolve, connect=web.connect)
            with pytest.raises(ApiError, match="not public"):
                await fetcher.fetch("http://pictures.example/")
            assert len(web.connected) == 1

    asyncio.run(run())


def test_redirects_are_followed_a_few_times() -> None:
    calls = 0

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        moved = b"HTTP/1.1 301 Moved\r\nlocation: /next\r\ncontent-length: 0\r\n\r\n"
        await answering(OK if calls == 3 else moved)(reader, writer)

    assert fetched("http://pictures.example/", respond)[0] == b"hello"
    calls = 10
    assert "redirects more than 3 times" in str(fetched("http://pictures.example/", respond)[0])


# ---- what comes back ----


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n",), "larger than 50000 bytes"),
        ((b"HTTP/1.0 200 OK\r\n\r\n", *[b"x" * 20_000] * 10), "larger than 50000 bytes"),
        ((b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx",), "encoding"),
        ((b"HTTP/1.1 404 Not Found\r\ncontent-length: 6\r\n\r\nsecret",), "does not answer with a picture"),
        ((b"HTTP/1.1 500 secret\r\ncontent-length: 0\r\n\r\n",), "does not answer with a picture"),
        ((b"secret\r\n\r\n",), "could not be fetched"),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",), "could not be fetched"),
        ((b"",), "could not be fetched"),
        ((b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000 + b"\r\n\r\n",), "could not be fetched"),
    ],
)
def test_answers_that_are_not_taken(parts: tuple[bytes, ...], words: str) -> None:
    said, _ = fetched("http://pictures.example/", answering(*parts))
    assert words in str(said)
    assert "secret" not in str(said)


def test_a_slow_host_is_given_up() -> None:
    """One byte at a time keeps no single read waiting: the whole must come in time."""
    parts = [bytes([byte]) for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"]
    limits = FetchLimits(hosts=("pictures.example",), seconds=0.3)
    said, _ = fetched("http://pictures.example/", answering(*parts, wait=0.05), limits)
    assert "did not arrive within 0.3 s" in str(said)


# ---- through the API ----


@pytest.fixture
def web_settings() -> Iterator[ServeSettings]:
    yield ServeSettings(port=0, fetch=LIMITS)


def test_an_address_in_each_shape(emoji_q4: Path, web_settings: ServeSettings) -> None:
    data = picture("owl")
    parts = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(data) + data
    webs: list[Web] = []

    async def connect(host: str, port: int, **tls: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with Web({}, answering(parts)) as web:
            webs.append(web)
            return await web.connect(host, port, **tls)

    async def resolve(host: str, port: int) -> list[Address]:
        return [ipaddress.ip_address(PUBLIC)]

    def fetcher() -> Fetcher:
        return Fetcher(LIMITS, resolve=resolve, connect=connect)

    url = "http://pictures.example/owl.png"
    with serving(emoji_q4, web_settings, fetcher=fetcher) as api:
        direct = api.post("/v1/embeddings", {"input": [{"image": data.hex()}], "on_error": "item"})
        assert direct.status == 200
        from tests.serving import uri

        expected = api.post("/v1/embeddings", {"input": uri(data)}).json["data"]
        for body in (
            {"input": [{"image": url}]},
            {"input": [url], "modality": "image"},
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]},
        ):
            assert api.post("/v1/embeddings", body).json["data"] == expected
        assert api.post("/v1/embeddings", {"input": url}).json["data"] != expected, (
            "a text, where nothing says picture"
        )
        body = {"input": [{"image": url}, {"image": "http://127.0.0.1/"}], "labels": ["owl"]}
        rows = api.post("/v1/classify", body).json["data"]
        assert rows[0]["predictions"]
        assert "may not ask" in rows[1]["error"]["message"]
        assert rows[1]["error"]["param"] == "input[1]"
    assert {entry for web in webs for entry in web.connected} == {(PUBLIC, 80, None)}
