"""WavCaps: 403 050 clips of four sources, captions worded by a language model (Mei et al., 2024).

Some of its Freesound clips are in Clotho's evaluation data and some of its AudioSet clips are in
AudioCaps: training on those spoils the results, so a list of ids can be left out. A clip's id is
`source/id`, because the sources number their sounds independently.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from earshot.datasets import audiocaps
from earshot.datasets.shape import (
    assemble,
    audio_files,
    find,
    require,
    require_split,
    subset,
)
from earshot.types import Caption, Clip, Dataset, DatasetCard, EarshotError, SplitSize

TABLES = {
    "FreeSound": "fsd_final.json",
    "BBC_Sound_Effects": "bbc_final.json",
    "SoundBible": "sb_final.json",
    "AudioSet_SL": "as_final.json",
}
BLACKLIST = "blacklist_exclude_all_ac.json"  # published with the data: its overlap with AudioCaps
BROKEN = frozenset(
    {"Y06-g5jz-OGc", "Y3sSblRfEG2o", "YFli8wjBFV2M", "YVcu0pVF1npM", "YWudGD6ZHRoY", "YmW3S0u8bj58"}
)
ALL = "all"
CARD = DatasetCard(
    name="wavcaps",
    source="https://huggingface.co/datasets/cvssp/WavCaps",
    licence="captions: CC BY 4.0; audio: as at each source",
    citation="X. Mei et al.: WavCaps: a ChatGPT-assisted weakly-labelled audio captioning dataset "
    "for audio-language multimodal research. IEEE/ACM TASLP 32, 2024",
    notes="six AudioSet files are known to be broken and always left out",
    research_only=True,
    sizes={
        ALL: SplitSize(clips=403050, captions=403050),
        "FreeSound": SplitSize(clips=262300, captions=262300),
        "BBC_Sound_Effects": SplitSize(clips=31201, captions=31201),
        "SoundBible": SplitSize(clips=1232, captions=1232),
        "AudioSet_SL": SplitSize(clips=108317, captions=108317),
    },
)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What of WavCaps is used.

    `audioset` is `no_audiocaps` to leave out the AudioSet clips that AudioCaps has too; they are
    listed in the data's own blacklist, or in the tables of an `audiocaps` folder.
    """

    excluded_freesound_ids: frozenset[str] = frozenset()
    audioset: Literal["all", "no_audiocaps"] = "all"
    audiocaps: Path | None = None
    max_duration_s: float | None = None

    def __post_init__(self) -> None:
        if self.audioset not in ("all", "no_audiocaps"):
            raise EarshotError(f"audioset is {self.audioset!r}; it is all or no_audiocaps")
        if self.max_duration_s is not None and not self.max_duration_s > 0:
            raise EarshotError(f"max_duration_s is {self.max_duration_s}; it must be more than 0")


EVERYTHING = Selection()


def load(root: Path, split: str = ALL, selection: Selection = EVERYTHING) -> Dataset:
    """One source or all of them, with whatever of their audio (FLAC or MP3) is below the root.

    Raises:
        EarshotError: a table is missing or not as published.
    """
    require_split(CARD.name, split, tuple(CARD.sizes))
    sources = list(TABLES) if split == ALL else [split]
    files = _files_by_source(root)
    videos = frozenset[str]()
    if selection.audioset == "no_audiocaps" and "AudioSet_SL" in sources:
        videos = _audiocaps_videos(root, selection)
    clips, captions = [], []
    for source in sources:
        for clip, text in _entries(root, source, files.get(source, {})):
            if _selected(clip, selection, videos):
                clips.append(clip)
                captions.append(Caption(id=clip.id, text=text, clip_id=clip.id))
    return assemble(CARD, split, clips, captions)


def selected(dataset: Dataset, root: Path, selection: Selection) -> Dataset:
    """What a selection leaves of a dataset that was loaded before; it counts as the whole.

    Raises:
        EarshotError: AudioCaps' part is to be left out, and nothing below the root lists it.
    """
    videos = frozenset[str]()
    if selection.audioset == "no_audiocaps":
        videos = _audiocaps_videos(root, selection)
    left = frozenset(clip.id for clip in dataset.clips if _selected(clip, selection, videos))
    return replace(subset(dataset, left), share=dataset.share)


def of_source(dataset: Dataset, source: str) -> Dataset:
    """One source of the whole of WavCaps.

    Raises:
        EarshotError: there is no such source.
    """
    require_split(CARD.name, source, tuple(CARD.sizes))
    left = frozenset(clip.id for clip in dataset.clips if clip.id.partition("/")[0] == source)
    return replace(subset(dataset, left), share=dataset.share, split=source)


def _selected(clip: Clip, selection: Selection, videos: frozenset[str]) -> bool:
    longest_s = selection.max_duration_s
    return not (
        clip.freesound_id in selection.excluded_freesound_ids
        or clip.id.partition("/")[2] in BROKEN
        or clip.youtube_id in videos
        or (longest_s is not None and (clip.duration_s or 0) > longest_s)
    )


def _entries(root: Path, source: str, files: Mapping[str, Path]) -> Iterator[tuple[Clip, str]]:
    table = require(root, [f"{source}/{TABLES[source]}", TABLES[source]], CARD.name)
    for number, entry in enumerate(_read(table)):
        where = f"{table}, entry {number}"
        name, text = _text(entry, "id", where).removesuffix(".wav"), _text(entry, "caption", where)
        yield (
            Clip(
                id=f"{source}/{name}",
                path=str(files.get(name, "")),
                duration_s=_duration(entry, where),
                freesound_id=name if source == "FreeSound" else "",
                youtube_id=name.removeprefix("Y") if source == "AudioSet_SL" else "",
                keywords=tuple(entry.get("tags", ())),
            ),
            text,
        )


def _read(table: Path) -> list[dict[str, Any]]:
    """The list `data` of a source's table."""
    content = read_json(table)
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise EarshotError(f"{table}: expected an object with a list `data` of objects")
    return data


def read_json(table: Path) -> Any:
    """The content of a JSON file.

    Raises:
        EarshotError: it is none.
    """
    try:
        return json.loads(table.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise EarshotError(f"{table}: {error}") from error
    except json.JSONDecodeError as error:
        hint = ""
        if table.read_bytes().startswith(b"version https://git-lfs"):
            hint = "; this is a pointer of Git LFS, get the file itself"
        raise EarshotError(f"{table}, line {error.lineno}: not JSON: {error.msg}{hint}") from error


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = str(entry.get(key, "")).strip()
    if not value:
        raise EarshotError(f"{where}: no {key}")
    return value


def _duration(entry: Mapping[str, Any], where: str) -> float:
    value = entry.get("duration")
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise EarshotError(f"{where}: duration is {value!r}; expected seconds")
    return float(value)


def _files_by_source(root: Path) -> dict[str, dict[str, Path]]:
    """Files by source and name: some folder on their way begins with the source's name."""
    found: dict[str, dict[str, Path]] = {}
    sources: dict[Path, str | None] = {}
    for path in audio_files(root):
        if path.parent not in sources:
            sources[path.parent] = _source_of(path.parent.relative_to(root))
        if source := sources[path.parent]:
            found.setdefault(source, {}).setdefault(path.stem.strip(), path)
    return found


def _source_of(folder: Path) -> str | None:
    return next((s for part in folder.parts for s in TABLES if part.startswith(s)), None)


def _audiocaps_videos(root: Path, selection: Selection) -> frozenset[str]:
    if selection.audiocaps is not None:
        return audiocaps.youtube_ids(selection.audiocaps)
    if table := find(root, [BLACKLIST]):
        listed = read_json(table)
        names = listed.get("AudioSet") if isinstance(listed, dict) else None
        if not isinstance(names, list):
            raise EarshotError(f"{table}: expected an object with a list `AudioSet`")
        return frozenset(str(n).removesuffix(".wav").removeprefix("Y") for n in names)
    raise EarshotError(
        f"{root} holds no {BLACKLIST}, which lists what AudioCaps has too; "
        f"get it by `earshot data fetch wavcaps`, or name a folder of AudioCaps"
    )
