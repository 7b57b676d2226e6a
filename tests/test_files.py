"""Assets are found in order and checked; downloads resume; writes are atomic."""

import hashlib
import http.server
import os
import threading
import time
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from earshot import files
from earshot.files import (
    Asset,
    atomic_write,
    clear_drafts,
    download,
    fetch,
    find,
    home,
    locked,
    record,
    require_writable,
    sha256_of,
    verify,
)
from earshot.types import EarshotError

CONTENT = b"weights" * 1000
HASH = hashlib.sha256(CONTENT).hexdigest()
ASSET = Asset(name="w.bin", url="https://127.0.0.1:9/w.bin", licence="MIT", sha256=HASH)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EARSHOT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EARSHOT_ASSETS", str(tmp_path / "a") + ":" + str(tmp_path / "b"))
    return tmp_path / "home" / "assets"


def put(folder: Path, content: bytes = CONTENT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "w.bin").write_bytes(content)
    return folder / "w.bin"


def test_home_is_the_named_folder(cache: Path) -> None:
    assert home() == cache.parent


def test_found_in_order(cache: Path, tmp_path: Path) -> None:
    assert find(ASSET) is None
    second = put(tmp_path / "b")
    assert find(ASSET) == second
    assert fetch(ASSET) == second
    first = put(cache)
    assert find(ASSET) == first


def test_changed_content_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "a", b"other")
    with pytest.raises(EarshotError, match="SHA-256"):
        find(ASSET)


def test_first_use_records_a_hash_that_was_not_published(cache: Path, tmp_path: Path) -> None:
    unknown = Asset(name="w.bin", url=ASSET.url, licence="MIT")
    path = put(tmp_path / "a")
    verify(unknown, path)
    assert find(unknown) == path
    assert not (cache / "w.bin.sha256").exists()
    record(unknown, path)
    assert (cache / "w.bin.sha256").read_text() == HASH
    put(tmp_path / "a", b"changed later")
    with pytest.raises(EarshotError, match=r"w\.bin\.sha256, written when it was first used"):
        verify(unknown, path)


def test_a_right_copy_behind_a_wrong_one_is_found(tmp_path: Path) -> None:
    put(tmp_path / "a", b"other")
    right = put(tmp_path / "b")
    assert find(ASSET) == right


def test_absent_and_unreachable_says_what_to_do(cache: Path) -> None:
    with pytest.raises(EarshotError, match="EARSHOT_ASSETS") as raised:
        fetch(ASSET)
    message = str(raised.value)
    assert ASSET.url in message
    assert str(cache) in message
    assert "\n" not in message


def test_only_https() -> None:
    with pytest.raises(EarshotError, match="not a https address"):
        download("http://127.0.0.1/w.bin", Path("w.bin"))
    with pytest.raises(EarshotError, match="not a https address"):
        download("file:///etc/passwd", Path("w.bin"))


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; /moved redirects to a scheme that must be refused."""

    slow_requests = 0
    version = CONTENT

    def versioned(self, start: int) -> None:
        """Give a file of which there are versions; `/careless` looks at no If-Range."""
        tag = f'"{hash(Server.version)}"'
        if self.headers.get("If-Range", tag) != tag and "careless" not in self.path:
            start = 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(Server.version) - start))
        self.send_header("ETag", tag)
        self.end_headers()
        self.wfile.write(Server.version[start : 4000 if "cut" in self.path else None])

    def do_GET(self) -> None:
        if self.path == "/slow":
            Server.slow_requests += 1
            time.sleep(0.3)  # Long enough for a second request to come meanwhile.
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:9/w.bin")
            self.end_headers()
            return
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start >= len(CONTENT):
            self.send_error(416)
            return
        if self.path.startswith(("/versions", "/careless")):
            self.versioned(start)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:4000] if self.path == "/cut" else CONTENT[start:])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A plain local server stands for a https one: only the scheme's check is bent."""
    monkeypatch.setattr(files, "SCHEME", "http://")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_download_resumes(address: str, tmp_path: Path) -> None:
    target, seen = tmp_path / "d" / "w.bin", []
    download(f"{address}/w.bin", target, seen.append)
    assert target.read_bytes() == CONTENT
    target.unlink()
    target.with_name("w.bin.part").write_bytes(CONTENT[:1000])
    seen.clear()
    download(f"{address}/w.bin", target, seen.append)
    assert target.read_bytes() == CONTENT
    assert seen[-1] == len(CONTENT)
    target.with_name("w.bin.part").write_bytes(CONTENT)  # Killed before the rename.
    download(f"{address}/w.bin", target)
    assert target.read_bytes() == CONTENT
    assert not target.with_name("w.bin.part").exists()


def test_a_part_of_another_version_is_not_gone_on_with(address: str, tmp_path: Path) -> None:
    target, part = tmp_path / "w.bin", tmp_path / "w.bin.part"
    for path in ("/versions", "/careless"):
        Server.version, former = CONTENT, b"former!" * 1000
        with pytest.raises(OSError, match="3000 bytes early"):
            download(f"{address}/versions?cut", target)
        assert part.read_bytes() == CONTENT[:4000]
        download(f"{address}{path}", target)
        assert target.read_bytes() == CONTENT, "the same version is gone on with"
        with pytest.raises(OSError, match="3000 bytes early"):
            download(f"{address}/versions?cut", target)
        Server.version = former
        if path == "/careless":
            with pytest.raises(OSError, match="another part than was asked for"):
                download(f"{address}{path}", target)
        download(f"{address}{path}", target)
        assert target.read_bytes() == former
        assert [each.name for each in tmp_path.iterdir()] == ["w.bin"]


def test_a_cut_connection_is_no_end(address: str, tmp_path: Path) -> None:
    target = tmp_path / "w.bin"
    with pytest.raises(OSError, match="3000 bytes early"):
        download(f"{address}/cut", target)
    assert not target.exists()
    download(f"{address}/w.bin", target)
    assert target.read_bytes() == CONTENT


def test_redirect_to_another_scheme_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(urllib.error.URLError, match="not https"):
        download(f"{address}/moved", tmp_path / "w.bin")


def test_wrong_download_is_not_kept(address: str, cache: Path) -> None:
    wrong = Asset(name="w.bin", url=f"{address}/w.bin", licence="MIT", sha256="0" * 64)
    with pytest.raises(EarshotError, match="SHA-256"):
        fetch(wrong)
    assert not (cache / "w.bin").exists()


def test_what_cannot_be_written_is_told_without_the_draft_s_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path, reason in (
        (tmp_path / "file" / "x.csv", "its folder is a file"),
        (tmp_path / "file" / "deep" / "x.csv", "its folder is a file"),
        (Path("/proc/x.csv"), "no such file|denied"),
        (Path("/proc/deep/x.csv"), "no such file|denied"),
    ):
        with pytest.raises(EarshotError, match=f"{path} cannot be written: ({reason})") as caught:
            require_writable(None, path)
        assert f".{path.name}" not in str(caught.value)
        with pytest.raises(EarshotError, match=f"{path} cannot be written"), atomic_write(path):
            pass
    with pytest.raises(EarshotError, match="is a folder; give the name of a file"):
        require_writable(tmp_path)
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "y"):
        (tmp_path / "another").read_text()  # not the fault of what is written
    require_writable(tmp_path / "new" / "x.csv")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "new"]
    assert not any((tmp_path / "new").iterdir())


def test_atomic_write_leaves_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    with atomic_write(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert sha256_of(path) == hashlib.sha256(b"new").hexdigest()


def test_parts_are_joined_and_a_finished_part_is_not_fetched_again(
    address: str, cache: Path
) -> None:
    whole = hashlib.sha256(CONTENT * 2).hexdigest()
    parts = (f"{address}/w.bin", f"{address}/gone")
    asset = Asset(name="w.bin", url=ASSET.url, licence="MIT", sha256=whole, parts=parts)
    put(cache, b"")
    (cache / "w.bin").rename(cache / "w.bin.1")
    (cache / "w.bin.1").write_bytes(CONTENT)
    assert sha256_of(fetch(asset)) == whole
    assert [path.name for path in cache.iterdir()] == ["w.bin"]


def test_a_published_md5_is_checked(tmp_path: Path) -> None:
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    asset = Asset(name="w.bin", url=ASSET.url, licence="MIT", md5=md5)
    path = put(tmp_path / "a")
    assert find(asset) == path
    put(tmp_path / "a", b"other")
    with pytest.raises(EarshotError, match="MD5"):
        find(asset)


def test_what_only_a_person_can_fetch_says_where() -> None:
    asset = Asset(name="w.bin", url="https://example.org/page", licence="MIT", by_hand=True)
    with pytest.raises(EarshotError, match=r"example\.org/page tells where to get it"):
        fetch(asset)


def test_two_who_want_the_same_file_fetch_it_once(cache: Path, address: str) -> None:
    Server.slow_requests = 0
    asset = Asset(name="w.bin", url=f"{address}/slow", licence="MIT", sha256=HASH)
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(fetch, [asset, asset]))
    assert paths == [cache / "w.bin"] * 2
    assert Server.slow_requests == 1
    assert [path.name for path in cache.iterdir()] == ["w.bin"]


def test_a_file_and_its_name_are_brought_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this order: a name that leads to nothing would be worse than none."""
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino) or real(fd))
    with atomic_write(tmp_path / "whole") as file:
        file.write(b"content")
    assert synced == [(tmp_path / "whole").stat().st_ino, tmp_path.stat().st_ino]


def test_drafts_are_cleared_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / f".model.{'0' * 32}.old").mkdir()
    for name in (
        f".a.json.{'1' * 32}",
        f".b.json.{'2' * 32}",
        ".hidden",
        "a.json",
        f"a.{'3' * 32}",
    ):
        (tmp_path / name).touch()
    clear_drafts(tmp_path, "b.json")
    assert {path.name[:8] for path in tmp_path.glob(".*")} == {".model.0", ".a.json.", ".hidden"}
    clear_drafts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".hidden", "a.json", f"a.{'3' * 32}"}


def test_a_passing_lock_leaves_no_file(tmp_path: Path) -> None:
    with locked(tmp_path / "lock", busy="taken", passing=True):
        with (
            pytest.raises(EarshotError, match="taken"),
            locked(tmp_path / "lock", busy="taken", passing=True),
        ):
            pass
        assert (tmp_path / "lock").exists(), "who is refused deletes nothing"
    assert not list(tmp_path.iterdir())
