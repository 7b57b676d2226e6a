"""A dataset's audio, decoded and resampled once: any crop of any clip without reading the rest.

A pack is a folder. `00000.bin`, `00001.bin` … hold the clips one after another, 16-bit mono samples
or, by choice, one FLAC, Opus or MP3 stream per clip; each is mapped into memory when a clip of it
is first asked for, so that processes share it. `00000.jsonl` … have a line per clip: where it lies
and its hash. A line is written only once its audio is on the disk; so after a crash what no line
speaks of is cut off, and packing goes on there. `index/` holds what the lines say as columns, and
`dataset/` the clips, captions and relevance, so that half a million entries open at once.
`earshot.datasets.packing` writes packs.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import soundfile

from earshot.datasets.columns import Places, Texts, read
from earshot.datasets.index import ABOUT, open_index, read_about
from earshot.types import Dataset, EarshotError

Codec = Literal["pcm", "flac", "opus", "mp3"]
OPUS_RATES_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)
VERSION = 2
SCALE = 2.0**15
# Decoded before a crop of a lossy stream, whose frames depend on those before. Opus takes this long
# where a stream ends soon after its first page; 0.2 s left 6e-4.
RUN_UP_S = 0.5
NUMBERS = ("shard", "offset", "stored_bytes", "samples", "clipped")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a pack holds its audio as."""

    sample_rate_hz: int
    codec: Codec = "pcm"

    def __post_init__(self) -> None:
        if self.codec not in get_args(Codec):
            raise EarshotError(f"no codec {self.codec!r}; known are {', '.join(get_args(Codec))}")
        if self.sample_rate_hz < 1:
            raise EarshotError(f"the rate is {self.sample_rate_hz} Hz; it must be 1 or more")
        if self.codec == "opus" and self.sample_rate_hz not in OPUS_RATES_HZ:
            rates = ", ".join(map(str, OPUS_RATES_HZ))
            raise EarshotError(f"Opus has no {self.sample_rate_hz} Hz; it has {rates}, or use flac")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where a clip lies, or why it is not there; `source` tells its file's size and time."""

    id: str
    source: str
    shard: int = 0
    offset: int = 0
    stored_bytes: int = 0
    samples: int = 0
    clipped: int = 0
    sha256: str = ""
    broken: str = ""


class Entries(Mapping[str, Entry]):
    """The clips of a pack by id, in the order of packing, each made when it is asked for.

    `numbers` are columns (N,) int64 by name, `hashes` (N, 32) uint8.
    """

    def __init__(self, folder: Path) -> None:
        """Map the columns.

        Raises:
            EarshotError: some is absent or damaged.
        """
        self.ids, self.sources = Texts.open(folder, "id"), Texts.open(folder, "source")
        self.places = Places.open(self.ids, folder, "id")
        self.numbers = {name: read(folder, name) for name in NUMBERS}
        self.hashes = read(folder, "sha256")

    def __getitem__(self, clip_id: str) -> Entry:
        place = self.places.find(clip_id)
        if place is None:
            raise KeyError(clip_id)
        shard, offset, stored_bytes, samples, clipped = (
            int(self.numbers[name][place]) for name in NUMBERS
        )
        return Entry(
            id=clip_id,
            source=self.sources[place],
            shard=shard,
            offset=offset,
            stored_bytes=stored_bytes,
            samples=samples,
            clipped=clipped,
            sha256=self.hashes[place].tobytes().hex(),
        )

    def __contains__(self, clip_id: object) -> bool:
        return isinstance(clip_id, str) and self.places.find(clip_id) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def total(self, name: str) -> int:
        """The sum of a column of numbers."""
        return int(self.numbers[name].sum())


class Pack:
    """A finished pack, opened for reading. Copies in other processes share its pages."""

    def __init__(self, folder: str | Path) -> None:
        """Open a pack.

        Raises:
            EarshotError: it is none, is not finished, or its files do not fit together.
        """
        self.folder = Path(folder)
        described = read_settings_file(self.folder)
        if not described.get("finished"):
            raise EarshotError(f"{folder} is not finished; run `earshot data pack` again")
        try:
            self.settings = Settings(**described["settings"])
            sizes = [int(size) for size in described["shard_bytes"]]
        except (KeyError, TypeError, ValueError) as error:
            raise EarshotError(f"{folder}/pack.json is damaged; pack again") from error
        self.entries = Entries(self.folder / "index")
        names, reasons = (Texts.open(self.folder / "index", f"broken.{s}") for s in ("id", "why"))
        self.broken = dict(zip(names, reasons, strict=True))
        self._shards: dict[int, memoryview] = {}
        for number, needed in enumerate(sizes):
            path = shard_file(self.folder, number)
            found = path.stat().st_size if path.exists() else 0
            if found < needed:
                what = f"{folder}: {path.name} has {found} bytes, {needed} are expected"
                raise EarshotError(f"{what}; delete the folder and pack again")

    def __reduce__(self) -> tuple[type[Pack], tuple[Path]]:
        return Pack, (self.folder,)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self.entries

    @property
    def sample_rate_hz(self) -> int:
        """The rate of all clips."""
        return self.settings.sample_rate_hz

    def duration_s(self, clip_id: str) -> float:
        """A clip's length in seconds."""
        return self._entry(clip_id).samples / self.sample_rate_hz

    def crop(self, clip_id: str, start: int = 0, samples: int | None = None) -> np.ndarray:
        """Samples [start, start + samples) of a clip as (T,) float32; fewer where it ends.

        Raises:
            EarshotError: no such clip.
            ValueError: a start outside of the clip or a negative length.
        """
        entry = self._entry(clip_id)
        end = entry.samples if samples is None else min(start + samples, entry.samples)
        if not 0 <= start <= end:
            raise ValueError(f"{clip_id!r} has {entry.samples} samples; no {samples} from {start}")
        stored = self._stored(entry)
        if self.settings.codec == "pcm":
            values = np.frombuffer(stored, dtype="<i2")[start:end].astype(np.float32)
            values /= np.float32(SCALE)
            return values
        run_up = 0 if self.settings.codec == "flac" else round(RUN_UP_S * self.sample_rate_hz)
        return _decode(stored, start, end, run_up)

    def random_crop(self, clip_id: str, samples: int, random: np.random.Generator) -> np.ndarray:
        """A crop whose start is drawn evenly; the whole clip where it is no longer than that."""
        room = self._entry(clip_id).samples - samples
        return self.crop(clip_id, int(random.integers(room + 1)) if room > 0 else 0, samples)

    def verify(self, report: Callable[[int], None] | None = None) -> None:
        """Compare every clip's bytes with their hash.

        Raises:
            EarshotError: some are not what was written.
        """
        for number, entry in enumerate(self.entries.values(), 1):
            if hashlib.sha256(self._stored(entry)).hexdigest() != entry.sha256:
                what = f"{self.folder}: the audio of {entry.id!r} is not what was written"
                raise EarshotError(f"{what}; delete the folder and pack again")
            if report:
                report(number)

    def dataset(self) -> Dataset:
        """The dataset that was packed; clips that could not be packed have no path.

        Raises:
            EarshotError: clips were packed without a dataset.
        """
        dataset = open_index(self.folder / "dataset", absent=self.broken)
        return replace(dataset, pack=str(self.folder))

    def _stored(self, entry: Entry) -> memoryview:
        if entry.shard not in self._shards:
            self._shards[entry.shard] = _mapped(shard_file(self.folder, entry.shard))
        return self._shards[entry.shard][entry.offset : entry.offset + entry.stored_bytes]

    def _entry(self, clip_id: str) -> Entry:
        try:
            return self.entries[clip_id]
        except KeyError:
            reason = self.broken.get(clip_id, "it was not packed")
            raise EarshotError(f"{self.folder} has no clip {clip_id!r}: {reason}") from None


def packed_kind(folder: Path) -> str:
    """The name of the dataset that a folder is a pack of; empty where it is none.

    Raises:
        EarshotError: what it says of itself is damaged.
    """
    if not (folder / "dataset" / ABOUT).is_file():
        return ""
    return str(read_about(folder / "dataset")["kind"])


def shard_file(folder: Path, number: int) -> Path:
    """Where the audio of a shard lies."""
    return folder / f"{number:05}.bin"


def journal_file(folder: Path, number: int) -> Path:
    """Where it is said what lies in a shard."""
    return folder / f"{number:05}.jsonl"


def read_settings_file(folder: Path) -> dict[str, Any]:
    """What a pack says of itself.

    Raises:
        EarshotError: the folder is no pack, or one of another version.
    """
    try:
        content = json.loads((folder / "pack.json").read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise EarshotError(f"{folder} is no pack of audio; name another folder") from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise EarshotError(f"{folder} is a pack of another version; pack again")
    return content


def read_journals(folder: Path) -> Iterator[Entry]:
    """What the journals of all shards say, in the order of packing; a torn last line is none.

    Raises:
        EarshotError: a line is damaged.
    """
    for path in sorted(folder.glob("[0-9]*.jsonl")):
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    entry = Entry(**json.loads(line))
                    before = min(entry.offset, entry.stored_bytes, entry.samples) < 0
                except (ValueError, TypeError, RecursionError) as error:
                    what = f"{path}, line {number}: damaged"
                    raise EarshotError(f"{what}; delete {folder}") from error
                if before:
                    what = f"{path}, line {number}: a place before the start"
                    raise EarshotError(f"{what}; delete {folder}")
                yield entry


def _mapped(path: Path) -> memoryview:
    if not path.exists() or not path.stat().st_size:
        return memoryview(b"")
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


class _Slice(io.RawIOBase):
    """A part of the mapped file as a file of its own, without copying it."""

    def __init__(self, content: memoryview) -> None:
        self._content, self._position = content, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self._content)}
        self._position = base[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        taken = self._content[self._position : self._position + len(buffer)]
        buffer[: len(taken)] = taken
        self._position += len(taken)
        return len(taken)


def _decode(stored: memoryview, start: int, end: int, run_up: int) -> np.ndarray:
    first = max(0, start - run_up)
    with soundfile.SoundFile(_Slice(stored)) as file:
        if first:
            file.seek(first)
        samples: np.ndarray = file.read(end - first, dtype="float32")
    return samples[start - first :]
