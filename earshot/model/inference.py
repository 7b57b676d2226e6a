"""Networks for inference alone, in the form that is fastest and exact: one place for all models.

One idea: a fixed rule, so that nothing has to be measured where it runs. Batch norms become part of
their convolutions; MobileNet's get their activations and channels-last memory (1.2 to 1.4 times as
fast, `benchmarks/cpu_inference.py`), CNN14's wide ones are Winograd's on a CPU (1.67 times,
`benchmarks/encoders.py`). Transformers stay as they are: nine tenths of their time are products of
matrices. docs/inference.md has the table, and what was tried and left out.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, TypeVar

from earshot.model.tensors import torch_device

if TYPE_CHECKING:
    from torch import nn

Network = TypeVar("Network", bound="nn.Module")


def prepared(network: Network, device: str) -> Network:
    """A network that will not be trained or saved any more, changed in place, on its device.

    Its outputs stay equal to rounding, in single precision.

    Raises:
        EarshotError: the device asked for is not there.
    """
    from earshot.encoders.cnn14 import CNN14
    from earshot.encoders.mobilenet import MobileNet

    device = torch_device(device)
    network.eval().requires_grad_(False)
    for part in list(network.modules()):
        if isinstance(part, CNN14):
            part.fold_norms(winograd=device == "cpu")
        elif isinstance(part, MobileNet):
            part.fold_norms()
    return network.to(device)


def prepared_copy(network: Network, device: str) -> Network:
    """The same of a network that will be trained or saved, which stays as it is."""
    return prepared(deepcopy(network), device)
