"""Hits: a body's modes and a burst of noise, sometimes a second burst after it, in a room.

One description, `Hit`, serves all; what strikes what is its numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from earshot.datasets.soundscape.synth import (
    Voice,
    Wave,
    band,
    beats,
    between,
    coloured,
    decay,
    modes,
    place,
    room,
    samples,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One hit.

    `low_hz`, `high_hz`: the body's first mode at the ends of the pitch attribute; `ratios`,
    `weights`, `rings_s`: its modes. `burst`, `burst_s`, `burst_low_hz`, `burst_high_hz`: the noise
    of the contact; `second`, `second_s`: a softer repeat and its delay. `slow`, `fast`: hits a
    second; `jitter`: irregularity; `uneven`: spread of strength; `odd`: pitch of every other hit;
    `loose`: how far its modes stray from hit to hit; `hall_s`, `wet`: the room.
    """

    low_hz: float
    high_hz: float
    ratios: tuple[float, ...]
    weights: tuple[float, ...]
    rings_s: tuple[float, ...]
    burst: float
    burst_s: float
    burst_low_hz: float
    burst_high_hz: float
    second: float
    second_s: float
    slow: float
    fast: float
    jitter: float
    uneven: float
    odd: float
    hall_s: float
    wet: float
    loose: float = 0.02


def strike(voice: Voice, hit: Hit, ratio: float = 1.0) -> Wave:
    """One hit, dry: (T,)."""
    size = samples(max(*hit.rings_s, hit.burst_s) + hit.second_s + 0.05)
    base_hz = between(hit.low_hz, hit.high_hz, voice.pitch) * ratio
    body = [
        (voice.vary(base_hz * r, hit.loose), w, s)
        for r, w, s in zip(hit.ratios, hit.weights, hit.rings_s, strict=True)
    ]
    light = between(0.6, 1.7, voice.brightness)
    contact = coloured(voice.random, size, band(hit.burst_low_hz, hit.burst_high_hz * light, 1))
    out = modes(size, body) + hit.burst * contact * decay(size, hit.burst_s, 0.0005)
    gap = samples(voice.vary(hit.second_s, 0.2))
    out[gap:] += hit.second * voice.random.uniform(0.6, 1.2) * out[: size - gap].copy()
    return np.asarray(out)


def one(voice: Voice, hit: Hit) -> Wave:
    """One hit in its room: (T,)."""
    dry = strike(voice, hit, voice.vary(1.0, 0.05))
    dry = np.concatenate([dry, np.zeros(samples(min(0.3, hit.hall_s)), dtype=np.float32)])
    return room(voice.random, dry, hit.hall_s, hit.wet)


def series(voice: Voice, hit: Hit) -> Wave:
    """Hits one after the other for as long as asked: (T,)."""
    starts = beats(voice, between(hit.slow, hit.fast, voice.rate), hit.jitter)
    sounds = [
        strike(voice, hit, voice.vary(hit.odd if k % 2 else 1.0, 0.05))
        * np.float32(voice.random.uniform(1 - hit.uneven, 1))
        for k in range(len(starts))
    ]
    return room(voice.random, place(voice.samples, starts, sounds), hit.hall_s, hit.wet)
