"""Routes of the library as a whole: what it holds, what becomes of it, who may come in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from earshot.server.attempts import Attempts
from earshot.server.clip_routes import Limit, Offset
from earshot.server.guard import address_of, cookie_name, is_same, slowed
from earshot.server.jobs import JobState
from earshot.server.schemas import (
    AddIn,
    BrokenOut,
    BrokenPageOut,
    FacetsOut,
    LoginIn,
    RemoveIn,
    StatusOut,
    refusals,
)
from earshot.server.search_routes import desk_of

LOOK_S = 0.2
# Proxies end a connection on which nothing comes.
SIGN_OF_LIFE_S = 15.0

router = APIRouter(prefix="/api", tags=["library"])
health_router = APIRouter(tags=["server"])


@router.get("/status")
def status(request: Request) -> StatusOut:
    """What the index holds, and how far the indexing is."""
    desk = desk_of(request)
    desk.renew()
    listing, manifest = desk.catalogue.now(), desk.searcher.store.manifest
    return StatusOut(
        index=desk.name,
        model=desk.searcher.model.name,
        fingerprint=manifest.fingerprint,
        segment_s=manifest.segment_s,
        hop_s=manifest.hop_s,
        files=len(listing.files),
        broken=len(listing.broken),
        duration_s=listing.duration_s,
        common_folder=listing.common_folder,
        roots=[str(root) for root in desk.indexer.roots],
        job=desk.indexer.state.as_json(),
    )


@router.get("/facets")
def facets(request: Request) -> FacetsOut:
    """What can be filtered by, with the number of recordings."""
    facets = desk_of(request).catalogue.now().facets
    return FacetsOut.model_validate(
        {
            name: [{"value": value, "count": count} for value, count in found]
            for name, found in facets.items()
        }
    )


@router.get("/broken")
def broken(request: Request, offset: Offset = 0, limit: Limit = 50) -> BrokenPageOut:
    """The files that cannot be searched, with the reasons."""
    records = desk_of(request).catalogue.now().broken
    page = records[offset : offset + limit]
    files = [BrokenOut(path=record.state.path, reason=record.broken) for record in page]
    return BrokenPageOut(total=len(records), files=files)


@router.post(
    "/add",
    status_code=202,
    responses=refusals(s404="there is no such path", s409="another run is not over yet"),
)
def add(request: Request, wanted: AddIn) -> dict[str, object]:
    """Index folders or files; `events` tells how far it is."""
    indexer = desk_of(request).indexer
    paths = [indexer.require_allowed(path) for path in wanted.paths]
    if missing := next((path for path in paths if not is_there(path)), None):
        raise HTTPException(404, f"{missing} does not exist")
    if indexer.state.running:
        raise HTTPException(409, "the index is being brought up to date already; wait for that")
    return indexer.start(paths).as_json()


def is_there(path: Path) -> bool:
    """Whether a path exists; one that cannot even be asked for does not."""
    try:
        return path.exists()
    except OSError:
        return False


@router.post("/remove", responses=refusals(s404="there is no such recording"))
def remove(request: Request, wanted: RemoveIn) -> StatusOut:
    """Forget recordings; their files stay."""
    desk = desk_of(request)
    desk.indexer.remove([desk.record(clip_id).state.path for clip_id in wanted.ids])
    return status(request)


@router.get("/events", response_class=EventSourceResponse)
async def events(request: Request) -> AsyncIterator[ServerSentEvent]:
    """The state of indexing whenever it changes, as Server-Sent Events named `indexing`."""
    app, last, told_s = request.app, None, time.monotonic()
    while not app.state.closing.is_set():
        state: JobState = app.state.desk.indexer.state
        if state is not last:
            yield ServerSentEvent(event="indexing", data=state.as_json())
            last, told_s = state, time.monotonic()
        elif time.monotonic() - told_s > SIGN_OF_LIFE_S:
            yield ServerSentEvent(comment="nothing new")
            told_s = time.monotonic()
        await asyncio.sleep(LOOK_S)


@router.post("/login", status_code=204)
async def login(request: Request, given: LoginIn) -> Response:
    """Exchange the token for a cookie, which the page's players need."""
    # In the event loop, one after another: together, all would be looked at before one is counted.
    token, address = desk_of(request).config.token, address_of(request.scope)
    attempts: Attempts = request.app.state.attempts
    if wait_s := attempts.wait_s(address):
        return slowed(wait_s)
    if not (token and is_same(given.token.strip(), token)):
        if token:
            attempts.note(address)
        raise HTTPException(401, "that is not the token that the server was started with")
    response, name = Response(status_code=204), cookie_name(request.scope)
    session: str = request.app.state.session
    response.set_cookie(name, session, httponly=True, samesite="strict", max_age=30 * 86_400)
    return response


@health_router.get("/health", response_class=PlainTextResponse)
def health() -> PlainTextResponse:
    """Whether the server answers."""
    return PlainTextResponse("ok\n")
