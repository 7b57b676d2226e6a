"""Sound as a browser can play it: the file itself where that is so, else WAV made on the fly.

The WAV is never made as a whole: its length is known beforehand, hence any range of its bytes is a
range of samples, which are decoded when they are asked for. Stereo stays stereo; of more channels
it is the mean, as in everything that earshot hears.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath

import numpy as np

from earshot import audio
from earshot.types import AudioError

# What every current browser plays, by container/codec as `audio.probe` names them.
PLAYABLE = (
    (re.compile(r"WAV(EX)?/PCM_(16|U8)"), "audio/wav"),
    (re.compile(r"FLAC/PCM_(16|24|S8)"), "audio/flac"),
    (re.compile(r"OGG/(VORBIS|OPUS)"), "audio/ogg"),
    (re.compile(r"(MP3|MPEG)/.*|mp3/mp3.*"), "audio/mpeg"),
    (re.compile(r"mov/(aac|mp3.*)"), "audio/mp4"),
    (re.compile(r"aac/aac"), "audio/aac"),
    (re.compile(r"matroska/(opus|vorbis)"), "audio/webm"),
)
# Matroska is more than WebM, and browsers play that alone.
UNPLAYABLE_SUFFIXES = frozenset({".mka", ".mkv"})
MAX_CHANNELS = 2
PLAYABLE_RATES_HZ = range(8_000, 96_001)
WAV_RATES_HZ = range(8_000, 48_001)
BYTES_PER_SAMPLE = 2
HEADER_BYTES = 44
# The size that a WAV file can state.
MAX_WAV_BYTES = 2**32 - 1
# More digits than any size has are no number to reckon with.
RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


@lru_cache(maxsize=4096)
def media_type(path: str, sha256: str) -> str:
    """What a browser plays a file as; empty where it cannot. The hash tells a changed file.

    Raises:
        AudioError: the file cannot be used.
    """
    info = audio.probe(path)
    if (
        info.channels > MAX_CHANNELS
        or info.sample_rate_hz not in PLAYABLE_RATES_HZ
        or PurePath(path).suffix.lower() in UNPLAYABLE_SUFFIXES
    ):
        return ""
    return next((kind for known, kind in PLAYABLE if known.fullmatch(info.format)), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wav:
    """A recording as 16-bit WAV of `frames` samples per channel, which exists in pieces only."""

    path: str
    rate_hz: int
    frames: int
    channels: int = 1

    @classmethod
    def of(cls, path: str, rate_hz: int, duration_s: float, channels: int = 1) -> Wav:
        """At the file's own rate where browsers know that, lower where it would be too large."""
        channels = channels if channels <= MAX_CHANNELS else 1
        rate_hz = min(max(rate_hz, WAV_RATES_HZ[0]), WAV_RATES_HZ[-1])
        frame_bytes = BYTES_PER_SAMPLE * channels
        most = (MAX_WAV_BYTES - HEADER_BYTES) / frame_bytes / max(duration_s, 1e-9)
        rate_hz = max(1, int(min(rate_hz, most)))
        frames = round(duration_s * rate_hz)
        return cls(path=path, rate_hz=rate_hz, frames=frames, channels=channels)

    @property
    def frame_bytes(self) -> int:
        """Of a sample of all channels."""
        return BYTES_PER_SAMPLE * self.channels

    @property
    def size_bytes(self) -> int:
        """Of header and samples."""
        return HEADER_BYTES + self.frame_bytes * self.frames

    def header(self) -> bytes:
        """The canonical 44 bytes."""
        data_bytes = self.frame_bytes * self.frames
        return struct.pack(
            *("<4sI4s4sIHHIIHH4sI", b"RIFF", data_bytes + 36, b"WAVE", b"fmt ", 16, 1),
            *(self.channels, self.rate_hz, self.rate_hz * self.frame_bytes, self.frame_bytes),
            *(8 * BYTES_PER_SAMPLE, b"data", data_bytes),
        )

    def read(self, first: int, last: int) -> Generator[bytes, None, None]:
        """Bytes [first, last); what cannot be decoded, at the end or behind damage, is silence."""
        if first < HEADER_BYTES:
            piece = self.header()[first:last]
            yield piece
            first += len(piece)
        for piece in self._samples(first - HEADER_BYTES) if first < last else ():
            wanted = piece[: last - first]
            yield wanted
            first += len(wanted)
            if first == last:
                return
        while first < last:
            silence = bytes(min(last - first, 1 << 16))
            yield silence
            first += len(silence)

    def _samples(self, offset: int) -> Iterator[bytes]:
        frame, skip = divmod(offset, self.frame_bytes)
        blocks = audio.stream(
            self.path,
            sample_rate_hz=self.rate_hz,
            start_s=frame / self.rate_hz,
            all_channels=self.channels > 1,
        )
        try:
            for block in blocks:
                if block.size != len(block) * self.channels:
                    return  # The file was changed since it was indexed.
                samples = np.clip(np.round(block * 32_767), -32_768, 32_767).astype("<i2")
                yield samples.tobytes()[skip:]
                skip = 0
        except AudioError:
            return


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Bytes [first, last) that a Range header asks for; None for all of them.

    A header that is no single range of bytes counts as none (RFC 9110, section 14.2).

    Raises:
        ValueError: the range lies beyond the end.
    """
    match = RANGE.fullmatch((header or "").replace(" ", ""))
    if not match or not any(match.groups()):
        return None
    if not match[1]:
        suffix = int(match[2])
        if not suffix:
            raise ValueError("an empty range")
        return max(0, size - suffix), size
    first, last = int(match[1]), min(int(match[2] or size - 1), size - 1) + 1
    if match[2] and int(match[2]) < int(match[1]):
        return None
    if first >= size:
        raise ValueError("a range beyond the end")
    return first, last
