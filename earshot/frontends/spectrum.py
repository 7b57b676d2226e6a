"""What all front-ends begin with: power spectra, and on a CPU one clip after another.

Axis legend: B batch, T samples, K bins of a spectrum, F frames.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def power_spectrum(
    signals: Tensor, window: Tensor, *, fft_samples: int, hop_samples: int, centred: bool = False
) -> Tensor:
    """Power spectra (B, K, F) of signals (B, T); `centred` frames reflect the signals' ends."""
    spectrum = torch.stft(
        signals, fft_samples, hop_samples, len(window), window, centred, return_complex=True
    )
    # Several times faster than abs().square(), and without its square root.
    return spectrum.real.square() + spectrum.imag.square()


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
