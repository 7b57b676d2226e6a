"""From a recipe and a folder of data to a trained model: everything around the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from earshot.batches import Pairs
from earshot.batches.loader import start_method
from earshot.checkpoints import ENCODER_WEIGHTS, TAGGERS, sentence_folder
from earshot.files import fetch, home, record
from earshot.model.dual import DualEncoder
from earshot.model.folder import folder_kind, load_dual
from earshot.model.networks import fill_public
from earshot.model.tensors import torch_device
from earshot.teach import Teachers, load_teachers
from earshot.train.data import load_one, load_training
from earshot.train.frozen import with_frozen_features
from earshot.train.hearing import validation_vectors
from earshot.train.loop import DivergedError, Material, Training, Watch
from earshot.train.plots import draw
from earshot.train.recipe import Recipe, first_difference
from earshot.train.run import RunFolder, fingerprint
from earshot.types import Dataset, EarshotError
from earshot.weights import read_weights


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run that was asked for: what, on which data, to where, on which devices."""

    recipe: Recipe
    data: Path
    out: Path
    resume: bool = False
    allow_missing: bool = False
    teachers: Path | None = None
    device: str = "auto"
    processes: int = 1
    """On each machine."""
    machines: int = 1


def train(job: Job, watch: Callable[[bool], Watch]) -> list[dict[str, Any]]:
    """Run a job to its end; `watch` makes who is told, in the first process and in the others.

    Returns the figures of every epoch; in other processes than the first nothing.

    Raises:
        EarshotError: data, weights or teachers are not to be had, or do not fit.
    """
    # Before there are other processes, which would see what the first writes, and say the same.
    run = RunFolder(path=job.out)
    if not job.resume:
        run.require_new()
    fabric = fabric_of(job)
    recipe = resumed_recipe(run, job.recipe) if job.resume else job.recipe
    given = load(job, recipe)
    if job.resume:
        require_same_data(run, given, job)
    return list(fabric.launch(one_process, job, recipe, given, watch))


def fabric_of(job: Job) -> Any:
    """Devices, precision and processes as asked for.

    Raises:
        EarshotError: they are not there.
    """
    device = torch_device(job.device)
    if device == "cuda" and job.processes > torch.cuda.device_count():
        raise EarshotError(
            f"{job.processes} processes for {torch.cuda.device_count()} GPUs; each needs its own"
        )
    return Fabric(
        accelerator=device,
        devices=job.processes,
        num_nodes=job.machines,
        strategy="ddp" if job.processes * job.machines > 1 else "auto",
        precision=job.recipe.precision,
    )


def require_same_data(run: RunFolder, given: Given, job: Job) -> None:
    """Check that a run goes on with what it was begun on.

    Raises:
        EarshotError: the data, or the teachers, are others.
    """
    if run.data() != given.fingerprint:
        raise EarshotError(
            f"{job.data} does not hold the data that {job.out} was begun on, or the teachers "
            f"are others (data.json tells); resume with those, or begin a new run"
        )


def one_process(
    fabric: Any, job: Job, recipe: Recipe, given: Given, watch: Callable[[bool], Watch]
) -> list[dict[str, Any]]:
    """The run of one process."""
    run = RunFolder(path=job.out, writes=fabric.is_global_zero)
    with run.held(new=not job.resume):
        if not job.resume:
            run.begin(recipe, given.fingerprint)
        if recipe.batches.workers:
            start_method()  # What forks the workers imports torch while the towers are made ready.
        network = initial_network(recipe).to(fabric.device)
        material = prepare(network, recipe, given)
        # What is drawn here is nobody else's business.
        with torch.random.fork_rng():
            training = Training(network, recipe, material, run, fabric)
            if job.resume and (state := run.load_state()):
                training.restore(state)
            if recipe.compile:
                network.audio.encoder.compile()
                network.text.network.compile()
            try:
                training.fit(watch(fabric.is_global_zero))
            except (KeyboardInterrupt, DivergedError):
                if not fabric.is_global_zero:
                    return []  # All end alike: the first one says so, and has time to.
                draw_if_first(training, job)
                raise
        draw_if_first(training, job)
    return training.history if fabric.is_global_zero else []


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a run is trained and judged on."""

    train: Sequence[Dataset]
    validation: Dataset
    teachers: Teachers | None

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What tells these data and teachers from others."""
        data: dict[str, Any] = {
            "train": [fingerprint(dataset) for dataset in self.train],
            "validate": fingerprint(self.validation),
        }
        if self.teachers is not None:
            data["teachers"] = [teacher.fingerprint for teacher in self.teachers.teachers]
        return data


def load(job: Job, recipe: Recipe) -> Given:
    """The data and teachers of a run.

    Raises:
        EarshotError: they are not there, or audio is missing.
    """
    return Given(
        train=load_training(recipe.data, job.data, allow_missing=job.allow_missing),
        validation=load_one(recipe.data.validate, job.data, allow_missing=job.allow_missing),
        teachers=load_teachers(job.teachers) if job.teachers else None,
    )


def draw_if_first(training: Training, job: Job) -> None:
    """Draw how it went so far, in the first process."""
    if training.fabric.is_global_zero and training.history:
        draw(training.history, job.out / "plots")


def resumed_recipe(run: RunFolder, asked: Recipe) -> Recipe:
    """The recipe of a run that goes on, which is what it was begun with.

    Raises:
        EarshotError: there is no run, or another recipe was asked for.
    """
    recipe = run.recipe()
    if path := first_difference(recipe, asked):
        raise EarshotError(
            f"{run.path} was begun with another {path}; a run goes on as it was begun: "
            f"earshot train {run.path / 'recipe.json'} --data … --out {run.path} --resume"
        )
    return recipe


def initial_network(recipe: Recipe) -> DualEncoder:
    """The network that training starts from: public or earlier weights, the rest from the seed.

    Raises:
        EarshotError: weights are not to be had, or do not fit.
    """
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        network = DualEncoder(recipe.model, sentence_folder(recipe.model.text.tower.name))
    for entry in recipe.initialise:
        part, _, source = entry.partition("=")
        if part == "audio":
            fill_audio(network, source)
        elif part == "model":
            fill_model(network, Path(source))
        else:
            raise EarshotError(f"initialise: {entry!r} is neither audio=TAGGER nor model=FOLDER")
    return network


def fill_audio(network: DualEncoder, source: str) -> None:
    """Public weights for the audio tower, by their name or from a file.

    Raises:
        EarshotError: neither, or they do not fit.
    """
    assets = {name: tagger.asset for name, tagger in TAGGERS.items()} | ENCODER_WEIGHTS
    if source in assets:
        path = fetch(assets[source])
        fill_public(network.audio.encoder, read_weights(path))
        record(assets[source], path)
    elif Path(source).is_file():
        fill_public(network.audio.encoder, read_weights(Path(source)))
    else:
        raise EarshotError(
            f"initialise: audio={source} is neither a file nor one of {', '.join(assets)}"
        )


def fill_model(network: DualEncoder, folder: Path) -> None:
    """All weights of an earlier model of the same shape.

    Raises:
        EarshotError: there is none, or it has another shape.
    """
    best = folder / "best" if (folder / "best").is_dir() else folder
    if folder_kind(best) != "earshot":
        raise EarshotError(
            f"the recipe begins with the weights of {folder}, which is neither a model nor a run "
            f"here; train that first, then name its run by --init RUN"
        )
    try:
        network.load_state_dict(load_dual(best).state_dict())
    except RuntimeError as error:
        first = (str(error).splitlines()[1:2] or [str(error)])[0].strip()
        raise EarshotError(f"initialise: {best} is another network: {first}") from error


def prepare(network: DualEncoder, recipe: Recipe, given: Given) -> Material:
    """The pairs, what frozen towers make of them, and what the teachers do."""
    pairs = Pairs(given.train, sample_rate_hz=network.audio.sample_rate_hz)
    cache, workers = home() / "cache" / "features", recipe.batches.workers
    return Material(
        pairs=with_frozen_features(network, pairs, cache, workers),
        validation=given.validation,
        teachers=given.teachers.for_pairs(pairs) if given.teachers is not None else None,
        hear=validation_vectors(network, given.validation, cache, workers),
    )


def with_init(recipe: Recipe, folder: Path | None) -> Recipe:
    """The recipe, begun from an earlier model's weights."""
    if folder is None:
        return recipe
    return replace(recipe, initialise=(f"model={folder.resolve()}",))
