"""A system's answers: scores of every clip for every query, or ranked lists of clips.

The one idea: scores are functions that make blocks of rows when asked, so that nothing needs the
whole matrix, be it 5225 x 1045 or 100 000 x 100 000. Clips are in the order of their ids, which is
how equal scores are ordered.

Axis legend: Q queries, N clips, S segments of all clips, D embedding dimension, k places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from earshot.embed import NO_NUMBER, embed_files
from earshot.metrics import (
    RelevantRanks,
    relevant_ranks_in_blocks,
    relevant_ranks_in_lists,
    row_blocks,
    top_items,
)
from earshot.types import Caption, Clip, EarshotError, Model, NotANumberError

Ints = NDArray[np.intp]
Rows = Callable[[int, int], np.ndarray]
Columns = Callable[[Ints], np.ndarray]
# A model that joins segments itself hears so much of a clip at a time: more than any clip has.
WHOLE_CLIP_S = 3600.0

Pool = Literal["mean", "max"]
POOLS: tuple[Pool, ...] = ("mean", "max")


class Answers(Protocol):
    """What a system answered to Q queries over N clips."""

    @property
    def items(self) -> tuple[str, ...]:
        """The ids of the clips, sorted, (N,)."""

    def ranks(self, relevant: Sequence[Ints]) -> RelevantRanks:
        """Where each query's relevant clips stand; `relevant` holds their indices in `items`."""

    def top(self, k: int) -> list[Ints]:
        """The best k clips for each query, best first, as indices; fewer if no more are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """Ranked lists of clips, as indices in `items`, best first."""

    items: tuple[str, ...]
    listed: tuple[Ints, ...]

    def ranks(self, relevant: Sequence[Ints]) -> RelevantRanks:
        """Ranks; a relevant clip that is not listed was missed."""
        return relevant_ranks_in_lists(self.listed, relevant)

    def top(self, k: int) -> list[Ints]:
        """The first k of each list."""
        return [listed[:k] for listed in self.listed]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores in blocks: `rows(start, stop)` of queries, (., N); `columns(clips)`, (., Q)."""

    items: tuple[str, ...]
    query_count: int
    rows: Rows
    columns: Columns

    def ranks(self, relevant: Sequence[Ints]) -> RelevantRanks:
        """Ranks of clips for each query."""
        return relevant_ranks_in_blocks(self.rows, relevant, len(self.items))

    def ranks_of_queries(self, relevant: Sequence[Ints], clips: Ints) -> RelevantRanks:
        """The other direction: for each of some clips, the ranks of its captions' indices."""
        return relevant_ranks_in_blocks(
            lambda start, stop: self.columns(clips[start:stop]), relevant, self.query_count
        )

    def top(self, k: int) -> list[Ints]:
        """The best k clips for each query."""
        return [row for _, block in self.blocks() for row in top_items(block, k)]

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """All rows, a block at a time, each with the number of its first query."""
        for start, stop in row_blocks(self.query_count, len(self.items)):
            yield start, self.rows(start, stop)


def matrix_scores(items: Sequence[str], values: np.ndarray) -> Scores:
    """Scores from a whole matrix (Q, N), whose columns are `items` in any order.

    Raises:
        EarshotError: the shape is another, or an item comes twice.
    """
    if values.ndim != 2 or values.shape[1] != len(items) or len(set(items)) < len(items):
        raise EarshotError(f"scores {values.shape} do not fit {len(set(items))} different clips")
    order = np.argsort(np.array(items, dtype=object), kind="stable")
    ordered = values[:, order]
    return Scores(
        items=tuple(items[i] for i in order),
        query_count=len(values),
        rows=lambda start, stop: ordered[start:stop],
        columns=lambda clips: ordered.T[clips],
    )


def mean_scores(members: Sequence[Scores]) -> Scores:
    """What an ensemble answers: the mean of its members' scores.

    Raises:
        EarshotError: the members have scored other clips or queries.
    """
    first = members[0]
    if any((m.items, m.query_count) != (first.items, first.query_count) for m in members):
        raise EarshotError("the members of an ensemble must answer the same queries and clips")

    def rows(start: int, stop: int) -> np.ndarray:
        return np.asarray(sum(m.rows(start, stop) for m in members) / len(members))

    def columns(clips: Ints) -> np.ndarray:
        return np.asarray(sum(m.columns(clips) for m in members) / len(members))

    return Scores(items=first.items, query_count=first.query_count, rows=rows, columns=columns)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipVectors:
    """The segments of clips, in the order of the clips' ids."""

    ids: tuple[str, ...]
    first: Ints
    """Where the segments of each clip begin, (N,)."""
    vectors: np.ndarray
    """Unit vectors, (S, D) float32."""

    def means(self) -> np.ndarray:
        """The direction of each clip's mean segment, (N, D): unit vectors, zero if undirected."""
        sums = np.add.reduceat(self.vectors, self.first, axis=0)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        means: np.ndarray = sums / np.maximum(length, np.finfo(np.float32).tiny)
        return means


def embed_clips(
    clips: Sequence[Clip],
    model: Model,
    *,
    workers: int | None = None,
    done: Callable[[int], None] = lambda count: None,
) -> ClipVectors:
    """Embed recordings; `done` is told how many are.

    A model that joins segments itself, as it learnt to, is given clips whole.

    Raises:
        NotANumberError: the model makes of recordings what is no number.
        EarshotError: no clips, or some that cannot be heard.
    """
    if not clips:
        raise EarshotError("there are no recordings to listen to")
    ordered = sorted(clips, key=lambda clip: clip.id)
    by_path: dict[str, np.ndarray] = {}
    broken: dict[str, str] = {clip.id: "no audio" for clip in ordered if not clip.path}
    paths = dict.fromkeys(clip.path for clip in ordered if clip.path)
    whole = (WHOLE_CLIP_S, WHOLE_CLIP_S) if model.joins_segments else None
    embedded = embed_files(paths, model, workers=workers, cut=whole)
    for count, file in enumerate(embedded, 1):
        done(count)
        by_path[file.record.state.path] = file.vectors
        if file.record.broken:
            broken[file.record.state.path] = file.record.broken
    if broken:
        name, reason = min(broken.items())
        of_model = all(why.startswith(NO_NUMBER) for why in broken.values())
        raise (NotANumberError if of_model else EarshotError)(
            f"{len(broken)} of {len(ordered)} recordings cannot be heard, the first is {name}: "
            f"{reason}; mend them, or take them out of the table"
        )
    counts = [len(by_path[clip.path]) for clip in ordered]
    return ClipVectors(
        ids=tuple(clip.id for clip in ordered),
        first=np.cumsum([0, *counts[:-1]]),
        vectors=np.concatenate([by_path[clip.path] for clip in ordered]),
    )


def embed_captions(captions: Sequence[Caption], model: Model) -> np.ndarray:
    """The captions' vectors, (Q, D); equal sentences are read once.

    Raises:
        NotANumberError: the model makes of one what is no number.
    """
    texts = list(dict.fromkeys(caption.text for caption in captions))
    number = {text: i for i, text in enumerate(texts)}
    vectors: np.ndarray = model.embed_text(texts)
    wrong = ~np.isfinite(vectors).all(axis=1)
    if wrong.any():
        raise NotANumberError(
            f"the model makes of {texts[int(wrong.argmax())][:60]!r} what is no number; look at "
            f"its weights"
        )
    return vectors[[number[caption.text] for caption in captions]]


def cosine_scores(queries: np.ndarray, clips: ClipVectors, pool: Pool = "mean") -> Scores:
    """How well clips fit query vectors (Q, D): cosine with the mean, or the best, segment.

    Raises:
        EarshotError: an unknown pool.
    """
    if pool not in POOLS:
        raise EarshotError(f"no pool {pool!r}; there are {', '.join(POOLS)}")
    if pool == "mean":
        means = clips.means()
        return Scores(
            items=clips.ids,
            query_count=len(queries),
            rows=lambda start, stop: queries[start:stop] @ means.T,
            columns=lambda chosen: means[chosen] @ queries.T,
        )
    bounds = np.append(clips.first, len(clips.vectors))

    def best_by_clip(chosen: Ints) -> np.ndarray:
        spans = [np.arange(bounds[clip], bounds[clip + 1]) for clip in chosen]
        segments = clips.vectors[np.concatenate(spans)] @ queries.T
        first = np.cumsum([0, *map(len, spans[:-1])])
        return np.maximum.reduceat(segments, first, axis=0)

    return Scores(
        items=clips.ids,
        query_count=len(queries),
        rows=lambda start, stop: np.maximum.reduceat(
            queries[start:stop] @ clips.vectors.T, clips.first, axis=1
        ),
        columns=best_by_clip,
    )
