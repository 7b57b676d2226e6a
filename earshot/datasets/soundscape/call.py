"""Calls of animals and people: a source (folds that open and shut, breath) and a filter (throat).

One description, `Call`, serves all; an animal is its numbers. They began as plausible values and
were moved, a little at a time, until a tagger of real recordings heard the animal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from earshot.datasets.soundscape.synth import (
    Voice,
    Wave,
    between,
    curve,
    filtered,
    harmonics,
    noise,
    peaks,
    rolloff,
    room,
    samples,
    sine,
    swell,
    unit,
    wander,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call.

    `low_hz`, `high_hz`: the fundamental of a low and a high animal; `contour`: its ratio at five
    even places of the call; `level`: loudness at four even places between silence and silence.
    `slope`: how fast the partials fall; `breath`: the share of noise; `jitter`: roughness of the
    pitch; `tremble_hz`, `shake`, `pulse`: a tremor's rate, its depth in pitch and in loudness.
    `formants_hz`, `widths_hz`, `gains`: resonances with the mouth open; `shut`: their ratio at the
    ends of the call; `floor`: what passes beside them. `drive`: overload; `hall_s`, `wet`: room.
    """

    low_hz: float
    high_hz: float
    seconds: float
    contour: tuple[float, ...]
    level: tuple[float, ...]
    slope: float
    breath: float
    jitter: float
    tremble_hz: float
    shake: float
    pulse: float
    formants_hz: tuple[float, ...]
    widths_hz: tuple[float, ...]
    gains: tuple[float, ...]
    shut: float
    floor: float
    drive: float
    hall_s: float
    wet: float


def utter(voice: Voice, call: Call) -> Wave:
    """One call, (T,); a higher voice belongs to a smaller throat."""
    random = voice.random
    length = samples(min(voice.seconds, voice.vary(call.seconds)))
    size = between(0.88, 1.14, voice.pitch)
    pitch = voice.vary(between(call.low_hz, call.high_hz, voice.pitch), 0.05) * line(
        length, call.contour
    )
    tremor = sine(voice.vary(call.tremble_hz), length)
    pitch *= 1 + call.shake * tremor + call.jitter * wander(random, length, 60)
    pitch = np.clip(pitch, 15, 6000)
    voiced = unit(harmonics(pitch, length, rolloff(80, call.slope)))
    source = (1 - call.breath) * voiced + call.breath * noise(random, length)
    spoken = mouth(source, call, size)
    level = line(length, (0.0, *call.level, 0.0)) * np.maximum(1 + call.pulse * tremor, 0)
    spoken = np.tanh(call.drive * unit(spoken) * level) * swell(length, 0.004, 0.01)
    tail = np.zeros(samples(min(0.3, call.hall_s)), dtype=np.float32)
    return room(random, np.concatenate([spoken, tail]), call.hall_s, call.wet)


def mouth(source: Wave, call: Call, size: float) -> Wave:
    """The throat's filter, shut at both ends of the call and open in between."""

    def through(ratio: float) -> Wave:
        hz = [f * ratio * size for f in call.formants_hz]
        gain = peaks(list(zip(hz, call.widths_hz, call.gains, strict=True)), call.floor)
        return filtered(source, gain)

    opened = curve(len(source), (0, 0), (0.3, 1), (0.7, 1), (1, 0))
    return np.asarray(opened * through(1.0) + (1 - opened) * through(call.shut))


def line(length: int, values: tuple[float, ...]) -> Wave:
    """Straight lines through values at even places: (T,)."""
    return curve(length, *zip(np.linspace(0, 1, len(values)), values, strict=True))
