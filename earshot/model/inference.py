"""Networks for inference alone, in the form that is fastest and exact: one place for all models.

What is done was chosen by `benchmarks/cpu_inference.py`; docs/inference.md has its table. It is a
fixed rule, as each part of it wins in every setting that was measured, so that nothing has to be
measured where it runs: batch norms become part of their convolutions, those of MobileNet get their
activations and channels-last memory, CNN14's wide ones are Winograd's on a CPU. Transformers stay
as they are: nine tenths of their time are products of matrices, at the speed that a core has.
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
