"""How fast recordings are indexed, stage by stage, against the same job done the usual way.

The usual way: librosa.load, one file at a time, the same encoder and weights as published (no
folded norms), torch's own threads, vectors saved at the end. Both ways run in turn, in fresh
processes, on the same files; ratios count, not seconds. Needs `make .venv-benchmarks`, real weights
(EARSHOT_ASSETS) and a folder of recordings.

    .venv-benchmarks/bin/python benchmarks/index_speed.py FOLDER [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

RESULT = Path(__file__).with_suffix(".json")
RATE_HZ = 32_000


def usual_way(paths: list[str], out: str) -> float:
    """Embed as a script would; returns seconds of audio."""
    import librosa
    import torch

    from earshot.encoders.mobilenet import PRESETS, MobileNet
    from earshot.model import load

    model = load("tags", "cpu")
    network = MobileNet(PRESETS["mn04"])
    network.load_state_dict(published_state())
    network.eval()
    model.embed_audio([np.zeros(RATE_HZ, dtype=np.float32)])  # Load everything before timing.
    start_s, audio_s, vectors = time.perf_counter(), 0.0, []
    for path in paths:
        waveform, _ = librosa.load(path, sr=RATE_HZ, mono=True)
        batch = torch.from_numpy(waveform)[None]
        with torch.inference_mode():
            logits = network(batch, torch.tensor([batch.shape[1]])).logits
        vectors.append(logits.numpy())
        audio_s += len(waveform) / RATE_HZ
    np.save(f"{out}.npy", np.concatenate(vectors))
    report(audio_s, time.perf_counter() - start_s, len(paths))
    return audio_s


def published_state() -> dict[str, Any]:
    """The public weights under this project's names."""
    import torch

    from earshot.checkpoints import TAGGERS
    from earshot.files import fetch

    state = torch.load(fetch(TAGGERS["mn04"].asset), weights_only=True)
    return {key.replace(".conc_se_layers.0.", "."): value for key, value in state.items()}


def our_way(paths: list[str], out: str) -> float:
    """`earshot index` into a new index, from scan to the last write."""
    from earshot.library import index, open_or_create

    store, model = open_or_create(out, "tags", "cpu")
    model.embed_audio([np.zeros(RATE_HZ, dtype=np.float32)])
    start_s = time.perf_counter()
    summary = index(paths, store, model)
    report(summary.audio_s, time.perf_counter() - start_s, summary.added)
    return summary.audio_s


def stages(paths: list[str], out: str) -> float:
    """Each stage alone in one thread: where the time goes."""
    import torch

    from earshot.embed import embed_files
    from earshot.library import open_or_create

    torch.set_num_threads(1)
    store, model = open_or_create(out, "tags", "cpu")
    spent: dict[str, float] = {}
    audio_s = sum(time_stages(path, model, spent) for path in paths)
    files = list(embed_files(paths, model, workers=1))
    now_s = time.perf_counter()
    store.put(files)
    spent["write"] = time.perf_counter() - now_s
    print(json.dumps({"audio_s": audio_s, "seconds": spent}))
    return audio_s


def time_stages(path: str, model: Any, spent: dict[str, float]) -> float:
    """Add one file's seconds to each stage; returns the seconds of audio."""
    import soundfile
    import soxr
    import torch

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        start_s = time.perf_counter()
        result = work()
        spent[stage] = spent.get(stage, 0.0) + time.perf_counter() - start_s
        return result

    samples, rate_hz = timed("decode", lambda: soundfile.read(path, dtype="float32"))
    mono = samples if samples.ndim == 1 else samples.mean(1)
    waveform = timed("resample", lambda: soxr.resample(mono, rate_hz, RATE_HZ, "HQ"))
    batch, lengths = torch.from_numpy(waveform)[None], torch.tensor([len(waveform)])
    network = model.tagger
    with torch.inference_mode():
        features = timed("front-end", lambda: network.log_mel(batch, lengths))
        logits = timed("encoder", lambda: network.classify(*features).logits)
    timed("match", lambda: model.vectors_of(logits.numpy()))
    return len(waveform) / RATE_HZ


def report(audio_s: float, seconds: float, files: int) -> None:
    """One run's figures, for the process that asked."""
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {"audio_s": audio_s, "seconds": seconds, "files": files, "peak_mb": peak_mb}
    print(json.dumps(figures))


WAYS = {"usual": usual_way, "ours": our_way, "stages": stages}


def measure(way: str, folder: Path) -> dict[str, Any]:
    """Run one way in a fresh process."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, __file__, str(folder), "--way", way, "--out", f"{out}/index"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def compare(folder: Path, rounds: int) -> dict[str, Any]:
    """Both ways in turn; medians, and the ratio of each round."""
    runs: dict[str, list[dict[str, Any]]] = {"usual": [], "ours": []}
    for _ in range(rounds):
        for way, results in runs.items():
            results.append(measure(way, folder))
            print(way, results[-1], flush=True)
    ratios = [
        usual["seconds"] / ours["seconds"]
        for usual, ours in zip(runs["usual"], runs["ours"], strict=True)
    ]
    breakdown = measure("stages", folder)
    total_s = sum(breakdown["seconds"].values())
    return {
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "folder": folder.name,
        "rounds": rounds,
        **{way: summary(results) for way, results in runs.items()},
        "times_faster": {"median": median(ratios), "rounds": ratios},
        "stages_one_core": {
            stage: {
                "ms_per_audio_s": 1000 * seconds / breakdown["audio_s"],
                "share": seconds / total_s,
            }
            for stage, seconds in breakdown["seconds"].items()
        },
    }


def summary(results: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over rounds."""
    return {
        "times_real_time": median(r["audio_s"] / r["seconds"] for r in results),
        "files_per_s": median(r["files"] / r["seconds"] for r in results),
        "peak_mb": median(r["peak_mb"] for r in results),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--out", default="")
    arguments = parser.parse_args()
    if arguments.way:
        from earshot.folders import collect

        WAYS[arguments.way](collect([arguments.folder]), arguments.out)
        return
    result = compare(arguments.folder, arguments.rounds)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
