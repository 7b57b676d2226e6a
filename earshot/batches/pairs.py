"""Pairs of a caption and its clip, of one or several datasets joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
from torch import Tensor

from earshot.batches.joined import Joined, Part
from earshot.batches.recordings import FILE, Recordings
from earshot.datasets.index import NONE, clip_places
from earshot.datasets.pack import Pack
from earshot.types import Caption, Clip, Dataset, EarshotError, Encoded

Made = TypeVar("Made")


class Features(Protocol):
    """What a frozen tower made of all clips or captions, by their places in the pairs."""

    @property
    def ids(self) -> Sequence[str]:
        """The ids of the clips or captions, in order."""

    def rows(self, places: Sequence[int]) -> Tensor:
        """(n, D) float32."""

    def encoded(self, places: Sequence[int]) -> Encoded:
        """The same as what an audio tower gives."""


class Pairs:
    """All captions that are of a clip, and these clips; ids are made unique by the dataset's name.

    Relevance beyond the pairing is for judging and not used here; captions of no clip and clips
    without a caption are left out. `clip_of` (N,) is the place of each caption's clip in `clips`.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        sample_rate_hz: int,
        packs: Sequence[Pack | None] | None = None,
    ) -> None:
        """Join datasets; audio comes from the pack at a dataset's place, else from files.

        Without `packs` they are those that the datasets name; clips and captions are not copied.

        Raises:
            EarshotError: no pairs, a dataset given twice, or a pack of another rate.
        """
        if packs is None:
            packs = [Pack(dataset.pack) if dataset.pack else None for dataset in datasets]
        if len(packs) != len(datasets):
            raise EarshotError(f"{len(packs)} packs for {len(datasets)} datasets; name one of each")
        require_rate(packs, sample_rate_hz)
        self.sample_rate_hz = sample_rate_hz
        own = [own_pairs(dataset) for dataset in datasets]
        self.clips: Sequence[Clip] = Joined([one.clips(renamed_clip) for one in own])
        self.captions: Sequence[Caption] = Joined([one.captions() for one in own])
        require_different(datasets)
        if not self.captions:
            raise EarshotError("no caption is of a clip; training needs pairs of both")
        starts = np.cumsum([0, *(len(one.clip_rows) for one in own)])
        shifted = [one.clip_of + start for one, start in zip(own, starts[:-1], strict=True)]
        self.clip_of = np.concatenate(shifted)
        self.recordings = recordings(own, packs, sample_rate_hz)
        self.audio_table: Features | None = None
        self.text_table: Features | None = None

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, place: int) -> tuple[Caption, Clip]:
        return self.captions[place], self.clips[self.clip_of[place]]

    def with_tables(
        self, audio_table: Features | None = None, text_table: Features | None = None
    ) -> Pairs:
        """The same pairs, whose batches bear features computed before instead of their sources.

        Raises:
            EarshotError: the features are of other clips or captions.
        """
        things: tuple[tuple[str, Features | None, Sequence[Clip | Caption]], ...] = (
            ("clips", audio_table, self.clips),
            ("captions", text_table, self.captions),
        )
        for what, table, ours in things:
            if table is not None and list(table.ids) != [thing.id for thing in ours]:
                raise EarshotError(f"the features are of other {what}; compute them for these")
        changed = copy(self)
        changed.audio_table, changed.text_table = audio_table, text_table
        return changed

    def check(self, *, probe: bool = False, report: Callable[[int], None] | None = None) -> None:
        """See that all audio is at hand, before training; `probe` opens every file for it.

        Raises:
            EarshotError: some is not; the first ones are named with the reason.
        """
        self.recordings.check(probe=probe, report=report)


def dataset_name(dataset: Dataset) -> str:
    """A dataset's name with its split."""
    return f"{dataset.card.name}:{dataset.split}" if dataset.split else dataset.card.name


@dataclass(frozen=True, kw_only=True)
class Own:
    """A dataset's clips that have a caption and captions that have a clip, by their places there.

    `clip_of` (q,) is the clip of each caption of `caption_rows` (q,), by its place in `clip_rows`.
    """

    dataset: Dataset
    clip_rows: np.ndarray
    caption_rows: np.ndarray
    clip_of: np.ndarray

    def clips(self, make: Callable[[str, Clip], Made]) -> Part[Clip, Made]:
        """What is made of the clips and the dataset's prefix."""
        make_one = partial(make, prefix_of(self.dataset))
        return Part(things=self.dataset.clips, places=self.clip_rows, make=make_one)

    def captions(self) -> Part[Caption, Caption]:
        """The captions, renamed."""
        make = partial(renamed_caption, prefix_of(self.dataset))
        return Part(things=self.dataset.captions, places=self.caption_rows, make=make)


def own_pairs(dataset: Dataset) -> Own:
    """What of a dataset is paired, in its own order."""
    places = clip_places(dataset)
    captions = np.flatnonzero(places != NONE)
    clips, clip_of = np.unique(places[captions], return_inverse=True)
    return Own(dataset=dataset, clip_rows=clips, caption_rows=captions, clip_of=clip_of)


def prefix_of(dataset: Dataset) -> str:
    """What makes a dataset's ids unique among several datasets."""
    return f"{dataset_name(dataset)}/"


def renamed_clip(prefix: str, clip: Clip) -> Clip:
    """A clip whose id is unique."""
    return replace(clip, id=prefix + clip.id)


def renamed_caption(prefix: str, caption: Caption) -> Caption:
    """A caption whose ids are unique."""
    return replace(caption, id=prefix + caption.id, clip_id=prefix + caption.clip_id)


def name_in_pack(_: str, clip: Clip) -> str:
    """What a clip is called in its pack."""
    return clip.id


def path_of(_: str, clip: Clip) -> str:
    """Where a clip's file is."""
    return clip.path


def require_different(datasets: Sequence[Dataset]) -> None:
    """Refuse datasets of one name that have clips in common.

    Raises:
        EarshotError: a clip is there twice.
    """
    names = [dataset_name(dataset) for dataset in datasets]
    for name in {name for name in names if names.count(name) > 1}:
        alike = [dataset for dataset in datasets if dataset_name(dataset) == name]
        ids = [clip.id for dataset in alike for clip in dataset.clips]
        if len(set(ids)) < len(ids):
            listed = ", ".join(names)
            raise EarshotError(f"a clip is there twice in {listed}; name each dataset once")


def require_rate(packs: Sequence[Pack | None], sample_rate_hz: int) -> None:
    """Refuse packs that would have to be resampled.

    Raises:
        EarshotError: a pack of another rate.
    """
    for pack in filter(None, packs):
        if pack.sample_rate_hz != sample_rate_hz:
            raise EarshotError(
                f"{pack.folder} is at {pack.sample_rate_hz} Hz, the model hears "
                f"{sample_rate_hz} Hz; pack the dataset at that rate, or go on without"
            )


def recordings(own: Sequence[Own], packs: Sequence[Pack | None], sample_rate_hz: int) -> Recordings:
    """Where the audio of the joined clips is."""
    opened = [pack for pack in packs if pack is not None]
    numbers = [FILE if pack is None else opened.index(pack) for pack in packs]
    counts = [len(one.clip_rows) for one in own]
    made = [path_of if pack is None else name_in_pack for pack in packs]
    return Recordings(
        sample_rate_hz=sample_rate_hz,
        names=Joined([one.clips(make) for one, make in zip(own, made, strict=True)]),
        pack_of=np.repeat(np.array(numbers, dtype=np.int64), counts),
        packs=tuple(opened),
        durations_s=np.full(sum(counts), np.nan),
    )
