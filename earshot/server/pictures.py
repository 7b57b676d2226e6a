"""How a recording looks: its peaks and its spectrogram, both from one pass in constant memory.

A picture has a fixed number of columns whatever the duration. A column of a long recording shows a
few frames of its span: an hour is drawn in seconds, and a second of it is drawn in full when that
is asked for. Axis legend: N columns, M mel bands, T samples.
"""

from __future__ import annotations

import os
import struct
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np

from earshot import audio
from earshot.files import atomic_write
from earshot.frontends.mel import MelConfig, mel_bank
from earshot.types import EarshotError

COLUMNS = 800
MEL = MelConfig(mel_bands=96, fmin_hz=40.0, fmax_hz=16_000.0, window_s=0.032)
RATE_HZ = MEL.sample_rate_hz
FRAMES_PER_COLUMN = 4
RANGE_DECIBEL = 75.0
# Changed whenever pictures would look different, so that old ones are not taken for new ones.
VERSION = 1
# Of all kept pictures: about 20,000 recordings, 50 kB each.
CACHE_BYTES = 1 << 30
# What is left when room is made, so that it is not made for every picture.
LEFT_SHARE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """`peaks` (N, 2) int8: least and greatest sample of a column in 127ths of full scale.

    `decibels` (M, N) uint8, the lowest band first: 255 is the loudest, 0 is 75 dB below it.
    """

    peaks: np.ndarray
    decibels: np.ndarray


def draw(path: str, duration_s: float, start_s: float = 0.0) -> Picture:
    """Draw a file, or the part of it from `start_s` on.

    Raises:
        AudioError: it cannot be read to the end of that part.
    """
    total = max(1, round(duration_s * RATE_HZ))
    blocks = audio.stream(path, sample_rate_hz=RATE_HZ, start_s=start_s, duration_s=duration_s)
    peaks = np.zeros((COLUMNS, 2), np.float32)
    power = np.zeros((COLUMNS, MEL.mel_bands), np.float32)
    edges = np.arange(COLUMNS + 1) * total // COLUMNS
    for first, last, samples, begin in _columns(blocks, edges):
        peaks[first:last] = _peaks(samples, edges[first : last + 1] - begin)
        centres = _centres(edges[first : last + 1]) - begin
        power[first:last] = _mel_power(samples, centres)
    return Picture(
        peaks=np.clip(np.round(peaks * 127), -127, 127).astype(np.int8),
        decibels=_decibels(power.T),
    )


def _columns(
    blocks: Iterable[np.ndarray], edges: np.ndarray
) -> Iterator[tuple[int, int, np.ndarray, int]]:
    """Columns [first, last) with the samples around them, and where these samples begin.

    A column waits for half a window beyond its end. What a file lacks or has too much of, by the
    rounding of its duration, is silence or left out.
    """
    reach = MEL.fft_samples // 2
    held, begin, first = np.zeros(reach, np.float32), -reach, 0
    for block in blocks:
        held = np.concatenate([held, block])
        ready = int(np.searchsorted(edges, begin + len(held) - reach, side="right")) - 1
        if ready > first:
            yield first, ready, held, begin
            first = ready
            spare = edges[first] - reach - begin
            held, begin = held[spare:], begin + spare
    if first < COLUMNS:
        missing = max(0, int(edges[-1]) + reach - begin - len(held))
        yield first, COLUMNS, np.pad(held, (0, missing)), begin


def _peaks(samples: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Least and greatest sample between edges; where a column has none, the next sample."""
    starts = np.minimum(edges[:-1], len(samples) - 1)
    inside = samples[: max(int(edges[-1]), int(starts[-1]) + 1)]
    least, greatest = (f.reduceat(inside, starts) for f in (np.minimum, np.maximum))
    return np.stack([least, greatest], axis=1)


def _centres(edges: np.ndarray) -> np.ndarray:
    """Where the frames (columns, frames) of columns lie: up to 4, without overlap."""
    width = (edges[-1] - edges[0]) / (len(edges) - 1)
    count = int(np.clip(width // MEL.fft_samples, 1, FRAMES_PER_COLUMN))
    share = (np.arange(count) + 0.5) / count
    centres: np.ndarray = edges[:-1, None] + share * np.diff(edges)[:, None]
    return centres.astype(np.int64)


def _mel_power(samples: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Mean power (columns, M) of the frames around `centres` (columns, frames)."""
    window, bank = _window_and_bank()
    reach = len(window) // 2
    frames = np.lib.stride_tricks.sliding_window_view(samples, len(window))
    chosen = frames[np.clip(centres - reach, 0, len(frames) - 1)] * window
    power = np.abs(np.fft.rfft(chosen, axis=-1)).astype(np.float32) ** 2
    mean: np.ndarray = (power @ bank.T).mean(axis=1)
    return mean


@lru_cache(maxsize=1)
def _window_and_bank() -> tuple[np.ndarray, np.ndarray]:
    window = np.hanning(MEL.fft_samples + 1)[:-1].astype(np.float32)
    return window, mel_bank(MEL).numpy()


def _decibels(power: np.ndarray) -> np.ndarray:
    decibels = 10 * np.log10(np.maximum(power, 1e-10))
    share = (decibels - decibels.max()) / RANGE_DECIBEL + 1
    scaled: np.ndarray = (np.clip(share, 0, 1) * 255).astype(np.uint8)
    return scaled


def grey_png(grey: np.ndarray) -> bytes:
    """A greyscale image (height, width) uint8 as PNG (https://www.w3.org/TR/png-3/)."""
    height, width = grey.shape
    # Each row is preceded by its filter; 1 is the difference to the pixel on the left.
    rows = np.diff(grey.astype(np.int16), axis=1, prepend=0).astype(np.uint8)
    filtered = np.concatenate([np.ones((height, 1), np.uint8), rows], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


class Pictures:
    """Pictures of whole files, kept in a folder by the hash of what they show.

    Beyond `limit_bytes` those are dropped that were not looked at for longest.
    """

    def __init__(self, folder: Path, limit_bytes: int = CACHE_BYTES) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        self._lock = Lock()
        self._size_bytes: int | None = None

    def of(self, path: str, sha256: str, duration_s: float) -> Picture:
        """The picture of a file, drawn at the first time.

        Raises:
            AudioError: the file cannot be read.
        """
        kept = self.folder / sha256[:2] / f"{sha256}-{VERSION}.npz"
        if found := _read(kept):
            with suppress(OSError):
                os.utime(kept)  # The order in which they are dropped.
            return found
        picture = draw(path, duration_s)
        # A folder that cannot be written, or a full disk, is no reason not to show it.
        with suppress(OSError, EarshotError):
            with atomic_write(kept) as file:
                np.savez_compressed(file, peaks=picture.peaks, decibels=picture.decibels)
            self._make_room(kept)
        return picture

    def _make_room(self, kept: Path) -> None:
        """Count a new picture, and drop old ones where it is one too many."""
        with self._lock:
            if self._size_bytes is not None:
                self._size_bytes += _times_and_size(kept)[1]
                if self._size_bytes <= self.limit_bytes:
                    return
            # By a clock that was wrong, old ones would seem to have been used just now, for ever.
            used = [(*_times_and_size(path), path) for path in self.folder.glob("*/*")]
            now_ns = time.time_ns()
            pictures = sorted((0 if at > now_ns else at, size, path) for at, size, path in used)
            size_bytes = sum(size for _, size, _ in pictures)
            if size_bytes > self.limit_bytes:
                for _, size, path in pictures:
                    if path == kept:
                        continue
                    with suppress(OSError):
                        path.unlink()
                    size_bytes -= size
                    if size_bytes <= self.limit_bytes * LEFT_SHARE:
                        break
            self._size_bytes = size_bytes


def _times_and_size(path: Path) -> tuple[int, int]:
    """When a file was used last, and its bytes; nothing where another process dropped it."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


def _read(path: Path) -> Picture | None:
    try:
        # Opened here: what NumPy opens it leaves open where the archive is damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Picture(peaks=arrays["peaks"], decibels=arrays["decibels"])
    # Not there, or damaged: drawn anew.
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile):
        return None
