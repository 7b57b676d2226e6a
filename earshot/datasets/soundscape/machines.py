"""Engines, tools and household machines: firing pulses, turning blades, teeth on wood."""

from __future__ import annotations

import numpy as np

from earshot.datasets.soundscape.synth import (
    Gain,
    Voice,
    Wave,
    band,
    beats,
    between,
    both,
    cycles,
    decay,
    filtered,
    modes,
    noise,
    peaks,
    place,
    room,
    samples,
    seconds_axis,
    tilt,
    unit,
)


def firing(voice: Voice, per_second: Wave, cylinders: int, pipe: Gain) -> Wave:
    """An engine: one pulse per firing, no cylinder quite like another, through its exhaust."""
    length = len(per_second)
    turn = cycles(per_second / cylinders, length)
    strengths = voice.random.uniform(0.6, 1.0, cylinders).astype(np.float32)
    within = turn * cylinders
    cylinder = np.minimum(within.astype(np.int32), cylinders - 1)
    pulse = np.exp(-9 * (within - cylinder)) * strengths[cylinder]
    rough = pulse * (1 + 0.7 * noise(voice.random, length))
    return unit(filtered(rough - rough.mean(), pipe))


def motorcycle(voice: Voice) -> Wave:
    """A motorcycle revving: two cylinders, hard exhaust, the throttle opened again and again."""
    length = voice.samples
    t = seconds_axis(length)
    throttle = 0.5 - 0.5 * np.cos(2 * np.pi * t / np.float32(voice.vary(1.6)))
    rate = np.float32(between(38, 85, voice.rate)) * (1 + 0.9 * throttle**2)
    pipe = both(
        peaks([(150, 120, 1.0), (420, 250, 0.8), (1100, 600, 0.5)], 0.08),
        band(40, between(600, 6000, voice.brightness), 1),
    )
    roar = np.tanh(1.2 * firing(voice, rate, 2, pipe))
    return np.asarray(filtered(roar, tilt(0, 500, 35)) * (0.5 + 0.5 * throttle))


def clock(voice: Voice) -> Wave:
    """Tick and tock: dry clicks of a small works."""
    length, random = voice.samples, voice.random
    starts = beats(voice, between(1.0, 4.0, voice.rate), 0.004)
    case_hz = between(1800, 3600, voice.pitch)
    kinds = []
    for ratio in (1.0, 0.86):
        size = samples(0.06)
        tick = modes(
            size,
            [(case_hz * ratio * r, w, 0.02) for r, w in ((1, 1.0), (1.62, 0.7), (2.4, 0.5))],
        )
        kinds.append(tick + 0.5 * noise(random, size) * decay(size, 0.004))
    sounds = [kinds[i % 2] * random.uniform(0.9, 1.0) for i in range(len(starts))]
    return room(random, place(length, starts, sounds), 0.15, 0.08)
