"""Servers of strangers: what is not the file that was meant is told, and nothing of it is used."""

import datetime
import hashlib
import http.server
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from earshot import files
from earshot.datasets import fetch as data
from earshot.files import Asset, download
from earshot.files import fetch as fetch_asset
from earshot.types import EarshotError

CONTENT = b"weights" * 1000
ROOM = 100_000
# Addresses with why none of them is followed.
SCHEMES = {
    "file:///etc/hostname": "not allowed",
    "ftp://127.0.0.1:9/w.bin": "which is not https",
    "http://127.0.0.1:9/w.bin": "which is not https",
    "data:text/plain,weights": "not allowed",
    "gopher://127.0.0.1:9/w.bin": "not allowed",
    "//127.0.0.1:9/w.bin": "could not be fetched",  # It is https, and nobody is there.
}


class Hostile(http.server.BaseHTTPRequestHandler):
    """Answers each path in its own wrong way; `/w.bin` in the right one."""

    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        name, _, rest = self.path[1:].partition("?")
        answer: Callable[[str], None] = getattr(self, f"answer_{name.replace('.', '_')}")
        try:
            answer(rest)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True  # The client has had enough, as it should.

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    @property
    def start(self) -> int:
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))

    def answer_w_bin(self, _: str) -> None:
        left = CONTENT[self.start :]
        stated = f"bytes {self.start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        self.head(206 if self.start else 200, Content_Length=len(left), Content_Range=stated)
        self.wfile.write(left)

    def answer_to(self, location: str) -> None:
        self.head(302, Location=location)

    def answer_loop(self, _: str) -> None:
        self.head(302, Location="/loop")

    def answer_host(self, _: str) -> None:
        port = self.server.server_address[1]
        self.head(302, Location=f"https://localhost:{port}/w.bin")

    def answer_short(self, _: str) -> None:
        self.head(200, Content_Length=len(CONTENT) + 5000)
        self.wfile.write(CONTENT)

    def answer_long(self, _: str) -> None:
        self.head(200, Content_Length=1000)
        self.wfile.write(CONTENT)

    def answer_endless(self, _: str) -> None:
        self.head(200)
        while True:
            self.wfile.write(bytes(10_000))

    def answer_huge(self, _: str) -> None:
        self.head(200, Content_Length=10**15)
        self.answer_endless("")

    def answer_other_part(self, _: str) -> None:
        self.head(206, Content_Length=500, Content_Range=f"bytes 0-499/{len(CONTENT)}")
        self.wfile.write(CONTENT[:500])

    def answer_no_ranges(self, _: str) -> None:
        self.head(200, Content_Length=len(CONTENT))
        self.wfile.write(CONTENT)

    def answer_torn_chunks(self, _: str) -> None:
        self.head(200, Transfer_Encoding="chunked")
        self.wfile.write(b"ffff\r\nonly this")

    def answer_garbage(self, _: str) -> None:
        self.wfile.write(b"no status at all\r\n\r\n")

    def answer_headers(self, _: str) -> None:
        self.head(200, **{f"X{i}": i for i in range(1000)})

    def answer_error(self, _: str) -> None:
        self.head(500)

    def answer_page(self, _: str) -> None:
        self.head(200, Content_Length=6)
        self.wfile.write(b"<html>")

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of this machine's own names, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    pem = serialization.Encoding.PEM
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(pem)
    )
    return path


@pytest.fixture
def address(certificate: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A https server that this test alone trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("EARSHOT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EARSHOT_ASSETS", "")
    monkeypatch.setattr(files, "MOST_BYTES", ROOM)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hostile) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def asset(url: str) -> Asset:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    return Asset(name="w.bin", url=url, licence="MIT", sha256=sha256)


def kept(folder: Path) -> list[str]:
    """All that a download left that could be taken for a file."""
    return [p.name for p in folder.rglob("*") if p.is_file() and p.suffix not in (".part", "")]


WRONG = {
    "short": "5000 bytes early",
    "endless": f"more than {ROOM} bytes",
    "huge": f"room for {ROOM}",
    "torn_chunks": "IncompleteRead",
    "garbage": "no status at all",
    "headers": "more than 100 headers",
    "error": "500",
    "loop": "redirect",
    "long": "SHA-256",
    "page": "SHA-256",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_not_the_file_is_told_and_not_kept(
    address: str, tmp_path: Path, wrong: str
) -> None:
    with pytest.raises(EarshotError, match=WRONG[wrong]) as raised:
        fetch_asset(asset(f"{address}/{wrong}"))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "home" / "assets" / "w.bin").exists()
    part = tmp_path / "home" / "assets" / "w.bin.part"
    assert not part.exists() or part.stat().st_size <= len(CONTENT)


@pytest.mark.parametrize("wrong", [*WRONG, *SCHEMES])
def test_data_that_is_not_as_published_is_never_in_its_place(
    address: str, tmp_path: Path, wrong: str
) -> None:
    """A published hash, and the file from a server that gives another."""
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    path = f"to?{wrong}" if wrong in SCHEMES else wrong
    remote = data.Remote(url=f"{address}/{path}", name="table.csv", md5=md5)
    with pytest.raises(EarshotError) as raised:
        data.fetch([remote], tmp_path / "data")
    assert "table.csv" in str(raised.value)
    assert not (tmp_path / "data" / "table.csv").exists()
    right = data.Remote(url=f"{address}/w.bin", name="table.csv", md5=md5)
    assert data.fetch([right], tmp_path / "data") == ["table.csv"]
    assert (tmp_path / "data" / "table.csv").read_bytes() == CONTENT


def test_what_was_put_there_by_hand_and_is_wrong_is_kept_aside(
    address: str, tmp_path: Path
) -> None:
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    (tmp_path / "table.csv").write_bytes(b"another")
    remote = data.Remote(url=f"{address}/w.bin", name="table.csv", md5=md5)
    with pytest.raises(EarshotError, match=r"table\.csv\.wrong has another MD5"):
        data.fetch([remote], tmp_path)
    assert (tmp_path / "table.csv.wrong").read_bytes() == b"another"
    assert not (tmp_path / "table.csv").exists()


@pytest.mark.parametrize("location", SCHEMES)
def test_no_redirect_leads_to_another_scheme(address: str, tmp_path: Path, location: str) -> None:
    with pytest.raises(EarshotError, match=SCHEMES[location]):
        fetch_asset(asset(f"{address}/to?{location}"))
    assert not (tmp_path / "home" / "assets" / "w.bin").exists()


def test_no_redirect_leads_to_the_right_file_over_http(address: str, tmp_path: Path) -> None:
    """It would be taken for the file, as its hash is right; where there is none, so would any."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hostile) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        location = f"http://127.0.0.1:{server.server_address[1]}/w.bin"
        with pytest.raises(EarshotError, match=f"redirected to {location}, which is not https"):
            fetch_asset(asset(f"{address}/to?{location}"))
        server.shutdown()
    assert not (tmp_path / "home" / "assets" / "w.bin").exists()


def test_a_redirect_to_another_host_is_followed(address: str) -> None:
    """Publishers keep their files elsewhere; the hash tells whether it is the file."""
    assert fetch_asset(asset(f"{address}/host")).read_bytes() == CONTENT


def test_a_host_that_nobody_vouches_for_is_refused(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(EarshotError, match="CERTIFICATE_VERIFY_FAILED"):
        fetch_asset(asset(f"{address}/w.bin"))
    assert not (tmp_path / "home" / "assets" / "w.bin").exists()


def test_a_part_of_another_file_is_not_gone_on_with(address: str, tmp_path: Path) -> None:
    """It is noticed by the hash, and the next try begins anew."""
    part = tmp_path / "home" / "assets" / "w.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 3000)
    with pytest.raises(EarshotError, match="SHA-256"):
        fetch_asset(asset(f"{address}/w.bin"))
    assert kept(part.parent) == []
    assert fetch_asset(asset(f"{address}/w.bin")).read_bytes() == CONTENT


def test_another_part_than_was_asked_for_is_refused(address: str, tmp_path: Path) -> None:
    target, part = tmp_path / "w.bin", tmp_path / "w.bin.part"
    part.write_bytes(CONTENT[:3000])
    with pytest.raises(OSError, match="another part than was asked for"):
        download(f"{address}/other_part", target)
    assert not part.exists()
    assert not target.exists()


def test_a_server_without_ranges_gives_the_whole_again(address: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin.part").write_bytes(b"x" * 3000)
    download(f"{address}/no_ranges", tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
