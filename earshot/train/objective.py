"""What a recipe minimises, as one function of the vectors of a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from earshot.losses import (
    combined,
    contrastive_multiple_positives,
    contrastive_other_clips,
    distillation,
    sigmoid_pairwise,
    triplet,
)
from earshot.model.dual import DualEncoder
from earshot.train.recipe import LossConfig
from earshot.train.shares import (
    distillation_share,
    multiple_positives_share,
    other_clips_share,
    sigmoid_share,
)
from earshot.train.step import Objective, Vectors
from earshot.types import EarshotError

# What teachers think of pairs, (W, W): clips by their ids against captions by theirs.
Teachers = Callable[[Tensor, Tensor], Tensor]


def build_objective(
    config: LossConfig,
    network: DualEncoder,
    generator: torch.Generator,
    teachers: Teachers | None = None,
) -> Objective:
    """The loss of a recipe; `generator` draws the impostors of the triplet loss.

    Raises:
        EarshotError: teachers are needed and absent, or given and not asked for.
    """
    if config.distillation_weight and teachers is None:
        raise EarshotError(
            f"the recipe distils (loss.distillation_weight is {config.distillation_weight:g}) and "
            f"has no teachers; give --teachers FOLDER, made by `earshot teach`"
        )
    if teachers is not None and not config.distillation_weight:
        raise EarshotError(
            "there are teachers, but loss.distillation_weight is 0: nothing would be learnt from "
            "them; --set loss.distillation_weight=1"
        )

    supervised = supervised_objective(config, network, generator)

    def objective(vectors: Vectors) -> Tensor:
        if teachers is None:
            return config.supervised_weight * supervised(vectors)
        if vectors.own is not None:
            taught = distillation_share(vectors, vectors.own, network.temperature, teachers)
        else:
            judged = teachers(vectors.clip_ids, vectors.caption_ids)
            taught = distillation(vectors.audio, vectors.text, judged, network.temperature)
        own = supervised(vectors) if config.supervised_weight else torch.zeros_like(taught)
        return combined(own, taught, config.supervised_weight, config.distillation_weight)

    return objective


def supervised_objective(
    config: LossConfig, network: DualEncoder, generator: torch.Generator
) -> Objective:
    """The loss of pairs alone, unweighted: of data that no teacher has heard."""

    def supervised(vectors: Vectors) -> Tensor:
        if vectors.own is not None:
            return supervised_share(config, network, vectors, vectors.own, generator)
        audio, text, ids = vectors.audio, vectors.text, vectors.clip_ids
        if config.kind == "triplet":
            return triplet(audio, text, ids, config.margin, config.impostors, generator)
        if config.kind == "other-clips":
            return contrastive_other_clips(audio, ids, text, ids, network.temperature)
        if config.kind == "sigmoid":
            return sigmoid_pairwise(audio, ids, text, ids, network.temperature)
        return contrastive_multiple_positives(
            audio, ids, text, ids, network.temperature, config.weighting
        )

    return supervised


def supervised_share(
    config: LossConfig,
    network: DualEncoder,
    vectors: Vectors,
    own: slice,
    generator: torch.Generator,
) -> Tensor:
    """What this process adds to the loss of all processes' pairs.

    Impostors are drawn among all pairs, by each process the same: that loss alone holds all cells.
    """
    if config.kind == "triplet":
        audio, text, ids = vectors.audio, vectors.text, vectors.clip_ids
        whole = triplet(audio, text, ids, config.margin, config.impostors, generator)
        return whole * len(ids[own]) / len(ids)
    if config.kind == "other-clips":
        return other_clips_share(vectors, own, network.temperature)
    if config.kind == "sigmoid":
        return sigmoid_share(vectors, own, network.temperature)
    return multiple_positives_share(vectors, own, network.temperature, config.weighting)
