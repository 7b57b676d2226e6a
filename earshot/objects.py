"""Recordings in object stores: `s3://bucket/folder` is listed, an object is fetched to be heard.

One idea: an object is a file that is elsewhere. Its listing gives the same state as a file's stat,
and a copy under its own name lies here for as long as it is worked on. Credentials, regions and
endpoints are those of the store's own library (for S3 the variables and files of the AWS tools).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from functools import cache
from hashlib import sha256
from pathlib import Path, PurePosixPath
from platform import node
from shutil import rmtree
from tempfile import gettempdir
from typing import Any
from uuid import uuid4

from earshot.files import locked, one_line, sha256_of
from earshot.types import AudioError, EarshotError, FileState

# Scheme to the package that speaks it.
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
SEPARATOR = "://"
COPIES = "earshot-copies-"
CHANGED_KEYS = ("LastModified", "last_modified", "updated", "mtime")
VERSION_KEYS = ("ETag", "etag", "generation", "md5Hash")


def is_uri(path: object) -> bool:
    """Whether a path is that of an object in a store, or is meant to be."""
    return isinstance(path, str) and SEPARATOR in path


def list_objects(uri: str) -> Iterator[tuple[str, os.stat_result]]:
    """All objects below an address by name, each with its state; nothing where nothing is.

    Raises:
        EarshotError: the scheme is unknown, its package is missing, or the store refuses.
    """
    files = file_system(uri)
    try:
        found = files.find(uri, detail=True)
    except FileNotFoundError:
        return
    except Exception as error:  # noqa: BLE001 - each store has errors of its own
        raise EarshotError(f"{uri} cannot be listed: {one_line(error)}") from error
    scheme, _, _ = uri.partition(SEPARATOR)
    for name, info in sorted(found.items()):
        if info.get("type") != "directory":
            yield f"{scheme}{SEPARATOR}{name.lstrip('/')}", stat_of(info)


@contextmanager
def fetched(uri: str) -> Iterator[tuple[Path, FileState]]:
    """A copy of an object under its own name, with its state; gone afterwards.

    Raises:
        AudioError: it cannot be had.
    """
    forget_copies_of_the_dead()
    with copies_folder() as folder:
        copy = folder / PurePosixPath(uri).name
        try:
            files = file_system(uri)
            # Asked first: what changes in between is seen by the next run.
            stat = stat_of(files.info(uri))
            files.get_file(uri, str(copy))
        except EarshotError:
            raise
        except FileNotFoundError as error:
            raise AudioError(uri, "no such file or directory") from error
        except Exception as error:  # noqa: BLE001 - each store has errors of its own
            raise AudioError(uri, f"it cannot be fetched: {one_line(error)}") from error
        os.utime(copy, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
        yield (
            copy,
            FileState(
                path=uri,
                size_bytes=stat.st_size,
                mtime_ns=stat.st_mtime_ns,
                ctime_ns=stat.st_ctime_ns,
                sha256=sha256_of(copy),
            ),
        )


@contextmanager
def copies_folder() -> Iterator[Path]:
    """A folder of one's own for copies; while its lock, beside it, is held, it is in use."""
    folder = Path(gettempdir(), f"{COPIES}{machine()}-{uuid4().hex}")
    with ExitStack() as until_done:
        until_done.callback(lock_of(folder).unlink, missing_ok=True)  # Once it is closed: Windows.
        with suppress(OSError):  # A file system without locks; nobody takes it for left over there.
            until_done.enter_context(locked(lock_of(folder), passing=True))
        folder.mkdir(mode=0o700)
        until_done.callback(rmtree, folder, ignore_errors=True)
        yield folder


@cache
def forget_copies_of_the_dead() -> None:
    """Remove, once in a process, what killed processes of this machine left.

    A process number would not tell: folders for temporary files are shared by containers, where
    numbers mean other processes, and by machines, where locks may be each one's own.
    """
    if sys.platform == "win32":  # Nothing is locked there.
        return
    for folder in Path(gettempdir()).glob(f"{COPIES}{machine()}-*/"):
        with suppress(OSError, EarshotError):
            if lock_of(folder).exists():
                with locked(lock_of(folder), busy="it is in use", passing=True):
                    rmtree(folder, ignore_errors=True)


def machine() -> str:
    """This machine's name, for the name of a file."""
    return re.sub(r"\W", "_", node())


def lock_of(folder: Path) -> Path:
    """What is locked while copies are in use; it is there before their folder is."""
    return folder.with_name(f"{folder.name}.lock")


def file_system(uri: str) -> Any:
    """What speaks a store's language.

    Raises:
        EarshotError: nothing does, or its package is missing.
    """
    scheme, _, rest = uri.partition(SEPARATOR)
    if scheme not in PACKAGES or not rest:
        allowed = ", ".join(f"{known}{SEPARATOR}…" for known in PACKAGES)
        raise EarshotError(f"{uri!r} is no place of recordings; use a folder, a file, {allowed}")
    import fsspec

    try:
        # What a listing said an hour ago is not what is there now.
        return fsspec.filesystem(scheme, use_listings_cache=False)
    except ImportError as error:
        package = PACKAGES[scheme]
        raise EarshotError(
            f"recordings in {scheme}{SEPARATOR}… need {package}; run: pip install {package}"
        ) from error


def stat_of(info: Mapping[str, Any]) -> os.stat_result:
    """A listing's size, time of change and version, as of a file.

    The version, a number made of it, stands where a file has the time of its change: any new
    content moves it. Times are whole seconds, as not all of a store's answers have more.
    """
    changed = next((info[key] for key in CHANGED_KEYS if info.get(key)), None)
    if isinstance(changed, str):
        changed = datetime.fromisoformat(changed)
    changed_s = int(changed.timestamp()) if isinstance(changed, datetime) else 0
    version = next((str(info[key]) for key in VERSION_KEYS if info.get(key)), "")
    number = int.from_bytes(sha256(version.encode()).digest()[:7], "big") if version else 0
    basic = (0, 0, 0, 0, 0, 0, int(info.get("size") or 0), 0, changed_s, 0)
    return os.stat_result(basic, {"st_mtime_ns": changed_s * 10**9, "st_ctime_ns": number})
