"""Recordings in object stores: `s3://bucket/folder` is listed, an object is fetched to be heard.

One idea: an object is a file that is elsewhere. Its listing gives the same state as a file's stat,
and a copy under its own name lies here for as long as it is worked on. Credentials, regions and
endpoints are those of the store's own library (for S3 the variables and files of the AWS tools).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from earshot.files import one_line, sha256_of
from earshot.files.passing import passing_folder
from earshot.types import AudioError, EarshotError, FileState

# Scheme to the package that speaks it.
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
SEPARATOR = "://"
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
    with passing_folder() as folder:
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
