"""Unpack 7z and zip archives that strangers made: nothing lands outside of the folder.

Names are checked before anything is written: no absolute path, no `..`, no link. An archive is
unpacked beside its place, and only moved there, file by file, when all of it was sound.
"""

from __future__ import annotations

import shutil
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from earshot.types import EarshotError


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file or folder of an archive."""

    name: str
    size_bytes: int
    is_link: bool


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive into a folder; files that are there under other names stay.

    Raises:
        EarshotError: it is damaged, too large for the disk, or would write elsewhere.
    """
    members = list(_members(archive))
    refuse_unsafe(archive, members)
    _require_space(archive, folder, sum(member.size_bytes for member in members))
    partial = folder / f".{archive.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _extract(archive, partial)
    for path in partial.rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    shutil.rmtree(partial)


def refuse_unsafe(archive: Path, members: list[Member]) -> None:
    """Check the names of an archive.

    Raises:
        EarshotError: one would be written outside of the folder, or is a link.
    """
    for member in members:
        for name in (PurePosixPath(member.name), PureWindowsPath(member.name)):
            if name.is_absolute() or name.anchor or ".." in name.parts:
                what = f"{archive}: holds {member.name!r}, which lies outside of the folder"
                raise EarshotError(f"{what}; this is no archive to trust")
        if member.is_link:
            what = f"{archive}: holds the link {member.name!r}"
            raise EarshotError(f"{what}; this is no archive to trust")


def _members(archive: Path) -> Iterator[Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                link = stat.S_ISLNK(info.external_attr >> 16)
                yield Member(name=info.filename, size_bytes=info.file_size, is_link=link)
        return
    from py7zr import SevenZipFile
    from py7zr.exceptions import ArchiveError

    try:
        with SevenZipFile(archive) as seven:
            for entry in seven.list():
                yield Member(
                    name=entry.filename,
                    size_bytes=entry.uncompressed or 0,
                    is_link=not (entry.is_file or entry.is_directory),
                )
    except (ArchiveError, EOFError, OSError) as error:
        raise _damaged(archive, error) from error


def _extract(archive: Path, folder: Path) -> None:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(folder)  # noqa: S202 - the names are checked
            return
        from py7zr import SevenZipFile

        with SevenZipFile(archive) as seven:
            seven.extractall(folder)
    except Exception as error:  # noqa: BLE001 - decompressors raise errors of their own kinds
        raise _damaged(archive, error) from error


def _damaged(archive: Path, error: Exception) -> EarshotError:
    what = str(error) or type(error).__name__
    return EarshotError(f"{archive} is damaged or no archive ({what}); delete it, fetch it again")


def _require_space(archive: Path, folder: Path, needed_bytes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        what = f"{archive.name} unpacks to {needed_bytes / 1e9:.1f} GB"
        raise EarshotError(f"{what}, but {folder} has {free_bytes / 1e9:.1f} GB free; make room")
