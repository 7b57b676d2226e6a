"""Search: a query becomes a vector, the store gives segments, a clip ranks by its best segment."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from earshot.model import load, require_same_model
from earshot.store import is_storable, open_store
from earshot.types import Condition, EarshotError, Hit, Model, SegmentHit, Store

# A long clip can fill a list of segments, hence more are asked for than hits are wanted.
SEGMENTS_PER_HIT = 4


class Searcher:
    """A model and the store that it filled."""

    def __init__(self, model: Model, store: Store) -> None:
        require_same_model(store.manifest, model)
        self.model, self.store = model, store

    @classmethod
    def open(cls, uri: str, model: str | None = None) -> Searcher:
        """Open an index with the model that it was made with; `model` says where that is now.

        Raises:
            EarshotError: no index there, its model is not to be had, or `model` is another one.
        """
        store = open_store(uri)
        if model is not None:
            return cls(load(model), store)
        try:
            return cls(load(store.manifest.model), store)
        except EarshotError as error:
            if not Path(store.manifest.model).is_absolute():
                raise
            raise EarshotError(
                f"the index was made with the model {store.manifest.model}: {error}; if that was "
                f"moved, give its new folder with --model"
            ) from error

    def search(self, query: str, k: int = 10, where: Sequence[Condition] = ()) -> list[Hit]:
        """The best `k` clips for one query, best first, each with its best segment."""
        return self.search_many([query], k, where)[0]

    def search_many(
        self, queries: Sequence[str], k: int = 10, where: Sequence[Condition] = ()
    ) -> list[list[Hit]]:
        """The best `k` clips for each query.

        Raises:
            EarshotError: an empty query, or `k` below one.
        """
        if k < 1:
            raise EarshotError(f"k is {k}; ask for at least one hit")
        if not queries:
            return []
        for query in queries:
            require_text(query)
        vectors = self.model.embed_text(queries)
        limit = k * SEGMENTS_PER_HIT
        answers = []
        for i, segments in enumerate(self.store.search(vectors, limit, where)):
            wanted, hits = limit, best_of_clips(segments)
            while len(hits) < k and len(segments) == wanted:
                wanted *= SEGMENTS_PER_HIT
                segments = self.store.search(vectors[i : i + 1], wanted, where)[0]
                hits = best_of_clips(segments)
            answers.append(hits[:k])
        return answers


def require_text(query: str) -> None:
    """Refuse a query that says nothing, or holds bytes that are no text.

    Raises:
        EarshotError: with the query.
    """
    if not query.strip() or not is_storable(query):
        raise EarshotError(
            f"a query is empty or no text ({ascii(query)}); say what to listen for: 'dog barking'"
        )


def best_of_clips(segments: Sequence[SegmentHit]) -> list[Hit]:
    """Keep each clip's first, which is its best, of segments in order."""
    best: dict[str, SegmentHit] = {}
    for hit in segments:
        best.setdefault(hit.path, hit)
    return [
        Hit(path=hit.path, score=hit.score, start_s=hit.start_s, end_s=hit.end_s)
        for hit in best.values()
    ]


def read_queries(path: Path) -> list[str]:
    """The column `query` of a CSV file.

    Raises:
        EarshotError: no such file, column or row.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EarshotError(f"cannot read {path} as CSV: {error}") from error
    if not rows or "query" not in rows[0]:
        raise EarshotError(f"{path} has no column `query` with rows below it")
    for number, row in enumerate(rows, 1):
        if not (row["query"] or "").strip():
            raise EarshotError(f"{path}, row {number}: the query is empty")
    return [row["query"] for row in rows]
