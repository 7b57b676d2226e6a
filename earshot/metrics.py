"""How well a ranking answers its queries: a score matrix and its relevant items in, figures out.

Every metric takes `scores` and `relevance` (Q, N) and returns one figure per query, (Q,); a mean
over queries is the caller's, and `bootstrap_interval` or `jackknife_interval` say how far to
trust it. All of them build on one thing, the ranks of the relevant items:

- a higher score is better, and equal scores are ordered by column index, the lower first: order
  the columns by item id and a result is the same on every machine;
- a query without a relevant item has no figure: it raises instead of counting 0, 1 or not at all;
- NaN scores raise; infinite ones are scores like any other;
- AP@k divides by all relevant items, also by those that cannot fit into k places (trec_eval's
  map_cut; DCASE language-based audio retrieval), nDCG@k by the best that fits into k places
  (Jarvelin and Kekalainen, 2002; gain 0 or 1).

Axis legend: Q queries, N items, P pairs of a query and one of its relevant items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earshot.types import EarshotError

Floats = NDArray[np.float64]
Z_95 = 1.959963984540054  # standard normal quantile at 0.975
DENSE_FROM = 8  # relevant items per query from which sorting is quicker than counting
CELLS_AT_ONCE = 2**22  # bounds the memory of counting


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean over queries and the 95 % interval around it."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RelevantRanks:
    """Where the relevant items stand: P pairs, by query and, within a query, best first."""

    query: NDArray[np.intp]
    """Which query, (P,)."""
    rank: NDArray[np.intp]
    """The item's place among all, from 1, (P,)."""
    count: NDArray[np.intp]
    """How many relevant items the query has, (Q,), at least 1."""

    def place(self) -> NDArray[np.intp]:
        """The item's place among the relevant ones of its query, from 1, (P,)."""
        return np.arange(1, len(self.rank) + 1) - self._first()[self.query]

    def best(self) -> NDArray[np.intp]:
        """The best rank of each query, (Q,)."""
        return self.rank[self._first()]

    def total(self, values: NDArray[np.bool_] | Floats) -> Floats:
        """Add up what each pair contributes, (P,), by query, (Q,)."""
        sums = np.bincount(self.query, weights=values, minlength=len(self.count))
        return sums.astype(np.float64, copy=False)

    def _first(self) -> NDArray[np.intp]:
        return np.cumsum(self.count) - self.count


def average_precision(scores: np.ndarray, relevance: np.ndarray, k: int | None = None) -> Floats:
    """AP, or AP@k: precision at each relevant item (in the first k), over all relevant items."""
    ranks = relevant_ranks(scores, relevance)
    precision_there = ranks.place() / ranks.rank
    return ranks.total(precision_there * _within(ranks, k)) / ranks.count


def any_hit(scores: np.ndarray, relevance: np.ndarray, k: int) -> Floats:
    """1 where the first k hold a relevant item, else 0: the R@k of papers with one caption each."""
    return (_hits(relevant_ranks(scores, relevance), k) > 0).astype(np.float64)


def recall(scores: np.ndarray, relevance: np.ndarray, k: int) -> Floats:
    """The share of the relevant items that the first k hold."""
    ranks = relevant_ranks(scores, relevance)
    return _hits(ranks, k) / ranks.count


def precision(scores: np.ndarray, relevance: np.ndarray, k: int) -> Floats:
    """The share of the first k places that hold a relevant item; k beyond N counts as misses."""
    return _hits(relevant_ranks(scores, relevance), k) / k


def ndcg(scores: np.ndarray, relevance: np.ndarray, k: int | None = None) -> Floats:
    """Gain of 1/log2(1 + rank) per relevant item (in the first k), over the best possible."""
    ranks = relevant_ranks(scores, relevance)
    gained = ranks.total(_within(ranks, k) / np.log2(1 + ranks.rank))
    cut = ranks.count if k is None else np.minimum(ranks.count, k)
    best = np.cumsum(1 / np.log2(np.arange(2, cut.max(initial=0) + 2)))
    return gained / best[cut - 1]


def reciprocal_rank(scores: np.ndarray, relevance: np.ndarray) -> Floats:
    """One over the rank of the best relevant item; its mean is the MRR."""
    ranks = relevant_ranks(scores, relevance)
    return 1.0 / ranks.best()


def relevant_ranks(scores: np.ndarray, relevance: np.ndarray) -> RelevantRanks:
    """The ranks that the metrics are made of; raises `EarshotError` as the module's text says."""
    _check(scores, relevance)
    query, item = np.nonzero(relevance)
    dense = len(query) > DENSE_FROM * len(scores)
    rank = (_ranks_by_sorting if dense else _ranks_by_counting)(scores, query, item)
    best_first = np.lexsort((rank, query))
    return RelevantRanks(query=query, rank=rank[best_first], count=relevance.sum(axis=1))


def bootstrap_interval(
    values: np.ndarray, generator: np.random.Generator, *, resamples: int = 1000
) -> Interval:
    """Percentile bootstrap over queries (Efron, 1979) of the mean of `values` (Q,)."""
    _check_values(values)
    if resamples < 1:
        raise EarshotError(f"resamples is {resamples}; give at least 1, better 1000")
    draws = (generator.integers(len(values), size=len(values)) for _ in range(resamples))
    low, high = np.quantile([values[draw].mean() for draw in draws], (0.025, 0.975))
    return Interval(mean=float(values.mean()), low=float(low), high=float(high))


def jackknife_interval(values: np.ndarray) -> Interval:
    """The DCASE interval: for a mean, leaving out one query at a time comes to mean -+ z s/sqrt(Q).

    s has Q - 1 in its denominator; equal to astropy's `jackknife_stats(values, mean, 0.95)`.
    """
    _check_values(values)
    mean = float(values.mean())
    margin = Z_95 * float(values.std(ddof=1)) / len(values) ** 0.5
    return Interval(mean=mean, low=mean - margin, high=mean + margin)


def _ranks_by_counting(
    scores: np.ndarray, query: NDArray[np.intp], item: NDArray[np.intp]
) -> NDArray[np.intp]:
    """1 + how many items stand before each pair's: quickest while relevant items are few."""
    rank = np.empty(len(query), dtype=np.intp)
    columns = np.arange(scores.shape[1])
    step = max(1, CELLS_AT_ONCE // scores.shape[1])
    for start in range(0, len(query), step):
        span = slice(start, start + step)
        rows, own_column = scores[query[span]], item[span, None]
        own = np.take_along_axis(rows, own_column, axis=1)
        before = (rows > own) | ((rows == own) & (columns < own_column))
        rank[span] = 1 + np.count_nonzero(before, axis=1)
    return rank


def _ranks_by_sorting(
    scores: np.ndarray, query: NDArray[np.intp], item: NDArray[np.intp]
) -> NDArray[np.intp]:
    # Sorting the mirrored rows upwards keeps integers and -inf as they are, unlike a minus sign.
    last = scores.shape[1] - 1
    order = last - np.argsort(scores[:, ::-1], axis=1, kind="stable")[:, ::-1]
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(1, last + 2)[None, :], axis=1)
    found: NDArray[np.intp] = rank[query, item]
    return found


def _within(ranks: RelevantRanks, k: int | None) -> NDArray[np.bool_]:
    if k is not None and k < 1:
        raise EarshotError(f"k is {k}; it counts places from the top, so give at least 1")
    return ranks.rank <= (np.inf if k is None else k)


def _hits(ranks: RelevantRanks, k: int) -> Floats:
    return ranks.total(_within(ranks, k))


def _check(scores: np.ndarray, relevance: np.ndarray) -> None:
    if scores.ndim != 2 or scores.shape != relevance.shape or not scores.size:
        raise EarshotError(
            f"scores {scores.shape} and relevance {relevance.shape}; both must be (Q, N), not empty"
        )
    if relevance.dtype != np.bool_:
        raise EarshotError(f"relevance is {relevance.dtype}; give bool (for grades: grade > 0)")
    if np.isnan(scores).any():
        raise EarshotError(f"query {np.argwhere(np.isnan(scores))[0, 0]} has NaN scores")
    unanswered = np.flatnonzero(~relevance.any(axis=1))
    if unanswered.size:
        raise EarshotError(
            f"{unanswered.size} queries have no relevant item, the first is query {unanswered[0]}; "
            "leave them out"
        )


def _check_values(values: np.ndarray) -> None:
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise EarshotError(
            f"an interval needs the finite figures of two or more queries, (Q,); got {values.shape}"
        )
