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


def knock(voice: Voice) -> Wave:
    """One knuckle on a wooden door."""
    size, random = samples(0.25), voice.random
    base_hz = voice.vary(between(130, 330, voice.pitch), 0.03)
    wood = [(base_hz * r, w, s) for r, w, s in ((1, 1, 0.11), (2.3, 0.8, 0.08), (3.9, 0.5, 0.06))]
    tap = coloured(random, size, band(500, between(1500, 5000, voice.brightness), 1))
    return room(random, modes(size, wood) + 0.25 * tap * decay(size, 0.025, 0.001), 0.35, 0.12)


def gunshot(voice: Voice) -> Wave:
    """A shot and its echo from the hills."""
    size, random = samples(1.1), voice.random
    top_hz = between(1500, 7000, voice.brightness)
    blast = coloured(random, size, tilt(-4, top_hz / 3, 40)) * decay(size, 0.14, 0.0005)
    boom = coloured(random, size, band(50, 250, 1)) * decay(size, 0.3, 0.001)
    tail = coloured(random, size, both(band(100, top_hz / 2, 1), tilt(-4, 300)))
    shot = np.tanh(4 * blast) + 0.5 * boom
    return shot + 0.14 * tail * decay(size, 1.2, 0.03)


def explosion(voice: Voice) -> Wave:
    """A blast, then a long low rumble with debris."""
    length, random = samples(min(voice.seconds, voice.vary(2.5))), voice.random
    top_hz = between(500, 2500, voice.brightness)
    blast = coloured(random, length, both(band(30, top_hz, 1), tilt(-4, 100)))
    rumble = coloured(random, length, band(25, 140, 1.5)) * np.exp(0.5 * wander(random, length, 6))
    debris = filtered(impulses(random, length, 60), band(500, 5000, 1))
    boom = np.tanh(3 * blast * decay(length, 0.9, 0.004)) + 0.6 * rumble * decay(length, 2.6, 0.02)
    late = curve(length, (0, 0), (0.15, 1), (1, 0))
    return boom + 0.08 * unit(debris) * late


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
    return modes(size, rings + other) + 0.3 * noise(random, size) * decay(size, 0.006)


def slam(voice: Voice) -> Wave:
    """A door slams: a boom of the panel, the latch, the hall."""
    size, random = samples(0.8), voice.random
    base_hz = voice.vary(between(60, 130, voice.pitch))
    panel = modes(size, [(base_hz * r, w, 0.3) for r, w in ((1, 1.2), (1.7, 0.9), (2.9, 0.6))])
    burst = coloured(random, size, both(band(60, 3500, 1), tilt(-3, 300))) * decay(
        size, 0.16, 0.002
    )
    latch = filtered(noise(random, size), band(1500, 6000, 1)) * decay(size, 0.02)
    latch = np.roll(latch, samples(0.05)) * (np.arange(size) > samples(0.05))
    return room(random, panel + 0.9 * burst + 0.5 * latch, 0.8, 0.25)


def zipper(voice: Voice) -> Wave:
    """A zip drawn: teeth clicking ever faster."""
    length, random = samples(voice.vary(0.6)), voice.random
    teeth = between(70, 150, voice.rate) * curve(length, (0, 0.6), (0.5, 1.1), (1, 1.5))
    train = harmonics(teeth, length, rolloff(100, 0.1)) * noise(random, length)
    rasp = unit(filtered(train, peaks([(3000, 1500, 1), (6000, 3000, 0.8)], 0.05)))
    return rasp * curve(length, (0, 0), (0.1, 1), (0.9, 1), (1, 0))
