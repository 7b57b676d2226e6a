"""How fast Clotho's evaluation is judged: ours, the straightforward loop, and trec_eval's binding.

5225 queries over 1045 clips, one and three relevant clips per query, random scores: per query
AP@10, R@1, R@5 and R@10, from the score matrix. The loop is what research code does: sort each
query's scores, look at each place. trec_eval (pytrec_eval) wants dictionaries, so its time is given
with and without making them. All three must give the same figures, else nothing is written. Best of
five runs (three of the slow ones).

    python benchmarks/metrics_speed.py
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytrec_eval

from earshot import metrics

RESULT = Path(__file__).with_suffix(".json")
QUERIES, CLIPS = 5225, 1045
NAMES = ("mAP@10", "R@1", "R@5", "R@10")
TREC = {"map_cut_10": "mAP@10", "success_1": "R@1", "success_5": "R@5", "success_10": "R@10"}

Figures = dict[str, np.ndarray]


def ours(scores: np.ndarray, relevance: np.ndarray) -> Figures:
    ranks = metrics.relevant_ranks(scores, relevance)
    return {name: metrics.measure(ranks, name) for name in NAMES}


def loop(scores: np.ndarray, relevance: np.ndarray) -> Figures:
    """Query by query, as the definitions read."""
    figures: dict[str, list[float]] = {name: [] for name in NAMES}
    for row, relevant in zip(scores, relevance, strict=True):
        order = np.argsort(-row, kind="stable")
        hits, total = 0, 0.0
        found = [bool(relevant[item]) for item in order]
        for place, hit in enumerate(found[:10], 1):
            if hit:
                hits += 1
                total += hits / place
        figures["mAP@10"].append(total / sum(found))
        for k in (1, 5, 10):
            figures[f"R@{k}"].append(float(any(found[:k])))
    return {name: np.array(values) for name, values in figures.items()}


def trec_input(scores: np.ndarray, relevance: np.ndarray) -> tuple[Any, Any]:
    names = [f"d{item:04d}" for item in range(scores.shape[1])]
    run = {str(q): dict(zip(names, row.tolist(), strict=True)) for q, row in enumerate(scores)}
    qrels = {
        str(q): {names[item]: 1 for item in np.flatnonzero(row)} for q, row in enumerate(relevance)
    }
    return run, qrels


def trec(run: Any, qrels: Any) -> Figures:
    judged = pytrec_eval.RelevanceEvaluator(qrels, {"map_cut.10", "success.1,5,10"}).evaluate(run)
    return {
        ours: np.array([judged[str(q)][theirs] for q in range(len(judged))])
        for theirs, ours in TREC.items()
    }


def best_of(times: int, what: Callable[[], Any]) -> tuple[float, Any]:
    """The shortest wall-clock time in seconds, and what came of it."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        result = what()
        taken.append(time.perf_counter() - start)
    return min(taken), result


def case(relevant_per_query: int) -> dict[str, float]:
    """All three on the same data."""
    generator = np.random.default_rng(0)
    scores = generator.standard_normal((QUERIES, CLIPS), dtype=np.float32)
    relevance = np.zeros(scores.shape, dtype=bool)
    for _ in range(relevant_per_query):
        relevance[np.arange(QUERIES), generator.integers(0, CLIPS, QUERIES)] = True
    ours_s, found = best_of(5, lambda: ours(scores, relevance))
    loop_s, expected = best_of(3, lambda: loop(scores, relevance))
    input_s, (run, qrels) = best_of(1, lambda: trec_input(scores, relevance))
    trec_s, judged = best_of(3, lambda: trec(run, qrels))
    for name in NAMES:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-12)
        np.testing.assert_allclose(found[name], judged[name], atol=1e-9)
    return {
        "ours_s": round(ours_s, 4),
        "loop_s": round(loop_s, 3),
        "trec_eval_s": round(trec_s, 3),
        "trec_eval_with_its_dictionaries_s": round(trec_s + input_s, 3),
        "times_the_loop": round(loop_s / ours_s, 1),
        "times_trec_eval": round(trec_s / ours_s, 1),
        "times_trec_eval_with_its_dictionaries": round((trec_s + input_s) / ours_s, 1),
    }


def main() -> None:
    result: dict[str, Any] = {
        "queries": QUERIES,
        "clips": CLIPS,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    for count in (1, 3):
        result[f"{count} relevant"] = case(count)
        print(f"{count} relevant per query: {result[f'{count} relevant']}")
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
