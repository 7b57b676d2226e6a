"""How several sounds in one query, and excluded ones, are best answered.

Soundscapes know which sounds they hold, so every query has a complete truth: pairs of sounds in
sentences ("a cow moos while rain falls") and one sound without another. Compared are the sentence
as one vector, its phrases joined over each clip in several ways, and what ships. With DATA, the
same on queries over real recordings, where a sentence mostly describes one sound and cutting it may
harm.

    EARSHOT_ASSETS=FOLDER python benchmarks/combination.py [DATA]

Constants were chosen on the split `validation`; figures are of `test`. DATA holds `esc10` and
`sounds`, as for `zero_shot.py`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from retrieval_queries import load_esc10, load_sounds

from earshot.datasets.soundscape import SceneQuery, describe_scenes, queries, write_soundscapes
from earshot.embed import embed_files
from earshot.metrics import average_precision, precision
from earshot.model import load, model_manifest
from earshot.search.question import Plan, plans_of
from earshot.search.scorer import Scorer
from earshot.search.scoring import background_of, soft_minimum
from earshot.search.sentences import Sentences
from earshot.store import MemoryStore
from earshot.types import Question

RESULT = Path(__file__).with_suffix(".json")
SCENES, PER_KIND = 400, 100
PAIRS = ("together", "order", "during", "background")
Rule = Callable[[np.ndarray, Plan], np.ndarray]
# What to do with standard deviations (Q, N) of wanted sounds: a sentence before its phrases.
RULES: Mapping[str, Rule] = {
    "sentence as one vector": lambda z, plan: z[0],
    "phrases, mean": lambda z, plan: phrases(z, plan).mean(0),
    "phrases, minimum": lambda z, plan: phrases(z, plan).min(0),
    "phrases, soft minimum": lambda z, plan: soft_minimum(phrases(z, plan)),
}
EXCLUSIONS: Mapping[str, Rule] = {
    "wanted sound alone": lambda z, plan: z[0],
    "less 0.5 z": lambda z, plan: z[0] - 0.5 * z[-1],
    "less 1 z": lambda z, plan: z[0] - z[-1],
    "out from z = 1": lambda z, plan: z[0] - 1000 * np.maximum(z[-1] - 1, 0),
    "out from z = 2": lambda z, plan: z[0] - 1000 * np.maximum(z[-1] - 2, 0),
}


def phrases(z: np.ndarray, plan: Plan) -> np.ndarray:
    """The rows of a sentence's phrases; itself where it has none."""
    return z[1 : len(plan.wanted)] if plan.sentence else z[:1]


class Collection:
    """Embedded clips in the order of their paths' list, and how a question ranks them."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.model = load("tags", "cpu")
        self.sentences = Sentences(self.model)
        manifest = model_manifest(self.model)
        cut = (manifest.segment_s, manifest.hop_s)
        files = {f.record.state.path: f for f in embed_files(paths, self.model, cut=cut)}
        vectors = [files[path].vectors for path in paths]
        self.store = MemoryStore.create(":memory:", manifest)
        self.segments = np.concatenate(vectors)
        self.starts = np.cumsum([0, *map(len, vectors[:-1])])

    def asked(self, question: Question) -> tuple[Scorer, np.ndarray]:
        """A question's scorer and each clip's best cosine with its sounds, (Q, N)."""
        (plan,) = self.plans([question])
        scorer = Scorer(plan, background_of(self.segments, plan.vectors))
        best = np.maximum.reduceat(scorer.vectors @ self.segments.T, self.starts, axis=1)
        return scorer, best

    def plans(self, questions: Sequence[Question]) -> list[Plan]:
        """What questions become, all of which make sense."""
        plans = plans_of(questions, self.model, self.sentences, self.store)
        return [plan for plan in plans if isinstance(plan, Plan)]

    def ships(self, question: Question) -> np.ndarray:
        """Scores as a search gives them."""
        scorer, best = self.asked(question)
        return scorer.sound(best)

    def by_rule(self, question: Question, rule: Rule) -> np.ndarray:
        """Scores by another rule."""
        scorer, best = self.asked(question)
        return rule(scorer.background.z(best), scorer.plan)

    def uncut(self, text: str) -> np.ndarray:
        """Scores of a text as one vector, whatever it says."""
        query = self.model.embed_text([text])[0]
        return np.maximum.reduceat(self.segments @ query, self.starts)


def figures(scores: Sequence[np.ndarray], relevant: np.ndarray) -> dict[str, float]:
    """Mean average precision and precision at five."""
    ranked = np.stack(scores)
    return {
        "mAP": round(float(average_precision(ranked, relevant).mean()), 4),
        "P@5": round(float(precision(ranked, relevant, 5).mean()), 4),
    }


def right_order(scores: Sequence[np.ndarray], wanted: np.ndarray, spoilt: np.ndarray) -> float:
    """How often a clip with the wanted sound alone ranks above one with the excluded sound, too."""
    shares = [
        (row[good][:, None] > row[bad][None]).mean()
        for row, good, bad in zip(scores, wanted, spoilt, strict=True)
        if good.any() and bad.any()
    ]
    return round(float(np.mean(shares)), 4)


def judged_pairs(clips: Collection, asked: Sequence[SceneQuery], ids: list[str]) -> dict[str, Any]:
    """Every rule on queries for two sounds."""
    relevant = truth(asked, ids)
    questions = [Question(text=query.text, by="sound") for query in asked]
    found = {
        name: figures([clips.by_rule(question, rule) for question in questions], relevant)
        for name, rule in RULES.items()
    }
    found["ships"] = figures([clips.ships(question) for question in questions], relevant)
    return {"queries": len(asked), **found}


def judged_exclusion(
    clips: Collection, asked: Sequence[SceneQuery], ids: list[str], holding: Mapping[str, Any]
) -> dict[str, Any]:
    """Every rule on queries for a sound without another, and how well it tells the two apart."""
    relevant = truth(asked, ids)
    names = [[mention.name for mention in query.claim.mentions] for query in asked]
    spoilt = np.array([[holding[a][i] and holding[b][i] for i in ids] for a, b in names])
    questions = [Question(text=query.text, by="sound") for query in asked]
    scores = {"plain text": [clips.uncut(query.text) for query in asked]}
    for name, rule in EXCLUSIONS.items():
        scores[name] = [clips.by_rule(question, rule) for question in questions]
    scores["ships"] = [clips.ships(question) for question in questions]
    return {
        "queries": len(asked),
        **{
            name: {**figures(rows, relevant), "right order": right_order(rows, relevant, spoilt)}
            for name, rows in scores.items()
        },
    }


def truth(asked: Sequence[SceneQuery], ids: list[str]) -> np.ndarray:
    """Which scene answers which query, (Q, N)."""
    return np.array([[name in query.relevant for name in ids] for query in asked])


def soundscapes(folder: Path) -> dict[str, Any]:
    """Pairs and exclusion on scenes of the test split."""
    write_soundscapes(folder, split="test", scenes=SCENES, seed=0)
    scenes = describe_scenes("test", SCENES)
    ids = [scene.id for scene in scenes]
    clips = Collection([str(folder / f"{name}.flac") for name in ids])
    asked = queries(scenes, "test", 0, per_kind=PER_KIND)
    result: dict[str, Any] = {}
    for kinds in ([kind] for kind in PAIRS):
        chosen = [q for q in asked if q.kind in kinds and len(q.claim.mentions) == 2]
        result[kinds[0]] = judged_pairs(clips, chosen, ids)
    result["all pairs"] = judged_pairs(clips, [q for q in asked if q.kind in PAIRS], ids)
    single = [q for q in asked if q.kind == "source"]
    result["single sounds"] = judged_pairs(clips, single, ids)
    without = [q for q in asked if q.kind == "without"]
    result["without"] = judged_exclusion(clips, without, ids, held(scenes))
    return result


def held(scenes: Sequence[Any]) -> dict[str, dict[str, bool]]:
    """Which scene holds which source or category."""
    from earshot.datasets.soundscape import SOURCES

    names = {name for source in SOURCES.values() for name in source.kinds} | set(SOURCES)
    return {
        name: {
            scene.id: any(
                name in (event.source, *SOURCES[event.source].kinds) for event in scene.everything
            )
            for scene in scenes
        }
        for name in names
    }


def recordings(data: Path) -> dict[str, Any]:
    """All queries over real recordings, and those of them that are taken apart."""
    result: dict[str, Any] = {}
    for whole in (load_esc10(data / "esc10"), load_sounds(data / "sounds")):
        clips = Collection([str(data / whole.name / clip.file_name) for clip in whole.clips])
        relevant = whole.relevance()
        plain = [clips.uncut(query.text) for query in whole.queries]
        questions = [Question(text=query.text, by="sound") for query in whole.queries]
        ships = [clips.ships(question) for question in questions]
        plans = clips.plans(questions)
        cut = np.array([plan.sentence or len(plan.excluded) > 0 for plan in plans])
        for name, rows in (("all", np.ones(len(cut), bool)), ("taken apart", cut)):
            chosen = np.flatnonzero(rows)
            result[f"{whole.name}, {name}"] = {
                "queries": len(chosen),
                "sentence as one vector": figures([plain[i] for i in chosen], relevant[chosen]),
                "ships": figures([ships[i] for i in chosen], relevant[chosen]),
            }
    return result


def show(result: Mapping[str, Any]) -> None:
    """A table per group of queries."""
    for group, systems in result.items():
        print(f"\n{group}: {systems['queries']} queries")
        for name, found in systems.items():
            if name != "queries":
                print(f"  {name:<26}" + "  ".join(f"{k} {v:.3f}" for k, v in found.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    data = parser.parse_args().data
    with tempfile.TemporaryDirectory() as folder:
        result = soundscapes(Path(folder))
    if data is not None:
        result |= recordings(data)
    show(result)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
