"""Exact search: every segment is scored. The oracle of the other kinds, and fastest when small.

The matrix product only proposes candidates. Their scores are computed again, row by row in
float64: the product's rounding depends on where a row lies, and would order equal sounds by chance.
Axis legend: N segments of the store, F files, D embedding dimension, Q queries.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

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
    def numbers(self) -> dict[str, int]:
        """Which of the F files each path is."""
        return {path: number for number, path in enumerate(self.paths.tolist())}

    def rows(self, number: int) -> slice:
        """Where a file's segments lie."""
        return slice(*self.bounds[number : number + 2])

    @cached_property
    def bounds(self) -> list[int]:
        """The first row of each file, and behind the last."""
        return [*self.starts.tolist(), len(self.vectors)]

    @cached_property
    def starts(self) -> np.ndarray:
        """The first row of each file (F,)."""
        names = self.columns["path"]
        return np.flatnonzero(np.append(True, names[1:] != names[:-1])[: len(names)])

    @cached_property
    def files(self) -> Mapping[str, np.ndarray]:
        """What conditions ask for, once for each file, (F,) each."""
        return {name: column[self.starts] for name, column in self.columns.items()}

    @property
    def paths(self) -> np.ndarray:
        """The files' paths (F,), in order."""
        return self.files["path"]


def search_exactly(
    table: SegmentTable, queries: np.ndarray, limit: int, where: Sequence[Condition]
) -> list[list[SegmentHit]]:
    """The best `limit` segments for each unit query (Q, D); ties in the table's order."""
    rows = np.flatnonzero(holding(table.columns, where))
    if rows.size == 0:
        return [[] for _ in queries]
    blocks = score_blocks(table.vectors, queries)
    scored = (row for block in blocks for row in block)
    answers = []
    for query, scores in zip(queries, scored, strict=True):
        near = rows[_candidates(scores if len(rows) == len(scores) else scores[rows], limit)]
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
        number = table.numbers.get(path)
        if number is not None and path in records:
            rows = table.rows(number)
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


def ranked(
    rows: Sequence[Mapping[str, Any]], vectors: np.ndarray, query: np.ndarray
) -> list[SegmentHit]:
    """Hits of rows (N) that another index found, scored by their vectors (N, D), best first."""
    hits = [
        SegmentHit(path=row["path"], score=float(score), start_s=row["start_s"], end_s=row["end_s"])
        for row, score in zip(rows, exact_scores(vectors, query), strict=True)
    ]
    return sorted(hits, key=lambda hit: (-hit.score, hit.path, hit.start_s, hit.end_s))


def holding(columns: Mapping[str, np.ndarray], where: Sequence[Condition]) -> np.ndarray:
    """Which rows (N,) of columns (N,) sound conditions hold for."""
    mask = np.ones(len(columns["path"]), dtype=bool)
    comparer = Comparer(column=columns.__getitem__, contains=_contains)
    for condition in where:
        mask &= holds(condition, comparer).astype(bool)
    return mask


def _contains(texts: np.ndarray, part: str) -> np.ndarray:
    return np.fromiter((part in text for text in texts), dtype=bool, count=len(texts))


def score_blocks(vectors: np.ndarray, queries: np.ndarray) -> Iterator[np.ndarray]:
    """Products of queries (Q, D) with vectors (N, D), N > 0, in blocks (B, N) of the queries."""
    step = max(1, BLOCK_SCORES // len(vectors))
    for start in range(0, len(queries), step):
        yield queries[start : start + step] @ vectors.T


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
