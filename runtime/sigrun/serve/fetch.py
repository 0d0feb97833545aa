"""Pictures from the web, for servers that were told which hosts they may ask.

A name is resolved once, every address it has must be public, and the connection goes to the address that was looked
at, so that no second answer of the name server counts. Redirects pass the same checks. Nothing is asked of a proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple
from urllib.parse import urljoin, urlsplit

import h11

from sigrun.serve.addresses import Address, is_public, parse_address
from sigrun.serve.errors import ApiError, unprocessable
from sigrun.serve.settings import FetchLimits

Connect = Callable[..., Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
Resolve = Callable[[str, int], Awaitable[list[Address]]]

_CHUNK: Final = 1 << 16
_PORTS: Final = {"http": 80, "https": 443}
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_PLAIN: Final = re.compile(r"[!-\[\]-~]+")  # printable ASCII without blanks and backslashes
_HOST: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


class Place(NamedTuple):
    """Where an address leads."""

    scheme: str
    host: str  # lower case, without brackets
    port: int
    target: str  # path and query


class Fetcher:
    """Fetches pictures from allowed hosts.

    Args:
        limits: which hosts, how many bytes, how long.
        resolve: names to addresses.
        connect: opens a connection; as ``asyncio.open_connection``.
    """

    def __init__(
        self,
        limits: FetchLimits,
        *,
        resolve: Resolve | None = None,
        connect: Connect = asyncio.open_connection,
    ) -> None:
        self._limits = limits
        self._allowed = {host.lower().rstrip(".") for host in limits.hosts}
        self._resolve = resolve or _resolved
        self._connect = connect
        self._turns = asyncio.Semaphore(limits.at_once)

    async def fetch(self, url: str) -> bytes:
        """The bytes at an address.

        Raises:
            ApiError: it is not allowed, too large, too slow, or not there. No message holds anything that came back.
        """
        self.place(url)  # what cannot be allowed does not wait for a turn
        async with self._turns:
            try:
                async with asyncio.timeout(self._limits.seconds):
                    return await self._follow(url)
            except TimeoutError as error:
                raise _refused(f"the picture did not arrive within {self._limits.seconds:g} s") from error
            except (OSError, h11.ProtocolError, ValueError) as error:  # ssl.SSLError is an OSError
                raise _refused("the picture could not be fetched from its host") from error

    def place(self, url: str) -> Place:
        """An address taken apart.

        Raises:
            ApiError: this server may not ask it.
        """
        if not self._allowed:
            raise _refused(
                "this server fetches no addresses",
                hint="send the picture as data:image/png;base64,…, or start the server with --allow-url HOST",
            )
        if not _PLAIN.fullmatch(url):
            raise _refused("the address holds characters that no address has")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise _refused("the address is malformed") from error
        scheme = parts.scheme.lower()
        if scheme not in _PORTS:
            raise _refused("only http and https addresses are fetched")
        if parts.username is not None or parts.password is not None or "@" in parts.netloc:
            raise _refused("an address with a user name in it is not fetched")
        host = host.lower().rstrip(".")
        if not host or (parse_address(host) is None and not _HOST.fullmatch(host)):
            raise _refused("the address names no host")
        number = _PORTS[scheme] if port is None else port
        shown = f"[{host}]" if ":" in host else host
        names = {f"{shown}:{number}"} | ({shown, host} if number == _PORTS[scheme] else set())
        if not names & self._allowed:
            raise _refused("the address is of a host that this server may not ask", hint="see --allow-url")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Place(scheme, host, number, target)

    async def _follow(self, url: str) -> bytes:
        for _ in range(self._limits.redirects + 1):
            place = self.place(url)
            found, location = await self._get(place, await self._address(place))
            if location is None:
                return found
            url = urljoin(url, location)
        raise _refused(f"the address redirects more than {self._limits.redirects} times")

    async def _address(self, place: Place) -> Address:
        """The address to connect to: the first of those that the name has, all of which are public."""
        literal = parse_address(place.host)
        addresses = [literal] if literal is not None else await self._resolve(place.host, place.port)
        if not addresses:
            raise _refused("the address's host has no internet address")
        if not all(map(is_public, addresses)):
            raise _refused("the address leads to a network that is not public")
        return addresses[0]

    async def _get(self, place: Place, address: Address) -> tuple[bytes, str | None]:
        """The body of an answer, or where it redirects to."""
        tls: dict[str, Any] = {}
        if place.scheme == "https":
            tls = {"ssl": ssl.create_default_context(), "server_hostname": place.host}
        reader, writer = await self._connect(str(address), place.port, **tls)
        try:
            return await self._exchange(place, reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), 1)

    async def _exchange(
        self, place: Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[bytes, str | None]:
        connection = h11.Connection(h11.CLIENT)
        host = f"[{place.host}]" if ":" in place.host else place.host
        named = host if place.port == _PORTS[place.scheme] else f"{host}:{place.port}"
        request = h11.Request(
            method="GET",
            target=place.target,
            headers=[
                ("host", named),
                ("accept", "image/*"),
                ("accept-encoding", "identity"),
                ("user-agent", "sigrun"),
                ("connection", "close"),
            ],
        )
        writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
        await writer.drain()
        body = bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(_CHUNK))
            elif isinstance(event, h11.Response):
                headers = {name: value.decode("latin-1") for name, value in event.headers}
                if event.status_code in _REDIRECTS and b"location" in headers:
                    return b"", headers[b"location"]
                if event.status_code != 200:
                    raise _refused("the address's host does not answer with a picture")
                if headers.get(b"content-encoding", "identity").lower() != "identity":
                    raise _refused("the address's host sends an encoding that was not asked for")
                length = headers.get(b"content-length", "")
                if length.isdigit() and int(length) > self._limits.nbytes:
                    raise self._too_large()
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > self._limits.nbytes:
                    raise self._too_large()
            elif isinstance(event, h11.EndOfMessage):
                return bytes(body), None
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                raise _refused("the address's host ended the connection")

    def _too_large(self) -> ApiError:
        return _refused(f"the picture is larger than {self._limits.nbytes} bytes")


def _refused(message: str, hint: str | None = None) -> ApiError:
    return unprocessable(message, None, hint=hint, code="url_refused")


async def _resolved(host: str, port: int) -> list[Address]:
    """All addresses of a name."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [parse_address(str(entry[4][0])) for entry in found]
    return [address for address in addresses if address is not None]
