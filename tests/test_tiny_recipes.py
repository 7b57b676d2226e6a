"""Every recipe runs: the same code as the published row, tiny, for two epochs."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import earshot
from test_training import cache, data, run, text_folder

from earshot.batches import Pairs
from earshot.datasets import load
from earshot.model import load as load_model
from earshot.model.folder import load_dual
from earshot.recipes import RECIPES, tiny
from earshot.teach import teach
from earshot.train.data import load_one
from earshot.train.recipe import Recipe, ScheduleConfig
from earshot.train.start import initial_network

__all__ = ["cache", "data", "text_folder"]


def code_path(recipe: Recipe) -> str:
    """What distinguishes recipes as code: not their data, rates and seeds."""
    kept: dict[str, Any] = asdict(tiny(recipe, Path("text")))
    for name in ("name", "about", "data", "seed", "initialise"):
        del kept[name]
    for name in ("rate", "kind"):
        kept["optimizer"].pop(name)
    for name in ("first_rate", "last_rate", "ramp_until_epoch", "threshold", "factor"):
        kept["schedule"].pop(name)
    return repr(kept)


def on_soundscapes(recipe: Recipe) -> Recipe:
    """A recipe on data that are at hand, from weights that are."""
    places = {"train": ("soundscapes:train",), "validate": "soundscapes:validation"}
    data = replace(recipe.data, **places, excluded=(), longest_s=None)
    return replace(recipe, data=data, initialise=())


DISTINCT = {code_path(make()): name for name, make in reversed(RECIPES.items())}


@pytest.mark.parametrize("name", sorted(DISTINCT.values()))
def test_two_epochs(name: str, text_folder: Path, data: Path, tmp_path: Path) -> None:
    recipe = on_soundscapes(tiny(RECIPES[name](), text_folder))
    teachers = None
    if recipe.loss.distillation_weight:
        first = replace(
            recipe, loss=replace(recipe.loss, distillation_weight=0.0, supervised_weight=1.0)
        )
        run(first, data, tmp_path / "first")
        pairs = Pairs([load("soundscapes", data / "train", "train")], sample_rate_hz=32_000)
        teach([load_model(str(tmp_path / "first"), "cpu")], pairs, tmp_path / "teachers")
        teachers = tmp_path / "teachers"
    history = run(recipe, data, tmp_path / "run", teachers=teachers)
    assert [row["epoch"] for row in history] == [1, 2]
    assert all(np.isfinite(row["loss"]) for row in history)
    model = load_model(str(tmp_path / "run"), "cpu")
    moved = load_dual(tmp_path / "run" / "last").state_dict()
    assert any(
        not torch.equal(weight, moved[name])
        for name, weight in initial_network(recipe).state_dict().items()
    )
    noise = np.random.default_rng(0).normal(0, 0.1, model.sample_rate_hz).astype(np.float32)
    vector = model.embed_audio([noise])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)
    assert model.embed_text(["a dog barks"]).shape == vector.shape


STAGE_2 = "salsa-2024-stage2"  # It needs teachers.
SYSTEMS = ("irit-2022", "dcase2023", "salsa-2024-stage1", STAGE_2, "dcase2025")


@pytest.mark.parametrize(
    "system",
    [
        "irit-2022",
        *(pytest.param(name, marks=pytest.mark.slow) for name in SYSTEMS[1:] if name != STAGE_2),
    ],
)
def test_a_run_can_be_used_by_its_folder(
    system: str, text_folder: Path, data: Path, tmp_path: Path
) -> None:
    """The loss falls, the folder is complete; it is evaluated, predicts, and indexes."""
    name = next(name for name in sorted(DISTINCT.values()) if name.startswith(system))
    recipe = on_soundscapes(tiny(RECIPES[name](), text_folder))
    recipe = replace(
        recipe,
        optimizer=replace(recipe.optimizer, rate=3e-3),
        schedule=ScheduleConfig(kind="constant"),
        epochs=8,
    )
    losses = [row["loss"] for row in run(recipe, data, tmp_path / "run")]
    assert sum(losses[-3:]) < sum(losses[:3])
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files >= {"best", "last", "plots", "recipe.json", "environment.json", "data.json"}
    assert files >= {"metrics.jsonl", "metrics.csv", "state.pt"}

    folder, judged = str(tmp_path / "run"), str(data / "validation")
    device = ("--device", "cpu")
    done = earshot("evaluate", folder, "--data", judged, *device, "--json")
    figures = json.loads(done.stdout)
    assert "mAP@10" in json.dumps(figures), done.stderr
    (tmp_path / "queries.csv").write_text("query\na dog barks\nrain\n")
    asked = ("--audio", judged, "--queries", str(tmp_path / "queries.csv"))
    done = earshot("predict", folder, *asked, "--out", str(tmp_path / "p.csv"), *device)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "p.csv").is_file()
    library = str(tmp_path / "library")
    done = earshot("index", judged, "--to", library, "--model", folder, *device, "--json")
    clips = len(load_one("soundscapes:validation", data, allow_missing=False).clips)
    assert json.loads(done.stdout)["added"] == clips, done.stderr


def test_all_five_systems_are_among_them() -> None:
    for system in SYSTEMS:
        assert any(name.startswith(system) for name in DISTINCT.values())
