"""How fast training goes: the loop of `earshot train` beside the plain version of the same step.

`salsa-2024-stage1` and `dcase2025-baseline` with random weights on data shaped like Clotho's
development split: clips of 15 to 30 s at 44.1 kHz, five captions each. The plain version is what
research code does: librosa decodes and resamples each whole clip, which is then cut or padded to
30 s; every caption is padded to 32 tokens; attention is written out, all segments and tokens go
through all blocks; autocast to fp16 with a scaled loss on a GPU. Both ways run in turn, each time
in a fresh process; ratios count, on a CPU those of CPU time. There the towers are small and steps
few (`SMALL`), and no workers decode: all of that is waiting.

Steps are timed after the first ones. "Waiting" is the share of time in which the next batch was not
there yet. The share of the peak is that of the floating-point operations of a step's matrix
products against a loop of large products, measured in the same process in the way's precision.

    OMP_NUM_THREADS=1 .venv-benchmarks/bin/python benchmarks/training.py
    .venv-benchmarks/bin/python benchmarks/training.py --device cuda --clips 3839
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from types import MethodType
from typing import Any

import numpy as np
import published
import torch
from clotho_shaped import ROBERTA_LARGE, SMALL_ROBERTA, dataset, roberta_folder, write_clips
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from earshot.batches import Batch, Pairs
from earshot.batches.loader import start_method
from earshot.losses import contrastive_multiple_positives
from earshot.model.dual import DualEncoder
from earshot.recipes import recipe
from earshot.train.loop import Material, Training
from earshot.train.recipe import Recipe
from earshot.train.run import RunFolder
from earshot.train.step import encode

RESULT = Path(__file__).with_suffix(".json")
RECIPES = ("salsa-2024-stage1", "dcase2025-baseline")
CLOTHO_CLIPS, CLOTHO_EPOCHS = 3839, 20
CROP_S = 30
MAX_TOKENS = 32
# Audio towers that a CPU trains instead: a few layers, a quarter or half as wide.
SMALL: dict[str, dict[str, Any]] = {
    "salsa-2024-stage1": {"dimension": 384, "heads": 6, "depth": 3},
    "dcase2025-baseline": {"width": 192, "heads": 6, "hidden": 768, "layers": 3},
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one process measures."""

    name: str
    way: str
    data: Path
    clips: int
    device: str
    pairs: int
    steps: int
    workers: int

    @property
    def small(self) -> bool:
        """Whether the towers are small, for a CPU."""
        return self.device == "cpu"


def resized(case: Case) -> Recipe:
    """The recipe as published, or with small towers."""
    base = recipe(case.name)
    audio = base.model.audio
    if case.small:
        audio = replace(audio, settings={**audio.settings, **SMALL[case.name]})
    return replace(
        base,
        model=replace(base.model, audio=audio),
        batches=replace(base.batches, pairs=case.pairs, workers=case.workers),
        precision="32-true" if case.small else "bf16-mixed",
        compile=base.compile and not case.small,
        initialise=(),
    )


def random_network(case: Case, run: Recipe, folder: Path) -> DualEncoder:
    """The network with random weights."""
    roberta_folder(folder, SMALL_ROBERTA if case.small else ROBERTA_LARGE)
    torch.manual_seed(0)
    return DualEncoder(run.model, folder, pretrained=False)


def measure(case: Case) -> dict[str, Any]:
    """One way of one recipe, in this process."""
    warnings.simplefilter("ignore")
    run = resized(case)
    with tempfile.TemporaryDirectory() as folder:
        network = random_network(case, run, Path(folder)).to(case.device)
    weights = sum(weight.numel() for weight in network.parameters())
    pairs = Pairs([dataset(case.data, case.clips)], sample_rate_hz=network.audio.sample_rate_hz)
    make = {"ours": ours, "plain": plain}[case.way]
    step, batches, finish = make(case, run, network, pairs)
    with FlopCounterMode(display=False) as counter:
        step(next(batches))
    finish()
    figures = timed(case, step, batches)
    flops = counter.get_total_flops()
    peak = peak_flops(case)
    return figures | {
        "weights": weights,
        "gflop_per_step": flops / 1e9,
        "peak_gflop_per_s": peak / 1e9,
        "share_of_peak": flops * figures["steps_per_s"] / peak,
    }


Step = Callable[[Any], float]
Made = tuple[Step, Iterator[Any], Callable[[], None]]


def ours(case: Case, run: Recipe, network: DualEncoder, pairs: Pairs) -> Made:
    """The loop's own step and batches."""
    fabric: Any = Fabric(accelerator=case.device, devices=1, precision=run.precision)
    material = Material(pairs=pairs, validation=dataset(case.data, 1))
    training = Training(network, run, material, RunFolder(path=case.data), fabric)
    network.train()

    def batches() -> Iterator[Batch]:
        for epoch in itertools.count():
            yield from training.batches(epoch)

    def finish() -> None:
        """Compile where the recipe says so: operations are counted before."""
        if run.compile:
            network.audio.encoder.compile()
            network.text.network.compile()

    def step(batch: Batch) -> float:
        return float(training.one_step(batch.to(fabric.device)))

    return step, batches(), finish


class WholeClips:
    """Pairs as research code reads them: librosa, then 30 s of it."""

    def __init__(self, pairs: Pairs) -> None:
        self.paths = [pairs.clips[place].path for place in pairs.clip_of]
        self.rate_hz = pairs.sample_rate_hz

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> tuple[int, Tensor]:
        import librosa

        waveform, _ = librosa.load(self.paths[place], sr=self.rate_hz, mono=True)
        samples = CROP_S * self.rate_hz
        start = np.random.default_rng().integers(max(1, len(waveform) - samples + 1))
        cut = waveform[start : start + samples]
        return place, torch.from_numpy(np.pad(cut, (0, samples - len(cut))))


def plain(case: Case, run: Recipe, network: DualEncoder, pairs: Pairs) -> Made:
    """The same step as it is usually written."""
    write_out_attention(network)
    learning = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=run.optimizer.rate, weight_decay=0.0)
    scaler = torch.amp.GradScaler(case.device, enabled=not case.small)
    tokenizer = network.text.tokenize.tokenizer
    network.train()

    def step(batch: tuple[Tensor, Tensor]) -> float:
        places, waveforms = batch
        texts = [pairs.captions[place].text for place in places]
        tokens = tokenizer(
            texts, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        ids = torch.from_numpy(pairs.clip_of[places.numpy()])
        whole = Batch(
            waveforms=waveforms,
            lengths=torch.full((len(places),), waveforms.shape[1]),
            tokens={name: tokens[name] for name in ("input_ids", "attention_mask")},
            clip_ids=ids,
            caption_ids=places,
        ).to(case.device)
        half = nullcontext() if case.small else torch.autocast(case.device, torch.float16)
        with half:
            audio, text = encode(network, whole)
        loss = contrastive_multiple_positives(
            audio, whole.clip_ids, text, whole.clip_ids, network.temperature, "cells"
        )
        optimizer.zero_grad()
        scaled: Any = scaler.scale(loss)
        scaled.backward()
        scaler.step(optimizer)
        scaler.update()
        return float(loss)

    ahead: Any = DataLoader(
        WholeClips(pairs),  # type: ignore[arg-type]
        batch_size=case.pairs,
        shuffle=True,
        drop_last=True,
        num_workers=case.workers,
        multiprocessing_context=start_method() if case.workers else None,
    )
    return step, itertools.chain.from_iterable(ahead for _ in itertools.count()), lambda: None


def write_out_attention(network: DualEncoder) -> None:
    """Attention as a matrix of weights, in both towers; all tokens through every block."""
    encoder: Any = network.audio.encoder
    if hasattr(encoder, "blocks"):
        attentions = [block.attn for block in encoder.blocks]
        encoder.config = replace(encoder.config, sequence=True)
        written: Any = published.explicit_attention
    else:
        attentions = [layer.self_attn for layer in encoder.encoder.layers]
        written = published.gated_attention
    for attention in attentions:
        attention.forward = MethodType(written, attention)
    text: Any = network.text.network
    text.set_attn_implementation("eager")


def timed(case: Case, step: Step, batches: Iterator[Any]) -> dict[str, float]:
    """Steps after the first ones: rates, waiting, the most memory."""
    waited_s = began_s = began_cpu_s = 0.0
    warm_up = 2 if not case.small else 1
    for number in range(warm_up + case.steps):
        if number == warm_up:
            waited_s, began_s, began_cpu_s = 0.0, time.perf_counter(), time.process_time()
        asked_s = time.perf_counter()
        batch = next(batches)
        waited_s += time.perf_counter() - asked_s
        step(batch)  # Returns the loss, so the device has done it.
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    if case.small:
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    else:
        peak_mb = torch.cuda.max_memory_allocated() / 2**20
    return {
        "steps_per_s": case.steps / wall_s,
        "samples_per_s": case.steps * case.pairs / wall_s,
        "waiting": waited_s / wall_s,
        "cpu_s_per_step": cpu_s / case.steps,
        "peak_mb": peak_mb,
    }


def peak_flops(case: Case) -> float:
    """What a loop of large matrix products reaches, per second."""
    size, kind = (512, torch.float32) if case.small else (8192, torch.bfloat16)
    if case.way == "plain" and not case.small:
        kind = torch.float16
    left, right = (torch.randn(size, size, device=case.device, dtype=kind) for _ in range(2))

    def settled() -> float:
        if not case.small:
            torch.cuda.synchronize()
        return time.perf_counter()

    best_s = float("inf")
    for _ in range(5):
        began_s = settled()
        for _ in range(10):
            left @ right
        best_s = min(best_s, (settled() - began_s) / 10)
    return 2.0 * size**3 / best_s


def in_a_process(case: Case) -> dict[str, Any]:
    """Measure in a fresh process."""
    command = [sys.executable, __file__, "--name", case.name, "--way", case.way]
    for option in ("data", "clips", "device", "pairs", "steps", "workers"):
        command += [f"--{option}", str(getattr(case, option))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def compare(case: Case, rounds: int) -> dict[str, Any]:
    """Both ways in turn: medians, and the ratio of each round."""
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "plain": []}
    for _ in range(rounds):
        for way, found in runs.items():
            found.append(in_a_process(replace(case, way=way)))
            print(case.name, way, {k: round(v, 3) for k, v in found[-1].items()}, flush=True)
    # On a CPU that others use too, its seconds tell more than the clock's.
    rate = "cpu_s_per_step" if case.small else "steps_per_s"
    ratios = [
        own[rate] / other[rate] for own, other in zip(runs["ours"], runs["plain"], strict=True)
    ]
    if case.small:
        ratios = [1 / ratio for ratio in ratios]
    medians = {
        way: {key: round(median(one[key] for one in found), 4) for key in found[0]}
        for way, found in runs.items()
    }
    epoch_steps = CLOTHO_CLIPS * 5 // case.pairs
    hours = CLOTHO_EPOCHS * epoch_steps / medians["ours"]["steps_per_s"] / 3600
    return {
        **medians,
        "times_faster": {
            "median": round(median(ratios), 3),
            "rounds": np.round(ratios, 3).tolist(),
        },
        **({} if case.small else {"hours for 20 epochs of Clotho": round(hours, 3)}),
    }


def described(case: Case, rounds: int) -> dict[str, Any]:
    """What the figures are of."""
    cpu = case.small
    return {
        "device": "cpu" if cpu else torch.cuda.get_device_name(),
        "towers": "small, see SMALL in the script" if cpu else "as published, random weights",
        "clips": case.clips,
        "pairs": case.pairs,
        "steps": case.steps,
        "workers": case.workers,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "precision": "single" if cpu else "ours bf16, plain fp16, both by autocast",
        "rounds": rounds,
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--data", type=Path, help="where the clips are kept; else nowhere")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--pairs", type=int, help="default: 64 on a GPU, 4 on a CPU")
    parser.add_argument("--steps", type=int, help="default: 40 on a GPU, 3 on a CPU")
    parser.add_argument("--workers", type=int, help="default: 8 on a GPU, 0 on a CPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", choices=RECIPES)
    parser.add_argument("--way", choices=("ours", "plain"))
    given = parser.parse_args()
    gpu = given.device == "cuda"
    with tempfile.TemporaryDirectory() as scratch:
        case = Case(
            name=given.name or RECIPES[0],
            way=given.way or "",
            data=given.data or Path(scratch),
            clips=given.clips,
            device=given.device,
            pairs=given.pairs or (64 if gpu else 4),
            steps=given.steps or (40 if gpu else 3),
            workers=(8 if gpu else 0) if given.workers is None else given.workers,
        )
        if given.way:
            print(json.dumps(measure(case)))
            return
        write_clips(case.data, case.clips)
        found = described(case, given.rounds)
        for name in RECIPES if given.name is None else (given.name,):
            found[name] = compare(replace(case, name=name), given.rounds)
    kept = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    RESULT.write_text(json.dumps({**kept, given.device: found}, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
