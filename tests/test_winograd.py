"""Winograd's convolution equals the direct one."""

import pytest
import torch
from torch import nn

from earshot.encoders import winograd
from earshot.encoders.winograd import WinogradConvolution


@pytest.mark.parametrize(("frames", "bands"), [(1, 1), (2, 2), (7, 4), (10, 5), (33, 8)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@torch.inference_mode()
def test_equals_direct_convolution(
    frames: int, bands: int, memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    direct = nn.Conv2d(5, 3, 3, padding=1)
    features = torch.randn(3, 5, frames, bands).contiguous(memory_format=memory_format)
    for at_once in (1, winograd.TILES_AT_ONCE):
        monkeypatch.setattr(winograd, "TILES_AT_ONCE", at_once)
        got = WinogradConvolution(direct)(features)
        assert got.shape == (3, 3, frames, bands)
        assert torch.allclose(got, direct(features), atol=1e-5)


@torch.inference_mode()
def test_the_direct_form_comes_back() -> None:
    torch.manual_seed(0)
    direct = nn.Conv2d(5, 3, 3, padding=1)
    again = WinogradConvolution(direct).direct()
    assert torch.allclose(again.weight, direct.weight, atol=1e-6)
    assert torch.equal(again.bias, direct.bias)
    assert torch.allclose(again(torch.ones(1, 5, 4, 7)), direct(torch.ones(1, 5, 4, 7)), atol=1e-5)


@torch.inference_mode()
def test_stays_in_single_precision() -> None:
    """Its sums of tiles would lose too much in half precision."""
    direct = nn.Conv2d(16, 16, 3, padding=1)
    ours = WinogradConvolution(direct)
    features = torch.randn(1, 16, 9, 8)
    with torch.autocast("cpu", torch.bfloat16):
        got = ours(features)
    assert got.dtype == torch.float32
    assert torch.allclose(got, direct(features), atol=1e-5)
