"""Features of a batch on a CPU: one clip after another.

Axis legend: B batch, T samples.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def clip_by_clip(
    features: Callable[[Tensor, Tensor], Tensor], signals: Tensor, lengths: Tensor
) -> Tensor:
    """Features (B, …) of signals (B, T) of (B,) valid samples, on a CPU computed one by one.

    What eight clips of ten seconds take in between is so large (32 MB and more) that the allocator
    gets it from the system each time and gives it back, and the system's zeroing of the pages costs
    more than the features: 16 to 18 ms a clip of 10 s instead of 6 to 8.
    """
    # Compiled graphs first: to ask one for its batch would make a constant of it.
    if torch.compiler.is_compiling() or signals.device.type != "cpu" or len(signals) == 1:
        return features(signals, lengths)
    clips = range(len(signals))
    return torch.cat([features(signals[i : i + 1], lengths[i : i + 1]) for i in clips])
