"""What the scores of `tags`, `sounds` and `pocket` mean: fits the calibrations that are shipped.

Fitted on the tune halves of the queries over real recordings (`retrieval_queries.py`), reported on
the other halves, which share no query or clip with them, and in `sounds` no label, and on
soundscapes, of which nothing was fitted and whose truth is complete. The models `sounds` and
`pocket` were trained on most of these recordings, so theirs is fitted on what was held out from
them alone: half of the labels of the collection's test part, the other half to report on, and
ESC-10's last fold. Its background is of the recordings fitted on, as for `tags`.

    EARSHOT_ASSETS=FOLDER python benchmarks/calibrate_models.py DATA [--model NAME]

DATA holds `esc10` and `sounds`, as for `zero_shot.py`. The background is of CC0 and CC BY
recordings.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from retrieval_queries import (
    Halves,
    QuerySet,
    load_esc10,
    load_sounds,
    split_by_fold,
    split_by_topic,
)
from sound_splits import parts_of

from earshot.calibrate import fit_bar
from earshot.datasets.soundscape import describe_scenes, queries, write_soundscapes
from earshot.embed import embed_files
from earshot.evaluate.calibration import (
    FALSE_ALARMS,
    Judged,
    background_from,
    calibrate,
    measured,
    without_answer,
)
from earshot.model import load, model_manifest
from earshot.model.calibration import write_calibration
from earshot.types import Model

RESULT = Path(__file__).with_suffix(".json")
SHIPPED = Path(__file__).parent.parent / "earshot" / "data" / "calibration"
MODELS = ("tags", "sounds", "pocket")
FREE = ("CC0 1.0", "CC BY")
SCENES = 400
RATES = (0.05, 0.1, 0.2, 0.3)


def embedded(model: Model, paths: list[str]) -> dict[str, np.ndarray]:
    """Segments' vectors (S, D) by path, cut as an index cuts."""
    manifest = model_manifest(model)
    cut = (manifest.segment_s, manifest.hop_s)
    return {f.record.state.path: f.vectors for f in embed_files(paths, model, cut=cut)}


def judged(model: Model, part: QuerySet, folder: Path, heard: Mapping[str, np.ndarray]) -> Judged:
    """Queries over recordings."""
    return Judged(
        queries=model.embed_text([query.text for query in part.queries]),
        clips=[heard[str(folder / clip.file_name)] for clip in part.clips],
        relevant=part.relevance(),
    )


def freely_licensed(table: Path) -> set[str]:
    """The recordings whose vectors may be passed on without more than a name."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {row["file_name"] for row in rows if row["licence"].startswith(FREE)}


def scenes(model: Model) -> Judged:
    """Queries for single sounds and for several over soundscapes; those are one vector here."""
    with tempfile.TemporaryDirectory() as name:
        folder = write_soundscapes(Path(name), split="test", scenes=SCENES, seed=0)
        described = describe_scenes("test", SCENES)
        ids = [scene.id for scene in described]
        heard = embedded(model, [str(folder / f"{i}.flac") for i in ids])
        asked = [q for q in queries(described, "test", 0) if q.kind == "source"]
        return Judged(
            queries=model.embed_text([query.text for query in asked]),
            clips=[heard[str(folder / f"{i}.flac")] for i in ids],
            relevant=np.array([[i in query.relevant for i in ids] for query in asked]),
        )


def at_rates(calibration: Any, fitted: list[Judged], others: Mapping[str, Judged]) -> Any:
    """What other rates of false alarms would miss."""
    reached = [without_answer(one.distances(calibration), one) for one in fitted]
    table = {}
    for rate in RATES:
        bar, growth = fit_bar(reached, rate)
        other = replace(calibration, bar=bar, bar_per_doubling=growth, false_alarm_rate=rate)
        table[str(rate)] = {n: measured(other, one)["libraries"] for n, one in others.items()}
    return table


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Queries to fit on and to report on, by collection."""

    tune: Mapping[str, QuerySet]
    report: Mapping[str, QuerySet]


def material(data: Path, name: str) -> Material:
    """What a model was not trained on."""
    esc10, sounds = load_esc10(data / "esc10"), load_sounds(data / "sounds")
    if name == "tags":
        halves: dict[str, Halves] = {
            "esc10": split_by_fold(esc10),
            "sounds": split_by_topic(sounds),
        }
        return Material(
            tune={name: half.tune for name, half in halves.items()},
            report={name: half.report for name, half in halves.items()},
        )
    # ESC-10's file names begin with numbers, those of `sounds` do not: no name is in both.
    held = {id.partition("/")[2] for id in parts_of(data).ids("test")}
    halved = split_by_topic(sounds)
    return Material(
        tune={"esc10": among(esc10, held), "sounds": among(halved.tune, held)},
        report={"sounds": among(halved.report, held)},
    )


def among(whole: QuerySet, held: Collection[str]) -> QuerySet:
    """Clips by their files, and the queries that one of them answers."""
    clips = tuple(clip for clip in whole.clips if clip.file_name in held)
    queries = tuple(q for q in whole.queries if any(q.matches(clip) for clip in clips))
    return QuerySet(name=whole.name, queries=queries, clips=clips)


def fit(data: Path, name: str) -> dict[str, Any]:
    """Fit and write a model's calibration; what it is worth."""
    model, parts = load(name, "cpu"), material(data, name)
    kinds: dict[str, dict[str, Judged]] = {"tune": {}, "report": {}}
    for kind, sets in (("tune", parts.tune), ("report", parts.report)):
        for collection, part in sets.items():
            folder = data / collection
            heard = embedded(model, [str(folder / clip.file_name) for clip in part.clips])
            kinds[kind][collection] = judged(model, part, folder, heard)
    tune, report = kinds["tune"], {**kinds["report"], "soundscapes": scenes(model)}
    free = freely_licensed(data / "sounds" / "captions.csv")
    chosen = [clip.file_name in free for clip in parts.tune["sounds"].clips]
    background = background_from([tune["sounds"].clips[i] for i in np.flatnonzero(chosen).tolist()])
    fitted = list(tune.values())
    calibration = calibrate(fitted, background, model.fingerprint)
    result: dict[str, Any] = {
        name: getattr(calibration, name)
        for name in ("slope", "intercept", "bar", "bar_per_doubling", "false_alarm_rate")
    }
    result |= {name: measured(calibration, one) for name, one in report.items()}
    result["rates"] = at_rates(calibration, fitted, report)
    about = {"script": Path(__file__).name, "false_alarm_rate": FALSE_ALARMS}
    write_calibration(calibration, SHIPPED / f"{name}.safetensors", about)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", choices=MODELS, help="this one alone")
    arguments = parser.parse_args()
    told = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in [arguments.model] if arguments.model else MODELS:
        result = fit(arguments.data, name)
        print(name)
        show(result)
        # Those of `tags` lie at the top, where other scripts read them.
        models = told.get("models", {})
        if name == "tags":
            told = {**result, "models": models}
        else:
            told["models"] = {**models, name: result}
    RESULT.write_text(json.dumps(told, indent=1) + "\n")


def show(result: Mapping[str, Any]) -> None:
    """Tables, 80 columns wide."""
    print(f"{'':<12}{'ECE, all pairs':>15}{'ECE, ten best':>15}{'said':>8}{'true':>8}")
    for name in [n for n in ("esc10", "sounds", "soundscapes") if n in result]:
        one = result[name]
        print(
            f"{name:<12}{one['ece_all_pairs']:>15.3f}{one['ece_shown']:>15.3f}"
            f"{one['mean_probability_shown']:>8.3f}{one['relevant_shown']:>8.3f}"
        )
    for rate, table in result["rates"].items():
        print(f"\nfalse alarms, misses where {float(rate):.0%} false alarms were fitted, by clips")
        for name, rows in table.items():
            cells = (f"{r['clips']:>4}: {r['false_alarms']:.2f} {r['misses']:.2f}" for r in rows)
            print(f"{name:<12}" + "  ".join(cells))


if __name__ == "__main__":
    main()
