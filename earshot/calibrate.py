"""From scores to probabilities: how likely it is that a recording is what was asked for.

One idea: a cosine means nothing by itself, but how far it stands out from the cosines that
recordings of all kinds have with the same query does. A logistic curve over that distance
(Platt, Probabilistic outputs for support vector machines, 1999), fitted per model on pairs whose
relevance is known, turns it into a probability. Whether a library holds an answer at all is another
question: the best of many recordings stands out by chance, the further the more there are, so the
bar that it must reach rises with the logarithm of their number.

Axis legend: N recordings of the background, M scores, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from earshot.types import EarshotError

# Where a query has the same cosine with the whole background.
LEAST_DEVIATION = 0.01
# Newton's method on two unknowns ends long before.
STEPS = 50
BINS = 15


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """What a model's scores mean.

    `background` (N, D) are unit vectors of recordings of all kinds. The probability is the
    logistic function of `slope` x (standard deviations above the background) + `intercept`.
    Where nothing answers a query, the best of S segments reaches `bar` + `bar_per_doubling` x
    log2(S) standard deviations in `false_alarm_rate` of cases. `fingerprint` is that of the model.
    """

    background: np.ndarray
    slope: float
    intercept: float
    bar: float
    bar_per_doubling: float
    false_alarm_rate: float
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if self.background.ndim != 2 or not len(self.background):
            raise EarshotError(
                f"a calibration with a background of shape {self.background.shape}; it must be "
                "(recordings, dimension), at least one recording"
            )
        if not self.slope > 0 or not np.isfinite(self.intercept):
            raise EarshotError(
                f"a calibration with slope {self.slope} and intercept {self.intercept}; the slope "
                "must be above 0: a better score is never less likely"
            )
        if not (np.isfinite(self.bar) and self.bar_per_doubling >= 0):
            raise EarshotError(
                f"a calibration with bar {self.bar} and {self.bar_per_doubling} per doubling; the "
                "bar must be a number that does not fall as a library grows"
            )
        if not 0 <= self.false_alarm_rate <= 1:
            raise EarshotError(
                f"a calibration with false alarm rate {self.false_alarm_rate}; it lies between "
                "0 and 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reached:
    """How far the `best` (M,) of M libraries of one size stood out for what none of them holds.

    `segments` is their mean size.
    """

    best: np.ndarray
    segments: float


def standing_out(calibration: Calibration, query: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Cosines (M,) with a query (D,), in standard deviations above those of the background."""
    cosines = (calibration.background @ query).astype(np.float64)
    distance: np.ndarray = (scores - cosines.mean()) / max(float(cosines.std()), LEAST_DEVIATION)
    return distance


def probability_of(calibration: Calibration, distance: np.ndarray) -> np.ndarray:
    """The probability for each of (M,) distances in standard deviations."""
    return logistic(calibration.slope * distance + calibration.intercept)


def probability(calibration: Calibration, query: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The probability (M,) that recordings with cosines (M,) match a query (D,)."""
    return probability_of(calibration, standing_out(calibration, query, scores))


def bar_of(calibration: Calibration, segments: int) -> float:
    """How far the best of a library's segments must stand out, in standard deviations."""
    return calibration.bar + calibration.bar_per_doubling * float(np.log2(max(segments, 1)))


def threshold(calibration: Calibration, segments: int) -> float:
    """The probability that the best hit must have in a library of so many segments."""
    return float(probability_of(calibration, np.array([bar_of(calibration, segments)]))[0])


def logistic(value: np.ndarray) -> np.ndarray:
    """From log odds to probabilities."""
    # Beyond 500 the exponential overflows; the probability has long been 0 or 1.
    likely: np.ndarray = 1 / (1 + np.exp(-np.clip(value, -500, 500)))
    return likely


def fit_curve(
    distance: np.ndarray, relevant: np.ndarray, weights: np.ndarray
) -> tuple[float, float]:
    """Slope and intercept of the logistic curve that fits (M,) weighted pairs best.

    Raises:
        EarshotError: all or none of the pairs are relevant, or the distance tells nothing.
    """
    if relevant.all() or not relevant.any():
        raise EarshotError(
            "all or none of the pairs are relevant; a calibration needs queries of which some "
            "recordings are answers, and others are not"
        )
    inputs = np.stack([distance, np.ones(len(distance))], axis=1)
    weights = weights / weights.sum()
    found = np.zeros(2)
    for _ in range(STEPS):
        likely = logistic(inputs @ found)
        slope = inputs.T @ (weights * (relevant - likely))
        # The little that is added keeps pairs that a line divides from running to infinity.
        bend = (inputs * (weights * likely * (1 - likely))[:, None]).T @ inputs + 1e-6 * np.eye(2)
        found = found + np.linalg.solve(bend, slope - 1e-6 * found)
    if not found[0] > 0:
        raise EarshotError(
            "better scores are not more often answers here; the model or the table of what is "
            "relevant does not fit the recordings"
        )
    return float(found[0]), float(found[1])


def fit_bar(collections: Sequence[Sequence[Reached]], rate: float) -> tuple[float, float]:
    """Bar and its growth per doubling: what a share `rate` of libraries reaches without an answer.

    Growth is the mean of what each collection's sizes tell; then all collections count the same,
    whatever their numbers.
    """
    growth = float(np.mean([growth_of(sizes, rate) for sizes in collections]))
    excess, weights = [], []
    for sizes in collections:
        for one in sizes:
            excess.append(one.best - growth * np.log2(one.segments))
            weights.append(np.full(len(one.best), 1 / (len(one.best) * len(sizes))))
    joined, share = np.concatenate(excess), np.concatenate(weights)
    order = np.argsort(-joined, kind="stable")
    above = np.cumsum(share[order]) / share.sum()
    return float(joined[order][np.searchsorted(above, rate - 1e-9)]), growth


def growth_of(sizes: Sequence[Reached], rate: float) -> float:
    """How far a collection's bar rises per doubling of its segments; not at all with one size."""
    if len(sizes) == 1:
        return 0.0
    reached = [float(np.quantile(one.best, 1 - rate)) for one in sizes]
    slope = np.polyfit(np.log2([one.segments for one in sizes]), reached, 1)[0]
    return max(float(slope), 0.0)


def expected_calibration_error(likely: np.ndarray, relevant: np.ndarray, bins: int = BINS) -> float:
    """The mean distance of probabilities (M,) from how often they come true, in equal bins.

    Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning,
    2015.
    """
    number = np.minimum((likely * bins).astype(int), bins - 1)
    counts = np.bincount(number, minlength=bins)
    gaps = np.bincount(number, likely - relevant, minlength=bins)
    return float(np.abs(gaps).sum() / counts.sum())
