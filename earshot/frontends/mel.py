"""Log-mel spectrograms as librosa defines them: the front-ends of PANNs and of DCASE 2023.

Frames are centred: at its edges a clip meets its own reflection or silence, never its padding.

Axis legend: B batch, T samples, F frames, M mel bands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from earshot.frontends.passt import reflect_pad, unpadded
from earshot.frontends.spectrum import clip_by_clip, power_spectrum
from earshot.types import EarshotError

MelScale = Literal["slaney", "htk"]


@dataclass(frozen=True, kw_only=True)
class MelConfig:
    """Power spectrum, triangular filters of equal area, logarithm; by default PANNs'.

    `fmax_hz` None is half the sample rate. The logarithm of a power x is 10·log10(max(x, floor))
    in decibel, ln(x + floor) if natural. Times are in seconds: the samples follow the rate.
    """

    sample_rate_hz: int = 32_000
    window_s: float = 0.032
    hop_s: float = 0.01
    mel_bands: int = 64
    fmin_hz: float = 50.0
    fmax_hz: float | None = 14_000.0
    mel_scale: MelScale = "slaney"
    edges: Literal["reflection", "silence"] = "reflection"
    logarithm: Literal["decibel", "natural"] = "decibel"
    floor: float = 1e-10

    def __post_init__(self) -> None:
        if not 0 <= self.fmin_hz < self.top_hz <= self.sample_rate_hz / 2:
            raise EarshotError(
                f"mel bands from {self.fmin_hz} to {self.top_hz} Hz at {self.sample_rate_hz} Hz; "
                "they must lie between 0 and half the sample rate"
            )

    @property
    def top_hz(self) -> float:
        """The upper edge of the highest band."""
        return self.sample_rate_hz / 2 if self.fmax_hz is None else self.fmax_hz

    @property
    def window_samples(self) -> int:
        """The length of the analysis window."""
        return round(self.window_s * self.sample_rate_hz)

    @property
    def hop_samples(self) -> int:
        """The distance of frames."""
        return round(self.hop_s * self.sample_rate_hz)

    @property
    def fft_samples(self) -> int:
        """The length of the transform: the power of two that holds the window."""
        return 1 << (self.window_samples - 1).bit_length()


PANNS = MelConfig()
DCASE2023 = MelConfig(
    sample_rate_hz=44_100,
    window_s=0.04,
    hop_s=0.02,
    fmin_hz=0.0,
    fmax_hz=None,
    edges="silence",
    logarithm="natural",
    floor=2.220446049250313e-16,
)


def mel_of(frequency_hz: Tensor, scale: MelScale) -> Tensor:
    """Hertz to mel: HTK's formula, or Slaney's, linear up to 1 kHz (its mel 15)."""
    if scale == "htk":
        return 2595.0 * torch.log10(1.0 + frequency_hz / 700.0)
    above = 15.0 + 27.0 * torch.log(frequency_hz.clamp_min(1000.0) / 1000.0) / math.log(6.4)
    return torch.where(frequency_hz < 1000.0, frequency_hz * 3.0 / 200.0, above)


def hertz_of(mel: Tensor, scale: MelScale) -> Tensor:
    """Mel to hertz, the inverse of `mel_of`."""
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    above = 1000.0 * torch.exp((mel.clamp_min(15.0) - 15.0) * math.log(6.4) / 27.0)
    return torch.where(mel < 15.0, mel * 200.0 / 3.0, above)


def mel_bank(config: MelConfig) -> Tensor:
    """Triangular filters on the power spectrum, linear in hertz: (M, fft_samples // 2 + 1).

    All have the same area (Slaney's normalisation), whatever the scale that places them.
    """
    # On the processor also where a network is planned on the meta device: it is a constant.
    with torch.device("cpu"):
        limits_hz = torch.tensor([config.fmin_hz, config.top_hz], dtype=torch.float64)
        low, high = mel_of(limits_hz, config.mel_scale)
        share = torch.linspace(0, 1, config.mel_bands + 2, dtype=torch.float64)
        edges_hz = hertz_of(low + (high - low) * share, config.mel_scale)[:, None]
        left, centre, right = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
        bins = torch.arange(config.fft_samples // 2 + 1, dtype=torch.float64)
        bins_hz = bins * config.sample_rate_hz / config.fft_samples
        rising, falling = (bins_hz - left) / (centre - left), (right - bins_hz) / (right - centre)
        triangles = torch.minimum(rising, falling).clamp_min(0.0)
        return (triangles * 2.0 / (right - left)).float()


class MelSpectrogram(nn.Module):
    """Waveforms (B, T) with valid lengths (B,) to log-mels (B, F, M) and valid frames (B,).

    A clip of less than `min_frames`, or too short to be reflected, counts as followed by silence.
    """

    window: Tensor
    bank: Tensor

    def __init__(self, config: MelConfig, min_frames: int = 1) -> None:
        super().__init__()
        self.config = config
        self.min_samples = (min_frames - 1) * config.hop_samples
        if config.edges == "reflection":
            self.min_samples = max(self.min_samples, config.fft_samples // 2 + 1)
        window = torch.hann_window(config.window_samples, periodic=True)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("bank", mel_bank(config), persistent=False)

    def frames(self, samples: Tensor) -> Tensor:
        """The number of frames of a clip: 1 + samples // hop."""
        return 1 + samples // self.config.hop_samples

    def with_edges(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The clips with half a window beyond both of their ends, and their lengths without."""
        pad = self.config.fft_samples // 2
        width = waveforms.shape[1]
        if not unpadded(lengths, width):
            beyond = torch.arange(width, device=waveforms.device) >= lengths[:, None]
            waveforms = waveforms.masked_fill(beyond, 0.0)
        waveforms = F.pad(waveforms, (0, max(0, self.min_samples - width)))
        lengths = lengths.clamp_min(self.min_samples)
        if self.config.edges == "silence":
            return F.pad(waveforms, (pad, pad)), lengths
        return reflect_pad(waveforms, lengths, pad), lengths

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the features; always in single precision, as the logarithm needs it."""
        with torch.autocast(waveforms.device.type, enabled=False):
            signal, lengths = self.with_edges(waveforms.float(), lengths)
            return clip_by_clip(self.log_mel, signal, lengths), self.frames(lengths)

    def log_mel(self, signal: Tensor, lengths: Tensor) -> Tensor:
        """The features of clips with edges."""
        config = self.config
        power = power_spectrum(
            signal, self.window, fft_samples=config.fft_samples, hop_samples=config.hop_samples
        )
        mel = power.transpose(1, 2) @ self.bank.T
        if config.logarithm == "decibel":
            return 10.0 * torch.log10(mel.clamp_min(config.floor))
        return torch.log(mel + config.floor)
