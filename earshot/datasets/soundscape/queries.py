"""Queries with all their relevant scenes.

A query is a claim in words. Its relevant scenes are those of which the claim is true, found by
asking every scene that could be one; a claim on which listeners could disagree about any scene, or
that is true of too large a part of them, is not asked. So nothing is a false negative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from earshot.datasets.soundscape.captions import describe, new_share, sentence, times_of
from earshot.datasets.soundscape.claims import Claim, Mention, holds, relations
from earshot.datasets.soundscape.scene import SceneSpec, held_out
from earshot.datasets.soundscape.sources import SOURCES
from earshot.datasets.soundscape.words import CATEGORIES

# A query that fits more than this part of the scenes tells systems apart no longer.
MOST_RELEVANT = 0.4
PER_KIND = 30
TRIES_PER_QUERY = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneQuery:
    """A query; `relevant` are the ids of all scenes that it fits.

    `new_pair`: its two sources never meet in training; `new_words`: training never reads them.
    """

    text: str
    kind: str
    claim: Claim
    relevant: frozenset[str]
    new_pair: bool
    new_words: bool


class Scenes:
    """Scenes by the sources and categories in them."""

    def __init__(self, scenes: Sequence[SceneSpec]) -> None:
        self.all = tuple(scenes)
        self.by_name: dict[str, list[SceneSpec]] = {}
        for scene in scenes:
            names = {n for e in scene.everything for n in (e.source, *SOURCES[e.source].kinds)}
            for name in names:
                self.by_name.setdefault(name, []).append(scene)

    def relevant(self, claim: Claim) -> frozenset[str] | None:
        """The ids of all scenes that a claim is true of, or None where one of them is unclear."""
        judged = self.judge(claim)
        return (
            None if None in judged.values() else frozenset(k for k, true in judged.items() if true)
        )

    def true_of(self, claim: Claim) -> frozenset[str]:
        """The ids of all scenes that a claim is true of, leaving out those that are unclear."""
        return frozenset(name for name, true in self.judge(claim).items() if true)

    def judge(self, claim: Claim) -> dict[str, bool | None]:
        """Whether a claim is true, for each scene that it could be true of."""
        return {s.id: holds(claim, s) for s in self.by_name.get(claim.mentions[0].name, ())}


Draw = Callable[[SceneSpec, np.random.Generator], Claim | None]


def queries(
    scenes: Sequence[SceneSpec], split: str, seed: int, per_kind: int = PER_KIND
) -> tuple[SceneQuery, ...]:
    """Up to `per_kind` different queries of every kind, each with at least one relevant scene."""
    table = Scenes(scenes)
    out: list[SceneQuery] = []
    texts: set[str] = set()
    for number, (kind, draw) in enumerate(KINDS.items()):
        random = np.random.default_rng((seed, number, 2))
        for query in islice(asked(kind, draw, table, split, random), per_kind):
            if query.text not in texts:
                texts.add(query.text)
                out.append(query)
    return tuple(out)


def asked(
    kind: str, draw: Draw, table: Scenes, split: str, random: np.random.Generator
) -> Iterator[SceneQuery]:
    """Different claims about random scenes that every listener would judge alike, in words."""
    seen: set[Claim] = set()
    for _ in range(TRIES_PER_QUERY * PER_KIND):
        claim = draw(table.all[int(random.integers(len(table.all)))], random)
        if claim is None or claim in seen:
            continue
        seen.add(claim)
        relevant = table.relevant(claim)
        if not relevant or len(relevant) > max(1, MOST_RELEVANT * len(table.all)):
            continue
        worded = sentence(claim, random, new_share(split))
        names = [mention.name for mention in claim.mentions]
        yield SceneQuery(
            text=worded.text,
            kind=kind,
            claim=claim,
            relevant=relevant,
            new_pair=set(names) <= set(SOURCES) and len(names) == 2 and held_out(*names),
            new_words=worded.new_words,
        )


def source_alone(scene: SceneSpec, random: np.random.Generator) -> Claim | None:
    """Some source of the scene."""
    event = scene.everything[int(random.integers(len(scene.everything)))]
    return Claim(relation="is", mentions=(Mention(name=event.source),))


def source_with_trait(scene: SceneSpec, random: np.random.Generator) -> Claim | None:
    """An event with one of its traits, loudness among them."""
    event = scene.events[int(random.integers(len(scene.events)))]
    mention = replace(describe(event, random), times="")
    return Claim(relation="is", mentions=(mention,)) if mention.trait else None


def repeated(scene: SceneSpec, random: np.random.Generator) -> Claim | None:
    """Something that sounds twice, three times or several times."""
    several = [event for event in scene.events if event.count > 1]
    if not several:
        return None
    event = several[int(random.integers(len(several)))]
    mention = Mention(name=event.source, times=times_of(event.count, random))
    return Claim(relation="is", mentions=(mention,))


def category(scene: SceneSpec, random: np.random.Generator) -> Claim | None:
    """A category that an event belongs to, alone or in relation to another source."""
    event = scene.events[int(random.integers(len(scene.events)))]
    kinds = [kind for kind in SOURCES[event.source].kinds if kind in CATEGORIES]
    if not kinds:
        return None
    mention = Mention(name=kinds[int(random.integers(len(kinds)))])
    links = [link for link in relations(scene) if link[1] is event]
    if not links or random.random() < 0.3:
        return Claim(relation="is", mentions=(mention,))
    relation, _, other = links[int(random.integers(len(links)))]
    return Claim(relation=relation, mentions=(mention, Mention(name=other.source)))


def related_as(relation: str) -> Draw:
    """Two sources in a certain relation."""

    def draw(scene: SceneSpec, random: np.random.Generator) -> Claim | None:
        links = [link for link in relations(scene) if link[0] == relation]
        if not links:
            return None
        name, first, second = links[int(random.integers(len(links)))]
        pair = (Mention(name=first.source), Mention(name=second.source))
        return Claim(relation=name, mentions=pair)

    return draw


def without(scene: SceneSpec, random: np.random.Generator) -> Claim | None:
    """A source or category, without another that it meets in this very scene."""
    links = [link for link in relations(scene) if link[0] == "and"]
    if not links:
        return None
    _, first, second = links[int(random.integers(len(links)))]
    names = []
    for event in (first, second):
        kinds = [kind for kind in SOURCES[event.source].kinds if kind in CATEGORIES]
        names.append(kinds[0] if kinds and random.random() < 0.6 else event.source)
    if names[0] == names[1]:
        return None
    return Claim(relation="without", mentions=(Mention(name=names[0]), Mention(name=names[1])))


KINDS: Mapping[str, Draw] = {
    "source": source_alone,
    "attribute": source_with_trait,
    "repetition": repeated,
    "category": category,
    "together": related_as("and"),
    "order": related_as("then"),
    "during": related_as("while"),
    "background": related_as("behind"),
    "without": without,
}
