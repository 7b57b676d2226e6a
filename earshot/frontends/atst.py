"""The front-end of ATST-Frame: decibels on 64 mel bands, brought to about [-1, 1].

As the published code has it (audiossl, methods/atstframe/embedding.py; with the floor at -50 dB in
the code of SALSA and of DCASE's task 4), built there from torchaudio: power spectrum, HTK's mel
scale with triangles of height one, and at most 80 dB below the clip's loudest value.

Frames are centred, so the edges are reflections of the clip itself, never of its padding.

Axis legend: B batch, T samples, M mel bands, F frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from earshot.frontends.passt import reflect_pad
from earshot.frontends.spectrum import power_spectrum


@dataclass(frozen=True, kw_only=True)
class AtstMelConfig:
    """Log-mel of ATST-Frame. The self-supervised training had no `floor_db` (-inf)."""

    sample_rate_hz: int = 16_000
    mel_bands: int = 64
    fft_samples: int = 1024
    hop_samples: int = 160
    fmin_hz: float = 60.0
    fmax_hz: float = 7_800.0
    power_floor: float = 1e-10
    range_db: float = 80.0
    floor_db: float = -50.0
    ceiling_db: float = 80.0
    lowest_db: float = -79.6482
    highest_db: float = 50.6842


def htk_mel_bank(config: AtstMelConfig) -> Tensor:
    """Triangles of height one, linear in Hz between points that are equidistant in mel.

    (M, fft_samples // 2 + 1); mel is HTK's 2595·log10(1 + f/700).
    """

    def mel(frequency_hz: Tensor) -> Tensor:
        return 2595.0 * torch.log10(1.0 + frequency_hz / 700.0)

    edges = mel(torch.tensor([config.fmin_hz, config.fmax_hz], dtype=torch.float64))
    steps = torch.arange(config.mel_bands + 2, dtype=torch.float64) / (config.mel_bands + 1)
    points = 700.0 * (10.0 ** ((edges[0] + (edges[1] - edges[0]) * steps) / 2595.0) - 1.0)
    bins = torch.arange(config.fft_samples // 2 + 1, dtype=torch.float64)
    bins_hz = bins * config.sample_rate_hz / config.fft_samples
    rising = (bins_hz - points[:-2, None]) / (points[1:-1] - points[:-2])[:, None]
    falling = (points[2:, None] - bins_hz) / (points[2:] - points[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp_min(0.0).float()


class AtstMel(nn.Module):
    """Waveforms (B, T) with valid lengths (B,) to features (B, M, F) and valid frames (B,)."""

    window: Tensor
    mel_bank: Tensor

    def __init__(self, config: AtstMelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("window", torch.hann_window(config.fft_samples), persistent=False)
        self.register_buffer("mel_bank", htk_mel_bank(config), persistent=False)

    @property
    def min_samples(self) -> int:
        """The shortest clip whose edges can be mirrored; shorter ones get silence up to there."""
        return self.config.fft_samples // 2 + 1

    def frames(self, samples: Tensor) -> Tensor:
        """The number of frames of a clip: 1 + samples // hop."""
        return 1 + samples // self.config.hop_samples

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the features; always in single precision, as the logarithm needs it."""
        config = self.config
        with torch.autocast(waveforms.device.type, enabled=False):
            signal = F.pad(waveforms.float(), (0, max(0, self.min_samples - waveforms.shape[1])))
            beyond = torch.arange(signal.shape[1], device=signal.device) >= lengths[:, None]
            lengths = lengths.clamp_min(self.min_samples)
            signal = reflect_pad(signal.masked_fill(beyond, 0.0), lengths, config.fft_samples // 2)
            power = power_spectrum(
                signal, self.window, fft_samples=config.fft_samples, hop_samples=config.hop_samples
            )
            mel = (self.mel_bank @ power).clamp_min(config.power_floor)
            frames = self.frames(lengths)
            return self.scaled(10.0 * torch.log10(mel), frames), frames

    def scaled(self, decibels: Tensor, frames: Tensor) -> Tensor:
        """Cut decibels (B, M, F) at both ends, the lower one by each clip's loudest value."""
        config = self.config
        beyond = torch.arange(decibels.shape[2], device=decibels.device) >= frames[:, None]
        valid = decibels.masked_fill(beyond[:, None], -torch.inf)
        least = valid.amax((1, 2), keepdim=True) - config.range_db
        decibels = torch.maximum(decibels, least).clamp(config.floor_db, config.ceiling_db)
        span = config.highest_db - config.lowest_db
        return (decibels - config.lowest_db) / span * 2.0 - 1.0
