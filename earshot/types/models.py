"""What models are: encoders of sound and of text, and both in one space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """What an audio encoder hears: `embedding` (B, D), and `logits` (B, C) if it is a tagger.

    `sequence` (B, L, D) is the embedding's course in time, for those who go on from there, with
    `valid` (B, L) true where a step holds audio; what it holds elsewhere is unspecified.
    """

    embedding: torch.Tensor
    logits: torch.Tensor | None = None
    sequence: torch.Tensor | None = None
    valid: torch.Tensor | None = None


class AudioEncoder(Protocol):
    """Waveforms in, one vector per waveform out; its front-end is inside.

    It hears at most `segment_s` at a time, None where it takes any duration: longer recordings
    are cut by `earshot.encoders.segments`.
    """

    dimension: int
    segment_s: float | None

    @property
    def sample_rate_hz(self) -> int:
        """The rate that waveforms must have."""

    def __call__(self, waveforms: torch.Tensor, lengths: torch.Tensor) -> Encoded:
        """Encode (B, T) float32 in [-1, 1] with (B,) valid samples.

        A clip's result depends on its own valid samples alone, whatever the batch. One without
        samples is heard as one of a single silent sample.
        """


class TextEncoder(Protocol):
    """Sentences in, one vector per sentence out."""

    dimension: int

    def __call__(self, sentences: Sequence[str]) -> np.ndarray:
        """Encode N sentences to unit vectors (N, D) float32."""


class Model(Protocol):
    """Two towers into one space of unit vectors: cosine is how well words and sound fit."""

    name: str
    dimension: int
    sample_rate_hz: int
    segment_s: float
    hop_s: float
    joins_segments: bool
    """Whether `embed_audio` cuts what is longer itself and joins it as in training: then a clip
    that is judged is given whole."""

    @property
    def fingerprint(self) -> str:
        """A hash of everything that its vectors of recordings depend on."""

    def embed_text(self, sentences: Sequence[str]) -> np.ndarray:
        """Q sentences to unit vectors (Q, D) float32."""

    def embed_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """N mono waveforms of any lengths, float32 in [-1, 1], to unit vectors (N, D) float32.

        May be called from several threads; a vector depends on its waveform alone.
        """
