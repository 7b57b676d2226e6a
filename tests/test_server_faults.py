"""The server against whatever is sent: requests made up from its own description, names that lead
elsewhere, odd ranges, foreign hosts. What takes real sockets is in test_server_load.py."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, assume, given, settings
from served import OWN, TOKEN, answering, client_of, clip_url

from earshot.search import Searcher
from earshot.server import ServerConfig, create_app
from earshot.server.catalogue import id_of

FEW, MANY = 3, 100
LONGEST_TARGET = 60_000
SAMPLE = pytest.param(FEW, id="sample")
LONG = pytest.param(MANY, id="long", marks=pytest.mark.reliability)


# ---- requests made up from the description ------------------------------------------------------


@pytest.fixture(scope="module")
def described(searcher: Searcher) -> FastAPI:
    """An app whose stream of events is over: all else answers as ever."""
    app = create_app(searcher, ServerConfig(upload_bytes=1 << 20))
    app.state.closing.set()
    return app


@pytest.fixture(scope="module")
def address(described: FastAPI) -> Iterator[str]:
    with answering(described) as address:
        yield address


OPERATIONS = (
    *("GET /api/search", "POST /api/search", "GET /api/clips/{clip_id}/similar"),
    *("POST /api/sounds", "POST /api/similar", "GET /api/clips", "GET /api/clips/{clip_id}"),
    *("GET /api/clips/{clip_id}/audio", "GET /api/clips/{clip_id}/peaks"),
    *("GET /api/clips/{clip_id}/spectrogram", "GET /api/status", "GET /api/facets"),
    *("GET /api/broken", "POST /api/add", "POST /api/remove", "GET /api/events"),
    *("POST /api/login", "GET /health"),
)
# Nothing is sent that could be wrong: any text may be an id.
UNBREAKABLE = {
    *("GET /api/clips/{clip_id}", "GET /api/status", "GET /api/facets", "GET /api/events"),
    "GET /health",
}


def test_every_operation_is_tried(described: FastAPI) -> None:
    paths = described.openapi()["paths"]
    known = {f"{method.upper()} {path}" for path, ways in paths.items() for method in ways}
    assert known == set(OPERATIONS)


def is_negative(case: Any, location: str) -> bool:
    """Whether a place of a request, such as its path, was made to break the description."""
    made = {where.value: how.mode for where, how in case.meta.components.items()}
    return location in made and bool(made[location].is_negative)


@pytest.mark.parametrize("examples", [SAMPLE, LONG])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_whatever_is_sent_is_answered_as_described(
    described: FastAPI, address: str, library: Path, operation: str, examples: int
) -> None:
    """No fault, no undocumented status or kind of content, nothing that breaks the schema; what
    breaks the description is refused."""
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi import checks

    judges = (
        schemathesis.checks.not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
        checks.response_headers_conformance,
        checks.negative_data_rejection,
    )
    method, path = operation.split()
    known = id_of(str(library / "deep.wav"))
    schema = schemathesis.openapi.from_dict(described.openapi())
    rejection = schema.config.checks.negative_data_rejection
    # Too long is one way to be wrong.
    rejection.expected_statuses = [*rejection.expected_statuses, "413"]

    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        if mode is GenerationMode.NEGATIVE and operation in UNBREAKABLE:
            continue
        cases = schema[path][method].as_strategy(generation_mode=mode)

        @settings(
            max_examples=examples,
            derandomize=True,
            deadline=None,
            database=None,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases)
        def run(case) -> None:
            is_free = not is_negative(case, "path")
            if is_free and (case.path_parameters or {}).get("clip_id", "x") < "a":
                case.path_parameters["clip_id"] = known  # Else nothing would ever be found.
            sent = case.as_transport_kwargs(base_url=address)
            target = requests.Request("GET", sent["url"], params=sent.get("params")).prepare().url
            # Longer ones are cut off by HTTP's own reader, before us.
            assume(len(target or "") < LONGEST_TARGET)
            case.call_and_validate(base_url=address, checks=judges)

        run()


# ---- who may come in ----------------------------------------------------------------------------

REFUSED_HOSTS = (
    *("evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", ""),
    *("localhost.", "LOCALHOST.:8000", "127.0.0.1.", "localhost@evil.example", ":8000", "::1"),
    *(
        "evil.example#localhost",
        "evil.example/localhost",
        "localhost evil.example",
        "[::1",
        "2130706433",
    ),
    *(
        "[evil.example]",
        "[::1].evil.example",
        "localhost,evil.example",
        "0x7f.1",
        "localhost:80:80",
    ),
    "[x]",
    *("evil.example\\@localhost", "lоcalhost", "127.1", "localhost%00", "*", "null"),
)
OWN_HOSTS = (
    "localhost",
    "LocalHost:9",
    "127.0.0.1",
    "[::1]",
    "[::1]:80",
    "[0:0::1]:80",
    "10.0.0.7:1",
    "192.168.0.7:80",
)


def asked_as(client: TestClient, host: str, **headers: str) -> int:
    given = [(b"host", host.encode()), *((k.encode(), v.encode()) for k, v in headers.items())]
    return client.get("/api/status", headers=given).status_code


def test_hosts_of_every_spelling(client: TestClient) -> None:
    for host in REFUSED_HOSTS:
        assert asked_as(client, host) == 400, host
    for host in OWN_HOSTS:
        assert asked_as(client, host) == 200, host
    for header in (
        "x-forwarded-host",
        "forwarded",
        "x-host",
        "x-original-host",
        "x-forwarded-server",
    ):
        assert asked_as(client, "evil.example", **{header: "localhost"}) == 400
        assert asked_as(client, "localhost", **{header: "evil.example"}) == 200


def test_hosts_over_a_socket(described: FastAPI, address: str) -> None:
    """An absolute target counts for nothing, and what is no HTTP is refused before us."""
    port = int(address.rpartition(":")[2])

    def status_of(request: str) -> int:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(request.encode("latin-1") + b"Connection: close\r\n\r\n")
            return int(connection.makefile("rb").readline().split()[1])

    get = "GET /api/status HTTP/1.1\r\n"
    assert status_of(f"{get}Host: localhost\r\n") == 200
    for request in (
        *(f"{get}Host: evil.example\r\n", get, f"{get}Host: localhost\r\nHost: evil.example\r\n"),
        "GET http://localhost/api/status HTTP/1.1\r\nHost: evil.example\r\n",
        *(f"{get}Host: evil.example\r\n\tlocalhost\r\n", "GET /api/status HTTP/1.0\r\n"),
    ):
        assert status_of(request) == 400, request
    # The target's own name is no route.
    assert status_of("GET http://evil.example/api/status HTTP/1.1\r\nHost: localhost\r\n") == 404


HEADERS = {
    "content-security-policy": "default-src 'none'", "x-content-type-options": "nosniff",
    "x-frame-options": "DENY", "referrer-policy": "no-referrer", "cache-control": "",
    "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin",
}  # fmt: skip


def test_every_answer_has_the_security_headers(searcher: Searcher, library: Path) -> None:
    """Of every status, a fault of ours too; none is for other sites."""
    seen = set()

    def fail() -> None:
        raise RuntimeError("a fault")

    app = create_app(searcher, ServerConfig(upload_bytes=1 << 16))
    app.add_api_route("/fault", fail)
    with TestClient(app, base_url=OWN, raise_server_exceptions=False) as client:
        audio = clip_url(library / "deep.wav", "/audio")
        origin = {"origin": "http://evil.example"}
        preflight = {**origin, "access-control-request-method": "POST"}
        for reply in (
            *(client.get(path, headers=origin) for path in ("/", "/web/main.js", "/api/status")),
            *(client.get(path) for path in ("/metrics", "/health", "/none", "/fault")),
            *(client.get(audio), client.get(audio, headers={"range": "bytes=0-5"})),
            client.get(audio, headers={"range": "bytes=99999999-"}),
            client.get("/", headers={"host": "evil.example"}),
            client.post("/mcp", json={}),
            client.post("/api/search", json={"text": "rain"}, headers=origin),
            client.options("/api/search", headers=preflight),
            *(client.post("/api/search", json=body) for body in ({}, [], {"\udcff": 1})[:2]),
            client.post("/api/sounds", content=bytes(1 << 17)),
            client.post("/api/add", json={"paths": ["/etc"]}),
            client.request("TRACE", "/api/status"),
        ):
            seen.add(reply.status_code)
            for name, start in HEADERS.items():
                assert reply.headers[name].startswith(start), (reply.url, reply.status_code, name)
            assert not [name for name in reply.headers if name.startswith("access-control")]
            assert "server" not in reply.headers
    assert {200, 206, 400, 403, 404, 405, 413, 416, 422, 500} <= seen


def test_cookies_and_tokens(searcher: Searcher) -> None:
    wrong = ("", " ", "null", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ü", "\0", "x" * 2000)
    app = create_app(searcher, ServerConfig(token=TOKEN))
    with TestClient(app, base_url=OWN) as client:
        for number, given in enumerate(wrong):
            there = TestClient(app, base_url=OWN, client=(f"10.0.0.{number}", 1))
            assert there.post("/api/login", json={"token": given}).status_code == 401, given
        line = client.post("/api/login", json={"token": TOKEN}).headers["set-cookie"]
        parts = {part.strip().lower().partition("=")[0] for part in line.split(";")[1:]}
        assert {"httponly", "samesite", "path", "max-age"} == parts
        assert "samesite=strict" in line.lower()
        assert TOKEN not in line


class Secret(str):
    """Text that is equal to nothing by any other comparison than the watched one."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared letter by letter")


def test_tokens_are_compared_in_constant_time(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time cannot be tested on a busy machine; which comparison is made, of tokens given and of
    the cookies that stand for them, can."""
    import hmac

    compared: list[bytes] = []
    safe: Callable[[bytes, bytes], bool] = hmac.compare_digest

    def watched(given: bytes, expected: bytes) -> bool:
        compared.append(given)
        return safe(given, expected)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    monkeypatch.setattr("earshot.server.new_session", lambda: Secret("s" * 64))
    with client_of(searcher, token=Secret(TOKEN)) as client:
        assert client.get("/api/status", headers={"authorization": "Bearer w"}).status_code == 401
        assert client.post("/api/login", json={"token": "v"}).status_code == 401
        for cookie, status in (("u", 401), ("s" * 64, 200)):
            given = {"cookie": f"earshot-8000={cookie}"}
            assert client.get("/api/status", headers=given).status_code == status
        right = {"authorization": f"Bearer {TOKEN}"}
        assert client.get("/api/status", headers=right).status_code == 200
    assert compared == [b"w", b"v", b"u", b"s" * 64, TOKEN.encode()]


def test_only_what_is_known_is_counted(client: TestClient) -> None:
    """Names of methods that clients make up must not become figures for ever."""
    for number in range(50):
        client.request(f"MADEUP{number}", "/api/status")
    figures = client.get("/metrics").text
    assert 'method="other"' in figures
    assert "MADEUP" not in figures


# ---- bodies -------------------------------------------------------------------------------------

BODIES = (
    *(b"", b"\xff", b"null", b"[]", b"1", b'"text"', b"{", b"NaN", b'{"text": "\xff\xfe"}'),
    *(b'{"text": "\\ud800"}', b'{"\\ud800": 1}', b'{"text": "\\u0000"}', b'{"text": 1e999}'),
    *(
        b'{"text": "x", "k": ' + digits + b"}"
        for digits in (b"9" * 30, b"9" * 5000, b"1e400", b"NaN")
    ),
    *(b"[" * 100_000, b'{"text":' * 50_000, b'{"where": ["\\ud800 < 1"]}', b'{"by": "\\udfff"}'),
    *(b'{"text": "x", "where": ["duration_s < ' + v + b'"]}' for v in (b"NaN", b"inf", b"9" * 999)),
    *(b'{"text": "x", "where": ["title = \'\\u0000\'"]}', b'{"text": "x", "text": 7}'),
    *(b'{"like": [{"id": "\\ud800"}]}', b'{"like": [{"id": "x", "start_s": NaN}]}'),
    *(
        b'{"like": [{"id": "x", "end_s": Infinity}]}',
        b"\xef\xbb\xbf{}",
        '{"text": "x"}'.encode("utf-16"),
    ),
)


@pytest.mark.parametrize("path", ["/api/search", "/api/add", "/api/remove", "/api/login"])
def test_odd_bodies_are_refused_or_answered(client: TestClient, path: str) -> None:
    for body in BODIES:
        for kind in ("application/json", "application/json; charset=utf-7", "text/plain", ""):
            reply = client.post(path, content=body, headers={"content-type": kind})
            assert reply.status_code in (200, 400, 401, 403, 413, 422), (body[:60], reply.text)
            if reply.status_code != 413:
                reply.json()


def test_what_is_wrong_is_told_in_few_words(client: TestClient) -> None:
    """An answer must not be longer than what it refuses, nor repeat what is no text."""
    unknown = ", ".join(f'"{number:05}{"x" * 100}": 1' for number in range(5000))
    reply = client.post("/api/search", content=f'{{"\\ud800": 1, {unknown}}}'.encode())
    assert reply.status_code == 422
    assert len(reply.content) < 5000


@pytest.mark.parametrize(
    "query",
    [
        *("q=%ff", "q=%00", "q=%ed%a0%80", "q=a&q=b&q=c", "q=x&k=1&k=2", "q=x&k=NaN", "q=x&k=-0"),
        *("q=x&k=1e3", "q=x&k=" + "9" * 5000, "q=x&by=", "q=x&not=%00&not=%ff", "q=%u0041"),
        *(
            "q=x&where=%00",
            "q=x&where=duration_s<NaN",
            "q=x&where=(((((",
            "q[]=x",
            "q=" + "%20" * 50,
        ),
        *(
            "q=x;k=3",
            "&&&&",
            "q=x&where=title+%3D+'%ff'",
            "q=x&k=٣",
            "q=%F0%9F%8E%B5",
            "q=x&__proto__=1",
        ),
    ],
)
def test_odd_queries_are_refused_or_answered(client: TestClient, query: str) -> None:
    reply = client.get(f"/api/search?{query}")
    assert reply.status_code in (200, 422), reply.text
    reply.json()
    for path in ("/api/clips", "/api/broken", clip_url(Path("x"), "/peaks")):
        odd = query.replace("q=", "start_s=").replace("k=", "offset=")
        assert client.get(f"{path}?{odd}").status_code in (200, 404, 422)
