"""Which clips are one recording: the same bytes, or the same sound in another lossless format."""

from __future__ import annotations

import numpy as np

from earshot.types import EmbeddedFile

# Another sampling rate rounds a duration by less.
SAME_DURATION_S = 0.005
# What lossless formats leave of a recording's vectors (model `tags`, 40 recordings: 0.99996 and
# more). Lossy coding leaves 0.993 to 0.9995, and so do different takes of one sound (0.99915 for
# two explosions), which must not be folded: copies in lossy formats stay hits of their own.
SAME_COSINE = 0.9995
ROUNDING = 1e-5


def are_copies(one: EmbeddedFile, other: EmbeddedFile) -> bool:
    """Whether two files hold the same recording."""
    if one.record.state.sha256 == other.record.state.sha256:
        return True
    if abs(one.record.duration_s - other.record.duration_s) > SAME_DURATION_S:
        return False
    if len(one.vectors) != len(other.vectors):
        return False
    cosines = np.einsum("sd,sd->s", one.vectors, other.vectors)
    return bool(cosines.min() >= SAME_COSINE)


class Recordings:
    """Different recordings in the order that they were met; tells which one a file is a copy of.

    Their first vectors stand together, so that a file is compared with all of them at once.
    """

    def __init__(self, most: int, dimension: int) -> None:
        self._files: list[EmbeddedFile] = []
        self._by_hash: dict[str, int] = {}
        self._first = np.empty((most, dimension), dtype=np.float32)

    def add(self, file: EmbeddedFile) -> None:
        """Keep a file as a recording of its own."""
        self._by_hash[file.record.state.sha256] = len(self._files)
        self._first[len(self._files)] = file.vectors[0]
        self._files.append(file)

    def find(self, file: EmbeddedFile) -> int | None:
        """The number of the recording that a file is a copy of, None for a new one."""
        if file.record.state.sha256 in self._by_hash:
            return self._by_hash[file.record.state.sha256]
        cosines = self._first[: len(self._files)] @ file.vectors[0]
        likely = np.flatnonzero(cosines >= SAME_COSINE - ROUNDING)
        return next((int(i) for i in likely if are_copies(self._files[i], file)), None)
