"""The application: routes, and what surrounds them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from sigrun.model import Siglip
from sigrun.serve.admission import Admission
from sigrun.serve.body import parse_json
from sigrun.serve.engine import Engine
from sigrun.serve.errors import ApiError
from sigrun.serve.fetch import Fetcher
from sigrun.serve.memory import Tide, resident_bytes
from sigrun.serve.metrics import Metrics
from sigrun.serve.middleware import Guard, Log, log_line
from sigrun.serve.openapi import description
from sigrun.serve.pages import page
from sigrun.serve.routes import ROUTES, Answer, the_index
from sigrun.serve.search_request import THUMBNAILS
from sigrun.serve.security import Names
from sigrun.serve.settings import ServeSettings


class Service:
    """One model served; make the ASGI application with :meth:`app`.

    Args:
        model: closed when the server stops.
        settings: how it is served.
        log: learns of each request.
        fetcher: fetches pictures instead of one made by the settings.
    """

    def __init__(
        self, model: Siglip, settings: ServeSettings, *, log: Log = log_line, fetcher: Fetcher | None = None
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.admission = Admission(settings.limits)
        self.engine = Engine(model, settings, observe=self._batch_done, fetcher=fetcher)
        self._log = log
        self._tide = Tide()

    def app(self) -> ASGIApp:
        """The ASGI application."""
        routes = [
            Route("/", self._page("playground")),
            Route("/docs", self._page("docs")),
            Route("/openapi.json", self._openapi),
            Route("/health", self._health),
            Route("/metrics", self._metrics),
            Route("/v1/models", self._models),
            Route("/v1/models/{name:path}", self._model),
            Route(THUMBNAILS + "{name}", self._thumbnail),
            *(Route(path, self._computing(path), methods=["POST"]) for path in ROUTES),
        ]
        return Guard(
            Router(routes, redirect_slashes=False, lifespan=self._lifespan),
            names=Names([self.settings.host, *self.settings.names]),
            token=self.settings.token,
            metrics=self.metrics,
            limits=self.settings.limits,
            log=self._log if self.settings.log else None,
            paths={route.path for route in routes},
        )

    # ---- life ----

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: object) -> AsyncIterator[None]:
        idle = asyncio.create_task(self.engine.watch_idle(self._unloaded))
        try:
            yield
        finally:
            idle.cancel()
            await asyncio.to_thread(self.engine.close, self.settings.limits.stop_seconds)

    def _unloaded(self, tower: str, freed: int) -> None:
        self._log({"event": "unloaded", "tower": tower, "freed_bytes": freed})

    def _batch_done(self, tower: str, count: int, seconds: float) -> None:
        self.metrics.add("sigrun_items_total", count, tower=tower)
        self.metrics.observe("sigrun_batch_seconds", seconds, tower=tower)
        self.metrics.observe("sigrun_batch_items", count, tower=tower)

    # ---- routes that tell ----

    def _page(self, name: str) -> Callable[[Request], Any]:
        async def show(request: Request) -> Response:
            found = page(name)
            return HTMLResponse(found.html, headers={"content-security-policy": found.policy})

        return show

    async def _openapi(self, request: Request) -> Response:
        return JSONResponse(description(self.settings.limits, token=self.settings.token is not None))

    async def _health(self, request: Request) -> Response:
        loading = any(tower.loading for tower in self.engine.towers.values())
        return JSONResponse({"status": "loading" if loading else "ok"})

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [await self.engine.describe()]})

    async def _model(self, request: Request) -> Response:
        self.engine.check_model(request.path_params["name"])
        return JSONResponse(await self.engine.describe())

    async def _thumbnail(self, request: Request) -> Response:
        found = await the_index(self.engine).thumbnail(request.path_params["name"])
        headers = {"content-security-policy": "default-src 'none'; sandbox"}
        return Response(found, media_type="image/jpeg", headers=headers)

    async def _metrics(self, request: Request) -> Response:
        for name, tower in self.engine.towers.items():
            self.metrics.put("sigrun_queue_items", tower.depth, tower=name)
            self.metrics.put("sigrun_tower_loaded", float(tower.loaded), tower=name)
            self.metrics.put("sigrun_tower_memory_bytes", float(tower.memory_bytes or 0), tower=name)
        self.metrics.put("sigrun_requests_held", self.admission.requests)
        self.metrics.put("sigrun_held_bytes", self.admission.nbytes)
        resident = resident_bytes()
        if resident is not None:
            self.metrics.put("sigrun_resident_bytes", resident)
        return PlainTextResponse(self.metrics.text(), media_type="text/plain; version=0.0.4")

    # ---- routes that compute ----

    def _computing(self, path: str) -> Callable[[Request], Any]:
        async def compute(request: Request) -> Response:
            with self.admission.enter() as held, contextlib.ExitStack() as after:
                after.callback(self._tide.request_ended)
                raw = await held.body(request)
                received = len(raw)
                body = parse_json(raw, self.settings.limits.json_parts)
                del raw
                begin = time.monotonic()
                found = await self._unless_gone(
                    request,
                    ROUTES[path](self.engine, body, patience_of(request, self.settings.limits.load_seconds)),
                )
                seconds = time.monotonic() - begin
                encoded = await found.encoded()
            if found.failed:
                self.metrics.add("sigrun_item_errors_total", found.failed, route=path)
            request.scope.setdefault("state", {})["noted"] = {
                "bytes": received,
                "items": found.items,
                "failed": found.failed,
            }
            timing = {"server-timing": f"model;dur={1000 * seconds:.1f}"}
            return Response(encoded, media_type="application/json", headers=timing)

        return compute

    async def _unless_gone(self, request: Request, work: Any) -> Answer:
        """The answer, unless it takes too long or its client goes: then what was not begun is dropped."""
        seconds = self.settings.limits.answer_seconds
        task: asyncio.Task[Answer] = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if gone.done():
                raise ClientDisconnect
            raise ApiError(
                504,
                f"there is no answer within {seconds:g} s",
                hint="send fewer items at a time",
                code="timeout",
            )
        finally:
            for pending in (task, gone):
                pending.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def patience_of(request: Request, default: float) -> float:
    """How long a request waits for a tower to be loaded: what ``Prefer: wait=N`` says, up to ten minutes."""
    for part in request.headers.get("prefer", "").replace(";", ",").split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "wait" and value.isascii() and value.isdigit() and len(value) < 5:
            return min(600.0, float(value))
    return default
