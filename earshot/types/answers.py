"""What is asked of a library, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from earshot.types.library import Condition, WordMatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Neighbouring segments of a clip that match together; `score` is their best cosine."""

    start_s: float
    end_s: float
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """An answer to a query: a clip with its best moment, and why it is an answer.

    `score` is what hits are ordered by, higher is better. `probability` that the clip matches is
    None where the model is not calibrated. `sound` is the best segment's cosine with the query,
    None where words alone were asked; `words` are those that matched; `moments` are in order of
    their score, the first one is `start_s` to `end_s`; `copies` sound the same.
    """

    path: str
    score: float
    start_s: float
    end_s: float
    probability: float | None = None
    sound: float | None = None
    words: tuple[WordMatch, ...] = ()
    moments: tuple[Moment, ...] = ()
    copies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A sound to search by: a file, or the part of it from `start_s` to `end_s` (None: its end)."""

    path: str
    start_s: float = 0.0
    end_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a library: words, sounds, or both; what must not be heard; filters."""

    text: str = ""
    without: tuple[str, ...] = ()
    like: tuple[Example, ...] = ()
    unlike: tuple[Example, ...] = ()
    where: tuple[Condition, ...] = ()
    by: Literal["both", "sound", "words"] = "both"
    """Whether what files sound like counts, or the words of their names and tags, or both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Hits, best first.

    `found` is False where nothing in the library is likely to match: the hits are then the
    nearest that there are, and no answer.
    """

    hits: tuple[Hit, ...]
    found: bool = True
