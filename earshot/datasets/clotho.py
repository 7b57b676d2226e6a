"""Clotho v2.1: 5929 Freesound clips of 15–30 s with five captions each (Drossos et al., 2020).

File names are ids: they hold blanks, commas, quotes and HTML entities, which all stay; only blanks
around them go, since copies of the data differ there. Four names occur in two splits, so an id is
an id within its split.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from earshot.datasets.shape import assemble, audio_files, caption_id, find, require, require_split
from earshot.datasets.tables import Row, read_rows
from earshot.types import Caption, Clip, Dataset, DatasetCard, EarshotError, SplitSize

CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))
METADATA = ("file_name", "keywords", "sound_id", "license")
METADATA_ENCODING = "iso-8859-1"
NOT_FOUND = "Not found"  # stands in for the id of a sound that has left Freesound
CARD = DatasetCard(
    name="clotho",
    source="https://zenodo.org/records/4783391",
    licence="audio: as on Freesound, per clip (CC0, CC BY, CC BY-NC, Sampling+); captions: "
    "Tampere University, non-commercial with attribution",
    citation="K. Drossos, S. Lipping, T. Virtanen: Clotho: an audio captioning dataset. "
    "ICASSP 2020",
    notes="version 2.1",
    sizes={
        "development": SplitSize(clips=3839, captions=19195),
        "validation": SplitSize(clips=1045, captions=5225),
        "evaluation": SplitSize(clips=1045, captions=5225),
    },
)


def load(root: Path, split: str = "evaluation") -> Dataset:
    """One split, with whatever of its metadata and audio is below the root.

    Raises:
        EarshotError: no captions there, or a table that is not as published.
    """
    require_split(CARD.name, split, tuple(CARD.sizes))
    table = require(root, [f"clotho_captions_{split}.csv"], CARD.name)
    rows = read_rows(table, ("file_name", *CAPTIONS))
    audio = _audio(root, split)
    clips = {}
    for row in rows:
        name = row.required("file_name")
        if name in clips:
            raise row.error(f"{name!r} is there twice")
        clips[name] = Clip(id=name, path=audio.get(name, ""))
    if metadata := find(root, [f"clotho_metadata_{split}.csv"]):
        _add_metadata(clips, metadata)
    captions = [caption for row in rows for caption in _captions(row)]
    return assemble(CARD, split, list(clips.values()), captions)


def _captions(row: Row) -> list[Caption]:
    name = row.get("file_name")
    return [
        Caption(id=caption_id(name, number), text=row.required(column), clip_id=name)
        for number, column in enumerate(CAPTIONS, 1)
    ]


def _audio(root: Path, split: str) -> dict[str, str]:
    """Files by stripped name in the folder of the split."""
    folder = find(root, [f"clotho_audio_{split}", f"{split}/"])
    if folder is None:
        return {}
    return {path.name.strip(): str(path) for path in audio_files(folder)}


def _add_metadata(clips: dict[str, Clip], table: Path) -> None:
    for row in read_rows(table, METADATA, encoding=METADATA_ENCODING):
        name = row.required("file_name")
        if name not in clips:
            raise row.error(f"{name!r} is in no row of the captions")
        sound = row.get("sound_id")
        if not (sound.isdigit() or sound == NOT_FOUND):
            raise row.error(f"sound_id is {sound!r}; expected digits or {NOT_FOUND!r}")
        clips[name] = replace(
            clips[name],
            freesound_id="" if sound == NOT_FOUND else sound,
            licence=row.get("license"),
            keywords=tuple(word.strip() for word in row.get("keywords").split(";") if word.strip()),
        )


def read_exclusions(table: Path) -> frozenset[str]:
    """Freesound ids that must not be trained on, from a CSV with a column `sound_id`.

    Raises:
        EarshotError: a row holds neither an id nor the published `Not found`.
    """
    ids = set()
    for row in read_rows(table, ("sound_id",)):
        sound = row.required("sound_id")
        if sound == NOT_FOUND:
            continue
        if not sound.isdigit():
            raise row.error(f"sound_id is {sound!r}; expected digits or {NOT_FOUND!r}")
        ids.add(sound)
    if not ids:
        raise EarshotError(f"{table}: no Freesound id in it")
    return frozenset(ids)
