"""Files that are whole or not there: written aside, renamed, locked, brought to the disk."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from earshot.types import EarshotError

# What is written beside its place until it is whole, file or folder; a killed process leaves it.
DRAFT = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{32}(?:\.old)?")

# Nothing is emptied, no link is followed, no pipe is waited for; Windows has neither of these two.
LOCK_FLAGS = os.O_RDWR | os.O_CREAT
LOCK_FLAGS |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that appears whole or not at all, also after a crash or a loss of power.

    Raises:
        EarshotError: its folder cannot be written to, or is full.
    """
    draft = _draft(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            draft.unlink()
        ours = (None, *map(str, (draft, *path.parents)))
        if isinstance(error, OSError) and error.filename in ours:
            raise _not_writable(path, error) from error
        raise


def sync_folder(folder: Path) -> None:
    """Bring to the disk which names a folder holds: without, a loss of power may undo a rename."""
    if sys.platform == "win32":  # Folders cannot be opened there, and need not be.
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # Some network file systems know no such thing.
            os.fsync(opened)
    finally:
        os.close(opened)


def clear_drafts(folder: Path, name: str = "") -> None:
    """Delete what killed processes had not written to the end in a folder, of all names or one.

    For who holds the folder's lock: what another process is writing would go too.
    """
    for draft in folder.glob(".*"):
        found = DRAFT.fullmatch(draft.name)
        if found and name in ("", found["name"]):
            if draft.is_dir():
                shutil.rmtree(draft, ignore_errors=True)
            else:
                draft.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, *, busy: str = "", passing: bool = False) -> Iterator[None]:
    """Keep other processes out of what a lock file stands for; a killed one lets go by itself.

    One that is `passing` is deleted at the end. What the file holds stays as it is.

    Raises:
        EarshotError: another process is in there, and `busy` says so; without it, it is waited for.
            Or the file cannot be written, or is a link, a pipe or the like.
    """
    with _opened(path) as file:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
            except BlockingIOError as error:
                raise EarshotError(busy) from error
            if passing and not _is_at(path, file.fileno()):
                raise EarshotError(busy)  # Who held it deleted it since it was opened.
        try:
            yield
        finally:
            if passing:
                with suppress(OSError):  # Windows deletes no open file.
                    path.unlink()


def _opened(path: Path) -> IO[bytes]:
    """A lock's file. In a folder of many users somebody may have put something else there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(os.open(path, LOCK_FLAGS, 0o666), "rb")
    except OSError as error:
        if not (path.is_symlink() or path.is_dir()):
            raise _not_writable(path, error) from error
    else:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
    raise EarshotError(f"{path} is to be a lock, and is no regular file; remove it")


def _is_at(path: Path, opened: int) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(opened))
    except FileNotFoundError:
        return False


def require_writable(*paths: Path | None) -> None:
    """Refuse outputs that could not be written, before the work for them is done.

    Their folders are made where they are missing. None is an output that nobody wants.

    Raises:
        EarshotError: with the path and the reason.
    """
    for path in filter(None, paths):
        draft = _draft(path)
        try:
            if path.is_dir():
                raise EarshotError(f"{path} is a folder; give the name of a file")
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.open("xb").close()
            draft.unlink()
        except OSError as error:
            raise _not_writable(path, error) from error


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


def _not_writable(path: Path, error: OSError) -> EarshotError:
    below_a_file = isinstance(error, FileExistsError | NotADirectoryError)
    reason = "its folder is a file" if below_a_file else (error.strerror or str(error)).lower()
    return EarshotError(f"{path} cannot be written: {reason}; give another file or folder")
