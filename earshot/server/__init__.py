"""The library over HTTP: a web page, an API, tools for agents. Nothing is done on import.

`create_app` puts a searcher behind it; `earshot.server.running` listens. The page works without a
build step and asks no other site; only files of the index are ever served, by their ids.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from threading import Event

from anyio import CapacityLimiter
from fastapi import FastAPI, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from earshot import __version__
from earshot.search import Searcher
from earshot.server import clip_routes, library_routes, search_routes
from earshot.server.attempts import Attempts
from earshot.server.bodies import Bodies
from earshot.server.counters import Counters, Counting
from earshot.server.desk import Desk, UnknownIdError
from earshot.server.guard import Guard, new_session
from earshot.server.mcp import create_mcp
from earshot.server.schemas import refusals
from earshot.server.settings import ServerConfig
from earshot.server.together import GoneError, Together
from earshot.types import EarshotError

__all__ = ["ServerConfig", "create_app"]

WEB = Path(str(files("earshot") / "web"))
# Pictures, and sounds that are brought, are decoded beside what is searched: it must not wait.
DECODERS_AT_ONCE = 1
# What any route may answer.
REFUSALS = refusals(
    s400="called by another name than its own, or not understood",
    s401="the token is missing or wrong",
    s403="asked from another site's page, or not allowed",
    s413="the body is too large",
    s422="a field is missing, unknown, or of a wrong value",
    s429="too many wrong tokens came from there",
)
# Of what is wrong with a request so much is told; more would be longer than the request.
MAX_TOLD = 20
MAX_TOLD_LETTERS = 64
STATUS_OF = (
    (UnknownIdError, 404),
    (EarshotError, 422),
    (FileNotFoundError, 410),
    (PermissionError, 403),
    (GoneError, 499),  # As others call it; nobody reads it.
)


def create_app(
    searcher: Searcher,
    config: ServerConfig | None = None,
    *,
    name: str = "",
    reopen: Callable[[], Searcher] | None = None,
) -> FastAPI:
    """The server of one library; `name` is what its page calls it.

    `reopen` opens the index again once another model took it over; without it the old goes on.

    Run it with any ASGI server. It is meant for one process: that holds the uploads.
    """
    config = config or ServerConfig()
    desk = Desk(searcher, config, name, reopen)
    tools = create_mcp(desk)
    tools_app = tools.streamable_http_app(json_response=True, stateless_http=True, host="")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.searching = CapacityLimiter(search_routes.SEARCHES_AT_ONCE)
        app.state.decoding = CapacityLimiter(DECODERS_AT_ONCE)
        app.state.bringing = CapacityLimiter(DECODERS_AT_ONCE)
        async with tools.session_manager.run():
            yield
        app.state.closing.set()
        desk.close()

    app = FastAPI(
        title="earshot",
        version=__version__,
        description="Find sounds by description, by sound, or both.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # These pages load scripts from elsewhere.
        redoc_url=None,
        lifespan=lifespan,
        responses=REFUSALS,
    )
    app.state.desk, app.state.closing = desk, Event()
    app.state.attempts, app.state.session = Attempts(), new_session()
    app.state.together = Together(desk.encoded)
    counters = Counters(desk)
    # Within the guard, unlike FastAPI's own limit: refusals have the headers, strangers get none.
    app.add_middleware(Bodies, sound_bytes=config.upload_bytes)
    app.add_middleware(Guard, config=config, attempts=app.state.attempts, session=app.state.session)
    app.add_middleware(Counting, counters=counters)
    for router in (search_routes.router, clip_routes.router, library_routes.router):
        app.include_router(router)
    app.include_router(library_routes.health_router)
    app.add_route("/metrics", counters.answer, include_in_schema=False)
    app.router.routes.extend(tools_app.routes)
    app.add_route("/", _page, include_in_schema=False)
    app.mount("/web", StaticFiles(directory=WEB), name="web")
    app.add_exception_handler(RequestValidationError, _explain_fields)
    for kind, status in STATUS_OF:
        app.add_exception_handler(kind, _explainer(status))
    return app


async def _page(request: Request) -> FileResponse:
    return FileResponse(WEB / "index.html", headers={"cache-control": "no-cache"})


async def _explain_fields(request: Request, error: Exception) -> JSONResponse:
    """As FastAPI does, but without repeating what was sent, which need not be valid text.

    Names of unknown fields are repeated, and are of the sender's choice too.
    """
    told = error.errors()[:MAX_TOLD] if isinstance(error, RequestValidationError) else []
    detail = [
        {"type": one["type"], "loc": [_shown(part) for part in one["loc"]], "msg": one["msg"]}
        for one in told
    ]
    return JSONResponse(jsonable_encoder({"detail": detail}), 422)


def _shown(part: str | int) -> str | int:
    if isinstance(part, int):
        return part
    return part[:MAX_TOLD_LETTERS].encode(errors="backslashreplace").decode()


def _explainer(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def explain(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status)

    return explain
