"""Segments to one vector: the published rules, and that padding never matters."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import Golden
from test_heads import golden_layer
from torch import nn
from torch._dynamo.testing import CompileCounter

from earshot.encoders.aggregate import (
    TINY,
    SegmentTransformer,
    SegmentTransformerConfig,
    mean_over_valid,
    sinusoids,
    within_duration,
)
from earshot.encoders.heads import ProjectionConfig, ProjectionHead
from earshot.types import EarshotError

RATE_HZ = 16_000
VALID = torch.tensor([[True, True, True], [True, False, False], [True, True, False]])


def build(**changes: object) -> SegmentTransformer:
    torch.manual_seed(4)
    return SegmentTransformer(replace(TINY, **changes)).eval()


def segments() -> torch.Tensor:
    return torch.randn(3, 3, TINY.in_dimension, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
@pytest.mark.parametrize(
    ("count", "name"), [(3, "audio_embedding"), (1, "audio_embedding_when_only_one_segment")]
)
def test_dcase2025(count: int, name: str) -> None:
    golden = Golden("pipelines/dcase2025_aggregate")
    embeddings = torch.from_numpy(golden.arrays["segment_embeddings"])[:, :count]
    lengths = torch.from_numpy(np.rint(golden.arrays["duration"] * RATE_HZ).astype(np.int64))
    given = torch.ones(embeddings.shape[:2], dtype=torch.bool)
    head = ProjectionHead(ProjectionConfig(in_dimension=768, out_dimension=1024)).eval()
    seed = golden.facts["facts"]["weight_seed"]
    head.load_public(golden_layer(seed, "audio_projection", 1024))
    averaged = mean_over_valid(embeddings, within_duration(given, lengths, RATE_HZ))
    golden.check(head(averaged), name)


@pytest.mark.parametrize("rate_hz", [16_000, 32_000, 44_100])
def test_durations_count_samples(rate_hz: int) -> None:
    ten, twenty = 10 * rate_hz, 20 * rate_hz
    lengths = torch.tensor([1, ten, ten + 1, twenty, twenty + 1, 4 * ten])
    used = within_duration(torch.ones(6, 4, dtype=torch.bool), lengths, rate_hz)
    assert used.sum(1).tolist() == [1, 1, 2, 2, 4, 4]


def test_twenty_seconds_are_two_segments() -> None:
    """The winner's code counts three, a matter of single precision."""
    published = math.ceil(torch.tensor(20 / 30, dtype=torch.float32).item() * 3)
    assert published == 3
    lengths = torch.tensor([20 * RATE_HZ])
    assert within_duration(torch.ones(1, 3, dtype=torch.bool), lengths, RATE_HZ).sum() == 2


def test_padded_segments_are_never_averaged() -> None:
    valid = torch.tensor([[True, True, True, False]])
    used = within_duration(valid, torch.tensor([25 * RATE_HZ]), RATE_HZ)
    assert torch.equal(used, valid)


def test_mean_over_valid() -> None:
    x = segments().half()
    x[1, 1:], x[2, 2] = torch.nan, torch.inf
    mean = mean_over_valid(x, VALID)
    assert mean.dtype == torch.float32
    for row, count in enumerate((3, 1, 2)):
        assert torch.allclose(mean[row], x[row, :count].float().mean(0), atol=1e-6)


def test_sums_larger_than_half_precision() -> None:
    large = torch.full((1, 4, 2), 60_000.0, dtype=torch.float16)
    assert mean_over_valid(large, torch.ones(1, 4, dtype=torch.bool)).tolist() == [[60_000.0] * 2]


def published_transformer(
    ours: SegmentTransformer, embeddings: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """The published computation, from torch's own layers."""
    config = ours.config
    x = ours.audio_output_projection(embeddings)
    token = ours.audio_token.expand(len(x), -1, -1) + x.mean(1, keepdim=True)
    position = np.arange(x.shape[1])[:, None]
    rate = np.exp(np.arange(0, config.dimension, 2) * -(math.log(10000.0) / config.dimension))
    table = np.zeros((x.shape[1], config.dimension))
    table[:, 0::2], table[:, 1::2] = np.sin(position * rate), np.cos(position * rate)
    x = torch.cat([token, x + ours.posencode.w * torch.from_numpy(table).float()], 1)
    padding = ~torch.nn.functional.pad(valid, (1, 0), value=True)
    for block in ours.audio_sequence:
        layer = nn.TransformerEncoderLayer(
            config.dimension,
            config.heads,
            config.feed_forward_dimension,
            activation=torch.nn.functional.gelu,
            batch_first=True,
            norm_first=config.norm_first,
        )
        layer.load_state_dict(block.state_dict())
        x = layer.eval()(x, src_key_padding_mask=padding)
    return x[:, 0]


@torch.no_grad()
@pytest.mark.parametrize("norm_first", [True, False])
def test_transformer_is_the_published_one(norm_first: bool) -> None:
    ours = build(norm_first=norm_first)
    ours.posencode.w.fill_(0.7)
    full = torch.ones_like(VALID)
    expected = published_transformer(ours, segments(), full)
    assert torch.allclose(ours(segments(), full), expected, atol=1e-5)
    # Of padded clips the published token starts from a mean that includes the padding.
    difference = ours(segments(), VALID) - published_transformer(ours, segments(), VALID)
    assert difference[0].abs().max() < 1e-5
    assert difference[1].abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"first_token": False}, {"unit_length_input": True}])
def test_padding_does_not_matter(changes: dict[str, bool]) -> None:
    ours, x = build(**changes), segments()
    together = ours(x, VALID)
    dirty = x.masked_fill(~VALID[..., None], torch.nan)
    assert torch.allclose(ours(dirty, VALID), together, atol=1e-6)
    for row, count in enumerate((3, 1, 2)):
        alone = ours(x[row : row + 1, :count], torch.ones(1, count, dtype=torch.bool))
        assert torch.allclose(alone[0], together[row], atol=1e-5)


@torch.no_grad()
def test_order_matters() -> None:
    full = torch.ones_like(VALID)
    ours = build()
    assert not torch.allclose(ours(segments(), full), ours(segments().flip(1), full), atol=1e-3)


def test_checkpointed_gradients_reach_every_weight() -> None:
    gradients = []
    for checkpointing in (False, True):
        ours = build(gradient_checkpointing=checkpointing).train()
        torch.manual_seed(5)
        ours(segments(), VALID).square().sum().backward()
        assert all(weight.grad is not None for weight in ours.parameters())
        gradients.append([weight.grad for weight in ours.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert torch.allclose(plain, checkpointed, atol=1e-5)


def test_half_precision_is_close() -> None:
    ours = build()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        half = ours(segments(), VALID)
    exact = ours(segments(), VALID)
    assert half.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(exact, half).min() > 0.99


@torch.no_grad()
def test_compiles_without_graph_breaks() -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    ours = build()
    compiled = torch.compile(ours, fullgraph=True, backend=counter)
    for count in (2, 3, 4, 5, 6):
        x, valid = torch.randn(2, count, 24), torch.ones(2, count, dtype=torch.bool)
        assert torch.allclose(compiled(x, valid), ours(x, valid), atol=1e-5)
    assert counter.frame_count <= 2


def test_public_names() -> None:
    """A checkpoint of the winner also keeps a loss's temperature and its fixed positions."""
    ours, other = build(), SegmentTransformer(TINY).eval()
    state = dict(ours.state_dict())
    layer = nn.TransformerEncoderLayer(32, 4, 48, batch_first=True)
    names = {
        "audio_token",
        "posencode.w",
        *(f"audio_output_projection.{n}" for n in ("weight", "bias")),
    }
    names |= {f"audio_sequence.{i}.{name}" for i in range(2) for name in layer.state_dict()}
    assert state.keys() == names
    extra = {
        "timing_tau": torch.zeros(1),
        "posencode.pe": sinusoids(192, 32, torch.device("cpu"))[None],
    }
    other.load_public(state | extra)
    assert torch.equal(other(segments(), VALID), ours(segments(), VALID))
    assert "audio_output_projection.weight" not in build(in_dimension=32).state_dict()
    with pytest.raises(EarshotError, match=r"2 layers: audio_token is missing"):
        other.load_public({"posencode.w": torch.ones(1)})


def test_impossible_sizes() -> None:
    with pytest.raises(EarshotError, match="needs a layer"):
        SegmentTransformerConfig(layers=0)
    with pytest.raises(EarshotError, match="even dimension for each head"):
        SegmentTransformerConfig(dimension=100, heads=12)
