"""FFmpeg through PyAV (the extra `media`): M4A, AAC, WebM, MP4 and MOV, WMA.

It knows the other formats too, but seeks in them less exactly than libsndfile, and takes a cut-off
file for a whole one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from earshot.audio.decoder import BLOCK_SAMPLES, RUN_UP_S, SLACK_S, DecodeError, Mix, mono
from earshot.types import AudioError

# Media only: playlists and scripts, which name other files and addresses, stay shut.
FFMPEG_FORMATS = "mov,matroska,asf,aac,mp3,ogg,flac,wav,aiff,caf"
# Where libsndfile, asked first, refused plain samples, the file is damaged.
PCM_FORMATS = frozenset({"wav", "aiff", "caf"})
STREAM_STATES_DURATION = PCM_FORMATS | {"mov", "flac"}
CONTAINER_STATES_DURATION = frozenset({"matroska", "asf"})
# WMA states its size, which FFmpeg passes over: ASF specification, 3.2 File Properties Object.
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ASF_SIZE, ASF_FLAGS = slice(40, 48), slice(88, 92)
ASF_BROADCAST = 1  # by whom it was written as it came, and who did not know the size
ASF_HEADER_BYTES = 2**16
CONTAINER_SLACK_S = 1.0  # their durations round, and count what the codec then drops


def open_ffmpeg(name: str) -> Ffmpeg:
    """Open the best audio stream of a file.

    Raises:
        AudioError: for media without sound.
        DecodeError: for what FFmpeg does not know.
    """
    import av

    with ExitStack() as on_failure:
        try:
            # The scheme keeps a name from being read as an address.
            container = av.open(
                f"file:{Path(name).absolute()}",
                options={"format_whitelist": FFMPEG_FORMATS, "protocol_whitelist": "file"},
                metadata_errors="replace",
            )
            on_failure.callback(container.close)
            stream = container.streams.best("audio")
            codec = stream.codec_context if stream else None
            if _kind(container) in PCM_FORMATS and (not codec or codec.name.startswith("pcm")):
                raise DecodeError("malformed header")
            if stream is None:
                raise AudioError(name, "no audio stream")
            if _kind(container) == "asf":
                _check_asf(name)
            if codec is None:
                raise DecodeError("unknown codec")
            first = next(container.decode(stream), None)
        except av.FFmpegError as error:
            raise DecodeError(_reason(error)) from error
        if first is None:
            raise AudioError(name, "no audio samples")
        on_failure.pop_all()
        return Ffmpeg(container, stream, first, av.FFmpegError)


class Ffmpeg:
    """A `Decoder` of one stream, whose first frame is already decoded."""

    def __init__(self, container: Any, stream: Any, first: Any, error: type[Exception]) -> None:
        self._container, self._stream, self._first, self._error = container, stream, first, error
        # The frame tells, not the header, which gives half the rate of HE-AAC.
        self.rate_hz: int = first.sample_rate
        self.channels: int = first.layout.nb_channels
        self._kind = _kind(container)
        self.format = f"{self._kind}/{stream.codec_context.name}"
        self.frames, self.slack_frames = self._stated()
        self._position = 0
        self._upcoming: Iterator[Any] = chain([first], container.decode(stream))

    def _stated(self) -> tuple[int | None, float]:
        """Frames and slack. Raw AAC and MP3 state nothing: FFmpeg guesses from the bit rate."""
        if self._kind in STREAM_STATES_DURATION and self._stream.duration:
            frames = round(self._stream.duration * self._stream.time_base * self.rate_hz)
            return frames, min(SLACK_S * self.rate_hz, frames / 10)
        # A container's duration is that of its longest stream, which may be the picture.
        alone = len(self._container.streams) == 1
        if self._kind in CONTAINER_STATES_DURATION and alone and self._container.duration:
            frames = round(Fraction(self._container.duration, 1_000_000) * self.rate_hz)
            return frames, CONTAINER_SLACK_S * self.rate_hz
        return None, 0.0

    def seek(self, frame: int) -> int:
        """Go somewhat before `frame`, as exactly as the time stamps are."""
        early_s = frame / self.rate_hz - RUN_UP_S
        if early_s <= 0 or self._first.pts is None:
            return 0
        step_s = self._stream.time_base
        try:
            target = self._first.pts + math.floor(early_s / step_s)
            self._container.seek(target, stream=self._stream)
            frames = self._container.decode(self._stream)
            landed = next(frames, None)
        except self._error as error:
            raise DecodeError(_reason(error)) from error
        self._upcoming = iter(())
        self._position = frame
        if landed is not None:
            self._upcoming = chain([landed], frames)
            self._position = round((landed.pts - self._first.pts) * step_s * self.rate_hz)
        return self._position

    def blocks(self, mix: Mix = mono) -> Iterator[np.ndarray]:
        """See `Decoder.blocks`; frames of a few milliseconds joined to about BLOCK_SAMPLES."""
        pieces: list[np.ndarray] = []
        gathered = 0
        for piece in self._trimmed(mix):
            pieces.append(piece)
            gathered += len(piece)
            if gathered * self.channels >= BLOCK_SAMPLES:
                yield np.concatenate(pieces)
                pieces, gathered = [], 0
        if pieces:
            yield np.concatenate(pieces)

    def _trimmed(self, mix: Mix) -> Iterator[np.ndarray]:
        """Mixed frames; the last one without the padding that the encoder filled it with."""
        held: np.ndarray | None = None
        for frame in self._frames():
            if held is not None:
                yield held
                self._position += len(held)
            held = mix(_samples(frame))
        if held is not None:
            keep = (self.frames or 0) - self._position if self._kind == "mov" else 0
            yield held[:keep] if keep > 0 else held

    def _frames(self) -> Iterator[Any]:
        try:
            for frame in self._upcoming:
                if frame.sample_rate != self.rate_hz:
                    raise DecodeError(f"its rate changes to {frame.sample_rate} Hz")
                if frame.samples:
                    yield frame
        except self._error as error:
            raise DecodeError(_reason(error)) from error

    def close(self) -> None:
        """Release the file."""
        self._container.close()


def _kind(container: Any) -> str:
    return str(container.format.name).split(",")[0]


def _check_asf(name: str) -> None:
    with Path(name).open("rb") as file:
        header = file.read(ASF_HEADER_BYTES)
        found_bytes = file.seek(0, os.SEEK_END)
    properties = header[header.find(ASF_PROPERTIES) :] if ASF_PROPERTIES in header else b""
    stated_bytes = int.from_bytes(properties[ASF_SIZE], "little")
    broadcast = int.from_bytes(properties[ASF_FLAGS], "little") & ASF_BROADCAST
    if not broadcast and stated_bytes > found_bytes:
        what = f"header says {stated_bytes} bytes, {found_bytes} are there"
        raise AudioError(name, f"truncated: {what}")


def _samples(frame: Any) -> np.ndarray:
    """One decoded frame as (T, C) float32 in [-1, 1]."""
    array: np.ndarray = frame.to_ndarray()
    array = array.T if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels)
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    full_scale = np.float32(2.0 ** (8 * array.itemsize - 1))
    samples = array.astype(np.float32) / full_scale
    return samples - np.float32(1) if array.dtype.kind == "u" else samples


def _reason(error: Any) -> str:
    return str(error.strerror or error).splitlines()[0]
