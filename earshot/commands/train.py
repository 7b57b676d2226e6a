"""`earshot train`: a recipe, data, a run folder."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earshot.commands import Device, Json, print_json
from earshot.terminal import say
from earshot.types import EarshotError

if TYPE_CHECKING:
    from earshot.train.loop import Watch
    from earshot.train.recipe import Recipe
    from earshot.train.start import Job

RecipeName = Annotated[str, typer.Argument(help="A recipe's name, or the recipe.json of a run.")]
Data = Annotated[Path | None, typer.Option(help="The folder of the datasets.")]
Out = Annotated[Path | None, typer.Option(help="The run folder to write.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="path=value overrides a field; repeatable.")
]
Show = Annotated[bool, typer.Option("--show", help="Print the resolved recipe alone.")]
Tiny = Annotated[bool, typer.Option("--tiny", help="Tiny towers, two epochs: a trial.")]
Init = Annotated[Path | None, typer.Option(help="Begin with the weights of this model or run.")]
TeachersOf = Annotated[Path | None, typer.Option(help="What `earshot teach` wrote.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Train on the part whose audio is here.")
]
Processes = Annotated[int, typer.Option(min=1, help="Processes on each machine, one per GPU.")]
Machines = Annotated[
    int, typer.Option(min=1, help="Machines that torchrun, srun or Ray start this on.")
]
RayAddress = Annotated[
    str | None,
    typer.Option("--ray", help="Train on a Ray cluster: HOST:PORT of its head, auto, or local."),
]
Log = Annotated[str | None, typer.Option(help="Also log to tensorboard or wandb.")]
Sweep = Annotated[
    list[str] | None, typer.Option(help="Search: path=a,b,c or path=low..high[:log]; repeatable.")
]
Trials = Annotated[int, typer.Option(min=1, help="How many runs a search makes.")]

EXTRAS = {"lightning_fabric": "train", "optuna": "train"}


def register(app: typer.Typer) -> None:
    """Put the commands into the application."""
    app.command()(train)


def train(
    recipe: RecipeName,
    data: Data = None,
    out: Out = None,
    settings: Settings = None,
    show: Show = False,
    tiny: Tiny = False,
    init: Init = None,
    teachers: TeachersOf = None,
    resume: Resume = False,
    allow_missing: AllowMissing = False,
    processes: Processes = 1,
    machines: Machines = 1,
    ray: RayAddress = None,
    log: Log = None,
    sweep: Sweep = None,
    trials: Trials = 20,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train a recipe; interrupted runs go on with --resume."""
    from earshot.train.recipe import resolved
    from earshot.train.start import Job, with_init
    from earshot.train.start import train as run

    require_logger(log)
    chosen = with_init(chosen_recipe(recipe, settings or [], data, tiny=tiny), init)
    if show:
        say(resolved(chosen))
        return
    if data is None or out is None:
        raise EarshotError("give --data FOLDER and --out RUN, or --show")
    job = Job(
        recipe=chosen,
        data=data,
        out=out,
        resume=resume,
        allow_missing=allow_missing,
        teachers=teachers,
        device=device,
        processes=processes,
        machines=machines,
    )
    if sweep:
        if ray is not None:
            raise EarshotError("--sweep trains in one process: leave --ray out")
        search(job, sweep, trials, log, as_json=as_json)
        return
    watch = partial(watcher, chosen, out, log, quiet=as_json)
    history = run(job, watch) if ray is None else on_ray(job, ray, watch)
    if history:  # In the first process.
        report(history, chosen, out, as_json=as_json)


def on_ray(job: Job, address: str, watch: Callable[[bool], Watch]) -> list[dict[str, Any]]:
    """Train on a cluster; Ray's own messages are kept away."""
    from earshot.console import print_note
    from earshot.train.by_ray import train_by_ray

    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    return train_by_ray(job, address, watch, print_note)


def search(job: Job, ranges: list[str], trials: int, log: str | None, *, as_json: bool) -> None:
    """Run a sweep and tell its trials, the best first."""
    from earshot.train.sweep import parse_range
    from earshot.train.sweep import sweep as run

    if job.resume or log:
        raise EarshotError("--sweep goes on by itself and logs to files alone: no --resume, --log")
    if job.processes * job.machines > 1:
        raise EarshotError("--sweep trains in one process: leave --processes and --machines out")

    def tell(row: Mapping[str, Any]) -> None:
        if not as_json:
            say("  ".join(f"{name} {shown(value)}" for name, value in row.items()))

    choices = [parse_range(text) for text in ranges]
    silent = watcher(job.recipe, job.out, None, quiet=True)
    found = run(job, choices, trials, lambda first: silent, tell)
    if as_json:
        print_json({"out": str(job.out), "trials": found})
        return
    say(f"best of {len(found)}:")
    tell(found[0])
    best = job.out / f"trial-{found[0]['trial']:03}"
    say(f"model: {best}")


def shown(value: Any) -> str:
    """A figure in few digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def chosen_recipe(name: str, settings: list[str], data: Path | None, *, tiny: bool) -> Recipe:
    """The recipe of a name or a file, made tiny if asked for, with its settings overridden."""
    from earshot.recipes import on_what_is_there
    from earshot.recipes import recipe as by_name
    from earshot.recipes import tiny as made_tiny
    from earshot.train.recipe import overridden

    found = recipe_of(Path(name)) if Path(name).is_file() else by_name(name)
    if tiny:
        found = made_tiny(found, tiny_text())
        found = on_what_is_there(found, data) if data is not None else found
    return overridden(found, settings)


def recipe_of(path: Path) -> Recipe:
    """The recipe in a file.

    Raises:
        EarshotError: the file holds none.
    """
    from earshot.train.recipe import recipe_from

    try:
        return recipe_from(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EarshotError(f"{path}: {error}") from error


def tiny_text() -> Path:
    """A tiny text encoder that knows the words of soundscapes, made once and kept."""
    from earshot.datasets.soundscape import captions, describe_scenes
    from earshot.encoders.tiny_text import tiny_text_folder
    from earshot.files import clear_drafts, home, locked
    from earshot.model.folder import write_whole

    folder = home() / "cache" / "tiny-text-1"

    def fill(draft: Path) -> None:
        scenes = describe_scenes("train", 200)
        tiny_text_folder(draft, [told.text for scene in scenes for told in captions(scene)])

    with locked(folder.with_suffix(".lock")):
        if not folder.is_dir():
            clear_drafts(folder.parent, folder.name)
            write_whole(folder, fill, ours=True)
    return folder


def watcher(
    recipe: Recipe, out: Path, log: str | None, first: bool = True, *, quiet: bool
) -> Watch:
    """Who is told how training goes, in the first process and in the others."""
    from earshot.console import TrainingWatch

    loggers = [logger(log, recipe, out)] if log and first else []
    return TrainingWatch(recipe.epochs, recipe.select, loggers, quiet=quiet or not first)


def require_logger(kind: str | None) -> None:
    """Check that a logger is known and installed, before any work.

    Raises:
        EarshotError: it is not.
    """
    packages = {"tensorboard": "'earshot[tensorboard]'", "wandb": "wandb"}
    if kind is None:
        return
    if kind not in packages:
        raise EarshotError(f"--log {kind}: there are tensorboard and wandb; CSV is always written")
    found = importlib.util.find_spec(kind)
    if found is None or found.origin is None:  # A mere folder of that name has no origin.
        raise EarshotError(f"{kind} is not installed; run: pip install {packages[kind]}")


def logger(kind: str, recipe: Recipe, out: Path) -> Any:
    """A logger of TensorBoard or Weights & Biases."""
    from dataclasses import asdict

    if kind == "tensorboard":
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

        return TensorBoardLogger(root_dir=out / "tensorboard", name="", version="")
    import wandb

    return WandbLogger(wandb.init(project="earshot", name=out.name, config=asdict(recipe)))


class WandbLogger:
    """Weights & Biases behind the one method that is used of a logger."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log figures."""
        self.run.log(dict(metrics), step=step)


def report(history: list[dict[str, Any]], recipe: Recipe, out: Path, *, as_json: bool) -> None:
    """Tell what came out."""
    from earshot.train.loop import best_row

    best = best_row(history, recipe.select)
    if as_json:
        print_json({"out": str(out), "epochs": len(history), "best": best, "last": history[-1]})
        return
    say(f"best: epoch {best['epoch']}, {recipe.select} {best[recipe.select]:.4f}; model in {out}")
    say(f"next: earshot evaluate {out} --data …, or earshot index PATH --to INDEX --model {out}")
