"""The columns of the LanceDB table: arrow in, arrow out. One row per segment.

A file's first row has number 0 and is always there; a file without segments (a broken one) has a
first row without span and vector, which no search sees. What is said of a file is said on its first
row alone, but for what filters ask for. A row without span and a higher number is
a *blank*: it covers a segment that the file's present version no longer has.
Axis legend: S segments, D embedding dimension, W stored width.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np

from earshot.conditions import NUMBER_FIELDS, facets_of
from earshot.store.exact import SegmentTable
from earshot.store.terms import stored_words
from earshot.types import (
    EarshotError,
    EmbeddedFile,
    FileRecord,
    FileState,
    Manifest,
    Notes,
    Segment,
)

FORMAT = 2
METADATA_KEY = b"earshot"
# Two writers who insert the same key at once conflict, and one of them tries again, only if the
# table declares its key; without it both inserts stay.
KEY = {"lance-schema:unenforced-primary-key": "true"}
STATE_COLUMNS = ("path", "size_bytes", "mtime_ns", "ctime_ns", "sha256")
NOTE_COLUMNS = tuple(field.name for field in fields(Notes))
FILE_COLUMNS = (
    *(*STATE_COLUMNS, "duration_s", "sample_rate_hz", "channels", "broken"),
    *(*NOTE_COLUMNS, "beside"),
)
# What words of a query are looked for in; each further column costs 5 ms at a million rows.
WORD_COLUMNS = ("path", "title", "description", "tags", "category", "creator")
HIT_COLUMNS = ("path", "start_s", "end_s")
SEGMENT_COLUMNS = (*HIT_COLUMNS, *NUMBER_FIELDS, "date", "facets")
# Of use once for each file; the others must lie where a filter looks, on every row.
FIRST_ROW_COLUMNS = (*(name for name in NOTE_COLUMNS if name != "date"), "beside", "words")


def stored_width(dimension: int) -> int:
    """D rounded up to a multiple of 8, which IVF_RQ asks for; zeros change no dot product."""
    return -(-dimension // 8) * 8


def padded(vectors: np.ndarray) -> np.ndarray:
    """Vectors (S, D) with zeros up to the stored width, (S, W) float32."""
    missing = stored_width(vectors.shape[1]) - vectors.shape[1]
    return np.pad(vectors.astype(np.float32), ((0, 0), (0, missing)))


def schema_of(manifest: Manifest) -> Any:
    """The arrow schema; the manifest lies in its metadata, so both are made in one commit."""
    import pyarrow as pa

    metadata = json.dumps({"format": FORMAT, **asdict(manifest)})
    number = pa.float16() if manifest.half else pa.float32()
    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False, metadata=KEY),
            pa.field("number", pa.int32(), nullable=False, metadata=KEY),
            ("start_s", pa.float64()),
            ("end_s", pa.float64()),
            ("vector", pa.list_(number, stored_width(manifest.dimension))),
            ("size_bytes", pa.int64()),
            ("mtime_ns", pa.int64()),
            ("ctime_ns", pa.int64()),
            ("sha256", pa.string()),
            ("duration_s", pa.float64()),
            ("sample_rate_hz", pa.int64()),
            ("channels", pa.int64()),
            ("broken", pa.string()),
            *((name, pa.string()) for name in NOTE_COLUMNS if name != "tags"),
            ("tags", pa.list_(pa.string())),
            ("beside", pa.string()),
            ("facets", pa.string()),
            ("words", pa.string()),
        ],
        metadata={METADATA_KEY: metadata.encode()},
    )


def manifest_of(schema: Any, uri: str) -> Manifest:
    """Read the manifest back.

    Raises:
        EarshotError: a table that something else made, or a format that this version cannot read.
    """
    raw = (schema.metadata or {}).get(METADATA_KEY)
    if raw is None:
        raise EarshotError(f"{uri}: this LanceDB table is not an index; give an index's folder")
    fields = json.loads(raw)
    if fields.pop("format") != FORMAT:
        raise EarshotError(f"{uri}: made by another version of earshot; upgrade, or index again")
    return Manifest(**fields)


def row_counts(files: Sequence[EmbeddedFile]) -> dict[str, int]:
    """How many rows each file has, blanks aside."""
    return {file.record.state.path: max(1, len(file.segments)) for file in files}


def file_rows(files: Sequence[EmbeddedFile], schema: Any) -> Any:
    """All rows of `files` as one arrow table."""
    import pyarrow as pa

    rows = [row for file in files for row in _rows(file)]
    columns = {name: [row[name] for row in rows] for name in schema.names if name != "vector"}
    table = pa.table({**columns, "vector": _vector_column(files, schema)})
    return table.select(schema.names).cast(schema)


def blank_rows(blanks: Sequence[tuple[str, int]], schema: Any) -> Any:
    """Rows without span and vector for segments, by path and number, that are no more."""
    import pyarrow as pa

    empty = dict.fromkeys(schema.names)
    rows = [{**empty, "path": path, "number": number} for path, number in blanks]
    return pa.Table.from_pylist(rows, schema=schema)


def _rows(file: EmbeddedFile) -> list[dict[str, Any]]:
    record = file.record
    about = {
        **asdict(record.state),
        "duration_s": record.duration_s,
        "sample_rate_hz": record.sample_rate_hz,
        "channels": record.channels,
        "broken": record.broken,
        **{name: getattr(record.notes, name) for name in NOTE_COLUMNS},
        "beside": record.beside,
        "facets": facets_of(record.notes),
        "words": "" if record.broken else stored_words(record),
    }
    if not file.segments:
        return [{**about, "number": 0, "start_s": None, "end_s": None}]
    later = {**about, **dict.fromkeys(FIRST_ROW_COLUMNS)}
    return [
        {
            **(later if number else about),
            "number": number,
            "start_s": segment.start_s,
            "end_s": segment.end_s,
        }
        for number, segment in enumerate(file.segments)
    ]


def _vector_column(files: Sequence[EmbeddedFile], schema: Any) -> Any:
    import pyarrow as pa

    kind = schema.field("vector").type
    width, dtype = kind.list_size, kind.value_type.to_pandas_dtype()
    nothing = np.zeros((1, width), dtype)
    blocks = [padded(file.vectors).astype(dtype) if file.segments else nothing for file in files]
    absent = [absent for file in files for absent in ([False] * len(file.segments) or [True])]
    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.concatenate(blocks).ravel()), width, mask=pa.array(absent)
    )


def files_in(table: Any) -> dict[str, FileRecord]:
    """All files of a table by path."""
    from lancedb.expr import col, lit

    first = table.search().where(col("number") == lit(0))
    return records_of(first.select(list(FILE_COLUMNS)).to_arrow())


def paths_in(table: Any) -> list[str]:
    """The paths of all files of a table: one column instead of all of them."""
    from lancedb.expr import col, lit

    first = table.search().where(col("number") == lit(0)).select(["path"])
    paths: list[str] = first.to_arrow()["path"].to_pylist()
    return paths


def files_before(table: Any, manifest: Manifest, uri: str) -> dict[str, FileRecord]:
    """The files of the last version that another manifest described; the table is left there."""
    for version in sorted((one["version"] for one in table.list_versions()), reverse=True):
        table.checkout(version)
        if manifest_of(table.schema, uri) != manifest:
            return files_in(table)
    return {}


def records_of(rows: Any) -> dict[str, FileRecord]:
    """File records by path, from an arrow table of `FILE_COLUMNS`."""
    states = _made(FileState, STATE_COLUMNS, rows)
    others = [name for name in FILE_COLUMNS if name not in (*STATE_COLUMNS, *NOTE_COLUMNS)]
    records = zip(states, _notes(rows), *(rows[name].to_pylist() for name in others), strict=True)
    return {
        state.path: FileRecord(state=state, notes=notes, **dict(zip(others, values, strict=True)))
        for state, notes, *values in records
    }


def worded_of(rows: Any) -> list[FileRecord]:
    """File records with their words alone, from an arrow table of `WORD_COLUMNS`."""
    unknown = FileState(path="", size_bytes=0, mtime_ns=0, ctime_ns=0, sha256="")
    paths = rows["path"].to_pylist()
    return [
        FileRecord(state=replace(unknown, path=path), notes=notes)
        for path, notes in zip(paths, _notes(rows), strict=True)
    ]


def _notes(rows: Any) -> list[Notes]:
    """What is said of each file; what was not read stays empty."""
    names = [name for name in NOTE_COLUMNS if name in rows.column_names]
    notes: list[Notes] = _made(Notes, names, rows)
    return notes


def _made(kind: Any, names: Sequence[str], rows: Any) -> list[Any]:
    """An object for each row; by columns, which is faster than rows as dicts."""
    columns = [rows[name].to_pylist() for name in names]
    if "tags" in names:
        columns[names.index("tags")] = list(map(tuple, rows["tags"].to_pylist()))
    return [kind(**dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]


def embedded_of(rows: Any, dimension: int) -> dict[str, EmbeddedFile]:
    """Files by path with their segments in order, from all columns."""
    import pyarrow.compute as pc

    keys = [("path", "ascending"), ("start_s", "ascending"), ("end_s", "ascending")]
    rows = rows.combine_chunks().sort_by(keys)
    vectors, first = vectors_of(rows, dimension), 0
    records = records_of(rows.filter(pc.equal(rows["number"], 0)))
    starts, ends = rows["start_s"].to_pylist(), rows["end_s"].to_pylist()
    files = {}
    for path, count in Counter(rows["path"].to_pylist()).items():
        spans = zip(starts[first : first + count], ends[first : first + count], strict=True)
        files[path] = EmbeddedFile(
            record=records[path],
            segments=tuple(Segment(start_s=start_s, end_s=end_s) for start_s, end_s in spans),
            vectors=vectors[first : first + count],
        )
        first += count
    return files


def segment_table(rows: Any, dimension: int) -> SegmentTable:
    """Searchable segments in memory, from an arrow table of `SEGMENT_COLUMNS` and vectors."""
    import pyarrow.compute as pc

    keys = [(name, "ascending") for name in HIT_COLUMNS]
    order = pc.sort_indices(rows, sort_keys=keys).to_numpy()
    columns = {name: rows[name].to_numpy(zero_copy_only=False)[order] for name in SEGMENT_COLUMNS}
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    vectors = np.empty((len(order), dimension), dtype=np.float32)
    start = 0
    for chunk in rows["vector"].chunks:  # one by one: a whole second copy would double the memory
        vectors[rank[start : start + len(chunk)]] = _matrix(chunk, dimension)
        start += len(chunk)
    return SegmentTable(vectors=vectors, columns=columns)


def vectors_of(rows: Any, dimension: int) -> np.ndarray:
    """The `vector` column, which has no gaps here, as (N, D) without the padding."""
    nothing = np.zeros((0, dimension), dtype=np.float32)
    chunks = [_matrix(chunk, dimension) for chunk in rows["vector"].chunks]
    return np.concatenate([nothing, *chunks])


def _matrix(chunk: Any, dimension: int) -> np.ndarray:
    flat = chunk.flatten().to_numpy()
    rows = flat.reshape(len(chunk), stored_width(dimension))[:, :dimension]
    return np.asarray(rows, dtype=np.float32)
