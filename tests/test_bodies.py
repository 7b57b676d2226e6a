"""What requests may bring: no more than their route needs, few sounds at once, none for ever."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from served import OWN, TOKEN, client_of

from earshot.search import Searcher
from earshot.server import bodies, create_app
from earshot.server.bodies import LOGIN_BYTES, QUESTION_BYTES, SOUNDS_AT_ONCE

JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=b"}
ROUTES = ("/api/search", "/api/add", "/api/remove", "/mcp", "/api/status", "/none")


def in_pieces(size_bytes: int) -> Iterator[bytes]:
    """A body that does not say how long it is."""
    yield from [b" " * 4096] * (size_bytes // 4096)


def test_a_stranger_may_bring_a_token_and_no_more(searcher: Searcher) -> None:
    with client_of(searcher, token=TOKEN) as client:
        for content in (b" " * (LOGIN_BYTES + 1), in_pieces(1 << 20)):
            assert client.post("/api/login", content=content, headers=JSON).status_code == 413
        padded = f'{{"token": "{TOKEN}"}}'.encode().ljust(LOGIN_BYTES)
        assert client.post("/api/login", content=padded, headers=JSON).status_code == 204


@pytest.mark.parametrize("route", ROUTES)
def test_only_sounds_may_be_large(client: TestClient, route: str) -> None:
    accept = {**JSON, "accept": "application/json, text/event-stream"}
    for content in (b" " * (QUESTION_BYTES + 1), in_pieces(2 * QUESTION_BYTES)):
        reply = client.post(route, content=content, headers=accept)
        # What reads no body need not look at it.
        assert reply.status_code in ((413,) if route in ROUTES[:4] else (413, 404, 405))
        assert "security" in " ".join(reply.headers)


def test_the_largest_question_is_answered(client: TestClient) -> None:
    question = {
        "text": "rain " * 400,
        "without": ["x" * 2000] * 50,
        "where": ["duration_s > 0".ljust(2000)] * 50,
    }
    assert client.post("/api/search", json=question).status_code == 200


# ---- sounds that wait ---------------------------------------------------------------------------

START = b'--b\r\nContent-Disposition: form-data; name="sound"; filename="x.wav"\r\n\r\n'


class Crowd:
    """Visitors who bring a sound (no sound in truth) piece by piece; `may_end` lets them end."""

    def __init__(self, app: FastAPI) -> None:
        self.app, self.begun, self.may_end = app, 0, asyncio.Event()

    async def brings(self) -> httpx2.Response:
        async def pieces() -> AsyncIterator[bytes]:
            self.begun += 1
            yield START
            await self.may_end.wait()
            yield b"\r\n--b--\r\n"

        transport = httpx2.ASGITransport(self.app)
        async with httpx2.AsyncClient(transport=transport, base_url=OWN) as client:
            return await client.post("/api/sounds", content=pieces(), headers=FORM)

    async def comes(self) -> tuple[list[httpx2.Response], list[httpx2.Response]]:
        """Answers to two too many, and to those before and one after."""
        async with self.app.router.lifespan_context(self.app):
            first = [asyncio.create_task(self.brings()) for _ in range(SOUNDS_AT_ONCE)]
            while self.begun < SOUNDS_AT_ONCE:
                await asyncio.sleep(0.01)
            refused = [await self.brings() for _ in range(2)]
            self.may_end.set()
            return refused, [*await asyncio.gather(*first), await self.brings()]


def test_sounds_beyond_a_few_are_refused_before_they_come(searcher: Searcher) -> None:
    crowd = Crowd(create_app(searcher))
    refused, others = asyncio.run(asyncio.wait_for(crowd.comes(), 60))
    for reply in refused:
        assert reply.status_code == 503
        assert int(reply.headers["retry-after"]) > 0
        assert "try again" in reply.json()["detail"]
    assert [reply.status_code for reply in others] == [422] * (SOUNDS_AT_ONCE + 1)
    assert crowd.begun == SOUNDS_AT_ONCE + 1


def test_who_falls_silent_in_a_sound_makes_room(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "SILENCE_S", 0.05)

    async def come_and_go() -> list[httpx2.Response]:
        crowd = Crowd(create_app(searcher))
        async with crowd.app.router.lifespan_context(crowd.app):
            return [await crowd.brings() for _ in range(SOUNDS_AT_ONCE + 1)]

    replies = asyncio.run(asyncio.wait_for(come_and_go(), 60))
    assert [reply.status_code for reply in replies] == [408] * (SOUNDS_AT_ONCE + 1)
