"""Winograd's 3×3 convolution for inference on a CPU, where PyTorch computes them directly.

Lavin and Gray: "Fast algorithms for convolutional neural networks", CVPR 2016. In the algorithm
F(2×2, 3×3), 16 products per pair of channels give four outputs, instead of 36. From some hundred
channels on that outweighs the sums before and after; cuDNN does the same on a GPU by itself.

Axis legend: B batch, C channels in, O channels out, F frames, M mel bands, f and m tiles of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# More at once costs memory, eight times that of the features, and gains nothing.
TILES_AT_ONCE = 4096


def tiled_features(features: Tensor) -> Tensor:
    """Transform (B, C, F, M) to (4, 4, C, B, f, m): tiles of 4×4 that overlap by two."""
    batch, channels, frames, bands = features.shape
    rows, columns = (frames + 1) // 2, (bands + 1) // 2
    margins = (1, 1 + 2 * columns - bands, 1, 1 + 2 * rows - frames)
    padded = F.pad(features.contiguous().transpose(0, 1), margins)
    tiles = features.new_empty(4, 4, channels, batch, rows, columns)
    top, upper, lower, bottom = (padded[:, :, i : i + 2 * rows : 2] for i in range(4))
    sides = (top - lower, upper + lower, lower - upper, upper - bottom)
    for row, side in zip(tiles, sides, strict=True):
        # Written in place: a stack would copy what is the largest thing here.
        first, second, third, last = (side[..., i : i + 2 * columns : 2] for i in range(4))
        torch.sub(first, third, out=row[0])
        torch.add(second, third, out=row[1])
        torch.sub(third, second, out=row[2])
        torch.sub(second, last, out=row[3])
    return tiles


def untiled(products: Tensor) -> Tensor:
    """Transform (4, 4, O, B, f, m) to features (B, O, 2·f, 2·m)."""
    channels, batch, rows, columns = products.shape[2:]
    out = products.new_empty(channels, batch, rows, 2, columns, 2)
    both, difference = products[1] + products[2], products[1] - products[2]
    for i, side in enumerate((products[0] + both, difference - products[3])):
        torch.add(side[0] + side[1], side[2], out=out[..., i, :, 0])
        torch.sub(side[1] - side[2], side[3], out=out[..., i, :, 1])
    return out.view(channels, batch, 2 * rows, 2 * columns).transpose(0, 1)


class WinogradConvolution(nn.Module):
    """Equal, to rounding, to a 3×3 convolution of stride one with zeros around; no gradients."""

    kernels: Tensor
    bias: Tensor

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        assert convolution.kernel_size == (3, 3)
        assert convolution.padding == (1, 1)
        assert convolution.bias is not None
        weight = convolution.weight.detach()
        basis = torch.tensor([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]).to(weight) / 2
        kernels = torch.einsum("ia,ocab,jb->ijoc", basis, weight, basis)
        self.register_buffer("kernels", kernels.flatten(0, 1).contiguous())
        self.register_buffer("bias", convolution.bias.detach()[:, None, None, None])

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, F, M) to (B, O, F, M), in single precision."""
        tiles = (features.shape[2] + 1) // 2 * ((features.shape[3] + 1) // 2)
        parts = torch.split(features.float(), max(1, TILES_AT_ONCE // tiles))
        if len(parts) == 1:
            return self.convolve(parts[0])
        return torch.cat([self.convolve(part) for part in parts])

    def direct(self) -> nn.Conv2d:
        """The same convolution computed directly, for what cannot run this one: exports."""
        outputs, inputs = self.kernels.shape[1:]
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1).to(self.kernels.device)
        # Of the basis's rows the outer ones are single weights, the inner two differ by one.
        back = torch.tensor([[1, 0, 0, 0], [0, 1, -1, 0], [0, 0, 0, 1]]).to(self.kernels)
        kernels = self.kernels.view(4, 4, outputs, inputs)
        weight = torch.einsum("ai,ijoc,bj->ocab", back, kernels, back)
        convolution.load_state_dict({"weight": weight, "bias": self.bias.flatten()})
        return convolution.requires_grad_(False)

    def convolve(self, features: Tensor) -> Tensor:
        """A few clips."""
        tiles = tiled_features(features)
        with torch.autocast(features.device.type, enabled=False):
            products = torch.bmm(self.kernels, tiles.flatten(0, 1).flatten(2))
        products = products.view(4, 4, -1, *tiles.shape[3:])
        # The one product that all four outputs of a tile contain.
        products[1, 1] += self.bias
        return untiled(products)[:, :, : features.shape[2], : features.shape[3]]
