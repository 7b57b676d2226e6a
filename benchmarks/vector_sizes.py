"""What smaller vectors cost: half precision, fewer dimensions, by queries with known answers.

    EARSHOT_ASSETS=FOLDER python benchmarks/vector_sizes.py DATA --indexes ESC10 SOUNDS

DATA holds `esc10` and `sounds`; the indexes of the two are made by `earshot index`. A clip scores
by its best segment, by sound alone. `first K` keeps the first K numbers of each vector, as models
allow that were trained for it (Kusupati and others, Matryoshka Representation Learning, 2022);
`rotated K` first turns the space onto the principal axes of the *other* library's vectors, and
`--dimensions K` onto those of the model's calibration, as `earshot index` does by that option.
`probability` is how far that moves the probabilities of clips on average.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from retrieval_queries import QuerySet, load_esc10, load_sounds

from earshot.calibrate import Calibration, probability
from earshot.metrics import average_precision, bootstrap_interval
from earshot.model import load
from earshot.model.calibration import calibration_of
from earshot.model.shortened import ShortenedModel
from earshot.store import open_store

RESULT = Path(__file__).with_suffix(".json")
SIZES = (512, 384, 256, 128, 64, 32)
OPTION_SIZES = (192, 128, 96, 64, 32)


class Heard:
    """A collection's segments (S, D), the clip each is of, and its queries (Q, D) with answers."""

    def __init__(self, data: Path, uri: str, queries: QuerySet) -> None:
        store = open_store(uri)
        names = [str((data / clip.file_name).resolve()) for clip in queries.clips]
        files = store.segments(names)
        self.segments = np.concatenate([files[name].vectors for name in names])
        counts = [len(files[name].vectors) for name in names]
        self.starts = np.cumsum([0, *counts[:-1]])
        model = load(store.manifest.model, "cpu")
        self.model = model
        self.queries = model.embed_text([query.text for query in queries.queries])
        self.relevance = queries.relevance()

    def precision(self, smaller: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The average precision (Q,) of each query with smaller vectors."""
        scores = smaller(self.queries) @ smaller(self.segments).T
        best = np.maximum.reduceat(scores.astype(np.float64), self.starts, axis=1)
        return np.asarray(average_precision(best, self.relevance))

    def moved(self, shorter: ShortenedModel) -> float:
        """The mean change of probabilities (Q, clips) where vectors are shortened."""
        whole = calibration_of(self.model)
        assert whole is not None

        def likely(calibration: Calibration, smaller: Callable[[np.ndarray], np.ndarray]) -> Any:
            scores = smaller(self.queries) @ smaller(self.segments).T
            best = np.maximum.reduceat(scores, self.starts, axis=1)
            rows = zip(smaller(self.queries), best, strict=True)
            return np.stack([probability(calibration, query, row) for query, row in rows])

        before = likely(whole, lambda rows: rows)
        after = likely(shorter.calibration, lambda rows: unit(rows @ shorter.axes))
        return float(np.abs(after - before).mean())


def unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12))


def first(rows: np.ndarray, size: int, axes: np.ndarray | None) -> np.ndarray:
    """The first numbers of vectors, on other axes if there are any."""
    return unit((rows if axes is None else rows @ axes)[:, :size])


def axes_of(vectors: np.ndarray) -> np.ndarray:
    """The principal axes (D, D) of unit vectors, the strongest first; the origin stays."""
    _, axes = np.linalg.eigh(vectors.T.astype(np.float64) @ vectors)
    return np.asarray(axes[:, ::-1], dtype=np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description="The loss of smaller vectors.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--indexes", nargs=2, required=True)
    options = parser.parse_args()
    loaded = {"esc10": load_esc10, "sounds": load_sounds}
    heard = {
        name: Heard(options.data / name, uri, load_queries(options.data / name))
        for (name, load_queries), uri in zip(loaded.items(), options.indexes, strict=True)
    }
    result: dict[str, dict[str, Any]] = {}
    for name, one in heard.items():
        (other,) = (heard[key] for key in heard if key != name)
        axes = axes_of(other.segments)
        kinds: dict[str, Callable[[np.ndarray], np.ndarray]] = {
            "float32": lambda rows: rows,
            "float16": lambda rows: rows.astype(np.float16).astype(np.float32),
        }
        for size in SIZES:
            kinds[f"first {size}"] = partial(first, size=size, axes=None)
            kinds[f"rotated {size}"] = partial(first, size=size, axes=axes)
        shorter = {f"--dimensions {k}": ShortenedModel(one.model, k) for k in OPTION_SIZES}
        for kind, model in shorter.items():
            kinds[kind] = partial(first, size=model.dimension, axes=model.axes)
        whole = one.precision(kinds["float32"])
        result[name] = {}
        for kind, smaller in kinds.items():
            values = one.precision(smaller)
            interval = bootstrap_interval(values - whole, np.random.default_rng(0))
            result[name][kind] = {
                "mAP": round(float(values.mean()), 4),
                "change": round(float((values - whole).mean()), 4),
                "interval": [round(float(end), 4) for end in (interval.low, interval.high)],
            }
            if kind in shorter:
                result[name][kind]["probability"] = round(one.moved(shorter[kind]), 4)
            print(name, kind, result[name][kind])
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
