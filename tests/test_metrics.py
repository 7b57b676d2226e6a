"""Metrics: properties, ten-line slow versions, and the challenge's own figures."""

import ast
import csv
import hashlib
import json
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import fields
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot import metrics
from earshot.metrics import intervals, ranks
from earshot.types import EarshotError

SHARED = Path(__file__).parent.parent.parent / "shared"
GOLDEN = SHARED / "golden" / "metrics"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden files are not here")

Metric = Callable[[np.ndarray, np.ndarray], np.ndarray]
METRICS: dict[str, Metric] = {
    "AP": metrics.average_precision,
    "AP@3": lambda s, r: metrics.average_precision(s, r, 3),
    "capped AP@3": lambda s, r: metrics.capped_average_precision(s, r, 3),
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
    if name == "capped AP@3":
        return slow("AP@3", scores, relevance) * total / min(total, 3)
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
def test_comparing_equals_sorting(data: tuple[np.ndarray, np.ndarray]) -> None:
    scores, relevance = data
    query, item = np.nonzero(relevance)
    for values in (scores, scores.astype(np.float32), (scores * 4).astype(np.int64)):
        compared = ranks._count_by_comparing(values, query, item)
        np.testing.assert_array_equal(compared, ranks._count_by_sorting(values, query, item))


@pytest.mark.parametrize("relevant_share", [0.02, 0.5])
def test_blocks_of_any_size_give_the_same(
    monkeypatch: pytest.MonkeyPatch, relevant_share: float
) -> None:
    generator = np.random.default_rng(1)
    scores = generator.integers(0, 9, (30, 50)) / 4
    relevance = generator.random(scores.shape) < relevant_share
    relevance[:, 7] = True
    whole = metrics.relevant_ranks(scores, relevance)
    monkeypatch.setattr(ranks, "BLOCK_CELLS", 170)
    monkeypatch.setattr(ranks, "NEAR_CELLS", 70)
    asked = []

    def rows(start: int, stop: int) -> np.ndarray:
        asked.append(stop - start)
        return scores[start:stop]

    relevant = [np.flatnonzero(row)[::-1] for row in relevance]
    in_blocks = metrics.relevant_ranks_in_blocks(rows, relevant, 50)
    assert asked == [3] * 10
    for field in fields(whole):
        np.testing.assert_array_equal(getattr(in_blocks, field.name), getattr(whole, field.name))


def test_many_relevant_items_take_the_other_path() -> None:
    generator = np.random.default_rng(2)
    scores, relevance = generator.integers(0, 9, (5, 80)), generator.random((5, 80)) < 0.6
    assert relevance.sum() > ranks.DENSE_FROM * 5
    for name, metric in METRICS.items():
        expected = [slow(name, s, r) for s, r in zip(scores, relevance, strict=True)]
        np.testing.assert_allclose(metric(scores, relevance), expected, atol=1e-12)


@given(data=rankings())
def test_bounds_are_the_best_and_worst_order_of_equal_scores(
    data: tuple[np.ndarray, np.ndarray],
) -> None:
    scores, relevance = data
    found = metrics.relevant_ranks(scores, relevance)
    # Half a step (scores are quarters) separates what is equal and swaps nothing else.
    for ties, nudge in (("optimistic", 0.1), ("pessimistic", -0.1)):
        moved = metrics.relevant_ranks(scores + nudge * relevance, relevance)
        np.testing.assert_array_equal(found.with_ties(ties).rank, moved.rank)
    assert found.with_ties("by_id") is found
    same = [
        any((s == s[i]).sum() > (r & (s == s[i])).sum() for i in np.flatnonzero(r))
        for s, r in zip(scores, relevance, strict=True)
    ]
    np.testing.assert_array_equal(found.tied(), same)


@given(data=rankings(), k=st.integers(1, 10))
def test_lists_are_judged_like_the_matrix_that_they_were_cut_from(
    data: tuple[np.ndarray, np.ndarray], k: int
) -> None:
    scores, relevance = data
    whole = metrics.relevant_ranks(scores, relevance)
    relevant = [np.flatnonzero(row) for row in relevance]
    top = metrics.top_items(scores, k)
    expected = [sorted(range(len(s)), key=lambda item: (-s[item], item))[:k] for s in scores]  # noqa: B023
    np.testing.assert_array_equal(top, expected)
    listed = metrics.relevant_ranks_in_lists(list(top), relevant)
    for name in ("mAP", "capped mAP", "R", "recall", "P", "nDCG"):
        expected = metrics.measure(whole, f"{name}@{k}")
        np.testing.assert_array_equal(metrics.measure(listed, f"{name}@{k}"), expected)
    missed = whole.best() > k
    assert (listed.reciprocal_rank() == np.where(missed, 0, whole.reciprocal_rank())).all()
    assert metrics.coverage(top, scores.shape[1]) == len(set(top.ravel())) / scores.shape[1]


def test_lists_that_cannot_be_judged() -> None:
    for ranked, relevant, message in (
        ([[1, 2, 1]], [[2]], "query 0 holds an item twice"),
        ([[1], [2]], [[2], [3, 3]], "query 1 names a relevant item twice"),
        ([[1], [2]], [[2], []], "1 queries have no relevant item, the first is query 1"),
    ):
        with pytest.raises(EarshotError, match=message):
            metrics.relevant_ranks_in_lists(ranked, relevant)
    with pytest.raises(EarshotError, match="not one of the 2 columns"):
        metrics.relevant_ranks_in_blocks(lambda a, b: GOOD_SCORES[a:b], [[0], [2]], 2)
    with pytest.raises(EarshotError, match=r"shape \(1, 2\); expected \(2, 2\)"):
        metrics.relevant_ranks_in_blocks(lambda a, b: GOOD_SCORES[:1], [[0], [1]], 2)
    with pytest.raises(EarshotError, match="NaN"):
        metrics.top_items(np.array([[np.nan, 1.0]]), 1)
    with pytest.raises(EarshotError, match="k is 0"):
        metrics.top_items(GOOD_SCORES, 0)


def test_some_queries_of_many() -> None:
    generator = np.random.default_rng(3)
    scores, relevance = generator.random((6, 9)), generator.random((6, 9)) < 0.4
    relevance[:, 0] = True
    chosen = np.array([4, 0, 4])
    some = metrics.relevant_ranks(scores, relevance).of(chosen)
    expected = metrics.relevant_ranks(scores[chosen], relevance[chosen])
    for field in fields(some):
        np.testing.assert_array_equal(getattr(some, field.name), getattr(expected, field.name))


def test_metrics_by_name() -> None:
    found = metrics.relevant_ranks(GOOD_SCORES, GOOD_RELEVANCE)
    for name in ("mAP", "mAP@10", "capped mAP@10", "R@1", "recall@1", "nDCG", "nDCG@10", "MRR"):
        np.testing.assert_array_equal(metrics.measure(found, name), [1, 1])
    assert metrics.median_rank(found) == 1
    for name in ("R", "mAP@", "mAP@x", "MRR@10", "bogus", "P@1.5"):
        with pytest.raises(EarshotError, match=f"no metric '{name}'; there are mAP@k"):
            metrics.measure(found, name)
    assert metrics.median_rank(metrics.relevant_ranks_in_lists([[1], [1]], [[0], [0]])) == np.inf


@given(data=rankings())
def test_perfect_is_one(data: tuple[np.ndarray, np.ndarray]) -> None:
    _, relevance = data
    perfect = relevance.astype(np.float64)
    for name in ("AP", "capped AP@3", "any_hit@3", "nDCG", "nDCG@3", "RR"):
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
        metrics.capped_average_precision,
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
    np.testing.assert_allclose(jackknife.high - jackknife.mean, intervals.Z_95 * error)
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


def test_captions_of_one_clip_are_drawn_together() -> None:
    generator = np.random.default_rng(6)
    clip = generator.random(80)
    values, clusters = np.repeat(clip, 5), np.repeat(np.arange(80), 5)
    alone = metrics.bootstrap_interval(values, np.random.default_rng(0))
    together = metrics.bootstrap_interval(values, np.random.default_rng(0), clusters=clusters)
    assert together.mean == alone.mean
    # Five equal figures count once: the interval is wider by the square root of five.
    ratio = (together.high - together.low) / (alone.high - alone.low)
    assert 0.9 * 5**0.5 < ratio < 1.1 * 5**0.5
    each = metrics.bootstrap_interval(clip, np.random.default_rng(0))
    np.testing.assert_allclose([together.low, together.high], [each.low, each.high], atol=1e-12)
    singles = metrics.bootstrap_interval(
        values, np.random.default_rng(0), clusters=np.arange(400) * 7
    )
    assert singles == alone
    for bad, message in ((clusters[1:], "one number per query"), (clusters * 0, "two or more")):
        with pytest.raises(EarshotError, match=message):
            metrics.bootstrap_interval(values, np.random.default_rng(0), clusters=bad)


def test_two_systems_are_compared_on_the_same_queries() -> None:
    generator = np.random.default_rng(7)
    one, clusters = generator.random(200), np.repeat(np.arange(50), 4)
    better = np.minimum(one + 0.05 + generator.normal(0, 0.05, 200), 1)
    found = metrics.compare(better, one, np.random.default_rng(1), clusters=clusters)
    assert found.difference.mean == (better - one).mean()
    assert 0 < found.difference.low < found.difference.mean < found.difference.high
    assert found.p_value == 1 / 10_001
    back = metrics.compare(one, better, np.random.default_rng(1), clusters=clusters)
    np.testing.assert_allclose(back.difference.low, -found.difference.high, atol=1e-12)
    assert metrics.compare(one, one, np.random.default_rng(1)).p_value == 1
    with pytest.raises(EarshotError, match="200 and of 199 queries"):
        metrics.compare(one, better[1:], np.random.default_rng(1))


def test_the_permutation_test_keeps_its_level() -> None:
    """Of systems that do not differ, one in twenty looks different at p < 0.05; not more."""
    generator = np.random.default_rng(8)
    clusters = np.repeat(np.arange(20), 5)
    found = []
    for _ in range(300):
        difference = np.repeat(generator.normal(size=20), 5) + generator.normal(size=100) / 10
        zero = np.zeros(100)
        found.append(
            metrics.compare(difference, zero, generator, resamples=200, clusters=clusters).p_value
        )
    assert 0.02 < np.mean(np.array(found) < 0.05) < 0.08


TREC_NAMES = {
    "map_cut_10": "mAP@10",
    "map_cut_16": "mAP@16",
    "map": "mAP",
    "recall_10": "recall@10",
    "P_5": "P@5",
    "success_10": "R@10",
    "recip_rank": "MRR",
    "ndcg_cut_10": "nDCG@10",
    "ndcg": "nDCG",
}


@pytest.mark.parametrize("levels", [4, 100_000])
def test_agrees_with_trec_eval_query_by_query(levels: int) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    generator = np.random.default_rng(9)
    scores = generator.integers(0, levels, (40, 120)) / levels
    relevance = generator.random(scores.shape) < 0.06
    relevance[np.arange(40), generator.integers(0, 120, 40)] = True
    found = metrics.relevant_ranks(scores, relevance)
    # trec_eval orders equal scores by falling document id, we by rising item id.
    item = [f"d{999 - i}" for i in range(120)]
    run = {str(q): dict(zip(item, row.tolist(), strict=True)) for q, row in enumerate(scores)}
    qrels = {str(q): {item[i]: int(row[i]) for i in range(120)} for q, row in enumerate(relevance)}
    judged = pytrec_eval.RelevanceEvaluator(
        qrels,
        {
            "map_cut.10,16",
            "map",
            "recall.10",
            "P.5",
            "success.10",
            "recip_rank",
            "ndcg_cut.10",
            "ndcg",
        },
    ).evaluate(run)
    for theirs, ours in TREC_NAMES.items():
        expected = [judged[str(q)][theirs] for q in range(40)]
        np.testing.assert_allclose(metrics.measure(found, ours), expected, atol=1e-9, err_msg=ours)


@needs_golden
def test_any_order_of_equal_scores_is_within_the_bounds(clotho: dict[str, np.ndarray]) -> None:
    golden = json.loads((GOLDEN / "clotho_eval_scores.json").read_text())["ties"]
    coarse = (np.round(clotho["scores"] * 4) / 4)[::5]
    found = metrics.relevant_ranks(coarse, clotho["single"][::5])
    low, high = golden["mAP10 bounds on those captions [pessimistic, optimistic]"]
    by_ties = {
        ties: found.with_ties(ties).average_precision(10).mean()
        for ties in ("pessimistic", "by_id", "optimistic")
    }
    np.testing.assert_allclose(
        [by_ties["pessimistic"], by_ties["optimistic"]], [low, high], atol=1e-9
    )
    assert low < by_ties["by_id"] < high
    assert low < golden["measure() on every 5th caption (this numpy)"]["mAP10"] < high


def test_a_hundred_thousand_items_are_ranked_in_little_memory() -> None:
    """100k x 100k would be 40 GB; here 400 queries of it, whose blocks are made when asked."""
    generator = np.random.default_rng(10)
    items = generator.standard_normal((100_000, 16), dtype=np.float32)
    relevant = generator.integers(0, 100_000, (400, 1))
    queries = items[relevant[:, 0]] + 0.5 * generator.standard_normal((400, 16), dtype=np.float32)
    tracemalloc.start()
    found = metrics.relevant_ranks_in_blocks(
        lambda start, stop: queries[start:stop] @ items.T, list(relevant), 100_000
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 4 * ranks.BLOCK_CELLS / 2, f"{peak / 1e6:.0f} MB"
    expected = [
        1 + int((items @ queries[q] > items[r] @ queries[q]).sum())
        for q, (r,) in enumerate(relevant[:5])
    ]
    np.testing.assert_allclose(found.rank[:5], expected, atol=2)
