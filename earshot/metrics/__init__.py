"""How well a ranking answers its queries: scores or lists and the relevant items in, figures out.

All metrics are functions of one thing, the ranks of the relevant items (`RelevantRanks`), and give
one figure per query, (Q,); a mean over queries is the caller's, and `bootstrap_interval` or
`jackknife_interval` say how far to trust it. Where several are wanted, compute the ranks once
(`relevant_ranks` of a matrix, `relevant_ranks_in_blocks`, `relevant_ranks_in_lists`) and ask them,
or `measure(ranks, "mAP@10")`. For one, the functions here take `scores` and `relevance` (Q, N).
Audio to text is the transposed matrix.

- A higher score is better, and equal scores are ordered by column index, the lower first: order
  the columns by item id and a result is the same on every machine. `RelevantRanks.tied` tells the
  queries where that mattered, `with_ties` gives the best and the worst that another order could do;
- a query without a relevant item has no figure: it raises instead of counting 0, 1 or not at all;
- NaN scores raise; infinite ones are scores like any other;
- AP@k divides by all relevant items, also by those that cannot fit into k places (trec_eval's
  map_cut; DCASE language-based audio retrieval), capped AP@k by min(k, R), nDCG@k by the best that
  fits into k places (Jarvelin and Kekalainen, 2002; gain 0 or 1);
- R@k is 1 or 0, whether any relevant item is among the first k, as papers with one clip per caption
  have it; recall@k is the share of the relevant items. Published audio-to-text R@k is the latter,
  so that R@1 cannot exceed 0.2 with five captions per clip.

Axis legend: Q queries, N items, P pairs of a query and one of its relevant items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from earshot.metrics.intervals import (
    Comparison,
    Interval,
    bootstrap_interval,
    compare,
    jackknife_interval,
)
from earshot.metrics.ranks import (
    NOT_LISTED,
    Floats,
    Ints,
    RelevantRanks,
    Ties,
    relevant_ranks,
    relevant_ranks_in_blocks,
    relevant_ranks_in_lists,
    row_blocks,
    top_items,
)
from earshot.types import EarshotError

__all__ = [
    "NOT_LISTED",
    "Comparison",
    "Interval",
    "RelevantRanks",
    "Ties",
    "any_hit",
    "average_precision",
    "bootstrap_interval",
    "capped_average_precision",
    "compare",
    "coverage",
    "jackknife_interval",
    "measure",
    "median_rank",
    "ndcg",
    "precision",
    "recall",
    "reciprocal_rank",
    "relevant_ranks",
    "relevant_ranks_in_blocks",
    "relevant_ranks_in_lists",
    "row_blocks",
    "top_items",
]

AT_K: Mapping[str, Callable[[RelevantRanks, int], Floats]] = {
    "mAP": RelevantRanks.average_precision,
    "capped mAP": RelevantRanks.capped_average_precision,
    "R": RelevantRanks.any_hit,
    "recall": RelevantRanks.recall,
    "P": RelevantRanks.precision,
    "nDCG": RelevantRanks.ndcg,
}
WHOLE: Mapping[str, Callable[[RelevantRanks], Floats]] = {
    "mAP": RelevantRanks.average_precision,
    "nDCG": RelevantRanks.ndcg,
    "MRR": RelevantRanks.reciprocal_rank,
}


def measure(ranks: RelevantRanks, name: str) -> Floats:
    """A metric by name, such as `mAP@10`, `R@5`, `capped mAP@16` or `MRR`: one figure per query.

    Raises:
        EarshotError: an unknown name, with those that there are.
    """
    base, at, k = name.partition("@")
    if not at and base in WHOLE:
        return WHOLE[base](ranks)
    if base in AT_K and k.isdecimal():
        return AT_K[base](ranks, int(k))
    known = ", ".join([*(f"{base}@k" for base in AT_K), *WHOLE])
    raise EarshotError(f"no metric {name!r}; there are {known}")


def average_precision(scores: np.ndarray, relevance: np.ndarray, k: int | None = None) -> Floats:
    """AP, or AP@k: precision at each relevant item (in the first k), over all relevant items."""
    return relevant_ranks(scores, relevance).average_precision(k)


def capped_average_precision(scores: np.ndarray, relevance: np.ndarray, k: int) -> Floats:
    """AP@k over min(k, R) instead: 1 for the best list of k, however many items are relevant."""
    return relevant_ranks(scores, relevance).capped_average_precision(k)


def any_hit(scores: np.ndarray, relevance: np.ndarray, k: int) -> Floats:
    """1 where the first k hold a relevant item, else 0: the R@k of papers with one caption each."""
    return relevant_ranks(scores, relevance).any_hit(k)


def recall(scores: np.ndarray, relevance: np.ndarray, k: int) -> Floats:
    """The share of the relevant items that the first k hold."""
    return relevant_ranks(scores, relevance).recall(k)


def precision(scores: np.ndarray, relevance: np.ndarray, k: int) -> Floats:
    """The share of the first k places that hold a relevant item; k beyond N counts as misses."""
    return relevant_ranks(scores, relevance).precision(k)


def ndcg(scores: np.ndarray, relevance: np.ndarray, k: int | None = None) -> Floats:
    """Gain of 1/log2(1 + rank) per relevant item (in the first k), over the best possible."""
    return relevant_ranks(scores, relevance).ndcg(k)


def reciprocal_rank(scores: np.ndarray, relevance: np.ndarray) -> Floats:
    """One over the rank of the best relevant item; its mean is the MRR."""
    return relevant_ranks(scores, relevance).reciprocal_rank()


def median_rank(ranks: RelevantRanks) -> float:
    """The median over queries of the best relevant item's rank; infinite if mostly not listed."""
    best = ranks.best()
    return float(np.median(np.where(best < NOT_LISTED, best, np.inf)))


def coverage(top: Ints, item_count: int) -> float:
    """The share of all items that stand in any of the first places `top` (Q, k).

    Low where a few items (hubs) crowd the answers to all queries.
    """
    return len(np.unique(top)) / item_count
