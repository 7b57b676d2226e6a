"""Animals: throats as source and filter, beaks as whistles, wings and legs as buzz and rasp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from earshot.datasets.soundscape.synth import (
    RATE_HZ,
    Voice,
    Wave,
    between,
    curve,
    filtered,
    harmonics,
    noise,
    peaks,
    place,
    rolloff,
    room,
    samples,
    sine,
    swell,
    unit,
    wander,
)

Point = tuple[float, float]


def throat(
    voice: Voice, pitch_hz: Wave, breath: float, vowels: Sequence[tuple[float, float, float]]
) -> Wave:
    """A voiced sound through formants; `breath` is the share of noise, brightness tilts it."""
    length = len(pitch_hz)
    shaken = pitch_hz * (1 + 0.012 * wander(voice.random, length, 40))
    buzz = harmonics(shaken, length, rolloff(60, between(1.5, 0.7, voice.brightness)))
    source = (1 - breath) * unit(buzz) + breath * noise(voice.random, length)
    return unit(filtered(source, peaks(vowels, 0.02)))


def glide(length: int, pitch_hz: float, *points: Point) -> Wave:
    """A pitch that moves through (place, ratio)."""
    return np.float32(pitch_hz) * curve(length, *points)


def cow(voice: Voice) -> Wave:
    """One moo: low, long, nasal."""
    length = samples(voice.vary(1.5))
    pitch_hz = voice.vary(between(110, 230, voice.pitch), 0.05)
    pitch = glide(length, pitch_hz, (0, 0.8), (0.2, 0.95), (0.6, 1.1), (0.85, 1.0), (1, 0.75))
    shut = throat(voice, pitch, 0.03, [(250, 100, 1.0), (900, 200, 0.2)])
    wide = throat(voice, pitch, 0.06, [(450, 150, 1.0), (950, 250, 0.6), (2300, 500, 0.25)])
    mouth = curve(length, (0, 0), (0.35, 1), (0.8, 1), (1, 0.3))
    return np.asarray(((1 - mouth) * shut + mouth * wide) * swell(length, 0.15, 0.3))


def songbird(voice: Voice) -> Wave:
    """A phrase of whistled notes that glide and trill."""
    length, random = voice.samples, voice.random
    base_hz = between(2300, 4800, voice.pitch)
    starts, sounds, at = [], [], 0.02
    while at < voice.seconds - 0.3:
        kind = random.integers(3)
        for _ in range(int(random.integers(2, 6))):
            size = samples(random.uniform(0.05, 0.13))
            low, high = random.uniform(0.85, 1.0), random.uniform(1.05, 1.4)
            points = ((0, low), (1, high)) if kind == 0 else ((0, high), (0.5, low), (1, high))
            pitch = glide(size, base_hz, *points)
            if kind == 2:
                pitch = pitch * (1 + 0.06 * sine(45.0, size))
            sounds.append(harmonics(pitch, size, [1, 0.05]) * np.hanning(size))
            starts.append(samples(at))
            at += size / RATE_HZ + random.uniform(0.02, 0.06)
        at += random.uniform(0.6, 1.0) * between(0.9, 0.25, voice.rate)
    song = place(length, starts, sounds)
    return room(random, song.astype(np.float32), 0.6, 0.12)


def wolf(voice: Voice) -> Wave:
    """One howl: it climbs, holds and sinks."""
    length = samples(min(voice.seconds, voice.vary(2.4)))
    pitch_hz = voice.vary(between(330, 620, voice.pitch), 0.05)
    pitch = glide(length, pitch_hz, (0, 0.6), (0.18, 1.0), (0.7, 1.05), (1, 0.65))
    pitch *= 1 + 0.008 * sine(5.5, length)
    howl = harmonics(pitch, length, [1, 0.5, 0.16, 0.1, 0.05]) * swell(length, 0.3, 0.6)
    return room(voice.random, howl, 1.4, 0.2)
