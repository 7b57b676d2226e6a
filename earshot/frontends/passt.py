"""The front-end of PaSST and EfficientAT: pre-emphasis, Kaldi's mel filters, logarithm.

Frames are centred, so the edges are reflections of the clip itself, never of its padding.

Axis legend: B batch, T samples, M mel bands, F frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from earshot.frontends.kaldi import kaldi_mel_bank
from earshot.frontends.spectrum import clip_by_clip, power_spectrum
from earshot.types import EarshotError

FloatOrTensor = TypeVar("FloatOrTensor", float, Tensor)


@dataclass(frozen=True, kw_only=True)
class LogMelConfig:
    """Log-mel of PaSST and EfficientAT (Koutini et al. 2022, Schmid et al. 2023).

    While training the filters' outer edges move with each batch: the lower one up by as much as
    `fmin_jitter_hz`, the upper one within `fmax_jitter_hz` around `fmax_hz`. In evaluation they
    stay, the upper one in the middle of its range, hence 15 kHz and not 16. Zero switches it off.
    """

    sample_rate_hz: int = 32_000
    mel_bands: int = 128
    fft_samples: int = 1024
    window_samples: int = 800
    hop_samples: int = 320
    fmin_hz: float = 0.0
    fmax_hz: float = 15_000.0
    fmin_jitter_hz: float = 10.0
    fmax_jitter_hz: float = 2_000.0
    preemphasis: float = 0.97
    log_offset: float = 1e-5

    def __post_init__(self) -> None:
        highest_hz = self.fmax_hz + self.fmax_jitter_hz / 2
        if highest_hz > self.sample_rate_hz / 2:
            raise EarshotError(
                f"mel bands would reach {highest_hz:g} Hz at {self.sample_rate_hz} Hz: fmax_hz + "
                "fmax_jitter_hz / 2 must be at most half the sample rate"
            )


def unpadded(lengths: Tensor, width: int) -> bool:
    """Whether every clip fills its row, so that a shortcut may be taken.

    A compiled graph must not ask its data: there the answer is no, which is right for any batch.
    """
    return not torch.compiler.is_compiling() and bool((lengths == width).all())


def reflect_pad(signals: Tensor, lengths: Tensor, pad: int) -> Tensor:
    """Mirror each signal (B, T) of its own valid length at both of its ends: (B, T + 2·pad).

    Every length must exceed `pad`. What follows a shorter signal's mirrored end is unspecified.
    """
    if unpadded(lengths, signals.shape[1]):
        return F.pad(signals, (pad, pad), mode="reflect")
    position = torch.arange(-pad, signals.shape[1] + pad, device=signals.device).abs()
    last = (lengths - 1)[:, None]
    mirrored = last - (position[None, :] - last).abs()
    return signals.gather(1, mirrored.clamp_min(0))


def normalised(log_mel: FloatOrTensor) -> FloatOrTensor:
    """AudioSet's log-mels brought to about zero mean and a range of one."""
    return (log_mel + 4.5) / 5.0


class LogMel(nn.Module):
    """Waveforms (B, T) with valid lengths (B,) to normalised log-mels (B, M, F) and frames (B,)."""

    window: Tensor
    mel_bank: Tensor

    def __init__(self, config: LogMelConfig) -> None:
        super().__init__()
        self.config = config
        window = torch.hann_window(config.window_samples, periodic=False)
        bank = kaldi_mel_bank(
            config.mel_bands,
            config.fft_samples,
            config.sample_rate_hz,
            config.fmin_hz,
            config.fmax_hz,
        )
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("mel_bank", bank, persistent=False)

    @property
    def min_samples(self) -> int:
        """The shortest clip whose edges can be mirrored; shorter ones are padded by the caller."""
        return self.config.fft_samples // 2 + 2

    @property
    def silence(self) -> float:
        """The feature of digital silence, in every band."""
        return normalised(math.log(self.config.log_offset))

    def frames(self, samples: Tensor) -> Tensor:
        """The number of frames of a clip: 1 + (samples - 1) // hop."""
        return 1 + (samples - 1) // self.config.hop_samples

    def filters(self) -> Tensor:
        """The mel filters (M, bins); while training with edges drawn for the batch, on the CPU."""
        config = self.config
        if not self.training or not (config.fmin_jitter_hz or config.fmax_jitter_hz):
            return self.mel_bank
        low, high = torch.rand(2, dtype=torch.float64, device="cpu")
        bank = kaldi_mel_bank(
            config.mel_bands,
            config.fft_samples,
            config.sample_rate_hz,
            config.fmin_hz + config.fmin_jitter_hz * low,
            config.fmax_hz + config.fmax_jitter_hz * (high - 0.5),
        )
        return bank.to(self.mel_bank.device)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the features; always in single precision, as the logarithm needs it."""
        filters = self.filters()

        def log_mel(waveforms: Tensor, lengths: Tensor) -> Tensor:
            return torch.log(filters @ self.power(waveforms, lengths) + self.config.log_offset)

        with torch.autocast(waveforms.device.type, enabled=False):
            log_mels = clip_by_clip(log_mel, waveforms, lengths)
        return normalised(log_mels), self.frames(lengths)

    def power(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """The power spectra (B, bins, F) of what the pre-emphasis leaves."""
        config = self.config
        # The reference filters without history: one sample fewer comes out.
        signal = waveforms[:, 1:].float() - config.preemphasis * waveforms[:, :-1].float()
        signal = reflect_pad(signal, lengths - 1, config.fft_samples // 2)
        return power_spectrum(
            signal, self.window, fft_samples=config.fft_samples, hop_samples=config.hop_samples
        )
