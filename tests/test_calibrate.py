"""Probabilities of scores."""

from dataclasses import replace

import numpy as np
import pytest

from earshot.calibrate import Calibration, is_found, probability, standing_out
from earshot.types import EarshotError


@pytest.fixture
def calibration() -> Calibration:
    rows = np.random.default_rng(0).normal(size=(300, 16))
    background = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return Calibration(
        background=background, slope=1.5, intercept=-4.0, threshold=0.5, false_alarm_rate=0.05
    )


def test_the_curve_is_logistic_over_standard_deviations(calibration: Calibration) -> None:
    query = calibration.background[0]
    cosines = calibration.background @ query
    scores = np.array([cosines.mean(), cosines.mean() + 2 * cosines.std()])
    np.testing.assert_allclose(standing_out(calibration, query, scores), [0, 2], atol=1e-9)
    expected = 1 / (1 + np.exp(4.0)), 1 / (1 + np.exp(4.0 - 3.0))
    np.testing.assert_allclose(probability(calibration, query, scores), expected)


def test_better_scores_are_likelier(calibration: Calibration) -> None:
    likely = probability(calibration, calibration.background[1], np.linspace(-1, 1, 20))
    assert (np.diff(likely) > 0).all()
    assert likely.min() >= 0
    assert likely.max() <= 1
    extreme = probability(replace(calibration, slope=1e6), np.ones(16), np.array([-1.0, 1.0]))
    np.testing.assert_allclose(extreme, [0, 1], atol=1e-12)


def test_the_scale_of_cosines_does_not_matter(calibration: Calibration) -> None:
    """Queries with cosines all high, or all alike, compare with others."""
    query, scores = calibration.background[2], np.array([0.1, 0.4])
    scaled = probability(calibration, 3 * query, 3 * scores)
    np.testing.assert_allclose(scaled, probability(calibration, query, scores))


def test_found_is_being_likely_enough(calibration: Calibration) -> None:
    query = calibration.background[3]
    assert is_found(calibration, query, np.array([0.1, 1.0]))
    assert not is_found(calibration, query, np.array([0.1, 0.0]))
    assert not is_found(calibration, query, np.array([]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"slope": 0.0},
        {"slope": -1.0},
        {"intercept": float("nan")},
        {"threshold": 1.5},
        {"false_alarm_rate": -0.1},
        {"background": np.empty((0, 16))},
        {"background": np.ones(16)},
    ],
)
def test_impossible_settings_are_refused(calibration: Calibration, wrong: dict) -> None:
    with pytest.raises(EarshotError):
        replace(calibration, **wrong)
