"""What a recipe's data names mean in a folder: `KIND:SPLIT` to datasets, exclusions applied."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from earshot import datasets
from earshot.datasets import wavcaps, with_audio
from earshot.datasets.clotho import read_exclusions
from earshot.datasets.pack import packed_kind
from earshot.datasets.shape import subset
from earshot.train.recipe import DataConfig
from earshot.types import Dataset, EarshotError


def load_training(config: DataConfig, root: Path, *, allow_missing: bool) -> tuple[Dataset, ...]:
    """The datasets to train on.

    Raises:
        EarshotError: a dataset or an exclusion list is not there, or audio is missing.
    """
    excluded = frozenset[str]().union(*(exclusions(root, name) for name in config.excluded))
    found = []
    for name in config.train:
        dataset = load_named(name, root, config, excluded)
        found.append(with_audio(kept(dataset, config, excluded), allow_missing=allow_missing))
    return tuple(found)


def load_one(name: str, root: Path, *, allow_missing: bool) -> Dataset:
    """The dataset of one `KIND:SPLIT` with its audio.

    Raises:
        EarshotError: it is not there, or audio is missing.
    """
    dataset = load_named(name, root, DataConfig(), frozenset())
    return with_audio(dataset, allow_missing=allow_missing)


def load_named(name: str, root: Path, config: DataConfig, excluded: frozenset[str]) -> Dataset:
    """A dataset by `KIND:SPLIT` below a folder, with or without its audio.

    Raises:
        EarshotError: it is not there.
    """
    kind, _, split = name.partition(":")
    place = folder_of(kind, split, root)
    if kind == "wavcaps":
        selection = wavcaps.Selection(
            max_duration_s=config.longest_s,
            excluded_freesound_ids=excluded,
            audioset=config.wavcaps_audioset,
        )
        if packed_kind(place):
            whole = datasets.load(kind, place, split)
            return (
                whole
                if selection == wavcaps.EVERYTHING
                else wavcaps.selected(whole, root, selection)
            )
        return wavcaps.load(place, split or wavcaps.ALL, selection)
    return datasets.load(kind, place, split)


def folder_of(kind: str, split: str, root: Path) -> Path:
    """Where a dataset lies: below the folder under its name or its split's, or the folder itself.

    Raises:
        EarshotError: nowhere.
    """
    if not root.is_dir():
        raise EarshotError(f"{root} is no folder; give the folder of the data")
    for place in (root / kind / split, root / kind, root / split, root):
        if place.is_dir() and is_kind(kind, place):
            return place
    raise EarshotError(
        f"{root} holds no {kind} ({split or 'all'}); expected it there or in {root / kind}, or "
        f"name other data: --set 'data.train=[\"KIND:SPLIT\"]', same for data.validate"
    )


def is_kind(kind: str, place: Path) -> bool:
    """Whether a folder itself holds data of a kind."""
    try:
        return datasets.detect(place) == kind
    except EarshotError:
        return False


def exclusions(root: Path, name: str) -> frozenset[str]:
    """The Freesound ids of a list, looked for below the data's folder.

    Raises:
        EarshotError: it is not there; training without it would be on evaluation data.
    """
    found = next(iter(sorted(root.rglob(name))), None)
    if found is None:
        raise EarshotError(
            f"{name} is nowhere below {root}: the recipe leaves out what it lists, so that nothing "
            f"of the evaluation data is trained on; put it there, or --set data.excluded=[]"
        )
    return read_exclusions(found)


def kept(dataset: Dataset, config: DataConfig, excluded: frozenset[str]) -> Dataset:
    """The dataset without excluded and too long clips; what is left counts as the whole."""
    longest_s = config.longest_s or float("inf")
    ids = frozenset(
        clip.id
        for clip in dataset.clips
        if clip.freesound_id not in excluded and (clip.duration_s or 0.0) <= longest_s
    )
    if len(ids) == len(dataset.clips):
        return dataset
    return replace(subset(dataset, ids), share=dataset.share)
