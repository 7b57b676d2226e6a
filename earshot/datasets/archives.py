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

# Recordings shrink to a third; an archive that grows more than this is made to fill a disk.
MOST_EXPANSION = 100
SMALL_BYTES = 1 << 30
"""An archive that unpacks to less may hold silence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file or folder of an archive."""

    name: str
    size_bytes: int
    is_link: bool
    """Whether it is a link, a device, or anything else than a file or a folder."""
    is_folder: bool = False


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
    try:
        _extract(archive, partial)
        files = [path for path in partial.rglob("*") if path.is_file() and not path.is_symlink()]
        # Two names may be one to this disk, which knows no case or one form of Unicode alone.
        if len(files) != sum(not member.is_folder for member in members):
            what = f"{archive}: holds files of one name, or of names that are one to this disk"
            raise EarshotError(f"{what}; unpack it elsewhere and look")
        for path in files:
            target = folder / path.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_unsafe(archive: Path, members: list[Member]) -> None:
    """Check the names of an archive.

    Raises:
        EarshotError: one would be written outside of the folder, or is a link or a device.
    """
    for member in members:
        for name in (PurePosixPath(member.name), PureWindowsPath(member.name)):
            if name.is_absolute() or name.anchor or ".." in name.parts:
                what = f"{archive}: holds {member.name!r}, which lies outside of the folder"
                raise EarshotError(f"{what}; this is no archive to trust")
        if member.is_link:
            what = f"{archive}: holds the link or device {member.name!r}"
            raise EarshotError(f"{what}; this is no archive to trust")


def _members(archive: Path) -> Iterator[Member]:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                for info in opened.infolist():
                    kind = stat.S_IFMT(info.external_attr >> 16)
                    link = kind not in (0, stat.S_IFREG, stat.S_IFDIR)
                    yield Member(
                        name=info.filename,
                        size_bytes=info.file_size,
                        is_link=link,
                        is_folder=info.is_dir(),
                    )
            return
        from py7zr import SevenZipFile

        with SevenZipFile(archive) as seven:
            for entry in seven.list():
                yield Member(
                    name=entry.filename,
                    size_bytes=entry.uncompressed or 0,
                    is_link=not (entry.is_file or entry.is_directory),
                    is_folder=entry.is_directory,
                )
    except ImportError:
        raise
    except Exception as error:  # readers of archives raise errors of their own kinds
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
    if needed_bytes > max(SMALL_BYTES, MOST_EXPANSION * archive.stat().st_size):
        what = f"{archive} has {archive.stat().st_size} bytes and unpacks to {needed_bytes}"
        raise EarshotError(f"{what}; this is no archive to trust")
    folder.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        what = f"{archive.name} unpacks to {needed_bytes / 1e9:.1f} GB"
        raise EarshotError(f"{what}, but {folder} has {free_bytes / 1e9:.1f} GB free; make room")
