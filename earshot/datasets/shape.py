"""What all loaders share: the one shape, ids, audio that is found or missing."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from earshot.audio import AUDIO_SUFFIXES
from earshot.datasets.index import IndexedClips, indexed_part
from earshot.types import Caption, Clip, Dataset, DatasetCard, EarshotError

PUBLIC = ("clotho", "audiocaps", "wavcaps")  # cards of what `earshot data fetch` gets
DEPTH = 3  # folders down to which a dataset's tables and audio folders are looked for
FREESOUND_ADDRESS = re.compile(r"freesound\.org/(?:people/[^/]+/sounds|s)/(\d+)")


def assemble(
    card: DatasetCard,
    split: str,
    clips: Sequence[Clip],
    captions: Sequence[Caption],
    relevance: Mapping[str, frozenset[str]] | None = None,
) -> Dataset:
    """A dataset whose ids are unique; without `relevance`, captions fit the clip they are of.

    Raises:
        EarshotError: two clips or captions have one id, or a caption is of no clip.
    """
    known = {clip.id for clip in clips}
    for what, ids in (("clip", [c.id for c in clips]), ("caption", [c.id for c in captions])):
        if len(set(ids)) < len(ids):
            twice = next(name for name, count in Counter(ids).items() if count > 1)
            raise EarshotError(f"{card.name} {split}: the {what} {twice!r} is there twice")
    if stray := next((c for c in captions if c.clip_id and c.clip_id not in known), None):
        raise EarshotError(f"{card.name} {split}: caption {stray.id!r} is of no known clip")
    if relevance is None:
        relevance = {c.id: frozenset({c.clip_id}) for c in captions if c.clip_id}
    return Dataset(
        card=card, split=split, clips=tuple(clips), captions=tuple(captions), relevance=relevance
    )


def caption_id(clip_id: str, number: int) -> str:
    """The id of a clip's n-th caption, counted from 1."""
    return f"{clip_id}#{number}"


def freesound_id(address: str) -> str:
    """The id in a Freesound address, else nothing."""
    found = FREESOUND_ADDRESS.search(address)
    return found[1] if found else ""


def missing(dataset: Dataset) -> tuple[Clip, ...]:
    """The clips whose audio is not at hand."""
    if isinstance(dataset.clips, IndexedClips):
        return tuple(map(dataset.clips.made, dataset.clips.without_audio().tolist()))
    return tuple(clip for clip in dataset.clips if not clip.path)


def with_audio(dataset: Dataset, *, allow_missing: bool = False) -> Dataset:
    """The dataset if all of its audio is here, or the subset that is.

    Captions that no remaining clip is relevant to are left out; `share` says what remains.

    Raises:
        EarshotError: audio is missing and that is not allowed, or all of it is.
    """
    absent = missing(dataset)
    if not absent:
        return dataset
    here = frozenset(clip.id for clip in dataset.clips if clip.path)
    what = f"{dataset.card.name} {dataset.split}: the audio of {len(absent)} of "
    what += f"{len(dataset.clips)} clips is missing, first {absent[0].id!r}"
    if not here:
        name = dataset.card.name
        # A folder of the user's own may be called like a published dataset, but cites nobody.
        public = name in PUBLIC and dataset.card.citation
        advice = f"see `earshot data fetch {name}`" if public else "put it where the table says"
        raise EarshotError(f"{what}; {advice}")
    if not allow_missing:
        raise EarshotError(f"{what}; put it there, or go on without by --allow-missing")
    return subset(dataset, here)


def subset(dataset: Dataset, clip_ids: frozenset[str]) -> Dataset:
    """The dataset with these clips alone."""
    if indexed := indexed_part(dataset, clip_ids):
        return indexed
    left = {query: clips & clip_ids for query, clips in dataset.relevance.items()}
    relevance = {query: clips for query, clips in left.items() if clips}
    clips = tuple(clip for clip in dataset.clips if clip.id in clip_ids)
    captions = [c for c in dataset.captions if c.id in relevance or c.id not in dataset.relevance]
    # A query may have lost the clip that it was written for and still have relevant ones.
    kept = [c if c.clip_id in clip_ids else replace(c, clip_id="") for c in captions]
    share = dataset.share * len(clips) / len(dataset.clips)
    return replace(dataset, clips=clips, captions=tuple(kept), relevance=relevance, share=share)


def audio_files(root: Path) -> Iterator[Path]:
    """Audio files below a folder, sorted, hidden ones left out; linked folders are not entered."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES:
                yield Path(folder, name)


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Files by their names without suffix; of several, the first."""
    found: dict[str, Path] = {}
    for path in paths:
        found.setdefault(path.stem.strip(), path)
    return found


def find(root: Path, names: Sequence[str]) -> Path | None:
    """The first of some files or folders, at most DEPTH folders below the root."""
    for depth in range(DEPTH):
        for name in names:
            for path in sorted(root.glob("*/" * depth + name)):
                return path
    return None


def require(root: Path, names: Sequence[str], dataset: str) -> Path:
    """Like `find`.

    Raises:
        EarshotError: it is not there.
    """
    if not root.is_dir():
        raise EarshotError(f"{root} is no folder; give the folder of {dataset}")
    if path := find(root, names):
        return path
    what = f"{root} holds no {' or '.join(names)}"
    raise EarshotError(f"{what}; get it by `earshot data fetch {dataset} --to {root}`")


def require_split(dataset: str, split: str, splits: Sequence[str]) -> None:
    """Check a split's name.

    Raises:
        EarshotError: the dataset has no such split.
    """
    if split not in splits:
        raise EarshotError(f"{dataset} has no split {split!r}; it has {', '.join(splits)}")
