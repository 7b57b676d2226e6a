"""Losses: how far clips and captions are from their places, as one number to go down.

One idea: all of them are functions of the similarity matrix of a batch and of which of its cells
join a clip with a caption of the same clip, known by integer clip ids and never by hashes. The
matrix may be rectangular: rows and columns have ids of their own. What one of several processes
adds to a loss is in `earshot.train.shares`.

Vectors have unit length, so that their dot products are cosines. Whatever the precision of the
vectors and the autocast around it, a loss is computed in single precision at least.

Axis legend: M clips (rows), N captions (columns), P pairs of a clip and its caption, D dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from earshot.types import EarshotError

SIGMOID_BIAS = -10.0
Impostors = Literal["random", "semi-hard"]
Weighting = Literal["pairs", "cells"]
Teacher = tuple[Tensor, Tensor]
"""What one model makes of the batch: clips (M, D), captions (N, D), of any D and length."""


def similarities(audio: Tensor, text: Tensor) -> Tensor:
    """Dot products (M, N) of (M, D) and (N, D), of single precision at least, autocast or not."""
    with torch.autocast(audio.device.type, enabled=False):
        return _widened(audio) @ _widened(text).T


def same_clip(audio_ids: Tensor, text_ids: Tensor) -> Tensor:
    """Which cells (M, N) join a clip with a caption of the same clip; integer ids (M,) and (N,).

    Raises:
        EarshotError: ids that are no integers, or not one for each row.
    """
    for ids in (audio_ids, text_ids):
        if ids.ndim != 1 or ids.is_floating_point():
            raise EarshotError(
                f"clip ids of shape {tuple(ids.shape)} and {ids.dtype}; give (N,) integers"
            )
    return audio_ids[:, None] == text_ids


def triplet(
    audio: Tensor,
    text: Tensor,
    clip_ids: Tensor,
    margin: float = 0.4,
    impostors: Impostors = "random",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Each of P pairs beats one impostor caption and one impostor clip by a margin.

    Pair i is audio[i], text[i], both (P, D), of clip clip_ids[i]. `random` impostors are drawn from
    the pairs of other clips by `generator`, caption and clip apart, as in DCASE 2022 (IRIT, margin
    0.4; the baseline of that year has margin 1 and never draws both from one pair). `semi-hard`
    ones are the most similar of those that are less similar than the pair is (Schroff et al. 2015,
    section 3.2), and the least similar where all are more similar. A pair without any impostor
    in its batch adds nothing; the published code would search for one for ever.

    Raises:
        EarshotError: random impostors without a generator, or an unknown kind of impostors.
    """
    scores, same = _cells(audio, clip_ids, text, clip_ids)
    others = ~same
    if impostors == "random":
        if generator is None:
            raise EarshotError("random impostors are drawn by a generator: give one")
        captions, clips = drawn(others, generator), drawn(others, generator)
    elif impostors == "semi-hard":
        captions, clips = semi_hard(scores, others), semi_hard(scores.T, others)
    else:
        raise EarshotError(f"no impostors {impostors!r}; there are random and semi-hard")
    return (triplet_terms(scores, captions, clips, margin) * others.any(1)).mean()


def triplet_terms(scores: Tensor, captions: Tensor, clips: Tensor, margin: float) -> Tensor:
    """The hinge loss of each pair (P,) against its impostors, given by their places (P,).

    l_i = max(0, m + s(a_i, c⁻) - s(a_i, c_i)) + max(0, m + s(a⁻, c_i) - s(a_i, c_i)),
    with s the scores (P, P): Xie et al., DCASE 2022 task 6B, after Harwath et al. 2016.
    """
    each = torch.arange(len(scores), device=scores.device)
    own = scores.diagonal()
    against_captions = functional.relu(margin + scores[each, captions] - own)
    against_clips = functional.relu(margin + scores[clips, each] - own)
    return against_captions + against_clips


def drawn(allowed: Tensor, generator: torch.Generator) -> Tensor:
    """One allowed column for each row of (R, K), all equally likely; any where none is allowed."""
    weights = allowed | ~allowed.any(1, keepdim=True)
    weights = weights.to(device=generator.device, dtype=torch.float32)
    return torch.multinomial(weights, 1, generator=generator)[:, 0].to(allowed.device)


def semi_hard(scores: Tensor, others: Tensor) -> Tensor:
    """For each row of (P, P) the best of the others below the diagonal, else the worst of them."""
    scores = scores.detach()
    below = others & (scores < scores.diagonal()[:, None])
    best_below = scores.masked_fill(~below, -torch.inf).argmax(1)
    worst = scores.masked_fill(~others, torch.inf).argmin(1)
    return torch.where(below.any(1), best_below, worst)


def contrastive_other_clips(
    audio: Tensor,
    audio_ids: Tensor,
    text: Tensor,
    text_ids: Tensor,
    temperature: float | Tensor = 0.07,
    own: Tensor | None = None,
) -> Tensor:
    """InfoNCE whose negatives are of other clips; a clip's other captions do not count at all.

    For clip i with its caption c_i, at column own[i], (M,); without `own`, column i:
    L = (1/M) Σ_i [-log softmax_j(s(a_i, c_j)/|τ|)_{c_i} - log softmax_k(s(a_k, c_i)/|τ|)_{a_i}],
    where j runs over c_i and the captions, k over i and the clips, of *other* clips than i's
    (van den Oord et al. 2018, equation 4; the baseline of DCASE 2023 task 6B). The sum of the two
    directions, not their mean. Where all are of one clip, 0.

    Raises:
        EarshotError: clips and captions that are no pairs, and no `own`.
    """
    scores, same = _cells(audio, audio_ids, text, text_ids)
    scores = _sharpened(scores, temperature)
    if own is None and scores.shape[0] != scores.shape[1]:
        raise EarshotError(
            f"{scores.shape[0]} clips and {scores.shape[1]} captions are no pairs; "
            f"say by `own` in which column the caption of each clip is"
        )
    rows = torch.arange(len(audio), device=scores.device)
    own = rows if own is None else own
    left_out = same.index_put((rows, own), torch.zeros_like(rows, dtype=torch.bool))
    by_clip = scores.masked_fill(left_out, -torch.inf)
    repeated = same_clip(audio_ids, audio_ids).fill_diagonal_(False)
    by_caption = scores[:, own].masked_fill(repeated, -torch.inf).T
    return functional.cross_entropy(by_clip, own) + functional.cross_entropy(by_caption, rows)


def contrastive_multiple_positives(
    audio: Tensor,
    audio_ids: Tensor,
    text: Tensor,
    text_ids: Tensor,
    temperature: float | Tensor = 0.05,
    weighting: Weighting = "pairs",
) -> Tensor:
    """InfoNCE in which every cell of the same clip is a positive.

    L = -½ [mean over positives of log softmax_k(s(a_k, c_j)/|τ|) + the same of softmax over j]
    (stage 1 of Primus et al. 2024, arXiv 2408.11641; several positives as Khosla et al. 2020,
    equation 2). How the mean is taken, `weighting` says:

    `pairs`: over the positives of a row (a column), then over the rows (columns) that have any: a
    clip with k pairs in the batch weighs k. `cells`: over all positive cells together, as
    published for DCASE 2024 (salsa) and 2025: it weighs k². Without repeated clips, all the same.

    Raises:
        EarshotError: an unknown weighting.
    """
    if weighting not in ("pairs", "cells"):
        raise EarshotError(f"no weighting {weighting!r}; there are pairs and cells")
    scores, positives = _cells(audio, audio_ids, text, text_ids)
    scores = _sharpened(scores, temperature)
    over_captions = _mean_of_positives(scores.log_softmax(1), positives, weighting)
    over_clips = _mean_of_positives(scores.T.log_softmax(1), positives.T, weighting)
    return -(over_captions + over_clips) / 2


def distillation(
    audio: Tensor,
    text: Tensor,
    teachers: Tensor | Sequence[Teacher],
    temperature: float | Tensor = 0.05,
) -> Tensor:
    """Cross entropy with how teachers judge each clip against each caption.

    L = ½ [CE(C, softmax_rows(C_T)) + CE(Cᵀ, softmax_rows(C_Tᵀ))], C = s/|τ|, C_T = s_T/|τ|
    (stage 2 of Primus et al. 2024, arXiv 2408.11641). `teachers` are the cosines s_T (M, N), or
    the embeddings of several models, averaged by `teacher_similarities`. It is least, the targets'
    entropy, where the model judges as its teachers do. The targets are constants; in the published
    code a trainable τ is pulled by them too.

    Raises:
        EarshotError: teachers of another batch.
    """
    scores = _sharpened(similarities(audio, text), temperature)
    if not isinstance(teachers, Tensor):
        teachers = teacher_similarities(teachers)
    if teachers.shape != scores.shape:
        raise EarshotError(
            f"the teachers judge {tuple(teachers.shape)} clips and captions, "
            f"the batch has {tuple(scores.shape)}"
        )
    targets = _sharpened(_widened(teachers), temperature).detach().to(scores.dtype)
    over_captions = functional.cross_entropy(scores, targets.softmax(1))
    over_clips = functional.cross_entropy(scores.T, targets.T.softmax(1))
    return (over_captions + over_clips) / 2


def teacher_similarities(teachers: Sequence[Teacher]) -> Tensor:
    """Mean over the teachers of their cosines (M, N); each may have a dimension of its own.

    Raises:
        EarshotError: no teacher; where one is missing the published code goes on without it.
    """
    if not len(teachers):
        raise EarshotError("no teacher to learn from: give the embeddings of one model at least")
    cosines = [
        similarities(*(functional.normalize(_widened(side), dim=-1) for side in teacher))
        for teacher in teachers
    ]
    return reduce(torch.add, cosines) / len(cosines)


def combined(
    supervised: Tensor,
    distilled: Tensor,
    supervised_weight: float = 0.0,
    distillation_weight: float = 1.0,
) -> Tensor:
    """The two losses by their weights, each applied once.

    The published code of stage 2 (salsa) applies the supervised weight twice: 0.5 acts as 0.25.
    """
    return supervised_weight * supervised + distillation_weight * distilled


def sigmoid_pairwise(
    audio: Tensor,
    audio_ids: Tensor,
    text: Tensor,
    text_ids: Tensor,
    temperature: float | Tensor = 0.1,
    bias: float | Tensor = SIGMOID_BIAS,
) -> Tensor:
    """Each cell is judged by itself, same clip or not: no softmax over the batch.

    L = -(1/M) Σ_ij log σ(z_ij (s(a_i, c_j)/|τ| + b)), z = 1 for the same clip, else -1
    (SigLIP: Zhai et al. 2023, algorithm 1, with their start, 1/τ = 10 and b = -10, as default; a
    clip may have several captions). Over blocks of columns it adds up to the whole.
    """
    scores, same = _cells(audio, audio_ids, text, text_ids)
    signs = 2 * same.to(scores.dtype) - 1
    logits = _sharpened(scores, temperature) + bias
    return -functional.logsigmoid(signs * logits).sum() / len(audio)


def _mean_of_positives(log_likelihoods: Tensor, positives: Tensor, weighting: Weighting) -> Tensor:
    """Mean over the positives of (R, K) as `weighting` says; 0 where there are none."""
    chosen = torch.where(positives, log_likelihoods, 0.0)
    counts = positives.sum(1)
    if weighting == "cells":
        return chosen.sum() / counts.sum().clamp_min(1)
    means = chosen.sum(1) / counts.clamp_min(1)
    return means.sum() / (counts > 0).sum().clamp_min(1)


def _cells(
    audio: Tensor, audio_ids: Tensor, text: Tensor, text_ids: Tensor
) -> tuple[Tensor, Tensor]:
    """The similarities (M, N) of a batch, and which of them are of the same clip."""
    scores, same = similarities(audio, text), same_clip(audio_ids, text_ids)
    if scores.shape != same.shape:
        raise EarshotError(
            f"{scores.shape[0]} clips and {scores.shape[1]} captions with {same.shape[0]} and "
            f"{same.shape[1]} clip ids; give one id for each"
        )
    return scores, same


def _sharpened(scores: Tensor, temperature: float | Tensor) -> Tensor:
    """Scores over |τ|; a trainable temperature may pass zero, as published."""
    return scores / (temperature.abs() if isinstance(temperature, Tensor) else abs(temperature))


def _widened(values: Tensor) -> Tensor:
    """Half precision made single; what is wider stays as it is."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
