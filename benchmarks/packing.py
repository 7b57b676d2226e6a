"""How many random 10-s crops per second: from a pack, against decoding the file each time.

The clips are Clotho's form: 16-bit mono WAV at 44.1 kHz, 15 to 30 s, here joined from the
recordings of a folder. The usual ways read each crop from its file with librosa: the whole file,
then the crop (what most training scripts do), or only the crop's seconds. All ways give mono
float32 at 32 kHz, take turns in one process, and use one thread; ratios count, not seconds. Needs
`make .venv-benchmarks` and a folder of recordings.

    .venv-benchmarks/bin/python benchmarks/packing.py FOLDER [--rounds 5]
"""

# ruff: noqa: E402 - libraries count the threads they may use when they are imported

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import librosa
import numpy as np
import soundfile

from earshot import audio
from earshot.datasets.pack import Pack, Settings
from earshot.datasets.packing import pack
from earshot.types import Clip

RESULT = Path(__file__).with_suffix(".json")
SOURCE_HZ, RATE_HZ, OPUS_HZ = 44_100, 32_000, 48_000
CROP_S = 10.0
CLIPS = 60
CODECS = {"pcm": RATE_HZ, "flac": RATE_HZ, "mp3": RATE_HZ, "opus": OPUS_HZ}
CROPS = {"usual_whole": 40, "usual_part": 40, "pcm": 20_000, "flac": 200, "mp3": 200, "opus": 100}
Crop = Callable[[Clip, np.random.Generator], np.ndarray]


def make_clips(recordings: list[Path], folder: Path, random: np.random.Generator) -> list[Clip]:
    """Join recordings to clips of Clotho's length and form."""
    clips = []
    for number in range(CLIPS):
        wanted = int(random.uniform(15, 30) * SOURCE_HZ)
        parts: list[np.ndarray] = []
        while sum(map(len, parts)) < wanted:
            path = recordings[random.integers(len(recordings))]
            parts.append(audio.read(path, sample_rate_hz=SOURCE_HZ))
        path = folder / f"{number:03d}.wav"
        soundfile.write(path, np.concatenate(parts)[:wanted], SOURCE_HZ, subtype="PCM_16")
        clips.append(Clip(id=path.stem, path=str(path), duration_s=wanted / SOURCE_HZ))
    return clips


def usual_whole(clip: Clip, random: np.random.Generator) -> np.ndarray:
    waveform: np.ndarray = librosa.load(clip.path, sr=RATE_HZ)[0]
    start = random.integers(len(waveform) - int(CROP_S * RATE_HZ))
    return waveform[start : start + int(CROP_S * RATE_HZ)]


def usual_part(clip: Clip, random: np.random.Generator) -> np.ndarray:
    start_s = random.uniform(0, (clip.duration_s or 0) - CROP_S)
    part = librosa.load(clip.path, sr=RATE_HZ, offset=start_s, duration=CROP_S)
    waveform: np.ndarray = part[0]
    return waveform


def from_pack(store: Pack) -> Crop:
    samples = int(CROP_S * store.sample_rate_hz)
    return lambda clip, random: store.random_crop(clip.id, samples, random)


def crops_per_s(crop: Crop, clips: list[Clip], count: int, seed: int) -> float:
    random = np.random.default_rng(seed)
    chosen = [clips[i] for i in random.integers(len(clips), size=count)]
    start_s = time.perf_counter()
    for clip in chosen:
        crop(clip, random)
    return count / (time.perf_counter() - start_s)


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    recordings = list(folder.rglob("*.ogg"))
    with tempfile.TemporaryDirectory() as work:
        clips = make_clips(recordings, Path(work), np.random.default_rng(0))
        stores, packing = {}, {}
        for codec, rate_hz in CODECS.items():
            start_s = time.perf_counter()
            settings = Settings(sample_rate_hz=rate_hz, codec=codec)  # type: ignore[arg-type]
            stores[codec] = pack(clips, Path(work, codec), settings)
            packing[codec] = {
                "seconds": time.perf_counter() - start_s,
                "megabytes": Path(work, codec, "audio.bin").stat().st_size / 1e6,
            }
        ways: dict[str, Crop] = {"usual_whole": usual_whole, "usual_part": usual_part}
        ways |= {codec: from_pack(store) for codec, store in stores.items()}
        speeds: dict[str, list[float]] = {way: [] for way in ways}
        for crop in ways.values():
            crops_per_s(crop, clips, 2, seed=0)  # librosa compiles and imports on first use
        for number in range(rounds):
            for way, crop in ways.items():
                speeds[way].append(crops_per_s(crop, clips, CROPS[way], seed=number))
        audio_s = sum(clip.duration_s or 0 for clip in clips)
    return report(speeds, packing, audio_s)


def report(
    speeds: dict[str, list[float]], packing: dict[str, dict[str, float]], audio_s: float
) -> dict[str, Any]:
    times_faster = {
        way: {
            usual: median(a / b for a, b in zip(values, speeds[usual], strict=True))
            for usual in ("usual_whole", "usual_part")
        }
        for way, values in speeds.items()
        if way in CODECS
    }
    return {
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "load_average": os.getloadavg()[0],
        "clips": CLIPS,
        "audio_s": audio_s,
        "crops_per_s": {
            way: {"median": median(values), "rounds": values} for way, values in speeds.items()
        },
        "times_faster": times_faster,
        "packing": packing,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    result = measure(arguments.folder, arguments.rounds)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
