"""Several processes: the gradients of one, memory that grows with their number and not its square,
one that judges and saves, all that stop together."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from test_training import (
    assert_same,
    cache,
    data,
    model,
    pairs,
    recipe,
    run,
    step,
    still,
    text_folder,
)
from torch.utils._python_dispatch import TorchDispatchMode

from earshot.train.loop import DivergedError, Training
from earshot.train.objective import build_objective
from earshot.train.recipe import LossConfig, ScheduleConfig, resolved
from earshot.train.run import RunFolder
from earshot.train.step import Vectors
from earshot.types import EarshotError

__all__ = ["cache", "data", "text_folder"]
ROOT = Path(__file__).parent.parent
LOSSES = [
    LossConfig(),
    LossConfig(weighting="cells"),
    LossConfig(kind="other-clips"),
    LossConfig(kind="sigmoid"),
    LossConfig(kind="triplet"),
    LossConfig(kind="triplet", impostors="semi-hard"),
    LossConfig(supervised_weight=0.5, distillation_weight=0.7),
]


def processes(*command: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=400,
    )


def judged(count: int) -> torch.Tensor:
    """What a teacher thinks of clips and captions."""
    return torch.rand(count, count, generator=torch.Generator().manual_seed(2))


def test_two_processes_have_the_gradients_of_one(text_folder: Path, tmp_path: Path) -> None:
    """Of every loss, to 1e-5; repeated clips lie on both sides of the border."""
    network = still(text_folder)
    batch, opinions = pairs(network), judged(12)
    expected = [step(network, batch, None, config, opinions) for config in LOSSES]
    network.zero_grad()
    fields = ("waveforms", "lengths", "clip_ids", "caption_ids", "tokens")
    stored = {"network": network, "batch": {name: getattr(batch, name) for name in fields}}
    torch.save(stored | {"losses": LOSSES, "judged": opinions}, tmp_path / "step.pt")
    done = processes(Path(__file__).with_name("two_processes.py"), tmp_path / "step.pt")
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        theirs = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        for (loss, gradients), (their_loss, shared) in zip(expected, theirs, strict=True):
            assert float(their_loss) == pytest.approx(float(loss), rel=1e-5)
            assert_same(gradients, shared)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that is made."""

    cells = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, torch.Tensor):
                self.cells = max(self.cells, one.numel())
        return made


@pytest.mark.parametrize("config", [c for c in LOSSES if c.kind != "triplet"], ids=str)
def test_no_process_holds_all_against_all(text_folder: Path, config: LossConfig) -> None:
    """The largest tensor of a step's loss, forth and back, is (own pairs, all pairs)."""
    network = still(text_folder)
    own, world, dimension = 8, 16, 4
    everyone = own * world
    sides = [torch.randn(everyone, dimension, requires_grad=True) for _ in range(2)]
    numbers = torch.arange(everyone)

    def teachers(clips: torch.Tensor, captions: torch.Tensor) -> torch.Tensor:
        return torch.cos(clips[:, None] + captions).float()

    judge = teachers if config.distillation_weight else None
    objective = build_objective(config, network, torch.Generator(), judge)
    whole = Vectors(audio=sides[0], text=sides[1], clip_ids=numbers // 2, caption_ids=numbers)
    shares = []
    for rank in range(world):
        mine = slice(rank * own, (rank + 1) * own)
        with Largest() as largest:
            share = objective(
                Vectors(
                    audio=sides[0],
                    text=sides[1],
                    clip_ids=numbers // 2,
                    caption_ids=numbers,
                    own=mine,
                )
            )
            torch.autograd.grad(share, sides)
        assert largest.cells == own * everyone
        shares.append(float(share.detach()))
    assert sum(shares) == pytest.approx(float(objective(whole).detach()), rel=1e-5)


def same_rows(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    assert [row["epoch"] for row in rows] == [row["epoch"] for row in others]
    for one, other in zip(rows, others, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-3)


@pytest.mark.slow
def test_two_processes_train_like_one(text_folder: Path, data: Path, tmp_path: Path) -> None:
    """The command itself: data, validation, models and state by the first, the stop by all.

    With frozen towers nothing is drawn in a step, so that two processes are one to rounding.
    """
    soon = ScheduleConfig(stop_std=10.0, stop_epochs=2, stop_after=2)
    frozen = model(text_folder, frozen=True)
    towers = replace(frozen, text=replace(frozen.text, frozen=True))
    given = recipe(text_folder, model=towers, schedule=soon, epochs=9)
    alone = run(given, data, tmp_path / "one")
    assert 1 < len(alone) < 9, "it settled"
    (tmp_path / "recipe.json").write_text(resolved(given))
    out = tmp_path / "two"
    command = ("-m", "earshot", "train", tmp_path / "recipe.json", "--data", data, "--out", out)
    done = processes(*command, "--device", "cpu", "--processes", 2, "--json")
    assert done.returncode == 0, done.stderr
    folder = RunFolder(path=out)
    same_rows(folder.history(), alone)
    assert json.loads(done.stdout)["epochs"] == len(alone), "the first alone reports"
    state = folder.load_state()
    assert state["settled"]
    one = RunFolder(path=tmp_path / "one").load_state()["network"]
    for name, weights in state["network"].items():
        assert torch.allclose(weights, one[name], atol=1e-5), name
    for kind in ("best", "last"):
        assert (out / kind / "model.safetensors").is_file()
    assert not list(out.glob(".*")), "nothing half written is left"


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("how", ["Ctrl-C", "Ctrl-C before", "nan"])
def test_what_ends_the_judging_ends_all(first: bool, how: str) -> None:
    """The first process alone judges; the others, who wait to be told, are told of that, too."""
    error = DivergedError("nan") if how == "nan" else KeyboardInterrupt()
    sent: list[Any] = []

    def judge() -> None:
        assert how != "Ctrl-C before"
        raise error

    def broadcast(mine: Any) -> Any:
        sent.append(mine)
        return mine if first else error

    training: Any = SimpleNamespace(
        fabric=SimpleNamespace(world_size=2, is_global_zero=first, broadcast=broadcast),
        judge=judge,
        wants_to_stop=how == "Ctrl-C before",
    )
    with pytest.raises(type(error)):
        Training.judged_by_first(training)
    assert [type(one) for one in sent] == [type(error) if first else type(None)]


def test_what_is_wrong_is_said_before_there_are_others(
    text_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each process would say the same."""
    monkeypatch.setattr(Fabric, "launch", lambda *arguments: pytest.fail("others were started"))
    given = recipe(text_folder, epochs=1)
    out = tmp_path / "run"
    with pytest.raises(EarshotError, match="nowhere"):
        run(given, tmp_path / "nowhere", out, processes=2)
    RunFolder(path=out).begin(given, {"train": "others"})
    with pytest.raises(EarshotError, match="does not hold the data that"):
        run(given, data, out, processes=2, resume=True)


SLOW_DISK = """
import time
from earshot.cli import main
from earshot.train.run import RunFolder

def slow(folder, state, save=RunFolder.save_state):
    if folder.writes and state["step"]:  # It is Ctrl-C's: longer than others are waited for.
        time.sleep(7)
    save(folder, state)

RunFolder.save_state = slow
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("reached", ["all", "the second"])
def test_ctrl_c_ends_all_at_one_step_which_is_saved(
    text_folder: Path, data: Path, tmp_path: Path, reached: str
) -> None:
    """Whomever it reaches; nobody is killed while the first process saves, however long."""
    (tmp_path / "recipe.json").write_text(resolved(recipe(text_folder, epochs=999)))
    (tmp_path / "slow_disk.py").write_text(SLOW_DISK)
    out = tmp_path / "run"
    options = ("--out", out, "--device", "cpu", "--processes", 2)
    command = ("train", tmp_path / "recipe.json", "--data", data, *options)
    run = subprocess.Popen(
        [sys.executable, *map(str, (tmp_path / "slow_disk.py", *command))],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (out / "metrics.jsonl").exists():
        assert run.poll() is None, "it ended before it was interrupted"
        time.sleep(0.05)
    (second,) = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    if reached == "all":
        os.killpg(run.pid, signal.SIGINT)
    else:
        os.kill(int(second), signal.SIGINT)
    said = run.communicate(timeout=200)[1]
    assert run.returncode == 130, said
    assert said.count("stopped; what was written stays") == 1
    state = RunFolder(path=out).load_state()
    assert state["step"] > 0
    assert state["epoch"] == len(RunFolder(path=out).history())
    assert (out / "plots").is_dir()


@pytest.mark.slow
def test_a_launcher_of_others_is_recognised(text_folder: Path, data: Path, tmp_path: Path) -> None:
    """Started by torchrun, the command forms no processes of its own; a run of it is resumed."""
    given = recipe(text_folder, epochs=1)
    (tmp_path / "recipe.json").write_text(resolved(given))
    command = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m")
    asked = ("earshot", "train", tmp_path / "recipe.json", "--data", data, "--device", "cpu")
    done = processes(*command, *asked, "--out", tmp_path / "run", "--processes", 2, "--json")
    assert done.returncode == 0, done.stderr
    assert len(RunFolder(path=tmp_path / "run").history()) == 1
    assert done.stdout.count('"epochs"') == 1
