"""Sound and words in one score: how much a file's name, tags and notes count beside its sound.

What the weight was chosen by: `benchmarks/search_quality.py`.
"""

from __future__ import annotations

import numpy as np

# Standard deviations of sound that a file is worth whose words answer the whole query. One word
# and a sentence turned out to need the same: what a query's other words are worth, the share says.
WORD_WEIGHT = 6.0
# What sets files of equal shares apart at most.
APART = 0.01


def by_words_alone(shares: np.ndarray, bm25: np.ndarray) -> np.ndarray:
    """Scores (N,) of files found by words alone: shares (N,), then how much their words weigh."""
    return shares + APART * (1.0 - 1.0 / (1.0 + bm25))


def fuse(sound_scores: np.ndarray, word_shares: np.ndarray, deviation: float) -> np.ndarray:
    """Scores (N,) of clips by sound and words; without matching words they are those of sound.

    Args:
        sound_scores: (N,), on the scale of cosines.
        word_shares: (N,), how much of the query each clip's words answer, 0 to 1.
        deviation: the standard deviation of the library's cosines with the query.
    """
    fused: np.ndarray = sound_scores + deviation * WORD_WEIGHT * word_shares
    return fused
