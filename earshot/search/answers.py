"""From clips that were looked at to hits: copies together, with moments, reasons, probability."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from earshot.calibrate import Calibration, probability_of, threshold
from earshot.search.copies import Recordings
from earshot.search.moments import moments
from earshot.search.scorer import Scored, Scorer
from earshot.search.scoring import background_of, evidence
from earshot.types import Hit, Moment

# Words that answer so much of a query are an answer, whatever the sound.
ENOUGH_WORDS = 0.5


def folded(scored: Iterable[Scored], k: int) -> list[list[Scored]]:
    """Clips in groups of copies, best first, until there are `k` groups and their copies end.

    A copy counts where it comes before the first clip that would begin group k + 1.
    """
    ranked = sorted(scored, key=lambda clip: (-clip.score, clip.path))
    groups: list[list[Scored]] = []
    if not ranked:
        return groups
    known = Recordings(min(k, len(ranked)), ranked[0].file.vectors.shape[1])
    for clip in ranked:
        number = known.find(clip.file)
        if number is not None:
            groups[number].append(clip)
        elif len(groups) < k:
            known.add(clip.file)
            groups.append([clip])
        else:
            break
    return groups


def hits_of(
    groups: Sequence[Sequence[Scored]], scorer: Scorer, calibration: Calibration | None
) -> tuple[Hit, ...]:
    """The best of each group of copies as a hit."""
    likely = probabilities([group[0] for group in groups], scorer, calibration)
    return tuple(hit_of(group, scorer, p) for group, p in zip(groups, likely, strict=True))


def hit_of(group: Sequence[Scored], scorer: Scorer, probability: float | None) -> Hit:
    """The best of a group of copies as a hit."""
    best = group[0]
    found = moments_of(best, scorer)
    return Hit(
        path=best.path,
        score=best.score,
        start_s=found[0].start_s,
        end_s=found[0].end_s,
        probability=probability,
        sound=best.sound,
        words=best.words.matches if best.words else (),
        moments=found,
        copies=tuple(clip.path for clip in group[1:]),
    )


def moments_of(clip: Scored, scorer: Scorer) -> tuple[Moment, ...]:
    """A clip's moments; where words alone were asked, the whole clip is one."""
    segments = clip.file.segments
    if not scorer.by_sound:
        end_s = max(segment.end_s for segment in segments)
        return (Moment(start_s=segments[0].start_s, end_s=end_s, score=clip.score),)
    return moments(segments, clip.segment_scores, float(scorer.background.mean[0]))


def probabilities(
    clips: Sequence[Scored], scorer: Scorer, calibration: Calibration | None
) -> list[float | None]:
    """How likely clips sound as asked; None where that is not known, or words alone were asked."""
    if calibration is None or not scorer.by_sound or not clips:
        return [None] * len(clips)
    background = background_of(calibration.background, scorer.vectors)
    cosines = np.stack([clip.cosines for clip in clips], axis=1)
    likely: list[float | None] = probability_of(
        calibration, evidence(cosines, scorer.plan.parts, background)
    ).tolist()
    return likely


def is_answer(
    hits: Sequence[Hit],
    shares: Sequence[float],
    calibration: Calibration | None,
    segments: int,
) -> bool:
    """Whether any hit is likely to be one: by its sound among so many segments, or by words."""
    if calibration is None:
        return bool(hits)
    least = threshold(calibration, segments)
    likely = any((hit.probability or 0.0) >= least for hit in hits)
    return likely or any(share >= ENOUGH_WORDS for share in shares)
