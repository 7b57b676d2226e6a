"""Searches over recipes: ranges are read, trials are runs, interrupted searches go on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_training import Silent, cache, data, recipe, text_folder

from earshot.datasets.soundscape import write_soundscapes
from earshot.train.run import RunFolder
from earshot.train.start import Job
from earshot.train.sweep import Range, parse_range, sweep
from earshot.types import EarshotError

__all__ = ["cache", "data", "text_folder"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loss.margin=0.2,0.4", Range(path="loss.margin", values=(0.2, 0.4))),
        ("loss.kind=triplet,sigmoid", Range(path="loss.kind", values=("triplet", "sigmoid"))),
        ("batches.pairs=8..64", Range(path="batches.pairs", low=8, high=64)),
        (
            "optimizer.rate=1e-5..1e-3:log",
            Range(path="optimizer.rate", low=1e-5, high=1e-3, logarithmic=True),
        ),
    ],
)
def test_ranges_are_read(text: str, expected: Range) -> None:
    assert parse_range(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("optimizer.rate", "expected path=a,b,c"),
        ("optimizer.rat=1..2", "did you mean optimizer.rate"),
        ("optimizer.rate=2..1", "low below high"),
        ("optimizer.rate=0..1:log", "begins above 0"),
        ("optimizer.rate=a..b", "expected path="),
    ],
)
def test_wrong_ranges_are_named(text: str, reason: str) -> None:
    with pytest.raises(EarshotError, match=reason):
        parse_range(text)


def test_a_search_is_made_of_runs_and_goes_on(
    text_folder: Path, data: Path, tmp_path: Path
) -> None:
    given = replace(recipe(text_folder), epochs=1)
    job = Job(recipe=given, data=data, out=tmp_path / "sweep", device="cpu")
    ranges = [parse_range("optimizer.rate=1e-4..1e-2:log"), parse_range("loss.kind=sigmoid")]
    told: list[dict[str, Any]] = []
    first = sweep(job, ranges, 2, lambda first: Silent(), told.append)
    assert len(first) == len(told) == 2
    assert first[0]["mAP@10"] >= first[1]["mAP@10"]
    every = sweep(job, ranges, 3, lambda first: Silent(), told.append)
    assert [row["trial"] for row in told] == [0, 1, 2]
    assert len(every) == 3
    for row in every:
        run = RunFolder(path=tmp_path / "sweep" / f"trial-{row['trial']:03}")
        assert run.recipe().optimizer.rate == pytest.approx(row["optimizer.rate"])
        assert run.recipe().loss.kind == "sigmoid"
        assert 1e-4 <= row["optimizer.rate"] <= 1e-2
    assert len({row["optimizer.rate"] for row in every}) == 3
    assert sweep(job, ranges, 3, lambda first: Silent()) == every
    with pytest.raises(EarshotError, match="nothing to sweep"):
        sweep(job, [], 3, lambda first: Silent())
    with pytest.raises(EarshotError, match="a search with other ranges; name a new folder"):
        sweep(job, ranges[:1], 4, lambda first: Silent())
    other = replace(job, recipe=replace(given, seed=8))
    with pytest.raises(EarshotError, match="a search with other settings"):
        sweep(other, ranges, 4, lambda first: Silent())
    write_soundscapes(tmp_path / "other" / "train", split="train", scenes=9)
    write_soundscapes(tmp_path / "other" / "validation", split="validation", scenes=6)
    with pytest.raises(EarshotError, match="a search with other data or teachers"):
        sweep(replace(job, data=tmp_path / "other"), ranges, 4, lambda first: Silent())


def test_a_search_survives_trials_that_diverge(
    text_folder: Path, data: Path, tmp_path: Path
) -> None:
    job = Job(
        recipe=replace(recipe(text_folder), epochs=1), data=data, out=tmp_path / "s", device="cpu"
    )
    told: list[dict[str, Any]] = []
    ranges = [parse_range("optimizer.rate=1e-3,1e30")]
    found = sweep(job, ranges, 4, lambda first: Silent(), told.append)
    assert len(told) == 4
    wild = [row for row in told if row["optimizer.rate"] == 1e30]
    assert wild
    assert all("is nan in epoch 1" in row["diverged"] for row in wild)
    assert {row["optimizer.rate"] for row in found} == {1e-3}
    with pytest.raises(EarshotError, match="all 1 trials diverged"):
        wild_only = [parse_range("optimizer.rate=1e30,1e31")]
        sweep(replace(job, out=tmp_path / "w"), wild_only, 1, lambda first: Silent())
