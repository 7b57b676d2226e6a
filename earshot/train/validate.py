"""How good a network is after an epoch: the usual metrics, and the loss on unseen pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from earshot.evaluate.report import judged, relevant_items
from earshot.evaluate.scores import ClipVectors, cosine_scores, embed_captions, embed_clips
from earshot.metrics import measure
from earshot.model.dual import DualEncoder
from earshot.model.folder import DualModel
from earshot.train.frozen import RememberingModel
from earshot.train.hearing import Heard
from earshot.train.recipe import Metric
from earshot.train.step import Objective, Vectors
from earshot.types import Dataset

METRICS: tuple[str, ...] = get_args(Metric)


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The figures of an epoch."""

    metrics: dict[str, float]
    loss: float


def validate(
    network: DualEncoder,
    dataset: Dataset,
    objective: Objective,
    pairs: int,
    hear: Heard | None = None,
    read: dict[str, Tensor] | None = None,
) -> Validation:
    """Judge a network on a dataset, each clip whole; the loss is over batches of `pairs`.

    `hear` gives the clips' vectors, else their files do; `read` keeps what a frozen text tower made
    of sentences. Where a vector is no number nothing can be ranked: the loss is NaN alone.
    """
    was_training = network.training
    network.eval()
    model = DualModel(network=network, name="in training")
    if read is not None:
        model = RememberingModel(network, read)
    clips = hear(network) if hear else embed_clips(dataset.clips, model)
    asked = judged(dataset)
    queries = embed_captions(asked.captions, model)
    metrics, loss = {}, math.nan
    if np.isfinite(clips.vectors).all() and np.isfinite(queries).all():
        scores = cosine_scores(queries, clips)
        ranks = scores.ranks(relevant_items(scores, asked))
        metrics = {name: float(measure(ranks, name).mean()) for name in METRICS}
        loss = pair_loss(dataset, clips, model, objective, pairs)
    network.train(was_training)
    return Validation(metrics=metrics, loss=loss)


def pair_loss(
    dataset: Dataset, clips: ClipVectors, model: DualModel, objective: Objective, pairs: int
) -> float:
    """The mean loss of batches of captions and their clips, in an order that never changes."""
    number = {clip: i for i, clip in enumerate(clips.ids)}
    captions = [caption for caption in dataset.captions if caption.clip_id in number]
    # The captions of one clip follow each other in the table: batches of one clip teach nothing.
    order = np.random.default_rng(0).permutation(len(captions))
    captions = [captions[i] for i in order]
    if not captions:
        return float("nan")
    device = model.network.tau.device
    audio = torch.from_numpy(clips.means()).to(device)
    text = torch.from_numpy(embed_captions(captions, model)).to(device)
    ids = torch.tensor([number[caption.clip_id] for caption in captions], device=device)
    losses = []
    for start in range(0, max(1, len(captions) - pairs + 1), pairs):
        span = slice(start, start + pairs)
        rows = torch.arange(len(captions), device=device)[span]
        batch = Vectors(
            audio=audio[ids[span]], text=text[span], clip_ids=ids[span], caption_ids=rows
        )
        with torch.no_grad():
            losses.append(float(objective(batch)))
    return float(np.mean(losses))
