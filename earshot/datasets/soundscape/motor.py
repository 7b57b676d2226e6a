"""Motors: firing pulses or turning blades through a pipe, with their whine and their air.

One description, `Motor`, serves all; a machine is its numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from earshot.datasets.soundscape.synth import (
    Voice,
    Wave,
    band,
    between,
    both,
    coloured,
    cycles,
    filtered,
    harmonics,
    noise,
    peaks,
    rolloff,
    seconds_axis,
    tilt,
    unit,
    wander,
    without_rumble,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Motor:
    """One machine.

    `low_hz`, `high_hz`: pulses a second at the low and the high end of its attribute;
    `cylinders`: pulses until the pattern repeats; `snap`: how short a pulse is; `rough`: its noise.
    `pipe_hz`, `pipe_widths_hz`, `pipe_gains`, `floor`, `fall_db`: the exhaust's resonances and the
    tilt above 500 Hz. `whine_ratio`, `whine`, `whine_slope`: a tone that turns with the motor.
    `air`, `air_low_hz`, `air_high_hz`, `chop`: rushing air and how deep the pulses cut it.
    `drift`, `drift_hz`: how the speed wanders; `rev`, `rev_s`: depth and period of the throttle.
    `passing`: how much it comes and goes; `drive`: overload.
    """

    low_hz: float
    high_hz: float
    cylinders: int
    snap: float
    rough: float
    pipe_hz: tuple[float, ...]
    pipe_widths_hz: tuple[float, ...]
    pipe_gains: tuple[float, ...]
    floor: float
    fall_db: float
    whine_ratio: float
    whine: float
    whine_slope: float
    air: float
    air_low_hz: float
    air_high_hz: float
    chop: float
    drift: float
    drift_hz: float
    rev: float
    rev_s: float
    passing: float
    drive: float


def turn(voice: Voice, motor: Motor, speed: float) -> Wave:
    """The machine at work, (T,); `speed` from 0 to 1 is one of the voice's attributes."""
    length, random = voice.samples, voice.random
    throttle = 0.5 - 0.5 * np.cos(seconds_axis(length) * np.float32(2 * np.pi / motor.rev_s))
    rate = between(motor.low_hz, motor.high_hz, speed) * (1 + motor.rev * throttle)
    rate *= 1 + motor.drift * wander(random, length, motor.drift_hz)
    way = np.linspace(-1, 1, length, dtype=np.float32)
    rate = np.maximum(rate * (1 - 0.06 * motor.passing * np.tanh(3 * way)), 1)
    phase = cycles(rate / motor.cylinders, length) * motor.cylinders
    number = np.minimum(phase.astype(np.int32), motor.cylinders - 1)
    strengths = random.uniform(0.6, 1.0, motor.cylinders).astype(np.float32)
    pulse = np.exp(-motor.snap * (phase - number)) * strengths[number]
    burst = pulse * (1 + motor.rough * noise(random, length))
    light = between(0.6, 1.7, voice.brightness)
    pipe = peaks(
        list(zip(motor.pipe_hz, motor.pipe_widths_hz, motor.pipe_gains, strict=True)), motor.floor
    )
    out = unit(filtered(burst - burst.mean(), both(pipe, tilt(-motor.fall_db, 500 * light**2, 25))))
    if motor.whine > 0:
        whine = harmonics(rate * motor.whine_ratio, length, rolloff(30, motor.whine_slope))
        out = out + motor.whine * unit(whine)
    air = coloured(random, length, band(motor.air_low_hz, motor.air_high_hz * light, 1))
    cut = (1 - motor.chop) + motor.chop * unit(pulse)
    out = unit(out + motor.air * air * cut)
    level = np.exp(-3 * motor.passing * way**2) * (1 - 0.4 * motor.rev * (1 - throttle) / 2)
    # Overload is lopsided where the pulses are; a loudspeaker passes no constant.
    driven = np.tanh(motor.drive * out)
    return np.asarray(without_rumble(driven) * level)
