"""What may enter a store, the same for every kind: unit vectors, storable names, sound questions.

Refusing here is what keeps every score a cosine and every answer complete. Axis legend: S segments,
D embedding dimension, Q queries.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from earshot.conditions import check_condition
from earshot.types import Condition, EarshotError, EmbeddedFile, FileRecord, Manifest

# Models that normalise in half precision miss length one by up to 5e-4.
UNIT_TOLERANCE = 1e-3


def is_storable(text: str) -> bool:
    """Whether `text` is free of surrogate escapes: stores keep UTF-8, which has none."""
    return text == text.encode(errors="ignore").decode()


def check_path(path: str) -> None:
    """Refuse a name that could not be read back from a store.

    Raises:
        EarshotError: the name holds bytes that are not UTF-8 (surrogate escapes).
    """
    if not is_storable(path):
        shown = path.encode(errors="backslashreplace").decode()
        raise EarshotError(
            f"{shown}: the file's name is not valid UTF-8 and cannot be stored; rename the file"
        )


def check_files(files: Sequence[EmbeddedFile], manifest: Manifest) -> None:
    """Refuse a batch in which any file breaks the store's contract; nothing is written then.

    Raises:
        EarshotError: a name that cannot be stored or comes twice, a broken file with segments,
            or vectors that are not unit vectors of the manifest's dimension.
    """
    counts = Counter(file.record.state.path for file in files)
    twice = next((path for path, count in counts.items() if count > 1), None)
    if twice is not None:
        raise EarshotError(f"{twice}: given twice in one batch; give each file once")
    for file in files:
        check_path(file.record.state.path)
        check_path(file.record.broken)
        check_notes(file.record)
        _check_segments(file)
        if file.segments:
            _check_unit_vectors(file, manifest.dimension)


def check_notes(record: FileRecord) -> None:
    """Refuse notes that could not be read back from a store.

    Raises:
        EarshotError: text that is not valid UTF-8.
    """
    notes = record.notes
    texts = (notes.title, notes.description, *notes.tags, notes.category)
    if not all(map(is_storable, (*texts, notes.creator, notes.licence, notes.date))):
        raise EarshotError(f"{record.state.path}: its notes are not valid UTF-8; leave that out")


def _check_segments(file: EmbeddedFile) -> None:
    path = file.record.state.path
    if len(file.vectors) != len(file.segments):
        raise EarshotError(
            f"{path}: {len(file.vectors)} vectors for {len(file.segments)} segments; "
            "give one vector for each"
        )
    if file.record.broken and file.segments:
        raise EarshotError(f"{path}: a broken file has no segments; {len(file.segments)} given")
    for segment in file.segments:
        if not 0 <= segment.start_s <= segment.end_s < math.inf:  # false for NaN, too
            raise EarshotError(f"{path}: {segment} is no span of time from the file's start")


def _check_unit_vectors(file: EmbeddedFile, dimension: int) -> None:
    path, vectors = file.record.state.path, file.vectors
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise EarshotError(
            f"{path}: vectors of shape {vectors.shape}, this store holds (segments, {dimension}); "
            "embed with the store's own model"
        )
    lengths = np.linalg.norm(vectors, axis=1)
    if not np.all(np.abs(lengths - 1) <= UNIT_TOLERANCE):  # false for NaN and infinity, too
        worst = lengths[np.argmax(np.nan_to_num(np.abs(lengths - 1), nan=np.inf))]
        raise EarshotError(
            f"{path}: a vector of length {worst:.6g}; a store holds unit vectors only, normalise it"
        )


def unit_queries(vectors: np.ndarray, dimension: int) -> np.ndarray:
    """Query vectors (Q, D) of any length as unit vectors, float32, so that a score is a cosine.

    Raises:
        EarshotError: another shape, or a vector that is zero or not finite.
    """
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise EarshotError(
            f"query vectors of shape {vectors.shape}, this store answers (queries, {dimension}); "
            "embed the query with the store's own model"
        )
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    if bad.size:
        raise EarshotError(f"query {bad[0]} is zero or not finite: it has no direction to look in")
    unit: np.ndarray = (vectors / lengths).astype(np.float32)
    return unit


def check_search(limit: int, where: Sequence[Condition]) -> None:
    """Refuse a limit below one and conditions on things that no file has.

    Raises:
        EarshotError: names the fields, operators or kinds of value that are allowed.
    """
    if limit < 1:
        raise EarshotError(f"limit {limit}: ask for at least 1 segment or file")
    for condition in where:
        check_condition(condition)
