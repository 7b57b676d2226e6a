"""Files that must be right: content hashes, atomic writes, verified downloads of assets.

An asset is looked for in the cache (`EARSHOT_HOME`), in the read-only folders of `EARSHOT_ASSETS`,
in an installed package that ships it, then at its public address. These two variables are the only
ones that earshot reads below its command line.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import Any

from earshot.files.writing import (
    DRAFT,
    atomic_write,
    clear_drafts,
    locked,
    require_writable,
    sync_folder,
)
from earshot.types import EarshotError

__all__ = [
    "Asset",
    "DRAFT",
    "NotHereError",
    "asset_folders",
    "asset_hash",
    "atomic_write",
    "clear_drafts",
    "download",
    "fetch",
    "find",
    "has_md5",
    "home",
    "locked",
    "one_line",
    "package_folder",
    "recorded_hash",
    "require_writable",
    "sha256_of",
    "sync_folder",
    "verify",
]

BLOCK_BYTES = 1 << 20
SCHEME = "https://"
TIMEOUT_S = 30.0
MOST_BYTES = 1 << 37
"""No published file that is fetched here is nearly as large; a body without an end is cut off."""


class NotHereError(EarshotError):
    """An asset is neither on this machine nor to be had now; nothing is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A file that others published. Without a published SHA-256 the first use records one.

    It may be published in `parts`, which are fetched and joined, or only where a person has to
    fetch it (`by_hand`): then `url` is the page that tells how.
    """

    name: str
    url: str
    licence: str
    sha256: str = ""
    md5: str = ""
    parts: tuple[str, ...] = ()
    by_hand: bool = False


def home() -> Path:
    """The cache folder: `EARSHOT_HOME`, else `earshot` in the user's cache folder."""
    if folder := os.environ.get("EARSHOT_HOME"):
        return Path(folder)
    base = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME")
    return Path(base) / "earshot" if base else Path.home() / ".cache" / "earshot"


def asset_folders() -> list[Path]:
    """Where assets are looked for, in order."""
    extra = os.environ.get("EARSHOT_ASSETS", "").split(os.pathsep)
    return [home() / "assets", *(Path(folder) for folder in extra if folder)]


def package_folder(package: str, inside: str) -> Path | None:
    """A folder that an installed package ships, found without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / inside
    return folder if folder.is_dir() else None


def sha256_of(path: str | Path, most_bytes: int | None = None) -> str:
    """The SHA-256 of a file's content, or of no more than its first bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        if most_bytes is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest, left = hashlib.sha256(), most_bytes
        while left > 0 and (content := file.read(min(left, BLOCK_BYTES))):
            digest.update(content)
            left -= len(content)
        return digest.hexdigest()


def find(asset: Asset) -> Path | None:
    """The asset's file if it is on this machine; a wrong copy is passed over for a right one.

    Raises:
        EarshotError: there are only wrong ones.
    """
    wrong: EarshotError | None = None
    for folder in asset_folders():
        path = folder / asset.name
        if path.is_file():
            try:
                verify(asset, path)
            except EarshotError as error:
                wrong = wrong or error
            else:
                return path
    if wrong:
        raise wrong
    return None


def fetch(asset: Asset, report: Callable[[int], None] | None = None) -> Path:
    """The asset's file, downloaded if need be; `report` is told the bytes received so far.

    Who asks for it while another process fetches it waits for that.

    Raises:
        NotHereError: neither here nor to be had.
        EarshotError: not the file that it should be.
    """
    if path := find(asset):
        return path
    path = home() / "assets" / asset.name
    place = f"put it into {path.parent}, or name its folder in EARSHOT_ASSETS"
    if asset.by_hand:
        raise NotHereError(f"{asset.name} is not here; {asset.url} tells where to get it: {place}")
    lock = home() / "locks" / asset.name
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock):
            return find(asset) or fetched(asset, path, report)
    except (OSError, HTTPException) as error:
        raise NotHereError(
            f"{asset.name} is not here and could not be fetched from {asset.url} "
            f"({one_line(error)}); "
            f"get it there and {place}"
        ) from error


def fetched(asset: Asset, path: Path, report: Callable[[int], None] | None) -> Path:
    """Download an asset to a path, and check it.

    Raises:
        EarshotError: it is not the file that it should be; it is not kept.
    """
    if asset.parts:
        download_parts(asset.parts, path, report)
    else:
        download(asset.url, path, report)
    try:
        verify(asset, path)
    except EarshotError:
        path.unlink()
        raise
    return path


def verify(asset: Asset, path: Path) -> None:
    """Check a file against the asset's published hash, or the one that `record` kept.

    Raises:
        EarshotError: the content is another.
    """
    if asset.md5 and not asset.sha256 and not recorded_hash(asset) and not has_md5(path, asset.md5):
        raise EarshotError(
            f"{path} is not the published {asset.name}: its MD5 is not {asset.md5}; "
            f"replace it from {asset.url}"
        )
    expected = asset.sha256 or recorded_hash(asset)
    if not expected:
        return
    found = sha256_of(path)
    if found != expected:
        whose = "" if asset.sha256 else f" by {record_path(asset)}, written when it was first used"
        raise EarshotError(
            f"{path} has SHA-256 {found[:12]}… but {asset.name} has {expected[:12]}…{whose}; "
            f"replace it from {asset.url}"
        )


def has_md5(path: Path, md5: str) -> bool:
    """Whether a file has the MD5 that its publisher gives; it is no guard against forgery."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest() == md5


def record(asset: Asset, path: Path) -> None:
    """Keep the hash of a file that has proved to be good, where none was published."""
    if not asset.sha256 and not recorded_hash(asset):
        with atomic_write(record_path(asset)) as file:
            file.write(sha256_of(path).encode())


def record_path(asset: Asset) -> Path:
    """Where the hash of an asset is kept."""
    return home() / "assets" / f"{asset.name}.sha256"


def recorded_hash(asset: Asset) -> str:
    """The hash kept at the first use; empty before."""
    path = record_path(asset)
    return path.read_text().strip() if path.is_file() else ""


def asset_hash(asset: Asset) -> str:
    """The hash that stands for the asset: published, kept, or that of the file."""
    return asset.sha256 or recorded_hash(asset) or sha256_of(fetch(asset))


class SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https alone."""

    def redirect_request(self, req: Any, fp: Any, *args: Any) -> urllib.request.Request | None:
        """Refuse any other scheme."""
        request = super().redirect_request(req, fp, *args)
        if request is not None and request.type != "https":
            fp.close()
            raise urllib.error.URLError(f"redirected to {request.full_url}, which is not https")
        return request


def download(url: str, path: Path, report: Callable[[int], None] | None = None) -> None:
    """Fetch a https address into a file; an interrupted download goes on where it stopped.

    Raises:
        EarshotError: another scheme.
        OSError: the server gave less than it stated, another part than was asked for, or no end.
    """
    if not url.startswith(SCHEME):
        raise EarshotError(f"{url} is not a https address")
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"})  # noqa: S310 - https
    version = part_version(part) if done else ""
    if version:
        request.add_header("If-Range", version)
    opener = urllib.request.build_opener(SecureRedirects)
    with open_or_start_over(opener, request, part) as reply:
        resumed = reply.status == 206
        if resumed and not continues(reply.headers, done, version):
            part.unlink(missing_ok=True)
            raise OSError("the server sent another part than was asked for; run it again")
        done = done if resumed else 0
        if not done:
            keep_version(part, reply.headers)
        receive(reply, part, done, report)
    part.replace(path)
    version_path(part).unlink(missing_ok=True)


def receive(reply: Any, part: Path, done: int, report: Callable[[int], None] | None) -> None:
    """Write what a server sends behind the `done` bytes of a part.

    Raises:
        OSError: it gave less than it stated, or more than there is room for.
    """
    most = min(MOST_BYTES, done + shutil.disk_usage(part.parent).free)
    if done + (reply.length or 0) > most:
        raise OSError(f"it has {done + reply.length} bytes, and there is room for {most}")
    with part.open("ab" if done else "wb") as file:
        while done <= most and (block := reply.read(BLOCK_BYTES)):
            file.write(block)
            done += len(block)
            if report:
                report(done)
    if done > most:
        part.unlink()
        raise OSError(f"it has more than {most} bytes, and there is no room for that")
    # A connection that is cut looks like an end: only the stated length tells.
    if reply.length:
        raise OSError(f"the connection ended {reply.length} bytes early; run it again")


def version_path(part: Path) -> Path:
    """Where it is kept which version of a file a part is of."""
    return part.with_name(f"{part.name}.version")


def part_version(part: Path) -> str:
    """The entity tag of the file that a part is of; empty where its server gave none."""
    path = version_path(part)
    return path.read_text().strip() if path.is_file() else ""


def keep_version(part: Path, headers: Message) -> None:
    """Begin a part anew, of the version that a server sends now."""
    part.unlink(missing_ok=True)  # First: what is there of an older version has no name then.
    version_path(part).unlink(missing_ok=True)
    tag = headers.get("ETag", "")
    if tag.startswith('"'):  # A weak one (W/…) does not tell that all bytes are the same.
        version_path(part).write_text(tag)


def one_line(error: Exception) -> str:
    """What an error says, whatever a server put into it; its kind where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def continues(headers: Message, start: int, version: str) -> bool:
    """Whether what a server sends begins where it was asked to, in the version of the part.

    A server that says nothing of either is believed.
    """
    stated = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    tag = headers.get("ETag", "")
    return (stated is None or int(stated[1]) == start) and (not (tag and version) or tag == version)


def download_parts(
    urls: Iterable[str], path: Path, report: Callable[[int], None] | None = None
) -> None:
    """Fetch the parts of a file, each resumable, and join them; `report` counts each anew."""
    parts: list[Path] = []
    for number, url in enumerate(urls):
        parts.append(path.with_name(f"{path.name}.{number}"))
        if not parts[-1].exists():
            download(url, parts[-1], report)
    with atomic_write(path) as whole:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, whole, BLOCK_BYTES)
    for part in parts:
        part.unlink()


def open_or_start_over(
    opener: urllib.request.OpenerDirector, request: urllib.request.Request, part: Path
) -> Any:
    """Ask for the rest of a file; a rest that the server does not have means starting over."""
    try:
        return opener.open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416:
            raise
        part.unlink(missing_ok=True)
        request.remove_header("Range")
        request.remove_header("If-range")
        return opener.open(request, timeout=TIMEOUT_S)
