"""What people do with body and breath."""

from __future__ import annotations

import numpy as np

from earshot.datasets.soundscape.synth import (
    Voice,
    Wave,
    band,
    beats,
    between,
    coloured,
    decay,
    filtered,
    harmonics,
    modes,
    noise,
    peaks,
    place,
    room,
    samples,
    sine,
    sprinkle,
    swell,
    unit,
)


def applause(voice: Voice) -> Wave:
    """Many hands at once, each clap a short burst with its own hollow."""
    length, random = voice.samples, voice.random
    out = np.zeros(length, dtype=np.float32)
    top_hz = between(2500, 7000, voice.brightness)
    for centre_hz in (700, 1000, 1300, 1700, 2300):
        size = samples(0.03)
        clap = noise(random, size) * decay(size, 0.018)
        clap = filtered(clap, peaks([(voice.vary(centre_hz), 500, 1)], 0.15))
        out += sprinkle(random, length, between(7, 45, voice.rate), clap)
    return room(random, unit(filtered(out, band(300, top_hz, 1))), 0.6, 0.1)


def heartbeat(voice: Voice) -> Wave:
    """Lub-dub through a chest."""
    length, random = voice.samples, voice.random
    starts = beats(voice, between(0.9, 2.0, voice.rate), 0.01)
    sounds = []
    for _ in starts:
        size = samples(0.45)
        lub = modes(size, [(voice.vary(52, 0.04), 1.0, 0.18), (voice.vary(85), 0.5, 0.1)])
        dub = modes(size, [(voice.vary(62, 0.04), 0.8, 0.12), (voice.vary(105), 0.4, 0.08)])
        gap = samples(between(0.3, 0.2, voice.rate))
        lub[gap:] += dub[: size - gap]
        sounds.append(lub)
    hush = coloured(random, length, band(30, 200, 2)) * 0.015
    return place(length, starts, sounds) + hush


def whistling(voice: Voice) -> Wave:
    """A tune from pursed lips: nearly sines, slightly shaken, with breath."""
    length, random = voice.samples, voice.random
    base_hz = between(900, 1700, voice.pitch)
    steps, at = [], 0.0
    pitch: Wave = np.empty(length, dtype=np.float32)
    level = np.zeros(length, dtype=np.float32)
    while at < voice.seconds:
        seconds = random.choice([0.2, 0.3, 0.45]) * between(2.2, 0.6, voice.rate)
        start, end = samples(at) - 1, min(length, samples(at + seconds))
        ratio = 2 ** (random.choice([0, 2, 4, 5, 7, 9, 12]) / 12)
        if end > start:
            pitch[start:end] = base_hz * ratio
            level[start:end] = swell(end - start, 0.03, 0.06)
        steps.append(ratio)
        at += seconds
    smooth = np.ones(samples(0.02), dtype=np.float32) / samples(0.02)
    edge = samples(0.02)
    slid = np.convolve(np.pad(pitch, edge, mode="edge"), smooth, "same")[edge : edge + length]
    pitch = (slid * (1 + 0.008 * sine(5.5, length))).astype(np.float32)
    tone = harmonics(pitch, length, [1, 0.03, 0.01])
    breath = 0.03 * coloured(random, length, band(base_hz, 5000, 1))
    return room(random, (tone + breath) * level, 0.6, 0.1)
