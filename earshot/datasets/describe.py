"""What is in a dataset: counts, durations, words, duplicates, and what it shares with another."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from statistics import fmean, median
from typing import Any

from earshot.audio import probe
from earshot.types import AudioError, Clip, Dataset

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
TOP_WORDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How values spread; all zero where there are none."""

    count: int = 0
    total: float = 0.0
    minimum: float = 0.0
    median: float = 0.0
    mean: float = 0.0
    maximum: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """Things that are there more than once, each thing counted once."""

    captions: int
    freesound_ids: int
    youtube_ids: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What two datasets share."""

    dataset: str
    split: str
    freesound_ids: int
    youtube_ids: int
    captions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A dataset in figures; durations in seconds, caption lengths in words."""

    dataset: str
    split: str
    share: float
    source: str
    licence: str
    citation: str
    research_only: bool
    clips: int
    clips_without_audio: int
    captions: int
    queries_with_relevance: int
    relevant_per_query: Spread
    duration_s: Spread
    words_per_caption: Spread
    vocabulary: int
    words_used_once: int
    top_words: dict[str, int]
    duplicates: Duplicates
    licences: dict[str, int]
    overlaps: tuple[Overlap, ...]

    def as_json(self) -> dict[str, Any]:
        """The description as the documented JSON."""
        return asdict(self)


def describe(dataset: Dataset, others: Sequence[Dataset] = ()) -> Description:
    """Describe a dataset, and what it shares with others."""
    counts = Counter(word for caption in dataset.captions for word in words(caption.text))
    card = dataset.card
    return Description(
        dataset=card.name,
        split=dataset.split,
        share=dataset.share,
        source=card.source,
        licence=card.licence,
        citation=card.citation,
        research_only=card.research_only,
        clips=len(dataset.clips),
        clips_without_audio=sum(not clip.path for clip in dataset.clips),
        captions=len(dataset.captions),
        queries_with_relevance=len(dataset.relevance),
        relevant_per_query=spread(len(fit) for fit in dataset.relevance.values()),
        duration_s=spread(clip.duration_s for clip in dataset.clips if clip.duration_s is not None),
        words_per_caption=spread(len(words(caption.text)) for caption in dataset.captions),
        vocabulary=len(counts),
        words_used_once=sum(count == 1 for count in counts.values()),
        top_words=dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:TOP_WORDS]),
        duplicates=Duplicates(
            captions=repeated(caption.text for caption in dataset.captions),
            freesound_ids=repeated(clip.freesound_id for clip in dataset.clips),
            youtube_ids=repeated(clip.youtube_id for clip in dataset.clips),
        ),
        licences=dict(Counter(clip.licence for clip in dataset.clips if clip.licence)),
        overlaps=tuple(overlap(dataset, other) for other in others),
    )


def words(text: str) -> list[str]:
    """The words of a caption in lower case, without punctuation."""
    return WORD.findall(text.lower())


def spread(values: Iterable[float]) -> Spread:
    """How values spread."""
    listed = list(values)
    if not listed:
        return Spread()
    return Spread(
        count=len(listed),
        total=sum(listed),
        minimum=min(listed),
        median=median(listed),
        mean=fmean(listed),
        maximum=max(listed),
    )


def repeated(values: Iterable[str]) -> int:
    """How many different values occur more than once; empty ones are none."""
    return sum(count > 1 for value, count in Counter(values).items() if value)


def overlap(one: Dataset, other: Dataset) -> Overlap:
    """What two datasets share, each id and text counted once."""
    texts = [{" ".join(words(c.text)) for c in data.captions} for data in (one, other)]
    sounds = [{clip.freesound_id for clip in data.clips} - {""} for data in (one, other)]
    videos = [{clip.youtube_id for clip in data.clips} - {""} for data in (one, other)]
    return Overlap(
        dataset=other.card.name,
        split=other.split,
        freesound_ids=len(sounds[0] & sounds[1]),
        youtube_ids=len(videos[0] & videos[1]),
        captions=len(texts[0] & texts[1]),
    )


def with_durations(dataset: Dataset) -> Dataset:
    """The dataset with the durations that its tables do not state, from the files' headers."""
    with ThreadPoolExecutor() as pool:
        return replace(dataset, clips=tuple(pool.map(_with_duration, dataset.clips)))


def _with_duration(clip: Clip) -> Clip:
    if clip.path and clip.duration_s is None:
        with suppress(AudioError):  # `check` is what reports broken files
            return replace(clip, duration_s=probe(clip.path).duration_s)
    return clip
