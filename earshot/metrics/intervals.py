"""How far a mean over queries can be trusted, and whether two systems really differ.

The five captions of one clip are heard by the same ears and answered by the same recording: their
figures are not independent, and resampling queries one by one makes intervals too narrow. Give
`clusters` (Q,), equal numbers for queries that belong together, and whole clusters are drawn
(cluster bootstrap; Davison and Hinkley, Bootstrap Methods and their Application, 1997, 3.8).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from earshot.metrics.ranks import Floats, Ints
from earshot.types import EarshotError

Z_95 = 1.959963984540054  # standard normal quantile at 0.975
DRAWS_AT_ONCE = 2**22  # bounds the memory of resampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean over queries and the 95 % interval around it."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How much better the first of two systems is, and how often chance alone does as much."""

    difference: Interval
    p_value: float


def bootstrap_interval(
    values: np.ndarray,
    generator: np.random.Generator,
    *,
    resamples: int = 1000,
    clusters: np.ndarray | None = None,
) -> Interval:
    """Percentile bootstrap (Efron, 1979) of the mean of `values` (Q,), over queries or clusters.

    Raises:
        EarshotError: fewer than two queries or clusters, a figure that is not finite, or no
            resamples.
    """
    _check_values(values)
    if resamples < 1:
        raise EarshotError(f"resamples is {resamples}; give at least 1, better 1000")
    sums, sizes = _by_cluster(values, clusters)
    means = np.empty(resamples)
    step = max(1, DRAWS_AT_ONCE // len(sums))
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        draw = generator.integers(len(sums), size=(count, len(sums)))
        means[start : start + count] = sums[draw].sum(axis=1) / sizes[draw].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(mean=float(values.mean()), low=float(low), high=float(high))


def jackknife_interval(values: np.ndarray) -> Interval:
    """The DCASE interval: for a mean, leaving out one query at a time comes to mean -+ z s/sqrt(Q).

    s has Q - 1 in its denominator; equal to astropy's `jackknife_stats(values, mean, 0.95)`.
    """
    _check_values(values)
    mean = float(values.mean())
    margin = Z_95 * float(values.std(ddof=1)) / len(values) ** 0.5
    return Interval(mean=mean, low=mean - margin, high=mean + margin)


def compare(
    first: np.ndarray,
    second: np.ndarray,
    generator: np.random.Generator,
    *,
    resamples: int = 10_000,
    clusters: np.ndarray | None = None,
) -> Comparison:
    """Two systems on the same queries, (Q,) each: the bootstrap interval of the mean difference.

    The p-value is two-sided, from a permutation test that swaps the systems per query or cluster
    (Fisher's randomisation; Smucker, Allan and Carterette, CIKM 2007); it is never exactly 0.

    Raises:
        EarshotError: as `bootstrap_interval`, or figures of different queries.
    """
    if first.shape != second.shape:
        raise EarshotError(
            f"figures of {len(first)} and of {len(second)} queries cannot be paired; "
            "judge both systems on the same queries"
        )
    difference = first - second
    interval = bootstrap_interval(difference, generator, resamples=resamples, clusters=clusters)
    sums, _ = _by_cluster(difference, clusters)
    as_extreme = 0
    step = max(1, DRAWS_AT_ONCE // len(sums))
    # What is equal but for the order of summation counts as equal.
    observed = abs(sums.sum()) * (1 - 1e-12)
    for start in range(0, resamples, step):
        signs = generator.choice((-1.0, 1.0), size=(min(step, resamples - start), len(sums)))
        as_extreme += int(np.count_nonzero(np.abs(signs @ sums) >= observed))
    return Comparison(difference=interval, p_value=(as_extreme + 1) / (resamples + 1))


def _by_cluster(values: np.ndarray, clusters: np.ndarray | None) -> tuple[Floats, Ints]:
    """Sum and number of the figures in each cluster, (C,) and (C,)."""
    if clusters is None:
        return values.astype(np.float64), np.ones(len(values), dtype=np.intp)
    if clusters.shape != values.shape:
        raise EarshotError(f"clusters are {clusters.shape}; give one number per query, (Q,)")
    _, member = np.unique(clusters, return_inverse=True)
    if member.max() == 0:
        raise EarshotError("an interval needs two or more clusters; all queries are in one")
    return np.bincount(member, weights=values).astype(np.float64), np.bincount(member)


def _check_values(values: np.ndarray) -> None:
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise EarshotError(
            f"an interval needs the finite figures of two or more queries, (Q,); got {values.shape}"
        )
