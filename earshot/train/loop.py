"""The one training loop, for every recipe, with and without teachers.

Fabric owns devices, precision and processes; what is random in a step follows from the seed, the
number of the step and the process alone, so that a run that was interrupted goes on as if it had
not been.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from earshot.batches import Pairs, loader
from earshot.batches.control_c import control_c_deferred, on_control_c
from earshot.model.dual import DualEncoder
from earshot.train.hearing import Heard
from earshot.train.objective import Teachers, build_objective, supervised_objective
from earshot.train.optimise import Rates, build_optimizer
from earshot.train.recipe import Recipe
from earshot.train.run import RunFolder
from earshot.train.step import add_over_processes, backward
from earshot.train.validate import Validation, validate
from earshot.types import Dataset, EarshotError, NotANumberError

# Between looks at the losses: each makes the processor wait for a GPU.
READ_STEPS = 10


class DivergedError(EarshotError):
    """A training that came to values which are no numbers."""


class Watch(Protocol):
    """Who is told how training goes."""

    def step(self, epoch: int, step: int, steps: int, loss: float | None) -> None:
        """A step was made; the losses are looked at every few steps, else there is None."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch has ended; the figures of its line."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What is trained on; `hear` gives the validation clips' vectors if all have captions."""

    pairs: Pairs
    validation: Dataset
    teachers: Teachers | None = None
    hear: Heard | None = None


class Training:
    """A network on its way, with everything that a saved state holds."""

    def __init__(
        self, network: DualEncoder, recipe: Recipe, material: Material, run: RunFolder, fabric: Any
    ) -> None:
        self.recipe, self.material, self.run, self.fabric = recipe, material, run, fabric
        self.network = network.to(fabric.device)
        self.generator = torch.Generator()
        self.objective = build_objective(recipe.loss, network, self.generator, material.teachers)
        self.optimizer = fabric.setup_optimizers(build_optimizer(network, recipe.optimizer))
        self.steps = len(self.batches(0))
        self.rates = Rates(recipe.schedule, self.steps)
        self.average = self.averaged() if recipe.ema else None
        self.history: list[dict[str, Any]] = []
        self.epoch, self.step, self.settled = 0, 0, False
        self.wants_to_stop, self.stop = False, False
        self.losses: list[float] = []
        self.unread: list[torch.Tensor] = []
        self.read: dict[str, torch.Tensor] | None = {} if recipe.model.text.frozen else None

    def averaged(self) -> AveragedModel:
        """A copy of the network that follows it slowly."""
        decay: Any = get_ema_multi_avg_fn(self.recipe.ema or 0.0)  # type: ignore[no-untyped-call]
        return AveragedModel(self.network, multi_avg_fn=decay, use_buffers=True)

    @property
    def result(self) -> DualEncoder:
        """The network that is judged and saved."""
        averaged = self.average.module if self.average is not None else self.network
        assert isinstance(averaged, DualEncoder)
        return averaged

    def batches(self, epoch: int, start_step: int = 0) -> Any:
        """The batches of an epoch from a step on, this process's share of each."""
        return loader(
            self.material.pairs,
            self.recipe.batches,
            self.network.text.tokenize,
            seed=self.recipe.seed,
            epoch=epoch,
            start_step=start_step,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
        )

    def fit(self, watch: Watch) -> None:
        """Train to the end, or until it settles; interrupted, the state is saved.

        A step is made whole, and so is what is noted and saved after an epoch: a state that is half
        of one and half of another could not go on as if nothing had been. Of several processes none
        stops alone: a Ctrl-C in one is noted, told the others in the next exchange, and ends all
        when the first has saved.
        """
        several = self.fabric.world_size > 1
        with on_control_c(self.note_control_c) if several else nullcontext():
            try:
                self.go_on(watch)
            except KeyboardInterrupt:
                with control_c_deferred():
                    self.read_losses()
                    self.run.save_state(self.state())
                self.fabric.barrier()
                raise

    def go_on(self, watch: Watch) -> None:
        """Make the steps and epochs that are left."""
        while self.epoch < self.recipe.epochs and not self.settled:
            self.network.train()
            for batch in self.batches(self.epoch, self.step):
                with control_c_deferred():
                    self.one_step(batch.to(self.fabric.device))
                    if self.step % READ_STEPS == 0 or self.step == self.steps:
                        self.read_losses()
                if self.stop:
                    raise KeyboardInterrupt
                loss = None if self.unread else self.losses[-1]
                watch.step(self.epoch, self.step, self.steps, loss)
            watch.epoch(self.end_epoch())

    def note_control_c(self, number: int, frame: Any) -> None:
        """Have the next exchange tell that this process is to stop."""
        self.wants_to_stop = True

    def one_step(self, batch: Any) -> torch.Tensor:
        """Learn from one batch; gives the loss, which nobody has waited for yet."""
        number = self.epoch * self.steps + self.step
        self.seed(number)
        self.rates.apply(self.optimizer, number)
        loss = backward(self.network, batch, self.objective, self.fabric, self.recipe.chunk)
        self.stop = add_over_processes(self.network, self.fabric, stop=self.wants_to_stop)
        self.unread.append(loss)
        if self.recipe.optimizer.clip_norm:
            # In half precision gradients may overflow: the scaler leaves out such a step.
            self.fabric.clip_gradients(
                self.network,
                self.optimizer,
                max_norm=self.recipe.optimizer.clip_norm,
                error_if_nonfinite=False,
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.network)
        self.step += 1
        return loss

    def read_losses(self) -> None:
        """Look at the losses since the last look.

        Raises:
            DivergedError: one is no number; what has been learnt since is not saved.
        """
        if not self.unread:
            return
        first = self.step - len(self.unread) + 1
        found = torch.stack(self.unread).tolist()
        for number, loss in enumerate(found, first):
            if not math.isfinite(loss):
                raise self.diverged(f"the loss is {loss}", number)
        self.losses += found
        self.unread = []

    def seed(self, number: int) -> None:
        """Let chance follow from the step; impostors are the same in all processes."""
        words = np.random.SeedSequence([self.recipe.seed, number]).generate_state(2, np.uint64)
        torch.manual_seed(int(words[0] >> 1) + self.fabric.global_rank)
        self.generator.manual_seed(int(words[1] >> 1))

    def end_epoch(self) -> dict[str, Any]:
        """Judge, note and save."""
        found = self.judged_by_first()
        if not math.isfinite(found.loss):
            raise self.diverged(f"the validation loss is {found.loss}", self.steps)
        with control_c_deferred():
            return self.noted(found)

    def noted(self, found: Validation) -> dict[str, Any]:
        """Take an epoch's figures into the history, and save."""
        row = {
            "epoch": self.epoch + 1,
            "loss": float(np.mean(self.losses)),
            "validation_loss": found.loss,
            "rate": max(group["lr"] for group in self.optimizer.param_groups),
            "temperature": float(self.result.temperature.detach()),
            **found.metrics,
        }
        before = [entry[self.recipe.select] for entry in self.history]
        about = self.about(row)
        # Interrupted before all is written, the epoch has not ended, and its end is done again.
        if not before or row[self.recipe.select] > max(before):
            self.run.save_model("best", self.result, about)
        self.run.save_model("last", self.result, about)
        # The state comes last: what a run killed before it has written is written again.
        self.run.write_history([*self.history, row])
        self.settled = self.rates.epoch_ended(found.loss)
        self.history.append(row)
        self.epoch, self.step, self.losses = self.epoch + 1, 0, []
        self.run.save_state(self.state())
        return row

    def diverged(self, what: str, step: int) -> DivergedError:
        """What is said of a training that cannot go on."""
        kept = f"epoch {self.epoch} is in {self.run.path}" if self.epoch else "no epoch was saved"
        return DivergedError(
            f"{what} in epoch {self.epoch + 1}, step {step}; {kept}: try a lower optimizer.rate, "
            f"optimizer.clip_norm=1 or precision=32-true"
        )

    def judged_by_first(self) -> Validation:
        """The first process judges and tells the others, so that all stop, or go on, as one.

        Raises:
            DivergedError: the model makes nan.
            KeyboardInterrupt: Ctrl-C reached the first process.
        """
        if self.fabric.world_size == 1:
            return self.judge()
        found: Validation | BaseException | None = None
        if self.fabric.is_global_zero and self.wants_to_stop:
            found = KeyboardInterrupt()
        elif self.fabric.is_global_zero:
            try:  # Nothing is exchanged here: Ctrl-C may strike.
                with on_control_c(signal.default_int_handler):
                    found = self.judge()
            except (KeyboardInterrupt, DivergedError) as error:
                found = error
        found = self.fabric.broadcast(found)
        if isinstance(found, BaseException):
            raise found
        assert isinstance(found, Validation)
        return found

    def judge(self) -> Validation:
        """The result on the validation data; its loss is that of pairs, with impostors that stay.

        The teachers know nothing of these data.
        """
        pairs = self.recipe.batches.pairs
        validation, hear = self.material.validation, self.material.hear
        generator = torch.Generator().manual_seed(self.recipe.seed)
        objective = supervised_objective(self.recipe.loss, self.result, generator)
        try:
            return validate(self.result, validation, objective, pairs, hear, self.read)
        except NotANumberError as error:
            what = "what the model makes of the validation data is nan"
            raise self.diverged(what, self.steps) from error

    def about(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What the model's card says."""
        metrics = {name: row[name] for name in row if "@" in name}
        validation = self.material.validation
        return {
            "description": self.recipe.about,
            "recipe": self.recipe.name,
            "seed": self.recipe.seed,
            "epoch": row["epoch"],
            "metrics": metrics,
            "evaluated_on": f"{validation.card.name} {validation.split}",
        }

    def state(self) -> dict[str, Any]:
        """Everything that going on needs."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict() if self.average is not None else {},
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric._precision.state_dict(),
            "history": self.history,
            "epoch": self.epoch,
            "step": self.step,
            "losses": self.losses,
            "settled": self.settled,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            EarshotError: it is not whole.
        """
        if missing := set(self.state()) - set(state):
            raise EarshotError(
                f"the state of {self.run.path} lacks {min(missing)}; delete its state.pt to begin "
                f"the run anew"
            )
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric._precision.load_state_dict(state["precision"])
        self.history, self.losses = list(state["history"]), list(state["losses"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.settled = state["settled"]
        self.rates.restore([row["validation_loss"] for row in self.history])


def best_row(history: Sequence[Mapping[str, Any]], metric: str) -> Mapping[str, Any]:
    """The best epoch's figures; of equal ones the first."""
    return max(history, key=lambda row: (row[metric], -row["epoch"]))
