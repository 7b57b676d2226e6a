"""Weather, water and fire."""

from __future__ import annotations

import numpy as np

from earshot.datasets.soundscape.synth import (
    RATE_HZ,
    Voice,
    Wave,
    band,
    between,
    both,
    coloured,
    convolve,
    curve,
    decay,
    filtered,
    impulses,
    noise,
    peaks,
    samples,
    seconds_axis,
    sine,
    sprinkle,
    swell,
    tilt,
    unit,
    wander,
)


def rain(voice: Voice) -> Wave:
    """A hiss of far drops with near ones on it; the rate is how heavy it is."""
    top_hz = between(4000, 13_000, voice.brightness)
    far = coloured(voice.random, voice.samples, both(band(500, top_hz, 1), tilt(-2, 2000)))
    drops = impulses(voice.random, voice.samples, between(40, 900, voice.rate))
    drop = np.zeros(1024, dtype=np.float32)
    drop[: samples(0.006)] = noise(voice.random, samples(0.006)) * decay(samples(0.006), 0.005)
    near = convolve(drops, filtered(drop, band(900, top_hz, 1)))
    return unit(far * between(0.3, 1.0, voice.rate) + 0.6 * unit(near))


def wind(voice: Voice) -> Wave:
    """Gusts: a low roar and a whistle that both follow the wind's speed."""
    length, random = voice.samples, voice.random
    speed = np.exp(0.45 * wander(random, length, 0.9))
    bright = between(500, 1600, voice.brightness)
    roar = coloured(random, length, both(band(60, bright, 1), tilt(-5, 150)))
    howl_hz = between(330, 800, voice.pitch)
    out = roar * speed
    # The whistle climbs with the wind: three neighbouring bands take turns.
    for ratio, level in ((0.85, 1.0), (1.0, 1.0), (1.2, 0.8)):
        near = np.exp(-8 * (np.log(speed) * 0.5 - np.float32(np.log(ratio))) ** 2)
        tone = coloured(random, length, peaks([(howl_hz * ratio, 35, 1.0)]))
        out = out + 0.8 * np.float32(level) * speed * near * tone
    return np.asarray(unit(out) * swell(length, 0.3, 0.3))


def thunder(voice: Voice) -> Wave:
    """A crack, then a rumble that rolls away."""
    length, random = samples(min(voice.seconds, voice.vary(3.6))), voice.random
    top_hz = between(120, 420, voice.brightness)
    rumble = coloured(random, length, both(band(30, top_hz, 1), tilt(-3, 80)))
    rolls = np.zeros(length, dtype=np.float32)
    at = 0.03
    while at < length / RATE_HZ - 0.3:
        start = samples(at)
        rolls[start:] += random.uniform(0.3, 1.0) * decay(length - start, 1.6, 0.05)
        at += random.exponential(0.35)
    fading = curve(length, (0, 0.6), (0.1, 1), (0.4, 0.7), (1, 0))
    crack = coloured(random, length, both(band(100, 3000, 1), tilt(-4, 300))) * fading
    tearing = np.maximum(wander(random, length, 18.0), 0) * between(0.12, 0.45, voice.brightness)
    return unit(rumble * rolls * fading + crack * tearing)


def stream(voice: Voice) -> Wave:
    """Running water: many small bubbles, each a short rising tone, over a soft hiss."""
    length, random = voice.samples, voice.random
    hiss = coloured(random, length, both(band(400, 9000, 1), tilt(-2, 1000)))
    babble = np.zeros(length, dtype=np.float32)
    size = samples(0.018)
    for place_hz in between(450, 1000, voice.pitch) * np.geomspace(1, 6, 9):
        rising = place_hz * (1 + 0.15 * np.linspace(0, 1, size))
        bubble = sine(rising.astype(np.float32), size) * decay(size, 0.018, 0.001)
        babble += sprinkle(random, length, 60, bubble)
    return unit(hiss * (1 + 0.15 * wander(random, length, 10)) + 0.8 * unit(babble))


def waves(voice: Voice) -> Wave:
    """Surf: each wave swells, breaks bright and draws back."""
    length, random = voice.samples, voice.random
    period = between(5.0, 2.6, voice.rate)
    phase = (seconds_axis(length) / np.float32(period) + random.uniform(0, 1)) % 1
    rise = np.interp(phase, [0, 0.45, 0.6, 1], [0.12, 1.0, 0.75, 0.12]).astype(np.float32)
    top_hz = between(2500, 9000, voice.brightness)
    body = coloured(random, length, both(band(80, 900, 1), tilt(-3, 200)))
    foam = coloured(random, length, both(band(600, top_hz, 1), tilt(-3, 1500)))
    return unit(rise**1.2 * body + 0.9 * rise**2.2 * foam)


def pouring(voice: Voice) -> Wave:
    """Water into a vessel whose air column shortens: the resonance climbs."""
    length, random = voice.samples, voice.random
    start_hz = between(350, 800, voice.pitch)
    low = coloured(random, length, peaks([(start_hz, 90, 1), (3 * start_hz, 300, 0.5)], 0.05))
    high_hz = start_hz * 2.2
    high = coloured(random, length, peaks([(high_hz, 140, 1), (3 * high_hz, 500, 0.5)], 0.05))
    full = curve(length, (0, 0.0), (1, 1.0))
    size = samples(0.03)
    bubbles = np.zeros(length, dtype=np.float32)
    for place_hz in start_hz * np.geomspace(1, 6, 7):
        bubble = sine(place_hz * curve(size, (0, 1.0), (1, 1.5)), size) * decay(size, 0.03, 0.002)
        bubbles += sprinkle(random, length, 25, bubble)
    flow = 1 + 0.25 * wander(random, length, 12)
    return unit(((1 - full) * low + full * high) * flow + 1.2 * unit(bubbles))


def splash(voice: Voice) -> Wave:
    """Something falls into water: a slap, a burst of spray, drops and bubbles after it."""
    length, random = samples(min(voice.seconds, voice.vary(1.1))), voice.random
    top_hz = between(3000, 10_000, voice.brightness)
    burst = coloured(random, length, both(band(250, top_hz, 1), tilt(-3, 800)))
    slap = coloured(random, length, band(80, 600, 1)) * decay(length, 0.25, 0.004)
    level = decay(length, 0.9, 0.03) * np.exp(0.4 * wander(random, length, 25))
    bubbles = np.zeros(length, dtype=np.float32)
    size = samples(0.05)
    for place_hz in np.geomspace(300, 2400, 8):
        bubble = sine(place_hz * curve(size, (0, 1.0), (1, 1.4)), size) * decay(size, 0.05, 0.002)
        bubbles += sprinkle(random, length, 14, bubble)
    late = curve(length, (0, 0.1), (0.25, 1.0), (1, 0.1))
    return unit(burst * level + 1.2 * slap + 0.25 * unit(bubbles) * late)


def fire(voice: Voice) -> Wave:
    """A low flutter of flames with dry crackles and snaps."""
    length, random = voice.samples, voice.random
    flutter = coloured(random, length, both(band(60, 700, 1), tilt(-4, 150)))
    flutter *= 1 + 0.5 * wander(random, length, 7)
    top_hz = between(4000, 12_000, voice.brightness)
    crackle = impulses(random, length, between(12, 70, voice.rate)) ** 1.7
    for start in random.integers(0, max(1, length - 900), int(voice.seconds * 2.5)):
        burst = np.sort(random.integers(0, 900, 7))
        crackle[start + burst] += random.exponential(2.5, 7)
    snap = np.zeros(1024, dtype=np.float32)
    snap[: samples(0.008)] = noise(random, samples(0.008)) * decay(samples(0.008), 0.006)
    snaps = convolve(crackle, filtered(snap, band(600, top_hz, 1)))
    hiss = coloured(random, length, band(800, top_hz, 1))
    return unit(0.5 * flutter + 0.18 * hiss + 0.9 * unit(snaps))
