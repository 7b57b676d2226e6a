"""libsndfile: WAV and its kin, AIFF, FLAC, Ogg Vorbis and Opus, MP3; sample-exact, also in seeks.

Most of this file is about files that are cut off: libsndfile reads what is there of them and
mends their headers in silence.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from earshot.audio.decoder import BLOCK_SAMPLES, SLACK_S, DecodeError, Mix, mono
from earshot.types import AudioError

# What the log says, and nothing else does, of a chunk that is longer than the file.
MENDED_CHUNK = re.compile(
    r"^ *(?:data|SSND|riff|Riff size|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE
)
CHUNK_SLACK_BYTES = 2**12  # 23 ms of a CD; some writers count a header too much
UNSTATED_BYTES = (2**31, 2**32)  # just below these is what writers to a pipe put down
UNSTATED_FRAMES = 2**63 - 1
OGG_HEADER_BYTES = 27
OGG_SERIAL = slice(14, 18)
OGG_PAGE_BYTES = OGG_HEADER_BYTES + 255 + 255 * 255  # the largest there is
OGG_TAIL_FRAMES = 2**18  # libsndfile misplaces a seek into the last Vorbis page; none is longer
MAX_NAME_BYTES = 1000  # it refuses longer ones, though the system knows them up to 4096
UNRECOGNISED = "Format not recognised"
MP3_TAIL_BYTES = 2**13  # tags at the end, or padding


class _OnwardSoundFile(soundfile.SoundFile):  # type: ignore[misc]
    """Reads onward only: after each read the parent seeks to where it already is.

    That fails where a FLAC states no length, and hides damaged Ogg pages.
    """

    def seekable(self) -> bool:
        return False


class Libsndfile:
    """A `Decoder`. Raises `DecodeError` for what it does not know, `AudioError` for the cut off."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._source: Any = None
        self._handle = _open(_nameable(name))
        self.frames: int | None = self._handle.frames
        try:
            self._check_whole()
            self._distrust()
        except BaseException:
            self.close()
            raise
        self.rate_hz: int = self._handle.samplerate
        self.channels: int = self._handle.channels
        self.format = f"{self._handle.format}/{self._handle.subtype}"
        self.slack_frames = min(SLACK_S * self.rate_hz, (self.frames or 0) / 10)

    def _check_whole(self) -> None:
        if self._handle.format == "OGG":
            _check_ogg(self._name)
        for stated, found in MENDED_CHUNK.findall(self._handle.extra_info):
            if _is_cut_off(int(stated), int(found)):
                what = f"header says {stated} bytes, {found} are there"
                raise AudioError(self._name, f"truncated: {what}")

    def _distrust(self) -> None:
        """Forget lengths that no header states."""
        if self._handle.frames == UNSTATED_FRAMES:  # a FLAC that was written to a pipe
            self.frames = None
        if self._handle.format == "MP3" and not _mp3_states_length(self._name):
            # libsndfile guesses from the first bit rates, and stops where it guessed.
            if importlib.util.find_spec("av"):
                raise DecodeError("MP3 without a length header")
            self.frames = None
            self._handle.close()
            self._source = Path(self._name).open("rb")  # noqa: SIM115 - open as long as the handle
            self._handle = _open(self._source)

    def seek(self, frame: int) -> int:
        """Go to `frame`, or before it where the codec cannot be trusted there."""
        last = self._handle.frames
        if self._handle.format == "OGG":
            last -= OGG_TAIL_FRAMES
        if min(frame, last) <= 0:
            return 0
        try:
            return int(self._handle.seek(min(frame, last)))
        except soundfile.LibsndfileError as error:
            raise DecodeError(_reason(error)) from error

    def blocks(self, mix: Mix = mono) -> Iterator[np.ndarray]:
        """See `Decoder.blocks`; at most BLOCK_SAMPLES decoded at a time."""
        size = max(1, BLOCK_SAMPLES // self.channels)
        try:
            while len(samples := self._handle.read(size, dtype="float32", always_2d=True)):
                yield mix(samples)
        except soundfile.LibsndfileError as error:
            raise DecodeError(_reason(error)) from error
        if self._source and len(self._source.read(MP3_TAIL_BYTES)) == MP3_TAIL_BYTES:
            raise DecodeError("an MP3 without a length header needs pip install 'earshot[media]'")

    def close(self) -> None:
        """Release the file."""
        self._handle.close()
        if self._source:
            self._source.close()


def _nameable(name: str) -> Any:
    """What libsndfile opens: bytes, as names need not be text; a descriptor, which it closes."""
    if sys.platform == "win32":  # It has only text.
        return name
    encoded = os.fsencode(name)
    return encoded if len(encoded) < MAX_NAME_BYTES else os.open(encoded, os.O_RDONLY)


def _open(file: Any) -> _OnwardSoundFile:
    try:
        return _OnwardSoundFile(file)
    except soundfile.LibsndfileError as error:
        raise DecodeError(_reason(error)) from error
    except TypeError as error:  # headerless formats, which soundfile knows by their suffix
        raise DecodeError("no header") from error


def _reason(error: Any) -> str:
    reason = str(error.error_string).removeprefix("Error : ").strip().rstrip(".")
    # What it says of noise that begins like an MP3. That the file exists is known by then.
    return UNRECOGNISED if reason.startswith("File does not exist") else reason


def _is_cut_off(stated_bytes: int, found_bytes: int) -> bool:
    if any(abs(stated_bytes - unstated) <= 2**13 for unstated in UNSTATED_BYTES):
        return False
    return stated_bytes - found_bytes > min(CHUNK_SLACK_BYTES, stated_bytes / 10)


def _mp3_states_length(name: str) -> bool:
    """Whether the first frame, behind an ID3v2 tag, is a Xing, LAME or VBRI header."""
    with Path(name).open("rb") as file:
        tag = file.read(10)
        tag_bytes = 0
        if tag.startswith(b"ID3") and len(tag) == 10:
            for byte in tag[6:]:  # seven bits each
                tag_bytes = tag_bytes << 7 | byte & 0x7F
            tag_bytes += 10
        file.seek(tag_bytes)
        head = file.read(64)
    # Behind anything else, mpg123 looks for a later frame and does not see this one.
    synchronous = len(head) > 1 and head[0] == 0xFF and head[1] >= 0xE0
    return synchronous and any(word in head for word in (b"Xing", b"Info", b"VBRI"))


def _check_ogg(name: str) -> None:
    """Look at the last page, which libsndfile passes over if it is cut or of a second stream."""
    with Path(name).open("rb") as file:
        first = file.read(OGG_HEADER_BYTES)
        file.seek(max(0, file.seek(0, os.SEEK_END) - OGG_PAGE_BYTES))
        tail = file.read()
    last = tail[tail.rfind(b"OggS") :]
    segments = last[26] if len(last) >= OGG_HEADER_BYTES else 0
    header_bytes = OGG_HEADER_BYTES + segments
    if len(last) < header_bytes + sum(last[OGG_HEADER_BYTES:header_bytes]):
        raise AudioError(name, "truncated: the last Ogg page is cut off")
    if last[OGG_SERIAL] != first[OGG_SERIAL]:
        raise DecodeError("a chain of several Ogg streams")
