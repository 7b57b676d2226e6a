"""Where in a clip a sound is: segments that match well, joined, and sharpened where they overlap.

One idea: segments overlap, so every instant is heard in several. An instant's score is the mean of
the segments that cover it: what is short is loudest in all segments around it, and there only.

Plain lists: a clip has a few segments, and numpy's calls took a third of a search for them.
Axis legend: S segments of a clip in order of their start, C cells: the spans between neighbouring
bounds of segments.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from earshot.types import Moment, Segment

MOST = 5
# How far from the background up to the clip's best a segment must reach to count as matching.
BAR = 0.75
# The same within a run of matching segments, for the cells that are kept.
CELL_BAR = 0.8
# Segments whose ends differ by less touch: rounding, and files whose length is no whole hop.
TOUCH_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Spans of a clip that lie in the same segments, C each, in order."""

    starts: Sequence[float]
    ends: Sequence[float]
    scores: Sequence[float]


def moments(
    segments: Sequence[Segment], scores: np.ndarray, background: float
) -> tuple[Moment, ...]:
    """The best moments of a clip, at most `MOST`, best first.

    Args:
        segments: S segments in order of their start, which may overlap.
        scores: (S,) cosines with the query, or on their scale.
        background: what score the library's segments have on average.
    """
    values: list[float] = scores.tolist()
    best = max(values)
    bar = best - (1 - BAR) * max(best - background, 0.0)
    cells = cells_of(segments, values)
    matching = [number for number, value in enumerate(values) if value >= bar]
    found = [
        moment_of(run, segments, values, cells, background) for run in runs(segments, matching)
    ]
    return tuple(sorted(found, key=lambda moment: (-moment.score, moment.start_s))[:MOST])


def runs(segments: Sequence[Segment], matching: Sequence[int]) -> list[list[int]]:
    """The numbers of segments, in order of their start, grouped where they touch or overlap."""
    joined: list[list[int]] = []
    reach = -math.inf
    for number in matching:
        if segments[number].start_s > reach + TOUCH_S:
            joined.append([])
        joined[-1].append(number)
        reach = max(reach, segments[number].end_s)
    return joined


def cells_of(segments: Sequence[Segment], scores: Sequence[float]) -> Cells:
    """Cut a clip at all bounds of its segments; a cell that none covers scores minus infinity."""
    # What begins and ends at a bound changes the sums there: two passes whatever the overlap.
    changes: dict[float, tuple[float, int]] = {}
    for segment, score in zip(segments, scores, strict=True):
        for edge, sign in ((segment.start_s, 1), (segment.end_s, -1)):
            total, count = changes.get(edge, (0.0, 0))
            changes[edge] = total + sign * score, count + sign
    bounds = sorted(changes)
    means, total, covered = [], 0.0, 0
    for bound in bounds[:-1]:
        total, covered = total + changes[bound][0], covered + changes[bound][1]
        means.append(total / covered if covered else -math.inf)
    return Cells(starts=bounds[:-1], ends=bounds[1:], scores=means)


def moment_of(
    run: Sequence[int],
    segments: Sequence[Segment],
    scores: Sequence[float],
    cells: Cells,
    background: float,
) -> Moment:
    """The span of a run's best cells; one segment alone is kept whole."""
    start_s, end_s = segments[run[0]].start_s, max(segments[n].end_s for n in run)
    best = max(scores[n] for n in run)
    first, last = bisect_left(cells.starts, start_s), bisect_right(cells.ends, end_s)
    if first < last:
        values = cells.scores[first:last]
        peak = max(values)
        bar = peak - (1 - CELL_BAR) * max(peak - background, 0.0)
        kept = [first + i for i, value in enumerate(values) if value >= bar]
        start_s, end_s = cells.starts[kept[0]], cells.ends[kept[-1]]
    return Moment(start_s=start_s, end_s=end_s, score=best)
