"""Datasets: clips, captions, and which clips are relevant to which captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A recording of a dataset; `path` is empty where its audio is not at hand."""

    id: str
    path: str = ""
    duration_s: float | None = None
    freesound_id: str = ""
    youtube_id: str = ""
    licence: str = ""
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A sentence about a clip; a query that is paired with none has an empty `clip_id`."""

    id: str
    text: str
    clip_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSize:
    """How many clips and captions a split has, as published."""

    clips: int
    captions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetCard:
    """What a dataset is, and whose; `sizes` by split, empty where nobody published any."""

    name: str
    source: str
    licence: str
    citation: str
    notes: str = ""
    research_only: bool = False
    sizes: Mapping[str, SplitSize] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """One split: clips, captions, and for each caption the ids of all its relevant clips.

    A `share` below 1 says that clips were left out because their audio is missing: what is
    measured on such a subset is no result of the split. `pack` is the folder of the pack that holds
    its audio, where there is one.
    """

    card: DatasetCard
    split: str
    clips: Sequence[Clip]
    captions: Sequence[Caption]
    relevance: Mapping[str, frozenset[str]]
    share: float = 1.0
    pack: str = ""
