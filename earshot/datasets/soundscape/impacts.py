"""Things that strike, break, burst and creak."""

from __future__ import annotations

import numpy as np

from earshot.datasets.soundscape.synth import (
    Voice,
    Wave,
    band,
    between,
    both,
    coloured,
    curve,
    decay,
    filtered,
    harmonics,
    impulses,
    modes,
    noise,
    peaks,
    rolloff,
    room,
    samples,
    tilt,
    unit,
    wander,
)


def explosion(voice: Voice) -> Wave:
    """A blast, then a long low rumble with debris."""
    length, random = samples(min(voice.seconds, voice.vary(2.5))), voice.random
    top_hz = between(500, 2500, voice.brightness)
    blast = coloured(random, length, both(band(30, top_hz, 1), tilt(-4, 100)))
    rumble = coloured(random, length, band(25, 140, 1.5)) * np.exp(0.5 * wander(random, length, 6))
    debris = filtered(impulses(random, length, 60), band(500, 5000, 1))
    boom = np.tanh(3 * blast * decay(length, 0.9, 0.004)) + 0.6 * rumble * decay(length, 2.6, 0.02)
    late = curve(length, (0, 0), (0.15, 1), (1, 0))
    return np.asarray(boom + 0.08 * unit(debris) * late)


def firework(voice: Voice) -> Wave:
    """A rocket whistles up, bangs and crackles."""
    length, random = samples(min(voice.seconds, 2.4)), voice.random
    rise = samples(0.8)
    pitch = between(1400, 2600, voice.pitch) * curve(rise, (0, 1.0), (1, 1.5))
    whistle = 0.12 * harmonics(pitch * (1 + 0.01 * wander(random, rise, 60)), rise, [1, 0.2])
    whistle = whistle * curve(rise, (0, 0), (0.3, 1), (0.9, 0.6), (1, 0))
    size = length - rise
    bang = coloured(random, size, both(band(40, 3000, 1), tilt(-4, 150))) * decay(size, 0.5, 0.002)
    crackle = impulses(random, size, 70) * curve(size, (0, 0), (0.15, 0.2), (0.35, 1), (1, 0.1))
    snap = noise(random, samples(0.01)) * decay(samples(0.01), 0.01)
    crackles = filtered(np.convolve(crackle, snap)[:size], band(1000, 9000, 1))
    burst = np.tanh(2.5 * bang) + 0.35 * crackles
    return room(random, np.concatenate([whistle, burst]), 1.0, 0.15)


def clink(voice: Voice) -> Wave:
    """Glasses touch."""
    size, random = samples(0.7), voice.random
    base_hz = voice.vary(between(1600, 3400, voice.pitch), 0.04)
    rings = [(base_hz * r, w, s) for r, w, s in ((1, 1, 0.6), (2.32, 0.7, 0.4), (4.1, 0.4, 0.25))]
    other = [(base_hz * 1.13 * r, w, s) for r, w, s in ((1, 0.7, 0.5), (2.3, 0.5, 0.3))]
    return np.asarray(modes(size, rings + other) + 0.3 * noise(random, size) * decay(size, 0.006))


def zipper(voice: Voice) -> Wave:
    """A zip drawn: teeth clicking ever faster."""
    length, random = samples(voice.vary(0.6)), voice.random
    teeth = between(70, 150, voice.rate) * curve(length, (0, 0.6), (0.5, 1.1), (1, 1.5))
    train = harmonics(teeth, length, rolloff(100, 0.1)) * noise(random, length)
    rasp = unit(filtered(train, peaks([(3000, 1500, 1), (6000, 3000, 0.8)], 0.05)))
    return np.asarray(rasp * curve(length, (0, 0), (0.1, 1), (0.9, 1), (1, 0)))
