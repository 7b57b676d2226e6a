"""Queries with known relevant clips over two small sound collections, and their two halves.

The one idea: whoever tunes a setting looks at the `tune` half only, and published numbers come
from the `report` half; the halves share neither a query nor a clip. In `sounds` whole topics
(labels joined by a common query) go to one half, so that no label crosses either. In `esc10` both
halves know all ten labels; its folds keep the clips cut from one recording together (Piczak, ESC:
Dataset for Environmental Sound Classification, 2015).

A clip is relevant to a query when its label is one of the query's `labels` and, where the query
also names `captions`, its caption is one of these. Query files lie in `queries/`.

Axis legend: Q queries, N clips.
"""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np

Kind = Literal["words", "sentence", "paraphrase"]
QUERIES = Path(__file__).parent / "queries"
ESC10_TUNE_FOLDS = (1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What somebody types, and what answers it; no captions means every one of the labels."""

    text: str
    kind: Kind
    labels: tuple[str, ...]
    captions: tuple[str, ...] = ()

    def matches(self, clip: Clip) -> bool:
        """Whether the clip is relevant."""
        return clip.label in self.labels and (not self.captions or clip.caption in self.captions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A recording: its path inside the collection's folder and what is known of it."""

    file_name: str
    label: str
    caption: str = ""
    fold: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySet:
    """Queries and the clips they search in, both in the order of their files."""

    name: str
    queries: tuple[Query, ...]
    clips: tuple[Clip, ...]

    def relevance(self) -> np.ndarray:
        """Which clip answers which query, (Q, N) bool."""
        rows = [[query.matches(clip) for clip in self.clips] for query in self.queries]
        return np.array(rows, dtype=bool).reshape(len(self.queries), len(self.clips))


@dataclass(frozen=True, slots=True, kw_only=True)
class Halves:
    """One half to choose settings on, one to publish numbers of."""

    tune: QuerySet
    report: QuerySet


def load_esc10(data: Path) -> QuerySet:
    """ESC-10 with its queries; `data` is the folder that holds `metadata.csv`."""
    rows = _rows(data / "metadata.csv")
    clips = tuple(
        Clip(file_name=row["file_name"], label=row["label"], fold=int(row["fold"])) for row in rows
    )
    return QuerySet(name="esc10", queries=load_queries(QUERIES / "esc10.csv"), clips=clips)


def load_sounds(data: Path) -> QuerySet:
    """The captioned sounds with their queries; `data` is the folder that holds `captions.csv`."""
    rows = _rows(data / "captions.csv")
    clips = tuple(
        Clip(file_name=row["file_name"], label=row["label"], caption=row["caption"]) for row in rows
    )
    return QuerySet(name="sounds", queries=load_queries(QUERIES / "sounds.csv"), clips=clips)


def load_queries(path: Path) -> tuple[Query, ...]:
    """Read a file of `query,kind,labels[,captions]`; labels and captions are joined by `;`."""
    return tuple(_query(row, path) for row in _rows(path))


def split_by_fold(whole: QuerySet) -> Halves:
    """Halves for ESC-10: clips by fold, queries alternately within equal labels and kind.

    The first of each such group goes to `report`, which so has the larger part of both.
    """
    seen: dict[tuple[tuple[str, ...], str], int] = defaultdict(int)
    tune_queries: set[str] = set()
    for query in whole.queries:
        group = (query.labels, query.kind)
        if seen[group] % 2 == 1:
            tune_queries.add(query.text)
        seen[group] += 1
    return _halves(
        whole,
        lambda query: query.text in tune_queries,
        lambda clip: clip.fold in ESC10_TUNE_FOLDS,
    )


def split_by_topic(whole: QuerySet, *, seed: int = 0) -> Halves:
    """Halves whose labels differ: topics, the largest first, go where they balance best.

    Clips and each kind of query weigh the same. Equal topics are ordered by a hash of the seed
    and their first label.
    """
    found = topics(whole)
    weights = _topic_weights(whole, found)
    order = sorted(
        range(len(found)), key=lambda i: (-weights[i].sum(), _hash(seed, found[i][0]), found[i][0])
    )
    balance = np.zeros(weights.shape[1])
    tune_labels: set[str] = set()
    for i in order:
        plus, minus = balance + weights[i], balance - weights[i]
        if (plus @ plus) <= (minus @ minus):
            balance = plus
            tune_labels.update(found[i])
        else:
            balance = minus
    return _halves(
        whole,
        lambda query: query.labels[0] in tune_labels,
        lambda clip: clip.label in tune_labels,
    )


def topics(whole: QuerySet) -> tuple[tuple[str, ...], ...]:
    """The connected components of labels that share a query, each sorted, sorted as a whole."""
    topic_of = {clip.label: {clip.label} for clip in whole.clips}
    for query in whole.queries:
        joined = set().union(*(topic_of[label] for label in query.labels))
        topic_of.update(dict.fromkeys(joined, joined))
    return tuple(sorted({tuple(sorted(topic)) for topic in topic_of.values()}))


def _topic_weights(whole: QuerySet, found: Sequence[tuple[str, ...]]) -> np.ndarray:
    """Each topic's share of the clips and of each kind of query, (topics, 1 + kinds)."""
    kinds = get_args(Kind)
    topic_of = {label: i for i, topic in enumerate(found) for label in topic}
    counts = np.zeros((len(found), 1 + len(kinds)))
    for clip in whole.clips:
        counts[topic_of[clip.label], 0] += 1
    for query in whole.queries:
        counts[topic_of[query.labels[0]], 1 + kinds.index(query.kind)] += 1
    return cast(np.ndarray, counts / np.maximum(counts.sum(axis=0), 1))


def _halves(
    whole: QuerySet, tunes_query: Callable[[Query], bool], tunes_clip: Callable[[Clip], bool]
) -> Halves:
    def half(name: str, wanted: bool) -> QuerySet:
        return QuerySet(
            name=f"{whole.name}-{name}",
            queries=tuple(query for query in whole.queries if tunes_query(query) == wanted),
            clips=tuple(clip for clip in whole.clips if tunes_clip(clip) == wanted),
        )

    return Halves(tune=half("tune", True), report=half("report", False))


def _query(row: dict[str, str], path: Path) -> Query:
    if row["kind"] not in get_args(Kind):
        raise ValueError(
            f"{path}: kind {row['kind']!r} of {row['query']!r}; allowed: {get_args(Kind)}"
        )
    return Query(
        text=row["query"],
        kind=cast(Kind, row["kind"]),
        labels=_parts(row["labels"]),
        captions=_parts(row.get("captions") or ""),
    )


def _parts(joined: str) -> tuple[str, ...]:
    return tuple(part for part in joined.split(";") if part)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _hash(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed} {text}".encode()).hexdigest()
