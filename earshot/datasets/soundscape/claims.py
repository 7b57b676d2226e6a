"""What may be said of a scene, and whether it is true.

A `Claim` is the meaning of a caption or a query. `holds` decides it from the description alone, so
that the relevant scenes of a query are all known. It answers None where listeners could disagree; a
query with such a scene is not asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from earshot.datasets.soundscape.scene import Event, SceneSpec
from earshot.datasets.soundscape.sources import SOURCES

Relation = Literal["is", "and", "then", "while", "behind", "without"]
Times = Literal["", "twice", "three times", "several times"]
# "Several" begins at three: no listener says it of two, none denies it of three.
COUNTS: dict[Times, tuple[int, int]] = {
    "twice": (2, 2),
    "three times": (3, 3),
    "several times": (3, 99),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """A source, or a category of sources, with at most one trait and one number of times.

    `trait` is one of the source's attributes or "loudness", `high` which end of it is meant.
    """

    name: str
    trait: str = ""
    high: bool = False
    times: Times = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One mention, or two in a relation, such as first then second, first with second behind it."""

    relation: Relation
    mentions: tuple[Mention, ...]


def fits(mention: Mention, event: Event) -> bool:
    """Whether an event is what a mention speaks of."""
    if mention.name not in (event.source, *SOURCES[event.source].kinds):
        return False
    if mention.times:
        low, high = COUNTS[mention.times]
        if not low <= event.count <= high:
            return False
    if mention.trait == "loudness":
        return event.loud is mention.high
    return not mention.trait or dict(event.traits).get(mention.trait) is mention.high


def holds(claim: Claim, scene: SceneSpec) -> bool | None:
    """Whether a claim is true of a scene, or None where listeners could disagree."""
    first = [event for event in scene.everything if fits(claim.mentions[0], event)]
    if claim.relation == "is" or not first:
        return bool(first)
    second = [event for event in scene.everything if fits(claim.mentions[1], event)]
    if claim.relation == "without":
        return not second
    pairs = [(a, b) for a in first for b in second if a is not b]
    if claim.relation == "behind":
        if any(b is scene.background for _, b in pairs):
            return True
        # Something loud that merely lasts longer: some would call it the background.
        return (
            None if any(b.start_s <= a.start_s and a.end_s <= b.end_s for a, b in pairs) else False
        )
    return any(related(claim.relation, a, b) for a, b in pairs)


def related(relation: Relation, first: Event, second: Event) -> bool:
    """Whether two events are heard one with, after or during the other."""
    if relation == "then":
        return first.end_s <= second.start_s
    if relation == "while":
        return first.start_s < second.end_s and second.start_s < first.end_s
    return relation == "and"


def relations(scene: SceneSpec) -> Iterator[tuple[Relation, Event, Event]]:
    """What can be said of every ordered pair of a scene's events."""
    for first in scene.events:
        for second in scene.everything:
            if first is second:
                continue
            yield "and", first, second
            if second is scene.background:
                yield "behind", first, second
            if related("then", first, second):
                yield "then", first, second
            elif related("while", first, second):
                yield "while", first, second
