"""Training: exact gradients, runs that go on where they stopped, folders that tell all."""

import errno
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from command_line import earshot, refused
from lightning_fabric import Fabric
from torch.optim.optimizer import register_optimizer_step_post_hook

from earshot.batches import Batch, BatchConfig
from earshot.console import TrainingWatch
from earshot.datasets.pack import Settings
from earshot.datasets.packing import pack
from earshot.datasets.soundscape import write_soundscapes
from earshot.encoders.text import TextConfig
from earshot.encoders.tiny_text import tiny_text_folder
from earshot.evaluate.scores import embed_clips
from earshot.model.dual import AudioSide, DualEncoder, DualEncoderConfig, TextSide
from earshot.model.folder import DualModel
from earshot.train import start
from earshot.train.data import load_one
from earshot.train.hearing import validation_vectors
from earshot.train.loop import READ_STEPS
from earshot.train.objective import build_objective
from earshot.train.recipe import (
    DataConfig,
    LossConfig,
    OptimizerConfig,
    Recipe,
    ScheduleConfig,
    overridden,
    recipe_from,
    resolved,
)
from earshot.train.run import RunFolder, disk_errors
from earshot.train.start import Job, train
from earshot.train.step import Vectors, backward
from earshot.types import EarshotError

SENTENCES = [
    f"a {what} in the {where}" for what in ("dog", "cat", "car") for where in ("rain", "sea")
]


class Silent:
    """Watches nothing; ends the run at a step, as Ctrl-C would."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.left = stop_after

    def step(self, epoch: int, step: int, steps: int, loss: float | None) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    def epoch(self, row: Mapping[str, Any]) -> None:
        pass


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text_folder(tmp_path_factory.mktemp("text") / "tiny", SENTENCES)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_soundscapes(folder / "train", split="train", scenes=8)
    write_soundscapes(folder / "validation", split="validation", scenes=6)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARSHOT_HOME", str(tmp_path / "home"))


def model(text_folder: Path, **audio: Any) -> DualEncoderConfig:
    tower = TextConfig(name=str(text_folder), pooling="mean")
    side = AudioSide(encoder="tiny-passt", **audio)
    return DualEncoderConfig(
        audio=side, text=TextSide(tower=tower), dimension=16, train_temperature=True
    )


def recipe(text_folder: Path, **changes: Any) -> Recipe:
    return replace(
        Recipe(
            name="trial",
            model=model(text_folder),
            data=DataConfig(train=("soundscapes:train",), validate="soundscapes:validation"),
            batches=BatchConfig(pairs=8, crop_s=1.0, workers=0),
            optimizer=OptimizerConfig(rate=1e-3),
            schedule=ScheduleConfig(ramp_until_epoch=3.0),
            epochs=3,
            seed=7,
        ),
        **changes,
    )


def run(
    given: Recipe, data: Path, out: Path, watch: Any = None, **job: Any
) -> list[dict[str, Any]]:
    watch = watch or Silent()
    return train(Job(recipe=given, data=data, out=out, device="cpu", **job), lambda first: watch)


def pairs(network: DualEncoder, count: int = 12) -> Batch:
    """Noise and sentences; every third pair shares its clip with the one before."""
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(8_000, 32_000, (count,), generator=generator)
    waveforms = torch.randn(count, int(lengths.max()), generator=generator) * 0.1
    waveforms *= torch.arange(waveforms.shape[1]) < lengths[:, None]
    return Batch(
        waveforms=waveforms,
        lengths=lengths,
        tokens=network.text.tokenize([SENTENCES[i % len(SENTENCES)] for i in range(count)]),
        clip_ids=torch.arange(count) * 2 // 3,
        caption_ids=torch.arange(count),
    )


def still(text_folder: Path) -> DualEncoder:
    """A network without dropout and patchout: what parts of a batch draw is not what it draws."""
    torch.manual_seed(1)
    return DualEncoder(model(text_folder), text_folder).eval()


def step(
    network: DualEncoder,
    batch: Batch,
    chunk: int | None,
    loss: LossConfig | None = None,
    judged: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Any]:
    """Loss and gradients of a batch; `judged` is what teachers say where the loss asks for them."""
    network.zero_grad()
    fabric = Fabric(accelerator="cpu", devices=1)
    config = loss or LossConfig()
    teachers = None
    if config.distillation_weight and judged is not None:
        teachers = judge_by(judged)
    objective = build_objective(config, network, torch.Generator().manual_seed(3), teachers)
    found = backward(network, batch, objective, fabric, chunk)
    return found, {n: w.grad.clone() for n, w in network.named_parameters() if w.grad is not None}


def judge_by(judged: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    return lambda clips, captions: judged[clips][:, captions]


def assert_same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    largest = max(float(gradient.abs().max()) for gradient in one.values())
    for name, gradient in one.items():
        assert (gradient - other[name]).abs().max() <= 1e-5 * largest, name


@pytest.mark.parametrize("chunk", [4, 5])
def test_chunks_have_the_gradients_of_the_whole_batch(text_folder: Path, chunk: int) -> None:
    network = still(text_folder)
    batch = pairs(network)
    loss, gradients = step(network, batch, None)
    chunked_loss, chunked = step(network, batch, chunk)
    assert float(chunked_loss) == pytest.approx(float(loss), rel=1e-5)
    assert "tau" in gradients
    assert_same(gradients, chunked)


def test_chunks_draw_their_dropout_once(text_folder: Path) -> None:
    """The second pass through a part must drop what the first dropped, or gradients are wrong."""
    network = still(text_folder).train()
    batch = pairs(network)
    torch.manual_seed(3)
    _, gradients = step(network, batch, 6)
    torch.manual_seed(3)
    vectors = [
        network(part.waveforms, part.lengths, part.tokens)
        for part in (batch.part(0, 6), batch.part(6, 12))
    ]
    network.zero_grad()
    objective = build_objective(LossConfig(), network, torch.Generator())
    objective(
        Vectors(
            audio=torch.cat([a for a, _ in vectors]),
            text=torch.cat([t for _, t in vectors]),
            clip_ids=batch.clip_ids,
            caption_ids=batch.caption_ids,
        )
    ).backward()
    assert_same(gradients, {n: w.grad for n, w in network.named_parameters() if w.grad is not None})


def test_a_run_goes_on_as_if_it_had_not_been_interrupted(
    text_folder: Path, data: Path, tmp_path: Path
) -> None:
    given = recipe(text_folder, ema=0.9)
    whole = run(given, data, tmp_path / "whole")
    steps = 40 // 8
    with pytest.raises(KeyboardInterrupt):
        run(given, data, tmp_path / "stopped", Silent(stop_after=steps + 2))
    drawn = {path.name for path in (tmp_path / "stopped" / "plots").iterdir()}
    assert drawn == {"loss.png", "metrics.png"}
    resumed = run(given, data, tmp_path / "stopped", resume=True)
    assert resumed == whole
    one, other = (RunFolder(path=tmp_path / n).load_state() for n in ("whole", "stopped"))
    for kind in ("network", "average"):
        assert one[kind].keys() == other[kind].keys()
        assert all(torch.equal(one[kind][name], other[kind][name]) for name in one[kind])


def test_a_state_that_is_not_whole_is_named(text_folder: Path, data: Path, tmp_path: Path) -> None:
    given = recipe(text_folder, epochs=1)
    run(given, data, tmp_path / "run")
    folder = RunFolder(path=tmp_path / "run")
    state = folder.load_state()
    folder.save_state({name: value for name, value in state.items() if name != "settled"})
    with pytest.raises(EarshotError, match=r"lacks settled; delete its state\.pt"):
        run(given, data, tmp_path / "run", resume=True)


def test_a_run_interrupted_while_it_writes_its_best_model_goes_on(
    text_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer of weights meets Ctrl-C: without what was being written there is no best epoch."""
    given = recipe(text_folder, epochs=1)
    whole = run(given, data, tmp_path / "whole")

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(given, data, tmp_path / "stopped")
    assert run(given, data, tmp_path / "stopped", resume=True) == whole
    assert RunFolder(path=tmp_path / "stopped").history() == whole
    weights = [
        (tmp_path / name / "best" / "model.safetensors").read_bytes()
        for name in ("whole", "stopped")
    ]
    assert weights[0] == weights[1]


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import matplotlib.figure, safetensors.torch, transformers
from earshot.train.recipe import recipe_from
from earshot.train.start import Job, train

class Silent:
    def step(self, *told): pass
    def epoch(self, row): pass

def child():
    resume = (out / "recipe.json").is_file()
    job = Job(recipe=given, data=data, out=out, device="cpu", resume=resume)
    train(job, lambda first: Silent())

def seen():
    return sorted(os.listdir(out)) if out.is_dir() else []

given = recipe_from(Path(sys.argv[1]).read_text())
data, out, rounds = Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
chance, kills, drafts = random.Random(4), 0, 0
while True:
    pid = os.fork()
    if pid == 0:
        try:
            child()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    # What comes and goes in the folder is what is being saved: killed right then, or a bit later.
    changes, wait_s = chance.randint(1, 16), chance.choice([0.0, 0.0, 0.002, 0.02])
    before, ended = seen(), 0
    while not ended and changes:
        ended, status = os.waitpid(pid, os.WNOHANG)
        now = seen()
        changes -= kills < rounds and now != before
        before = now
        time.sleep(0.001)
    if not ended:
        time.sleep(wait_s)
        os.kill(pid, signal.SIGKILL)
        ended, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status) or (0 if kills else 3))
    kills += 1
    drafts += any(name.startswith(".") for name in seen())
    print(kills, drafts, flush=True)
"""


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on(text_folder: Path, data: Path, tmp_path: Path) -> None:
    given = recipe(text_folder, ema=0.9)
    whole = run(given, data, tmp_path / "whole")
    (tmp_path / "recipe.json").write_text(resolved(given))
    arguments = (tmp_path / "recipe.json", data, tmp_path / "killed", "4")
    command = [sys.executable, "-c", KILLED, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 1, "killed in the middle of saving at least once"
    folders = [RunFolder(path=tmp_path / name) for name in ("whole", "killed")]
    assert folders[1].history() == whole
    one, other = (folder.load_state() for folder in folders)
    for kind in ("network", "average"):
        assert one[kind].keys() == other[kind].keys()
        assert all(torch.equal(one[kind][name], other[kind][name]) for name in one[kind])
    for name in ("best", "last"):
        weights = [folder.path / name / "model.safetensors" for folder in folders]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    assert {path.name for path in folders[1].path.iterdir()} == {
        path.name for path in folders[0].path.iterdir()
    }


def test_a_run_interrupted_before_it_began_begins_anew(
    text_folder: Path, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "data.json").write_text("{}")
    (folder / f".recipe.json.{'0' * 32}").write_text("{")
    given = recipe(text_folder, epochs=1)
    assert len(run(given, data, folder)) == 1
    assert json.loads((folder / "data.json").read_text())["train"]
    assert not list(folder.glob(".*"))


def test_a_run_folder_tells_all(text_folder: Path, data: Path, tmp_path: Path) -> None:
    given = recipe(text_folder, epochs=2)
    history = run(given, data, tmp_path / "run")
    folder = tmp_path / "run"
    assert recipe_from((folder / "recipe.json").read_text()) == given
    told = json.loads((folder / "data.json").read_text())
    assert told["train"][0]["clips"] == 8
    assert json.loads((folder / "environment.json").read_text())["packages"]["torch"]
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == history
    assert (folder / "metrics.csv").read_text().startswith("epoch,loss,validation_loss,rate,")
    assert {path.name for path in (folder / "plots").iterdir()} == {"loss.png", "metrics.png"}
    for name in ("best", "last"):
        assert (folder / name / "model.safetensors").is_file()
    assert "recipe: trial" in (folder / "last" / "README.md").read_text().lower()
    with pytest.raises(EarshotError, match="holds a run; go on with it by --resume"):
        run(given, data, folder)
    write_soundscapes(tmp_path / "other" / "train", split="train", scenes=5)
    write_soundscapes(tmp_path / "other" / "validation", split="validation", scenes=5)
    with pytest.raises(EarshotError, match=r"data\.json tells"):
        run(given, tmp_path / "other", folder, resume=True)
    with pytest.raises(EarshotError, match=r"with another optimizer\.rate; .* --resume"):
        run(replace(given, optimizer=OptimizerConfig(rate=1.0)), data, folder, resume=True)
    with pytest.raises(EarshotError, match="holds other files; name a new folder"):
        run(given, data, folder / "plots")


def test_devices_that_are_not_there(text_folder: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(EarshotError, match="no device 'gpu9' here; there is cpu"):
        train(
            Job(recipe=recipe(text_folder), data=data, out=tmp_path / "run", device="gpu9"),
            lambda first: Silent(),
        )
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_stops_the_run(
    text_folder: Path, data: Path, tmp_path: Path
) -> None:
    wild = recipe(text_folder, optimizer=OptimizerConfig(rate=1e30), epochs=3)
    with pytest.raises(EarshotError, match="loss is nan in epoch"):
        run(wild, data, tmp_path / "run")
    assert (tmp_path / "run" / "recipe.json").is_file()


def test_what_the_last_step_of_an_epoch_ruins_is_not_saved(
    text_folder: Path, data: Path, tmp_path: Path
) -> None:
    """Its loss was finite still: only validation shows it."""
    given = recipe(text_folder, optimizer=OptimizerConfig(rate=1e30), epochs=2)
    given = replace(given, batches=replace(given.batches, pairs=40))
    with pytest.raises(EarshotError, match=r"is nan in epoch 1, step 1; no epoch was saved"):
        run(given, data, tmp_path / "run")
    assert not [name for name in ("best", "last", "state.pt") if (tmp_path / "run" / name).exists()]


def test_gradients_may_overflow_where_they_are_clipped(
    text_folder: Path, data: Path, tmp_path: Path
) -> None:
    """As they do in half precision, whose scaler then leaves out the step."""
    steep = recipe(
        text_folder,
        loss=LossConfig(supervised_weight=1e25),
        optimizer=OptimizerConfig(clip_norm=1.0),
        epochs=1,
    )
    history = run(steep, data, tmp_path / "run")
    assert 1e25 < history[0]["loss"] < 1e27


def test_ctrl_c_within_a_step_waits_for_its_end(
    text_folder: Path, data: Path, tmp_path: Path
) -> None:
    """Weights that have learnt from a step that was not counted would learn from it twice."""
    given = recipe(text_folder, epochs=1)
    whole = run(given, data, tmp_path / "whole")

    def strike(*_: Any) -> None:
        hook.remove()
        signal.raise_signal(signal.SIGINT)

    hook = register_optimizer_step_post_hook(strike)
    with pytest.raises(KeyboardInterrupt):
        run(given, data, tmp_path / "stopped")
    assert RunFolder(path=tmp_path / "stopped").load_state()["step"] == 1
    assert run(given, data, tmp_path / "stopped", resume=True) == whole


def test_losses_are_read_every_few_steps(text_folder: Path, data: Path, tmp_path: Path) -> None:
    told: list[float | None] = []

    class Watching(Silent):
        def step(self, epoch: int, step: int, steps: int, loss: float | None) -> None:
            told.append(loss)

    given = recipe(text_folder, epochs=1, batches=BatchConfig(pairs=3, crop_s=1.0, workers=0))
    run(given, data, tmp_path / "run", Watching())
    assert len(told) == 40 // 3
    steps = [number for number, loss in enumerate(told, 1) if loss is not None]
    assert steps == [READ_STEPS, len(told)]


@pytest.mark.parametrize(("stop_after", "last"), [(None, 5), (3, 4)])
def test_what_was_learnt_since_a_loss_that_is_no_number_is_not_saved(
    text_folder: Path, data: Path, tmp_path: Path, stop_after: int | None, last: int
) -> None:
    """Found at the next look, or on Ctrl-C before that; the epoch before stays."""
    given = recipe(text_folder, epochs=2)
    with pytest.raises(KeyboardInterrupt):
        run(given, data, tmp_path / "run", Silent(stop_after=5 + 1))
    before = (tmp_path / "run" / "state.pt").read_bytes()
    real, calls = start.Training.one_step, []

    def ruined(self: start.Training, batch: Any) -> torch.Tensor:
        loss = real(self, batch)
        calls.append(self.step)
        if len(calls) == 2:
            self.unread[-1] = loss * float("nan")
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start.Training, "one_step", ruined)
        with pytest.raises(EarshotError, match="loss is nan in epoch 2, step 3; epoch 1 is in"):
            run(given, data, tmp_path / "run", Silent(stop_after), resume=True)
    assert calls[-1] == last
    assert (tmp_path / "run" / "state.pt").read_bytes() == before
    assert (tmp_path / "run" / "plots" / "loss.png").is_file()


def test_impostors_of_validation_stay(text_folder: Path, data: Path, tmp_path: Path) -> None:
    """A run that was interrupted while it was judged finds the same loss when it goes on."""
    given = recipe(text_folder, epochs=1, loss=LossConfig(kind="triplet"))
    whole = run(given, data, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(given, data, tmp_path / "stopped", Silent(stop_after=5))
    assert run(given, data, tmp_path / "stopped", resume=True) == whole


@pytest.mark.skipif(sys.platform != "linux", reason="files are limited in size as Linux does it")
def test_a_full_disk_is_said_plainly(text_folder: Path, tmp_path: Path) -> None:
    """Of each kind of file; torch and safetensors raise errors of their own for it."""
    import resource

    folder, network = RunFolder(path=tmp_path / "run"), still(text_folder)
    folder.save_state({"kept": torch.ones(3)})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        for save in (
            lambda: folder.save_state(network.state_dict()),
            lambda: folder.save_model("best", network, {}),
            lambda: folder.write_text("metrics.csv", "0" * 10_000),
        ):
            with pytest.raises(EarshotError, match="no room is left .* go on by --resume"):
                save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert torch.equal(folder.load_state()["kept"], torch.ones(3))
    with pytest.raises(PermissionError), disk_errors(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_frozen_towers_are_computed_once(text_folder: Path, data: Path, tmp_path: Path) -> None:
    config = model(text_folder, frozen=True)
    config = replace(config, text=replace(config.text, frozen=True))
    frozen = recipe(text_folder, model=config, epochs=2)
    history = run(frozen, data, tmp_path / "one")
    assert len(list((tmp_path / "home" / "cache" / "features").iterdir())) >= 3
    before = torch.load(tmp_path / "one" / "state.pt", weights_only=True)["network"]
    again = run(frozen, data, tmp_path / "two")
    assert again == history
    torch.manual_seed(7)
    fresh = DualEncoder(config, text_folder).state_dict()
    towers = [name for name in fresh if name.startswith(("audio.", "text."))]
    assert all(torch.equal(before[name], fresh[name]) for name in towers)
    assert not torch.equal(before["text_head.layers.0.weight"], fresh["text_head.layers.0.weight"])


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("workers", [0, 1])
def test_validation_hears_what_a_search_would(
    text_folder: Path, data: Path, tmp_path: Path, frozen: bool, workers: int
) -> None:
    torch.manual_seed(7)
    network = DualEncoder(model(text_folder, frozen=frozen), text_folder).eval()
    judged = load_one("soundscapes:validation", data, allow_missing=False)
    expected = embed_clips(judged.clips, DualModel(network=network, name="in training"))
    hear = validation_vectors(network, judged, tmp_path / "cache", workers)
    assert hear is not None
    heard = hear(network)
    assert heard.ids == expected.ids
    np.testing.assert_allclose(heard.vectors, expected.means(), atol=1e-5)


def test_validation_reads_the_pack(text_folder: Path, data: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    network = DualEncoder(model(text_folder), text_folder).eval()
    judged = load_one("soundscapes:validation", data, allow_missing=False)
    expected = embed_clips(judged.clips, DualModel(network=network, name="in training"))
    pack(judged.clips, tmp_path / "pack", Settings(sample_rate_hz=network.audio.sample_rate_hz))
    moved = [replace(clip, path=str(tmp_path / "gone" / clip.id)) for clip in judged.clips]
    packed = replace(judged, clips=moved, pack=str(tmp_path / "pack"))
    hear = validation_vectors(network, packed, tmp_path / "cache", 0)
    assert hear is not None
    np.testing.assert_allclose(hear(network).vectors, expected.means(), atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["optimizer.rat=1"], "did you mean optimizer.rate"),
        (["optimizer.rate=fast"], "optimizer.rate='fast'"),
        (["loss.kind=tripl"], "'triplet'"),
        (["epochs"], "no path=value"),
        (["epochs=0"], "epochs is 0"),
        (["select=mAP10"], "select='mAP10': .*'mAP@10'"),
        (["optimizer.rate=-1"], "optimizer.rate is -1.0; it must be above 0"),
        (["optimizer.text_head=-1"], "optimizer.text_head is -1.0"),
        (["optimizer.clip_norm=0"], "optimizer.clip_norm is 0.0; it must be above 0"),
        (["chunk=-4"], "chunk is -4"),
        (["ema=1.5"], "ema is 1.5"),
        (["seed=-1"], "seed is -1"),
        (["loss.supervised_weight=0"], "loss.distillation_weight are 0: nothing would be learnt"),
        (["loss.supervised_weight=-1"], "loss.supervised_weight is -1.0"),
        (["loss.margin=NaN"], "loss.margin is nan; a number is needed"),
        (["optimizer.rate=Infinity"], "optimizer.rate is inf; a number is needed"),
        (["schedule.stop_epochs=0"], "schedule.stop_epochs is 0; it must be 2 or more"),
        (["model.dimension=0"], "dimension is 0"),
        (["model.audio.hop_s=-1"], "audio.hop_s is -1.0; it must be above 0"),
        (["data.longest_s=-5"], "data.longest_s is -5.0; it must be above 0"),
        (["schedule.ramp_from_epoch=40"], "come in this order"),
        (["schedule.kind=plateau", "schedule.factor=2"], "the factor is between 0 and 1"),
    ],
)
def test_wrong_settings_are_named(text_folder: Path, settings: list[str], reason: str) -> None:
    with pytest.raises(EarshotError, match=reason):
        overridden(recipe(text_folder), settings)


def test_settings_keep_all_else(text_folder: Path) -> None:
    given = recipe(text_folder)
    changed = overridden(given, ["optimizer.rate=1e-4", "model.audio.frozen=true"])
    assert changed.optimizer.rate == 1e-4
    assert changed.model.audio.frozen
    assert recipe_from(resolved(changed)) == changed
    assert (
        replace(
            changed,
            optimizer=given.optimizer,
            model=replace(changed.model, audio=given.model.audio),
        )
        == given
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("not JSON", "no recipe: Expecting value"),
        ("[1]", "a recipe is a JSON object"),
        ('{"epoch": 1}', "did you mean epochs"),
        (b"\xff", "can't decode"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(tmp_path: Path, text: str | bytes, reason: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    told = refused(earshot("train", str(path), "--show"))
    assert reason in told
    assert str(path) in told


class Book:
    """A logger that keeps what it is given."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.lines += [(step, name) for name in metrics]


def test_loggers_get_every_figure_at_a_step_that_never_falls(
    text_folder: Path, data: Path, tmp_path: Path
) -> None:
    """Weights & Biases drops what comes for a step below the last one."""
    book = Book()
    watch = TrainingWatch(2, "mAP@10", [book], quiet=True)
    run(recipe(text_folder, epochs=2), data, tmp_path / "run", watch)
    steps = [step for step, _ in book.lines]
    assert steps == sorted(steps)
    ends = [step for step, name in book.lines if name == "mAP@10"]
    assert ends == [steps[-1] // 2, steps[-1]]


def test_tensorboard_is_written_whatever_is_printed(
    text_folder: Path, data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    file = tmp_path / "recipe.json"
    file.write_text(resolved(recipe(text_folder, epochs=1)))
    out = tmp_path / "run"
    done = earshot(
        *("train", str(file), "--data", str(data), "--out", str(out), "--device", "cpu"),
        *("--log", "tensorboard", "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["epochs"] == 1
    assert list((out / "tensorboard").rglob("events.*"))


def test_show_prints_the_recipe_and_nothing_is_loaded() -> None:
    done = earshot("train", "salsa-2024-stage1", "--show", "--set", "epochs=3")
    assert json.loads(done.stdout)["epochs"] == 3, done.stderr
    assert "did you mean salsa-2024-stage" in refused(
        earshot("train", "salsa-2024-stage", "--show")
    )
    assert "--data FOLDER" in refused(earshot("train", "salsa-2024-stage1"))
    search = ("--data", ".", "--out", "s", "--sweep", "seed=1,2")
    assert "goes on by itself" in refused(earshot("train", "irit-2022", *search, "--resume"))
    assert "in one process" in refused(earshot("train", "irit-2022", *search, "--processes", "2"))
    assert "there are tensorboard and wandb" in refused(
        earshot("train", "salsa-2024-stage1", "--log", "paper")
    )
