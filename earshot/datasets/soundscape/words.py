"""What people call the sounds: noun phrases and clauses, and those that training never reads.

The words stand in `words.csv`, several to a field between semicolons: one row for each source and
for each category that queries may name.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from earshot.datasets.soundscape.sources import SOURCES


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The words for one thing: in training captions, and held out for the test."""

    nouns: tuple[str, ...]
    clauses: tuple[str, ...]
    new_nouns: tuple[str, ...]
    new_clauses: tuple[str, ...]


def read_words(path: Path) -> dict[str, Words]:
    """The table of words by name."""
    with path.open(encoding="utf-8", newline="") as file:
        return {
            row.pop("name"): Words(
                **{field: tuple(text.split("; ")) for field, text in row.items()}
            )
            for row in csv.DictReader(file)
        }


WORDS: Mapping[str, Words] = read_words(Path(__file__).with_name("words.csv"))
CATEGORIES = frozenset(WORDS) - frozenset(SOURCES)
