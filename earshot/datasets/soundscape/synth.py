"""Building blocks of synthetic sounds: noises, tones, resonances, grains, rooms.

Every block is a pure function of its arguments; chance comes from the generator that is handed in.
Waves are float32 (T,) at `RATE_HZ`. The methods are the textbook ones: filtered noise, additive and
modal synthesis, Karplus and Strong's string, source and filter voices (Cook, "Real Sound Synthesis
for Interactive Applications", 2002; Farnell, "Designing Sound", 2010).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

RATE_HZ = 32_000
# Nothing is synthesised above this: half the rate, less a margin for the front-ends' filters.
TOP_HZ = 15_000.0
TABLE = 2048
# How many different rooms there are of one size.
ROOMS = 8

Wave = np.ndarray
Gain = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Voice:
    """What one sounding is asked for; the attributes run from 0 (low) to 1 (high).

    `seconds` is how long a lasting sound lasts, and the most that a single sounding may last.
    """

    random: np.random.Generator
    seconds: float
    pitch: float = 0.5
    rate: float = 0.5
    brightness: float = 0.5

    @property
    def samples(self) -> int:
        """The length asked for."""
        return samples(self.seconds)

    def vary(self, value: float, share: float = 0.1) -> float:
        """A value that differs from sounding to sounding by up to the given share of it."""
        return float(value * self.random.uniform(1 - share, 1 + share))


def samples(seconds: float) -> int:
    """A duration in samples."""
    return max(1, round(seconds * RATE_HZ))


def between(low: float, high: float, place: float) -> float:
    """The value at a place from 0 to 1 on the way from low to high, in equal ratios."""
    return float(low * (high / low) ** place)


def seconds_axis(length: int) -> Wave:
    """The instants of a wave in seconds, read-only: (T,)."""
    return _long_axis()[:length] if length <= 12 * RATE_HZ else _axis(length)


@lru_cache(maxsize=1)
def _long_axis() -> Wave:
    return _axis(12 * RATE_HZ)


def _axis(length: int) -> Wave:
    return (np.arange(length) / RATE_HZ).astype(np.float32)


def count_up(length: int) -> np.ndarray:
    """Whole numbers from 0, read-only: (T,) uint32."""
    return _long_count()[:length] if length <= 12 * RATE_HZ else np.arange(length, dtype=np.uint32)


@lru_cache(maxsize=1)
def _long_count() -> np.ndarray:
    return np.arange(12 * RATE_HZ, dtype=np.uint32)


@lru_cache(maxsize=512)
def fast_length(length: int) -> int:
    """The next length whose only prime factors are 2, 3 and 5: Fourier transforms like it."""
    best = 1 << (length - 1).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            two = 1 << max(0, (-(-length // three) - 1).bit_length())
            best = min(best, two * three)
            three *= 3
        five *= 5
    return best


@lru_cache(maxsize=64)
def frequencies(length: int) -> Wave:
    """The bins of a real Fourier transform in Hz, read-only: (length / 2 + 1,)."""
    return np.fft.rfftfreq(length, 1 / RATE_HZ).astype(np.float32)


def noise(random: np.random.Generator, length: int) -> Wave:
    """White noise of unit power: (T,)."""
    return random.standard_normal(length, dtype=np.float32)


def coloured(random: np.random.Generator, length: int, gain: Gain) -> Wave:
    """Noise with a given gain over frequency (Hz), of unit power: (T,).

    It is drawn as a spectrum of random phases, which spares a transform.
    """
    size = fast_length(length)
    hz = frequencies(size)
    turns = random.random(len(hz), dtype=np.float32) * np.float32(2 * np.pi)
    magnitude = gain(hz)
    spectrum = np.empty(len(hz), dtype=np.complex64)
    spectrum.real = magnitude * np.cos(turns)
    spectrum.imag = magnitude * np.sin(turns)
    spectrum[0] = 0
    return unit(np.fft.irfft(spectrum, size)[:length])


def filtered(wave: Wave, gain: Gain) -> Wave:
    """A wave with each frequency (Hz) scaled, without delay: (T,)."""
    size = fast_length(len(wave))
    spectrum = np.fft.rfft(wave, size)
    spectrum *= gain(frequencies(size))
    return np.fft.irfft(spectrum, size)[: len(wave)].astype(np.float32, copy=False)


def band(low_hz: float, high_hz: float, order: float = 2) -> Gain:
    """A pass band with Butterworth's flanks."""
    power = np.float32(2 * order)

    def gain(hz: np.ndarray) -> np.ndarray:
        octaves = np.log(np.maximum(hz, np.float32(1)))
        flanks = np.exp(power * (np.float32(np.log(low_hz)) - octaves))
        flanks += np.exp(power * (octaves - np.float32(np.log(high_hz))))
        flanks += 1
        return np.asarray(1 / np.sqrt(flanks))

    return gain


def tilt(slope_db: float, above_hz: float, low_hz: float = 20.0) -> Gain:
    """Flat up to a corner, then so many decibels per octave; nothing below `low_hz`."""

    def gain(hz: np.ndarray) -> np.ndarray:
        octaves = np.log2(np.maximum(hz, above_hz) / np.float32(above_hz))
        return np.asarray(10 ** (octaves * np.float32(slope_db / 20)) * (hz > low_hz))

    return gain


def peaks(resonances: Sequence[tuple[float, float, float]], floor: float = 0.0) -> Gain:
    """Resonances (centre in Hz, width in Hz, gain) on a floor, like a throat's formants."""

    def gain(hz: np.ndarray) -> np.ndarray:
        out = np.full_like(hz, floor)
        for centre_hz, width_hz, height in resonances:
            out += np.float32(height) / np.sqrt(1 + ((hz - centre_hz) * 2 / width_hz) ** 2)
        return out

    return gain


def both(first: Gain, second: Gain) -> Gain:
    """One gain after the other."""
    return lambda hz: first(hz) * second(hz)


def convolve(wave: Wave, kernel: Wave) -> Wave:
    """A wave through a linear system, cut to the wave's length: (T,)."""
    size = fast_length(len(wave) + len(kernel) - 1)
    spectrum = np.fft.rfft(wave.astype(np.float32), size)
    spectrum *= np.fft.rfft(kernel.astype(np.float32), size)
    return np.fft.irfft(spectrum, size)[: len(wave)].astype(np.float32, copy=False)


def cycles(pitch_hz: float | Wave, length: int, start: float = 0.0) -> Wave:
    """The place within the period of a pitch that may glide, from 0 to 1: (T,) float32."""
    if isinstance(pitch_hz, np.ndarray):
        turned = np.cumsum(pitch_hz, dtype=np.float64)
        turned *= 1 / RATE_HZ
        turned += start
        turned -= np.floor(turned)
        return turned.astype(np.float32)
    # A whole number that overflows once a period keeps its precision, and is quick.
    step = np.uint32(round(pitch_hz / RATE_HZ * 2**32) % 2**32)
    place = count_up(length) * step + np.uint32(int(start % 1 * 2**32))
    return place.astype(np.float32) * np.float32(2**-32)


def sine(pitch_hz: float | Wave, length: int, start: float = 0.0) -> Wave:
    """A pure tone, (T,)."""
    return np.sin(np.float32(2 * np.pi) * cycles(pitch_hz, length, start))


def harmonics(pitch_hz: float | Wave, length: int, weights: Sequence[float] | Wave) -> Wave:
    """A periodic tone by its partials' weights, (T,); partials above the top are left out."""
    highest = float(np.max(pitch_hz)) if isinstance(pitch_hz, np.ndarray) else pitch_hz
    kept = np.asarray(weights, dtype=np.float64)[: max(1, int(TOP_HZ / highest))]
    spectrum = np.zeros(TABLE // 2 + 1, dtype=np.complex128)
    kept = kept[: TABLE // 4]
    spectrum[1 : len(kept) + 1] = -0.5j * TABLE * kept
    table = np.fft.irfft(spectrum, TABLE).astype(np.float32)
    place = cycles(pitch_hz, length)
    return np.asarray(table[(place * TABLE).astype(np.int32) & (TABLE - 1)])


def rolloff(count: int, slope: float) -> Wave:
    """Weights of partials that fall by a power of their number: (count,)."""
    return np.asarray(np.arange(1, count + 1) ** -slope)


def curve(length: int, *points: tuple[float, float]) -> Wave:
    """Straight lines through (place from 0 to 1, value): (T,)."""
    places, values = zip(*points, strict=True)
    axis = np.linspace(0, 1, length, dtype=np.float32)
    return np.asarray(np.interp(axis, places, values).astype(np.float32))


def swell(length: int, attack_s: float, release_s: float) -> Wave:
    """A level that rises, stays and falls, with soft corners: (T,)."""
    out = np.ones(length, dtype=np.float32)
    rise = min(samples(attack_s), length)
    fall = min(samples(release_s), length)
    out[:rise] *= np.sin(np.linspace(0, np.pi / 2, rise, dtype=np.float32)) ** 2
    out[length - fall :] *= np.cos(np.linspace(0, np.pi / 2, fall, dtype=np.float32)) ** 2
    return out


def decay(length: int, seconds: float, attack_s: float = 0.0) -> Wave:
    """A level that falls by 60 dB in the given time: (T,)."""
    out = np.exp(seconds_axis(length) * np.float32(-6.91 / seconds))
    rise = min(samples(attack_s), length) if attack_s else 0
    out[:rise] *= np.linspace(0, 1, rise, dtype=np.float32)
    return out


def wander(random: np.random.Generator, length: int, per_second: float) -> Wave:
    """A slow random curve, mean 0 and deviation about 1, with so many turns a second: (T,)."""
    turns = max(2, int(length / RATE_HZ * per_second) + 2)
    values = random.standard_normal(turns, dtype=np.float32)
    # Sixteen points a turn are smooth enough to join by straight lines, which is quick.
    places = np.linspace(0, turns - 1, 16 * turns, dtype=np.float32)
    left = np.minimum(places.astype(np.int32), turns - 2)
    share = places - left
    share = share * share * (3 - 2 * share)
    smooth = values[left] * (1 - share) + values[left + 1] * share
    return stretched(smooth, length)


def stretched(values: np.ndarray, length: int) -> Wave:
    """Values at even places joined by straight lines: (T,)."""
    axis = np.arange(length) * np.float32((len(values) - 1) / max(1, length - 1))
    joined: Wave = np.interp(axis, np.arange(len(values)), values)
    return joined.astype(np.float32)


def without_rumble(wave: Wave) -> Wave:
    """A wave less what is too slow to be heard, about below 25 Hz: (T,)."""
    block = samples(0.02)
    means = np.pad(wave, (0, -len(wave) % block), mode="edge").reshape(-1, block).mean(1)
    return np.asarray(wave - stretched(means, len(wave)))


def modes(length: int, partials: Sequence[tuple[float, float, float]]) -> Wave:
    """A struck body: partials of (pitch in Hz, weight, seconds to fall by 60 dB), (T,)."""
    out = np.zeros(length, dtype=np.float32)
    for pitch_hz, weight, seconds in partials:
        if pitch_hz < TOP_HZ:
            heard = min(length, samples(seconds * 1.1))
            tone = sine(pitch_hz, heard)
            tone *= decay(heard, seconds)
            out[:heard] += np.float32(weight) * tone
    return out


def string(random: np.random.Generator, length: int, pitch_hz: float, bright: float) -> Wave:
    """A plucked string (Karplus and Strong, 1983), (T,); `bright` from 0 to 1 is the pick."""
    period = max(2, round(RATE_HZ / pitch_hz))
    pick = noise(random, period)
    for _ in range(round(4 * (1 - bright))):
        pick = 0.5 * (pick + np.roll(pick, 1))
    rows = -(-length // period)
    keep = np.float32(0.5 + 0.1 * bright)
    out = np.empty((rows, period), dtype=np.float32)
    out[0] = pick - pick.mean()
    loss = np.float32(10 ** (-3 * period / RATE_HZ / 4.0))
    for row in range(1, rows):
        previous = out[row - 1]
        out[row] = loss * (keep * previous + (1 - keep) * np.roll(previous, 1))
    return unit(out.ravel()[:length])


def impulses(random: np.random.Generator, length: int, per_second: float) -> Wave:
    """Poisson impulses of random strength: (T,)."""
    count = int(random.poisson(max(per_second * length / RATE_HZ, 1e-6)))
    out = np.zeros(length, dtype=np.float32)
    np.add.at(out, random.integers(0, length, count), random.exponential(1, count))
    return out


def sprinkle(random: np.random.Generator, length: int, per_second: float, grain: Wave) -> Wave:
    """A short sound at Poisson instants, at random strengths: (T,)."""
    count = int(random.poisson(per_second * length / RATE_HZ))
    starts = random.integers(0, max(1, length - len(grain)), count)
    out = np.zeros(length + len(grain), dtype=np.float32)
    size = len(grain)
    for start, strength in zip(starts, random.exponential(1, count), strict=True):
        out[start : start + size] += np.float32(strength) * grain
    return out[:length]


def place(length: int, starts: Sequence[int] | np.ndarray, sounds: Sequence[Wave]) -> Wave:
    """Sounds added at their starts in samples, cut at the end: (T,)."""
    out = np.zeros(length, dtype=np.float32)
    for start, sound in zip(starts, sounds, strict=True):
        if start < length:
            end = min(length, start + len(sound))
            out[start:end] += sound[: end - start]
    return out


def beats(voice: Voice, per_second: float, jitter: float = 0.05) -> np.ndarray:
    """Starts in samples of something regular, to the end of the sounding."""
    period = 1 / per_second
    count = max(1, int(voice.seconds / period))
    at = (np.arange(count) + voice.random.uniform(-jitter, jitter, count)) * period
    return np.asarray(np.round(np.maximum(at + 0.02, 0) * RATE_HZ), dtype=np.int64)


def room(random: np.random.Generator, wave: Wave, seconds: float, wet: float) -> Wave:
    """A sound in a room that rings for some time (60 dB); as long as the sound: (T,)."""
    tail = echo(round(seconds, 2), int(random.integers(ROOMS)))
    return wave + np.float32(wet * peak(wave)) * unit_peak(convolve(wave, tail))


@lru_cache(maxsize=256)
def echo(seconds: float, number: int) -> Wave:
    """One of several rooms' answers to an impulse, read-only: (T,)."""
    length = samples(seconds)
    tail = coloured(np.random.default_rng((number, length)), length, tilt(-4, 2000, 100))
    return np.asarray(tail * decay(length, seconds))


def unit(wave: Wave) -> Wave:
    """Scaled to unit power."""
    power = float(np.sqrt(np.mean(np.square(wave))))
    return wave / np.float32(power or 1.0)


def unit_peak(wave: Wave) -> Wave:
    """Scaled to a peak of one."""
    return wave / np.float32(peak(wave) or 1.0)


def peak(wave: Wave) -> float:
    """The largest magnitude."""
    return float(np.abs(wave).max(initial=0.0))
