"""Vectors as a large library of recordings would have them, made from those of a small one.

The one idea: a new recording lies among real ones that resemble it. Its vector is a random mean of
a real vector and some of its nearest neighbours, plus a step along the difference of two other
neighbours, so that it keeps the local directions; how often a real vector is drawn falls with its
rank, as some sounds fill libraries and most are rare. Segments of one file are small steps around
the file's own vector. `local_dimension` (Levina and Bickel, Maximum likelihood estimation of
intrinsic dimension, 2004) tells whether the made ones fill the space as the real ones do.

Axis legend: R real segments, N made segments, D embedding dimension, K neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from earshot.store import open_store

NEIGHBOURS = 24
MIXED = 4
# A step along the difference of two neighbours, and between the segments of a file; chosen so that
# the made vectors have about the local dimension of the real ones (`scale.json`).
STEP, WITHIN_FILE = 1.0, 0.25
# Weights of real vectors fall as rank ** -ZIPF.
ZIPF = 0.5
MEAN_SEGMENTS = 4.0
BLOCK = 10_000


def real_vectors(uris: list[str]) -> np.ndarray:
    """All segments (R, D) of indexes, in the order of their paths, each vector once."""
    rows = []
    for uri in uris:
        store = open_store(uri)
        files = store.segments(sorted(store.files()))
        rows += [files[path].vectors for path in sorted(files)]
    return np.unique(np.concatenate(rows), axis=0)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length one, float32."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / lengths, dtype=np.float32)


def neighbours_of(vectors: np.ndarray, others: np.ndarray, count: int) -> np.ndarray:
    """The numbers (R, K) of the nearest of `others`, nearest first; itself is left out."""
    found = []
    for start in range(0, len(vectors), 1024):
        scores = vectors[start : start + 1024] @ others.T
        near = np.argpartition(-scores, count + 1, axis=1)[:, : count + 1]
        order = np.argsort(-np.take_along_axis(scores, near, 1), axis=1)
        found.append(np.take_along_axis(near, order, 1)[:, 1:])
    return np.concatenate(found)


class Sounds:
    """A source of made recordings; the same seed gives the same ones."""

    def __init__(self, real: np.ndarray, seed: int) -> None:
        self.real, self.random = real, np.random.default_rng(seed)
        self.near = neighbours_of(real, real, NEIGHBOURS)
        # Which real vectors are common is no matter of the seed.
        ranks = np.random.default_rng(0).permutation(len(real)) + 1.0
        self.chances = ranks**-ZIPF / np.sum(ranks**-ZIPF)

    def blocks(self, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Vectors (n, D) and the files (n,) they belong to, `count` in all; files stay whole."""
        made, file = 0, 0
        while made < count:
            sizes = self.random.geometric(1 / MEAN_SEGMENTS, BLOCK // 4)
            owners = np.repeat(np.arange(len(sizes)), sizes)[: count - made]
            yield self._segments(owners), file + owners
            made, file = made + len(owners), file + len(sizes)

    def _segments(self, owners: np.ndarray) -> np.ndarray:
        """One vector for each segment, by the file (n,) that it is of."""
        files = owners[-1] + 1
        centres = self.random.choice(len(self.real), files, p=self.chances)
        vectors = self._among(centres, STEP)
        return unit(vectors[owners] + WITHIN_FILE * self._steps(centres[owners]))

    def _among(self, centres: np.ndarray, step: float) -> np.ndarray:
        near = self._drawn(centres, MIXED)
        weights = self.random.dirichlet(np.ones(MIXED + 1), len(centres)).astype(np.float32)
        mixed = weights[:, :1] * self.real[centres]
        for column in range(MIXED):
            mixed += weights[:, column + 1 : column + 2] * self.real[near[:, column]]
        return np.asarray(mixed + step * self._steps(centres), dtype=np.float32)

    def _steps(self, centres: np.ndarray) -> np.ndarray:
        """Random combinations (n, D) of local differences, about as long as one of them."""
        total = np.zeros((len(centres), self.real.shape[1]), dtype=np.float32)
        for _ in range(MIXED):
            one, other = self._drawn(centres, 2).T
            sizes = self.random.normal(0, 0.5**0.5 / MIXED**0.5, (len(centres), 1))
            total += sizes.astype(np.float32) * (self.real[one] - self.real[other])
        return total

    def _drawn(self, centres: np.ndarray, count: int) -> np.ndarray:
        columns = self.random.integers(0, NEIGHBOURS, (len(centres), count))
        return np.asarray(self.near[centres[:, None], columns])


def noise(count: int, dimension: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Isotropic directions, the contrast: nothing is near anything; one segment a file."""
    random = np.random.default_rng(seed)
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        vectors = random.standard_normal((size, dimension), dtype=np.float32)
        yield unit(vectors), np.arange(start, start + size)


def local_dimension(vectors: np.ndarray, others: np.ndarray, count: int = 20) -> float:
    """The mean local intrinsic dimension of some `vectors` among `others`, from K distances."""
    near = neighbours_of(vectors, others, count)
    found = []
    for vector, row in zip(vectors, near, strict=True):
        distances = np.linalg.norm(others[row].astype(np.float64) - vector, axis=1)
        distances = distances[distances > 1e-6]
        if len(distances) > 2:
            found.append(1 / np.mean(np.log(distances[-1] / distances[:-1])))
    return float(np.median(found))
