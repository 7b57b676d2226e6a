"""A store in a Milvus collection: for more queries than one machine answers.

The same client speaks to a cluster (`milvus://host:19530/collection`) and, through milvus-lite, to
a file (`milvus:folder/file.db`), which one process at a time can open. One row per segment; what is
said of a file is on its row number 0, as in `store.rows`.

Milvus has no commit of several rows. So a file's row 0 says first that the file is unfinished, and
is written, or deleted, last: a process killed in between leaves a file that is known as broken, and
the next run writes it again or drops it. Until then some of its segments may be found.
A revision in the collection's properties tells readers that something changed.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from threading import Lock
from typing import Any

import numpy as np

from earshot.conditions import facets_of
from earshot.store.checks import check_files, check_search, is_storable, unit_queries
from earshot.store.exact import ranked
from earshot.store.milvus_expressions import (
    any_of,
    facet_key,
    filter_of,
    hexadecimal,
)
from earshot.store.milvus_server import (
    FORMAT,
    PROPERTY,
    Address,
    collection_schema,
    connect,
    explained,
)
from earshot.store.words import WordIndex
from earshot.types import (
    Condition,
    EarshotError,
    EmbeddedFile,
    FileRecord,
    FileState,
    Manifest,
    Notes,
    Segment,
    SegmentHit,
    WordHit,
)

REVISION = "earshot.revision"
UNFINISHED = "it is being written, or that was interrupted; index it again"
# How long a reader may answer from what it knows before it looks for others' changes.
REFRESH = timedelta(seconds=5)
# Milvus gives no more rows of a search; beyond, all rows are scored here.
MOST_ROWS = 16_384
# Rows of one message: 4,000 vectors of 1,024 float32 are 16 MB of the 64 that are allowed.
ROWS_AT_ONCE = 4_000
# What is said of a file can have 100 kB, so that fewer such rows make a message.
RECORDS_AT_ONCE = 400
# A text of Milvus has at most 65,535 bytes, a letter at most 4.
PIECE = 16_000
PATHS_AT_ONCE = 500
# Of approximate answers, more are asked for than are wanted.
SPARE = 2
ROW_COLUMNS = ["path", "number", "start_s", "end_s", "vector"]


class MilvusStore:
    """Segments in one Milvus collection; see the module's text for what it promises."""

    def __init__(self, uri: str, client: Any, manifest: Manifest) -> None:
        self.uri, self.manifest = uri, manifest
        self.replaced = False
        self._client, self._name = client, Address.of(uri).collection
        self._revision, self._looked_s = "", -math.inf
        self._reading = Lock()
        # Each with the revision of which it is.
        self._records: tuple[str, Mapping[str, FileRecord]] | None = None
        self._words: tuple[str, WordIndex] | None = None

    @classmethod
    def exists(cls, uri: str) -> bool:
        """Whether there is a collection; asking makes nothing.

        Raises:
            EarshotError: Milvus does not answer.
        """
        address = Address.of(uri)
        if address.is_file and not address.path.exists():
            return False
        with explained(uri, "open"):
            return bool(connect(uri).has_collection(address.collection))

    @classmethod
    def create(cls, uri: str, manifest: Manifest) -> MilvusStore:
        """Make an empty collection.

        Raises:
            EarshotError: there is one already, or half precision is asked for.
        """
        if manifest.half:
            raise EarshotError(f"{uri}: Milvus keeps vectors in full precision; leave --half out")
        if cls.exists(uri):
            raise EarshotError(f"{uri}: there is an index already; open it, or delete it first")
        with explained(uri, "create"):
            client = connect(uri)
            collection_schema(client, Address.of(uri).collection, manifest)
        return cls(uri, client, manifest)

    @classmethod
    def open(cls, uri: str) -> MilvusStore:
        """Open a collection.

        Raises:
            EarshotError: there is none, or something else made it.
        """
        if not cls.exists(uri):
            raise EarshotError(f"{uri}: there is no index here; index some files into it first")
        with explained(uri, "open"):
            client, name = connect(uri), Address.of(uri).collection
            raw = client.describe_collection(name).get("properties", {}).get(PROPERTY)
            if raw is None:
                raise EarshotError(f"{uri}: this Milvus collection is not an index")
            client.load_collection(name)
        fields = json.loads(raw)
        if fields.pop("format") != FORMAT:
            raise EarshotError(
                f"{uri}: made by another version of earshot; upgrade, or index again"
            )
        return cls(uri, client, Manifest(**fields))

    def put(self, files: Sequence[EmbeddedFile]) -> None:
        """See `Store.put`; see the module's text for what a killed process leaves."""
        check_files(files, self.manifest)
        if not files:
            return
        rows = [_rows(file) for file in files]
        with explained(self.uri, "write"):
            self._mark([file.record.state.path for file in files])
            self._upsert([row for own in rows for row in own[1:]], ROWS_AT_ONCE)
            self._delete_surplus({own[0]["path"]: len(own) for own in rows})
            self._upsert([own[0] for own in rows], RECORDS_AT_ONCE)
            self._changed()

    def drop(self, paths: Collection[str]) -> None:
        """See `Store.drop`."""
        with explained(self.uri, "write"):
            for some in _chunks([path for path in paths if is_storable(path)], PATHS_AT_ONCE):
                first = f"({any_of(some)}) and number == 0"
                self._mark([row["path"] for row in self._query(first, ["path"])])
                self._client.delete(self._name, filter=f"({any_of(some)}) and number > 0")
                self._client.delete(self._name, filter=any_of(some))
            self._changed()

    def files(self) -> dict[str, FileRecord]:
        """See `Store.files`."""
        with explained(self.uri, "read"):
            return dict(self._all_records()[1])

    def paths(self) -> list[str]:
        """See `Store.paths`."""
        with explained(self.uri, "read"):
            return list(self._all_records()[1])

    def segment_count(self) -> int:
        """See `Store.segment_count`."""
        with explained(self.uri, "read"):
            counted = self._client.query(
                self._name, filter="start_s >= 0", output_fields=["count(*)"]
            )
            return int(counted[0]["count(*)"])

    def search(
        self, vectors: np.ndarray, limit: int, where: Sequence[Condition] = ()
    ) -> list[list[SegmentHit]]:
        """See `Store.search`; approximate where the server's index is."""
        check_search(limit, where)
        queries = unit_queries(vectors, self.manifest.dimension)
        if not len(queries):
            return []
        with explained(self.uri, "read"):
            asked = max(SPARE * limit, limit + 8)
            if asked > MOST_ROWS:
                rows = list(self._query(filter_of(where), ROW_COLUMNS))
                return [_scored(rows, query)[:limit] for query in queries]
            found = self._client.search(
                self._name,
                queries.tolist(),
                anns_field="vector",
                limit=asked,
                filter=filter_of(where),
                output_fields=ROW_COLUMNS,
            )
        answers = [[hit["entity"] for hit in hits] for hits in found]
        return [_scored(rows, query)[:limit] for rows, query in zip(answers, queries, strict=True)]

    def search_words(
        self,
        query: str,
        limit: int,
        where: Sequence[Condition] = (),
        among: Collection[str] | None = None,
    ) -> list[WordHit]:
        """See `Store.search_words`."""
        check_search(limit, where)
        with explained(self.uri, "read"):
            revision, records = self._all_records()
        words = self._words
        if words is None or words[0] != revision:
            self._words = words = revision, WordIndex(list(records.values()))
        return words[1].search(query, limit, where, among=among)

    def segments(self, paths: Collection[str]) -> dict[str, EmbeddedFile]:
        """See `Store.segments`."""
        wanted = [path for path in dict.fromkeys(paths) if is_storable(path)]
        found: dict[str, list[Mapping[str, Any]]] = {}
        records: dict[str, FileRecord] = {}
        with explained(self.uri, "read"):
            for some in _chunks(wanted, PATHS_AT_ONCE):
                for row in self._query(any_of(some), ROW_COLUMNS):
                    if row["start_s"] >= 0:
                        found.setdefault(row["path"], []).append(row)
                first = f"({any_of(some)}) and number == 0"
                for row in self._query(first, ["path", "about"], RECORDS_AT_ONCE):
                    records[row["path"]] = _record(row)
        return {
            path: _embedded(records[path], found[path])
            for path in wanted
            if path in found and path in records and not records[path].broken
        }

    def optimize(self) -> None:
        """Nothing to do: Milvus compacts and indexes by itself."""

    def _all_records(self) -> tuple[str, Mapping[str, FileRecord]]:
        """All records, and the revision in which they were at least."""
        with self._reading:
            self._follow()
            if self._records is None or self._records[0] != self._revision:
                columns = ["path", "number", "about"]
                rows = self._query("number == 0", columns, RECORDS_AT_ONCE)
                self._records = self._revision, {row["path"]: _record(row) for row in rows}
            return self._records

    def _query(
        self, condition: str, columns: list[str], at_once: int = ROWS_AT_ONCE
    ) -> Iterator[Mapping[str, Any]]:
        rows = self._client.query_iterator(
            self._name, filter=condition, output_fields=columns, batch_size=at_once
        )
        try:
            while batch := rows.next():
                yield from batch
        finally:
            rows.close()

    def _upsert(self, rows: Sequence[dict[str, Any]], at_once: int) -> None:
        for some in _chunks(rows, at_once):
            self._client.upsert(self._name, some)

    def _mark(self, paths: Sequence[str]) -> None:
        """Say of files that they are unfinished."""
        nothing = np.zeros((0, self.manifest.dimension), dtype=np.float32)
        states = [FileState(path=p, size_bytes=0, mtime_ns=0, ctime_ns=0, sha256="") for p in paths]
        records = [FileRecord(state=state, broken=UNFINISHED) for state in states]
        files = [EmbeddedFile(record=record, segments=(), vectors=nothing) for record in records]
        self._upsert([row for file in files for row in _rows(file)], RECORDS_AT_ONCE)

    def _delete_surplus(self, counts: Mapping[str, int]) -> None:
        """Delete stored segments that files of `counts` rows do not have."""
        for some in _chunks(list(counts), PATHS_AT_ONCE):
            least = min(counts[path] for path in some)
            condition = f"({any_of(some)}) and number >= {least}"
            stored = list(self._query(condition, ["id", "path", "number"]))
            surplus = [row["id"] for row in stored if row["number"] >= counts[row["path"]]]
            if surplus:
                self._client.delete(self._name, ids=surplus)

    def _changed(self) -> None:
        """Tell readers, others' and one's own."""
        self._client.alter_collection_properties(self._name, {REVISION: uuid.uuid4().hex})
        with self._reading:  # Who is looking at this moment may not have seen it.
            self._looked_s = -math.inf

    def _follow(self) -> None:
        """See whether others, or oneself, changed something since."""
        if time.monotonic() - self._looked_s < REFRESH.total_seconds():
            return
        properties = self._client.describe_collection(self._name).get("properties", {})
        self._revision = properties.get(REVISION, "")
        self._looked_s = time.monotonic()


def _rows(file: EmbeddedFile) -> list[dict[str, Any]]:
    """A file's rows; one without segments has a row without span, whose vector none sees."""
    record = file.record
    path = record.state.path
    key = hashlib.sha256(path.encode()).hexdigest()
    shared = {
        "path": path,
        "path_key": hexadecimal(path),
        "duration_s": float(record.duration_s),
        "sample_rate_hz": record.sample_rate_hz,
        "channels": record.channels,
        "date_key": hexadecimal(record.notes.date),
        "facets_key": [facet_key(line) for line in facets_of(record.notes).split("\n") if line],
    }
    about = json.dumps(asdict(record), ensure_ascii=False)
    nothing = np.zeros(file.vectors.shape[1], dtype=np.float32)
    nothing[0] = 1.0
    spans: list[tuple[Segment | None, np.ndarray]]
    spans = [*zip(file.segments, file.vectors, strict=True)] or [(None, nothing)]
    return [
        {
            **shared,
            "about": [] if number else list(_chunks(about, PIECE)),
            "id": f"{key}-{number}",
            "number": number,
            "start_s": span.start_s if span else -1.0,
            "end_s": span.end_s if span else -1.0,
            "vector": vector.tolist(),
        }
        for number, (span, vector) in enumerate(spans)
    ]


def _record(row: Mapping[str, Any]) -> FileRecord:
    fields = json.loads("".join(row["about"]))
    notes = fields.pop("notes")
    notes["tags"] = tuple(notes["tags"])
    return FileRecord(**{**fields, "state": FileState(**fields["state"]), "notes": Notes(**notes)})


def _embedded(record: FileRecord, rows: Sequence[Mapping[str, Any]]) -> EmbeddedFile:
    ordered = sorted(rows, key=lambda row: (row["start_s"], row["end_s"]))
    return EmbeddedFile(
        record=record,
        segments=tuple(Segment(start_s=row["start_s"], end_s=row["end_s"]) for row in ordered),
        vectors=np.array([row["vector"] for row in ordered], dtype=np.float32),
    )


def _scored(rows: Sequence[Mapping[str, Any]], query: np.ndarray) -> list[SegmentHit]:
    vectors = np.array([row["vector"] for row in rows], dtype=np.float32)
    return ranked(rows, vectors.reshape(-1, len(query)), query)


def _chunks(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))
