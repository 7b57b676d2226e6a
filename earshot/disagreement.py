"""Where two indexes of the same library disagree: the same queries asked of both.

It says where to listen before a model is changed, not which of the two is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

from earshot.files import atomic_write
from earshot.metrics.overlap import overlap_at, rank_biased_overlap
from earshot.search import Searcher
from earshot.types import EarshotError, Hit

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color-scheme:light dark}td,th{padding:.2rem .8rem .2rem 0;text-align:left}"
    "summary{cursor:pointer}td.n{text-align:right;font-variant-numeric:tabular-nums}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A recording with its rank in both answers, from 1; None where it is not among the first."""

    path: str
    rank_a: int | None
    rank_b: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """How the answers to one query differ; `moves` are those that changed rank, the most first."""

    query: str
    overlap: float
    rank_biased_overlap: float
    moves: tuple[Move, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two indexes compared to depth `k`; queries on which they differ most come first."""

    index_a: str
    index_b: str
    model_a: str
    model_b: str
    k: int
    queries: tuple[Disagreement, ...]

    @property
    def overlap(self) -> float:
        """The mean overlap@k of the queries."""
        return fmean(query.overlap for query in self.queries)

    @property
    def rank_biased_overlap(self) -> float:
        """The mean rank-biased overlap of the queries."""
        return fmean(query.rank_biased_overlap for query in self.queries)

    def as_json(self) -> dict[str, Any]:
        """The comparison as the command line prints it for programs."""
        return {
            **asdict(self),
            "overlap": self.overlap,
            "rank_biased_overlap": self.rank_biased_overlap,
        }


def compare_indexes(index_a: str, index_b: str, queries: Sequence[str], k: int = 10) -> Comparison:
    """Ask two indexes the same queries.

    Raises:
        EarshotError: no query, an index that cannot be opened, or `k` below one.
    """
    if not queries:
        raise EarshotError("no query; give some in quotes or by --queries FILE.csv")
    one, other = Searcher.open(index_a), Searcher.open(index_b)
    answers = zip(one.search_many(queries, k), other.search_many(queries, k), strict=True)
    found = [
        disagreement(query, names_of(hits_a), names_of(hits_b), k)
        for query, (hits_a, hits_b) in zip(queries, answers, strict=True)
    ]
    return Comparison(
        index_a=index_a,
        index_b=index_b,
        model_a=one.model.name,
        model_b=other.model.name,
        k=k,
        queries=tuple(sorted(found, key=lambda query: query.rank_biased_overlap)),
    )


def names_of(hits: Sequence[Hit]) -> list[str]:
    """One name per hit: which of several copies stands for them differs between models."""
    return [min(hit.path, *hit.copies) if hit.copies else hit.path for hit in hits]


def disagreement(query: str, one: Sequence[str], other: Sequence[str], k: int) -> Disagreement:
    """How two answers to a query differ."""
    ranks_a = {path: rank for rank, path in enumerate(one, 1)}
    ranks_b = {path: rank for rank, path in enumerate(other, 1)}
    moves = [
        Move(path=path, rank_a=ranks_a.get(path), rank_b=ranks_b.get(path))
        for path in dict.fromkeys([*one, *other])
        if ranks_a.get(path) != ranks_b.get(path)
    ]
    beyond = k + 1
    return Disagreement(
        query=query,
        overlap=overlap_at(one, other, k),
        rank_biased_overlap=rank_biased_overlap(one, other),
        moves=tuple(
            sorted(
                moves,
                key=lambda move: (
                    -abs((move.rank_a or beyond) - (move.rank_b or beyond)),
                    min(move.rank_a or beyond, move.rank_b or beyond),
                    move.path,
                ),
            )
        ),
    )


def write_page(path: Path, comparison: Comparison) -> None:
    """Write a comparison as a page that needs nothing but itself."""
    title = escape(f"{comparison.model_a} and {comparison.model_b}")
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<title>{title}</title><style>{STYLE}</style><h1>Where {title} disagree</h1>",
        f"<p>A: {escape(comparison.index_a)}, B: {escape(comparison.index_b)}. Mean "
        f"overlap@{comparison.k} {comparison.overlap:.2f}, rank-biased overlap "
        f"{comparison.rank_biased_overlap:.2f}.</p>",
        *map(_section, comparison.queries),
    ]
    with atomic_write(path) as file:
        file.write("\n".join(parts).encode("utf-8", "replace"))


def _section(query: Disagreement) -> str:
    rows = "".join(
        f"<tr><td class=n>{move.rank_a or '–'}<td class=n>{move.rank_b or '–'}"
        f"<td>{escape(move.path)}"
        for move in query.moves
    )
    return (
        f"<details><summary>{escape(query.query)}: overlap {query.overlap:.2f}, rank-biased "
        f"{query.rank_biased_overlap:.2f}</summary><table><tr><th>rank in A<th>rank in B"
        f"<th>recording{rows}</table></details>"
    )
