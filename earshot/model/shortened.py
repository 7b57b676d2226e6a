"""A model with shorter vectors: along the principal axes of recordings of all kinds.

One idea: the axes belong to the model, not to a library, so that an index may grow from nothing, in
several processes, and questions are shortened likewise. They are those of the recordings that the
model was calibrated by (`earshot.calibrate`), so there are at most as many as of these. The origin
stays where it is: cosines are what is kept. What it costs: `benchmarks/vector_sizes.py`.

Axis legend: N vectors, D the model's dimension, K the shorter one, B recordings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from earshot.calibrate import Calibration
from earshot.model.calibration import calibration_of
from earshot.model.tensors import hash_of
from earshot.types import EarshotError, Model


class ShortenedModel:
    """A model whose vectors have `dimension` numbers; all else is its own."""

    def __init__(self, model: Model, dimension: int) -> None:
        calibration = calibration_of(model)
        if calibration is None:
            raise EarshotError(
                f"model {model.name} has no calibration, whose recordings tell which directions "
                f"count; leave --dimensions out, or make one: earshot calibrate"
            )
        most = min(len(calibration.background), model.dimension - 1)
        if not 1 <= dimension <= most:
            raise EarshotError(
                f"vectors of {dimension} numbers: those of model {model.name} can be shortened "
                f"from {model.dimension} to between 1 and {most}, as its calibration has "
                f"{len(calibration.background)} recordings"
            )
        self.model, self.dimension = model, dimension
        self.name, self.joins_segments = model.name, model.joins_segments
        self.sample_rate_hz = model.sample_rate_hz
        self.segment_s, self.hop_s = model.segment_s, model.hop_s
        self.axes = principal_axes(calibration.background)[:, :dimension]
        heard = hashlib.sha256(calibration.background.tobytes()).hexdigest()
        self.fingerprint = hash_of(model.fingerprint, heard, dimension)
        background = self._shortened(calibration.background)
        self.calibration: Calibration = replace(
            calibration, background=background, fingerprint=self.fingerprint
        )

    def embed_text(self, sentences: Sequence[str]) -> np.ndarray:
        """See `earshot.types.Model.embed_text`."""
        return self._shortened(self.model.embed_text(sentences))

    def embed_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """See `earshot.types.Model.embed_audio`."""
        return self._shortened(self.model.embed_audio(waveforms))

    def _shortened(self, vectors: np.ndarray) -> np.ndarray:
        """Unit vectors (N, K) of (N, D)."""
        rows = vectors @ self.axes
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        shorter: np.ndarray = (rows / np.maximum(lengths, 1e-12)).astype(np.float32)
        return shorter


def principal_axes(vectors: np.ndarray) -> np.ndarray:
    """The principal axes (D, D) of unit vectors (B, D), the strongest first; the origin stays.

    Each points where its largest number is positive: solvers differ in signs.
    """
    rows = vectors.astype(np.float64)
    _, found = np.linalg.eigh(rows.T @ rows)
    axes = found[:, ::-1]
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
    turned: np.ndarray = (axes * np.sign(largest)).astype(np.float32)
    return turned
