"""The indexes of a LanceDB table that is too large for memory, and how its vectors are searched.

One idea: an IVF_RQ index (RaBitQ, https://arxiv.org/abs/2405.12497) of one bit per dimension only
proposes; what it proposes is scored again from the vectors themselves. LanceDB scans rows that are
not in an index yet, so an index may be made, or made anew, while the table is read and written.
Measured in `benchmarks/scale.py`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from threading import Lock, Thread
from typing import Any

import numpy as np

from earshot.store.exact import ranked
from earshot.store.expressions import filter_of
from earshot.store.lance_words import WORDS_COLUMN
from earshot.store.rows import HIT_COLUMNS, padded, vectors_of
from earshot.types import Condition, EarshotError, SegmentHit

# One-bit codes alone find 6 of the true 10; so many of their best scored again find them all.
CANDIDATES = 200
# Of a long list, each place has at least so many.
REFINE = 5
# Where nothing is filtered, 20 partitions hold the candidates; a search that may go on to all of
# them prepares them all: 22 ms instead of 12 at a million rows.
PARTITIONS, MOST_PARTITIONS = 20, 40
# LanceDB adds rows to the partitions that there are; from so much growth on they are found anew.
GROWTH = 4
# The words are split, folded and stemmed already.
AS_THEY_STAND: dict[str, Any] = {
    "base_tokenizer": "whitespace",
    **dict.fromkeys(("lower_case", "stem", "remove_stop_words", "ascii_folding"), False),
}
COLUMNS = ("vector", WORDS_COLUMN, "path")
MADE_OF = re.compile(r"vector_(\d+)")


def indexed_columns(table: Any) -> set[str]:
    """The columns that LanceDB has an index of."""
    return {column for index in table.list_indices() for column in index.columns}


def is_due(table: Any) -> bool:
    """Whether a large table lacks an index, or has outgrown that of its vectors."""
    return bool({*COLUMNS} - indexed_columns(table)) or outgrown(table)


def outgrown(table: Any) -> bool:
    """Whether a table holds several times the rows that its vectors' index was made of."""
    made_of = [int(name[1]) for name in map(MADE_OF.fullmatch, vector_indexes(table)) if name]
    return bool(made_of) and table.count_rows() > GROWTH * max(made_of)


def vector_indexes(table: Any) -> list[str]:
    """The names of the indexes of vectors; two while one takes the place of the other."""
    return [index.name for index in table.list_indices() if index.columns == ["vector"]]


def make_indexes(table: Any) -> None:
    """Make what a large table lacks; what it has answers meanwhile."""
    from lancedb.index import FTS, BTree, IvfRq

    missing = {*COLUMNS} - indexed_columns(table)
    if "path" in missing:
        table.create_index("path", config=BTree())
    if WORDS_COLUMN in missing:
        table.create_index(WORDS_COLUMN, config=FTS(**AS_THEY_STAND))
    if "vector" in missing or outgrown(table):
        former = vector_indexes(table)
        name = f"vector_{table.count_rows()}"
        table.create_index("vector", config=IvfRq(distance_type="cosine"), name=name)
        for other in former:
            if other != name:
                table.drop_index(other)


class Builder:
    """Work that goes on behind its caller, once at a time; the process ends when it is done."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work, self._starting = work, Lock()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Begin, unless it goes on already."""
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = Thread(target=self._try, name="earshot index")
                self._thread.start()

    def wait(self) -> None:
        """Until nothing goes on."""
        if self._thread is not None:
            self._thread.join()

    def _try(self) -> None:
        try:
            self._work()
        except EarshotError as error:
            warnings.warn(f"{error}; until then it is searched slowly", stacklevel=1)


def scan(
    table: Any, queries: np.ndarray, limit: int, where: Sequence[Condition]
) -> list[list[SegmentHit]]:
    """The best `limit` rows for each unit query (Q, D), scored by their vectors."""
    # Without `_distance` in the selection every query logs a warning.
    columns = [*HIT_COLUMNS, "vector", "_distance"]
    query = table.search(padded(queries), vector_column_name="vector")
    refine = max(REFINE, -(-CANDIDATES // limit))
    query = query.distance_type("cosine").limit(limit).refine_factor(refine)
    query = query.minimum_nprobes(PARTITIONS)
    # As many as it takes: a few partitions may hold few of the rows that pass a filter, or that a
    # long list asks for.
    few = not where and limit <= CANDIDATES
    query = query.maximum_nprobes(MOST_PARTITIONS if few else 0)
    if where:
        query = query.where(filter_of(where))
    rows = query.select(columns).to_arrow()
    vectors = vectors_of(rows, queries.shape[1])
    # A single query's rows come without its number.
    numbered = "query_index" in rows.column_names
    owners = rows["query_index"].to_numpy() if numbered else np.zeros(len(rows), dtype=int)
    spans = rows.select(list(HIT_COLUMNS)).to_pylist()
    answers = []
    for number, unit in enumerate(queries):
        own = np.flatnonzero(owners == number)
        answers.append(ranked([spans[i] for i in own], vectors[own], unit))
    return answers
