"""The HTTP server around the application: bound, bounded, and stopped without losing what it took on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import sys
from collections.abc import Callable, Iterator

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sigrun.model import Siglip
from sigrun.serve.addresses import parse_address
from sigrun.serve.app import Service
from sigrun.serve.errors import ApiError
from sigrun.serve.security import HEADERS, ServeError, check_settings
from sigrun.serve.settings import Limits, ServeSettings

_BACKLOG = 256
_KEEP_ALIVE_SECONDS = 30


def serve(model: Siglip, settings: ServeSettings) -> None:
    """Serve a model until the process is told to stop (SIGINT, SIGTERM). Prints the address on stdout when ready.

    Raises:
        ServeError: the settings are not safe, or the address cannot be bound.
        SigrunError: a tower that is to be preloaded cannot be.
    """
    check_settings(settings)
    with bound(settings) as listener:
        asyncio.run(_run(model, settings, listener))


async def _run(model: Siglip, settings: ServeSettings, listener: socket.socket) -> None:
    service = Service(model, settings)
    await service.engine.preload()
    server = Server(config_for(service))
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{port}"
    server.on_start = lambda: print(address, flush=True)  # noqa: T201  (data, for whoever started the server)
    await server.serve(sockets=[listener])


def config_for(service: Service) -> uvicorn.Config:
    """How uvicorn runs an application."""
    limits = service.settings.limits
    return uvicorn.Config(
        service.app(),
        http=protocol_for(limits),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(limits.stop_seconds)),
        backlog=_BACKLOG,
    )


class Server(uvicorn.Server):
    """uvicorn, which calls ``on_start`` when it listens, and ends without raising the signal that ended it."""

    on_start: Callable[[], object] = staticmethod(lambda: None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        logging.getLogger("uvicorn.error").disabled = True  # what it says may hold parts of requests
        await super().startup(sockets)
        if self.started:
            self.on_start()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, less the signal that it raises anew at the end: the server did what that asked for."""
        with super().capture_signals():
            try:
                yield
            finally:
                self._captured_signals.clear()


def protocol_for(limits: Limits) -> type[H11Protocol]:
    """HTTP/1.1 with bounds: on connections, on how long a request's head may take, and an answer may lie unread."""

    class Protocol(H11Protocol):
        _head: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)  # type: ignore[arg-type]
            if len(self.connections) > limits.connections:
                transport.close()
            else:
                self._head = self.loop.call_later(limits.body_seconds, self._late)

        def data_received(self, data: bytes) -> None:
            before = self.cycle
            waits = before is None or before.response_complete
            super().data_received(data)
            if self.cycle is not before:  # a head has arrived
                if self._head is not None:
                    self._head.cancel()
                    self._head = None
            elif waits and self._head is None:  # a further request has begun
                self._head = self.loop.call_later(limits.body_seconds, self._late)

        def send_400_response(self, msg: str) -> None:
            """Answer what is not HTTP in the shape of all errors, unless an answer has begun."""
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                error = ApiError(400, "this is not HTTP as the server speaks it", code="invalid_http")
                body = json.dumps(error.to_json()).encode()
                headers = [("content-type", "application/json"), ("content-length", str(len(body))),
                           ("connection", "close"), *HEADERS]  # fmt: skip
                for event in (
                    h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                    h11.Data(data=body),
                    h11.EndOfMessage(),
                ):
                    self.transport.write(self.conn.send(event) or b"")
            if self.cycle is not None and not self.cycle.response_complete:
                self.cycle.disconnected = True  # whoever reads the rest of the request learns that it ended
                self.cycle.message_event.set()
            self.transport.close()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread = self.loop.call_later(2 * limits.body_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._unread is not None:
                self._unread.cancel()

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self._head, self._unread):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

        def _late(self) -> None:
            self._head = None
            if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
                self.transport.close()

    return Protocol


@contextlib.contextmanager
def bound(settings: ServeSettings) -> Iterator[socket.socket]:
    """A listening socket.

    Raises:
        ServeError: the address cannot be bound.
    """
    host = settings.host
    address = parse_address(host)
    try:
        family = socket.AF_INET6 if address is not None and address.version == 6 else socket.AF_INET
        # The protocol is named: asyncio sends without delay (TCP_NODELAY) only where it knows that it is TCP.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise ServeError(f"this machine has no network of the kind of {host}: {error.strerror}") from error
    try:
        if sys.platform != "win32":  # there it would let two servers take one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, settings.port))
        listener.listen(_BACKLOG)
        yield listener
    except OSError as error:
        raise ServeError(
            f"{host}:{settings.port} cannot be bound: {error.strerror or error}",
            hint="another program may have it: choose another with --port, or 0 for any that is free",
        ) from error
    finally:
        listener.close()
