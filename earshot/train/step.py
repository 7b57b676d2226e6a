"""One training step: the exact gradients of a batch of any size, in parts and over processes.

A contrastive loss compares every clip of a batch with every caption, so it cannot be summed up
over parts of the batch. But its gradients with respect to the vectors can be computed once for the
whole batch, and each part of it sent back through the towers with its own (Gao et al.: "Scaling
deep contrastive learning batch size under memory limited setup", RepL4NLP 2021). Over processes it
is the same: vectors are gathered, gradients added. Each process compares its own pairs with all,
B x W twice and not W x W (but for the triplet loss), and sends the others what that says of their
vectors.

Axis legend: B pairs of this process, W pairs of all processes, D dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from earshot.encoders.norms import paused_statistics
from earshot.model.dual import DualEncoder

if TYPE_CHECKING:
    from earshot.batches import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """Pairs in the shared space: (W, D) each, with the number of each pair's clip and caption.

    `own` are the rows of this process where there are several; the loss is then its share.
    """

    audio: Tensor
    text: Tensor
    clip_ids: Tensor
    caption_ids: Tensor
    own: slice | None = None


Objective = Callable[[Vectors], Tensor]


def encode(network: DualEncoder, batch: Batch) -> tuple[Tensor, Tensor]:
    """A batch's audio and text vectors (B, D); towers whose features are at hand do not run."""
    heard, read = batch.audio_features, batch.text_features
    if heard is None:
        heard = network.audio_features(batch.waveforms, batch.lengths)
    if read is None:
        read = network.text_features(batch.tokens)
    return network.project_audio(heard), network.project_text(read)


def backward(
    network: DualEncoder, batch: Batch, objective: Objective, fabric: Any, chunk: int | None = None
) -> Tensor:
    """Add to the network's gradients what this process's pairs say; returns the loss of all pairs.

    `chunk` pairs go through the towers at a time, twice if the batch is larger. What is left is to
    `add_over_processes`.
    """
    chunk = chunk or len(batch)
    parts = [batch.part(start, start + chunk) for start in range(0, len(batch), chunk)]
    if len(parts) == 1:
        with fabric.autocast():
            vectors = [encode(network, batch)]
        replays: list[Random] = []
    else:
        vectors, replays = looked_ahead(network, parts, fabric)
    audio = torch.cat([a for a, _ in vectors]).detach().float().requires_grad_()
    text = torch.cat([t for _, t in vectors]).detach().float().requires_grad_()
    everyone = gathered(audio, text, batch, fabric)
    loss = objective(everyone)
    sides = [everyone.audio, everyone.text]
    wanted = [*sides, *([network.tau] if network.tau.requires_grad else [])]
    gradients = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
    if everyone.own is not None:
        gradients = (*summed(gradients[:2], everyone.own, fabric), *gradients[2:])
        loss = fabric.all_reduce(loss.detach(), reduce_op="sum")
    for number, part in enumerate(parts):
        if replays:
            with replays[number].again(), fabric.autocast():
                vectors[number] = encode(network, part)
        span = slice(number * chunk, number * chunk + len(part))
        surrogate = (vectors[number][0] * gradients[0][span]).sum()
        surrogate = surrogate + (vectors[number][1] * gradients[1][span]).sum()
        if number == 0 and len(gradients) == 3:
            surrogate = surrogate + network.tau * gradients[2]
        if surrogate.requires_grad:
            fabric.backward(surrogate)
    return loss.detach()


def looked_ahead(
    network: DualEncoder, parts: list[Batch], fabric: Any
) -> tuple[list[tuple[Tensor, Tensor]], list[Random]]:
    """The vectors of all parts without what a backward pass needs, and the chance they drew."""
    vectors, replays = [], []
    with torch.no_grad(), paused_statistics(network), fabric.autocast():
        for part in parts:
            replays.append(Random.now(fabric.device))
            vectors.append(encode(network, part))
    return vectors, replays


def gathered(audio: Tensor, text: Tensor, batch: Batch, fabric: Any) -> Vectors:
    """The vectors of all processes in their order, each with a gradient of its own."""
    clip_ids, caption_ids = batch.clip_ids, batch.caption_ids
    if fabric.world_size == 1:
        return Vectors(audio=audio, text=text, clip_ids=clip_ids, caption_ids=caption_ids)
    ids = fabric.all_gather(torch.stack([clip_ids, caption_ids])).transpose(0, 1).flatten(1)
    vectors = fabric.all_gather(torch.stack([audio.detach(), text.detach()])).transpose(0, 1)
    everyone_audio, everyone_text = (side.flatten(0, 1).requires_grad_() for side in vectors)
    return Vectors(
        audio=everyone_audio,
        text=everyone_text,
        clip_ids=ids[0],
        caption_ids=ids[1],
        own=slice(fabric.global_rank * len(audio), (fabric.global_rank + 1) * len(audio)),
    )


def summed(gradients: Sequence[Tensor], own: slice, fabric: Any) -> tuple[Tensor, ...]:
    """What all processes' shares say of this one's vectors, in one exchange; (W, D) to (B, D)."""
    total = fabric.all_reduce(torch.stack(list(gradients)), reduce_op="sum")
    return tuple(total[:, own])


def add_over_processes(network: DualEncoder, fabric: Any, *, stop: bool = False) -> bool:
    """Sum the gradients of all processes, in one exchange; gives whether any wants to `stop`."""
    if fabric.world_size == 1:
        return stop
    everything = [weight for weight in network.parameters() if weight.requires_grad]
    told = [float(weight.grad is not None) for weight in everything] + [float(stop)]
    exchanged = torch.tensor(told, device=fabric.device)
    *counts, stopping = fabric.all_reduce(exchanged, reduce_op="sum").tolist()
    # What no process reached keeps no gradient; what this one did not reach counts as zero.
    learning = [weight for weight, count in zip(everything, counts, strict=True) if count]
    parts = [w.grad if w.grad is not None else torch.zeros_like(w) for w in learning]
    total = fabric.all_reduce(torch.cat([part.flatten() for part in parts]), reduce_op="sum")
    for weight, part in zip(learning, total.split([w.numel() for w in learning]), strict=True):
        weight.grad = part.view_as(weight)
    return bool(stopping)


@dataclass(frozen=True, slots=True)
class Random:
    """The state of chance on the processor and a GPU, so that dropout can be drawn again."""

    cpu: Tensor
    device: torch.device
    gpu: Tensor | None

    @classmethod
    def now(cls, device: torch.device) -> Random:
        """The state at this moment."""
        gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(torch.get_rng_state(), device, gpu)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw what was drawn after that moment."""
        with torch.random.fork_rng(devices=[self.device] if self.gpu is not None else []):
            torch.set_rng_state(self.cpu)
            if self.gpu is not None:
                torch.cuda.set_rng_state(self.gpu, self.device)
            yield
