"""Write a pack: decode and resample each clip once, in threads; go on after any crash.

The order of writing is the safety: audio first, then the lines that speak of it, then the index
made of all lines, then the mark that the pack is finished. A shard that is full is never touched
again, so what a crash can leave half done is in the last one.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import soundfile

from earshot import audio
from earshot.cores import usable_cores
from earshot.datasets.columns import Places, Texts, write
from earshot.datasets.index import write_index
from earshot.datasets.pack import (
    NUMBERS,
    SCALE,
    VERSION,
    Entry,
    Pack,
    Settings,
    journal_file,
    read_journals,
    read_settings_file,
    shard_file,
)
from earshot.files import atomic_write, clear_drafts, locked
from earshot.types import AudioError, Clip, Dataset, EarshotError

FORMATS = {"flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III")}
SYNC_CLIPS = 64  # written together: little is lost by a crash, and disks are not kept waiting
SHARD_BYTES = 4 << 30  # a shard that has reached it is full: few files, each of a size to be moved


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far packing is; handed to its reporter after every clip."""

    total: int
    done: int


class Origin(Protocol):
    """Where the audio of clips comes from."""

    def state(self, clip: Clip) -> str:
        """What tells whether a clip's audio is still the one that was packed."""

    def blocks(self, clip: Clip, sample_rate_hz: int) -> Iterator[np.ndarray]:
        """The samples of a clip, (T,) float32 at a time.

        Raises:
            AudioError: it is broken.
        """


class Files:
    """Clips are files."""

    def state(self, clip: Clip) -> str:
        """Size and time of the file.

        Raises:
            EarshotError: the clip has none.
        """
        if not clip.path:
            raise EarshotError(f"the audio of {clip.id!r} is missing; pack the clips that are here")
        with suppress(OSError):
            stat = Path(clip.path).stat()
            return f"{stat.st_size} bytes, {stat.st_mtime_ns} ns"
        return "unreadable"

    def blocks(self, clip: Clip, sample_rate_hz: int) -> Iterator[np.ndarray]:
        """The file's audio, resampled."""
        return audio.stream(clip.path, sample_rate_hz=sample_rate_hz)


FILES = Files()


def pack(  # noqa: PLR0913 - what, where to, as what; and how it goes
    clips: Sequence[Clip],
    folder: str | Path,
    settings: Settings,
    *,
    origin: Origin = FILES,
    workers: int | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Pack:
    """Decode and resample clips into a pack, going on where an earlier run stopped.

    Broken files are noted, not packed. Memory holds two clips per worker, as 16-bit samples.

    Raises:
        EarshotError: two clips have one id; the folder holds something else, another kind of pack,
            or clips whose files have changed since.
    """
    _refuse_twice(clips)
    folder = Path(folder)
    states = {clip.id: origin.state(clip) for clip in clips}
    _begin(folder, settings)
    with locked(folder / "pack.lock", busy=f"{folder} is being packed by another process"):
        for place in (folder, folder / "index", folder / "dataset"):
            clear_drafts(place)
        known, ends = _survey(folder)
        _refuse_changes(folder, known, states)
        shard = _cut_off(folder, ends)
        rest = [clip for clip in clips if _is_due(known.get(clip.id), states[clip.id])]
        progress = Progress(total=len(clips), done=len(clips) - len(rest))
        _describe(folder, settings, finished=False)
        encoded = _in_order(
            rest, lambda clip: _encode(clip, states[clip.id], settings, origin), workers or 0
        )
        with _Writer(folder, shard) as writer:
            for entry, stored in encoded:
                writer.add(entry, stored)
                progress.done += 1
                if report:
                    report(progress)
        _describe(folder, settings, finished=True, shard_bytes=write_entries(folder))
    return Pack(folder)


def pack_dataset(
    dataset: Dataset,
    kind: str,
    folder: str | Path,
    settings: Settings,
    report: Callable[[Progress], None] | None = None,
) -> Pack:
    """Pack a dataset's clips and, beside them, the dataset itself, so that the pack stands for it.

    Raises:
        EarshotError: as `pack`.
    """
    packed = pack(dataset.clips, folder, settings, report=report)
    write_index(dataset, kind, packed.folder / "dataset")
    return packed


def write_entries(folder: Path) -> list[int]:
    """Make the index of what the journals say; returns the bytes of audio of each shard.

    Of a clip with several lines the last counts: it was broken before.

    Raises:
        EarshotError: two lines say that a clip is good.
    """
    place: dict[str, int] = {}
    columns = {name: array("q") for name in NUMBERS}
    sources, hashes, broken = list[str](), list[bytes](), dict[str, str]()
    for entry in read_journals(folder):
        if entry.broken:
            broken[entry.id] = entry.broken
            continue
        broken.pop(entry.id, None)
        if entry.id in place:
            raise EarshotError(f"{folder} holds {entry.id} twice; delete it and pack again")
        place[entry.id] = len(place)
        sources.append(entry.source)
        hashes.append(bytes.fromhex(entry.sha256))
        for name, column in columns.items():
            column.append(getattr(entry, name))
    index, ids = folder / "index", Texts.of(place)
    ids.write(index, "id")
    Places.of(ids).write(index, "id")
    Texts.of(sources).write(index, "source")
    write(index, "sha256", np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32))
    for name, column in columns.items():
        write(index, name, np.array(column, dtype=np.int64))
    Texts.of(broken).write(index, "broken.id")
    Texts.of(broken.values()).write(index, "broken.why")
    ends: dict[int, int] = {}
    for shard, offset, count in zip(*(columns[name] for name in NUMBERS[:3]), strict=True):
        ends[shard] = max(ends.get(shard, 0), offset + count)
    return [ends.get(shard, 0) for shard in range(max(ends, default=-1) + 1)]


class _Writer:
    """Appends clips; a line of the journal follows its audio, never the other way round."""

    def __init__(self, folder: Path, shard: int) -> None:
        self._folder, self._waiting = folder, list[Entry]()
        self._open(shard)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, shard: int) -> None:
        self.shard = shard
        self._audio: IO[bytes] = shard_file(self._folder, shard).open("ab")
        self._journal: IO[bytes] = journal_file(self._folder, shard).open("ab")

    def add(self, entry: Entry, stored: bytes) -> None:
        """Write one clip; its journal line may wait for others."""
        if self._audio.tell() and self._audio.tell() + len(stored) > SHARD_BYTES:
            self.close()
            self._open(self.shard + 1)
        offset = self._audio.tell()
        self._audio.write(stored)
        self._waiting.append(replace(entry, shard=self.shard, offset=offset))
        if len(self._waiting) == SYNC_CLIPS:
            self.sync()

    def sync(self) -> None:
        """Bring the audio to the disk, then the lines that speak of it."""
        self._audio.flush()
        os.fsync(self._audio.fileno())
        for entry in self._waiting:
            self._journal.write(json.dumps(asdict(entry)).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self._waiting = []

    def close(self) -> None:
        """Bring all to the disk."""
        self.sync()
        self._audio.close()
        self._journal.close()


def _encode(clip: Clip, source: str, settings: Settings, origin: Origin) -> tuple[Entry, bytes]:
    """A clip as it is stored, in a worker thread."""
    try:
        samples, clipped = _quantised(origin.blocks(clip, settings.sample_rate_hz))
    except AudioError as error:
        return Entry(id=clip.id, source=source, broken=error.reason), b""
    stored = samples.tobytes()
    if settings.codec != "pcm":
        container, codec = FORMATS[settings.codec]
        buffer = io.BytesIO()
        soundfile.write(buffer, samples, settings.sample_rate_hz, format=container, subtype=codec)
        stored = buffer.getvalue()
    entry = Entry(
        id=clip.id,
        source=source,
        stored_bytes=len(stored),
        samples=len(samples),
        clipped=clipped,
        sha256=hashlib.sha256(stored).hexdigest(),
    )
    return entry, stored


def _quantised(read: Iterable[np.ndarray]) -> tuple[np.ndarray, int]:
    """Audio as 16-bit samples, block by block, and how many were too loud for them."""
    blocks, clipped = [], 0
    for block in read:
        scaled = np.rint(block * np.float32(SCALE))
        blocks.append(np.clip(scaled, -SCALE, SCALE - 1).astype("<i2"))
        clipped += int(np.count_nonzero(blocks[-1] != scaled))
    return np.concatenate(blocks), clipped


def _in_order(
    clips: Iterable[Clip], work: Callable[[Clip], tuple[Entry, bytes]], workers: int
) -> Iterator[tuple[Entry, bytes]]:
    """Results in order; at most two per worker wait, so that memory stays bounded."""
    workers = workers or usable_cores()
    with ThreadPoolExecutor(workers) as pool:
        waiting: list[Future[tuple[Entry, bytes]]] = []
        try:
            for clip in clips:
                waiting.append(pool.submit(work, clip))
                if len(waiting) == 2 * workers:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Known:
    """What an earlier run knows of a clip."""

    source: str
    is_broken: bool


def _is_due(known: Known | None, source: str) -> bool:
    """Whether a clip is still to be packed: a broken file is tried again once it has changed."""
    return known is None or (known.is_broken and known.source != source)


def _refuse_twice(clips: Sequence[Clip]) -> None:
    counts = Counter(clip.id for clip in clips)
    twice = next((id for id, count in counts.items() if count > 1), None)
    if twice is not None:
        raise EarshotError(f"{counts[twice]} clips have the id {twice}; give each its own")


def _refuse_changes(folder: Path, known: dict[str, Known], states: dict[str, str]) -> None:
    packed = {clip: entry.source for clip, entry in known.items() if not entry.is_broken}
    changed = [i for i, source in states.items() if packed.get(i, source) != source]
    if changed:
        what = f"{len(changed)} files have changed since they were packed, first {changed[0]!r}"
        raise EarshotError(f"{folder}: {what}; delete the folder and pack again")


def _begin(folder: Path, settings: Settings) -> None:
    """Make the folder a pack, or see that it is one of these settings."""
    # A crash may leave a hidden file of a write that was not finished.
    if not folder.exists() or all(path.name.startswith(".") for path in folder.iterdir()):
        _describe(folder, settings, finished=False)
        return
    found = read_settings_file(folder)["settings"]
    if found != asdict(settings):
        what = f"{folder} holds {found['codec']} at {found['sample_rate_hz']} Hz"
        raise EarshotError(f"{what}; ask for the same, or pack into another folder")


def _describe(
    folder: Path, settings: Settings, *, finished: bool, shard_bytes: Sequence[int] = ()
) -> None:
    with atomic_write(folder / "pack.json") as file:
        content: dict[str, Any] = {"version": VERSION, "settings": asdict(settings)}
        content |= {"finished": finished, "shard_bytes": list(shard_bytes)}
        file.write(json.dumps(content, indent=2).encode())


def _survey(folder: Path) -> tuple[dict[str, Known], dict[int, int]]:
    """What is known of each clip, and where the audio of each shard ends."""
    known: dict[str, Known] = {}
    ends: dict[int, int] = {}
    for entry in read_journals(folder):
        known[entry.id] = Known(entry.source, bool(entry.broken))
        ends[entry.shard] = max(ends.get(entry.shard, 0), entry.offset + entry.stored_bytes)
    return known, ends


def _cut_off(folder: Path, ends: dict[int, int]) -> int:
    """Remove what a crash left behind the last whole clip; returns the shard to go on with."""
    for path in folder.glob("[0-9]*.bin"):
        if int(path.stem) not in ends:
            path.unlink()
    for shard, end in ends.items():
        content = shard_file(folder, shard)
        if not content.exists() or content.stat().st_size < end:
            raise EarshotError(f"{content} is shorter than its journal says; delete {folder}")
        os.truncate(content, end)
    last = max(ends, default=0)
    for journal in folder.glob("[0-9]*.jsonl"):
        if int(journal.stem) >= last:
            os.truncate(journal, journal.read_bytes().rfind(b"\n") + 1)
    return last
