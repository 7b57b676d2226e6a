"""From scores to probabilities: how likely it is that a recording is what was asked for.

One idea: a cosine means nothing by itself, but how far it stands out from the cosines that
recordings of all kinds have with the same query does. A logistic curve over that distance
(Platt, Probabilistic outputs for support vector machines, 1999), fitted per model on pairs whose
relevance is known, turns it into a probability.

Axis legend: N recordings of the background, M scores, D embedding dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from earshot.types import EarshotError

# Where a query has the same cosine with the whole background.
LEAST_DEVIATION = 0.01


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """What a model's scores mean.

    `background` (N, D) are unit vectors of recordings of all kinds. The probability is the
    logistic function of `slope` x (standard deviations above the background) + `intercept`.
    Queries that nothing answers reach the probability `threshold` in `false_alarm_rate` of cases.
    """

    background: np.ndarray
    slope: float
    intercept: float
    threshold: float
    false_alarm_rate: float

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
        if not (0 <= self.threshold <= 1 and 0 <= self.false_alarm_rate <= 1):
            raise EarshotError(
                f"a calibration with threshold {self.threshold} and false alarm rate "
                f"{self.false_alarm_rate}; both lie between 0 and 1"
            )


def standing_out(calibration: Calibration, query: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Cosines (M,) with a query (D,), in standard deviations above those of the background."""
    cosines = (calibration.background @ query).astype(np.float64)
    distance: np.ndarray = (scores - cosines.mean()) / max(float(cosines.std()), LEAST_DEVIATION)
    return distance


def probability_of(calibration: Calibration, distance: np.ndarray) -> np.ndarray:
    """The probability for each of (M,) distances in standard deviations."""
    # Beyond 500 the exponential overflows; the probability has long been 0 or 1.
    exponent = np.clip(calibration.slope * distance + calibration.intercept, -500, 500)
    likely: np.ndarray = 1 / (1 + np.exp(-exponent))
    return likely


def probability(calibration: Calibration, query: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The probability (M,) that recordings with cosines (M,) match a query (D,)."""
    return probability_of(calibration, standing_out(calibration, query, scores))


def is_found(calibration: Calibration, query: np.ndarray, scores: np.ndarray) -> bool:
    """Whether any of the recordings is likely to match; none of none is."""
    likely = probability(calibration, query, scores)
    return bool((likely >= calibration.threshold).any())
