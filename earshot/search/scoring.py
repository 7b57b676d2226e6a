"""How well clips answer what is asked of their sound: pure functions of cosines.

One idea: cosines of different queries do not compare, so each counts in standard deviations above
what the library's segments have with that query. Several wanted sounds join by a soft minimum, a
clip must have all of them; excluded ones take away as far as they stand out. The result is put back
on the scale of the first wanted sound's cosines, so that the score of a plain query is its cosine.
What the constants were chosen by: `benchmarks/combination.py`.

Axis legend: W wanted and X excluded sounds, N clips (or segments), B segments of the background,
D embedding dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# How much the whole sentence counts beside its phrases: a wrong cut ("pots and pans are banged")
# costs little, and soundscapes lose as little against phrases alone.
SENTENCE = 0.35
# Standard deviations over which the soft minimum looks beyond the weakest sound.
SOFTNESS = 1.0
# An excluded sound counts from so many standard deviations on; below, everything has a little.
HEARD_FROM = 1.0
EXCLUSION = 1.0
# Disliked recordings differ less from what is wanted than excluded words do.
DISLIKE = 0.1
# Rocchio's feedback: how much the disliked take from the mean of the liked.
DISLIKED_SHARE = 0.5
# Where all of a library sounds alike, or it is empty.
LEAST_DEVIATION = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """What cosines a library's segments have with queries: `mean` and `deviation`, each (Q,)."""

    mean: np.ndarray
    deviation: np.ndarray

    def of(self, queries: slice) -> Background:
        """The background of some of the queries."""
        return Background(mean=self.mean[queries], deviation=self.deviation[queries])

    def z(self, cosines: np.ndarray) -> np.ndarray:
        """Cosines (Q, N) in standard deviations above the mean."""
        z: np.ndarray = (cosines - self.mean[:, None]) / self.deviation[:, None]
        return z


def background_of(segments: np.ndarray, queries: np.ndarray) -> Background:
    """The background of queries (Q, D) in segments' vectors (B, D), of which there may be none."""
    if not len(segments):
        return Background(mean=np.zeros(len(queries)), deviation=np.ones(len(queries)))
    cosines = (segments @ queries.T).astype(np.float64)
    deviation = np.maximum(cosines.std(0), LEAST_DEVIATION)
    return Background(mean=cosines.mean(0), deviation=deviation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the rows of a question's vectors are: `wanted` sounds, then excluded ones.

    `exclusion` is how much each of those takes away. `sentence` says that the first row is a whole
    sentence and the next ones are its phrases.
    """

    wanted: int
    exclusion: tuple[float, ...] = ()
    sentence: bool = False


def evidence(cosines: np.ndarray, parts: Parts, background: Background) -> np.ndarray:
    """How far clips stand out, (N,) in standard deviations.

    Args:
        cosines: (W + X, N), each clip's best with every sound. Minus infinity for an excluded
            sound says that it is not there.
        parts: which row is what; at least one is wanted.
        background: of the same W + X queries.
    """
    z = background.z(cosines)
    wanted, excluded = z[: parts.wanted], z[parts.wanted :]
    if parts.sentence:
        found = SENTENCE * wanted[0] + (1 - SENTENCE) * soft_minimum(wanted[1:])
    else:
        found = soft_minimum(wanted)
    taken: np.ndarray = found - np.array(parts.exclusion) @ np.maximum(excluded - HEARD_FROM, 0.0)
    return taken


def soft_minimum(z: np.ndarray) -> np.ndarray:
    """A smooth minimum over the first axis of (W, N), between minimum and mean; of one, itself."""
    if len(z) == 1:
        first: np.ndarray = z[0]
        return first
    least = z.min(0)
    joined: np.ndarray = least - SOFTNESS * np.log(np.exp((least - z) / SOFTNESS).mean(0))
    return joined


def on_cosine_scale(evidence: np.ndarray, background: Background) -> np.ndarray:
    """Evidence (N,) as cosines with the first wanted sound would express it."""
    scaled: np.ndarray = evidence * background.deviation[0] + background.mean[0]
    return scaled
