"""The front-end of CLAP: a clip repeated up to ten seconds, in decibels on 64 mel bands.

One idea: the network hears ten seconds always. A shorter clip is repeated as often as it fits
whole, and silence fills the rest ("repeatpad"), so every clip has the same number of frames.

Wu et al.: "Large-scale contrastive language-audio pretraining with feature fusion and
keyword-to-caption augmentation", ICASSP 2023. Equal to transformers' ClapFeatureExtractor, which
computes in double precision; so is the transform here, as decibels far below the loudest need it.

Axis legend: B batch, T samples, M mel bands, F frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from earshot.frontends.spectrum import power_spectrum
from earshot.types import EarshotError


@dataclass(frozen=True, kw_only=True)
class ClapMelConfig:
    """Log-mel of CLAP.

    The variants without fusion were trained on Slaney's filters of unit area (librosa's), those
    with fusion on plain triangles on the HTK scale (torchaudio's).
    """

    sample_rate_hz: int = 48_000
    clip_s: float = 10.0
    mel_bands: int = 64
    fft_samples: int = 1024
    hop_samples: int = 480
    fmin_hz: float = 0.0
    fmax_hz: float = 14_000.0
    slaney: bool = True
    power_floor: float = 1e-10

    @property
    def clip_samples(self) -> int:
        """What every clip is filled up to."""
        return round(self.clip_s * self.sample_rate_hz)


def repeated(waveforms: Tensor, lengths: Tensor, samples: int) -> Tensor:
    """Repeat clips (B, T) of (B,) samples as often as they fit whole, then silence: (B, samples).

    A clip of no samples is silence.

    Raises:
        EarshotError: waveforms longer than that.
    """
    if waveforms.shape[1] > samples:
        raise EarshotError(
            f"{waveforms.shape[1]} samples are too long for an encoder that hears {samples} at a "
            f"time; cut them with earshot.encoders.segments.encode_segments"
        )
    if not torch.compiler.is_compiling() and bool((lengths == samples).all()):
        return waveforms
    waveforms = torch.nn.functional.pad(waveforms, (0, int(waveforms.shape[1] == 0)))
    length = lengths.clamp_min(1)[:, None]
    position = torch.arange(samples, device=waveforms.device)
    filled = waveforms.gather(1, position % length)
    whole = torch.full_like(length, samples) // length * length
    silent = (position >= whole) | (lengths == 0)[:, None]
    return filled.masked_fill(silent, 0.0)


class ClapMel(nn.Module):
    """Waveforms (B, T) with valid lengths (B,) to decibels (B, F, M), F the same for all."""

    window: Tensor
    mel_bank: Tensor

    def __init__(self, config: ClapMelConfig) -> None:
        from transformers.audio_utils import mel_filter_bank

        super().__init__()
        self.config = config
        bank = mel_filter_bank(
            num_frequency_bins=config.fft_samples // 2 + 1,
            num_mel_filters=config.mel_bands,
            min_frequency=config.fmin_hz,
            max_frequency=config.fmax_hz,
            sampling_rate=config.sample_rate_hz,
            norm="slaney" if config.slaney else None,
            mel_scale="slaney" if config.slaney else "htk",
        )
        window = torch.hann_window(config.fft_samples, dtype=torch.float64)
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("mel_bank", torch.from_numpy(bank.T).float(), persistent=False)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Compute the features.

        Raises:
            EarshotError: waveforms longer than `clip_s`.
        """
        config = self.config
        with torch.autocast(waveforms.device.type, enabled=False):
            signal = repeated(waveforms.float(), lengths, config.clip_samples)
            # Apple's GPUs have no double precision; below -80 dB they are 0.05 dB off.
            exact = torch.float32 if signal.device.type == "mps" else torch.float64
            window = self.window.to(exact)
            power = power_spectrum(
                signal.to(exact),
                window,
                fft_samples=config.fft_samples,
                hop_samples=config.hop_samples,
                centred=True,
            ).float()
            mel = (self.mel_bank @ power).clamp_min(config.power_floor)
            return 10.0 * torch.log10(mel).transpose(1, 2)
