"""What the decoders share: their role, their error, the down-mix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

BLOCK_SAMPLES = 2**18  # of all channels together, hence 1 MiB
RUN_UP_S = 0.2  # decoded before the wanted start: lossy codecs and the resampler have a memory
SLACK_S = 0.1  # by which an encoder's padding may make a whole file shorter than stated


# What becomes of the channels of (T, C) float32: `mono` or `as_they_are`.
Mix = Callable[[np.ndarray], np.ndarray]


class DecodeError(Exception):
    """What a decoder said, in one line."""


class Decoder(Protocol):
    """An open file, for one pass and one thread: `seek` once, then `blocks`."""

    rate_hz: int
    channels: int
    format: str
    frames: int | None  # as stated; None where the file states none that can be trusted
    slack_frames: float  # how many fewer a whole file may have

    def seek(self, frame: int) -> int:
        """Go to `frame` or before it, and say where."""

    def blocks(self, mix: Mix = ...) -> Iterator[np.ndarray]:
        """Float32 from there to the end: what `mix` makes of (T, C)."""

    def close(self) -> None:
        """Release the file."""


def as_they_are(samples: np.ndarray) -> np.ndarray:
    """The channels of (T, C), each by itself."""
    return samples


def mono(samples: np.ndarray) -> np.ndarray:
    """The mean of the channels of (T, C), summed in one order whatever T is."""
    channels = samples.shape[1]
    if channels == 1:
        return samples[:, 0]
    with np.errstate(all="ignore"):  # infinities are found, with their time, afterwards
        total: np.ndarray = samples[:, 0] + samples[:, 1]
        for channel in range(2, channels):
            total += samples[:, channel]
        total /= np.float32(channels)
    return total
