"""What the server knows of the files of its index, read once and renewed: ids, lists, facets.

One idea: an id stands for a path of the index and nothing else, so that no text of a request ever
becomes a file name.
"""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from threading import Lock, Thread

from earshot.types import EarshotError, FileRecord, Store

# How old what is known may be before another process's changes are looked for.
STALE_S = 20.0
MAX_FACETS = 200


def id_of(path: str) -> str:
    """The id of an indexed file: 16 hexadecimal digits."""
    return hashlib.sha256(path.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Listing:
    """The files of an index at one moment; the searchable ones by id, in order of their paths."""

    files: Mapping[str, FileRecord]
    broken: Sequence[FileRecord]

    @classmethod
    def of(cls, records: Mapping[str, FileRecord]) -> Listing:
        """Sort what a store holds."""
        ordered = [records[path] for path in sorted(records)]
        return cls(
            files={id_of(r.state.path): r for r in ordered if not r.broken},
            broken=[record for record in ordered if record.broken],
        )

    @cached_property
    def duration_s(self) -> float:
        """Of all searchable files together."""
        return sum(record.duration_s for record in self.files.values())

    @cached_property
    def common_folder(self) -> str:
        """The deepest folder that holds everything."""
        folders = {str(PurePath(record.state.path).parent) for record in self.files.values()}
        try:
            return os.path.commonpath(folders) if folders else ""
        except ValueError:  # Several drives.
            return ""

    @cached_property
    def facets(self) -> dict[str, list[tuple[str | int, int]]]:
        """What can be filtered by, and how many files have it, most frequent first."""
        records = self.files.values()
        return {
            "folder": _most_common(self._folders()),
            "licence": _most_common(r.notes.licence for r in records if r.notes.licence),
            "tag": _most_common(tag for r in records for tag in r.notes.tags),
            "category": _most_common(r.notes.category for r in records if r.notes.category),
            "creator": _most_common(r.notes.creator for r in records if r.notes.creator),
            "sample_rate_hz": _most_common(r.sample_rate_hz for r in records),
            "channels": _most_common(r.channels for r in records),
        }

    def _folders(self) -> Iterable[str]:
        """Every folder below the common one, once for each file in it or further down."""
        counts = Counter(PurePath(record.state.path).parent for record in self.files.values())
        common = PurePath(self.common_folder)
        for folder, count in counts.items():
            for parent in (folder, *folder.parents):
                if parent == common or parent == parent.parent:
                    break
                yield from [str(parent)] * count


def _most_common(values: Iterable[str | int]) -> list[tuple[str | int, int]]:
    counted = Counter(values).items()
    return sorted(counted, key=lambda pair: (-pair[1], str(pair[0])))[:MAX_FACETS]


class Catalogue:
    """The latest listing of a store's files."""

    def __init__(self, store: Store) -> None:
        self._store, self._lock, self._renewing = store, Lock(), Lock()
        self._listing = Listing.of(store.files())
        self._read_s = time.monotonic()

    def turn_to(self, store: Store) -> None:
        """Read another store from now on."""
        with self._lock:
            self._store = store
        self.refresh()

    def now(self) -> Listing:
        """What is known; where that is old, it is renewed meanwhile for those who ask next."""
        old = time.monotonic() - self._read_s > STALE_S
        if old and self._renewing.acquire(blocking=False):
            Thread(target=self._renew, daemon=True).start()
        return self._listing

    def _renew(self) -> None:
        """Read the store again; where it cannot be read, what is known stays, and that is told."""
        try:
            self.refresh()
        except EarshotError as error:
            warnings.warn(f"the list of recordings is an old one: {error}", stacklevel=1)
        finally:
            self._read_s = time.monotonic()
            self._renewing.release()

    def refresh(self) -> Listing:
        """Read the store again."""
        with self._lock:
            self._listing = Listing.of(self._store.files())
            self._read_s = time.monotonic()
            return self._listing

    def find(self, clip_id: str) -> FileRecord | None:
        """The searchable file of an id, also of one that has come since; None if there is none."""
        return self.now().files.get(clip_id)

    def record(self, path: str) -> FileRecord | None:
        """The file of a hit, whose path may be newer than what is known."""
        return self.find(id_of(path)) or self.refresh().files.get(id_of(path))
