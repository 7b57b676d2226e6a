"""A complete audio encoder of one's own, the mean spectrum in mel bands, projected.

As a file in `earshot/encoders/` with a line in `FAMILIES` it can be trained, indexed and searched
with; `docs/encoders.md` says what more there is, such as loading published weights.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from earshot.frontends.mel import MelConfig, MelSpectrogram
from earshot.types import Encoded


@dataclass(frozen=True, kw_only=True)
class BandsConfig:
    """Every number of the network."""

    dimension: int = 32
    front_end: MelConfig = MelConfig()
    gradient_checkpointing: bool = False  # So little is held that there is nothing to save.


class Bands(nn.Module):
    """A recording is how loud each band is on average."""

    segment_s: float | None = 10.0

    def __init__(self, config: BandsConfig) -> None:
        super().__init__()
        self.config, self.dimension = config, config.dimension
        self.sample_rate_hz = config.front_end.sample_rate_hz
        self.front_end = MelSpectrogram(config.front_end)
        self.project = nn.Linear(config.front_end.mel_bands, config.dimension)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Encoded:
        """Encode (B, T) with (B,) valid samples."""
        mels, frames = self.front_end(waveforms, lengths)  # (B, F, M) in decibel, (B,)
        valid = torch.arange(mels.shape[1], device=mels.device) < frames[:, None]
        mean = mels.mul(valid[..., None]).sum(1) / frames[:, None]
        return Encoded(embedding=self.project(mean / 50))


if __name__ == "__main__":
    encoder = Bands(BandsConfig())
    clips = torch.randn(2, encoder.sample_rate_hz)
    print(encoder(clips, torch.tensor([32_000, 16_000])).embedding.shape)
