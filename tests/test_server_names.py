"""The server and names that lead elsewhere, links out of a library, odd ranges of bytes."""

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from served import client_of, clip_url, make_library

from earshot.library import index
from earshot.search import Searcher
from earshot.server.catalogue import id_of
from earshot.store import MemoryStore

# ---- names that lead elsewhere ------------------------------------------------------------------

ELSEWHERE = (
    *("..", ".", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%252e%252e%252fetc%252fpasswd"),
    *("..\\..\\secret.wav", "..%5c..%5csecret.wav", "C:%5cWindows%5cwin.ini", "%5c%5chost%5cshare"),
    *(
        "%2fetc%2fpasswd",
        "//etc/passwd",
        "file:%2f%2f%2fetc%2fpasswd",
        "~root",
        "%00",
        "deep%00.wav",
    ),
    *("%c0%ae%c0%ae%c0%afetc", "%e0%80%ae%e0%80%ae", "%ff", "%ed%a0%80", "%u002e%u002e", "....//"),
    *("CON", "a" * 5000, "*", "%25s", "' OR 1=1 --", "${HOME}", "{0}", "%0d%0aset-cookie:%20a=b"),
)
BY_ID = (
    "",
    "/audio",
    "/audio?download=true",
    "/audio?wav=true",
    "/peaks",
    "/spectrogram",
    "/similar",
)


@pytest.mark.parametrize("what", BY_ID)
def test_no_name_but_an_id_leads_to_a_recording(
    client: TestClient, library: Path, what: str
) -> None:
    known, secret = id_of(str(library / "deep.wav")), library.parent / "secret.wav"
    shutil.copy(library / "deep.wav", secret)
    assert client.get(f"/api/clips/{known}{what}").status_code == 200
    names = (
        str(secret),
        str(library / "deep.wav"),
        id_of(str(secret)),
        known.upper(),
        f"{known}%00",
    )
    for name in (*ELSEWHERE, *names, f"{known}%20", f"x%2f..%2f{known}"):
        reply = client.get(f"/api/clips/{name}{what}")
        # Nothing but the list or the page can be reached by what a client itself resolves.
        assert reply.status_code in (404, 405, 422) or reply.url.path in ("/", "/api/clips"), name
        assert "set-cookie" not in reply.headers
        assert b"RIFF" not in reply.content, name


def test_the_page_has_no_other_files_than_its_own(client: TestClient, tmp_path: Path) -> None:
    assert client.get("/web/main.js").status_code == 200
    for name in (
        *ELSEWHERE,
        "../server/guard.py",
        "%2e%2e/server/guard.py",
        "..%5cserver%5cguard.py",
    ):
        reply = client.get(f"/web/{name}")
        assert reply.status_code == 404 or reply.url.path == "/", name
        assert b"import" not in reply.content or reply.url.path == "/", name


def test_the_name_of_an_upload_names_no_file(client: TestClient, library: Path) -> None:
    sound = (library / "noises" / "000.wav").read_bytes()
    before = set(library.parent.rglob("*"))
    kept = client.app.state.desk.uploads._folder
    names = (*ELSEWHERE, "/etc/passwd", "../../x.wav", "a\\..\\b.wav", 'q".wav', "ü.wav", "x" * 400)
    for name in names:
        reply = client.post("/api/sounds", files={"sound": (name, sound)})
        if len(name) > 4000:
            assert reply.status_code == 400
            continue
        assert reply.status_code == 201, (name, reply.text)
        shown = reply.json()["name"]
        assert "/" not in shown
        assert "\\" not in shown
        assert len(shown) <= 100
        assert re.fullmatch(r"upload-[0-9a-f]{32}", reply.json()["id"])
        assert all(re.fullmatch(r"upload-[0-9a-f]{32}(\.wav)?", f.name) for f in kept.iterdir())
    raw = (
        b'--b\r\nContent-Disposition: form-data; name="sound"; filename="%s"\r\n\r\n%s\r\n--b--\r\n'
    )
    for name in (b"\xff\xfe.wav", b"\xed\xa0\x80.wav", b"a\0b.wav", b"\xc0\xae\xc0\xae/x.wav"):
        headers = {"content-type": "multipart/form-data; boundary=b"}
        reply = client.post("/api/sounds", content=raw % (name, sound), headers=headers)
        assert reply.status_code in (201, 400, 422), name
    assert set(library.parent.rglob("*")) == before


@pytest.fixture
def changing(searcher: Searcher, tmp_path: Path) -> Iterator[tuple[TestClient, Path]]:
    """A library that may be added to; beside it lies what is nobody's business."""
    folder = tmp_path / "library"
    make_library(folder)
    make_library(tmp_path / "outside")
    store = MemoryStore(searcher.store.manifest)
    index([folder / "noises"], store, searcher.model)
    with client_of(Searcher(searcher.model, store), roots=(folder,)) as client:
        yield client, folder


def run_over(client: TestClient) -> dict[str, object]:
    for _ in range(600):
        job: dict[str, object] = client.get("/api/status").json()["job"]
        if not job["running"]:
            return job
        time.sleep(0.05)
    raise AssertionError("the job does not end")


def test_nothing_beside_the_roots_is_added(changing: tuple[TestClient, Path]) -> None:
    client, folder = changing
    outside = folder.parent / "outside"
    (folder / "folder").symlink_to(outside)
    (folder / "link.wav").symlink_to(outside / "deep.wav")
    (folder / "loop").symlink_to(folder / "loop")
    paths = (
        *(outside, folder / "..", f"{folder}/../outside", f"{folder}x", folder / "folder"),
        *(folder / "folder" / "noises", folder / "link.wav", folder / "loop", f"{folder}\0"),
        *(f"{folder}/folder/../../outside", "/", "//", "/etc/passwd", "/proc/self/root", ".", ""),
        *("noises", "..\\outside", "C:\\", "file:///etc", "s3://bucket/x", "~", "$HOME", "\udcff"),
        *("/" + "x" * 1000, "/" + "x/" * 900),
    )
    for path in paths:
        # Written by hand: half of a letter is no text, and still may be sent.
        body = '{"paths": ["' + "".join(f"\\u{ord(letter):04x}" for letter in str(path)) + '"]}'
        reply = client.post("/api/add", content=body, headers={"content-type": "application/json"})
        assert reply.status_code in (403, 422), (path, reply.text)
    for name in ("x" * 300, "x/" * 400, "%2e%2e", "..%2foutside", "noises/000.wav/x"):
        reply = client.post("/api/add", json={"paths": [f"{folder}/{name}"]})
        assert reply.status_code == 404, (name, reply.text)
    assert client.get("/api/status").json()["job"]["number"] == 0


def test_a_link_out_of_the_roots_is_not_added_with_its_folder(
    changing: tuple[TestClient, Path],
) -> None:
    client, folder = changing
    link = folder / "noises" / "link.wav"
    link.symlink_to(folder.parent / "outside" / "deep.wav")
    assert client.post("/api/add", json={"paths": [str(folder / "noises")]}).status_code == 202
    assert "leads out" in run_over(client)["error"]
    assert client.get(clip_url(link, "/audio")).status_code == 404
    link.unlink()
    link.symlink_to(folder / "deep.wav")  # Within the roots a link is a file like others.
    client.post("/api/add", json={"paths": [str(folder / "noises")]})
    assert run_over(client)["error"] == ""
    assert client.get(clip_url(link, "/audio")).status_code == 200


def test_what_is_no_id_is_not_removed(changing: tuple[TestClient, Path]) -> None:
    client, folder = changing
    files = client.get("/api/status").json()["files"]
    for name in (*ELSEWHERE, str(folder / "noises" / "000.wav"), "\0", "upload-" + "0" * 32):
        assert client.post("/api/remove", json={"ids": [name]}).status_code in (404, 422), name
    assert client.get("/api/status").json()["files"] == files


@pytest.mark.parametrize("what", ["/audio", "/audio?download=true", "/audio?wav=true", "/peaks"])
def test_a_file_that_became_a_link_elsewhere_is_not_served(
    changing: tuple[TestClient, Path], what: str
) -> None:
    client, folder = changing
    path = folder / "noises" / "000.wav"
    content = path.read_bytes()
    secret = folder.parent / "outside" / "secret.wav"
    secret.write_bytes(bytes(reversed(content)))  # As long as what it takes the place of.
    path.unlink()
    path.symlink_to(secret)
    assert client.get(clip_url(path, what)).status_code == 410
    path.unlink()
    path.symlink_to(folder / "noises")
    assert client.get(clip_url(path, what)).status_code == 410
    path.unlink()
    path.write_bytes(content)  # The same again, at another time: it is what was indexed.
    assert client.get(clip_url(path, what)).status_code == 200


# ---- ranges -------------------------------------------------------------------------------------

HUGE = "9" * 5000


@pytest.mark.parametrize("file", ["noises/001.wav", "wide.wav"])
def test_odd_ranges(client: TestClient, library: Path, file: str) -> None:
    """Of a file as it is, and of WAV that is made while it is heard."""
    url = clip_url(library / file, "/audio")
    whole = client.get(url).content
    size, etag = len(whole), client.get(url).headers["etag"]
    parts = {
        "bytes=0-": (0, size), "bytes=0-0": (0, 1), "bytes=-1": (size - 1, size),
        "bytes=43-45": (43, 46), f"bytes=-{size + 99}": (0, size), "bytes=1-99999999": (1, size),
        f"bytes={size - 1}-": (size - 1, size), "bytes=101-200": (101, 201),
    }  # fmt: skip
    for asked, (first, last) in parts.items():
        reply = client.get(url, headers={"range": asked})
        assert reply.status_code == 206, asked
        assert reply.content == whole[first:last], asked
        assert reply.headers["content-range"] == f"bytes {first}-{last - 1}/{size}"
        same = client.get(url, headers={"range": asked, "if-range": etag})
        assert same.status_code == 206
        other = client.get(url, headers={"range": asked, "if-range": '"another"'})
        assert (other.status_code, other.content) == (200, whole)
        head = client.head(url, headers={"range": asked})
        assert (head.status_code, head.content) == (206, b"")
        assert head.headers["content-length"] == str(last - first)
    for asked in (f"bytes={size}-", f"bytes={size + 5}-{size + 9}"):
        reply = client.get(url, headers={"range": asked})
        assert reply.status_code == 416, asked
        assert reply.headers["content-range"] == f"bytes */{size}"
    for asked in (
        *("bytes=-0", "bytes=5-2", "bytes=", "bytes=-", "bytes=a-b", "bytes=0x0-0x5", "bytes=--5"),
        *("bytes=1.5-3", "bytes=0", "bytes", "", "items=0-5", "bytes:0-5", "bytes=+1-5", "=", "-"),
        *(f"bytes={HUGE}-", f"bytes=0-{HUGE}", f"bytes=-{HUGE}", "bytes=0-0,-0", "bytes=,"),
        *("bytes=0-1,3-4", "bytes=0-1," * 999, "bytes=0-,0-,0-", "bytes=5-2,0-1", "bytes=²-³"),
    ):
        reply = client.get(url, headers=[(b"range", asked.encode("latin-1"))])
        assert reply.status_code in (200, 206, 400, 416), asked[:30]
        # Never more than there is but for the borders between parts.
        assert len(reply.content) <= size + 1000, asked[:30]
        if reply.status_code == 200:
            assert reply.content == whole, asked[:30]
