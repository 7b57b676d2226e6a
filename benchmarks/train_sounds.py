"""Train the models `sounds` and `pocket`, and judge them on recordings that they never heard.

    EARSHOT_ASSETS=FOLDER python benchmarks/train_sounds.py DATA [--only sounds] [--tower FILE]

DATA holds `sounds` and `esc10`. Constants are compared on the validation parts of four draws; then
both are trained on training and validation together and judged once on the test part, beside
`tags`, with 95 % bootstrap intervals over queries. Nothing but CC0 and CC BY is trained on. The
weights, recipe, list of recordings and card of each go to `earshot/data`, the figures to the JSON
beside this file. `--tower` takes a tower that was trained before instead of training one (on two
cores: ten minutes for the views, ten for the training).
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import sound_cards
import torch
from pocket_tower import TowerConfig, train_tower
from retrieval_queries import QuerySet, load_esc10, load_sounds
from safetensors.torch import load_file, save_file
from sound_heads import (
    FitConfig,
    Heard,
    Reader,
    as_settings,
    fit_head,
    head_scores,
    judge,
    material,
    tag_scores,
)
from sound_splits import Sound, load, parts_of
from sound_views import STUDENT_MELS, VIEW_S, ViewConfig, Views, decoded, views

from earshot import audio
from earshot.checkpoints import sentence_folder
from earshot.datasets.groups import Parts, SplitConfig
from earshot.embed import compute_with_one_thread
from earshot.encoders.labels import LabelMatching, load_head, save_head
from earshot.encoders.mobilenet import MobileNet
from earshot.encoders.sentence import sentence_encoder
from earshot.encoders.tags import packaged_table
from earshot.metrics import bootstrap_interval, compare
from earshot.model.tags import TAGGER_S, TagConfig, TagModel

RESULT = Path(__file__).with_suffix(".json")
PACKAGED = Path(__file__).parent.parent / "earshot" / "data"
VALIDATION_SEEDS = (0, 1, 2, 3)
TEST_SEEDS = (0, 1, 2, 3, 4)
VIEW_SEEDS, VIEW_ROUNDS = (0, 1), 3
Figures = dict[str, np.ndarray]
Score = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Room:
    """What every step needs."""

    data: Path
    sounds: tuple[Sound, ...]
    queries: tuple[QuerySet, ...]
    reader: Reader

    def parts(self, seed: int) -> Parts:
        """The parts, with validation drawn by a seed."""
        return parts_of(self.data, SplitConfig(validation_seed=seed))


def hear(tagger: Any, room: Room, segment_s: float) -> Heard:
    """What a tagger hears in every recording, segment by segment."""

    def one(sound: Sound) -> list[tuple[np.ndarray, np.ndarray]]:
        path = room.data / sound.id
        rate = tagger.sample_rate_hz
        cut = audio.segments(path, sample_rate_hz=rate, segment_s=segment_s, hop_s=segment_s)
        answers = []
        with torch.inference_mode():
            for _, waveform in cut:
                signal = torch.from_numpy(waveform)[None]
                heard = tagger(signal, torch.tensor([len(waveform)]))
                answers.append((heard.embedding[0].numpy(), heard.logits[0].numpy()))
        return answers

    with ThreadPoolExecutor(initializer=compute_with_one_thread) as pool:
        answers = list(pool.map(one, room.sounds))
    return Heard(
        embeddings=np.stack([embedding for of_one in answers for embedding, _ in of_one]),
        logits=np.stack([logits for of_one in answers for _, logits in of_one]),
        owner=np.repeat(np.arange(len(answers)), [len(of_one) for of_one in answers]),
    )


def judged(score: Score, room: Room, heard: Heard, parts: Parts, part: str) -> Figures:
    """AP per query: seen and unseen labels of `sounds`, and `esc10`."""
    figures: Figures = {}
    for queries in room.queries:
        figures |= judge(score, queries, room.sounds, heard.owner, parts, part)
    return figures


def candidates() -> list[LabelMatching]:
    """The constants that are compared on validation."""
    gates = ((0.5, 0.6), (0.5, 0.7))
    strengths = ((0.5, 0.7), (0.25, 1.5), (0.25, 3.0))
    return [
        LabelMatching(
            gate_from=gate[0],
            gate_to=gate[1],
            power=strength[0],
            label_weight=strength[1],
            sentence_weight=sentence,
            tag_likeness=likeness,
        )
        for gate, strength, sentence, likeness in product(
            gates, strengths, (0.0, 0.4), (0.0, 0.6, 1.0)
        )
    ]


def choose(room: Room, heard: Heard) -> tuple[LabelMatching, list[dict[str, Any]]]:
    """The constants with the highest sum of the three mean APs over all validation draws."""
    tried = candidates()
    rows: list[list[list[float]]] = [[] for _ in range(len(tried) + 1)]
    for seed in VALIDATION_SEEDS:
        parts = room.parts(seed)
        taught = material(room.sounds, parts, ("train",), "validation")
        head = fit_head(room.sounds, taught, heard, room.reader.encode)
        scores = [tag_scores(room.reader, heard)]
        scores += [head_scores(head, matching, room.reader, heard) for matching in tried]
        for row, score in zip(rows, scores, strict=True):
            figures = judged(score, room, heard, parts, "validation")
            row.append([float(values.mean()) for values in figures.values()])
    means = np.mean(rows, axis=1)
    names = ("seen labels", "unseen labels", "esc10")
    settings: list[Mapping[str, Any]] = [{"model": "tags"}, *map(as_settings, tried)]
    table = [
        {**setting, **{name: round(float(v), 4) for name, v in zip(names, mean, strict=True)}}
        for setting, mean in zip(settings, means, strict=True)
    ]
    return tried[int(means[1:].sum(1).argmax())], table


def other_draws(room: Room, heard: Heard, matching: LabelMatching) -> list[dict[str, Any]]:
    """Mean APs of `tags` and the head for other draws of the test part, as one draw is small.

    The constants stay as chosen, on recordings of which some are judged here.
    """
    rows: list[dict[str, Any]] = []
    for seed in TEST_SEEDS:
        parts = parts_of(room.data, SplitConfig(seed=seed))
        taught = material(room.sounds, parts, ("train", "validation"), "test")
        head = fit_head(room.sounds, taught, heard, room.reader.encode)
        scores = (tag_scores(room.reader, heard), head_scores(head, matching, room.reader, heard))
        pairs = [judged(score, room, heard, parts, "test") for score in scores]
        means = {name: [round(float(f[name].mean()), 4) for f in pairs] for name in pairs[0]}
        rows.append({"seed": seed, **means})
    return rows


def figures_of(figures: Figures, base: Figures) -> dict[str, Any]:
    """Means with intervals, and how much better than the base, paired by query."""
    told: dict[str, Any] = {}
    for name, values in figures.items():
        own = bootstrap_interval(values, np.random.default_rng(0))
        gain = compare(values, base[name], np.random.default_rng(0))
        told[name] = {
            "queries": len(values),
            "mAP": [round(x, 4) for x in (own.mean, own.low, own.high)],
            "over tags": [
                round(x, 4)
                for x in (gain.difference.mean, gain.difference.low, gain.difference.high)
            ],
            "p": round(gain.p_value, 4),
        }
    return told


def show(name: str, told: Mapping[str, Any]) -> None:
    """One model's lines of the table."""
    for part, row in told.items():
        mean, low, high = row["mAP"]
        gain, least, most = row["over tags"]
        print(
            f"{name:<9}{part:<15}{row['queries']:>4}  {mean:.3f} [{low:.3f}, {high:.3f}]  "
            f"{gain:+.3f} [{least:+.3f}, {most:+.3f}]"
        )
        name = ""


def teach_tower(room: Room, taught: Sequence[int], teacher: Any) -> MobileNet:
    """Draw the views and train the tower of `pocket` on them."""
    waveforms = decoded([room.data / room.sounds[i].id for i in taught])
    drawn = [views(waveforms, teacher, VIEW_ROUNDS, seed) for seed in VIEW_SEEDS]
    names = vars(drawn[0])
    joined = Views(**{name: np.concatenate([getattr(v, name) for v in drawn]) for name in names})
    print(f"{len(joined.first)} views")
    return train_tower(
        joined, TowerConfig(), lambda *done: print("{:.2f} {:.3f} {:.0f} s".format(*done))
    )


def write(folder: Path, room: Room, taught: Sequence[int], recipe: Mapping[str, Any]) -> None:
    """The recipe, the list of recordings with their licences, and the card."""
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n")
    with (PACKAGED / "recordings.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "source", "licence"))
        writer.writerows(
            (room.sounds[i].id, room.sounds[i].source, room.sounds[i].licence) for i in taught
        )
    (folder / "MODEL_CARD.md").write_text(sound_cards.card(folder.name, recipe))


def finish(
    name: str, room: Room, heard: Heard, matching: LabelMatching, recipe: dict[str, Any]
) -> Figures:
    """Fit a head on training and validation, write it, and judge what was written."""
    parts = room.parts(0)
    taught = material(room.sounds, parts, ("train", "validation"), "test")
    folder = PACKAGED / name
    folder.mkdir(exist_ok=True)
    head = fit_head(room.sounds, taught, heard, room.reader.encode)
    save_head(head, folder / "head.safetensors")
    recipe |= {
        "matching": as_settings(matching),
        "fit": as_settings(FitConfig()),
        "recordings": len(taught),
        "licences": dict(Counter(room.sounds[i].licence for i in taught).most_common()),
    }
    score = head_scores(load_head(folder / "head.safetensors"), matching, room.reader, heard)
    return judged(score, room, heard, parts, "test")


def in_half(network: MobileNet, path: Path) -> MobileNet:
    """Write a tower in half precision, and read back what was written."""
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    network.load_state_dict(
        {n: v.float() if v.is_floating_point() else v for n, v in load_file(path).items()}
    )
    return network.eval()


def sizes(room: Room) -> dict[str, Any]:
    """How many recordings and labels each part has."""
    parts = room.parts(0)
    counts = Counter((s.collection, parts.part[s.id]) for s in room.sounds)
    told: dict[str, Any] = {
        f"{collection} {part}": n for (collection, part), n in sorted(counts.items())
    }
    for part, labels in parts.unseen.items():
        held = [s for s in room.sounds if s.collection == "sounds" and parts.part[s.id] == part]
        told[f"{part}: unseen labels"] = len(labels)
        told[f"{part}: recordings of unseen labels"] = sum(s.label in labels for s in held)
        told[f"{part}: seen labels"] = len({s.label for s in held} - labels)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and judge `sounds` and `pocket`.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", choices=("sounds", "pocket"))
    parser.add_argument("--tower", type=Path, help="a tower trained before, as safetensors")
    arguments = parser.parse_args()
    data = arguments.data
    torch.set_num_threads(1)
    encode = sentence_encoder(sentence_folder("all-MiniLM-L6-v2"))
    queries = (load_sounds(data / "sounds"), load_esc10(data / "esc10"))
    room = Room(
        data=data,
        sounds=load(data),
        queries=queries,
        reader=Reader(encode=remembered(encode), table=packaged_table()),
    )
    result = train(room, arguments.only, arguments.tower)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def train(room: Room, only: str | None, tower: Path | None) -> dict[str, Any]:
    """Everything, in order."""
    result: dict[str, Any] = {"sizes": sizes(room)}
    parts = room.parts(0)
    taught = material(room.sounds, parts, ("train", "validation"), "test")
    teacher = TagModel("tags", TagConfig()).tagger
    heard = hear(teacher, room, TAGGER_S)
    base = judged(tag_scores(room.reader, heard), room, heard, parts, "test")
    matching, result["validation"] = choose(room, heard)
    result["test"] = {"tags": figures_of(base, base)}
    show("tags", result["test"]["tags"])
    splits = {
        "split": as_settings(SplitConfig(always_seen=frozenset())) | {"always_seen": "ESC-10"}
    }
    if only != "pocket":
        recipe: dict[str, Any] = {"tagger": "mn04", "segment_s": TAGGER_S, **splits}
        figures = finish("sounds", room, heard, matching, recipe)
        recipe["test"] = result["test"]["sounds"] = figures_of(figures, base)
        result["draws"] = recipe["draws"] = other_draws(room, heard, matching)
        write(PACKAGED / "sounds", room, taught, recipe)
        show("sounds", recipe["test"])
    if only != "sounds":
        (PACKAGED / "pocket").mkdir(exist_ok=True)
        network = trained(tower) if tower else teach_tower(room, taught, teacher)
        network = in_half(network, PACKAGED / "pocket" / "tower.safetensors")
        heard = hear(network, room, VIEW_S)
        recipe = {
            "tower": as_settings(TowerConfig()),
            "front_end": as_settings(STUDENT_MELS),
            "views": as_settings(ViewConfig()) | {"seeds": VIEW_SEEDS, "rounds": VIEW_ROUNDS},
            "segment_s": VIEW_S,
            **splits,
        }
        figures = finish("pocket", room, heard, matching, recipe)
        result["test"]["pocket"] = recipe["test"] = figures_of(figures, base)
        tags_alone = judged(tag_scores(room.reader, heard), room, heard, parts, "test")
        result["test"]["pocket, its tags alone"] = figures_of(tags_alone, base)
        write(PACKAGED / "pocket", room, taught, recipe)
        show("pocket", recipe["test"])
        show("its tags", result["test"]["pocket, its tags alone"])
    return result


def trained(path: Path) -> MobileNet:
    """A tower that was trained before."""
    from pocket_tower import tower

    network = tower(TowerConfig())
    network.load_state_dict(
        {n: v.float() if v.is_floating_point() else v for n, v in load_file(path).items()}
    )
    return network.eval()


def remembered(
    encode: Callable[[Sequence[str]], np.ndarray],
) -> Callable[[Sequence[str]], np.ndarray]:
    """The same, computing each sentence once."""
    known: dict[str, np.ndarray] = {}

    def recall(sentences: Sequence[str]) -> np.ndarray:
        new = sorted({sentence for sentence in sentences if sentence not in known})
        if new:
            known.update(zip(new, encode(new), strict=True))
        return np.stack([known[sentence] for sentence in sentences])

    return recall


if __name__ == "__main__":
    main()
