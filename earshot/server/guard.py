"""What every request passes: is the server called by its own name, from its own page, by a friend?

The page needs no other site, hence its policy forbids all of them; a page of another site that has
the browser ask this server (also under a name that it made up, DNS rebinding) gets no answer.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from earshot.server.attempts import Attempts, told
from earshot.server.settings import LOOPBACK_NAMES, ServerConfig

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# The page's own files hold no secret; it asks for the token when it is refused an answer.
PUBLIC_PATHS = frozenset({"/", "/health", "/api/login"})
PUBLIC_FOLDER = "/web/"
# Other sites may lead to the page; what answers it they need not, as every question costs time.
OWN_FOLDERS = ("/api/", "/mcp")
# No number of guesses at so much chance is worth counting, unlike those at a token.
SESSION_BYTES = 32


def new_session() -> str:
    """What a cookie must hold: by chance, so that it tells nothing and cannot be guessed."""
    return secrets.token_hex(SESSION_BYTES)


def cookie_name(scope: Scope) -> str:
    """Cookies do not know ports, so that servers on one machine need different names."""
    _, port = scope.get("server") or ("", 0)
    return f"earshot-{port or 0}"


def is_same(given: str, expected: str) -> bool:
    """Compare in a time that tells nothing of where they differ."""
    return hmac.compare_digest(given.encode(), expected.encode())


class Guard:
    """Middleware: refuses what does not belong here, and adds the security headers.

    Who gave the token once has `session` as a cookie.
    """

    def __init__(
        self, app: ASGIApp, config: ServerConfig, attempts: Attempts, session: str
    ) -> None:
        self.app, self.token, self.attempts, self.session = app, config.token, attempts, session
        self.names = frozenset(name.lower() for name in (*LOOPBACK_NAMES, *config.hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        begun = False

        async def send_guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        try:
            await (refusal or self.app)(scope, receive, send_guarded)
        except Exception:
            # Answered further out, it would go without the headers.
            if not begun:
                fault = _refused(500, "a fault of the server; see its log")
                await fault(scope, receive, send_guarded)
            raise

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_own_name(host):
            return _refused(400, f"this server is not called {host!r}")
        if _is_of_another_site(scope, headers, host):
            return _refused(403, "requests from other sites are refused")
        if self.token and not _is_public(scope["path"]):
            return self._without_token(scope, headers)
        return None

    def _without_token(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        """The refusal of who has not the token, or has to wait before it is looked at."""
        cookies = _cookies(headers.getlist("cookie"), cookie_name(scope))
        if any(is_same(cookie, self.session) for cookie in cookies):
            return None  # Nobody waits for the guesses of others at the same address.
        if token := bearer_of(headers):
            address = address_of(scope)
            if wait_s := self.attempts.wait_s(address):
                return slowed(wait_s)
            if is_same(token, self.token):
                return None
            self.attempts.note(address)
        refusal = _refused(401, "a token is needed: Authorization: Bearer TOKEN")
        refusal.headers["www-authenticate"] = "Bearer"
        return refusal

    def _is_own_name(self, host: str) -> bool:
        """An address of digits cannot be pointed elsewhere, as a name can."""
        name = host.lower()
        if not name.endswith("]"):
            name = name.rpartition(":")[0] or name
        return name in self.names or _is_address(name)


def bearer_of(headers: Headers) -> str:
    """The token of a request; empty without one."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def address_of(scope: Scope) -> str:
    """Who asks; empty where that is not known."""
    return scope["client"][0] if scope.get("client") else ""


def slowed(wait_s: float) -> JSONResponse:
    """The answer to who gave too many wrong tokens."""
    refusal = _refused(429, told(wait_s))
    refusal.headers["retry-after"] = str(max(1, round(wait_s + 0.5)))
    return refusal


def _cookies(lines: Iterable[str], name: str) -> list[str]:
    found = []
    for line in lines:
        try:
            morsel = SimpleCookie(line).get(name)
        except CookieError:
            continue
        if morsel is not None:
            found.append(morsel.value)
    return found


def _is_public(path: str) -> bool:
    return path in PUBLIC_PATHS or path.startswith(PUBLIC_FOLDER)


def _is_of_another_site(scope: Scope, headers: Headers, host: str) -> bool:
    """By what browsers say: whence all but plain reading comes, and whether any is of a site."""
    origin = headers.get("origin")
    if origin is not None and scope["method"] not in SAFE_METHODS and not _is_from(origin, host):
        return True
    elsewhere = headers.get("sec-fetch-site", "").lower() == "cross-site"
    return elsewhere and scope["path"].startswith(OWN_FOLDERS)


def _is_from(origin: str, host: str) -> bool:
    scheme, _, rest = origin.partition("://")
    return scheme in ("http", "https") and rest.lower() == host.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _refused(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)
