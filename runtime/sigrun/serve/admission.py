"""How much the server holds at once: requests and their bytes are counted in before they are read."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from starlette.requests import Request

from sigrun.serve.errors import ApiError, busy
from sigrun.serve.settings import Limits

_LINGER_SECONDS = 2.0  # how long a refused body is still read, so that its sender gets to see the answer


class Admission:
    """Counts what is held. Used in one event loop."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = 0
        self.nbytes = 0

    def enter(self) -> Held:
        """A place for one request; a context manager that gives it back.

        Raises:
            ApiError: there is none left.
        """
        if self.requests >= self.limits.requests:
            error = busy(f"{self.requests} requests are being answered, and no more may be", 1)
            error.headers["connection"] = "close"
            raise error
        return Held(self)


class Held:
    """One request's part of what is held."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._nbytes = 0
        admission.requests += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.requests -= 1
        self._admission.nbytes -= self._nbytes

    async def body(self, request: Request) -> bytes:
        """The request's body.

        Raises:
            ApiError: it is not JSON, too large, too slow, or too much is held already.
            ClientDisconnect: the client has gone.
        """
        limits = self._admission.limits
        parts: list[bytes] = []
        try:
            _check_head(request, limits)
            async with asyncio.timeout(limits.body_seconds):
                async for part in request.stream():
                    self._take(len(part))
                    parts.append(part)
                    if self._nbytes > limits.body_bytes:
                        raise _too_large(limits)
        except TimeoutError as error:
            raise ApiError(
                408,
                f"the request did not arrive within {limits.body_seconds:g} s",
                code="slow_request",
                close=True,
            ) from error
        except ApiError as error:
            error.headers["connection"] = "close"
            raise
        return b"".join(parts)

    def _take(self, nbytes: int) -> None:
        held = self._admission
        if held.nbytes + nbytes > held.limits.held_bytes:
            raise busy(f"{held.nbytes} bytes of requests are held, and no more can be", 2)
        held.nbytes += nbytes
        self._nbytes += nbytes


async def linger(request: Request, limits: Limits) -> None:
    """Read and drop what still comes of a refused body, for a little while and up to a bound.

    A connection that is closed before its sender is done would take the answer with it.
    """
    left = 2 * limits.body_bytes
    length = request.headers.get("content-length", "0")
    if "expect" in request.headers or not length.isdigit() or int(length) > left:
        return
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            while left > 0:
                message = await request.receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))
    except TimeoutError:
        return


def _check_head(request: Request, limits: Limits) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise ApiError(
            415,
            "the request's content-type is not application/json",
            hint="send the header content-type: application/json",
            code="wrong_content_type",
            close=True,
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "compressed requests are not taken", code="wrong_content_encoding", close=True)
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limits.body_bytes:
        raise _too_large(limits)


def _too_large(limits: Limits) -> ApiError:
    return ApiError(
        413,
        f"the request has more than {limits.body_bytes} bytes",
        hint="send fewer or smaller pictures at a time",
        code="too_large",
        close=True,
    )
