"""A dataset as columns on the disk: opened at once, whatever its size, with little memory.

Clips, captions and relevance are what they always are (`earshot.types.Dataset`), but each is made
when it is asked for, from columns that all processes share. A part of the dataset is the same
columns with other rows.

    F/dataset.json      card, kind, split, share
    F/clips.*.npy       a column per field of a clip
    F/captions.*.npy    id, text, and the place of the clip that a caption is of
    F/relevant.*.npy    the places of all clips that fit each caption, end to end
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import isnan
from pathlib import Path
from typing import Any, overload

import numpy as np

from earshot.datasets.columns import Places, Texts, damaged, read, view, write
from earshot.files import atomic_write
from earshot.types import Caption, Clip, Dataset, DatasetCard, EarshotError, SplitSize

ABOUT = "dataset.json"
VERSION = 1
TEXT_FIELDS = ("id", "path", "freesound_id", "youtube_id", "licence", "keywords")
BETWEEN = "\x1f"  # between keywords: the ASCII unit separator, which no keyword holds
NONE = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """N clips, Q captions and R pairs of a caption and a clip that fits it.

    `clip_of` (Q,) is the clip of each caption, or NONE; those that fit the q-th caption are
    fits[first[q]:first[q + 1]], of `fits` (R,) and `first` (Q + 1,).
    """

    clips: Mapping[str, Texts]
    durations_s: np.ndarray
    caption_ids: Texts
    caption_texts: Texts
    caption_places: Places
    clip_of: np.ndarray
    first: np.ndarray
    fits: np.ndarray


class IndexedClips(Sequence[Clip]):
    """The clips at some `rows` (n,) of columns; those `absent` (N,) have no audio."""

    def __init__(self, columns: Columns, rows: np.ndarray, absent: np.ndarray) -> None:
        self.columns, self.rows, self.absent = columns, rows, absent
        self._durations_s, self._absent = view(columns.durations_s), view(absent)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Clip: ...
    @overload
    def __getitem__(self, place: slice) -> list[Clip]: ...
    def __getitem__(self, place: int | slice) -> Clip | list[Clip]:
        if isinstance(place, slice):
            return [self.made(row) for row in self.rows[place].tolist()]
        return self.made(int(self.rows[place]))

    def __iter__(self) -> Iterator[Clip]:
        return map(self.made, self.rows.tolist())

    def made(self, row: int) -> Clip:
        """The clip of a row."""
        texts = {name: column[row] for name, column in self.columns.clips.items()}
        keywords, duration_s = texts.pop("keywords"), self._durations_s[row]
        if self._absent[row]:
            texts["path"] = ""
        return Clip(
            **texts,
            duration_s=None if isnan(duration_s) else duration_s,
            keywords=tuple(keywords.split(BETWEEN)) if keywords else (),
        )

    def without_audio(self) -> np.ndarray:
        """The rows of clips whose audio is not at hand."""
        silent = self.absent | self.columns.clips["path"].empty
        return np.asarray(self.rows[silent[self.rows]])


class IndexedCaptions(Sequence[Caption]):
    """The captions at some `rows` (n,); a clip that is not among those `here` (N,) is nobody's."""

    def __init__(self, columns: Columns, rows: np.ndarray, here: np.ndarray) -> None:
        self.columns, self.rows, self.here = columns, rows, here
        self._clip_of, self._here = view(columns.clip_of), view(here)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Caption: ...
    @overload
    def __getitem__(self, place: slice) -> list[Caption]: ...
    def __getitem__(self, place: int | slice) -> Caption | list[Caption]:
        if isinstance(place, slice):
            return [self.made(row) for row in self.rows[place].tolist()]
        return self.made(int(self.rows[place]))

    def __iter__(self) -> Iterator[Caption]:
        return map(self.made, self.rows.tolist())

    def made(self, row: int) -> Caption:
        """The caption of a row."""
        columns, clip = self.columns, self._clip_of[row]
        paired = clip != NONE and self._here[clip]
        return Caption(
            id=columns.caption_ids[row],
            text=columns.caption_texts[row],
            clip_id=columns.clips["id"][clip] if paired else "",
        )


class IndexedRelevance(Mapping[str, frozenset[str]]):
    """The ids of the clips `here` (N,) that fit each of the captions at some `rows`."""

    def __init__(self, columns: Columns, rows: np.ndarray, here: np.ndarray) -> None:
        self.columns, self.rows, self.here = columns, rows, here
        self._first, self._fits, self._here = view(columns.first), view(columns.fits), view(here)

    def __getitem__(self, caption_id: str) -> frozenset[str]:
        row = self.columns.caption_places.find(caption_id)
        ids = frozenset[str]() if row is None else self.fitting(row)
        if not ids:
            raise KeyError(caption_id)
        return ids

    def fitting(self, row: int) -> frozenset[str]:
        """The clips of a row."""
        names, some = self.columns.clips["id"], self._fits[self._first[row] : self._first[row + 1]]
        return frozenset(names[clip] for clip in some if self._here[clip])

    @property
    def answered(self) -> np.ndarray:
        """The rows that some clip fits."""
        return np.asarray(self.rows[fitting_clips(self.columns, self.here)[self.rows] > 0])

    def __iter__(self) -> Iterator[str]:
        return map(self.columns.caption_ids.__getitem__, self.answered.tolist())

    def __len__(self) -> int:
        return len(self.answered)


def fitting_clips(columns: Columns, here: np.ndarray) -> np.ndarray:
    """How many of the clips that are here fit each caption, (Q,)."""
    total = np.concatenate([[0], np.cumsum(here[columns.fits])])
    return np.asarray(total[columns.first[1:]] - total[columns.first[:-1]])


def indexed_part(dataset: Dataset, clip_ids: frozenset[str]) -> Dataset | None:
    """The dataset with these clips alone; None where it is not made of columns.

    Captions that no remaining clip fits are left out, like in `earshot.datasets.subset`.
    """
    clips, captions = dataset.clips, dataset.captions
    if not (isinstance(clips, IndexedClips) and isinstance(captions, IndexedCaptions)):
        return None
    names = clips.columns.clips["id"]
    rows = [row for row in clips.rows.tolist() if names[row] in clip_ids]
    here = np.zeros(len(names), dtype=bool)
    here[rows] = True
    fitted, fitting = (fitting_clips(clips.columns, some) for some in (captions.here, here))
    left = captions.rows[(fitting[captions.rows] > 0) | (fitted[captions.rows] == 0)]
    return replace(
        dataset,
        clips=IndexedClips(clips.columns, np.array(rows, dtype=np.int64), clips.absent),
        captions=IndexedCaptions(clips.columns, left, here),
        relevance=IndexedRelevance(clips.columns, left, here),
        share=dataset.share * len(rows) / len(clips),
    )


def clip_ids(dataset: Dataset) -> Iterator[str]:
    """The ids of a dataset's clips, without making the clips."""
    if isinstance(dataset.clips, IndexedClips):
        return map(dataset.clips.columns.clips["id"].__getitem__, dataset.clips.rows.tolist())
    return (clip.id for clip in dataset.clips)


def clip_places(dataset: Dataset) -> np.ndarray:
    """The place of each caption's clip among the clips, (Q,) int64; NONE where it is of none.

    Raises:
        EarshotError: two clips have one id.
    """
    clips, captions = dataset.clips, dataset.captions
    if isinstance(clips, IndexedClips) and isinstance(captions, IndexedCaptions):
        place = np.full(len(clips.columns.durations_s) + 1, NONE)  # The last is that of NONE.
        place[clips.rows] = np.arange(len(clips))
        return np.asarray(place[clips.columns.clip_of[captions.rows]])
    places = {clip.id: place for place, clip in enumerate(clips)}
    if len(places) < len(clips):
        raise EarshotError(f"a clip is there twice in {dataset.card.name}; name each clip once")
    found = (places.get(caption.clip_id, NONE) for caption in captions)
    return np.fromiter(found, np.int64, len(captions))


def write_index(dataset: Dataset, kind: str, folder: Path) -> None:
    """Keep a dataset as columns; `dataset.json` is written last and makes it one."""
    (folder / ABOUT).unlink(missing_ok=True)
    clips, captions = dataset.clips, dataset.captions
    for name in TEXT_FIELDS:
        Texts.of(map(stored(name), clips)).write(folder, f"clips.{name}")
    seconds = (np.nan if clip.duration_s is None else clip.duration_s for clip in clips)
    write(folder, "clips.duration_s", np.fromiter(seconds, np.float64, len(clips)))
    ids = Texts.of(caption.id for caption in captions)
    ids.write(folder, "captions.id")
    Places.of(ids).write(folder, "captions.id")
    Texts.of(caption.text for caption in captions).write(folder, "captions.text")
    write(folder, "captions.clip", clip_places(dataset))
    write_relevance(dataset, folder)
    about = {
        "version": VERSION,
        "kind": kind,
        "card": asdict(dataset.card),
        "split": dataset.split,
        "share": dataset.share,
    }
    with atomic_write(folder / ABOUT) as file:
        file.write(json.dumps(about, indent=1).encode())


def stored(name: str) -> Any:
    """What of a clip is kept in a column."""
    if name == "keywords":
        return lambda clip: BETWEEN.join(clip.keywords)
    return lambda clip: getattr(clip, name)


def write_relevance(dataset: Dataset, folder: Path) -> None:
    """Keep which clips fit each caption, by their places."""
    place = {clip.id: place for place, clip in enumerate(dataset.clips)}
    first, fits = [0], list[int]()
    for caption in dataset.captions:
        fits += sorted(place[clip] for clip in dataset.relevance.get(caption.id, ()))
        first.append(len(fits))
    write(folder, "relevant.first", np.array(first, dtype=np.int64))
    write(folder, "relevant.clips", np.array(fits, dtype=np.int64))


def open_index(folder: Path, *, absent: Iterable[str] = ()) -> Dataset:
    """A dataset that `write_index` kept; clips that are `absent` have no path.

    Raises:
        EarshotError: there is none, or it is damaged.
    """
    about = read_about(folder)
    columns = open_columns(folder)
    count = len(columns.durations_s)
    lost, missing = frozenset(absent), np.zeros(count, dtype=bool)
    if lost:
        missing[[row for row, name in enumerate(columns.clips["id"]) if name in lost]] = True
    everyone, here = np.arange(count), np.ones(count, dtype=bool)
    captions = np.arange(len(columns.caption_ids))
    card = {f.name: about["card"][f.name] for f in fields(DatasetCard)}
    sizes = {name: SplitSize(**size) for name, size in card.pop("sizes").items()}
    return Dataset(
        card=DatasetCard(**card, sizes=sizes),
        split=about["split"],
        clips=IndexedClips(columns, everyone, missing),
        captions=IndexedCaptions(columns, captions, here),
        relevance=IndexedRelevance(columns, captions, here),
        share=about["share"],
    )


def read_about(folder: Path) -> dict[str, Any]:
    """What a kept dataset says of itself.

    Raises:
        EarshotError: there is none, or it is of another version.
    """
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EarshotError(f"{folder} holds no dataset; run `earshot data pack` again") from error
    if not isinstance(about, dict) or about.get("version") != VERSION:
        raise EarshotError(f"{folder} is of another version; run `earshot data pack` again")
    return about


def open_columns(folder: Path) -> Columns:
    """Map all columns.

    Raises:
        EarshotError: some is absent, damaged, or of another length than the others.
    """
    clips = {name: Texts.open(folder, f"clips.{name}") for name in TEXT_FIELDS}
    ids = Texts.open(folder, "captions.id")
    columns = Columns(
        clips=clips,
        durations_s=read(folder, "clips.duration_s"),
        caption_ids=ids,
        caption_texts=Texts.open(folder, "captions.text"),
        caption_places=Places.open(ids, folder, "captions.id"),
        clip_of=read(folder, "captions.clip"),
        first=read(folder, "relevant.first"),
        fits=read(folder, "relevant.clips"),
    )
    if {len(column) for column in clips.values()} != {len(columns.durations_s)}:
        raise damaged(folder, "clips.duration_s")
    if not len(ids) == len(columns.caption_texts) == len(columns.clip_of) == len(columns.first) - 1:
        raise damaged(folder, "captions.clip")
    return columns
