"""One vector for a recording of several segments: their mean, or a Transformer over them.

The DCASE 2025 baseline averages the segments that a clip's duration reaches into. The 2024
winner (Primus et al., "Estimated audio-caption correspondences improve language-based audio
retrieval", 2024) averages those that hold audio, or by option reads them with a Transformer whose
class token becomes the clip's vector. Module names follow its checkpoints.

Axis legend: B clips, S segments, D dimension, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from earshot.encoders.loading import load_own
from earshot.types import EarshotError

SEGMENT_S = 10
# Kept in checkpoints of the 2024 winner, and not needed: a temperature of a loss, fixed positions.
UNUSED = ("timing_tau", "posencode.pe")


def mean_over_valid(embeddings: Tensor, valid: Tensor) -> Tensor:
    """Average (B, S, D) over the S where (B, S) is true: (B, D) float32.

    What the other segments hold does not matter, not even if it is not finite.
    """
    summed = embeddings.float().masked_fill(~valid[..., None], 0.0).sum(1)
    return summed / valid.sum(1, keepdim=True).clamp_min(1)


def within_duration(valid: Tensor, lengths: Tensor, sample_rate_hz: int) -> Tensor:
    """Which segments (B, S) of 10 s DCASE 2025 averages, of clips of (B,) samples.

    Up to 10 s the first, up to 20 s two, else all that are valid. Samples are counted: in seconds
    of single precision a clip of exactly 20 s had three.
    """
    segment = SEGMENT_S * sample_rate_hz
    two, more = lengths > segment, lengths > 2 * segment
    everywhere = torch.full_like(lengths, valid.shape[1])
    count = torch.where(more, everywhere, 1 + two.to(lengths.dtype))
    return valid & (torch.arange(valid.shape[1], device=valid.device) < count[:, None])


@dataclass(frozen=True, kw_only=True)
class SegmentTransformerConfig:
    """A Transformer over segments; the defaults are the winner's options.

    `token_from_mean` adds the mean of the segments to the class token. Without `first_token` the
    result is the mean of the class token and all segments behind the last layer.
    """

    in_dimension: int = 768
    dimension: int = 768
    layers: int = 1
    heads: int = 12
    feed_forward_dimension: int = 2048
    dropout: float = 0.1
    norm_first: bool = True
    position_weight: float = 1.0
    token_from_mean: bool = True
    first_token: bool = True
    unit_length_input: bool = False
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.layers < 1 or self.dimension % (2 * self.heads):
            raise EarshotError(
                f"a segment Transformer of {self.layers} layers, {self.dimension} dimensions and "
                f"{self.heads} heads: it needs a layer, and an even dimension for each head"
            )


TINY = SegmentTransformerConfig(
    in_dimension=24, dimension=32, layers=2, heads=4, feed_forward_dimension=48
)


def sinusoids(length: int, dimension: int, device: torch.device) -> Tensor:
    """Fixed positions (length, D): sine and cosine alternate (Vaswani et al. 2017, sec. 3.5)."""
    step = -math.log(10_000.0) / dimension
    rates = torch.exp(torch.arange(0, dimension, 2, device=device, dtype=torch.float32) * step)
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class Positions(nn.Module):
    """Adds fixed sinusoidal positions with one learned weight."""

    def __init__(self, config: SegmentTransformerConfig) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((1,), config.position_weight))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, segments: Tensor) -> Tensor:
        """(B, S, D), each segment marked with its place."""
        places = sinusoids(segments.shape[1], segments.shape[2], segments.device)
        marked: Tensor = self.dropout(segments + self.w * places)
        return marked


class SelfAttention(nn.Module):
    """Attention of segments to the valid ones among them; weights as in nn.MultiheadAttention."""

    def __init__(self, config: SegmentTransformerConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * config.dimension, config.dimension))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * config.dimension))
        self.out_proj = nn.Linear(config.dimension, config.dimension)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, segments: Tensor, valid: Tensor) -> Tensor:
        """(B, S, D) mixed over the S where (B, S) is true."""
        projected = F.linear(segments, self.in_proj_weight, self.in_proj_bias)
        split = projected.reshape(*projected.shape[:2], 3, self.heads, -1)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind()
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, valid[:, None, None], dropout)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """A Transformer encoder layer with GELU; names as in nn.TransformerEncoderLayer."""

    def __init__(self, config: SegmentTransformerConfig) -> None:
        super().__init__()
        self.norm_first = config.norm_first
        self.self_attn = SelfAttention(config)
        self.linear1 = nn.Linear(config.dimension, config.feed_forward_dimension)
        self.linear2 = nn.Linear(config.feed_forward_dimension, config.dimension)
        self.norm1, self.norm2 = nn.LayerNorm(config.dimension), nn.LayerNorm(config.dimension)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, segments: Tensor, valid: Tensor) -> Tensor:
        """(B, S, D) to (B, S, D)."""
        if self.norm_first:
            segments = segments + self.dropout(self.self_attn(self.norm1(segments), valid))
            return segments + self.changed(self.norm2(segments))
        segments = self.norm1(segments + self.dropout(self.self_attn(segments, valid)))
        normed: Tensor = self.norm2(segments + self.changed(segments))
        return normed

    def changed(self, segments: Tensor) -> Tensor:
        """The feed-forward part."""
        hidden = self.dropout(F.gelu(self.linear1(segments)))
        out: Tensor = self.dropout(self.linear2(hidden))
        return out


class SegmentTransformer(nn.Module):
    """Segments of a clip, or steps of a sequence, to one vector.

    Padded segments matter nowhere; in the published code the class token starts from a mean that
    includes them.
    """

    def __init__(self, config: SegmentTransformerConfig) -> None:
        super().__init__()
        self.config, self.dimension = config, config.dimension
        same = config.in_dimension == config.dimension
        self.audio_output_projection = (
            nn.Identity() if same else nn.Linear(config.in_dimension, config.dimension)
        )
        self.posencode = Positions(config)
        self.audio_token = nn.Parameter(torch.randn(1, 1, config.dimension) * 0.04)
        self.audio_sequence = nn.ModuleList(Block(config) for _ in range(config.layers))

    def forward(self, embeddings: Tensor, valid: Tensor) -> Tensor:
        """(B, S, D) with valid (B, S) to (B, D') float32."""
        embeddings = embeddings.masked_fill(~valid[..., None], 0.0)
        segments = self.audio_output_projection(embeddings)
        if self.config.unit_length_input:
            segments = F.normalize(segments.float(), dim=-1)
        token = self.audio_token.expand(segments.shape[0], -1, -1)
        if self.config.token_from_mean:
            token = token + mean_over_valid(segments, valid)[:, None]
        segments = torch.cat([token, self.posencode(segments)], dim=1)
        heard = F.pad(valid, (1, 0), value=True)
        for block in self.audio_sequence:
            if self.config.gradient_checkpointing and self.training:
                segments = checkpoint(block, segments, heard, use_reentrant=False)
            else:
                segments = block(segments, heard)
        return (
            segments[:, 0].float() if self.config.first_token else mean_over_valid(segments, heard)
        )

    def load_public(self, state: Mapping[str, Tensor]) -> None:
        """Load from the state dict of a checkpoint of the 2024 winner, its other parts left out.

        Raises:
            EarshotError: the names or shapes are not those of this network.
        """
        own = {key: value for key, value in state.items() if key not in UNUSED}
        what = (
            f"a Transformer over segments of {self.config.dimension} dimensions and "
            f"{self.config.layers} layers"
        )
        load_own(self, own, what, state)
