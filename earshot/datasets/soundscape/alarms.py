"""Signals: sirens, horns, beeps, telephones."""

from __future__ import annotations

import numpy as np

from earshot.datasets.soundscape.synth import (
    TOP_HZ,
    Voice,
    Wave,
    band,
    between,
    coloured,
    curve,
    cycles,
    decay,
    filtered,
    harmonics,
    modes,
    noise,
    peaks,
    place,
    rolloff,
    room,
    samples,
    seconds_axis,
    sine,
    swell,
    unit,
    wander,
)

# Partials of small bells: ratio, weight, seconds to fall by 60 dB.
GONG = ((1, 1, 0.7), (2.1, 0.7, 0.5), (3.4, 0.5, 0.4), (5.2, 0.3, 0.2))
DOME = ((1, 1, 1.2), (1.008, 0.8, 1.2), (2.4, 0.5, 0.7), (4.1, 0.3, 0.4))


def siren(voice: Voice) -> Wave:
    """A wail that rises and falls, through a horn loudspeaker."""
    length = voice.samples
    period = between(4.5, 1.6, voice.rate)
    turn = cycles(1 / period, length, voice.random.uniform(0, 1))
    place_hz = np.interp(turn, [0, 0.4, 1], [0.0, 1.0, 0.0]).astype(np.float32)
    pitch = np.float32(between(480, 760, voice.pitch)) * np.exp(place_hz * np.float32(np.log(2.1)))
    wail = harmonics(pitch, length, [1, 0.5, 0.45, 0.2, 0.2, 0.1, 0.1])
    horn = unit(filtered(wail, peaks([(1300, 900, 1.0), (2600, 1200, 0.5)], 0.15)))
    return room(voice.random, horn, 1.2, 0.15)


def car_horn(voice: Voice) -> Wave:
    """One hoot: two reeds a third apart."""
    length = samples(min(voice.seconds, voice.vary(0.6)))
    low_hz = voice.vary(between(300, 480, voice.pitch), 0.02)
    reeds = harmonics(low_hz, length, rolloff(30, 0.5))
    reeds = reeds + harmonics(low_hz * 1.26, length, rolloff(30, 0.5))
    horn = filtered(reeds, peaks([(900, 700, 0.8), (2300, 1200, 1.0), (4000, 2000, 0.4)], 0.15))
    return room(voice.random, unit(horn) * swell(length, 0.02, 0.06), 0.6, 0.1)


def ship_horn(voice: Voice) -> Wave:
    """One blast: very low, many partials, from far."""
    length = samples(min(voice.seconds, voice.vary(2.2)))
    low_hz = voice.vary(between(75, 170, voice.pitch), 0.03)
    blast = harmonics(
        low_hz * (1 + 0.002 * wander(voice.random, length, 9)), length, rolloff(40, 0.6)
    )
    horn = filtered(blast, peaks([(300, 300, 1.0), (700, 500, 0.7), (1500, 900, 0.25)], 0.03))
    return room(voice.random, unit(horn) * swell(length, 0.15, 0.35), 1.8, 0.25)


def telephone(voice: Voice) -> Wave:
    """One ring of a bell telephone: a clapper between two gongs."""
    length, random = samples(min(voice.seconds, 1.6)), voice.random
    base_hz = between(1100, 1900, voice.pitch)
    gongs, size = [], samples(0.6)
    for ratio in (1.0, 1.21):
        partials = [(base_hz * ratio * r, w, s) for r, w, s in GONG]
        gongs.append(modes(size, partials) + 0.3 * noise(random, size) * decay(size, 0.006))
    starts = [samples(0.01 + k / 24) for k in range(int(1.0 * 24))]
    return place(length, starts, [gongs[k % 2] for k in range(len(starts))])


def beep(voice: Voice) -> Wave:
    """One beep of a piezo."""
    length = samples(voice.vary(0.17))
    pitch_hz = between(900, 3400, voice.pitch)
    tone = harmonics(pitch_hz, length, [1, 0.1, 0.3, 0.05, 0.15])
    return np.asarray(tone * swell(length, 0.004, 0.006))


def dial_tone(voice: Voice) -> Wave:
    """The busy signal of a telephone."""
    length = voice.samples
    low_hz = between(350, 480, voice.pitch)
    tone = sine(low_hz, length) + sine(low_hz * 1.29, length)
    on = (seconds_axis(length) * np.float32(between(1.0, 2.4, voice.rate))) % 1 < 0.5
    smooth = np.ones(96, dtype=np.float32) / 96
    line = filtered(noise(voice.random, length), band(300, 3400, 2))
    return np.asarray(tone * np.convolve(on.astype(np.float32), smooth, "same") + 0.01 * line)


def dialling(voice: Voice) -> Wave:
    """Touch tones of a telephone, key after key."""
    length, random = voice.samples, voice.random
    per_second = between(2.2, 5.5, voice.rate)
    starts, sounds = [], []
    for k in range(max(1, int(voice.seconds * per_second))):
        size = samples(0.6 / per_second)
        low, high = random.choice([697, 770, 852, 941]), random.choice([1209, 1336, 1477])
        keys = sine(float(low), size) + sine(float(high), size)
        sounds.append(keys * swell(size, 0.003, 0.003))
        starts.append(samples(0.01 + k / per_second))
    return place(length, starts, sounds)


def static(voice: Voice) -> Wave:
    """A radio between stations: hiss and crackle."""
    length, random = voice.samples, voice.random
    top_hz = between(3500, 14_000, voice.brightness)
    hiss = coloured(random, length, band(100, top_hz, 2))
    return hiss * (1 + 0.15 * wander(random, length, 20))


def arcade(voice: Voice) -> Wave:
    """One zap of a game: a square wave that dives."""
    length = samples(voice.vary(0.35))
    pitch = between(1200, 3600, voice.pitch) * curve(length, (0, 1.0), (0.2, 0.45), (1, 0.12))
    square = harmonics(pitch, length, [1 / k if k % 2 else 0 for k in range(1, int(TOP_HZ / 400))])
    return np.asarray(square * curve(length, (0, 1), (0.7, 0.7), (1, 0)))


def air_horn(voice: Voice) -> Wave:
    """One blast of an air horn."""
    length = samples(min(voice.seconds, voice.vary(0.9)))
    pitch_hz = voice.vary(between(380, 640, voice.pitch), 0.02)
    reed = harmonics(pitch_hz, length, rolloff(30, 0.25)) + 0.7 * harmonics(
        pitch_hz * 1.19, length, rolloff(30, 0.25)
    )
    rush = 0.1 * coloured(voice.random, length, band(1500, 9000, 1))
    return room(voice.random, (unit(reed) + rush) * swell(length, 0.02, 0.06), 0.7, 0.1)


def bicycle_bell(voice: Voice) -> Wave:
    """A bicycle's bell: a rattling double stroke on a small dome."""
    length, random = samples(min(voice.seconds, 1.4)), voice.random
    base_hz = voice.vary(between(1900, 3600, voice.pitch), 0.03)
    dome = [(base_hz * r, w, s) for r, w, s in DOME]
    ring = modes(length, dome) + 0.3 * noise(random, length) * decay(length, 0.008)
    starts = [0, *(samples(0.05 * k) for k in range(1, 7))]
    return place(length, starts, [ring * random.uniform(0.4, 1) for _ in starts])
