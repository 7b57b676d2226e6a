"""A store that lives in the process: exact, gone at exit. For tests, tiny libraries, evaluation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from earshot.conditions import NUMBER_FIELDS, filter_columns
from earshot.store.checks import check_files, check_search, unit_queries
from earshot.store.exact import SegmentTable, search_exactly
from earshot.store.held import Held
from earshot.types import (
    Condition,
    EarshotError,
    EmbeddedFile,
    FileRecord,
    Manifest,
    SegmentHit,
    WordHit,
)

TEXT_COLUMNS = ("path", "date", "facets")


class MemoryStore:
    """Files and vectors in a dict; searched by one matrix product."""

    replaced = False  # Nobody else can reach it.

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._files: dict[str, EmbeddedFile] = {}
        # With the files that it is of: others may have come while it was made.
        self._held: tuple[dict[str, EmbeddedFile], Held] | None = None

    @classmethod
    def create(cls, uri: str, manifest: Manifest) -> MemoryStore:
        """Make an empty store; `uri` is only a name."""
        return cls(manifest)

    @classmethod
    def exists(cls, uri: str) -> bool:
        """There is never anything yet."""
        return False

    @classmethod
    def open(cls, uri: str) -> MemoryStore:
        """There is never anything to open.

        Raises:
            EarshotError: always.
        """
        raise EarshotError(f"{uri}: a store in memory ends with its process; index the files first")

    def put(self, files: Sequence[EmbeddedFile]) -> None:
        """See `Store.put`."""
        check_files(files, self.manifest)
        self._files = self._files | {file.record.state.path: file for file in files}

    def drop(self, paths: Collection[str]) -> None:
        """See `Store.drop`."""
        gone = set(paths)
        self._files = {path: file for path, file in self._files.items() if path not in gone}

    def files(self) -> dict[str, FileRecord]:
        """See `Store.files`."""
        return {path: file.record for path, file in self._files.items()}

    def paths(self) -> list[str]:
        """See `Store.paths`."""
        return list(self._files)

    def segment_count(self) -> int:
        """See `Store.segment_count`."""
        return sum(len(file.segments) for file in self._files.values())

    def search(
        self, vectors: np.ndarray, limit: int, where: Sequence[Condition] = ()
    ) -> list[list[SegmentHit]]:
        """See `Store.search`."""
        check_search(limit, where)
        queries = unit_queries(vectors, self.manifest.dimension)
        return search_exactly(self.held().table, queries, limit, where)

    def search_words(
        self,
        query: str,
        limit: int,
        where: Sequence[Condition] = (),
        among: Collection[str] | None = None,
    ) -> list[WordHit]:
        """See `Store.search_words`."""
        check_search(limit, where)
        return self.held().words.search(query, limit, where, among=among)

    def segments(self, paths: Collection[str]) -> dict[str, EmbeddedFile]:
        """See `Store.segments`."""
        known = {path: self._files[path] for path in paths if path in self._files}
        return {path: in_order(file) for path, file in known.items() if file.segments}

    def held(self) -> Held:
        """All of it, of course."""
        files, known = self._files, self._held
        if known is not None and known[0] is files:
            return known[1]
        table = _segment_table(files, self.manifest.dimension)
        records = {path: file.record for path, file in files.items()}
        held = Held(table=table, records=records)
        self._held = files, held
        return held

    def optimize(self) -> None:
        """Nothing to do: memory is always compact."""


def in_order(file: EmbeddedFile) -> EmbeddedFile:
    """The file with its segments sorted by start, then end."""
    spans = file.segments
    order = sorted(range(len(spans)), key=lambda n: (spans[n].start_s, spans[n].end_s))
    return replace(file, segments=tuple(spans[n] for n in order), vectors=file.vectors[order])


def _segment_table(files: dict[str, EmbeddedFile], dimension: int) -> SegmentTable:
    order = [
        (file, number)
        for file in (in_order(file) for _, file in sorted(files.items()) if file.segments)
        for number in range(len(file.segments))
    ]
    segments = [file.segments[number] for file, number in order]
    vectors = [file.vectors[number] for file, number in order]
    asked = {path: filter_columns(file.record) for path, file in files.items()}
    rows = [asked[file.record.state.path] for file, _ in order]
    texts = {name: np.array([row[name] for row in rows], dtype=object) for name in TEXT_COLUMNS}
    numbers = {name: np.array([row[name] for row in rows]) for name in NUMBER_FIELDS}
    return SegmentTable(
        vectors=np.asarray(vectors, dtype=np.float32).reshape(len(order), dimension),
        columns={
            "start_s": np.array([segment.start_s for segment in segments]),
            "end_s": np.array([segment.end_s for segment in segments]),
            **texts,
            **numbers,
        },
    )
