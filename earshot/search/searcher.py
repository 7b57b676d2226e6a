"""Search: a question becomes vectors and words, the store gives candidates, the best are answers.

Candidates are looked at in the order of what they could score at most, until no other could be
among the best `k` any more; so the answer is as exact as the store is, and its lists
(`search.candidates`).

Axis legend: Q queries (W wanted, then X excluded), N clips, S segments, D embedding dimension.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earshot.calibrate import Calibration
from earshot.model import load_for, require_same_model
from earshot.model.calibration import calibration_of
from earshot.model.shortened import ShortenedModel
from earshot.search.answers import folded, hits_of, is_answer
from earshot.search.candidates import Candidates, Source, sources_of
from earshot.search.question import Plan, plans_of
from earshot.search.scorer import Scored
from earshot.search.sentences import Sentences
from earshot.store import open_store
from earshot.types import (
    Answer,
    Condition,
    EarshotError,
    Hit,
    Model,
    Question,
    Store,
)

# A long clip can fill a list of segments, hence more are asked for than hits are wanted.
SEGMENTS_PER_HIT = 4
# Clips that are looked at together beyond the hits that are wanted.
AT_ONCE = 4
# Questions that are answered together.
TOGETHER = 32
# Segments that stand for the library where a query's background is measured, and for how long
# they do: a library that is being indexed changes.
BACKGROUND_SEGMENTS = 2000
MOST_OF_A_FILE = 32
BACKGROUND_S = 300.0
SMALL_BACKGROUND_S = 5.0
FILES_AT_ONCE = 256


class Searcher:
    """A model and the store that it filled; with a calibration, hits have probabilities."""

    def __init__(self, model: Model, store: Store, calibration: Calibration | None = None) -> None:
        require_same_model(store.manifest, model)
        self.model, self.store, self.calibration = model, store, calibration
        self._sentences = Sentences(model)
        self._background: Background | None = None

    @classmethod
    def open(cls, uri: str, model: str | None = None) -> Searcher:
        """Open an index with the model that it was made with; `model` says where that is now.

        Raises:
            EarshotError: no index there, its model is not to be had, or `model` is another one.
        """
        store = open_store(uri)
        if model is not None:
            return cls.with_calibration(load_for(store.manifest, model), store)
        try:
            loaded = load_for(store.manifest)
        except EarshotError as error:
            if not Path(store.manifest.model).is_absolute():
                raise
            raise EarshotError(
                f"the index was made with the model {store.manifest.model}: {error}; if that was "
                f"moved, give its new folder with --model"
            ) from error
        return cls.with_calibration(loaded, store)

    @classmethod
    def with_calibration(cls, model: Model, store: Store) -> Searcher:
        """A searcher whose hits have probabilities if the model's calibration is there."""
        require_same_model(store.manifest, model)
        if isinstance(model, ShortenedModel):
            return cls(model, store, model.calibration)
        return cls(model, store, calibration_of(model))

    def search(self, query: str, k: int = 10, where: Sequence[Condition] = ()) -> list[Hit]:
        """The best `k` clips for one query, best first, each with its best moments."""
        return self.search_many([query], k, where)[0]

    def search_many(
        self, queries: Sequence[str], k: int = 10, where: Sequence[Condition] = ()
    ) -> list[list[Hit]]:
        """The best `k` clips for each query.

        Raises:
            EarshotError: an empty query, or `k` below one.
        """
        questions = [Question(text=query, where=tuple(where)) for query in queries]
        return [list(answer.hits) for answer in self.ask_many(questions, k)]

    def ask(self, question: Question, k: int = 10) -> Answer:
        """The best `k` clips for a question, copies folded into one hit.

        Files of the index that are examples are not among the answers.

        Raises:
            EarshotError: a question that asks for nothing, an unusable example, `k` below one.
        """
        return self.ask_many([question], k)[0]

    def ask_many(self, questions: Sequence[Question], k: int = 10) -> list[Answer]:
        """The answers to several questions; see `ask`."""
        answers = []
        for answer in self.answer_each(questions, [k] * len(questions)):
            if isinstance(answer, EarshotError):
                raise answer
            answers.append(answer)
        return answers

    def answer_each(
        self, questions: Sequence[Question], ks: Sequence[int]
    ) -> Iterator[Answer | EarshotError]:
        """The best `k` clips for each question, or what is wrong with it; see `ask`.

        Together they cost less: sentences and vectors are multiplied in one go.
        """
        for start in range(0, len(questions), TOGETHER):
            some = slice(start, start + TOGETHER)
            yield from self._answered(questions[some], ks[some])

    def _answered(
        self, questions: Sequence[Question], ks: Sequence[int]
    ) -> Iterator[Answer | EarshotError]:
        plans = plans_of(questions, self.model, self._sentences, self.store)
        plans = [plan if k > 0 else too_few(k) for plan, k in zip(plans, ks, strict=True)]
        sound = [plan for plan in plans if isinstance(plan, Plan)]
        library = self._library() if sound else None
        sources = sources_of(sound, self.store, library.vectors) if library else iter(())
        for plan, k in zip(plans, ks, strict=True):
            if library and isinstance(plan, Plan):
                yield self._answer(next(sources), k, library.segments)
            elif isinstance(plan, EarshotError):
                yield plan

    def _answer(self, source: Source, k: int, segments: int) -> Answer:
        looked_at: dict[str, Scored] = {}
        limit = k * SEGMENTS_PER_HIT
        while True:
            candidates = source.candidates(limit)
            best = self._best(candidates, source, looked_at, k)
            enough = len(best) >= k
            if enough and (candidates.deep or best[k - 1][0].score >= candidates.unseen):
                break
            if candidates.unseen == -np.inf:
                break
            limit *= SEGMENTS_PER_HIT
        hits = hits_of(best, source.scorer, self.calibration)
        shares = [group[0].words.share for group in best if group[0].words]
        return Answer(hits=hits, found=is_answer(hits, shares, self.calibration, segments))

    def _best(
        self, candidates: Candidates, source: Source, looked_at: dict[str, Scored], k: int
    ) -> list[list[Scored]]:
        """Groups of copies, best first, of which the first `k` are certain among the candidates."""
        waiting = [path for path in candidates.by_bound() if path not in looked_at]
        step = max(k + AT_ONCE, source.at_once)
        while True:
            best = folded(looked_at.values(), k)
            if not waiting:
                return best
            if len(best) >= k and best[k - 1][0].score >= candidates.bounds[waiting[0]]:
                return best
            looked_at.update((clip.path, clip) for clip in source.looked_at(waiting[:step]))
            waiting, step = waiting[step:], step * 2

    def _library(self) -> Background:
        """What stands for the library; from files drawn by their name.

        They are read once in a while: what is usual in a library changes slowly, if it is no
        small one.
        """
        now_s = time.monotonic()
        if self._background is None or now_s > self._background.until_s:
            vectors = self._draw(sorted(self.store.paths(), key=drawn))
            enough = len(vectors) >= BACKGROUND_SEGMENTS
            self._background = Background(
                vectors=vectors,
                segments=self.store.segment_count(),
                until_s=now_s + (BACKGROUND_S if enough else SMALL_BACKGROUND_S),
            )
        return self._background

    def _draw(self, paths: Sequence[str]) -> np.ndarray:
        rows: list[np.ndarray] = [np.empty((0, self.model.dimension), dtype=np.float32)]
        for start in range(0, len(paths), FILES_AT_ONCE):
            drawn_files = self.store.segments(paths[start : start + FILES_AT_ONCE]).values()
            rows += [
                file.vectors[:: -(-len(file.vectors) // MOST_OF_A_FILE)] for file in drawn_files
            ]
            if sum(map(len, rows)) >= BACKGROUND_SEGMENTS:
                break
        return np.concatenate(rows)


def too_few(k: int) -> EarshotError:
    """What is wrong with asking for fewer hits than one."""
    return EarshotError(f"k is {k}; ask for at least one hit")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Background:
    """Vectors (B, D) that stand for a library until a time, and how many segments that has."""

    vectors: np.ndarray
    segments: int
    until_s: float


def drawn(path: str) -> str:
    """A key that puts paths in an order that has nothing to do with them."""
    return hashlib.sha256(path.encode()).hexdigest()
