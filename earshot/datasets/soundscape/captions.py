"""A grammar from claims to sentences: several wordings for each, some kept from training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from earshot.datasets.soundscape.claims import Claim, Mention, Relation, Times, relations
from earshot.datasets.soundscape.scene import Event, SceneSpec
from earshot.datasets.soundscape.words import WORDS

CAPTIONS = 5
# A frame's slots: {n0}, {n1} are noun phrases, {c0}, {c1} clauses of the first and second mention.
Frames = Mapping[Relation, Sequence[str]]
FRAMES: Frames = {
    "is": ("{n0}", "{c0}", "the sound of {n0}", "{n0} can be heard", "{c0} nearby"),
    "and": ("{n0} and {n1}", "{c0} and {c1}", "{n0} along with {n1}", "there is {n0} and {n1}"),
    "then": (
        "{n0} then {n1}",
        "{c0}, then {c1}",
        "{n0} followed by {n1}",
        "{c1} after {c0}",
        "{n1} after {n0}",
        "first {n0} and then {n1}",
    ),
    "while": (
        "{c0} while {c1}",
        "{c0} as {c1}",
        "{n0} and {n1} at the same time",
        "{n0} during {n1}",
        "{c1} while {c0}",
    ),
    "behind": (
        "{n0} with {n1} in the background",
        "{c0} with {n1} in the background",
        "{c0} while {c1} in the background",
        "{n1} in the background and {n0}",
    ),
    "without": ("{n0} without {n1}", "{c0} but no {b1}", "{n0} and no {b1}"),
}
NEW_FRAMES: Frames = {
    "is": ("one hears {n0}", "a recording of {n0}", "at some point {c0}"),
    "and": ("{n0} as well as {n1}", "both {n0} and {n1}", "{n0} plus {n1}"),
    "then": ("{n0} before {n1}", "{c0}, afterwards {c1}", "{n1} preceded by {n0}"),
    "while": ("{n0} simultaneous with {n1}", "meanwhile {c0} and {c1}"),
    "behind": ("{n0} against a backdrop of {n1}", "{c0}, behind it {n1}", "{n1} far off and {n0}"),
    "without": ("{n0} in the absence of {n1}", "{c0}, not a trace of {n1}"),
}
# Adjectives by trait and end of its scale; the second list is kept from training.
Adjectives = Mapping[tuple[str, bool], tuple[Sequence[str], Sequence[str]]]
ADJECTIVES: Adjectives = {
    ("pitch", True): (("high-pitched", "high"), ("squeaky-toned", "treble")),
    ("pitch", False): (("low-pitched", "deep", "low"), ("bassy", "sonorous")),
    ("rate", True): (("fast", "rapid", "quick"), ("speedy", "brisk")),
    ("rate", False): (("slow",), ("unhurried", "leisurely")),
    ("brightness", True): (("bright", "crisp", "sharp"), ("treble-rich", "piercing")),
    ("brightness", False): (("muffled", "dull", "dark"), ("woolly", "murky")),
    ("loudness", True): (("loud",), ("noisy", "booming")),
    ("loudness", False): (("quiet", "faint", "soft"), ("hushed", "subdued")),
}
# Where "fast" is not what people say of more per second.
DENSITY: Adjectives = {
    ("rate", True): (("heavy", "dense"), ("torrential", "thick")),
    ("rate", False): (("light", "sparse"), ("thin", "scant")),
}
DENSE = frozenset({"rain", "applause", "fire"})
ADVERBS: Adjectives = {
    ("loudness", True): (("loudly",), ("at full volume",)),
    ("loudness", False): (("quietly", "softly", "faintly"), ("in a hush",)),
    ("pitch", True): (("at a high pitch",), ("up in the treble",)),
    ("pitch", False): (("at a low pitch",), ("down in the bass",)),
    ("rate", True): (("quickly", "rapidly"), ("at a brisk pace",)),
    ("rate", False): (("slowly",), ("at a leisurely pace",)),
}
TIMES: Mapping[Times, tuple[Sequence[str], Sequence[str]]] = {
    "twice": (("twice", "two times"), ("on two occasions",)),
    "three times": (("three times",), ("thrice",)),
    "several times": (("several times", "repeatedly", "again and again"), ("over and over",)),
}
PLAIN_SHARE, TRAIT_SHARE = 0.4, 0.65
NEW_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneCaption:
    """A sentence, what it claims, and whether it has words that training never reads."""

    text: str
    claim: Claim
    new_words: bool


class Wording:
    """Chooses among wordings; held-out ones only where they are allowed."""

    def __init__(self, random: np.random.Generator, new_share: float) -> None:
        self.random, self.new_share = random, new_share
        self.new_words = False

    def pick(self, usual: Sequence[str], new: Sequence[str]) -> str:
        """One of the wordings, remembered if it is a held-out one."""
        if self.new_share and new and self.random.random() < self.new_share:
            self.new_words = True
            return new[int(self.random.integers(len(new)))]
        return usual[int(self.random.integers(len(usual)))]


def new_share(split: str) -> float:
    """How many of a split's choices among wordings are held-out ones."""
    return NEW_SHARE if split == "test" else 0.0


def sentence(claim: Claim, random: np.random.Generator, share: float) -> SceneCaption:
    """One wording of a claim."""
    wording = Wording(random, share)
    frame = wording.pick(FRAMES[claim.relation], NEW_FRAMES[claim.relation])
    slots = {}
    for number, mention in enumerate(claim.mentions):
        if f"{{n{number}}}" in frame:
            slots[f"n{number}"] = noun(mention, wording)
        if f"{{c{number}}}" in frame:
            slots[f"c{number}"] = clause(mention, wording)
        if f"{{b{number}}}" in frame:
            slots[f"b{number}"] = bare(noun(mention, wording))
    return SceneCaption(text=frame.format(**slots), claim=claim, new_words=wording.new_words)


def noun(mention: Mention, wording: Wording) -> str:
    """A noun phrase, with its trait as an adjective: "a high-pitched barking dog"."""
    words = WORDS[mention.name]
    phrase = wording.pick(words.nouns, words.new_nouns)
    if mention.trait:
        key = (mention.trait, mention.high)
        dense = mention.name in DENSE and mention.trait == "rate"
        adjective = wording.pick(*(DENSITY if dense else ADJECTIVES)[key])
        article = "an" if adjective[0] in "aeiou" else "a"
        has_article = phrase.startswith(("a ", "an "))
        phrase = f"{article} {adjective} {bare(phrase)}" if has_article else f"{adjective} {phrase}"
    return f"{phrase} {wording.pick(*TIMES[mention.times])}" if mention.times else phrase


def clause(mention: Mention, wording: Wording) -> str:
    """A clause, with its trait as an adverb: "a dog barks loudly twice"."""
    words = WORDS[mention.name]
    dense = mention.name in DENSE and mention.trait == "rate"
    if mention.trait and (dense or (mention.trait, mention.high) not in ADVERBS):
        return f"there is {noun(mention, wording)}"
    phrase = wording.pick(words.clauses, words.new_clauses)
    if mention.trait:
        phrase += f" {wording.pick(*ADVERBS[mention.trait, mention.high])}"
    return f"{phrase} {wording.pick(*TIMES[mention.times])}" if mention.times else phrase


def bare(phrase: str) -> str:
    """A noun phrase without its article."""
    return phrase.removeprefix("an ").removeprefix("a ")


def captions(scene: SceneSpec) -> tuple[SceneCaption, ...]:
    """Five different captions, each about a part of what is heard."""
    random = np.random.default_rng((scene.seed, 1))
    out: dict[str, SceneCaption] = {}
    for _ in range(12 * CAPTIONS):
        caption = sentence(claim_about(scene, random), random, new_share(scene.split))
        out.setdefault(caption.text, caption)
        if len(out) == CAPTIONS:
            return tuple(out.values())
    raise AssertionError(f"{scene.id}: the grammar has too few sentences")


def claim_about(scene: SceneSpec, random: np.random.Generator) -> Claim:
    """Something true: mostly how two events relate, the foreground rather than the background."""
    pairs = list(relations(scene))
    if not pairs or random.random() < PLAIN_SHARE:
        event = scene.events[int(random.integers(len(scene.events)))]
        return Claim(relation="is", mentions=(describe(event, random),))
    # Plain "and" is the last resort: people say how things relate.
    related = [pair for pair in pairs if pair[0] != "and" or random.random() < 0.3] or pairs
    relation, first, second = related[int(random.integers(len(related)))]
    plainly = describe(second, random) if random.random() < 0.4 else Mention(name=second.source)
    return Claim(relation=relation, mentions=(describe(first, random), plainly))


def describe(event: Event, random: np.random.Generator) -> Mention:
    """A true mention of an event, with a trait or a number of times more often than not."""
    mention = Mention(name=event.source)
    if event.count > 1 and random.random() < 0.5:
        mention = replace(mention, times=times_of(event.count, random))
    if random.random() < TRAIT_SHARE:
        traits = (*event.traits, ("loudness", event.loud))
        trait, high = traits[int(random.integers(len(traits)))]
        mention = replace(mention, trait=trait, high=high)
    return mention


def times_of(count: int, random: np.random.Generator) -> Times:
    """How people say how often."""
    if count == 2:
        return "twice"
    return "three times" if count == 3 and random.random() < 0.5 else "several times"
