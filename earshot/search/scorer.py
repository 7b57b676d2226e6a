"""How well clips answer a question, by their best cosines alone or looked at in full.

Axis legend: Q queries (W wanted, then X excluded), N clips, S segments, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from earshot.search.fusion import by_words_alone, fuse
from earshot.search.question import Plan
from earshot.search.scoring import Background, evidence, on_cosine_scale
from earshot.store.exact import exact_scores
from earshot.types import EmbeddedFile, WordHit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """A clip that was looked at: its score, and what that of its segments is by sound alone.

    `segment_scores` is (S,), on the scale of cosines; empty where words alone were asked.
    `cosines` is (Q,): the clip's best with each query.
    """

    file: EmbeddedFile
    score: float
    sound: float | None
    segment_scores: np.ndarray
    cosines: np.ndarray
    words: WordHit | None

    @property
    def path(self) -> str:
        """The clip's path."""
        return self.file.record.state.path


class Scorer:
    """How clips score for one question in a library with a `background`."""

    def __init__(self, plan: Plan, background: Background) -> None:
        self.plan, self.background = plan, background
        self.vectors = plan.vectors

    @property
    def by_sound(self) -> bool:
        """Whether sound counts at all."""
        return len(self.plan.wanted) > 0

    def sound(self, cosines: np.ndarray) -> np.ndarray:
        """Scores by sound (N,) of clips, or segments, with cosines (Q, N)."""
        found = evidence(cosines, self.plan.parts, self.background)
        return on_cosine_scale(found, self.background)

    def total(self, cosines: np.ndarray, worth: np.ndarray) -> np.ndarray:
        """Scores (N,) of clips with their best cosines (Q, N) and what their words are `worth`."""
        if not self.by_sound:
            return worth
        deviation = float(self.background.deviation[0])
        return fuse(self.sound(cosines), worth, deviation)

    def worth(self, shares: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """What counts of words (N,): their share; without sound, BM25 sets equal ones apart."""
        return shares if self.by_sound else by_words_alone(shares, scores)

    def scored(
        self, files: Sequence[EmbeddedFile], words: Sequence[WordHit | None]
    ) -> Iterator[Scored]:
        """Look at clips, each with at least one segment, and the words that it is found by.

        All at once: a call of numpy for each clip took a third of a search.
        """
        if not files:
            return
        starts = np.cumsum([0, *(len(file.vectors) for file in files)])
        vectors = np.concatenate([file.vectors for file in files])
        cosines = np.empty((len(self.vectors), len(vectors)))
        for row, query in enumerate(self.vectors):
            cosines[row] = exact_scores(vectors, query)
        best = np.maximum.reduceat(cosines, starts[:-1], axis=1)
        shares = np.array([hit.share if hit else 0.0 for hit in words])
        bm25 = np.array([hit.score if hit else 0.0 for hit in words])
        scores = self.total(best, self.worth(shares, bm25))
        sounds = self.sound(best) if self.by_sound else None
        # A moment is where the wanted sounds are; what is excluded counts for the clip as a whole.
        cosines[len(self.plan.wanted) :] = -np.inf
        moments = self.sound(cosines) if self.by_sound else np.empty(0)
        for i, file in enumerate(files):
            yield Scored(
                file=file,
                score=float(scores[i]),
                sound=None if sounds is None else float(sounds[i]),
                segment_scores=moments[starts[i] : starts[i + 1]],
                cosines=best[:, i],
                words=words[i],
            )
