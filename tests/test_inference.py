"""What `prepared` makes of a network is the same, only faster; what it copies stays as it is."""

from collections.abc import Callable

import pytest
import torch
from test_encoders import assert_close, build, noises
from torch import nn

from earshot.encoders.catalogue import FAMILIES
from earshot.encoders.winograd import WinogradConvolution
from earshot.frontends.spectrum import clip_by_clip
from earshot.model.inference import prepared, prepared_copy

# What golden files of encoders allow is this or more.
WITHIN = 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prepared_network_is_the_plain_one(family: str) -> None:
    """Inside of another network, too; and the plain one keeps its weights and gradients."""
    plain = build(family).train()
    learned = [weight.requires_grad for weight in plain.parameters()]
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    fast = prepared_copy(nn.ModuleList([plain]), "cpu")[0]
    assert plain.training
    assert [weight.requires_grad for weight in plain.parameters()] == learned
    assert not any(weight.requires_grad for weight in fast.parameters())
    after = plain.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    clips = noises(plain)
    with torch.inference_mode():
        expected, got = plain.eval()(*clips), fast(*clips)
    assert_close(got.embedding, expected.embedding, WITHIN)
    if expected.logits is not None:
        assert_close(got.logits, expected.logits, WITHIN)


@pytest.mark.parametrize("family", ["cnn14", "efficientat"])
def test_norms_become_part_of_convolutions(family: str) -> None:
    network = build(family)
    norms = sum(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    assert norms > 1
    left = [part for part in prepared(network, "cpu").modules() if isinstance(part, nn.BatchNorm2d)]
    # CNN14's first one has no convolution before it.
    assert len(left) == (1 if family == "cnn14" else 0)


def test_wide_convolutions_are_winograds() -> None:
    fast = prepared(build("cnn14", channels=(4, 4, 8, 256, 256, 16)), "cpu")
    assert sum(isinstance(part, WinogradConvolution) for part in fast.modules()) == 4


@pytest.mark.parametrize("count", [1, 3])
def test_features_of_clips_one_by_one_are_those_of_the_batch(count: int) -> None:
    def loudness(signals: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        sizes.append(len(signals))
        return signals.square().cumsum(1) / lengths[:, None]

    sizes: list[int] = []
    signals, lengths = torch.randn(count, 50), torch.arange(50, 50 - count, -1)
    apart = clip_by_clip(loudness, signals, lengths)
    assert sizes == [1] * count
    assert torch.equal(apart, loudness(signals, lengths))


def test_a_compiled_front_end_takes_the_batch_whole() -> None:
    """A graph must not depend on the number of clips."""
    torch._dynamo.reset()
    sizes: list[int] = []

    def whole(features: Callable[..., torch.Tensor]) -> torch.Tensor:
        return clip_by_clip(features, torch.ones(3, 5), torch.tensor([5, 4, 3]))

    def features(signals: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        sizes.append(len(signals))
        return signals * lengths[:, None]

    torch.compile(whole, backend="eager")(features)
    assert sizes == [3]
