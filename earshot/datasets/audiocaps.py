"""AudioCaps: 10-s excerpts of YouTube videos from AudioSet with captions (Kim et al., 2019).

One caption per clip for training, five in the other splits. The audio is not published with the
captions; copies name their files in several ways, of which all known are recognised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from earshot.datasets.shape import assemble, audio_files, by_stem, require, require_split
from earshot.datasets.tables import Row, read_rows
from earshot.types import Caption, Clip, Dataset, DatasetCard, SplitSize

COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
YOUTUBE_ID_LENGTH = 11
EXCERPT_S = 10
CARD = DatasetCard(
    name="audiocaps",
    source="https://github.com/cdjkim/audiocaps",
    licence="captions: MIT; audio: YouTube's terms, not published",
    citation="C. D. Kim, B. Kim, H. Lee, G. Kim: AudioCaps: generating captions for audios in "
    "the wild. NAACL-HLT 2019",
    research_only=True,
    sizes={
        "train": SplitSize(clips=49838, captions=49838),
        "val": SplitSize(clips=495, captions=2475),
        "test": SplitSize(clips=975, captions=4875),
    },
)


def load(root: Path, split: str = "test") -> Dataset:
    """One split, with whatever of its audio is below the root.

    Raises:
        EarshotError: no captions there, or a table that is not as published.
    """
    require_split(CARD.name, split, tuple(CARD.sizes))
    rows = read_rows(require(root, [f"{split}.csv"], CARD.name), COLUMNS)
    files = by_stem(audio_files(root))
    clips: dict[str, Clip] = {}
    starts: dict[str, str] = {}
    captions = []
    for row in rows:
        video, start = row.required("youtube_id"), row.required("start_time")
        _check(row, video, start)
        if starts.setdefault(video, start) != start:
            raise row.error(f"{video} starts at {start} s, but at {starts[video]} s before")
        if video not in clips:
            clips[video] = Clip(id=video, path=_audio(row, files), youtube_id=video)
        text = row.required("caption")
        captions.append(Caption(id=row.required("audiocap_id"), text=text, clip_id=video))
    return assemble(CARD, split, list(clips.values()), captions)


def youtube_ids(root: Path) -> frozenset[str]:
    """The videos of all splits.

    Raises:
        EarshotError: a split's table is not there.
    """
    return frozenset(clip.id for split in CARD.sizes for clip in load(root, split).clips)


def _check(row: Row, video: str, start: str) -> None:
    if len(video) != YOUTUBE_ID_LENGTH:
        raise row.error(f"youtube_id is {video!r}; expected {YOUTUBE_ID_LENGTH} characters")
    if not start.isdigit():
        raise row.error(f"start_time is {start!r}; expected whole seconds")


def _audio(row: Row, files: Mapping[str, Path]) -> str:
    return next((str(files[stem]) for stem in _stems(row) if stem in files), "")


def _stems(row: Row) -> Iterator[str]:
    video, start = row.get("youtube_id"), int(row.get("start_time"))
    for name in (video, f"Y{video}"):
        yield from (name, f"{name}_{start}", f"{name}_{start}_{start + EXCERPT_S}")
        yield f"{name}_{start * 1000}_{(start + EXCERPT_S) * 1000}"
    yield row.get("audiocap_id")
