"""Instruments: strings, bars, skins, bells and pipes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from earshot.datasets.soundscape.hit import Hit, strike
from earshot.datasets.soundscape.synth import (
    Voice,
    Wave,
    band,
    between,
    coloured,
    curve,
    decay,
    filtered,
    harmonics,
    modes,
    peaks,
    place,
    room,
    samples,
    sine,
    string,
    swell,
)

# A scale without halftones: whatever follows whatever, it is a tune.
PENTATONIC = (0, 2, 4, 7, 9, 12, 14)
Note = Callable[[float, int], Wave]


def tune(voice: Voice, base_hz: float, note: Note, ring_s: float) -> Wave:
    """Notes of a pentatonic scale, one after the other; `rate` is how quickly they follow."""
    length, random = voice.samples, voice.random
    beat = between(0.62, 0.2, voice.rate)
    starts, sounds, at = [], [], 0.02
    notes: dict[int, Wave] = {}
    degree = int(random.integers(len(PENTATONIC)))
    while at < voice.seconds - 0.12:
        degree = int(np.clip(degree + random.integers(-2, 3), 0, len(PENTATONIC) - 1))
        if degree not in notes:
            notes[degree] = note(base_hz * 2 ** (PENTATONIC[degree] / 12), samples(ring_s))
        starts.append(samples(at))
        sounds.append(notes[degree] * np.float32(random.uniform(0.7, 1.0)))
        at += beat * random.choice([1, 1, 1, 2])
    return place(length, starts, sounds)


def melody(voice: Voice, hit: Hit) -> Wave:
    """A tune on struck bodies."""
    ring_s = min(1.6, max(hit.rings_s) + 0.1)

    def note(ratio: float, size: int) -> Wave:
        struck = strike(voice, hit, ratio)[:size]
        return np.asarray(struck * swell(len(struck), 0.001, 0.08))

    return room(voice.random, tune(voice, 1.0, note, ring_s), hit.hall_s, hit.wet)


def guitar(voice: Voice) -> Wave:
    """Plucked steel strings on a wooden body."""

    def note(pitch_hz: float, size: int) -> Wave:
        return np.asarray(
            string(voice.random, size, pitch_hz, voice.brightness) * swell(size, 0.001, 0.1)
        )

    dry = tune(voice, between(110, 260, voice.pitch), note, 1.6)
    body = peaks([(105, 40, 1.0), (205, 60, 0.9), (400, 150, 0.5)], 0.45)
    return room(voice.random, filtered(dry, body), 0.5, 0.08)


def flute(voice: Voice) -> Wave:
    """A pipe: few partials, breath on the pitch, a soft start."""

    def note(pitch_hz: float, size: int) -> Wave:
        shaken = pitch_hz * (1 + 0.006 * sine(voice.vary(5.0), size))
        tone = harmonics(shaken, size, [1, 0.35, 0.18, 0.06, 0.03])
        breath = coloured(
            voice.random, size, peaks([(pitch_hz, 120, 1), (2 * pitch_hz, 300, 0.6)], 0.1)
        )
        return np.asarray(
            (tone * (1 + 0.1 * sine(5.0, size)) + 0.1 * breath) * swell(size, 0.07, 0.08)
        )

    dry = tune(voice, between(420, 900, voice.pitch), note, between(0.75, 0.26, voice.rate))
    return room(voice.random, dry, 1.0, 0.12)


def drums(voice: Voice) -> Wave:
    """A drum pattern: bass drum, snare and hi-hat."""
    length, random = voice.samples, voice.random
    beat = between(0.4, 0.2, voice.rate)
    size = samples(0.3)
    fall = sine(
        np.float32(between(50, 75, voice.pitch)) * curve(size, (0, 2.5), (0.1, 1), (1, 0.9)), size
    )
    kick = fall * decay(size, 0.25, 0.001)
    rattle = coloured(random, size, band(1200, 9000, 1)) * decay(size, 0.18, 0.001)
    tone = modes(size, [(190, 1, 0.12), (330, 0.6, 0.1)])
    snap = 0.45 * rattle + 0.6 * tone
    hat = coloured(random, size, band(6500, 14_000, 3)) * decay(size, 0.06, 0.0005) * 0.25
    starts, sounds = [], []
    for i in range(int(voice.seconds / beat)):
        starts.append(samples(0.01 + i * beat))
        sounds.append(hat + (kick, 0 * hat, snap, 0 * hat)[i % 4])
    return room(random, place(length, starts, sounds), 0.3, 0.06)
