"""One process's share of the loss over all processes' pairs: its own rows of the matrix, no more.

All W pairs are compared, but a process holds B clips against W captions and B captions against W
clips, never W against W: only vectors are gathered. The shares of all processes add up to the loss
of `earshot.losses` over all pairs, and so do their gradients. The triplet loss has no share: its
impostors are drawn among all pairs, by each process the same (`earshot.train.objective`).

Axis legend: B pairs of this process, W pairs of all processes, D dimension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from earshot.losses import SIGMOID_BIAS, Weighting, same_clip, similarities

if TYPE_CHECKING:
    from collections.abc import Callable

    from earshot.train.step import Vectors


def multiple_positives_share(
    vectors: Vectors, own: slice, temperature: Tensor, weighting: Weighting
) -> Tensor:
    """The share of `contrastive_multiple_positives`."""
    ids = vectors.clip_ids
    positives = same_clip(ids[own], ids)
    counts: Tensor = torch.unique(ids, return_counts=True)[1]
    cells = counts.square().sum()

    def side(queries: Tensor, keys: Tensor) -> Tensor:
        likelihoods = (similarities(queries[own], keys) / temperature.abs()).log_softmax(1)
        chosen = torch.where(positives, likelihoods, 0.0)
        if weighting == "cells":
            return chosen.sum() / cells
        means: Tensor = chosen.sum(1) / positives.sum(1)
        return means.sum() / len(ids)

    return -(side(vectors.audio, vectors.text) + side(vectors.text, vectors.audio)) / 2


def other_clips_share(vectors: Vectors, own: slice, temperature: Tensor) -> Tensor:
    """The share of `contrastive_other_clips`."""
    ids = vectors.clip_ids
    columns = torch.arange(len(ids), device=ids.device)[own]
    left_out = same_clip(ids[own], ids)
    left_out[torch.arange(len(columns), device=ids.device), columns] = False

    def side(queries: Tensor, keys: Tensor) -> Tensor:
        scores = similarities(queries[own], keys) / temperature.abs()
        masked = scores.masked_fill(left_out, -torch.inf)
        return functional.cross_entropy(masked, columns, reduction="sum") / len(ids)

    return side(vectors.audio, vectors.text) + side(vectors.text, vectors.audio)


def sigmoid_share(vectors: Vectors, own: slice, temperature: Tensor) -> Tensor:
    """The share of `sigmoid_pairwise`."""
    ids = vectors.clip_ids
    scores = similarities(vectors.audio[own], vectors.text) / temperature.abs()
    signs = 2 * same_clip(ids[own], ids).to(scores.dtype) - 1
    return -functional.logsigmoid(signs * (scores + SIGMOID_BIAS)).sum() / len(ids)


def distillation_share(
    vectors: Vectors, own: slice, temperature: Tensor, teachers: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """The share of `distillation`; the teachers are asked for the same rows and columns."""
    clips, captions = vectors.clip_ids, vectors.caption_ids

    def side(queries: Tensor, keys: Tensor, judged: Tensor) -> Tensor:
        scores = similarities(queries[own], keys) / temperature.abs()
        targets = (judged.to(scores.dtype) / temperature.abs()).detach().softmax(1)
        return functional.cross_entropy(scores, targets, reduction="sum") / len(clips)

    rows = side(vectors.audio, vectors.text, teachers(clips[own], captions))
    return (rows + side(vectors.text, vectors.audio, teachers(clips, captions[own]).T)) / 2
