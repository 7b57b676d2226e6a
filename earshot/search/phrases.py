"""What a sentence asks for: the sounds that it names, and those that it rules out.

Rules of plain patterns, no parser: a wrong cut only makes a phrase that is asked beside the whole
sentence, and a sentence without such words is one phrase.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Longest first, so that "followed by" is not cut at "by" and "and then" is one joint.
JOINTS = (
    "at the same time as",
    "in the background of",
    "accompanied by",
    "followed by",
    "together with",
    "along with",
    "as well as",
    "and then",
    "mixed with",
    "over the sound of",
    "and",
    "then",
    "while",
    "with",
    "during",
    "before",
    "after",
    "plus",
    "as",
)
# What says how sounds lie to each other, and names none.
ASIDES = (
    "in the (?:background|distance|foreground)",
    "at the same time",
    "there (?:is|are)",
    "first",
    "both",
)
# What rules a sound out. Other wordings ("quiet apart from") are not understood.
EXCLUDING = re.compile(
    r"(?:[,;]|\b)\s*(?:(?:and|but|with)\s+)*"
    r"(?:without|no|not (?:a|any) (?:trace|sign|sound) of|in the absence of)\s+"
    r"(?:(?:any|a|an|the|sounds? of)\s+)*(?P<sound>[^,;.]+?)"
    r"(?=\s*(?:[,;.]|\b(?:and|or|nor|but)\b|$))",
    re.IGNORECASE,
)
MORE_EXCLUDED = re.compile(
    r"^\s*,?\s*(?:or|nor)\s+(?:(?:any|a|an|the)\s+)*(?P<sound>[^,;.]+?)"
    r"(?=\s*(?:[,;.]|\b(?:and|or|nor|but)\b|$))",
    re.IGNORECASE,
)
# Words that speak of what was named before: what is cut off with them is no sound by itself.
_ANAPHOR = re.compile(r"\b(?:he|she|it|they|his|her|its|their)\b", re.IGNORECASE)
_JOINT = re.compile(r"\s*(?:[,;]|\b(?:" + "|".join(JOINTS) + r")\b|[,;.]\s*)\s*", re.IGNORECASE)
_ASIDE = re.compile(r"\b(?:" + "|".join(ASIDES) + r")\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A sentence taken apart: what is left of it, its phrases, and what it rules out."""

    text: str
    phrases: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @property
    def sounds(self) -> tuple[str, ...]:
        """The sentences to look for: the whole, and its phrases where there are several."""
        return (self.text, *self.phrases) if len(self.phrases) > 1 else self.phrases


def take_apart(text: str) -> Asked:
    """The sounds that a sentence names; one that only rules out has an empty rest."""
    rest, excluded = text, []
    while match := EXCLUDING.search(rest):
        excluded.append(match["sound"].strip())
        end = match.end()
        while more := MORE_EXCLUDED.match(rest[end:]):
            excluded.append(more["sound"].strip())
            end += more.end()
        rest = f"{rest[: match.start()]} {rest[end:]}"
    rest = re.sub(r"\s+", " ", rest).strip(" ,;.")
    return Asked(text=rest, phrases=phrases_of(rest) if rest else (), without=tuple(excluded))


def phrases_of(text: str) -> tuple[str, ...]:
    """The phrases of a sentence that rules nothing out; a plain one is its only phrase.

    So is one whose parts speak of each other: "a man washes and dries his hands".
    """
    bare = re.sub(r"\s+", " ", _ASIDE.sub(" ", text)).strip()
    parts = [part.strip(" .,;") for part in _JOINT.split(bare)]
    named = tuple(dict.fromkeys(part for part in parts if re.search(r"\w", part)))
    return (text,) if len(named) < 2 or any(map(_ANAPHOR.search, named)) else named
