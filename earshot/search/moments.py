"""Where in a clip a sound is: segments that match well, joined, and sharpened where they overlap.

One idea: segments overlap, so every instant is heard in several. An instant's score is the mean of
the segments that cover it: what is short is loudest in all segments around it, and there only.

Axis legend: S segments of a clip in order of their start, C cells: the spans between neighbouring
bounds of segments.
"""

from __future__ import annotations

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
    """Spans of a clip that lie in the same segments; `starts`, `ends` and `scores` are (C,)."""

    starts: np.ndarray
    ends: np.ndarray
    scores: np.ndarray


def moments(
    segments: Sequence[Segment], scores: np.ndarray, background: float
) -> tuple[Moment, ...]:
    """The best moments of a clip, at most `MOST`, best first.

    Args:
        segments: S segments in order of their start, which may overlap.
        scores: (S,) cosines with the query, or on their scale.
        background: what score the library's segments have on average.
    """
    best = float(scores.max())
    bar = best - (1 - BAR) * max(best - background, 0.0)
    cells = cells_of(segments, scores)
    found = [
        moment_of(run, segments, scores, cells, background)
        for run in runs(segments, np.flatnonzero(scores >= bar))
    ]
    return tuple(sorted(found, key=lambda moment: (-moment.score, moment.start_s))[:MOST])


def runs(segments: Sequence[Segment], matching: np.ndarray) -> list[list[int]]:
    """The numbers of segments, in order of their start, grouped where they touch or overlap."""
    joined: list[list[int]] = []
    reach = -np.inf
    for number in matching:
        if segments[number].start_s > reach + TOUCH_S:
            joined.append([])
        joined[-1].append(int(number))
        reach = max(reach, segments[number].end_s)
    return joined


def cells_of(segments: Sequence[Segment], scores: np.ndarray) -> Cells:
    """Cut a clip at all bounds of its segments; a cell that none covers scores minus infinity."""
    first = np.array([segment.start_s for segment in segments])
    last = np.array([segment.end_s for segment in segments])
    bounds = np.unique(np.concatenate([first, last]))
    # What begins and ends at a bound changes the sums there: two passes whatever the overlap.
    sums, counts = np.zeros(len(bounds)), np.zeros(len(bounds))
    for edges, sign in ((first, 1.0), (last, -1.0)):
        places = np.searchsorted(bounds, edges)
        np.add.at(sums, places, sign * scores)
        np.add.at(counts, places, sign)
    covered = np.cumsum(counts)[:-1]
    means = np.divide(
        np.cumsum(sums)[:-1], covered, out=np.full(len(covered), -np.inf), where=covered > 0.5
    )
    return Cells(starts=bounds[:-1], ends=bounds[1:], scores=means)


def moment_of(
    run: Sequence[int],
    segments: Sequence[Segment],
    scores: np.ndarray,
    cells: Cells,
    background: float,
) -> Moment:
    """The span of a run's best cells; one segment alone is kept whole."""
    start_s, end_s = segments[run[0]].start_s, max(segments[n].end_s for n in run)
    best = float(max(scores[n] for n in run))
    inside = np.flatnonzero((cells.starts >= start_s) & (cells.ends <= end_s))
    if inside.size:
        values = cells.scores[inside]
        peak = float(values.max())
        bar = peak - (1 - CELL_BAR) * max(peak - background, 0.0)
        kept = inside[values >= bar]
        start_s, end_s = float(cells.starts[kept[0]]), float(cells.ends[kept[-1]])
    return Moment(start_s=start_s, end_s=end_s, score=best)
