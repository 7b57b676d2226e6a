"""A library that is in memory as a whole: how well each of its files answers, in a few passes.

A list of the best segments, and one of the best files by words, leave open what the others are
worth. Where everything is at hand nothing is left open: all files at once, and no list.
Axis legend: F searchable files in order of their paths, S segments, D embedding dimension,
Q queries.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np

from earshot.store.exact import SegmentTable, files_of, holding, score_blocks
from earshot.store.words import Answering, WordIndex
from earshot.types import Condition, EmbeddedFile, FileRecord, Store, WordHit


@dataclass(frozen=True, kw_only=True)
class FileWords:
    """How words of a query are answered: `shares` (F,) of it, and `scores` (F,), which are BM25."""

    answering: Answering
    shares: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Held:
    """One version of a library: its segments, and the records of its files by path."""

    table: SegmentTable
    records: Mapping[str, FileRecord]

    @cached_property
    def words(self) -> WordIndex:
        """The words of the files."""
        return WordIndex(list(self.records.values()))

    @cached_property
    def _number_by_words(self) -> np.ndarray:
        """What number each of the F files has among the index's words, -1 where it has none."""
        numbers = {record.state.path: n for n, record in enumerate(self.words.records)}
        paths = self.table.paths.tolist()
        return np.array([numbers.get(path, -1) for path in paths], dtype=np.intp)

    def cosines(self, queries: np.ndarray) -> np.ndarray:
        """Each file's best cosine with unit queries (Q, D): (Q, F), off by `ROUNDING` at most."""
        starts = self.table.starts
        best = np.empty((len(queries), len(starts)), dtype=np.float32)
        row = 0
        for scores in score_blocks(self.table.vectors, queries) if len(starts) else ():
            best[row : row + len(scores)] = np.maximum.reduceat(scores, starts, axis=1)
            row += len(scores)
        return best

    def passing(self, where: Sequence[Condition]) -> np.ndarray:
        """Which files (F,) all conditions, which make sense, hold for."""
        return holding(self.table.files, where)

    def by_words(self, query: str) -> FileWords:
        """How well the files answer a query by their words."""
        answering, numbers = self.words.answering(query), self._number_by_words
        shares = np.append(answering.shares, 0.0)[numbers]
        scores = np.append(answering.scores, 0.0)[numbers]
        return FileWords(answering=answering, shares=shares, scores=scores)

    def hit(self, file: int, words: FileWords) -> WordHit | None:
        """What there is to say of one of the F files whose words may answer."""
        number = int(self._number_by_words[file])
        matches = self.words.matches(number, words.answering) if number >= 0 else ()
        if not matches:
            return None
        share, score = float(words.shares[file]), float(words.scores[file])
        return WordHit(
            path=self.words.records[number].state.path, score=score, share=share, matches=matches
        )

    def segments(self, paths: Collection[str]) -> dict[str, EmbeddedFile]:
        """See `Store.segments`."""
        return files_of(self.table, self.records, paths)


@runtime_checkable
class Holding(Protocol):
    """A store that can have all of a library in memory."""

    def held(self) -> Held | None:
        """The library, or None where it is too large for that."""


def held(store: Store) -> Held | None:
    """A store's library where it is in memory as a whole, else None."""
    return store.held() if isinstance(store, Holding) else None
