"""Data sets, all of one shape (`earshot.types.Dataset`).

One loader per kind, by name; each takes the folder of the data and a split. What a loader can do
beyond that (text columns, exclusions) is in its own module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from earshot.datasets import audiocaps, clotho, folder, queries, soundscape, wavcaps
from earshot.datasets.pack import Pack, packed_kind
from earshot.datasets.relevance import with_relevance
from earshot.datasets.shape import missing, subset, with_audio
from earshot.types import Dataset, EarshotError

__all__ = ["KINDS", "Kind", "detect", "load", "missing", "subset", "with_audio", "with_relevance"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of dataset: its loader, the split that is meant when none is named, its marks.

    `marks` are files, one of which lies in the folder of such data or at most one folder deeper.
    """

    load: Callable[[Path, str], Dataset]
    default_split: str
    marks: tuple[str, ...]


KINDS: dict[str, Kind] = {
    "clotho": Kind(
        load=clotho.load,
        default_split="evaluation",
        marks=tuple(f"clotho_captions_{split}.csv" for split in clotho.CARD.sizes),
    ),
    "audiocaps": Kind(load=audiocaps.load, default_split="test", marks=("train.csv", "test.csv")),
    "wavcaps": Kind(
        load=wavcaps.load,
        default_split=wavcaps.ALL,
        marks=(*wavcaps.TABLES.values(), *(f"json_files/{s}" for s in wavcaps.TABLES)),
    ),
    "queries": Kind(load=queries.load, default_split=queries.ALL, marks=queries.TABLES),
    "soundscapes": Kind(load=soundscape.load, default_split="", marks=(soundscape.RECORD,)),
    "folder": Kind(load=folder.load, default_split=folder.ALL, marks=folder.TABLES),
}


def load(
    name: str,
    root: str | Path,
    split: str = "",
    *,
    text_column: str = "",
    relevant_by: str = "",
) -> Dataset:
    """Load a dataset by the name of its kind; an empty name means to look at the folder.

    The last two arguments are for a folder with a table alone, see `folder.load`.

    Raises:
        EarshotError: an unknown name or split, missing or malformed tables.
    """
    root = Path(root)
    if kind_packed := packed_kind(root):
        if text_column or relevant_by or name not in ("", kind_packed):
            raise EarshotError(f"{root} is a pack of {kind_packed} with its captions; ask for that")
        return of_split(Pack(root).dataset(), split)
    name = name or detect(root)
    if name not in KINDS:
        raise EarshotError(f"no dataset {name!r}; known are {', '.join(KINDS)}")
    kind = KINDS[name]
    split = split or kind.default_split
    if name == "folder":
        return folder.load(root, split, text_column=text_column, relevant_by=relevant_by)
    if text_column or relevant_by:
        raise EarshotError(
            f"--text-column and --relevant-by are for a folder with a table; {root} is {name}"
        )
    return kind.load(root, split)


def of_split(dataset: Dataset, split: str) -> Dataset:
    """What a pack holds of a split: all of it, or one source of WavCaps.

    Raises:
        EarshotError: it holds another split.
    """
    if split in ("", dataset.split):
        return dataset
    if dataset.card.name == wavcaps.CARD.name and dataset.split == wavcaps.ALL:
        return wavcaps.of_source(dataset, split)
    raise EarshotError(f"{dataset.pack} holds {dataset.split!r}, not {split!r}; pack that too")


def detect(root: Path) -> str:
    """The kind of the data in a folder.

    Raises:
        EarshotError: it is no known one.
    """
    if not root.is_dir():
        raise EarshotError(f"{root} is no folder; give the folder of a dataset")
    if kind_packed := packed_kind(root):
        return kind_packed
    for name, kind in KINDS.items():
        patterns = (
            kind.marks if name == "folder" else (*kind.marks, *(f"*/{m}" for m in kind.marks))
        )
        if any(next(root.glob(pattern), None) for pattern in patterns):
            return name
    expected = "; ".join(f"{name}: {kind.marks[0]}" for name, kind in KINDS.items())
    raise EarshotError(f"{root} holds no known dataset; expected one of {expected}")
