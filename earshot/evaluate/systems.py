"""Systems under judgement: a model by name or a prediction file, and what is found of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earshot.datasets import with_relevance
from earshot.evaluate.challenge import answers_of, read_submission, require_known_queries
from earshot.evaluate.report import (
    By,
    Report,
    comparison_json,
    depth_note,
    intervals_json,
    judge,
    judged,
)
from earshot.evaluate.scores import Answers, Pool, cosine_scores, embed_captions, embed_clips
from earshot.evaluate.truth import is_closed, read_truth, widened
from earshot.model import load
from earshot.types import Dataset

System = Callable[[Dataset], Answers]
"""Answers to the captions of a dataset, in its order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """How to judge: the pooling of segments, the intervals, and what to compute on."""

    pool: Pool = "mean"
    by: By = "bootstrap"
    workers: int | None = None
    device: str = "auto"
    done: Callable[[int], None] = lambda count: None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdict:
    """A report, and the one by pairing where the relevance came from a file of its own."""

    report: Report
    pairing: Report | None = None

    def as_json(self, *, bounds: bool = False) -> dict[str, Any]:
        """The verdict for other programs."""
        found = self.report.as_json(bounds=bounds)
        if note := depth_note(self.report.answers):
            found["note"] = note
        if self.pairing:
            found["pairing"] = {
                "queries": len(self.pairing.dataset.captions),
                "metrics": intervals_json(self.pairing.metrics),
            }
        return found


def evaluate(
    name: str, dataset: Dataset, relevance: Path | None = None, judging: Judging | None = None
) -> Verdict:
    """Judge a model, or a prediction file, on a dataset.

    With `relevance`, a file of queries and their relevant clips, these are what is judged; the
    pairing of captions and clips is judged as well where the dataset has one.

    Raises:
        EarshotError: an unknown model, recordings that cannot be heard, malformed files.
    """
    judging = judging or Judging()
    system = open_system(name, dataset, judging)
    shown = Path(name).name if is_file(name) else name
    if relevance is None:
        return Verdict(report=_judge(system, dataset, shown, judging.by))
    paired = bool(dataset.relevance)
    return Verdict(
        report=_judge(system, with_relevance(dataset, relevance), shown, judging.by),
        pairing=_judge(system, dataset, shown, judging.by) if paired else None,
    )


def score(path: Path, truth: Path, relevance: Path | None = None, by: By = "jackknife") -> Verdict:
    """Judge a prediction file against a ground-truth file.

    Raises:
        EarshotError: one of the files is malformed, or they do not fit each other.
    """
    submission, dataset = read_submission(path), read_truth(truth)
    if is_closed(dataset):
        require_known_queries(submission, dataset.captions)
    else:
        dataset = widened(dataset, submission)

    def system(asked: Dataset) -> Answers:
        return answers_of(submission, asked)

    if relevance is None:
        return Verdict(report=_judge(system, dataset, path.name, by))
    return Verdict(
        report=_judge(system, with_relevance(dataset, relevance), path.name, by),
        pairing=_judge(system, dataset, path.name, by),
    )


def open_system(name: str, dataset: Dataset, judging: Judging) -> System:
    """A prediction file, or a model that has heard the dataset's recordings.

    Raises:
        EarshotError: neither a file nor a known model, or recordings that cannot be heard.
    """
    if is_file(name):
        submission = read_submission(Path(name))
        return lambda asked: answers_of(submission, asked)
    model = load(name, judging.device)
    clips = embed_clips(dataset.clips, model, workers=judging.workers, done=judging.done)
    return lambda asked: cosine_scores(embed_captions(asked.captions, model), clips, judging.pool)


def is_file(name: str) -> bool:
    """Whether a system is a prediction file and not a model's name."""
    return Path(name).is_file()


def verdicts_json(verdicts: Sequence[Verdict], *, bounds: bool = False) -> dict[str, Any]:
    """The first verdict; if there are more, all of them, and how the others differ from it."""
    every = [verdict.as_json(bounds=bounds) for verdict in verdicts]
    if len(every) == 1:
        return every[0]
    return {**every[0], "systems": every, "comparisons": comparisons(verdicts)}


def comparisons(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Each further system against the first, on the same queries."""
    first, *others = (verdict.report for verdict in verdicts)
    return [comparison_json(other, first) for other in others]


def _judge(system: System, dataset: Dataset, name: str, by: By) -> Report:
    asked = judged(dataset)
    return judge(system(asked), asked, system=name, by=by)
