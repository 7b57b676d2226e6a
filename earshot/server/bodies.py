"""How much a request may bring: a few words to most routes, a sound to those that take one.

Sounds are kept on the disk while they come, hence few come at once, and each only while it does.
"""

from __future__ import annotations

import anyio
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Parsed in the event loop, while all others wait; the first is open to strangers.
LOGIN_BYTES = 8 << 10
QUESTION_BYTES = 1 << 20
LOGIN_PATH = "/api/login"
SOUND_PATHS = ("/api/sounds", "/api/similar")
SOUNDS_AT_ONCE = 8
# Who says nothing for so long in the middle of a sound has gone.
SILENCE_S = 30.0
RETRY_AFTER_S = 5


class Bodies:
    """Middleware: refuses bodies that are larger than their route needs."""

    def __init__(self, app: ASGIApp, sound_bytes: int) -> None:
        sounds = RequestBodyLimitMiddleware(FewAtOnce(app), sound_bytes)
        self._by_path = dict.fromkeys(SOUND_PATHS, sounds)
        self._by_path[LOGIN_PATH] = RequestBodyLimitMiddleware(app, LOGIN_BYTES)
        self._others = RequestBodyLimitMiddleware(app, QUESTION_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on by the limit of its path."""
        limited = self._by_path.get(scope.get("path", ""), self._others)
        refused = False

        async def described(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] == 413:
                refused = True  # Starlette's words are plain text; all other refusals are JSON.
                detail = "the body is too large for this route"
                await JSONResponse({"detail": detail}, 413)(scope, receive, send)
            elif not refused:
                await send(message)

        await limited(scope, receive, described)


class FewAtOnce:
    """Middleware: `SOUNDS_AT_ONCE` requests; more are refused before their bodies are read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self._under_way = app, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on if there is room for it."""
        if self._under_way >= SOUNDS_AT_ONCE:
            detail = f"{SOUNDS_AT_ONCE} sounds are being brought already; try again soon"
            headers = {"retry-after": str(RETRY_AFTER_S)}
            await JSONResponse({"detail": detail}, 503, headers)(scope, receive, send)
            return
        self._under_way += 1
        try:
            await self._app(scope, _while_it_comes(receive), send)
        finally:
            self._under_way -= 1


def _while_it_comes(receive: Receive) -> Receive:
    """A body whose next piece is waited for `SILENCE_S`; what comes after it, for ever."""
    more = True

    async def receive_soon() -> Message:
        nonlocal more
        if not more:
            return await receive()
        try:
            with anyio.fail_after(SILENCE_S):
                message = await receive()
        except TimeoutError as error:
            raise HTTPException(408, f"nothing of the sound came for {SILENCE_S:g} s") from error
        more = message.get("more_body", False)
        return message

    return receive_soon
