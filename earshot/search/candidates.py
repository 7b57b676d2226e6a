"""Which clips can be among the best, and how well a clip answers, in one place for both.

A store's list of segments ends somewhere: whatever is not in it has no better cosine than its last.
So every clip has a bound on its score before it is looked at, and all unseen clips have one.

Axis legend: Q queries (W wanted, then X excluded), N clips, S segments, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from earshot.search.fusion import by_words_alone, fuse
from earshot.search.question import Plan
from earshot.search.scoring import Background, background_of, evidence, on_cosine_scale
from earshot.store.checks import unit_queries
from earshot.store.exact import exact_scores
from earshot.types import EmbeddedFile, SegmentHit, Store, WordHit

# Files found by words are cheap to list, and a list that is complete bounds the rest.
LEAST_WORD_HITS = 64


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Clips with the most that each can score, and the most that any other clip can.

    `unseen` is minus infinity where there is no other clip.
    """

    bounds: Mapping[str, float]
    unseen: float
    words: Mapping[str, WordHit] = field(default_factory=dict)

    def by_bound(self) -> list[str]:
        """Paths, those that can score best first."""
        return sorted(self.bounds, key=lambda path: (-self.bounds[path], path))


class Scorer:
    """How clips score for one question in one library."""

    def __init__(self, plan: Plan, library: np.ndarray) -> None:
        self.plan = plan
        self.vectors = plan.vectors
        if len(self.vectors):
            self.vectors = unit_queries(plan.vectors, plan.vectors.shape[1])
        self.background: Background = background_of(library, self.vectors)

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

    def worth(self, words: WordHit | None) -> float:
        """What counts of words: their share; without sound, BM25 sets equal ones apart."""
        if words is None:
            return 0.0
        return words.share if self.by_sound else by_words_alone(words.share, words.score)

    def scored(
        self, files: Sequence[EmbeddedFile], words: Mapping[str, WordHit]
    ) -> Iterator[Scored]:
        """Look at clips, each with at least one segment; `words` by path.

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
        found = [words.get(file.record.state.path) for file in files]
        scores = self.total(best, np.array([self.worth(hit) for hit in found]))
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
                words=found[i],
            )


def candidates_of(store: Store, scorer: Scorer, limit: int) -> Candidates:
    """What the best `limit` segments for each wanted sound, and the files found by words, allow."""
    plan, wanted = scorer.plan, len(scorer.plan.wanted)
    lists = store.search(scorer.vectors[:wanted], limit, plan.where) if wanted else []
    listed = word_hits(store, plan, limit)
    words = {hit.path: hit for hit in listed.hits if hit.path not in plan.hidden}
    best = [best_cosines(segments) for segments in lists]
    known_paths = dict.fromkeys([*words, *(path for found in best for path in found)])
    paths = [path for path in known_paths if path not in plan.hidden]
    # The last column is a clip that is in no list; excluded sounds are taken as absent.
    cosines = np.full((len(scorer.vectors), len(paths) + 1), -np.inf)
    for row, known in enumerate(best):
        end = lists[row][-1].score if lists[row] else -1.0
        cosines[row] = [*(known.get(path, end) for path in paths), end]
    worth = [*(scorer.worth(words.get(path)) for path in paths), listed.unseen_worth]
    bounds = scorer.total(cosines, np.array(worth))
    complete = any(len(hits) < limit for hits in lists) if wanted else listed.complete
    return Candidates(
        bounds=dict(zip(paths, bounds[:-1].tolist(), strict=True)),
        unseen=-np.inf if complete else float(bounds[-1]),
        words=words,
    )


def best_cosines(segments: Sequence[SegmentHit]) -> dict[str, float]:
    """Each clip's first cosine, which is its best, of segments in order."""
    best: dict[str, float] = {}
    for hit in segments:
        best.setdefault(hit.path, hit.score)
    return best


@dataclass(frozen=True, slots=True, kw_only=True)
class WordHits:
    """Files found by words; what the words of any other can be worth; whether there is another."""

    hits: Sequence[WordHit] = ()
    unseen_worth: float = 0.0
    complete: bool = True


def word_hits(store: Store, plan: Plan, limit: int) -> WordHits:
    """The files that a plan's words find."""
    if not plan.words:
        return WordHits()
    limit = max(limit, LEAST_WORD_HITS)
    hits = store.search_words(plan.words, limit, plan.where)
    if len(hits) < limit:
        return WordHits(hits=hits)
    last = hits[-1].share
    unseen = last if len(plan.wanted) else by_words_alone(last, np.inf)
    return WordHits(hits=hits, unseen_worth=unseen, complete=False)
