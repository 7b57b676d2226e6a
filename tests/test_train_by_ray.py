"""Processes on a Ray cluster train what those of one machine do, whatever becomes of them."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from ray_index import command_of, descendants
from test_cluster import be_quick
from test_distributed import processes, same_rows
from test_training import Silent, cache, data, recipe, text_folder

from earshot.cli import app
from earshot.cluster import ClusterConfig, connected
from earshot.train import by_ray as by_ray_module
from earshot.train.by_ray import LostError, require_well, train_by_ray, wants_gpus
from earshot.train.recipe import Recipe, resolved
from earshot.train.run import RunFolder
from earshot.train.start import Job
from earshot.types import EarshotError

__all__ = ["cache", "data", "text_folder"]
needs_ray = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def given(text_folder: Path) -> Recipe:
    return recipe(text_folder)


@pytest.fixture
def plain(given: Recipe, data: Path, tmp_path: Path) -> RunFolder:
    """Two processes without Ray."""
    (tmp_path / "recipe.json").write_text(resolved(given))
    command = ("-m", "earshot", "train", tmp_path / "recipe.json", "--data", data)
    out = tmp_path / "plain"
    done = processes(*command, "--out", out, "--device", "cpu", "--processes", 2, "--json")
    assert done.returncode == 0, done.stderr
    return RunFolder(path=out)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    be_quick(monkeypatch)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def by_ray(given: Recipe, data: Path, out: Path, watch: Any, **job: Any) -> list[dict[str, Any]]:
    asked = Job(recipe=given, data=data, out=out, device="cpu", processes=2, **job)
    return train_by_ray(asked, "local", lambda first: watch)


def assert_same_runs(one: RunFolder, other: RunFolder) -> None:
    same_rows(one.history(), other.history())
    assert [path.name for path in sorted(one.path.iterdir())] == [
        path.name for path in sorted(other.path.iterdir())
    ]
    left, right = one.load_state()["network"], other.load_state()["network"]
    for name, weights in left.items():
        assert torch.allclose(weights, right[name], atol=1e-6), name


class Rows(Silent):
    """Keeps what it is told; kills a process of the cluster after the first epoch, if asked to."""

    def __init__(self, *, kill: bool = False) -> None:
        super().__init__()
        self.rows: list[Mapping[str, Any]] = []
        self.kill, self.killed = kill, 0

    def epoch(self, row: Mapping[str, Any]) -> None:
        self.rows.append(row)
        if self.kill and not self.killed:
            victims = [p for p in descendants() if command_of(p).startswith(b"ray::Place.train")]
            assert len(victims) == 2
            os.kill(victims[0], signal.SIGKILL)
            self.killed = victims[0]


@pytest.mark.slow
@needs_ray
def test_a_run_is_what_it_is_without_ray(
    given: Recipe, data: Path, tmp_path: Path, plain: RunFolder, quick: None
) -> None:
    """Also when a process is killed after the first epoch: all begin again from there."""
    watch = Rows(kill=True)
    history = by_ray(given, data, tmp_path / "ray", watch)
    assert watch.killed
    assert watch.rows == history
    folder = RunFolder(path=tmp_path / "ray")
    assert folder.history() == history
    assert_same_runs(plain, folder)


@pytest.mark.slow
@needs_ray
def test_interrupted_it_saves_its_state_and_goes_on(
    given: Recipe, data: Path, tmp_path: Path, plain: RunFolder, quick: None
) -> None:
    out = tmp_path / "ray"
    with pytest.raises(KeyboardInterrupt):
        by_ray(given, data, out, Silent(stop_after=1))
    folder = RunFolder(path=out)
    assert folder.load_state()["epoch"] < 3
    by_ray(given, data, out, Silent(), resume=True)
    assert_same_runs(plain, folder)


def nodes(*resources: Mapping[str, float]) -> list[dict[str, Any]]:
    return [{"Alive": True, "Resources": entry} for entry in resources]


def test_there_must_be_machines_enough(given: Recipe, tmp_path: Path) -> None:
    def asked(**job: Any) -> Job:
        return Job(recipe=given, data=tmp_path, out=tmp_path, **job)

    eight = {"CPU": 32.0, "GPU": 8.0}
    assert wants_gpus(asked(processes=8, machines=2), nodes(eight, eight, {"CPU": 2.0}))
    assert not wants_gpus(asked(processes=2, device="cpu"), nodes(eight))
    assert not wants_gpus(asked(processes=2), nodes({"CPU": 2.0}))
    with pytest.raises(EarshotError, match="1 machines of the cluster have 4 cores, and"):
        wants_gpus(asked(processes=4, machines=2), nodes(eight, {"CPU": 2.0}))
    with pytest.raises(EarshotError, match="0 machines of the cluster have 2 GPUs"):
        wants_gpus(asked(processes=2, device="cuda"), nodes({"CPU": 2.0}))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sweep", "seed=1,2", "--ray", "local"], "leave --ray out"),
        (["--ray", "nowhere"], "no address of a Ray cluster"),
        (["--ray", ""], "'' is no address of a Ray cluster"),
    ],
)
def test_what_a_cluster_cannot_do_is_said(options: list[str], said: str, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    arguments = ["train", "dcase2025-baseline", "--data", str(tmp_path), "--out"]
    with pytest.raises(EarshotError, match=said):
        app([*arguments, str(tmp_path / "run"), *options], standalone_mode=False)
    assert not (tmp_path / "run").exists()


class Answers:
    """Ray, of whose processes each ended with an error."""

    def __init__(self, *errors: Exception) -> None:
        self.exceptions, self.errors = exceptions_of_ray(), errors

    def get(self, run: int) -> None:
        raise self.errors[run]

    def wait(
        self, runs: list[int], num_returns: int = 1, timeout: float | None = None
    ) -> tuple[list[int], list[int]]:
        return runs, []


def exceptions_of_ray() -> Any:
    return pytest.importorskip("ray.exceptions")


def test_a_process_that_ray_ended_for_want_of_memory_is_lost() -> None:
    """Others fail with it, in their exchange; then all begin again."""
    exceptions = exceptions_of_ray()
    memory = exceptions.OutOfMemoryError("task was killed due to the node running low on memory")
    for errors in ([memory], [exceptions.RayError("connection closed by peer"), memory]):
        with pytest.raises(LostError, match="low on memory"):
            require_well(Answers(*errors), 0, range(1, len(errors)))


@needs_ray
def test_a_busy_cluster_and_one_that_gives_up_are_said(
    given: Recipe, data: Path, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has a core that is wanted; then Ray fails in a way that is no lost process."""
    ray = pytest.importorskip("ray")
    job = Job(recipe=given, data=data, out=tmp_path / "run", device="cpu", processes=2)
    monkeypatch.setattr(by_ray_module, "BUSY_S", 0.1)
    told: list[str] = []

    def failed(*_: Any) -> None:
        raise ray.exceptions.RaySystemError("the head is gone")

    with connected(ClusterConfig(workers=2)):
        others = ray.util.placement_group([{"CPU": 1}])
        ray.get(others.ready())

        def tell(line: str) -> None:
            told.append(line)
            ray.util.remove_placement_group(others)
            monkeypatch.setattr(by_ray_module, "begun", failed)

        with pytest.raises(EarshotError, match=r"gave up: .*the head is gone; go on with --resume"):
            train_by_ray(job, "local", lambda first: Silent(), tell)
    assert len(told) == 1
    assert "waiting for 1 machine with 2 cores free; 1 of 2 cores are" in told[0]
