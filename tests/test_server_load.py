"""The server as a process of its own under slow, rude and many clients: it goes on, as large as it
was, and ends in order."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random
from urllib.parse import urlparse

import httpx2
import pytest
from served import serving

from earshot.files.passing import PLACE
from earshot.server.bodies import QUESTION_BYTES
from earshot.server.catalogue import id_of
from earshot.server.running import CONNECTIONS as CONNECTIONS_AT_ONCE
from earshot.server.running import HEADER_BYTES
from earshot.server.uploads import Uploads

# What Linux tells of a process is read from /proc.
pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
UPLOAD_BYTES = 64 << 20
CONNECTIONS = 30
QUIET_S = 30.0
# Python and torch keep some of what is freed; a leak of a kilobyte for each request is more.
ROOM_KB = 40_000
# Threads of a pool stay for a while: 40 of anyio's, and those of torch and of the stores.
MOST_THREADS = 60


def with_its_own_cache(tmp_path: Path, home: Path) -> dict[str, str]:
    """The environment of a server that has a cache for itself, and the weights of all."""
    return {
        "TMPDIR": str(tmp_path),
        "EARSHOT_HOME": str(tmp_path / "home"),
        "EARSHOT_ASSETS": str(home / "assets"),
    }


class Server:
    """A server under test: its address, and what the kernel knows of it."""

    def __init__(self, url: str, process: subprocess.Popen[str]) -> None:
        self.url, self.process = url, process
        self.port = int(urlparse(url).port or 0)

    def connect(self, request: bytes = b"") -> socket.socket:
        """A connection on which a request, or a part of one, was sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sendall(request)
        return connection

    def files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def status(self, name: str) -> int:
        """A figure of /proc/PID/status: Threads, VmRSS (in kB)."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))

    def is_brought_a_sound(self, library: Path) -> None:
        """Let a visitor bring a sound."""
        sound = {"sound": ("x.wav", (library / "noises" / "000.wav").read_bytes())}
        assert httpx2.post(f"{self.url}/api/sounds", files=sound, timeout=60).status_code == 201

    def is_well(self) -> None:
        assert self.process.poll() is None
        assert httpx2.get(f"{self.url}/health", timeout=60).text == "ok\n"
        reply = httpx2.get(f"{self.url}/api/search?q=a+tone&k=3", timeout=60)
        assert len(reply.json()["hits"]) == 3

    def is_as_before(self, files: int, threads: int) -> None:
        """No more open files and threads than before, once it had time to notice who is gone."""
        deadline_s = time.monotonic() + QUIET_S
        while self.files() > files or self.status("Threads") > max(threads, MOST_THREADS):
            assert time.monotonic() < deadline_s, (
                self.files(),
                files,
                self.status("Threads"),
                threads,
            )
            time.sleep(0.2)


def warm(server: Server, library: Path) -> None:
    """Use everything once and many at a time, so that pools of threads have their size."""
    audio = f"{server.url}/api/clips/{id_of(str(library / 'wide.wav'))}/audio"
    plain = f"{server.url}/api/clips/{id_of(str(library / 'noises/000.wav'))}"

    sound = {"sound": ("x.wav", (library / "noises/000.wav").read_bytes())}
    assert httpx2.post(f"{server.url}/api/sounds", files=sound, timeout=120).status_code == 201

    def use() -> None:
        for url in (f"{server.url}/api/search?q=rain", f"{server.url}/api/status", audio):
            assert httpx2.get(url, timeout=120).status_code == 200
        for url in (f"{plain}/audio", f"{plain}/peaks", f"{server.url}/"):
            assert httpx2.get(url, timeout=120).status_code == 200

    together(use, 40)


def together(work: Callable[[], None], count: int) -> None:
    """The same work in many threads; the first error of them is raised."""
    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(work) for _ in range(count)]:
            done.result()


@pytest.fixture(scope="module")
def server(library_index: Path, library: Path, home: Path) -> Iterator[Server]:
    with serving(library_index, home) as (url, process):
        server = Server(url, process)
        warm(server, library)
        yield server


def unread(connection: socket.socket) -> bytes:
    """What was answered until the end of the connection."""
    pieces = []
    with suppress(ConnectionError):
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
    return b"".join(pieces)


# ---- slow and rude clients ----------------------------------------------------------------------

GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HALF = (
    b"",
    b"G",
    GET % b"/api/status",
    (GET % b"/api/status") + b"X-Slow: ",
    POST + b"Content-Length: 1000\r\n\r\n" + b'{"text": "ra',
    POST + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"te',
    b"POST /api/sounds HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    b'--b\r\nContent-Disposition: form-data; name="s',
)


@pytest.mark.parametrize("half", range(len(HALF)))
def test_who_never_ends_a_request_holds_up_nobody(server: Server, half: int) -> None:
    server.is_well()
    files, threads = server.files(), server.status("Threads")
    connections = [server.connect(HALF[half]) for _ in range(CONNECTIONS)]
    server.is_well()
    for connection in connections:
        connection.close()
    server.is_as_before(files, threads)
    server.is_well()


def test_letter_by_letter_is_answered(server: Server) -> None:
    with server.connect() as connection:
        for letter in (GET % b"/health") + b"Connection: close\r\n\r\n":
            connection.sendall(bytes([letter]))
            time.sleep(0.005)
        assert unread(connection).endswith(b"ok\n")


ASKED = (
    "/api/search?q=thunder&k=500",
    "AUDIO",
    "AUDIO?wav=true",
    "SPECTROGRAM",
    "/api/events",
    "/web/main.js",
)


@pytest.mark.parametrize("path", ASKED)
def test_who_goes_away_leaves_nothing(server: Server, library: Path, path: str) -> None:
    """At once, after the first bytes of the answer, and by a reset."""
    server.is_well()
    files, threads = server.files(), server.status("Threads")
    clip = f"/api/clips/{id_of(str(library / 'long.flac'))}"
    path = path.replace("AUDIO", f"{clip}/audio").replace("SPECTROGRAM", f"{clip}/spectrogram")
    request = (GET % path.encode()) + b"\r\n"
    for number in range(CONNECTIONS):
        connection = server.connect(request)
        if number % 3:
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        if number % 2:  # Reset: what was not sent is thrown away, and the other side is told.
            reset = (1).to_bytes(4, "little") + bytes(4)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        connection.close()
    server.is_as_before(files, threads)
    server.is_well()


def test_who_does_not_read_holds_up_nobody(server: Server, library: Path) -> None:
    server.is_well()
    files, threads = server.files(), server.status("Threads")
    url = f"/api/clips/{id_of(str(library / 'long.flac'))}/audio?wav=true".encode()
    connections = [server.connect((GET % url) + b"\r\n") for _ in range(CONNECTIONS)]
    time.sleep(1)
    server.is_well()
    for connection in connections:
        connection.close()
    server.is_as_before(files, threads)


# ---- too much -----------------------------------------------------------------------------------


def test_too_long_queries_are_refused(server: Server) -> None:
    files, threads = server.files(), server.status("Threads")
    long = b"x" * (10 << 20)
    with server.connect() as connection:
        with suppress(ConnectionError):  # It need not listen to the end.
            connection.sendall((GET % (b"/api/search?q=" + long)) + b"\r\n")
        assert unread(connection)[:12] in (b"HTTP/1.1 400", b"")
    for content in (
        b'{"text": "' + long + b'"}',
        b'{"' + long + b'": 1}',
        b'{"where": [' + b'"x",' * 200_000 + b'"x"]}',
    ):
        reply = httpx2.post(
            f"{server.url}/api/search",
            content=content,
            headers={"content-type": "application/json"},
            timeout=120,
        )
        assert reply.status_code == (413 if len(content) > QUESTION_BYTES else 422)
        assert reply.json()["detail"]
        assert len(reply.content) < 1000
    reply = httpx2.post(f"{server.url}/api/similar", files={"sound": ("x.wav", long)}, timeout=120)
    assert reply.status_code == 422
    server.is_as_before(files, threads)
    server.is_well()


SOUNDS = (
    b"POST /api/sounds HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\n"
)
PART = b'--b\r\nContent-Disposition: form-data; name="sound"; filename="x.wav"\r\n\r\n'


def test_too_large_bodies_are_refused(server: Server) -> None:
    """With their length, before they come; in pieces without it, once it is too much."""
    files, threads = server.files(), server.status("Threads")
    with server.connect(SOUNDS + b"Content-Length: %d\r\n\r\n" % (UPLOAD_BYTES + 1)) as connection:
        assert unread(connection).startswith(b"HTTP/1.1 413")
    piece = bytes(1 << 20)
    with server.connect(SOUNDS + b"Transfer-Encoding: chunked\r\n\r\n") as connection:
        connection.sendall(b"%x\r\n%s\r\n" % (len(PART), PART))
        sent = 0
        with suppress(ConnectionError):
            while sent < 2 * UPLOAD_BYTES:
                connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                sent += len(piece)
        assert sent < 2 * UPLOAD_BYTES or unread(connection).startswith(b"HTTP/1.1 413")
    for header in (
        b"Content-Length: 9\r\nContent-Length: 10\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 1e3\r\n",
    ):
        with server.connect(SOUNDS + header + b"\r\n") as connection:
            assert unread(connection).startswith(b"HTTP/1.1 400")
    server.is_as_before(files, threads)
    server.is_well()


def test_who_comes_beyond_the_connections_is_told(server: Server) -> None:
    files, threads = server.files(), server.status("Threads")
    connections = [server.connect() for _ in range(CONNECTIONS_AT_ONCE)]
    with server.connect((GET % b"/health") + b"Connection: close\r\n\r\n") as one_more:
        assert unread(one_more).startswith(b"HTTP/1.1 503")
    for connection in connections:
        connection.close()
    server.is_as_before(files, threads)
    server.is_well()


def test_the_limits_are_ours_whatever_is_installed(
    library_index: Path, home: Path, tmp_path: Path
) -> None:
    """uvicorn would take httptools where that is there, which knows no limit of headers."""
    (tmp_path / "httptools.py").write_text("")
    folders = os.pathsep.join([str(tmp_path), *sys.path])
    with (
        serving(library_index, home, PYTHONPATH=folders) as (url, process),
        Server(url, process).connect(GET % b"/health") as connection,
    ):
        with suppress(ConnectionError):
            connection.sendall(b"X-Long: %s\r\n\r\n" % (b"x" * 2 * HEADER_BYTES))
        assert unread(connection)[:12] in (b"HTTP/1.1 400", b"")
        Server(url, process).is_well()


# ---- many ---------------------------------------------------------------------------------------

# Fewer answers have less room: what each may leave behind is about as much.
SAMPLE = pytest.param(20, 10.0, ROOM_KB // 5, id="sample")
LONG = pytest.param(200, 300.0, ROOM_KB, id="long", marks=pytest.mark.reliability)


NONE, CUT_OFF = "no answer", "cut off"


class Crowd:
    """Clients that ask one question after another until they are told to end."""

    def __init__(self, server: Server, library: Path, clients: int) -> None:
        clip = f"/api/clips/{id_of(str(library / 'noises/000.wav'))}"
        paths = ("/api/status", "/api/clips?limit=5", f"{clip}/audio", f"{clip}/peaks", "/health")
        words = ("rain", "a dog barks", "wind in trees", "a tone")
        self._urls = [server.url + path for path in paths]
        self._urls += [f"{server.url}/api/search?q={word}&k=5" for word in words]
        # Never the same twice: what is kept of each would add up.
        self._made_up = f"{server.url}/api/search?k=5&by=words&q="
        self.statuses: Counter[object] = Counter()
        self._over, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        chance = Random(number)
        with httpx2.Client(timeout=120) as client:
            while not self._over.is_set():
                number += 1
                seen = self._answer(client, self._url(number, chance))
                if seen == NONE:
                    self._over.wait(0.1)
                with self._lock:
                    self.statuses[seen] += 1

    def _url(self, number: int, chance: Random) -> str:
        if number % 2:
            return self._urls[number // 2 % len(self._urls)]
        words = chance.choice((1, 5, 200))
        return self._made_up + "+".join(f"{chance.getrandbits(32):08x}" for _ in range(words))

    def _answer(self, client: httpx2.Client, url: str) -> object:
        """The status of an answer that came whole; else whether there was a beginning of one."""
        seen: object = NONE
        with suppress(httpx2.TransportError), client.stream("GET", url) as reply:
            seen = CUT_OFF
            reply.read()
            seen = reply.status_code
        return seen

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize(("clients", "duration_s", "room_kb"), [SAMPLE, LONG])
def test_many_are_answered_in_the_same_memory(
    server: Server, library: Path, clients: int, duration_s: float, room_kb: int
) -> None:
    files = server.files()
    crowd = Crowd(server, library, clients)
    time.sleep(duration_s / 5)
    early_kb = server.status("VmRSS")
    figures = [early_kb]
    for _ in range(8):
        time.sleep(duration_s / 10)
        figures.append(server.status("VmRSS"))
    threads = server.status("Threads")
    crowd.end()
    # Shown by -s; the long run's figures stand in docs/reliability.md.
    print(json.dumps({"clients": clients, "answers": dict(crowd.statuses), "rss_kb": figures}))  # noqa: T201
    assert set(crowd.statuses) == {200}
    assert crowd.statuses[200] >= clients
    assert max(figures) < early_kb + room_kb
    server.is_as_before(files, threads)
    server.is_well()


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_order_under_load(
    library_index: Path,
    library: Path,
    home: Path,
    tmp_path: Path,
    kind: signal.Signals,
) -> None:
    """Of whom an answer was begun, it is ended; nothing is left behind."""
    passing = tmp_path / "home" / PLACE
    own = with_its_own_cache(tmp_path, home)
    with serving(library_index, home, **own) as (url, process):
        server = Server(url, process)
        server.is_well()
        server.is_brought_a_sound(library)
        assert list(passing.iterdir())
        crowd = Crowd(server, library, 10)
        time.sleep(2)
        process.send_signal(kind)
        out, err = process.communicate(timeout=60)
        crowd.end()
        assert process.returncode == 0, err
        assert err == ""
    # Once it ends, there are no answers; none that had begun was cut off.
    assert set(crowd.statuses) <= {200, NONE}
    assert crowd.statuses[200] > 10
    assert list(tmp_path.iterdir()) == [tmp_path / "home"]
    assert list(passing.iterdir()) == []


def test_what_was_brought_goes_with_a_killed_server(
    library_index: Path,
    library: Path,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not with it, as nothing could: with the next one."""
    passing = tmp_path / "home" / PLACE
    own = with_its_own_cache(tmp_path, home)
    with serving(library_index, home, **own) as (url, process):
        Server(url, process).is_brought_a_sound(library)
        process.kill()
        process.wait(60)
    assert len(list(passing.glob("*/*.wav"))) == 1
    monkeypatch.setenv("EARSHOT_HOME", own["EARSHOT_HOME"])
    uploads = Uploads(1)
    assert list(passing.glob("*/*")) == []
    uploads.close()
    assert list(passing.iterdir()) == []
