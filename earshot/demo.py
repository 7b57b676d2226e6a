"""The main job in a minute: sounds made from formulas, or a folder of yours, then searched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import soundfile

from earshot.console import print_hits, print_summary, progress_bar
from earshot.library import index, open_or_create
from earshot.search import Searcher

RATE_HZ = 32_000
SECONDS = 6.0
HERE = Path("earshot-demo")
QUERIES = ("an ambulance siren", "a clock is ticking", "rain", "church bells", "a bird sings")

Wave = np.ndarray


def time_axis() -> Wave:
    """The instants of a sound, in seconds: (T,)."""
    return np.arange(int(SECONDS * RATE_HZ)) / RATE_HZ


def repeated(sound: Wave, every_s: float) -> Wave:
    """A short sound at regular intervals: (T,)."""
    out = np.zeros(len(time_axis()) + len(sound))
    for start in range(0, len(time_axis()), int(every_s * RATE_HZ)):
        out[start : start + len(sound)] += sound
    return out[: len(time_axis())]


def siren(random: np.random.Generator) -> Wave:
    """A wail that rises and falls every three seconds."""
    pitch_hz = 950 - 350 * np.cos(2 * np.pi * time_axis() / 3)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
    return np.asarray(np.tanh(2 * np.sin(phase)))


def ticking(random: np.random.Generator) -> Wave:
    """Dry clicks, alternately higher and lower, twice a second."""
    t = np.arange(int(0.03 * RATE_HZ)) / RATE_HZ

    def click(pitch_hz: float) -> Wave:
        noise = random.normal(0, 0.4, len(t))
        return np.asarray(np.exp(-t * 350) * (np.sin(2 * np.pi * pitch_hz * t) + noise))

    return np.asarray(
        repeated(click(3600), 1.0) + np.roll(repeated(click(2900), 1.0), RATE_HZ // 2)
    )


def rain(random: np.random.Generator) -> Wave:
    """Hiss with many small drops on it."""
    noise = np.diff(random.normal(0, 1, len(time_axis()) + 1))
    drops = random.random(len(noise)) < 0.01
    return 0.3 * noise + np.convolve(drops * random.exponential(3, len(noise)), np.ones(3), "same")


def bells(random: np.random.Generator) -> Wave:
    """A church bell's partials (hum, prime, tierce, quint, nominal), struck every two seconds."""
    t = np.arange(int(4 * RATE_HZ)) / RATE_HZ
    partials = ((0.5, 0.6), (1.0, 1.0), (1.2, 0.8), (1.5, 0.5), (2.0, 1.0), (3.0, 0.3))
    strike = sum(a * np.exp(-t * (0.6 + r)) * np.sin(2 * np.pi * 330 * r * t) for r, a in partials)
    return repeated(np.asarray(strike), 2.0)


def birdsong(random: np.random.Generator) -> Wave:
    """Short whistles that glide between three and six kilohertz."""
    t = np.arange(int(0.12 * RATE_HZ)) / RATE_HZ
    out = np.zeros(len(time_axis()))
    for start_s in np.arange(0.2, SECONDS - 0.3, 0.25):
        low_hz, high_hz = random.uniform(3000, 4500), random.uniform(3500, 6000)
        phase = 2 * np.pi * np.cumsum(np.linspace(low_hz, high_hz, len(t))) / RATE_HZ
        start = int(start_s * RATE_HZ)
        out[start : start + len(t)] += np.sin(phase) * np.hanning(len(t))
    return out


SOUNDS: Mapping[str, Callable[[np.random.Generator], Wave]] = {
    "take_01": siren,
    "take_02": ticking,
    "take_03": rain,
    "take_04": bells,
    "take_05": birdsong,
}


def make_sounds(folder: Path) -> None:
    """Write the sounds under names that give nothing away."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, sound in SOUNDS.items():
        wave = sound(np.random.default_rng(0))
        path = folder / f"{name}.wav"
        if not path.exists():
            soundfile.write(path, 0.5 * wave / np.abs(wave).max(), RATE_HZ)


def run(recordings: Path | None) -> None:
    """Index and search recordings, or the sounds that are made here.

    Raises:
        EarshotError: the model's weights are not to be had.
    """
    uri = str(HERE / ("index" if recordings is None else "library"))
    store, model = open_or_create(uri, None)
    if recordings is None:
        recordings = HERE / "sounds"
        make_sounds(recordings)
    with progress_bar("indexing") as report:
        summary = index([recordings], store, model, report=report)
    print_summary(summary, uri, model.name)
    searcher = Searcher(model, store)
    for query in QUERIES:
        print(f'\nearshot search {uri} "{query}" -k 3')
        print_hits([query], [searcher.search(query, 3)])
