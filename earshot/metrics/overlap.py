"""How alike two rankings of the same things are, without knowing which is right.

Both measures are 1 for equal lists and 0 for lists that share nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from earshot.types import EarshotError


def overlap_at(one: Sequence[str], other: Sequence[str], k: int) -> float:
    """The share of the first `k` places, or as many as the longer list has, that both agree on."""
    most = min(k, max(len(one), len(other)))
    return len({*one[:k]} & {*other[:k]}) / most if most else 1.0


def rank_biased_overlap(one: Sequence[str], other: Sequence[str], p: float = 0.9) -> float:
    """Agreement weighted by rank: a reader goes on to the next place with probability `p`.

    At 0.9 the first ten places have 86 % of the weight. Both lists are followed as far as the
    shorter goes, and agreement is taken to go on as it is there (RBO_EXT of Webber, Moffat and
    Zobel, 2010, equation 23, https://doi.org/10.1145/1852102.1852106).

    Raises:
        EarshotError: `p` is not between 0 and 1.
    """
    if not 0 < p < 1:
        raise EarshotError(f"p is {p}; the probability to go on must be above 0 and below 1")
    depth = min(len(one), len(other))
    if depth == 0:
        return float(len(one) == len(other))
    shared, total = 0, 0.0
    seen_in_one: set[str] = set()
    seen_in_other: set[str] = set()
    for rank in range(1, depth + 1):
        first, second = one[rank - 1], other[rank - 1]
        seen_in_one.add(first)
        seen_in_other.add(second)
        shared += (first in seen_in_other) + (second in seen_in_one) - (first == second)
        total += shared / rank * p**rank
    return shared / depth * p**depth + (1 - p) / p * total
