"""A store in a LanceDB table: a folder, or an object store that many readers share.

One row per segment, and every change to files is one commit of the table: a process killed at any
moment leaves the old rows or the new ones. Commits of several writers follow one another.
A reader sees its own commits at once and those of others within `REFRESH`, or on opening. Where
another model's vectors take the place of its own (`take_over`), it goes on with the old ones.

Up to `exact_rows` rows the table is read into memory and answers from there, exactly: 10 to 40
times faster than LanceDB's own scan. Beyond, LanceDB's indexes propose (`store.lance_index`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from earshot.store.checks import check_files, check_search, is_storable, unit_queries
from earshot.store.connection import connect, explained, giving_way
from earshot.store.disk import TableDisk
from earshot.store.exact import search_exactly
from earshot.store.expressions import any_of, rows_of, searchable
from earshot.store.held import Held
from earshot.store.lance_index import Builder, indexed_columns, is_due, make_indexes, scan
from earshot.store.lance_words import WORDS_COLUMN, ScannedWords
from earshot.store.rows import (
    FILE_COLUMNS,
    SEGMENT_COLUMNS,
    blank_rows,
    embedded_of,
    file_rows,
    files_before,
    files_in,
    manifest_of,
    paths_in,
    row_counts,
    schema_of,
    segment_table,
)
from earshot.store.words import WordIndex
from earshot.types import (
    Condition,
    EarshotError,
    EmbeddedFile,
    FileRecord,
    Manifest,
    SegmentHit,
    WordHit,
)

TABLE = "segments"
# 100,000 x 911 floats are 364 MB in memory; beyond, the scan of an index takes no longer.
EXACT_ROWS = 100_000
# Queries of one scan: reading the vectors is shared, what comes back is bounded.
BATCH_QUERIES = 64
# How long a reader may answer from what it knows before it looks for others' commits.
REFRESH = timedelta(seconds=5)
# Old versions live this long past their end, for readers that are in the middle of one.
GRACE = timedelta(hours=1)
# LanceDB removes nothing at all where a named version is among what is too old: keep a day more.
SLACK = timedelta(days=1)
# Constant text; whatever comes from a user goes through expressions.
BLANKS = "number > 0 AND start_s IS NULL"
SEARCHABLE = "start_s >= 0"


class LanceStore:
    """Segments in one LanceDB table; see the module's text for what it promises."""

    def __init__(self, uri: str, connection: Any, exact_rows: int = EXACT_ROWS) -> None:
        self.uri, self.exact_rows = uri, exact_rows
        self._connection, self._table = connection, connection.open_table(TABLE)
        self.manifest = manifest_of(self._table.schema, uri)
        self.disk = TableDisk(uri, TABLE)
        self._looked_s = time.monotonic()
        self.replaced = False
        """Whether another model's vectors took the place of these; who opens it again gets them."""
        self._read: tuple[int, int] | None = None
        self._reading = Lock()
        self._held: tuple[int, Held] | None = None
        self._words: tuple[int, WordIndex] | ScannedWords | None = None
        self._builder = Builder(self._build)

    @classmethod
    def exists(cls, uri: str) -> bool:
        """Whether there is an index at `uri`; connecting would make a folder, so asking does not.

        Raises:
            EarshotError: an object store cannot be asked.
        """
        if "://" not in uri:  # A table with neither is one whose making was interrupted.
            table = Path(uri) / f"{TABLE}.lance"
            return any(table.glob("_versions/*.manifest")) or any(table.glob("data/*"))
        with explained(uri, "open"):
            return TABLE in connect(uri).list_tables().tables

    @classmethod
    def create(cls, uri: str, manifest: Manifest, exact_rows: int = EXACT_ROWS) -> LanceStore:
        """Make an empty index at `uri`.

        Raises:
            EarshotError: there is an index already or a folder of other things, or the place
                cannot be written.
        """
        if cls.exists(uri):
            raise EarshotError(f"{uri}: there is an index already; open it, or delete it first")
        if "://" not in uri and Path(uri).is_dir():
            # One that is there was left unfinished, or another process makes it at this moment.
            table = Path(uri) / f"{TABLE}.lance"
            if any(entry != table for entry in Path(uri).iterdir()):
                raise EarshotError(f"{uri} is a folder of other files; give the index its own")
        with explained(uri, "create"):
            connection = connect(uri)
            connection.create_table(TABLE, schema=schema_of(manifest))
            made = cls(uri, connection, exact_rows)
            made.disk.begin()
            return made

    @classmethod
    def open(cls, uri: str, exact_rows: int = EXACT_ROWS) -> LanceStore:
        """Open the index at `uri`.

        Raises:
            EarshotError: there is none, it is damaged, or something else made the table.
        """
        with explained(uri, "open"):
            if not cls.exists(uri):
                raise EarshotError(f"{uri}: there is no index here; index some files into it first")
            return cls(uri, connect(uri), exact_rows)

    @classmethod
    def delete(cls, uri: str) -> None:
        """Delete the index at `uri`, and its folder if it holds nothing else."""
        with explained(uri, "delete"):
            connect(uri).drop_table(TABLE)
            if "://" not in uri:
                with suppress(OSError):
                    Path(uri).rmdir()

    def put(self, files: Sequence[EmbeddedFile]) -> None:
        """See `Store.put`. One commit, so give many files at once: each commit makes a version."""
        check_files(files, self.manifest)
        if not files:
            return
        with self.disk.commits("write"):
            giving_way(lambda: self._put(files, row_counts(files)))
            self._forget()

    def drop(self, paths: Collection[str]) -> None:
        """See `Store.drop`."""
        if known := [path for path in paths if is_storable(path)]:
            with self.disk.commits("write"):
                giving_way(lambda: self._drop(known))
                self._forget()

    def files(self) -> dict[str, FileRecord]:
        """See `Store.files`."""
        with explained(self.uri, "read"):
            self._follow()
            return files_in(self._table)

    def paths(self) -> list[str]:
        """See `Store.paths`."""
        with explained(self.uri, "read"):
            self._follow()
            return paths_in(self._table)

    def segment_count(self) -> int:
        """See `Store.segment_count`."""
        with explained(self.uri, "read"):
            self._follow()
            return int(self._table.count_rows(SEARCHABLE))

    def search(
        self, vectors: np.ndarray, limit: int, where: Sequence[Condition] = ()
    ) -> list[list[SegmentHit]]:
        """See `Store.search`.

        Beyond `exact_rows` rows the answer is approximate (about 99 of 100 true neighbours are
        found), scores stay exact, and which of several equal scores make the limit is open.
        """
        check_search(limit, where)
        queries = unit_queries(vectors, self.manifest.dimension)
        with explained(self.uri, "read"):
            if (held := self.held()) is not None:
                return search_exactly(held.table, queries, limit, where)
            starts = range(0, len(queries), BATCH_QUERIES)
            batches = [queries[start : start + BATCH_QUERIES] for start in starts]
            return [hits for b in batches for hits in scan(self._table, b, limit, where)]

    def search_words(
        self,
        query: str,
        limit: int,
        where: Sequence[Condition] = (),
        among: Collection[str] | None = None,
    ) -> list[WordHit]:
        """See `Store.search_words`.

        Beyond `exact_rows` rows LanceDB proposes the files, once `optimize` has indexed their
        words; typos of words in files that were put after it are not allowed for until the next.
        """
        check_search(limit, where)
        with explained(self.uri, "read"):
            if (held := self.held()) is not None:
                return held.words.search(query, limit, where, among=among)
            version, count = self._state()
            if scanned := self._scanned_words(version, count):
                return scanned.search(query, limit, rows_of(where, among))
            if not isinstance(self._words, tuple) or self._words[0] != version:
                self._words = version, WordIndex(list(files_in(self._table).values()))
            return self._words[1].search(query, limit, where, among=among)

    def _scanned_words(self, version: int, count: int) -> ScannedWords | None:
        """LanceDB's index of words, if there is one; that is asked once a version."""
        if isinstance(self._words, ScannedWords) and self._words.version == version:
            return self._words
        if count <= self.exact_rows or WORDS_COLUMN not in indexed_columns(self._table):
            return None
        self._words = scanned = ScannedWords(self._table)
        return scanned

    def segments(self, paths: Collection[str]) -> dict[str, EmbeddedFile]:
        """See `Store.segments`."""
        wanted = [path for path in dict.fromkeys(paths) if is_storable(path)]
        if not wanted:
            return {}
        columns = [*FILE_COLUMNS, "number", "start_s", "end_s", "vector"]
        with explained(self.uri, "read"):
            if (held := self.held()) is not None:
                return held.segments(wanted)
            rows = self._table.search().where(any_of(wanted) & searchable()).select(columns)
            return embedded_of(rows.to_arrow(), self.manifest.dimension)

    def held(self) -> Held | None:
        """All of it up to `exact_rows` rows, read again after each change; None beyond."""
        with explained(self.uri, "read"):
            version, count = self._state()
            held = self._held if count <= self.exact_rows else None
            if count <= self.exact_rows and (held is None or held[0] != version):
                columns = [*SEGMENT_COLUMNS, "vector"]
                rows = self._table.search().where(searchable()).select(columns).to_arrow()
                table = segment_table(rows, self.manifest.dimension)
                held = version, Held(table=table, records=files_in(self._table))
            self._held = held
            return held[1] if held else None

    def optimize(self) -> None:
        """Merge small files, drop old versions, add new rows to the indexes of a large table.

        Indexes that it lacks, or has outgrown, are made behind the caller: see `wait`. Gives way
        to busy writers: what they keep from being done is left to the next call.
        """
        with self.disk.commits("optimize"):
            giving_way(self._tidy, else_leave=True)
            self._forget()
            if self._table.count_rows() > self.exact_rows and is_due(self._table):
                self._builder.start()

    def wait(self) -> None:
        """Until the indexes are made that `optimize` began; a process does so before it ends."""
        self._builder.wait()

    def newest(self) -> Any:
        """LanceDB's table as it is now, with a handle of its own; for `store.snapshots`."""
        return self._connection.open_table(TABLE)

    def take_over(self, other: LanceStore) -> None:
        """Put the files, vectors and manifest of another store in the place of one's own.

        One commit: whoever opens the index gets the old ones or the new. Those who have it open
        go on with the old ones, which are kept for `GRACE`, and may write no more.
        """
        import pyarrow as pa

        with self.disk.commits("write"):
            self._follow_to_write()
            # Old versions live on from their end; this makes it now, whenever the last change was.
            self._table.delete("false")
            other._follow()
            schema = other._table.schema
            batches = other._table.search().select(schema.names).to_batches()
            rows = (pa.RecordBatch.from_arrays(batch.columns, schema=schema) for batch in batches)
            self._table = self._connection.create_table(
                TABLE,
                pa.RecordBatchReader.from_batches(schema, rows),
                schema=schema,
                mode="overwrite",
                on_bad_vectors="null",
            )
            self.manifest = manifest_of(schema, self.uri)
            self._read = self._held = self._words = None

    def replaced_files(self) -> dict[str, FileRecord]:
        """The files of the vectors whose place these took, with those put at the last moment.

        Empty where there are none, or they are no longer kept.
        """
        with explained(self.uri, "read"):
            return files_before(self._connection.open_table(TABLE), self.manifest, self.uri)

    def _follow(self, *, at_once: bool = False) -> None:
        """See what others committed since the last look, `REFRESH` ago.

        A new handle instead of moving the old one: no search finds itself among other vectors.
        """
        recent = time.monotonic() - self._looked_s < REFRESH.total_seconds()
        if self.replaced or (recent and not at_once):
            return
        latest = self.newest()
        if manifest_of(latest.schema, self.uri) != self.manifest:
            self.replaced = True
        elif latest.version != self._table.version:
            self._table = latest
            self._forget()
        self._looked_s = time.monotonic()

    def _follow_to_write(self) -> None:
        self._follow(at_once=True)
        if self.replaced:
            raise EarshotError(
                f"{self.uri}: the index went over to another model meanwhile; open it again"
            )

    def _put(self, files: Sequence[EmbeddedFile], counts: Mapping[str, int]) -> None:
        self._follow_to_write()
        version, surplus = self._table.version, self._surplus(counts)
        committed = self._merge(files, surplus)
        # Others who wrote in between may have left more segments under the same paths.
        while committed > version + 1 and (surplus := self._surplus(counts)):
            version, committed = committed, self._merge(files, surplus)

    def _drop(self, paths: Collection[str]) -> None:
        self._follow_to_write()
        self._table.delete(any_of(paths))

    def _tidy(self) -> None:
        self._follow_to_write()
        if self._table.count_rows(BLANKS):
            self._table.delete(BLANKS)
        self._table.optimize(cleanup_older_than=max(GRACE, age_of_oldest_tag(self._table)))

    def _build(self) -> None:
        """With a handle of its own: the store is used meanwhile."""
        with explained(self.uri, "make the search index of"):
            giving_way(lambda: make_indexes(self.newest()), else_leave=True)
        self._looked_s = -math.inf

    def _merge(self, files: Sequence[EmbeddedFile], surplus: Sequence[tuple[str, int]]) -> int:
        """Put rows and blanks in one commit; gives its version.

        LanceDB could delete the surplus in the same step, but reads all vectors for it: 280 ms
        instead of 25 at 100,000 rows. `optimize` deletes the blanks.
        """
        import pyarrow as pa

        schema = self._table.schema
        rows = pa.concat_tables([file_rows(files, schema), blank_rows(surplus, schema)])
        merge = self._table.merge_insert(["path", "number"])
        merge = merge.when_matched_update_all().when_not_matched_insert_all()
        version: int = merge.execute(rows, on_bad_vectors="null").version
        return version

    def _surplus(self, counts: Mapping[str, int]) -> list[tuple[str, int]]:
        """Stored segments, by path and number, that files of `counts` rows do not have."""
        from lancedb.expr import col, lit

        last = col("number") >= lit(min(counts.values()))
        stored = self._table.search().where(any_of(counts) & last & searchable())
        rows = stored.select(["path", "number"]).to_arrow().to_pylist()
        numbered = [(row["path"], row["number"]) for row in rows]
        return [(path, number) for path, number in numbered if number >= counts[path]]

    def _state(self) -> tuple[int, int]:
        """The version that is read and its rows; each costs a millisecond to ask LanceDB for."""
        self._follow()
        with self._reading:
            if self._read is None:
                self._read = self._table.version, self._table.count_rows()
            return self._read

    def _forget(self) -> None:
        """After a change: waits for who is reading the state before it, which must not stay."""
        with self._reading:
            self._read = None


def age_of_oldest_tag(table: Any) -> timedelta:
    """How old the oldest named version is and a day more; LanceDB removes none from before it."""
    versions = {tag["version"] for tag in table.tags.list().values()}
    # LanceDB tells local times without their zone, which may have been another one in summer.
    made = [v["timestamp"].astimezone() for v in table.list_versions() if v["version"] in versions]
    return datetime.now().astimezone() - min(made) + SLACK if made else timedelta(0)
