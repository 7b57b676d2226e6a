"""Charts of a report as inline SVG, coloured by the page's style sheet, legible without scripts.

A chart is drawn in units of 400 x 230 and scales with its box. Series are told apart by class
`s0`, `s1`, ... and, for readers who do not see colours, by a title on each mark.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT = 400, 230
LEFT, RIGHT, TOP, BOTTOM = 54, 18, 10, 40
SERIES = 6  # colours that the style sheet has


def recall_curve(names: Sequence[str], curves: Sequence[np.ndarray]) -> str:
    """R@k over k, from 1, of each system: the share of queries with a hit among the first k."""
    depth = max(len(curve) for curve in curves)
    marks = [_grid([0, 0.25, 0.5, 0.75, 1], "R@k")]
    marks += [_x_label(_x(k, depth), str(k)) for k in _ticks(depth)]
    for number, (name, curve) in enumerate(zip(names, curves, strict=True)):
        points = " ".join(f"{_x(k, depth):.1f},{_y(share):.1f}" for k, share in enumerate(curve, 1))
        title = f"{name}: R@1 {curve[0]:.3f}, R@{len(curve)} {curve[-1]:.3f}"
        marks.append(
            f'<polyline class="line s{number % SERIES}" points="{points}">'
            f"<title>{escape(title)}</title></polyline>"
        )
        if len(curve) == 1:
            x, y = _x(1, depth), _y(float(curve[0]))
            marks.append(f'<circle class="s{number % SERIES}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    return _svg("Share of queries with a hit among the first k", [*marks, _x_title("k")])


def bars(
    title: str, labels: Sequence[str], names: Sequence[str], shares: Sequence[np.ndarray]
) -> str:
    """Grouped bars: a share per label and system."""
    highest = max(float(np.max(share)) for share in shares) or 1.0
    marks = [_grid([0, highest / 2, highest], "share of queries", highest)]
    slot = (WIDTH - LEFT - RIGHT) / len(labels)
    width = 0.8 * slot / len(names)
    for place, label in enumerate(labels):
        start = LEFT + place * slot
        marks.append(_x_label(start + slot / 2, label))
        for number, (name, share) in enumerate(zip(names, shares, strict=True)):
            x, y = start + 0.1 * slot + number * width, _y(share[place] / highest)
            marks.append(
                f'<rect class="s{number % SERIES}" x="{x:.1f}" y="{y:.1f}" '
                f'width="{max(width - 1, 1):.1f}" height="{_y(0) - y:.1f}">'
                f"<title>{escape(f'{name}, {label}: {share[place]:.1%}')}</title></rect>"
            )
    return _svg(title, [*marks, _x_title("rank of the first relevant clip")])


def distributions(edges: np.ndarray, matches: np.ndarray, others: np.ndarray) -> str:
    """How scores of matches and of non-matches are distributed: shares per bin, (bins,) each."""
    highest = max(float(matches.max()), float(others.max())) or 1.0
    marks = [_grid([0, highest / 2, highest], "share", highest)]
    low, high = float(edges[0]), float(edges[-1])
    marks += [_x_label(_between(x, low, high), f"{x:.2f}") for x in np.linspace(low, high, 5)]
    for name, share in (("other", others), ("match", matches)):
        steps = [f"M{_between(edges[0], low, high):.1f},{_y(0):.1f}"]
        for i, value in enumerate(share):
            y = _y(value / highest)
            steps.append(f"L{_between(edges[i], low, high):.1f},{y:.1f}")
            steps.append(f"L{_between(edges[i + 1], low, high):.1f},{y:.1f}")
        steps.append(f"L{_between(edges[-1], low, high):.1f},{_y(0):.1f}Z")
        marks.append(f'<path class="area {name}" d="{"".join(steps)}"/>')
    return _svg("Scores of matches and of all other pairs", [*marks, _x_title("score")])


def _svg(title: str, marks: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(marks)}</svg>"
    )


def _grid(shares: Sequence[float], name: str, highest: float = 1.0) -> str:
    lines = []
    for share in shares:
        y = _y(share / highest)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        lines.append(f'<text class="end" x="{LEFT - 5}" y="{y + 4:.1f}">{share:.0%}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turn = f'transform="rotate(-90 10 {middle})"'
    return "".join(lines) + f'<text class="mid" x="10" y="{middle}" {turn}>{escape(name)}</text>'


def _x_label(x: float, text: str) -> str:
    return f'<text class="mid" x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}">{escape(text)}</text>'


def _x_title(text: str) -> str:
    middle = (LEFT + WIDTH - RIGHT) / 2
    return f'<text class="mid" x="{middle}" y="{HEIGHT - 6}">{escape(text)}</text>'


def _ticks(depth: int) -> list[int]:
    return sorted({k for k in (1, 5, 10, 20, 50, 100) if k < 0.9 * depth or k == 1} | {depth})


def _x(k: int, depth: int) -> float:
    """Places are spread by their square root: the first few matter most."""
    return LEFT + (WIDTH - LEFT - RIGHT) * float(np.sqrt((k - 1) / max(1, depth - 1)))


def _y(share: float) -> float:
    return float(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share)


def _between(value: float, low: float, high: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / ((high - low) or 1.0)
