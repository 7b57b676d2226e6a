"""Folders that are there while a process works in them; what a killed one left is removed.

One idea: a locked file lies beside each, so a lock that can be had is that of a dead process. They
lie in the user's cache: what lies in the folder for temporary files, others may have put there.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from platform import node
from shutil import rmtree
from tempfile import TemporaryDirectory
from uuid import uuid4

from earshot.files import home, locked
from earshot.types import EarshotError

PLACE = "passing"


@contextmanager
def passing_folder() -> Iterator[Path]:
    """An empty folder of one's own, gone at the end; if killed, when a process next needs one.

    Where the cache cannot be written to it is a temporary folder, which a killed process leaves.
    """
    place = home() / PLACE
    with suppress(OSError):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        with TemporaryDirectory(prefix="earshot-", ignore_cleanup_errors=True) as temporary:
            yield Path(temporary)
        return
    forget_the_dead(place)
    folder = place / f"{machine()}-{uuid4().hex}"
    with ExitStack() as until_done:
        until_done.callback(lock_of(folder).unlink, missing_ok=True)  # Once it is closed: Windows.
        with suppress(OSError):  # A file system without locks; nobody takes it for left over there.
            until_done.enter_context(locked(lock_of(folder), passing=True))
        folder.mkdir(mode=0o700)
        until_done.callback(rmtree, folder, ignore_errors=True)
        yield folder


@cache
def forget_the_dead(place: Path) -> None:
    """Remove, once in a process, what killed processes of this machine left.

    A process number would not tell: caches are shared by containers, where numbers mean other
    processes, and by machines, where locks may be each one's own.
    """
    if sys.platform == "win32":  # Nothing is locked there.
        return
    for folder in place.glob(f"{machine()}-*/"):
        with suppress(OSError, EarshotError):
            if lock_of(folder).exists():
                with locked(lock_of(folder), busy="it is in use", passing=True):
                    rmtree(folder, ignore_errors=True)


def machine() -> str:
    """This machine's name, for the name of a file."""
    return re.sub(r"\W", "_", node())


def lock_of(folder: Path) -> Path:
    """What is locked while a folder is in use; it is there before the folder is."""
    return folder.with_name(f"{folder.name}.lock")
