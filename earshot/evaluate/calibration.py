"""What a model's scores mean, measured on a dataset: fitted on one part of it, judged on another.

Two questions are asked. Of a hit that a search shows: how likely is it an answer? The curve is
fitted on the best hits of each query, as all other pairs are easy and would drown them. Of a
library: does it hold an answer at all? For that, libraries of several sizes are drawn, with and
without the answers of a query.

Axis legend: Q queries, N clips, S segments of a clip, B segments of the background, D embedding
dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from earshot.calibrate import (
    BINS,
    Calibration,
    Reached,
    bar_of,
    expected_calibration_error,
    fit_bar,
    fit_curve,
    probability_of,
    standing_out,
)
from earshot.embed import embed_files
from earshot.model import model_manifest
from earshot.model.calibration import calibration_path, write_calibration
from earshot.types import Dataset, EarshotError, Model

# Segments of the background: they give a deviation to about one part in twenty.
BACKGROUND = 200
# Hits of a query that the curve is fitted on, and those that a search shows.
FITTED, SHOWN = 50, 10
SIZES = (50, 100, 200, 400, 800)
DRAWS = 10
MOST_QUERIES = 1000
# At 0.1 a fifth to a half more of the answers are missed (benchmarks/calibrate_models.json).
FALSE_ALARMS = 0.2
LEAST_CLIPS, LEAST_QUERIES = 50, 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """Queries (Q, D), N clips' segments, each (S, D), and which answers which, (Q, N) bool."""

    queries: np.ndarray
    clips: Sequence[np.ndarray]
    relevant: np.ndarray

    def part(self, queries: np.ndarray, clips: np.ndarray) -> Judged:
        """Some clips, and of some queries those that one of these clips answers."""
        relevant = self.relevant[np.ix_(queries, clips)]
        asked = relevant.any(1) & ~relevant.all(1)
        return Judged(
            queries=self.queries[queries[asked]],
            clips=[self.clips[i] for i in clips],
            relevant=relevant[asked],
        )

    def distances(self, calibration: Calibration) -> np.ndarray:
        """How far each clip's best segment stands out, (Q, N)."""
        starts = np.cumsum([0, *map(len, self.clips[:-1])])
        segments = np.concatenate(list(self.clips))
        rows = [
            standing_out(calibration, query, np.maximum.reduceat(segments @ query, starts))
            for query in self.queries
        ]
        return np.stack(rows)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Library:
    """Libraries of one size: how far the best stood out without and with an answer in them."""

    clips: int
    segments: float
    without: np.ndarray
    holding: np.ndarray


def calibrate(
    judged: Sequence[Judged], background: np.ndarray, fingerprint: str, rate: float = FALSE_ALARMS
) -> Calibration:
    """Fit a calibration; several collections count the same whatever their sizes.

    Raises:
        EarshotError: the scores tell nothing of what is relevant.
    """
    # In half precision, as it is kept: so a file gives what was measured.
    kept = background.astype(np.float16).astype(np.float32)
    plain = Calibration(
        background=kept,
        slope=1.0,
        intercept=0.0,
        bar=0.0,
        bar_per_doubling=0.0,
        false_alarm_rate=rate,
        fingerprint=fingerprint,
    )
    distances = [one.distances(plain) for one in judged]
    shown = [best_hits(*pair, FITTED) for pair in zip(distances, judged, strict=True)]
    weights = [np.full(found.size, 1 / found.size) for found, _ in shown]
    slope, intercept = fit_curve(
        np.concatenate([found for found, _ in shown]),
        np.concatenate([relevant for _, relevant in shown]),
        np.concatenate(weights),
    )
    reached = [without_answer(*pair) for pair in zip(distances, judged, strict=True)]
    bar, growth = fit_bar(reached, rate)
    return replace(plain, slope=slope, intercept=intercept, bar=bar, bar_per_doubling=growth)


def best_hits(distances: np.ndarray, judged: Judged, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances and relevance of each query's best hits, (Q x count,) each."""
    order = np.argsort(-distances, axis=1, kind="stable")[:, :count]
    rows = np.arange(len(distances))[:, None]
    return distances[rows, order].ravel(), judged.relevant[rows, order].ravel()


def libraries(distances: np.ndarray, judged: Judged) -> list[Library]:
    """Libraries of all sizes that the clips allow for, drawn anew for each query.

    Those that hold an answer have each of the query's answers with the chance that any other clip
    has to be there, and at least one.
    """
    counts = np.array([len(clip) for clip in judged.clips])
    sizes = [size for size in SIZES if size <= len(counts) * 0.9] or [len(counts) // 2]
    return [library(distances, judged.relevant, counts, size) for size in sizes]


def library(distances: np.ndarray, relevant: np.ndarray, counts: np.ndarray, size: int) -> Library:
    """Libraries of one size."""
    random = np.random.default_rng(size)
    without, holding, segments = [], [], []
    for row, answers in zip(distances, relevant, strict=True):
        others, right = np.flatnonzero(~answers), np.flatnonzero(answers)
        for _ in range(DRAWS):
            drawn = random.choice(others, min(size, len(others)), replace=False)
            there = random.random(len(right)) < size / len(counts)
            there[random.integers(len(right))] = True
            without.append(row[drawn].max())
            holding.append(max(without[-1], row[right[there]].max()))
            segments.append(counts[drawn].sum())
    return Library(
        clips=size,
        segments=float(np.mean(segments)),
        without=np.array(without),
        holding=np.array(holding),
    )


def without_answer(distances: np.ndarray, judged: Judged) -> list[Reached]:
    """What libraries of all sizes reach that hold no answer."""
    return [
        Reached(best=one.without, segments=one.segments) for one in libraries(distances, judged)
    ]


def measured(calibration: Calibration, judged: Judged) -> dict[str, Any]:
    """How good a calibration is on other data: errors of its probabilities and of its "nothing"."""
    distances = judged.distances(calibration)
    shown, relevant = best_hits(distances, judged, SHOWN)
    likely = probability_of(calibration, shown)
    return {
        "queries": len(distances),
        "clips": len(judged.clips),
        "bins": BINS,
        "ece_all_pairs": error(probability_of(calibration, distances.ravel()), judged.relevant),
        "ece_shown": error(likely, relevant),
        "mean_probability_shown": round(float(likely.mean()), 4),
        "relevant_shown": round(float(relevant.mean()), 4),
        "libraries": [
            {
                "clips": one.clips,
                "false_alarms": share(one.without, bar_of(calibration, round(one.segments))),
                "misses": round(
                    1 - share(one.holding, bar_of(calibration, round(one.segments))), 4
                ),
            }
            for one in libraries(distances, judged)
        ],
    }


def error(likely: np.ndarray, relevant: np.ndarray) -> float:
    """The expected calibration error, rounded."""
    return round(expected_calibration_error(likely, relevant.ravel()), 4)


def share(best: np.ndarray, bar: float) -> float:
    """How many reach a bar."""
    return round(float((best >= bar).mean()), 4)


def heard(model: Model, dataset: Dataset, workers: int | None = None) -> Judged:
    """A dataset's captions and clips as an index would hold them.

    Raises:
        EarshotError: a recording cannot be read.
    """
    manifest = model_manifest(model)
    cut = (manifest.segment_s, manifest.hop_s)
    paths = [clip.path for clip in dataset.clips]
    found = {}
    for file in embed_files(paths, model, workers=workers, cut=cut):
        if file.record.broken:
            raise EarshotError(f"{file.record.state.path} cannot be read: {file.record.broken}")
        found[file.record.state.path] = file.vectors
    texts: dict[str, frozenset[str]] = {}
    for caption in dataset.captions:
        answers = dataset.relevance[caption.id]
        texts[caption.text] = texts.get(caption.text, frozenset()) | answers
    ids = [clip.id for clip in dataset.clips]
    return Judged(
        queries=model.embed_text(list(texts)),
        clips=[found[path] for path in paths],
        relevant=np.array([[name in answers for name in ids] for answers in texts.values()]),
    )


def halves(judged: Judged, seed: int = 0) -> tuple[Judged, Judged]:
    """Two parts that share neither a query nor a clip.

    Raises:
        EarshotError: there is too little to fit and judge on.
    """
    random = np.random.default_rng(seed)
    clips = random.permutation(len(judged.clips))
    queries = random.permutation(len(judged.queries))[: 2 * MOST_QUERIES]
    parts = [judged.part(np.sort(queries[i::2]), np.sort(clips[i::2])) for i in range(2)]
    if any(len(p.clips) < LEAST_CLIPS or len(p.queries) < LEAST_QUERIES for p in parts):
        raise EarshotError(
            f"{len(judged.clips)} clips and {len(judged.queries)} queries are too few: each half "
            f"needs {LEAST_CLIPS} clips, and {LEAST_QUERIES} queries that some of these answer "
            f"and others do not"
        )
    return parts[0], parts[1]


def background_from(clips: Sequence[np.ndarray], seed: int = 0) -> np.ndarray:
    """Segments (B, D) of as many different clips."""
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(len(clips))[:BACKGROUND])
    return np.stack([clips[i][random.integers(len(clips[i]))] for i in chosen])


def calibrate_model(
    model: Model, dataset: Dataset, *, rate: float = FALSE_ALARMS, workers: int | None = None
) -> dict[str, Any]:
    """Calibrate a model on one half of a dataset, keep that in its folder, judge it on the other.

    Raises:
        EarshotError: the model has no folder, the rate is none, or the dataset does not do.
    """
    if not 0 < rate < 1:
        raise EarshotError(f"a false alarm rate of {rate:g}; it must lie between 0 and 1")
    path = calibration_path(model)
    if path is None or not Path(model.name).is_absolute():
        raise EarshotError(
            f"{model.name} has no folder to keep a calibration in; give a model that was trained, "
            f"imported or exported"
        )
    fitting, judging = halves(heard(model, dataset, workers))
    background = background_from(fitting.clips)
    calibration = calibrate([fitting], background, model.fingerprint, rate)
    result = {"dataset": dataset.card.name, "split": dataset.split}
    found = {**result, "false_alarm_rate": rate, **measured(calibration, judging)}
    write_calibration(calibration, path, found)
    return {"calibration": str(path), **found}
