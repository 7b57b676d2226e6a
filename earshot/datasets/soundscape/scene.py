"""Scenes: what happens when, drawn from a seed, and the sound of it.

`SceneSpec` is the whole truth about a scene: the audio is rendered from it, captions and relevance
are read off it. Nothing in it is a matter of opinion:

- An attribute is clearly low or clearly high, never in between (`PLACES`).
- Two events either follow each other, with a pause, or the one lies wholly within the other.
- What overlaps is of different kinds and differs in level, so that both are heard.
- A background lasts from end to end, far below everything else.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from earshot.datasets.soundscape.sources import LASTING_S, SOURCES, Source
from earshot.datasets.soundscape.synth import (
    RATE_HZ,
    Voice,
    Wave,
    coloured,
    peak,
    samples,
    swell,
    tilt,
)

SPLITS = ("train", "validation", "test")
# Where on its scale an attribute lies when it is low or high; the gap between is never used.
PLACES = {False: (0.0, 0.25), True: (0.75, 1.0)}
SHORTEST_S, LONGEST_S = 5.0, 10.0
PAUSE_S = (0.3, 0.9)
# How long one event may be in a scene of one, and what it may take however many there are.
MOST_ALONE_S, LEAST_S = 4.8, 2.4
# Levels of the loudest 50 ms in dB of full scale. 12 dB lie between quiet and loud, whatever else.
LOUD_DB, QUIET_DB, BELOW_DB, FLOOR_DB = -16.0, -30.0, -14.0, -68.0
LOUD_PEAK = 0.7
# What sounds within something lasting is this much louder than that.
WITHIN_DB = 5.0
# One in so many pairs of sources never meets outside the test split.
HELD_OUT_ONE_IN = 8
BACKGROUND_SHARE, WITHIN_SHARE, NOVEL_SHARE = 0.45, 0.4, 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A source that sounds for a while; `count` is how often, 0 for one that lasts.

    `traits` are the heard attributes and whether each is high; `level_db` is the level of the
    loudest moment, `loud` what a listener would say of it.
    """

    source: str
    start_s: float
    end_s: float
    count: int
    loud: bool
    level_db: float
    traits: tuple[tuple[str, bool], ...]
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSpec:
    """A scene; `events` in order of their starts, `background` below them or None."""

    id: str
    split: str
    duration_s: float
    events: tuple[Event, ...]
    background: Event | None
    seed: int

    @property
    def everything(self) -> tuple[Event, ...]:
        """The events and the background."""
        return (*self.events, self.background) if self.background else self.events


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """An event, and perhaps one within it, before they have a place in time."""

    outer: Event
    inner: Event | None = None


def held_out(first: str, second: str) -> bool:
    """Whether two sources never meet in training and validation."""
    return zlib.crc32("|".join(sorted((first, second))).encode()) % HELD_OUT_ONE_IN == 0


def novel(scene: SceneSpec) -> bool:
    """Whether the scene holds a pair of sources that training never does."""
    names = [event.source for event in scene.everything]
    return any(held_out(a, b) for i, a in enumerate(names) for b in names[:i])


def plan(split: str, seed: int, number: int) -> SceneSpec:
    """The description of one scene: a pure function of its split, seed and number."""
    key = (SPLITS.index(split), seed, number)
    random = np.random.default_rng(key)
    cast = choose(split, random)
    backdrop = choose_backdrop(split, cast, random)
    slots = arrange(cast, random)
    events, needed_s = place_slots(slots, random)
    # A background is heard where nothing covers it.
    free_s = random.uniform(1.0, 2.5) if backdrop else random.uniform(0.2, 1.2)
    duration_s = float(np.clip(round(needed_s + free_s, 2), SHORTEST_S, LONGEST_S))
    return SceneSpec(
        id=f"{split}-{seed}-{number:06d}",
        split=split,
        duration_s=duration_s,
        events=tuple(sorted(events, key=lambda event: event.start_s)),
        background=background(backdrop, duration_s, events, random) if backdrop else None,
        seed=int(random.integers(2**31)),
    )


def choose(split: str, random: np.random.Generator) -> list[Source]:
    """One to four different sources that may meet in this split."""
    wanted = int(random.choice((1, 2, 3, 4), p=(0.15, 0.35, 0.3, 0.2)))
    order = [list(SOURCES.values())[i] for i in random.permutation(len(SOURCES))]
    cast = order[:1]
    if split == "test" and wanted > 1 and random.random() < NOVEL_SHARE:
        cast += [s for s in order[1:] if held_out(s.name, cast[0].name)][:1]
    for source in order[1:]:
        if len(cast) < wanted and may_join(split, source, cast):
            cast.append(source)
    return cast


def choose_backdrop(
    split: str, cast: Sequence[Source], random: np.random.Generator
) -> Source | None:
    """Something to lie behind the scene, unlike all that is heard in it, or nothing."""
    if random.random() > BACKGROUND_SHARE:
        return None
    fitting = [
        source
        for source in SOURCES.values()
        if source.backdrop
        and may_join(split, source, cast)
        and not any(kin(source, other) for other in cast)
    ]
    return fitting[int(random.integers(len(fitting)))] if fitting else None


def may_join(split: str, source: Source, cast: Sequence[Source]) -> bool:
    """Whether a source is new to a cast and may meet all of it in this split."""
    if source in cast:
        return False
    return split == "test" or not any(held_out(source.name, other.name) for other in cast)


def kin(first: Source, second: Source) -> bool:
    """Whether two sources are of one kind, and might be taken for each other where they overlap."""
    return bool(set(first.kinds) & set(second.kinds))


def arrange(cast: Sequence[Source], random: np.random.Generator) -> list[Slot]:
    """Sources as slots, some within others; what the longest scene has no room for is left out."""
    slots: list[Slot] = []
    waiting = list(cast)
    room_s = LONGEST_S - 1.2
    longest_s = max(MOST_ALONE_S / len(cast), LEAST_S)
    while waiting:
        source = waiting.pop(0)
        outer = event_of(source, random, longest_s if slots else MOST_ALONE_S)
        if not outer or outer.end_s + PAUSE_S[1] > room_s:
            continue
        inside = next((s for s in waiting if not s.lasts and not kin(s, source)), None)
        inner = None
        if source.lasts and inside and random.random() < WITHIN_SHARE:
            inner = event_of(inside, random, longest_s=outer.end_s - 0.9)
        if inner and inside:
            waiting.remove(inside)
            inner = within(outer, inner, random)
        room_s -= outer.end_s + PAUSE_S[1]
        slots.append(Slot(outer=outer, inner=inner))
    return slots


def event_of(source: Source, random: np.random.Generator, longest_s: float) -> Event | None:
    """An event that starts at zero, or None if even one sounding is longer than `longest_s`."""
    traits = tuple((name, bool(random.integers(2))) for name in source.attributes)
    loud = bool(random.random() < 0.6)
    count = 0
    if source.lasts:
        if longest_s < LASTING_S[0]:
            return None
        seconds = float(random.uniform(LASTING_S[0], min(LASTING_S[1], longest_s)))
    else:
        fitting = [n for n in source.counts if span_s(source, n) <= longest_s]
        if not fitting:
            return None
        count = int(random.choice(fitting))
        seconds = span_s(source, count)
    return Event(
        source=source.name,
        start_s=0.0,
        end_s=round(seconds, 3),
        count=count,
        loud=loud,
        level_db=LOUD_DB if loud else QUIET_DB,
        traits=traits,
        seed=int(random.integers(2**31)),
    )


def span_s(source: Source, count: int) -> float:
    """How long so many soundings take."""
    return count * source.longest_s + (count - 1) * source.gap_s


def within(outer: Event, inner: Event, random: np.random.Generator) -> Event:
    """The inner event somewhere in the outer one, and above it."""
    length_s = inner.end_s
    start_s = float(random.uniform(0.4, max(0.4, outer.end_s - length_s - 0.4)))
    loud = inner.loud or outer.loud
    level_db = max(LOUD_DB if loud else QUIET_DB, outer.level_db + WITHIN_DB)
    return replace(inner, start_s=start_s, end_s=start_s + length_s, loud=loud, level_db=level_db)


def place_slots(slots: Sequence[Slot], random: np.random.Generator) -> tuple[list[Event], float]:
    """Slots one after the other with pauses: events at their times, and the end of the last."""
    at_s = float(random.uniform(0.1, 0.5))
    events: list[Event] = []
    for slot in slots:
        both = (slot.outer, slot.inner) if slot.inner else (slot.outer,)
        events += [
            replace(e, start_s=round(e.start_s + at_s, 3), end_s=round(e.end_s + at_s, 3))
            for e in both
        ]
        at_s += slot.outer.end_s + float(random.uniform(*PAUSE_S))
    return events, max(event.end_s for event in events)


def background(
    source: Source, duration_s: float, events: Sequence[Event], random: np.random.Generator
) -> Event:
    """A lasting source from end to end, below the quietest event."""
    return Event(
        source=source.name,
        start_s=0.0,
        end_s=duration_s,
        count=0,
        loud=False,
        level_db=min(event.level_db for event in events) + BELOW_DB,
        traits=tuple((name, bool(random.integers(2))) for name in source.attributes),
        seed=int(random.integers(2**31)),
    )


def render(scene: SceneSpec) -> Wave:
    """The sound of a scene: (T,) float32 in [-1, 1] at `RATE_HZ`."""
    length = samples(scene.duration_s)
    random = np.random.default_rng(scene.seed)
    start = int(random.integers(samples(1.0)))
    out = np.float32(10 ** (FLOOR_DB / 20)) * air()[start : start + length]
    for event in scene.everything:
        wave = sound(event)
        wave *= np.float32(gain(wave, event))
        at = samples(event.start_s) if event.start_s else 0
        out[at : at + len(wave)] += wave[: length - at]
    loudest = peak(out)
    return out if loudest <= 1 else out / np.float32(loudest)


def sound(event: Event) -> Wave:
    """An event by itself, at no particular level: (T,)."""
    source = SOURCES[event.source]
    random = np.random.default_rng(event.seed)
    attributes = {name: float(random.uniform(*PLACES[high])) for name, high in event.traits}
    length = samples(event.end_s - event.start_s)
    if source.lasts:
        voice = Voice(random=random, seconds=length / RATE_HZ, **attributes)
        return np.asarray(source.make(voice)[:length] * swell(length, 0.02, 0.08))
    out = np.zeros(length, dtype=np.float32)
    for number in range(event.count):
        voice = Voice(random=random, seconds=source.longest_s, **attributes)
        wave = source.make(voice)[: samples(source.longest_s)]
        wave = wave * swell(len(wave), 0.0005, 0.05)
        at = samples(number * (source.longest_s + source.gap_s)) if number else 0
        wave = wave[: length - at]
        out[at : at + len(wave)] += wave * np.float32(random.uniform(0.8, 1.0))
    return out


def gain(wave: Wave, event: Event) -> float:
    """What brings the loudest 50 ms to the event's level, without the peaks of clicks clipping."""
    block = samples(0.05)
    padded = np.pad(wave, (0, -len(wave) % block)).reshape(-1, block)
    loudest = float(np.sqrt(np.einsum("ij,ij->i", padded, padded).max() / block))
    highest = LOUD_PEAK * 10 ** ((event.level_db - LOUD_DB) / 20)
    wanted = 10 ** (event.level_db / 20)
    return min(wanted / max(loudest, 1e-9), highest / max(peak(wave), 1e-9))


@lru_cache(maxsize=1)
def air() -> Wave:
    """The hiss of the microphone, longer than any scene."""
    random = np.random.default_rng(0)
    return coloured(random, samples(LONGEST_S + 1.5), tilt(-2, 500, 20))
