"""The optimiser of a recipe: four groups of weights, each with its rate at every step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from earshot.model.dual import DualEncoder
from earshot.schedules import Plateau, has_settled, learning_rate
from earshot.train.recipe import OptimizerConfig, ScheduleConfig
from earshot.types import EarshotError


def build_optimizer(network: DualEncoder, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Adam or AdamW over what learns; each group keeps its peak rate as `peak`.

    Raises:
        EarshotError: nothing in the network learns.
    """
    audio = [*network.audio.parameters()]
    parts = {
        "audio_encoder": audio,
        "audio_head": [*network.audio_head.parameters(), network.tau],
        "text_encoder": [*network.text.parameters()],
        "text_head": [*network.text_head.parameters()],
    }
    groups = []
    for name, weights in parts.items():
        learning = [weight for weight in weights if weight.requires_grad]
        peak = config.rate * float(getattr(config, name))
        if learning and peak > 0:
            groups.append({"params": learning, "lr": peak, "peak": peak, "name": name})
        else:
            for weight in learning:
                weight.requires_grad_(False)
    if not groups:
        raise EarshotError("nothing learns: both towers are frozen and no head has weights")
    if config.kind == "adam":
        return torch.optim.Adam(groups, weight_decay=config.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)


class Rates:
    """The rate of each step, and when to stop; what it has seen is in `losses`."""

    def __init__(self, config: ScheduleConfig, steps_per_epoch: int) -> None:
        self.config, self.steps_per_epoch = config, steps_per_epoch
        self.losses: list[float] = []
        self.plateau = Plateau(config.plateau())

    def of(self, peak: float, step: int) -> float:
        """The rate of a step for weights with that highest rate."""
        config = self.config
        if config.kind == "constant":
            return peak
        if config.kind == "plateau":
            return self.plateau.learning_rate(peak)
        return learning_rate(step, self.steps_per_epoch, config.ramp(peak), peak)

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        """Set the groups' rates for a step; returns the highest."""
        rates = [self.of(group["peak"], step) for group in optimizer.param_groups]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        return max(rates)

    def epoch_ended(self, loss: float) -> bool:
        """Take note of a validation loss; whether training has settled."""
        self.losses.append(loss)
        self.plateau.observe(loss)
        config = self.config
        return config.stop_std is not None and has_settled(
            self.losses, config.stop_epochs, config.stop_std, config.stop_after
        )

    def restore(self, losses: Sequence[float]) -> None:
        """See again what was seen before an interruption."""
        for loss in losses:
            self.losses.append(loss)
            self.plateau.observe(loss)
