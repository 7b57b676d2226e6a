"""What each audio encoder costs for a clip of 30 s, beside the way it was published.

Random weights, noise, `encode_segments`. Ours runs as built ("eager") and, where it has one, its
fastest exact way ("fast": norms folded, Winograd's convolution); some also as our export in ONNX
Runtime, exact ("onnx") and its matrix products in eight bits ("int8"). The other side is a public
package or a stand-in for the published code (benchmarks/published.py), with the same weights;
outputs are compared. Each way has a process of its own, all of one encoder take turns: ratios are
of CPU time, the median over the turns, and count, not seconds. Peak memory is beyond the weights.

"Given" is the CPU time of the original code on one core of another machine on another day.

    .venv/bin/python benchmarks/encoders.py [--quick | --minutes 60] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import exported
import published
import torch
from torch import Tensor, nn

from earshot.encoders.catalogue import audio_encoder
from earshot.encoders.segments import encode_segments

RESULT = Path(__file__).with_suffix(".json")
CLIP_S = 30
BATCH = 8
TURNS_S = 6.0
"""Turns of one setting are repeated for so long, at least once and at most `MOST_TURNS` times."""
MOST_TURNS = 5
# Dense products of bfloat16 per second, by what the device's name contains: makers' data sheets.
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40": 181e12, "4090": 165e12}


@dataclass(frozen=True, kw_only=True)
class Case:
    """An encoder, what it is compared with, and the CPU seconds that were given for that."""

    preset: str
    other: Callable[[Any], published.Way]
    label: str
    fold: dict[str, bool] | None = None
    onnx: bool = False
    given_s: float | None = None


STAND_IN = "published formulation (stand-in)"
# The quick ones first: what no time is left for is left out from the end.
CASES = (
    Case(
        preset="mn04",
        other=published.efficientat,
        label=STAND_IN,
        fold={},
        onnx=True,
        given_s=0.17,
    ),
    Case(
        preset="mn10",
        other=published.efficientat,
        label=STAND_IN,
        fold={},
        onnx=True,
        given_s=0.30,
    ),
    Case(preset="clap-htsat-unfused", other=published.transformers_clap, label="transformers"),
    Case(
        preset="cnn14-dcase2023",
        other=published.unfolded,
        label=STAND_IN,
        fold={"winograd": True},
        given_s=0.85,
    ),
    Case(preset="atst-frame-base", other=published.vision, label=STAND_IN),
    Case(
        preset="cnn14",
        other=published.panns,
        label=STAND_IN,
        fold={"winograd": True},
        given_s=1.71,
    ),
    Case(
        preset="passt_s_p16_s16",
        other=published.vision,
        label=STAND_IN,
        onnx=True,
        given_s=4.8,
    ),
    Case(
        preset="beats-iter3-plus-as2m-finetuned",
        other=published.beats,
        label=STAND_IN,
        given_s=10.6,
    ),
    Case(
        preset="MIT/ast-finetuned-audioset-10-10-0.4593",
        other=published.transformers_ast,
        label="transformers",
    ),
    Case(preset="pe-audio-large", other=published.transformers_pe, label="transformers"),
)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One batch through one way."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    embeddings: Tensor


def build(preset: str) -> Any:
    """An encoder with random weights, whose batch norms know what they will be given."""
    torch.manual_seed(0)
    encoder = audio_encoder(preset)
    norms = [layer for layer in encoder.modules() if isinstance(layer, nn.BatchNorm2d)]
    if norms:
        # Else signals die out with depth, and so would all differences.
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            clips = noise(encoder, 2)[:, : 5 * encoder.sample_rate_hz]
            encoder.train()(clips, torch.full((2,), clips.shape[1]))
    return encoder.eval()


def noise(encoder: Any, clips: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(clips, CLIP_S * encoder.sample_rate_hz, generator=generator) * 0.1


def ways_of(case: Case, exports: Path) -> dict[str, Callable[[Any], published.Way]]:
    """Every way of a case: from an encoder to a function of clips."""
    ways = {"eager": published.unfolded, "other": case.other}
    fold = case.fold
    if fold is not None:
        ways["fast"] = lambda encoder: published.unfolded(encoder.fold_norms(**fold))
    for path in sorted(exports.glob("*.onnx"), reverse=True):
        ways[path.stem] = partial(exported.exported, path=path)
    return ways


def memory_mb(entry: str) -> float:
    """A figure of this process: VmRSS, resident now, or VmHWM, the most since it was reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(entry)) / 1024


def serve(make: Callable[[Any], published.Way], encoder: Any, pipe: Connection) -> None:
    """Answer (threads, clips, bf16) with a `Turn`, in a process that knows one way only."""
    warnings.simplefilter("ignore")
    way = make(encoder)
    loaded_mb = memory_mb("VmRSS")
    while True:
        threads, clips, bf16 = pipe.recv()
        torch.set_num_threads(threads)
        waveforms = noise(encoder, clips)
        precision = torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()
        with torch.inference_mode(), precision:
            way(waveforms[:1, : 2 * encoder.sample_rate_hz])  # Threads start, libraries load.
            Path("/proc/self/clear_refs").write_text("5")
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            embeddings = way(waveforms)
            wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        peak_mb = memory_mb("VmHWM") - loaded_mb
        turn = Turn(wall_s=wall_s, cpu_s=cpu_s, peak_mb=peak_mb, embeddings=embeddings.float())
        pipe.send(asdict(turn) | {"embeddings": turn.embeddings.numpy()})


@contextmanager
def workers(case: Case) -> Iterator[dict[str, Connection]]:
    """A process for each way; they share the weights that they do not change."""
    fork = multiprocessing.get_context("fork")
    encoder = build(case.preset)
    pipes: dict[str, Connection] = {}
    processes = []
    with TemporaryDirectory() as folder:
        if case.onnx:
            arguments = (encoder, noise(encoder, 3), Path(folder))
            exporter = fork.Process(target=exported.write_exports, args=arguments)
            exporter.start()
            exporter.join()
            assert exporter.exitcode == 0
        for name, make in ways_of(case, Path(folder)).items():
            pipes[name], far_end = fork.Pipe()
            process = fork.Process(target=serve, args=(make, encoder, far_end), daemon=True)
            process.start()
            processes.append(process)
        try:
            yield pipes
        finally:
            for process in processes:
                process.kill()
                process.join()


def ask(pipe: Connection, threads: int, clips: int, bf16: bool = False) -> Turn:
    """One turn."""
    pipe.send((threads, clips, bf16))
    figures = pipe.recv()
    return Turn(**figures | {"embeddings": torch.from_numpy(figures["embeddings"])})


def take_turns(
    pipes: dict[str, Connection], threads: int, clips: int, most: int
) -> dict[str, list[Turn]]:
    """All ways in turn, again and again for `TURNS_S`."""
    turns: dict[str, list[Turn]] = {name: [] for name in pipes}
    start_s = time.perf_counter()
    for _ in range(most):
        for name, pipe in pipes.items():
            turns[name].append(ask(pipe, threads, clips))
        if time.perf_counter() - start_s > TURNS_S:
            break
    return turns


def summary(turns: dict[str, list[Turn]], clips: int) -> dict[str, Any]:
    """Per clip: the least seconds of each way, its peak memory; ratios and differences to ours."""
    ours = turns.get("fast", turns["eager"])
    ratios = [other.cpu_s / own.cpu_s for other, own in zip(turns["other"], ours, strict=True)]
    expected = turns["other"][0].embeddings.flatten()

    def apart(taken: list[Turn]) -> float:
        difference = taken[0].embeddings.flatten() - expected
        return (difference.abs().max() / expected.abs().max()).item()

    ways = {
        name: {
            "wall_s": min(turn.wall_s for turn in taken) / clips,
            "cpu_s": min(turn.cpu_s for turn in taken) / clips,
            "peak_mb": max(turn.peak_mb for turn in taken) / clips,
            "difference": apart(taken),
        }
        for name, taken in turns.items()
    }
    return ways | {
        "times_faster": median(ratios),
        "turns": len(ratios),
        "difference": apart(ours),
    }


def row(case: Case, threads: int, clips: int, figures: dict[str, Any]) -> str:
    """One line of the table."""
    ours = figures.get("fast", figures["eager"])
    eager, other = figures["eager"], figures["other"]
    given = "" if case.given_s is None else f"{case.given_s:.2f}"
    runtime = " ".join(
        f"{figures[name]['cpu_s']:7.3f}" if name in figures else " " * 7
        for name in (exported.EXACT, exported.INT8)
    )
    return (
        f"{case.preset.rpartition('/')[2][:31]:31} {threads:3} {clips:3}  {eager['cpu_s']:7.3f}  "
        f"{ours['wall_s']:7.3f} {ours['cpu_s']:7.3f} {ours['peak_mb']:5.0f}  "
        f"{other['wall_s']:7.3f} {other['cpu_s']:7.3f} {other['peak_mb']:5.0f}  "
        f"{figures['times_faster']:5.2f} {figures['difference']:8.0e}  "
        f"{runtime}  {given:>5}  {case.label}"
    )


HEADER = (
    f"{'seconds and MB for a clip of 30 s':31} thr bat  {'eager':>7}  {'ours':>7} {'cpu':>7} "
    f"{'MB':>5}  {'other':>7} {'cpu':>7} {'MB':>5}  {'ratio':>5} {'differs':>8}  "
    f"{'onnx':>7} {'int8':>7}  given  other is"
)


def half_precision(preset: str = "mn10") -> dict[str, Any]:
    """bfloat16 on this CPU: one encoder, for its figure explains itself."""
    case = next(case for case in CASES if case.preset == preset)
    flags = Path("/proc/cpuinfo").read_text()
    with workers(case) as pipes:
        exact = ask(pipes["eager"], 1, 1)
        half = ask(pipes["eager"], 1, 1, bf16=True)
    return {
        "preset": preset,
        "in_hardware": "avx512_bf16" in flags or "amx_bf16" in flags,
        "cpu_s": half.cpu_s,
        "times_faster": exact.cpu_s / half.cpu_s,
        "why": "without avx512_bf16 or amx_bf16 each product is widened to single precision first",
    }


def gpu_rates() -> dict[str, Any]:
    """Clips per second in bfloat16 on the first GPU, and which share of its products that is."""
    from torch.utils.flop_counter import FlopCounterMode

    device = torch.cuda.get_device_name()
    peak = next((flops for name, flops in PEAK_FLOPS.items() if name in device), None)
    rates: dict[str, Any] = {"device": device, "peak_flops": peak}
    for case in CASES:
        encoder = build(case.preset).cuda()
        clips = noise(encoder, BATCH).cuda()
        lengths = torch.full((BATCH,), clips.shape[1], device="cuda")
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            with FlopCounterMode(display=False) as counter:
                encode_segments(encoder, clips, lengths)
            torch.cuda.synchronize()
            start_s, rounds = time.perf_counter(), 0
            while time.perf_counter() - start_s < 2.0:
                encode_segments(encoder, clips, lengths)
                torch.cuda.synchronize()
                rounds += 1
        clips_per_s = rounds * BATCH / (time.perf_counter() - start_s)
        flops = counter.get_total_flops() / BATCH
        share = None if peak is None else clips_per_s * flops / peak
        rates[case.preset] = {
            "clips_per_s": clips_per_s,
            "gflop_per_clip": flops / 1e9,
            "share_of_peak": share,
        }
        print(case.preset, rates[case.preset], flush=True)
    return rates


class Report:
    """The table as it is printed, and the same as data."""

    def __init__(self, minutes: float) -> None:
        self.end_s = time.monotonic() + 60 * minutes
        self.figures: dict[str, dict[str, Any]] = {}
        self.left_out: list[str] = []
        print(HEADER, flush=True)

    def has_time_for(self, seconds: float, what: str) -> bool:
        """Whether so many seconds are left; if not, the report says what was left out."""
        if time.monotonic() + seconds < self.end_s:
            return True
        self.left_out.append(f"{what}: takes {seconds:.0f} s or more")
        return False

    def measure(
        self, case: Case, pipes: dict[str, Connection], setting: tuple[int, int], most: int
    ) -> None:
        """One line of the table: `setting` is the threads and the clips of a batch."""
        figures = summary(take_turns(pipes, *setting, most), setting[1])
        own = self.figures.setdefault(case.preset, {"other": case.label, "given_s": case.given_s})
        own["{} threads, batch {}".format(*setting)] = figures
        print(row(case, *setting, figures), flush=True)

    def forecast_s(self, case: Case, threads: int) -> float:
        """How long a turn of all ways with a batch will take; a second thread may help little."""
        single = self.figures[case.preset].get(f"{threads} threads, batch 1", {})
        walls: list[float] = [way["wall_s"] for way in single.values() if isinstance(way, dict)]
        return BATCH * sum(walls)


def compare(cases: list[Case], report: Report, quick: bool) -> None:
    """Single clips with every encoder, then batches with those that time is left for."""
    last_s = 0.0
    for case in cases:
        # Sorted by cost: the next one takes two to three times as long as the last one did.
        if report.has_time_for(2 * last_s, case.preset):
            start_s = time.monotonic()
            with workers(case) as pipes:
                for threads in (1,) if quick else (1, 2):
                    report.measure(case, pipes, (threads, 1), 1 if quick else MOST_TURNS)
            last_s = time.monotonic() - start_s
    if quick:
        report.left_out.append("two threads and batches: --quick")
        return
    for case in (case for case in cases if case.preset in report.figures):
        with workers(case) as pipes:
            for threads in (2, 1):
                needed_s = report.forecast_s(case, threads)
                what = f"{case.preset}, {threads} threads, batch {BATCH}"
                if report.has_time_for(1.2 * needed_s, what):
                    report.measure(case, pipes, (threads, BATCH), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one thread, one turn, two minutes")
    parser.add_argument("--minutes", type=float, help="start nothing that would take longer")
    parser.add_argument("--only", nargs="*", choices=[case.preset for case in CASES])
    arguments = parser.parse_args()
    if "OMP_WAIT_POLICY" not in os.environ:
        # Waiting threads would else spin, and that would count as CPU time.
        passive = os.environ | {"OMP_WAIT_POLICY": "passive"}
        os.execve(sys.executable, [sys.executable, *sys.argv], passive)
    # Before anything is computed: processes forked from one with OpenMP's threads would hang.
    torch.set_num_threads(1)
    cases = [case for case in CASES if not arguments.only or case.preset in arguments.only]
    report = Report(arguments.minutes or (1.6 if arguments.quick else 7.5))
    compare(cases, report, arguments.quick)
    result: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "isa": torch.backends.cpu.get_cpu_capability()},
        "torch": torch.__version__,
        "clip_s": CLIP_S,
        "bf16": half_precision(),
        "encoders": report.figures,
    }
    if torch.cuda.is_available():
        result["gpu"] = gpu_rates()
    else:
        report.left_out.append("GPU: none here")
    result["left_out"] = report.left_out
    print(f"bf16: {result['bf16']}", *(f"left out: {what}" for what in report.left_out), sep="\n")
    if not arguments.only:
        RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
