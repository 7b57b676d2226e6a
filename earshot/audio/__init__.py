"""Any audio file in, mono float32 out: probe it, read a part, stream it, cut it into segments.

The one idea: a file is a stream of blocks. Every block is down-mixed by the mean of its channels
(unless all are wanted, for the ear), checked and resampled (soxr HQ) on its way, the same
everywhere, so that vectors are stable, an hour needs no more memory than a second, and nothing is
ever allocated because a header says so.

libsndfile decodes what it can; FFmpeg (PyAV, the extra `media`, imported only when it is needed)
decodes the rest. A file that is not whole is an `AudioError`, never a shorter clip.
"""

from __future__ import annotations

import importlib.util
import math
import os
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import soxr

from earshot.audio.decoder import (
    BLOCK_SAMPLES,
    RUN_UP_S,
    DecodeError,
    Decoder,
    Mix,
    as_they_are,
    mono,
)
from earshot.audio.ffmpeg import open_ffmpeg
from earshot.audio.libsndfile import UNRECOGNISED, Libsndfile
from earshot.types import AudioError, Segment

AUDIO_SUFFIXES = (
    frozenset({".wav", ".wave", ".bwf", ".rf64", ".w64", ".aif", ".aiff", ".aifc", ".caf", ".au"})
    | {".snd", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".m4b", ".aac", ".wma"}
    | {".mp4", ".m4v", ".mov", ".webm", ".mka", ".mkv"}
)
END_TOLERANCE_S = 0.005  # a remainder that rounding and encoders leave is no segment of its own
MAX_AMPLITUDE = 2.0**32  # int32 stored as float passes; above it power spectra leave float32
# What a byte may stand for: digital silence has 27 bytes a second in FLAC, 50 in Opus, and nothing
# else has less than 60. Beyond that a few bytes would keep an index busy for days.
MIN_BYTES_PER_S = 16
SPARSE_S = 600.0  # in which it does not matter
# All that is made of a recording is kept until its end; silence of 100 MB would last for weeks.
MAX_DURATION_S = 48 * 3600.0
MAX_RATIO = 2**8  # soxr holds 800 samples' worth of what it makes: of 1 Hz that were 100 MB
MEDIA_HINT = "M4A, WebM, MP4 and WMA need: pip install 'earshot[media]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioInfo:
    """What a file holds, at its own rate. `format` is container/codec."""

    sample_rate_hz: int
    channels: int
    duration_s: float
    format: str


def probe(path: str | os.PathLike[str]) -> AudioInfo:
    """Describe a file from its header; one that states no length is decoded to measure it.

    Raises:
        AudioError: for what cannot be audio; damage beyond the header shows only on reading.
    """
    name = os.fspath(path)
    with _opened(name) as decoder:
        frames = decoder.frames
        if frames is None:
            frames = sum(map(len, _checked_blocks(decoder, name, 0, None)))
        if not frames:
            raise AudioError(name, "no audio samples")
        return AudioInfo(
            sample_rate_hz=decoder.rate_hz,
            channels=decoder.channels,
            duration_s=frames / decoder.rate_hz,
            format=decoder.format,
        )


def read(
    path: str | os.PathLike[str],
    *,
    sample_rate_hz: int,
    start_s: float = 0.0,
    duration_s: float | None = None,
) -> np.ndarray:
    """Read a file, or the part of it from `start_s` on, as mono (T,) float32.

    A part equals the same slice of the whole to the resampler's rounding (1e-6), except in AAC,
    whose noise is drawn at random, and where time stamps are coarse: in WebM and WMA it may be
    shifted by their step of 1 ms. T is smaller than asked where the file ends.

    Raises:
        AudioError: for a file that is not whole, not audio or silent about `start_s`.
        ValueError: for a rate, a start or a duration that is none.
    """
    blocks = stream(path, sample_rate_hz=sample_rate_hz, start_s=start_s, duration_s=duration_s)
    pieces = list(blocks)
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def stream(
    path: str | os.PathLike[str],
    *,
    sample_rate_hz: int,
    start_s: float = 0.0,
    duration_s: float | None = None,
    all_channels: bool = False,
) -> Iterator[np.ndarray]:
    """Like `read`, in blocks of any length (≥ 1) that make up the same samples, in constant memory.

    With `all_channels` they are (T, C) instead of mono (T,). A damaged file raises where the damage
    is reached: what came before it is then not to be kept.
    """
    if sample_rate_hz < 1:
        raise ValueError(f"sample_rate_hz is {sample_rate_hz}; it must be 1 or more")
    if not (start_s >= 0 and math.isfinite(start_s)):
        raise ValueError(f"start_s is {start_s}; it must be 0 or more")
    if duration_s is not None and not (duration_s > 0 and math.isfinite(duration_s)):
        raise ValueError(f"duration_s is {duration_s}; it must be more than 0, or None for all")
    first = round(start_s * sample_rate_hz)
    count = None if duration_s is None else max(1, round(duration_s * sample_rate_hz))
    mix = as_they_are if all_channels else mono
    return _stream(os.fspath(path), sample_rate_hz, first, count, mix)


def segments(
    path: str | os.PathLike[str], *, sample_rate_hz: int, segment_s: float, hop_s: float
) -> Iterator[tuple[Segment, np.ndarray]]:
    """Cut a file into segments of one length, in constant memory.

    They start at 0, hop_s, 2·hop_s, … The last one is drawn back to end with the clip, so that all
    samples are covered and no segment is a scrap; a shorter clip is one segment of its own length.
    The last `end_s` is the clip's duration (a remainder below END_TOLERANCE_S only lengthens it).

    Yields:
        The segment and its waveform (T,) float32, T = segment_s · sample_rate_hz or the whole clip.

    Raises:
        AudioError: as `stream`, where the damage is reached.
        ValueError: for lengths that are none, and a hop that would leave gaps.
    """
    length, hop = round(segment_s * sample_rate_hz), round(hop_s * sample_rate_hz)
    if not 0 < hop <= length:
        raise ValueError(
            f"segment_s is {segment_s} and hop_s is {hop_s}; 0 < hop_s <= segment_s must hold"
        )
    return _cut(stream(path, sample_rate_hz=sample_rate_hz), sample_rate_hz, length, hop)


def _cut(
    blocks: Iterator[np.ndarray], rate_hz: int, length: int, hop: int
) -> Iterator[tuple[Segment, np.ndarray]]:
    tolerance = round(END_TOLERANCE_S * rate_hz)
    tail = np.zeros(0, np.float32)
    base = start = 0  # of `tail` and of the next segment, in samples

    def cut(first: int, end: int) -> tuple[Segment, np.ndarray]:
        span = Segment(start_s=first / rate_hz, end_s=end / rate_hz)
        return span, tail[first - base : first - base + length]

    for block in blocks:
        tail = np.concatenate([tail, block]) if len(tail) else block
        # The tolerance is waited for: only then is it certain that this is not the last segment.
        while start + length + tolerance < base + len(tail):
            yield cut(start, start + length)
            start += hop
        # A last segment that is drawn back reaches behind the next start.
        surplus = min(start, base + len(tail) - length) - base
        if surplus > 0:
            tail, base = tail[surplus:], base + surplus
    total = base + len(tail)
    if start + length <= total:
        yield cut(start, total)  # within the tolerance of the grid
    else:
        yield cut(max(0, total - length), total)


def _stream(
    name: str, rate_hz: int, first: int, count: int | None, mix: Mix = mono
) -> Iterator[np.ndarray]:
    """Samples [first, first + count) at `rate_hz`."""
    produced = False
    with _opened(name) as decoder:
        # Starting where both rates have a sample keeps the resampler's phase, hence its values.
        grid = decoder.rate_hz // math.gcd(decoder.rate_hz, rate_hz)
        begin = max(0, first * decoder.rate_hz // rate_hz - math.ceil(RUN_UP_S * decoder.rate_hz))
        begin -= begin % grid
        skip, end = first - begin * rate_hz // decoder.rate_hz, None
        if count is not None:
            end = math.ceil(((first + count) / rate_hz + RUN_UP_S) * decoder.rate_hz)
        blocks = _checked_blocks(decoder, name, begin, end, mix)
        for block in _resampled(blocks, decoder.rate_hz, rate_hz):
            wanted = block[skip : None if count is None else skip + count]
            skip = max(0, skip - len(block))
            if len(wanted):
                yield wanted
                produced = True
            if count is not None and not (count := count - len(wanted)):
                return
    if not produced:
        where = f" at {first / rate_hz:g} s: the file ends before" if first else ""
        raise AudioError(name, f"no audio samples{where}")


def _resampled(blocks: Iterator[np.ndarray], from_hz: int, to_hz: int) -> Iterator[np.ndarray]:
    if from_hz == to_hz:
        yield from blocks
        return
    if to_hz > MAX_RATIO * from_hz:
        blocks, from_hz = _resampled(blocks, from_hz, MAX_RATIO * from_hz), MAX_RATIO * from_hz
    # At a rate of 1 Hz a block would become gigabytes: what comes out is capped too.
    step = max(1, BLOCK_SAMPLES * from_hz // to_hz)
    pieces = (block[i : i + step] for block in blocks for i in range(0, len(block), step))
    held = next(pieces, None)
    following = next(pieces, None)
    if held is None:
        return
    if following is None:  # one call is quicker than a stream of one chunk, and equal to it
        whole = soxr.resample(held, from_hz, to_hz, quality="HQ")
        # A clip shorter than half a sample at the new rate is one sample still.
        yield whole if len(whole) else held.mean(axis=0, keepdims=True)
        return
    channels = 1 if held.ndim == 1 else held.shape[1]
    resampler = soxr.ResampleStream(from_hz, to_hz, channels, dtype="float32", quality="HQ")
    for piece in chain([following], pieces):
        yield resampler.resample_chunk(held)
        held = piece
    yield resampler.resample_chunk(held, last=True)


def _checked_blocks(
    decoder: Decoder, name: str, start: int, end: int | None, mix: Mix = mono
) -> Iterator[np.ndarray]:
    """Frames [start, end), or to the file's end, which must not come before what is stated."""
    position, rate_hz = 0, decoder.rate_hz
    size_bytes = _usable_size_bytes(name)
    longest = _longest_s(size_bytes) * rate_hz
    try:
        position = decoder.seek(start)
        for block in decoder.blocks(mix):
            _check_values(block, name, position, rate_hz)
            first, position = position, position + len(block)
            if position > longest:
                reason = f"damaged: more than {position // rate_hz} s in {size_bytes} bytes"
                raise AudioError(name, reason)
            _require_bearable(name, position / rate_hz)
            wanted = block[max(0, start - first) : None if end is None else end - first]
            if len(wanted):
                yield wanted
            if end is not None and position >= end:
                return
    except DecodeError as error:
        reason = f"damaged or truncated: decoding failed after {position / rate_hz:.1f} s: {error}"
        raise AudioError(name, reason) from error
    if decoder.frames is not None and position < decoder.frames - decoder.slack_frames:
        stated_s, found_s = decoder.frames / rate_hz, position / rate_hz
        reason = f"truncated: header says {stated_s:.1f} s, {found_s:.1f} s decoded"
        raise AudioError(name, reason)


def _check_values(block: np.ndarray, name: str, position: int, rate_hz: int) -> None:
    # In two passes without a temporary; NaN makes either comparison false.
    if block.max() <= MAX_AMPLITUDE and block.min() >= -MAX_AMPLITUDE:
        return
    values = block.reshape(len(block), -1)
    index, channel = divmod(int(np.argmin(np.abs(values) <= MAX_AMPLITUDE)), values.shape[1])
    value, what = values[index, channel], "not a finite number"
    if np.isfinite(value):
        what = f"absurd sample value {value:.3g}"
    raise AudioError(name, f"{what} at {(position + index) / rate_hz:.2f} s")


@contextmanager
def _opened(name: str) -> Iterator[Decoder]:
    """A decoder for this caller alone: two threads cannot share a handle of libsndfile."""
    size_bytes = _usable_size_bytes(name)
    with closing(_decoder(name)) as decoder:
        stated_s = (decoder.frames or 0) / decoder.rate_hz
        if stated_s > _longest_s(size_bytes):
            raise AudioError(name, f"damaged: header says {stated_s:.0f} s in {size_bytes} bytes")
        _require_bearable(name, stated_s)
        yield decoder


def _require_bearable(name: str, duration_s: float) -> None:
    if duration_s > MAX_DURATION_S:
        raise AudioError(
            name, f"lasts longer than {MAX_DURATION_S / 3600:g} hours; cut it into parts"
        )


def _longest_s(size_bytes: int) -> float:
    return SPARSE_S + size_bytes / MIN_BYTES_PER_S


def _usable_size_bytes(name: str) -> int:
    """Look before opening: to open a pipe would be to wait for its writer."""
    if "://" in name:
        raise AudioError(name, "lies in an object store; only an index run fetches it")
    try:
        status = Path(name).stat()
        if stat.S_ISREG(status.st_mode):
            Path(name).open("rb").close()  # what the decoders say of permissions is no help
    except OSError as error:
        raise AudioError(name, (error.strerror or str(error)).lower()) from error
    except ValueError as error:  # a zero byte in the name
        raise AudioError(name, f"not a file name: {error}") from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(name, "is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(name, "not a regular file")
    if not status.st_size:
        raise AudioError(name, "empty file (0 bytes)")
    return status.st_size


def _decoder(name: str) -> Decoder:
    try:
        return Libsndfile(name)
    except DecodeError as error:
        refusal = error
    if importlib.util.find_spec("av") is None:
        reason = f"not audio that libsndfile knows ({refusal}); {MEDIA_HINT}"
        raise AudioError(name, reason) from refusal
    try:
        return open_ffmpeg(name)
    except DecodeError as error:
        reason = str(error if str(refusal) == UNRECOGNISED else refusal)
        raise AudioError(name, f"not audio, or damaged: {reason}") from error
