"""Metrics: properties, ten-line slow versions, and the challenge's own figures."""

import ast
import csv
import hashlib
import json
import time
from collections.abc import Callable
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot import metrics
from earshot.types import EarshotError

SHARED = Path(__file__).parent.parent.parent / "shared"
GOLDEN = SHARED / "golden" / "metrics"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden files are not here")

Metric = Callable[[np.ndarray, np.ndarray], np.ndarray]
METRICS: dict[str, Metric] = {
    "AP": metrics.average_precision,
    "AP@3": lambda s, r: metrics.average_precision(s, r, 3),
    "any_hit@3": lambda s, r: metrics.any_hit(s, r, 3),
    "recall@3": lambda s, r: metrics.recall(s, r, 3),
    "precision@3": lambda s, r: metrics.precision(s, r, 3),
    "nDCG": metrics.ndcg,
    "nDCG@3": lambda s, r: metrics.ndcg(s, r, 3),
    "RR": metrics.reciprocal_rank,
}


def slow(name: str, scores: np.ndarray, relevance: np.ndarray) -> float:
    """One query, one metric, as the definition reads."""
    order = sorted(range(len(scores)), key=lambda item: (-scores[item], item))
    k = 3 if "@3" in name else len(order)
    found = [bool(relevance[item]) for item in order]
    total, top = sum(found), found[:k]
    if name.startswith("AP"):
        return sum(sum(top[: i + 1]) / (i + 1) for i in range(len(top)) if top[i]) / total
    if name.startswith("nDCG"):
        best = sum(1 / log2(i + 2) for i in range(min(total, k)))
        return sum(1 / log2(i + 2) for i in range(len(top)) if top[i]) / best
    if name == "RR":
        return 1 / (found.index(True) + 1)
    return {
        "any_hit@3": float(any(top)),
        "recall@3": sum(top) / total,
        "precision@3": sum(top) / 3,
    }[name]


@st.composite
def rankings(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """A few distinct scores, so that ties abound; every query has a relevant item."""
    queries, items = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = generator.integers(-2, draw(st.sampled_from([-1, 3, 50])), (queries, items)) / 4
    relevance = generator.random((queries, items)) < draw(st.floats(0, 1))
    relevance[np.arange(queries), generator.integers(0, items, queries)] = True
    return scores, relevance


@pytest.mark.parametrize("name", METRICS)
@given(data=rankings())
def test_fast_equals_slow(name: str, data: tuple[np.ndarray, np.ndarray]) -> None:
    scores, relevance = data
    expected = [slow(name, s, r) for s, r in zip(scores, relevance, strict=True)]
    np.testing.assert_allclose(METRICS[name](scores, relevance), expected, atol=1e-12)


@given(data=rankings())
def test_counting_equals_sorting(data: tuple[np.ndarray, np.ndarray]) -> None:
    scores, relevance = data
    query, item = np.nonzero(relevance)
    for values in (scores, scores.astype(np.float32), (scores * 4).astype(np.int64)):
        counted = metrics._ranks_by_counting(values, query, item)
        np.testing.assert_array_equal(counted, metrics._ranks_by_sorting(values, query, item))


def test_counting_in_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    scores, relevance = generator.random((30, 20)), generator.random((30, 20)) < 0.5
    query, item = np.nonzero(relevance)
    whole = metrics._ranks_by_counting(scores, query, item)
    monkeypatch.setattr(metrics, "CELLS_AT_ONCE", 70)
    np.testing.assert_array_equal(metrics._ranks_by_counting(scores, query, item), whole)


def test_many_relevant_items_take_the_other_path() -> None:
    generator = np.random.default_rng(2)
    scores, relevance = generator.integers(0, 9, (5, 80)), generator.random((5, 80)) < 0.6
    assert relevance.sum() > metrics.DENSE_FROM * 5
    for name, metric in METRICS.items():
        expected = [slow(name, s, r) for s, r in zip(scores, relevance, strict=True)]
        np.testing.assert_allclose(metric(scores, relevance), expected, atol=1e-12)


@given(data=rankings())
def test_perfect_is_one(data: tuple[np.ndarray, np.ndarray]) -> None:
    _, relevance = data
    perfect = relevance.astype(np.float64)
    for name in ("AP", "any_hit@3", "nDCG", "nDCG@3", "RR"):
        np.testing.assert_allclose(METRICS[name](perfect, relevance), 1, atol=1e-12)
    every = relevance.shape[1]
    np.testing.assert_array_equal(metrics.recall(perfect, relevance, every), 1)
    precision = metrics.precision(perfect, relevance, every)
    np.testing.assert_allclose(precision, relevance.mean(axis=1))


@pytest.mark.parametrize("name", METRICS)
@given(data=rankings(), seed=st.integers(0, 2**32))
def test_order_is_all_that_counts(
    name: str, data: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    scores, relevance = data
    metric = METRICS[name]
    figures = metric(scores, relevance)
    assert ((figures >= 0) & (figures <= 1 + 1e-12)).all()
    np.testing.assert_array_equal(metric(np.exp(scores) * 7 - 3, relevance), figures)
    np.testing.assert_array_equal(metric(scores[::-1], relevance[::-1]), figures[::-1])
    generator = np.random.default_rng(seed)
    columns = generator.permutation(scores.shape[1])
    untied = scores + generator.permuted(np.arange(scores.size)).reshape(scores.shape) * 1e-6
    np.testing.assert_array_equal(
        metric(untied[:, columns], relevance[:, columns]), metric(untied, relevance)
    )


def test_equal_scores_are_ordered_by_column() -> None:
    relevance = np.array([[True, False, False], [False, False, True]])
    for scores in (np.zeros((2, 3)), np.full((2, 3), -np.inf), np.array([[0.0, -0.0, 0.0]] * 2)):
        np.testing.assert_allclose(metrics.reciprocal_rank(scores, relevance), [1, 1 / 3])


def test_average_precision_divides_by_all_relevant_items() -> None:
    scores = np.arange(5, 0, -1)[None, :]
    relevance = np.array([[True, False, True, False, True]])
    np.testing.assert_allclose(metrics.average_precision(scores, relevance, 1), [1 / 3])
    np.testing.assert_allclose(metrics.average_precision(scores, relevance, 3), [(1 + 2 / 3) / 3])


GOOD_SCORES, GOOD_RELEVANCE = np.array([[0.5, 0.1], [0.2, 0.3]]), np.eye(2, dtype=bool)
MALFORMED: dict[str, tuple[np.ndarray, np.ndarray, str]] = {
    "shapes differ": (GOOD_SCORES, GOOD_RELEVANCE[:1], r"scores \(2, 2\) and relevance \(1, 2\)"),
    "one query bare": (GOOD_SCORES[0], GOOD_RELEVANCE[0], "must be"),
    "nothing": (np.empty((0, 2)), np.empty((0, 2), dtype=bool), "not empty"),
    "graded": (GOOD_SCORES, GOOD_RELEVANCE.astype(int), "give bool"),
    "NaN": (np.array([[0.5, 0.1], [np.nan, 0.3]]), GOOD_RELEVANCE, "query 1 has NaN"),
    "unanswered": (GOOD_SCORES, np.array([[True, True], [False, False]]), "first is query 1"),
}


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_input_raises(metric: Metric, case: str) -> None:
    scores, relevance, message = MALFORMED[case]
    with pytest.raises(EarshotError, match=message):
        metric(scores, relevance)


@pytest.mark.parametrize(
    "metric",
    [
        metrics.average_precision,
        metrics.any_hit,
        metrics.recall,
        metrics.precision,
        metrics.ndcg,
    ],
)
def test_k_below_one_raises(metric: Callable[..., Any]) -> None:
    with pytest.raises(EarshotError, match="k is 0"):
        metric(GOOD_SCORES, GOOD_RELEVANCE, 0)


def test_intervals() -> None:
    values = np.random.default_rng(3).random(400)
    bootstrap = metrics.bootstrap_interval(values, np.random.default_rng(4))
    jackknife = metrics.jackknife_interval(values)
    assert bootstrap == metrics.bootstrap_interval(values, np.random.default_rng(4))
    assert bootstrap.mean == jackknife.mean == values.mean()
    np.testing.assert_allclose(bootstrap.low, jackknife.low, atol=0.004)
    np.testing.assert_allclose(bootstrap.high, jackknife.high, atol=0.004)
    left_out = np.array([np.delete(values, i).mean() for i in range(len(values))])
    error = (((left_out - left_out.mean()) ** 2).sum() * 399 / 400) ** 0.5
    np.testing.assert_allclose(jackknife.high - jackknife.mean, metrics.Z_95 * error)
    for bad in (values[:1], np.array([0.5, np.nan]), values[None, :]):
        with pytest.raises(EarshotError, match="two or more"):
            metrics.jackknife_interval(bad)
        with pytest.raises(EarshotError, match="two or more"):
            metrics.bootstrap_interval(bad, np.random.default_rng(0))
    with pytest.raises(EarshotError, match="resamples is 0"):
        metrics.bootstrap_interval(values, np.random.default_rng(0), resamples=0)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@needs_golden
def test_dcase2022_submission_and_its_jackknife() -> None:
    golden = json.loads((GOLDEN / "dcase2022_eval_script.json").read_text())
    truth = rows_of(SHARED / "data" / "dcase2022" / "test.gt.csv")
    column = {row["file_name"]: i for i, row in enumerate(truth)}
    target = {row[f"caption_{i}"]: row["file_name"] for row in truth for i in range(1, 6)}
    listed = rows_of(SHARED / "data" / "dcase2022" / "test.output.csv")
    scores = np.full((len(listed), len(column)), -np.inf)
    relevance = np.zeros(scores.shape, dtype=bool)
    for query, row in enumerate(listed):
        relevance[query, column[target[row["caption"]]]] = True
        for place in range(1, 11):
            scores[query, column[row[f"file_name_{place}"]]] = -place
    figures = {f"R{k}": metrics.any_hit(scores, relevance, k) for k in (1, 5, 10)}
    figures["mAP10"] = metrics.average_precision(scores, relevance, 10)
    for name, values in figures.items():
        expected, interval = golden["result"][name], metrics.jackknife_interval(values)
        assert len(values) == expected["n"]
        got = [interval.mean, interval.low, interval.high]
        np.testing.assert_allclose(got, [expected["estimate"], *expected["ci95"]], atol=1e-12)


@pytest.fixture(scope="module")
def clotho() -> dict[str, np.ndarray]:
    """The score matrix whose recipe stands in the golden json, and both kinds of relevance."""
    golden = json.loads((GOLDEN / "clotho_eval_scores.json").read_text())
    files = rows_of(SHARED / "data" / "clotho" / "clotho_captions_evaluation.csv")
    column = {row["file_name"]: i for i, row in enumerate(files)}
    captions = [row[f"caption_{i}"] for row in files for i in range(1, 6)]
    target = np.repeat(np.arange(len(files)), 5)
    every = np.arange(len(captions))
    scores = np.random.RandomState(7001).standard_normal((5225, 1045)).astype(np.float32)
    scores[every, target] += np.float32(2.2)
    single = np.zeros(scores.shape, dtype=bool)
    single[every, target] = True
    multiple = np.zeros(scores.shape, dtype=bool)
    for row in rows_of(SHARED / "data" / "dcase2025" / "metadata_eval.csv"):
        query = captions.index(row["query"])
        for name in ast.literal_eval(row["audio_filenames"]):
            scores[query, column[name]] += np.float32(1.2)
            multiple[query, column[name]] = True
    recipe = golden["score matrix recipe"]
    assert hashlib.sha256(scores.tobytes()).hexdigest() == recipe["sha256_of_float32_bytes"]
    return {"scores": scores, "single": single, "multiple": multiple}


@needs_golden
def test_clotho_figures_of_the_published_code(clotho: dict[str, np.ndarray]) -> None:
    scores, single, multiple = clotho["scores"], clotho["single"], clotho["multiple"]
    with np.load(GOLDEN / "clotho_eval_scores.npz") as golden:
        rows = golden["multi_query_row"]
        by_audio = scores.T, single.T
        got = {
            "t2a_AP10": metrics.average_precision(scores, single, 10),
            "t2a_AP16": metrics.average_precision(scores, single, 16),
            "a2t_AP10": metrics.average_precision(*by_audio, 10),
            "multi_AP10": metrics.average_precision(scores[rows], multiple[rows], 10),
            "multi_AP16": metrics.average_precision(scores[rows], multiple[rows], 16),
            "rank_of_target": metrics.relevant_ranks(scores, single).rank - 1,
        }
        got |= {f"t2a_R{k}": metrics.recall(scores, single, k) for k in (1, 5, 10)}
        got |= {f"a2t_R{k}": metrics.recall(*by_audio, k) for k in (1, 5, 10)}
        for name, values in got.items():
            np.testing.assert_allclose(values, golden[name], atol=1e-9, err_msg=name)


@pytest.mark.parametrize("name", METRICS)
def test_a_clotho_sized_evaluation_is_quick(name: str) -> None:
    generator = np.random.default_rng(5)
    scores = generator.standard_normal((5225, 1045), dtype=np.float32)
    relevance = np.zeros(scores.shape, dtype=bool)
    relevance[np.arange(5225), generator.integers(0, 1045, 5225)] = True
    start = time.process_time()
    METRICS[name](scores, relevance)
    assert time.process_time() - start < 1, "about 0.05 s on an idle machine"
