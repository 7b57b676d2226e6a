"""Hits as players in a notebook: each moment is cut out and lies in the page itself.

Nothing has to be served, so a notebook that is passed on still plays. What it holds is bounded by
`MOST_CLIPS` and `MOST_S`.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from earshot import audio
from earshot.types import Answer, AudioError, EarshotError, Hit

MOST_CLIPS = 20
MOST_S = 15.0
# 32 kB a second: what speech and most sounds need to be told apart.
RATE_HZ = 16_000


@dataclass(frozen=True, slots=True)
class Players:
    """Hits that a notebook shows as players."""

    hits: tuple[Hit, ...]

    def _repr_html_(self) -> str:
        shown = self.hits[:MOST_CLIPS]
        rows = "".join(player(rank, hit) for rank, hit in enumerate(shown, 1))
        rest = len(self.hits) - len(shown)
        more = f"<p>and {rest} more</p>" if rest else ""
        return f"<table>{rows}</table>{more}" if rows else "<p>no recording matches</p>"


def players(found: Answer | Sequence[Hit]) -> Players:
    """Show an answer, or hits, as players of their best moments when a notebook displays it."""
    return Players(found.hits if isinstance(found, Answer) else tuple(found))


def player(rank: int, hit: Hit) -> str:
    """A row of a table: rank, score, file, seconds, and what plays; or why nothing does."""
    try:
        sound = f'<audio controls preload="none" src="data:audio/wav;base64,{excerpt(hit)}">'
    except AudioError as error:
        sound = escape(error.reason)
    certainty = f"{hit.score:.3f}" if hit.probability is None else f"{hit.probability:.0%}"
    return (
        f"<tr><td>{rank}</td><td>{certainty}</td><td title='{escape(hit.path)}'>"
        f"{escape(Path(hit.path).name)}</td><td>{hit.start_s:.1f}–{hit.end_s:.1f} s</td>"
        f"<td>{sound}</td></tr>"
    )


def excerpt(hit: Hit) -> str:
    """The best moment, its first `MOST_S` seconds, as WAV of 16 bits in base64.

    Raises:
        AudioError: the file cannot be read any more.
    """
    import soundfile

    duration_s = min(hit.end_s - hit.start_s, MOST_S)
    if duration_s <= 0:
        raise EarshotError(f"{hit.path}: a moment from {hit.start_s} to {hit.end_s} s is no span")
    wave = audio.read(hit.path, sample_rate_hz=RATE_HZ, start_s=hit.start_s, duration_s=duration_s)
    file = io.BytesIO()
    soundfile.write(file, np.clip(wave, -1, 1), RATE_HZ, format="WAV", subtype="PCM_16")
    return b64encode(file.getvalue()).decode("ascii")
