"""Probabilities of scores."""

from dataclasses import replace

import numpy as np
import pytest

from earshot.calibrate import (
    Calibration,
    Reached,
    bar_of,
    expected_calibration_error,
    fit_bar,
    fit_curve,
    logistic,
    probability,
    standing_out,
    threshold,
)
from earshot.types import EarshotError


@pytest.fixture
def calibration() -> Calibration:
    rows = np.random.default_rng(0).normal(size=(300, 16))
    background = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return Calibration(
        background=background,
        slope=1.5,
        intercept=-4.0,
        bar=2.0,
        bar_per_doubling=0.25,
        false_alarm_rate=0.05,
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


def test_the_bar_rises_with_the_library(calibration: Calibration) -> None:
    assert bar_of(calibration, 1) == bar_of(calibration, 0) == 2.0
    assert bar_of(calibration, 1024) == 2.0 + 10 * 0.25
    assert threshold(calibration, 1024) == pytest.approx(1 / (1 + np.exp(4.0 - 1.5 * 4.5)))


def test_the_curve_is_found_again() -> None:
    random = np.random.default_rng(0)
    distance = random.normal(0, 2, 20_000)
    relevant = random.random(20_000) < logistic(1.2 * distance - 2.0)
    slope, intercept = fit_curve(distance, relevant, np.ones(20_000))
    assert slope == pytest.approx(1.2, abs=0.06)
    assert intercept == pytest.approx(-2.0, abs=0.08)
    # A pair of weight two is two pairs.
    twice = fit_curve(np.repeat(distance, 2), np.repeat(relevant, 2), np.ones(40_000))
    np.testing.assert_allclose(twice, (slope, intercept), rtol=1e-6)


def test_pairs_that_teach_nothing_are_refused() -> None:
    distance = np.arange(10.0)
    with pytest.raises(EarshotError, match="all or none"):
        fit_curve(distance, np.ones(10, bool), np.ones(10))
    with pytest.raises(EarshotError, match="not more often"):
        fit_curve(distance, distance < 5, np.ones(10))


def test_the_bar_is_reached_as_often_as_wanted() -> None:
    random = np.random.default_rng(1)
    sizes = [
        Reached(best=random.normal(size=(4000, size)).max(1), segments=size)
        for size in (64, 128, 256)
    ]
    bar, growth = fit_bar([sizes], 0.1)
    fresh = random.normal(size=(4000, 128)).max(1)
    assert (fresh >= bar + growth * 7).mean() == pytest.approx(0.1, abs=0.02)
    few = Reached(best=np.arange(100.0), segments=1)
    assert fit_bar([[few]], 0.1) == (90.0, 0.0)
    # A collection counts the same however many libraries were drawn from it.
    many = Reached(best=np.repeat(np.arange(100.0) - 1000, 50), segments=1)
    assert fit_bar([[few], [many]], 0.1) == (80.0, 0.0)
    shrinking = [replace(one, segments=1 / one.segments) for one in sizes]
    assert fit_bar([shrinking], 0.1)[1] == 0.0


def test_the_error_is_zero_where_probabilities_come_true() -> None:
    likely = np.repeat([0.1, 0.7], 10)
    relevant = np.concatenate([np.arange(10) < 1, np.arange(10) < 7])
    assert expected_calibration_error(likely, relevant) == pytest.approx(0)
    assert expected_calibration_error(np.ones(4), np.zeros(4)) == 1
    assert expected_calibration_error(likely, ~relevant) == pytest.approx((0.8 + 0.4) / 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"slope": 0.0},
        {"slope": -1.0},
        {"intercept": float("nan")},
        {"bar": float("inf")},
        {"bar_per_doubling": -0.1},
        {"false_alarm_rate": -0.1},
        {"background": np.empty((0, 16))},
        {"background": np.ones(16)},
    ],
)
def test_impossible_settings_are_refused(calibration: Calibration, wrong: dict) -> None:
    with pytest.raises(EarshotError):
        replace(calibration, **wrong)
