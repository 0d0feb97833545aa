"""What every request passes through: who may ask, errors in one shape, counts, and a log without contents."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sigrun.errors import ArtifactError, ProviderError, SigrunError
from sigrun.serve.admission import linger
from sigrun.serve.errors import ApiError, unavailable
from sigrun.serve.metrics import Metrics
from sigrun.serve.security import HEADERS, OPEN_PATHS, Names, has_token
from sigrun.serve.settings import Limits

Log = Callable[[dict[str, Any]], None]

_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")


def log_line(record: dict[str, Any]) -> None:
    """Write a line of the log, JSON on stderr."""
    try:
        sys.stderr.write(json.dumps(record) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):  # nobody reads it
        pass


class Guard:
    """The outermost layer.

    Args:
        app: what is guarded.
        names: the names that the server answers to.
        token: what clients must send; none to ask for none.
        metrics: counts requests.
        limits: how much of a refused body is read.
        log: learns of each request; none to log nothing.
        paths: the paths there are; others are counted and logged as one.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        names: Names,
        token: str | None,
        metrics: Metrics,
        limits: Limits,
        log: Log | None,
        paths: set[str],
    ) -> None:
        self._app = app
        self._names = names
        self._token = token
        self._metrics = metrics
        self._limits = limits
        self._log = log
        self._paths = paths
        self._prefixes = {path.partition("{")[0]: path for path in paths if "{" in path}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.monotonic()
        status = 499  # the client went before there was an answer

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS:
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            self._check(scope)
            scope["app"] = self  # by which routing knows that somebody answers to what it raises
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            pass
        except Exception as error:
            if status != 499:
                raise
            if isinstance(error, ApiError) and error.status != 408 and "connection" in error.headers:
                await linger(Request(scope, receive), self._limits)
            await answer(error)(scope, receive, sending)
        finally:
            self._count(scope, status, time.monotonic() - begin)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        self._names.check(headers.get("host"), headers.get("origin"))
        if "transfer-encoding" in headers and ("content-length" in headers or scope["http_version"] == "1.0"):
            raise ApiError(
                400,
                "the request says in two ways how long it is: a proxy before this server might see another one",
                hint="send content-length or transfer-encoding, not both",
                code="ambiguous_length",
                close=True,
            )
        if self._token is None or scope["path"] in OPEN_PATHS:
            return
        if not has_token(headers.get("authorization"), self._token):
            raise ApiError(
                401,
                "this server wants a token",
                hint="send the header authorization: Bearer TOKEN",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
                close=True,
            )

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        path = self._route(scope["path"])
        self._metrics.add("sigrun_requests_total", route=path, status=str(status))
        self._metrics.observe("sigrun_request_seconds", seconds, route=path)
        if self._log is not None:
            noted = scope.get("state", {}).get("noted", {})
            client = scope.get("client")
            self._log(
                {
                    "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                    "client": client[0] if client else None,
                    "method": scope["method"] if scope["method"] in _METHODS else "other",
                    "route": path,
                    "status": status,
                    "ms": round(1000 * seconds, 1),
                    **noted,
                }
            )

    def _route(self, path: str) -> str:
        """The route of a path, which is what is counted and logged: never the path itself."""
        if path in self._paths:
            return path
        return next((route for start, route in self._prefixes.items() if path.startswith(start)), "other")


def answer(error: Exception) -> JSONResponse:
    """The answer to a request that failed. What the server did not foresee is logged, and told nobody."""
    if isinstance(error, HTTPException):
        messages = {404: "there is no such route", 405: "this route does not take that method"}
        found = ApiError(
            error.status_code,
            messages.get(error.status_code, "the request cannot be answered"),
            hint="/docs lists all routes",
            headers=error.headers,
            code="not_found" if error.status_code == 404 else None,
        )
    elif isinstance(error, ApiError):
        found = error
    elif isinstance(error, ArtifactError | ProviderError):
        log_line({"error": type(error).__name__, "message": error.message})
        found = unavailable(
            "the model cannot be run here; the server's log says why", 60, code="model_unavailable"
        )
    elif isinstance(error, SigrunError):
        found = ApiError(422, error.message, hint=error.hint)
    else:
        where = [
            f"{frame.name} ({frame.filename}:{frame.lineno})"
            for frame in traceback.extract_tb(error.__traceback__)
        ]
        log_line({"error": type(error).__name__, "where": where[-6:]})
        found = ApiError(500, "the server failed; its log says where", code="internal_error", close=True)
    return JSONResponse(found.to_json(), found.status, found.headers)
