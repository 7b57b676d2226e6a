"""A table's new files brought to the disk: LanceDB leaves to the system when that is done.

A loss of power in the half minute after a commit could otherwise leave a version whose rows are
cut off or zeros. What is left is the moment of the commit itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from earshot.files import sync_folder
from earshot.store.connection import explained


class TableDisk:
    """What of a table's folder is on the disk; for one in an object store nothing is to do."""

    def __init__(self, uri: str, table: str) -> None:
        self.uri = uri
        self.folder = None if "://" in uri else Path(uri) / f"{table}.lance"
        self._synced = self._files()

    @contextmanager
    def commits(self, task: str) -> Iterator[None]:
        """What is done here is on the disk at the end.

        Raises:
            EarshotError: see `explained`.
        """
        with explained(self.uri, task):
            yield
            self.sync()

    def begin(self) -> None:
        """Bring all of a new table to the disk, and that its folder is there."""
        self._synced = set()
        self.sync()
        if self.folder is not None:
            for folder in (self.folder.parent, self.folder.parent.parent):
                sync_folder(folder)

    def _files(self) -> set[Path]:
        if self.folder is None:
            return set()
        walked = os.walk(self.folder)
        return {Path(folder, name) for folder, _, names in walked for name in names}

    def sync(self) -> None:
        """Bring files that came since the last time to the disk, then their names."""
        if self.folder is None:
            return
        found = self._files()
        new = found - self._synced
        for path in new:
            with suppress(FileNotFoundError), path.open("rb") as file:  # Others may tidy up.
                os.fsync(file.fileno())
        parents = {parent for path in new for parent in path.parents}
        for folder in {parent for parent in parents if parent.is_relative_to(self.folder)}:
            with suppress(FileNotFoundError):
                sync_folder(folder)
        self._synced = found
