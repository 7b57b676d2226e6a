"""Estimated correspondences in miniature: does stage 2 gain here what it gained on Clotho?

Primus, Schmid, Widmer: "Estimated audio-caption correspondences improve language-based audio
retrieval", DCASE Workshop 2024. A caption counts as being of one clip alone, and fits others too;
stage 2 learns from what models of stage 1 make of all pairs. Soundscapes have such unmarked matches
by construction, and it is known which. Two audio sides, A (mn04's embedding, one hidden layer) and
B (mn04's tags as in DCASE 2022), learn from the pairing; towers are frozen, so a stage takes
seconds. Then A goes on from where it was by the pairing again (the control), by its own judgement,
and by that of both; B by that of both.

Judged on scenes of the test split by their captions: mAP@10 with the one clip that a caption was
written for, mAP@16 with all that it is true of. Every figure is of the last epoch, over seeds with
Student's interval; differences are paired by seed, and also given over queries or clips (the seeds'
mean of each, bootstrap). Finished seeds are kept in a folder and not computed again.

    OMP_NUM_THREADS=1 python benchmarks/correspondences.py [--seeds 6] [--work FOLDER]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from earshot.batches import BatchConfig, Pairs
from earshot.datasets import load
from earshot.datasets.soundscape import write_soundscapes
from earshot.evaluate.report import clusters_of, relevant_items
from earshot.evaluate.scores import matrix_scores
from earshot.files import home
from earshot.metrics import bootstrap_interval, measure
from earshot.model.dual import AudioSide, DualEncoder, DualEncoderConfig, HeadConfig
from earshot.recipes.demo import demo
from earshot.teach import Judge, Teacher
from earshot.train.frozen import with_frozen_features
from earshot.train.loop import Material, Training
from earshot.train.recipe import LossConfig, Recipe, ScheduleConfig, resolved
from earshot.train.run import RunFolder
from earshot.train.start import initial_network
from earshot.types import Dataset

RESULT = Path(__file__).with_suffix(".json")
SCENES = {"train": 300, "test": 150}
METRICS = {"mAP@10, one clip": "mAP@10", "mAP@16, all clips": "mAP@16"}
EPOCHS = {1: 8, 2: 5}
RATES = {1: 1e-3, 2: 1e-3}
# A student that begins as its own teacher learns from what it misses alone, as in the paper.
DROPOUT = 0.3
# Student's distribution: 0.975 quantiles by the number of seeds, one more than its degrees.
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
PUBLISHED = "28.20 to 29.94 by itself; +4.5 to 5.8 mAP@16 by several teachers; +2.2 as an ensemble"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A run for each seed: which tower, where it goes on from, and who teaches it."""

    tower: str
    start: str = ""
    teachers: tuple[str, ...] = ()


STAGES = {
    "A": Stage(tower="A"),
    "B": Stage(tower="B"),
    "A again": Stage(tower="A", start="A"),
    "A by A": Stage(tower="A", start="A", teachers=("A",)),
    "A by A and B": Stage(tower="A", start="A", teachers=("A", "B")),
    "B by A and B": Stage(tower="B", start="B", teachers=("A", "B")),
}
# What is judged: the mean similarity of one or several runs.
SYSTEMS = {
    "stage 1, A": ("A",),
    "stage 1, B": ("B",),
    "stage 1, A and B together": ("A", "B"),
    "A again by the pairing (control)": ("A again",),
    "stage 2, A taught by A": ("A by A",),
    "stage 2, A taught by A and B": ("A by A and B",),
    "stage 2, B taught by A and B": ("B by A and B",),
    "stage 2, both of these together": ("A by A and B", "B by A and B"),
}
DIFFERENCES = (
    ("stage 2, A taught by A", "stage 1, A"),
    ("stage 2, A taught by A", "A again by the pairing (control)"),
    ("stage 2, A taught by A and B", "stage 1, A"),
    ("stage 2, A taught by A and B", "A again by the pairing (control)"),
    ("stage 2, A taught by A and B", "stage 2, A taught by A"),
    ("stage 2, both of these together", "stage 2, A taught by A and B"),
)


def model(tower: str, base: DualEncoderConfig) -> DualEncoderConfig:
    """The demo's model with mn04, frozen: its embedding through a hidden layer, or its tags."""
    heard = AudioSide(encoder="mn04", frozen=True)
    base = replace(base, text_head=HeadConfig(dropout=DROPOUT))
    if tower == "A":
        head = HeadConfig(hidden_layers=1, hidden_dimension=512, dropout=DROPOUT)
        return replace(base, audio=heard, audio_head=head)
    return replace(base, audio=heard, audio_head=HeadConfig(kind="tags", source="logits"))


def recipe(name: str, seed: int) -> Recipe:
    """What a stage trains by."""
    stage, base = STAGES[name], demo()
    number = 2 if stage.start else 1
    return replace(
        base,
        name=name,
        about=f"benchmarks/correspondences.py, {name}",
        model=model(stage.tower, base.model),
        batches=BatchConfig(pairs=64, crop_s=None, workers=0),
        optimizer=replace(base.optimizer, rate=RATES[number]),
        loss=LossConfig(
            supervised_weight=0.0 if stage.teachers else 1.0,
            distillation_weight=1.0 if stage.teachers else 0.0,
        ),
        schedule=ScheduleConfig(
            warm_up_epochs=0.5,
            ramp_from_epoch=0.5,
            ramp_until_epoch=EPOCHS[number],
            last_rate=1e-5,
        ),
        epochs=EPOCHS[number],
        seed=seed + (100 if stage.start else 0),
        initialise=("audio=mn04",),
    )


class Bench:
    """Both networks, what their frozen towers make of the data, and the heads of every stage."""

    def __init__(self, work: Path) -> None:
        self.scenes, cache = work / "scenes", home() / "cache" / "features"
        for split, count in SCENES.items():
            write_soundscapes(self.scenes / split, split=split, scenes=count, audio_format="wav")
        data = {split: load("soundscapes", self.scenes / split, split) for split in SCENES}
        paired = tuple(caption for caption in data["test"].captions if caption.clip_id)
        self.asked = replace(data["test"], captions=paired)
        self.networks = {tower: initial_network(recipe(tower, 0)) for tower in ("A", "B")}
        self.pairs: dict[str, Pairs] = {}
        for split, dataset in (("train", data["train"]), ("test", self.asked)):
            network = self.networks["A"]
            pairs = Pairs([dataset], sample_rate_hz=network.audio.sample_rate_hz)
            self.pairs[split] = with_frozen_features(network, pairs, cache, workers=0)
        self.heads: dict[str, dict[str, Tensor]] = {}
        self.fabric: Any = Fabric(accelerator="cpu", devices=1)

    def network(self, name: str) -> DualEncoder:
        """The network of a stage as it was left."""
        network = self.networks[STAGES[name].tower].eval()
        network.load_state_dict(self.heads[name], strict=False)
        return network

    @torch.no_grad()
    def vectors(self, name: str, split: str) -> Teacher:
        """What a stage makes of all clips and captions of a split."""
        network, pairs = self.network(name), self.pairs[split]
        assert pairs.audio_table is not None
        assert pairs.text_table is not None
        audio = network.project_audio(pairs.audio_table.encoded(range(len(pairs.clips))))
        text = network.project_text(pairs.text_table.rows(range(len(pairs))))
        return Teacher(name=name, fingerprint="", audio=audio.numpy(), text=text.numpy())

    def judge(self, names: Sequence[str], split: str) -> Judge:
        """The mean similarity of several stages."""
        pairs = self.pairs[split]
        return Judge(
            teachers=tuple(self.vectors(name, split) for name in names),
            clips=np.arange(len(pairs.clips)),
            captions=np.arange(len(pairs)),
        )

    def train(self, name: str, seed: int) -> None:
        """Train the heads of a stage by the loop's own steps; nothing is validated or saved."""
        stage, made = STAGES[name], recipe(name, seed)
        teachers = self.judge(stage.teachers, "train") if stage.teachers else None
        network = self.network(stage.start) if stage.start else self.fresh(stage.tower, seed)
        material = Material(pairs=self.pairs["train"], validation=self.asked, teachers=teachers)
        run = RunFolder(path=self.scenes, writes=False)
        training = Training(network, made, material, run, self.fabric)
        network.train()
        losses = []
        for epoch in range(made.epochs):
            training.epoch, training.step = epoch, 0
            losses.append([float(training.one_step(batch)) for batch in training.batches(epoch)])
        self.heads[name] = {
            key: value.clone() for key, value in network.state_dict().items() if "_head." in key
        }
        print(f"seed {seed}, {name}: loss", *(f"{np.mean(e):.3f}" for e in losses), flush=True)

    def fresh(self, tower: str, seed: int) -> DualEncoder:
        """A network whose heads have not learnt anything."""
        network = self.networks[tower]
        torch.manual_seed(seed)
        for head in (network.audio_head, network.text_head):
            for layer in head.modules():
                if isinstance(layer, nn.Linear):
                    layer.reset_parameters()
        return network

    def figures(self) -> dict[str, np.ndarray]:
        """Both metrics of every test caption, (Q,), for each system."""
        found = {}
        everything = (np.arange(len(self.pairs["test"].clips)), np.arange(len(self.pairs["test"])))
        for system, names in SYSTEMS.items():
            values = self.judge(names, "test").cosines(*everything).T
            for label, each in per_query(values, self.asked).items():
                found[f"{system} | {label}"] = each
        return found


def per_query(values: np.ndarray, asked: Dataset) -> dict[str, np.ndarray]:
    """Both metrics of every caption, (Q,) each."""
    single = {caption.id: frozenset({caption.clip_id}) for caption in asked.captions}
    found = {}
    for (label, metric), relevance in zip(METRICS.items(), (single, asked.relevance), strict=True):
        scores = matrix_scores([clip.id for clip in asked.clips], values)
        judged = replace(asked, relevance=relevance)
        found[label] = 100 * measure(scores.ranks(relevant_items(scores, judged)), metric)
    return found


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean and Student's 95 % interval over seeds."""
    mean, count = float(np.mean(values)), len(values)
    margin = float("nan")
    if count > 1:
        margin = STUDENT[count] * float(np.std(values, ddof=1)) / count**0.5
    shown = [round(value, 2) for value in (mean, mean - margin, mean + margin)]
    return {
        "mean": shown[0],
        "low": shown[1],
        "high": shown[2],
        "seeds": np.round(values, 2).tolist(),
    }


def table(seeds: Sequence[Mapping[str, np.ndarray]], asked: Dataset) -> dict[str, Any]:
    """All systems, and what each step gains, over the seeds that are done."""
    figures = {
        system: [{label: seed[f"{system} | {label}"] for label in METRICS} for seed in seeds]
        for system in SYSTEMS
    }
    clusters, over = clusters_of(asked)
    rows: dict[str, Any] = {
        system: {label: interval([f[label].mean() for f in found]) for label in METRICS}
        for system, found in figures.items()
    }
    gains = []
    for first, second in DIFFERENCES:
        row: dict[str, Any] = {"first": first, "second": second}
        for label in METRICS:
            each = np.stack([f[label] for f in figures[first]])
            each = each - np.stack([f[label] for f in figures[second]])
            drawn = bootstrap_interval(each.mean(0), np.random.default_rng(0), clusters=clusters)
            row[label] = interval(each.mean(1).tolist()) | {
                f"over {over}": [round(drawn.low, 2), round(drawn.high, 2)]
            }
        gains.append(row)
    return {"systems": rows, "gains": gains}


def show(found: Mapping[str, Any]) -> None:
    """The tables, in percent."""
    print(f"\n{'':34}" + "".join(f"{label:>28}" for label in METRICS))
    for system, row in found["systems"].items():
        print(f"{system:34}" + "".join(f"{spoken(row[label]):>28}" for label in METRICS))
    for gain in found["gains"]:
        print(f"{gain['first']} against {gain['second']}")
        for label in METRICS:
            over = next(f"{k} {v}" for k, v in gain[label].items() if k.startswith("over"))
            print(f"   {label:20}{spoken(gain[label], '+'):>24}   {over}")
    print(f"\npublished on Clotho: {PUBLISHED}")


def spoken(figure: Mapping[str, Any], sign: str = "") -> str:
    """A figure with its interval."""
    return f"{figure['mean']:{sign}.2f} [{figure['low']:{sign}.2f}, {figure['high']:{sign}.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--work", type=Path, default=Path("earshot-correspondences"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    bench, done = Bench(given.work.resolve()), []
    for seed in range(given.seeds):
        kept = given.work / f"seed-{seed}.npz"
        if not kept.is_file():
            for name in STAGES:
                bench.train(name, seed)
            np.savez(kept, **bench.figures())  # type: ignore[arg-type]
        done.append(dict(np.load(kept)))
    asked = bench.asked
    fitting = float(np.mean([len(asked.relevance[c.id]) for c in asked.captions]))
    found = {
        "compared with": f"published on Clotho, PaSST and RoBERTa-large: {PUBLISHED}",
        "scenes": SCENES,
        "captions": len(asked.captions),
        "clips that a test caption fits": round(fitting, 2),
        "stages": {name: asdict(stage) for name, stage in STAGES.items()},
        "recipe": json.loads(resolved(recipe("A by A and B", 0))),
        "seeds": len(done),
        **table(done, asked),
    }
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    show(found)


if __name__ == "__main__":
    main()
