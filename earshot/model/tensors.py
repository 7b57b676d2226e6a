"""What models share on their way to a network: padding, devices, hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from earshot.types import EarshotError

if TYPE_CHECKING:
    from torch import Tensor


# To be raised when decoding, resampling, segments or front-end change what a vector is.
AUDIO_VERSION = 1


def hash_of(*parts: object) -> str:
    """A hash of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def audio_hash(encoder: Any) -> str:
    """A hash of how an encoder hears, its weights apart: all its settings, and our version of it.

    A preset's name would not do: what it stands for may change between versions.
    """
    return hash_of(AUDIO_VERSION, type(encoder).__name__, asdict(encoder.config))


def padded(waveforms: Sequence[np.ndarray], device: str) -> tuple[Tensor, Tensor]:
    """N waveforms of any lengths as one batch (N, T) with zeros behind them, and lengths (N,)."""
    import torch

    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    batch = torch.zeros(len(waveforms), int(lengths.max()))
    for row, waveform in zip(batch, waveforms, strict=True):
        row[: len(waveform)] = torch.from_numpy(waveform)
    return batch.to(device), lengths.to(device)


def torch_device(name: str) -> str:
    """The device to compute on: a GPU if there is one and nothing else was asked for.

    Raises:
        EarshotError: the device asked for is not there.
    """
    import torch

    there = ["cpu"]
    there += ["cuda"] if torch.cuda.is_available() else []
    there += ["mps"] if torch.backends.mps.is_available() else []
    if name == "auto":
        return there[-1]
    if name not in there:
        raise EarshotError(f"no device {name!r} here; there is {', '.join(there)}, or say auto")
    return name
