"""A dataset's audio, decoded and resampled once: any crop of any clip without reading the rest.

A pack is a folder. `audio.bin` holds the clips one after another, 16-bit mono samples or, by
choice, one FLAC, Opus or MP3 stream per clip. It is mapped into memory, so that processes share
it. `clips.jsonl` has a line per clip: where it lies and its hash. A line is written only once its
audio is on the disk; so after a crash what no line speaks of is cut off, and packing goes on there.
`earshot.datasets.packing` writes packs.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import soundfile

from earshot.types import EarshotError

Codec = Literal["pcm", "flac", "opus", "mp3"]
OPUS_RATES_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)
VERSION = 1
SCALE = 2.0**15
# Decoded before a crop of a lossy stream, whose frames depend on those before. Opus takes this long
# where a stream ends soon after its first page; 0.2 s left 6e-4.
RUN_UP_S = 0.5


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
    offset: int = 0
    stored_bytes: int = 0
    samples: int = 0
    clipped: int = 0
    sha256: str = ""
    broken: str = ""


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
        self.settings = Settings(**described["settings"])
        entries = read_journal(self.folder)[0]
        self.broken = {e.id: e.broken for e in entries.values() if e.broken}
        self.entries = {e.id: e for e in entries.values() if not e.broken}
        self._bytes = _mapped(self.folder / "audio.bin")
        needed = max((e.offset + e.stored_bytes for e in self.entries.values()), default=0)
        if needed > len(self._bytes):
            what = f"{folder}: audio.bin has {len(self._bytes)} bytes, {needed} are expected"
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
        stored = self._bytes[entry.offset : entry.offset + entry.stored_bytes]
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
            stored = self._bytes[entry.offset : entry.offset + entry.stored_bytes]
            if hashlib.sha256(stored).hexdigest() != entry.sha256:
                what = f"{self.folder}: the audio of {entry.id!r} is not what was written"
                raise EarshotError(f"{what}; delete the folder and pack again")
            if report:
                report(number)

    def _entry(self, clip_id: str) -> Entry:
        if clip_id in self.entries:
            return self.entries[clip_id]
        reason = self.broken.get(clip_id, "it was not packed")
        raise EarshotError(f"{self.folder} has no clip {clip_id!r}: {reason}")


def read_settings_file(folder: Path) -> dict[str, Any]:
    """What a pack says of itself.

    Raises:
        EarshotError: the folder is no pack, or one of another version.
    """
    try:
        content = json.loads((folder / "pack.json").read_text())
    except (OSError, ValueError) as error:
        raise EarshotError(f"{folder} is no pack of audio; name another folder") from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise EarshotError(f"{folder} is a pack of another version; pack again")
    return content


def read_journal(folder: Path) -> tuple[dict[str, Entry], int]:
    """Clips by id, and where their audio ends; a torn last line is none."""
    entries: dict[str, Entry] = {}
    end = 0
    path = folder / "clips.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            entry = Entry(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise EarshotError(f"{path}, line {number}: damaged; delete {folder}") from error
        entries[entry.id] = entry
        end = max(end, entry.offset + entry.stored_bytes)
    return entries, end


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
