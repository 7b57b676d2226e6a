"""How training would go on 1 to 32 GPUs: a model on paper, of counted work and stated rates.

Counted, on the recipe's own full-size towers with random weights: floating-point operations of
`encode` for one pair (a clip of the recipe's crop, a caption of Clotho's mean length), weights that
learn, bytes of what is exchanged. A step computes three times its forward pass (backward is twice).
Assumed, and printed with the result (`ASSUMED`): the share of the peak that training reaches, what
networks carry, seconds of silence per exchange, what a core reads from a pack. Nothing overlaps in
it, as in `earshot.train.step`: gradients are added in one exchange after the backward pass.

Pairs per GPU stay the same ("weak scaling"). Efficiency is one GPU's seconds per pair over those of
n. An epoch adds the validation by the first process, while the others wait.

    OMP_NUM_THREADS=2 python benchmarks/scaling_model.py            counts, then computes (minutes)
    python benchmarks/scaling_model.py --counted                    computes with the counts kept
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULT = Path(__file__).with_suffix(".json")
RECIPES = ("salsa-2024-stage1", "dcase2025-baseline")
GPUS = (1, 8, 32)
CAPTION = (
    "a dog barks in the distance while rain falls on a tin roof"  # 13 words; Clotho's mean: 11
)
CLOTHO_PAIRS, VALIDATION_CLIPS, WAVCAPS_PAIRS = 19_195, 1_045, 403_050 + 49_838 + 19_195


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """Rates of machines with eight H100 SXM, NVLink within and eight 400 Gbit/s rails between."""

    gpu_flops: float = 989e12
    """bf16, dense, as the maker states."""
    share_of_peak: float = 0.35
    """A guess for these towers; the A40 row of the result says what the published time implies."""
    node_gpus: int = 8
    nvlink_bytes_per_s: float = 300e9
    """Bus bandwidth of an all-reduce within a machine."""
    rails_bytes_per_s: float = 250e9
    """The same between machines, all eight rails together."""
    ethernet_bytes_per_s: float = 10e9
    """The same over one port of 100 Gbit/s, for comparison."""
    exchange_s: float = 1e-4
    """Of each of five exchanges, whatever its size."""
    pack_bytes_per_core_s: float = 3e9
    """Crops of 16-bit samples read by one core from a pack in memory: benchmarks/packing.json."""
    flac_s_per_core_s: float = 1330.0
    """Seconds of sound that one core decodes from a FLAC pack each second: the same."""


ASSUMED = Assumed()
A40_FLOPS, A40_HOURS, A40_STEPS = 149.7e12, 2 + 16 / 60, 20 * (CLOTHO_PAIRS // 64)


def operations(work: Callable[[], Any]) -> int:
    """The floating-point operations of a forward pass."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def counted(name: str) -> dict[str, Any]:
    """What one pair costs, and what is exchanged, of a recipe at full size."""
    import torch
    from clotho_shaped import ROBERTA_LARGE, roberta_folder

    from earshot.model.dual import DualEncoder
    from earshot.recipes import recipe

    run = recipe(name)
    with tempfile.TemporaryDirectory() as folder:
        roberta_folder(Path(folder), ROBERTA_LARGE)
        network = DualEncoder(run.model, Path(folder), pretrained=False).eval()
    seconds = run.batches.crop_s or 30.0
    samples = round(seconds * network.audio.sample_rate_hz)
    waveform, length = torch.zeros(1, samples), torch.tensor([samples])
    tokens = network.text.tokenize([CAPTION])
    flops = [
        operations(lambda: network.project_audio(network.audio_features(waveform, length))),
        operations(lambda: network.project_text(network.text_features(tokens))),
    ]
    learning = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    return {
        "forward_gflop_per_clip": flops[0] / 1e9,
        "forward_gflop_per_caption": flops[1] / 1e9,
        "learning_weights": learning,
        "dimension": run.model.dimension,
        "pairs_per_gpu": run.batches.pairs,
        "crop_s": seconds,
        "crop_bytes": 2 * samples,
    }


def bandwidth(gpus: int, between: float) -> float:
    """Bus bandwidth of an exchange among so many GPUs."""
    return ASSUMED.nvlink_bytes_per_s if gpus <= ASSUMED.node_gpus else between


def step(counts: dict[str, Any], gpus: int, between: float) -> dict[str, float]:
    """One step's seconds by what they are spent on; bytes are those that each GPU sends."""
    own = counts["pairs_per_gpu"]
    world, ring = own * gpus, (gpus - 1) / gpus
    forward = counts["forward_gflop_per_clip"] + counts["forward_gflop_per_caption"]
    flops = 3 * own * forward * 1e9 + 3 * 2 * 2 * own * world * counts["dimension"]
    vector_bytes = 2 * world * counts["dimension"] * 4
    sent = {
        "gathered_vector_bytes": ring * vector_bytes,
        "vector_gradient_bytes": 2 * ring * vector_bytes,
        "weight_gradient_bytes": 2 * ring * counts["learning_weights"] * 4,
    }
    compute_s = flops / (ASSUMED.gpu_flops * ASSUMED.share_of_peak)
    exchange_s = sum(sent.values()) / bandwidth(gpus, between)
    if gpus > 1:
        exchange_s += 5 * ASSUMED.exchange_s
    return {**sent, "compute_s": compute_s, "exchange_s": exchange_s}


def predicted(counts: dict[str, Any], gpus: int, between: float) -> dict[str, float]:
    """Rates, efficiency, and what must be read for it."""
    one, here = step(counts, 1, between), step(counts, gpus, between)
    seconds = here["compute_s"] + here["exchange_s"]
    own = counts["pairs_per_gpu"]
    forward_s = counts["forward_gflop_per_clip"] * 1e9 / ASSUMED.gpu_flops / ASSUMED.share_of_peak
    judged_s = VALIDATION_CLIPS * forward_s
    read = own * gpus / seconds * counts["crop_bytes"]
    epochs = {
        f"{name}_epoch_s": pairs / (own * gpus) * seconds + judged_s
        for name, pairs in (("clotho", CLOTHO_PAIRS), ("all_three", WAVCAPS_PAIRS))
    }
    return {
        "gpus": gpus,
        **here,
        "steps_per_s": 1 / seconds,
        "pairs_per_s": own * gpus / seconds,
        "efficiency": one["compute_s"] / seconds,
        "read_bytes_per_s": read,
        "reading_cores": read / ASSUMED.pack_bytes_per_core_s,
        "flac_cores": own * gpus / seconds * counts["crop_s"] / ASSUMED.flac_s_per_core_s,
        "similarity_mib_of_a_process": own * own * gpus * 4 / 2**20,
        "similarity_mib_were_it_all": (own * gpus) ** 2 * 4 / 2**20,
        **epochs,
    }


def implied(counts: dict[str, Any]) -> float:
    """The share of an A40's peak that the published time of `dcase2025-baseline` implies."""
    forward = counts["forward_gflop_per_clip"] + counts["forward_gflop_per_caption"]
    flops = 3 * 64 * forward * 1e9 * A40_STEPS
    return float(flops / (A40_HOURS * 3600) / A40_FLOPS)


def rounded(value: Any) -> Any:
    """Four digits of every figure."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main() -> None:
    """Count, compute, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counted", action="store_true")
    again = parser.parse_args().counted
    before = json.loads(RESULT.read_text()) if again else {}
    found: dict[str, Any] = {"assumed": asdict(ASSUMED)}
    for name in RECIPES:
        counts = before[name]["counted"] if again else counted(name)
        networks = (
            ("rails", ASSUMED.rails_bytes_per_s),
            ("ethernet", ASSUMED.ethernet_bytes_per_s),
        )
        found[name] = {"counted": counts} | {
            kind: [predicted(counts, gpus, between) for gpus in GPUS] for kind, between in networks
        }
    found["share_of_an_a40_implied"] = implied(found["dcase2025-baseline"]["counted"])
    RESULT.write_text(json.dumps(rounded(found), indent=1) + "\n")
    for name in RECIPES:
        print(name, json.dumps(rounded(found[name]["counted"])))
        for row in found[name]["rails"]:
            print("  ", json.dumps(rounded(row)))
    print("share of an A40's peak implied:", round(found["share_of_an_a40_implied"], 3))


if __name__ == "__main__":
    main()
