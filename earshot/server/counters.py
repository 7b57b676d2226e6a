"""Figures for Prometheus: what is asked, how long answers take, what the library holds."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from earshot.server.desk import Desk

# Others are one figure: whoever makes names up must not fill the memory.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Counters:
    """The figures of one server; a registry of its own, as there may be several in a process."""

    def __init__(self, desk: Desk) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self.requests = Counter(
            "earshot_requests", "Requests answered.", labels, registry=self.registry
        )
        self.seconds = Histogram(
            "earshot_request_seconds",
            "Seconds until an answer begins.",
            ("route",),
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        catalogue, indexer = desk.catalogue, desk.indexer
        for name, about, value in (
            ("files", "Searchable files.", lambda: len(catalogue.now().files)),
            ("broken_files", "Files that cannot be searched.", lambda: len(catalogue.now().broken)),
            ("audio_seconds", "Seconds of sound.", lambda: catalogue.now().duration_s),
            ("indexing", "Whether the index is brought up to date.", lambda: indexer.state.running),
        ):
            Gauge(f"earshot_{name}", about, registry=self.registry).set_function(value)

    async def answer(self, request: Request) -> Response:
        """The page that Prometheus reads."""
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)


class Counting:
    """Middleware: counts requests by the route that answered them."""

    def __init__(self, app: ASGIApp, counters: Counters) -> None:
        self.app, self.counters = app, counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and watch for its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_s = time.perf_counter()

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Paths hold ids: by them there would be a figure for every recording.
                route = getattr(scope.get("route"), "path", "other")
                method = scope["method"] if scope["method"] in METHODS else "other"
                self.counters.requests.labels(method, route, message["status"]).inc()
                self.counters.seconds.labels(route).observe(time.perf_counter() - started_s)
            await send(message)

        await self.app(scope, receive, send_counted)
