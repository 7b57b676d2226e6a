"""Exact search: every segment is scored. The oracle of the other kinds, and fastest when small.

The matrix product only proposes candidates. Their scores are computed again, row by row in
float64: the product's rounding depends on where a row lies, and would order equal sounds by chance.
Axis legend: N segments of the store, D embedding dimension, Q queries.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from earshot.conditions import Comparer, holds
from earshot.types import Condition, EmbeddedFile, FileRecord, Segment, SegmentHit

# Float32 products of unit vectors are off by about 1e-7; ten times a hundred is on the safe side.
ROUNDING = 1e-5
# Scores of one block of queries, 64 MB of float32: bounds memory whatever the number of queries.
BLOCK_SCORES = 2**24
# Candidates scored again at a time: 1024 rows of 1024 float64 are 8 MB.
BLOCK_ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class SegmentTable:
    """Searchable segments ordered by path, then start.

    `vectors` is (N, D); `columns` holds path, start_s, end_s, and what conditions ask for:
    duration_s, sample_rate_hz, channels, date and facets, each (N,).
    """

    vectors: np.ndarray
    columns: Mapping[str, np.ndarray]

    @cached_property
    def rows(self) -> dict[str, slice]:
        """Where each path's segments lie."""
        names = self.columns["path"]
        first = np.flatnonzero(np.append(True, names[1:] != names[:-1])[: len(names)])
        last = np.append(first[1:], len(names))
        spans = zip(names[first].tolist(), first.tolist(), last.tolist(), strict=True)
        return {path: slice(start, end) for path, start, end in spans}


def search_exactly(
    table: SegmentTable, queries: np.ndarray, limit: int, where: Sequence[Condition]
) -> list[list[SegmentHit]]:
    """The best `limit` segments for each unit query (Q, D); ties in the table's order."""
    rows = np.flatnonzero(_holds(table, where))
    if rows.size == 0:
        return [[] for _ in queries]
    answers = []
    for query, scores in zip(queries, _score_rows(table.vectors, queries, rows), strict=True):
        near = rows[_candidates(scores, limit)]
        exact = exact_scores(table.vectors[near], query)
        best = np.argsort(-exact, kind="stable")[:limit]
        answers.append([_hit(table, near[i], exact[i]) for i in best])
    return answers


def files_of(
    table: SegmentTable, records: Mapping[str, FileRecord], paths: Collection[str]
) -> dict[str, EmbeddedFile]:
    """Searchable files of the table by path; unknown ones are left out."""
    files = {}
    for path in paths:
        rows = table.rows.get(path)
        if rows is not None and path in records:
            starts, ends = (table.columns[name][rows].tolist() for name in ("start_s", "end_s"))
            files[path] = EmbeddedFile(
                record=records[path],
                segments=tuple(
                    Segment(start_s=start_s, end_s=end_s)
                    for start_s, end_s in zip(starts, ends, strict=True)
                ),
                vectors=table.vectors[rows],
            )
    return files


def exact_scores(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Dot products (N,) in float64 of `vectors` (N, D) with `query` (D,).

    Each row is summed on its own, so equal vectors score exactly equal.
    """
    scores = np.empty(len(vectors))
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        scores[block] = (vectors[block].astype(np.float64) * query).sum(axis=1)
    return scores


def _holds(table: SegmentTable, where: Sequence[Condition]) -> np.ndarray:
    mask = np.ones(len(table.vectors), dtype=bool)
    comparer = Comparer(column=table.columns.__getitem__, contains=_contains)
    for condition in where:
        mask &= holds(condition, comparer).astype(bool)
    return mask


def _contains(texts: np.ndarray, part: str) -> np.ndarray:
    return np.fromiter((part in text for text in texts), dtype=bool, count=len(texts))


def _score_rows(vectors: np.ndarray, queries: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    everything = len(rows) == len(vectors)
    step = max(1, BLOCK_SCORES // len(vectors))
    for start in range(0, len(queries), step):
        scores = queries[start : start + step] @ vectors.T
        yield from scores if everything else scores[:, rows]


def _candidates(scores: np.ndarray, limit: int) -> np.ndarray:
    """Positions, in order, of all that may belong to the best `limit` once scored exactly."""
    if limit >= len(scores):
        return np.arange(len(scores))
    last = np.partition(scores, len(scores) - limit)[len(scores) - limit]
    return np.flatnonzero(scores >= last - ROUNDING)


def _hit(table: SegmentTable, row: int, score: float) -> SegmentHit:
    columns = table.columns
    return SegmentHit(
        path=columns["path"][row],
        score=float(score),
        start_s=float(columns["start_s"][row]),
        end_s=float(columns["end_s"][row]),
    )
