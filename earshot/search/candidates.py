"""Which clips can be among the best, found in a store's lists, or in a library that is in memory.

A list of segments ends somewhere: whatever is not in it has no better cosine than its last. So
every clip has a bound on its score before it is looked at, and all unseen clips have one.

Lists in several orders (of words, of several sounds) would have to be very long until that bound
falls below the best: in a million segments a question took a minute. There they are deep at once,
what stands in any of them is scored in full, and a clip in none of them is not looked for.

Axis legend: Q queries (W wanted, then X excluded), F files, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from earshot.search.fusion import APART
from earshot.search.question import Plan
from earshot.search.scorer import Scored, Scorer
from earshot.search.scoring import background_of
from earshot.store.exact import ROUNDING
from earshot.store.held import FileWords, Held, held
from earshot.types import SegmentHit, Store, WordHit

# Lists in several orders have so many segments and files. Of ten questions to 100,000 segments,
# with names that tell nothing of the sound, 94 of the 100 best are found so, by 0.2 s of CPU time.
DEEP_SEGMENTS = 400
DEEP_WORDS = 256
# Clips of lists are looked at so many at a time: a store takes little longer for them than for one.
AT_ONCE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Clips with the most that each can score, and the most that any other clip can.

    `unseen` is minus infinity where there is no other clip. `deep` says that no other is looked
    for if these are enough.
    """

    bounds: Mapping[str, float]
    unseen: float
    deep: bool = False

    def by_bound(self) -> list[str]:
        """Paths, those that can score best first."""
        return sorted(self.bounds, key=lambda path: (-self.bounds[path], path))


class Source(Protocol):
    """Where the clips for one question come from, at least `at_once` of them at a time."""

    at_once: int

    @property
    def scorer(self) -> Scorer:
        """How they score."""

    def candidates(self, limit: int) -> Candidates:
        """Clips that can be among the best; the higher the limit, the more."""

    def looked_at(self, paths: Sequence[str]) -> Iterator[Scored]:
        """Candidates as they score."""


def sources_of(plans: Sequence[Plan], store: Store, library: np.ndarray) -> Iterator[Source]:
    """A source for each plan, in a store whose `library` (B, D) stands for it.

    All plans' vectors go through the library, and through a store in memory, together.
    """
    vectors = np.concatenate([plan.vectors for plan in plans])
    background, whole = background_of(library, vectors), held(store)
    cosines = whole.cosines(vectors) if whole else None
    start = 0
    for plan in plans:
        rows = slice(start, start := start + len(plan.vectors))
        scorer = Scorer(plan, background.of(rows))
        if whole is not None and cosines is not None:
            yield Whole(whole, scorer, cosines[rows])
        else:
            yield Listed(store, scorer)


class Whole:
    """All files of a library in memory; `cosines` (Q, F) are their best, off by `ROUNDING`."""

    at_once = 1

    def __init__(self, library: Held, scorer: Scorer, cosines: np.ndarray) -> None:
        self.library, self.scorer = library, scorer
        plan = scorer.plan
        self._words = library.by_words(plan.words) if plan.words else None
        self._bounds = self._bounded(cosines, self._words)
        if plan.where:
            self._bounds[~library.passing(plan.where)] = -np.inf
        numbers = library.table.numbers
        self._bounds[[numbers[path] for path in plan.hidden if path in numbers]] = -np.inf

    def _bounded(self, cosines: np.ndarray, words: FileWords | None) -> np.ndarray:
        """The most that each file can score (F,)."""
        scorer = self.scorer
        nothing = np.zeros(cosines.shape[1])
        shares, scores = (words.shares, words.scores) if words else (nothing, nothing)
        worth = scorer.worth(shares, scores)
        if not scorer.by_sound:
            return np.where(scores > 0, worth, -np.inf)
        rounding = np.full((len(cosines), 1), ROUNDING)
        rounding[len(scorer.plan.wanted) :] = -ROUNDING
        return scorer.total(cosines + rounding, worth)

    def candidates(self, limit: int) -> Candidates:
        """The best `limit` files, and all that are as good as the last."""
        bounds = self._bounds
        least = -np.inf
        if limit < len(bounds):
            least = np.partition(bounds, len(bounds) - limit)[len(bounds) - limit]
        chosen = np.flatnonzero((bounds >= least) & (bounds > -np.inf))
        paths = self.library.table.paths[chosen].tolist()
        return Candidates(
            bounds=dict(zip(paths, bounds[chosen].tolist(), strict=True)),
            unseen=float(bounds[bounds < least].max(initial=-np.inf)),
        )

    def looked_at(self, paths: Sequence[str]) -> Iterator[Scored]:
        """Candidates as they score."""
        numbers, words = self.library.table.numbers, self._words
        files = list(self.library.segments(paths).values())
        found = (numbers[file.record.state.path] for file in files)
        hits = [self.library.hit(number, words) if words else None for number in found]
        return self.scorer.scored(files, hits)


class Listed:
    """What a store's lists hold: the best segments for each wanted sound, files found by words."""

    at_once = AT_ONCE

    def __init__(self, store: Store, scorer: Scorer) -> None:
        self.store, self.scorer = store, scorer
        self._words: dict[str, WordHit] = {}
        self._all_words = True

    def candidates(self, limit: int) -> Candidates:
        """What lists of the best `limit` allow."""
        scorer, plan = self.scorer, self.scorer.plan
        wanted = len(plan.wanted)
        deep = wanted > 1 or bool(plan.words)
        limit = max(limit, DEEP_SEGMENTS) if deep else limit
        lists = self.store.search(plan.wanted, limit, plan.where) if wanted else []
        listed = word_hits(self.store, plan, limit)
        words = {hit.path: hit for hit in listed.hits if hit.path not in plan.hidden}
        best = [best_cosines(segments) for segments in lists]
        known_paths = dict.fromkeys([*words, *(path for found in best for path in found)])
        paths = [path for path in known_paths if path not in plan.hidden]
        # The last column is a clip in no list; excluded sounds are taken as absent.
        cosines = np.full((len(scorer.vectors), len(paths) + 1), -np.inf)
        for row, known in enumerate(best):
            end = lists[row][-1].score if lists[row] else -1.0
            cosines[row] = [*(known.get(path, end) for path in paths), end]
        found = [words.get(path) for path in paths]
        worth = scorer.worth(
            np.array([hit.share if hit else 0.0 for hit in found]),
            np.array([hit.score if hit else 0.0 for hit in found]),
        )
        # What the list of words has no place for may still be found by words.
        worth = np.where([hit is None for hit in found], listed.unseen_worth, worth)
        bounds = scorer.total(cosines, np.append(worth, listed.unseen_worth))
        complete = any(len(hits) < limit for hits in lists) if wanted else listed.complete
        self._words, self._all_words = words, listed.complete
        return Candidates(
            bounds=dict(zip(paths, bounds[:-1].tolist(), strict=True)),
            unseen=-np.inf if complete else float(bounds[-1]),
            deep=deep,
        )

    def looked_at(self, paths: Sequence[str]) -> Iterator[Scored]:
        """Candidates as they score."""
        files = list(self.store.segments(paths).values())
        beyond = [path for path in paths if path not in self._words]
        if beyond and not self._all_words:
            plan = self.scorer.plan
            hits = self.store.search_words(plan.words, len(beyond), plan.where, among=beyond)
            self._words |= {hit.path: hit for hit in hits}
        words = [self._words.get(file.record.state.path) for file in files]
        return self.scorer.scored(files, words)


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
    limit = max(limit * DEEP_WORDS // DEEP_SEGMENTS, DEEP_WORDS)
    hits = store.search_words(plan.words, limit, plan.where)
    if len(hits) < limit:
        return WordHits(hits=hits)
    last = hits[-1].share
    unseen = last if len(plan.wanted) else last + APART
    return WordHits(hits=hits, unseen_worth=unseen, complete=False)
