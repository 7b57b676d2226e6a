"""How well sound and words together find recordings, and what honest "nothing" costs.

Two libraries with names as people leave them: esc10, whose files carry the titles that their
contributors gave them on Freesound, and soundscapes, half of them named `ZOOM0012`, half by one of
the sounds in them. Asked are queries of one to three words and sentences, by sound alone, by words
alone and by both; also by reciprocal rank (Cormack, Clarke and Buettcher, Reciprocal rank fusion,
2009). Weights for queries of each length are chosen on one half (esc10's tune half, soundscapes of
the split `validation`), figures are of the other (report half, split `test`).

    EARSHOT_ASSETS=FOLDER python benchmarks/search_quality.py DATA

DATA holds `esc10`. What excluding and combining sounds, and saying that there is nothing, are worth
is told by `combination.py` and `calibrate_models.py`.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from retrieval_queries import load_esc10, split_by_fold

from earshot.datasets.soundscape import SOURCES, describe_scenes, write_soundscapes
from earshot.datasets.soundscape.words import WORDS
from earshot.library import index
from earshot.metrics import average_precision, bootstrap_interval, precision
from earshot.model import load, model_manifest
from earshot.search.fusion import WORD_WEIGHT
from earshot.search.question import Plan, plans_of
from earshot.search.scorer import Scorer
from earshot.search.scoring import background_of
from earshot.search.sentences import Sentences
from earshot.store import MemoryStore
from earshot.types import Model, Question

RESULT = Path(__file__).with_suffix(".json")
SCENES = 400
RANK_OFFSET = 60
GRID = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0, 24.0)
# What a library may lose against the better of sound and words alone: less is chance.
NOISE = 0.002
LENGTHS = ("1 word", "2 words", "3 words", "4 words", "sentence")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Heard:
    """A library's answers to Q queries over N clips, in an order that says nothing.

    `sound` (Q, N) is on the scale of cosines with `deviation` (Q,); `shares` and `bm25` (Q, N) are
    of words, 0 where none matches.
    """

    sound: np.ndarray
    deviation: np.ndarray
    shares: np.ndarray
    bm25: np.ndarray
    relevant: np.ndarray
    words: np.ndarray

    def fused(self, weight: np.ndarray | float) -> np.ndarray:
        """Sound with words worth `weight` standard deviations, one or (Q,)."""
        worth: np.ndarray = np.broadcast_to(weight, self.deviation.shape) * self.deviation
        fused: np.ndarray = self.sound + worth[:, None] * self.shares
        return fused

    def by_rank(self) -> np.ndarray:
        """Reciprocal ranks of both lists added; what no word finds is not in the second."""
        found = 1 / (RANK_OFFSET + ranks(self.sound))
        return found + np.where(self.bm25 > 0, 1 / (RANK_OFFSET + ranks(self.bm25)), 0.0)

    def length(self) -> np.ndarray:
        """The place in `LENGTHS` of each query."""
        places: np.ndarray = np.minimum(self.words, len(LENGTHS)) - 1
        return places


def ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks from 1 along the rows of (Q, N)."""
    found: np.ndarray = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1) + 1
    return found


def heard(
    folder: Path, model: Model, texts: Sequence[str], relevant: Mapping[str, np.ndarray]
) -> Heard:
    """Index a folder as the command line does, and ask it; `relevant` (Q,) is by file name."""
    store = MemoryStore.create(":memory:", model_manifest(model))
    index([folder], store, model)
    paths = sorted(store.files())
    paths = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))]
    files = store.segments(paths)
    segments = np.concatenate([files[path].vectors for path in paths])
    starts = np.cumsum([0, *(len(files[path].vectors) for path in paths[:-1])])
    place = {path: i for i, path in enumerate(paths)}
    shape = (len(texts), len(paths))
    sound, shares, bm25 = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    deviation = np.zeros(len(texts))
    questions = [Question(text=text) for text in texts]
    plans = plans_of(questions, model, Sentences(model), store)
    for row, (text, plan) in enumerate(zip(texts, plans, strict=True)):
        assert isinstance(plan, Plan)
        scorer = Scorer(plan, background_of(segments, plan.vectors))
        best = np.maximum.reduceat(scorer.vectors @ segments.T, starts, axis=1)
        sound[row], deviation[row] = scorer.sound(best), scorer.background.deviation[0]
        for hit in store.search_words(text, len(paths)):
            shares[row, place[hit.path]] = hit.share
            bm25[row, place[hit.path]] = hit.score
    return Heard(
        sound=sound,
        deviation=deviation,
        shares=shares,
        bm25=bm25,
        relevant=np.stack([relevant[Path(path).name] for path in paths], axis=1),
        words=np.array([len(re.findall(r"\w+", text)) for text in texts]),
    )


def esc10_library(data: Path, half: str, model: Model) -> Heard:
    """Recordings under the titles that their contributors gave them."""
    part = getattr(split_by_fold(load_esc10(data)), half)
    with (data / "metadata.csv").open(newline="", encoding="utf-8") as file:
        titles = {row["file_name"]: row["title"] for row in csv.DictReader(file)}
    seen: Counter[str] = Counter()
    answers, relevance = {}, part.relevance()
    with tempfile.TemporaryDirectory() as name:
        for column, clip in enumerate(part.clips):
            title = re.sub(r"[/\0]", " ", titles[clip.file_name]).strip() or "untitled"
            seen[title.lower()] += 1
            number = f" {seen[title.lower()]}" if seen[title.lower()] > 1 else ""
            link = Path(name, f"{title}{number}{Path(clip.file_name).suffix}")
            link.symlink_to((data / clip.file_name).resolve())
            answers[link.name] = relevance[:, column]
        return heard(Path(name), model, [query.text for query in part.queries], answers)


def scene_library(split: str, model: Model) -> Heard:
    """Soundscapes: half with a recorder's names, half named by one of their sounds."""
    scenes = describe_scenes(split, SCENES)
    asked = [
        (text, source)
        for source in SOURCES
        for text in dict.fromkeys((source.replace("_", " "), *phrasings(source)))
        if any(source == event.source for scene in scenes for event in scene.everything)
    ]
    random = np.random.default_rng(len(split))
    answers = {}
    with tempfile.TemporaryDirectory() as name:
        write_soundscapes(Path(name, "made"), split=split, scenes=SCENES, seed=0)
        place = Path(name, "library")
        place.mkdir()
        for number, scene in enumerate(scenes):
            held = sorted({event.source for event in scene.everything})
            called = f"{held[random.integers(len(held))]} {number:03d}"
            title = called if random.random() < 0.5 else f"ZOOM{number:04d}"
            link = place / f"{title}.flac"
            link.symlink_to(Path(name, "made", f"{scene.id}.flac"))
            answers[link.name] = np.array([source in held for _, source in asked])
        return heard(place, model, [text for text, _ in asked], answers)


def phrasings(source: str) -> tuple[str, ...]:
    """How people ask for a source: bare nouns, and sentences."""
    words = WORDS[source]
    nouns = [re.sub(r"^(an?|the) ", "", noun) for noun in (*words.nouns, *words.new_nouns)]
    return (*nouns, *words.clauses, *words.new_clauses)


def fitted(tune: Sequence[Heard]) -> list[float]:
    """The weight for each length of query with the best mean over libraries, of those that do.

    A weight does if no library as a whole loses more than `NOISE` by it.
    """
    means, does = np.zeros((len(LENGTHS), len(GRID))), np.ones(len(GRID), bool)
    for library in tune:
        alone = max(
            average_precision(rows, library.relevant).mean()
            for rows in (library.sound, library.bm25)
        )
        for column, weight in enumerate(GRID):
            found = average_precision(library.fused(weight), library.relevant)
            does[column] &= bool(found.mean() >= alone - NOISE)
            for length in range(len(LENGTHS)):
                chosen = library.length() == length
                means[length, column] += found[chosen].mean() if chosen.any() else 0.0
    return [GRID[int(i)] for i in np.where(does, means, -1.0).argmax(1)]


def judged(library: Heard, systems: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """All systems by length of query; differences are to the better of sound and words alone."""
    result: dict[str, Any] = {}
    lengths = {"all": np.ones(len(library.words), bool)}
    lengths |= {name: library.length() == i for i, name in enumerate(LENGTHS)}
    for name, chosen in lengths.items():
        if chosen.sum() < 2:
            continue
        relevant = library.relevant[chosen]
        values = {s: average_precision(rows[chosen], relevant) for s, rows in systems.items()}
        better = max(("sound", "words"), key=lambda s: values[s].mean())
        result[name] = {"queries": int(chosen.sum()), "better alone": better}
        for system, rows in systems.items():
            result[name][system] = {
                "mAP": interval(values[system]),
                "P@10": interval(precision(rows[chosen], relevant, 10)),
                "difference": interval(values[system] - values[better]),
            }
    return result


def interval(values: np.ndarray) -> list[float]:
    """A mean over queries with its 95 % bootstrap interval."""
    found = bootstrap_interval(values, np.random.default_rng(0))
    return [round(float(figure), 4) for figure in (found.mean, found.low, found.high)]


def systems(library: Heard, weights: Sequence[float]) -> dict[str, np.ndarray]:
    """What is compared."""
    return {
        "sound": library.sound,
        "words": library.bm25,
        "reciprocal rank": library.by_rank(),
        "fused, ships": library.fused(WORD_WEIGHT),
        "fused, fitted": library.fused(np.array(weights)[library.length()]),
    }


def show(result: Mapping[str, Any]) -> None:
    """Tables, 80 columns wide."""
    for library in ("esc10", "soundscapes"):
        print(f"\n{library:<11}{'':<16}{'mAP':<22}{'P@10':>6}  against the better alone")
        for length, found in result[library].items():
            head = f"{length}, {found['queries']}"
            for system in ("sound", "words", "reciprocal rank", "fused, ships", "fused, fitted"):
                mean, low, high = found[system]["mAP"]
                gain = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*found[system]["difference"])
                print(
                    f"{head:<14}{system:<16}{mean:.3f} [{low:.3f}, {high:.3f}] "
                    f"{found[system]['P@10'][0]:>6.3f}  {gain}"
                )
                head = ""
    print(f"\nweights by number of words: {result['weights']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    model = load("tags", "cpu")
    tune = [
        esc10_library(data / "esc10", "tune", model),
        scene_library("validation", model),
    ]
    report = {
        "esc10": esc10_library(data / "esc10", "report", model),
        "soundscapes": scene_library("test", model),
    }
    weights = fitted(tune)
    result: dict[str, Any] = {"weights": dict(zip(LENGTHS, weights, strict=True))}
    result |= {n: judged(one, systems(one, weights)) for n, one in report.items()}
    show(result)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
