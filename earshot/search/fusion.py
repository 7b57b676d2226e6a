"""Sound and words in one score: how much a file's name, tags and notes count beside its sound.

The constants stand together here, to be fitted by measurement.
"""

from __future__ import annotations

import re

import numpy as np

# Standard deviations of sound that a file is worth whose words answer the whole query, by the
# number of words: what is said in one word is often the file's name, a sentence seldom is.
WEIGHTS = (2.5, 2.5, 2.0, 1.5)
WEIGHT_OF_SENTENCES = 1.0
# What sets files of equal shares apart at most.
APART = 0.01


def word_count(query: str) -> int:
    """How many words a query has."""
    return len(re.findall(r"\w+", query))


def word_weight(words: int) -> float:
    """What words are worth beside sound, in standard deviations, for a query of so many."""
    return WEIGHTS[max(words, 1) - 1] if words <= len(WEIGHTS) else WEIGHT_OF_SENTENCES


def by_words_alone(share: float, bm25: float) -> float:
    """The score of a file found by words alone: its share, then how much its words weigh."""
    return share + APART * (1.0 - 1.0 / (1.0 + bm25))


def fuse(
    sound_scores: np.ndarray, word_shares: np.ndarray, words: int, deviation: float
) -> np.ndarray:
    """Scores (N,) of clips by sound and words; without matching words they are those of sound.

    Args:
        sound_scores: (N,), on the scale of cosines.
        word_shares: (N,), how much of the query each clip's words answer, 0 to 1.
        words: how many words the query has.
        deviation: the standard deviation of the library's cosines with the query.
    """
    fused: np.ndarray = sound_scores + deviation * word_weight(words) * word_shares
    return fused
