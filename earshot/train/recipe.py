"""A recipe: every number of a training run, frozen, typed, saved beside the weights.

A published row is a function that returns one (`earshot.recipes`), a variant a `replace` of
another. Any field can be set from outside by its dotted path, checked by its type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from math import inf, isfinite
from typing import Any, Literal, get_type_hints

from pydantic import TypeAdapter, ValidationError

from earshot.batches import BatchConfig
from earshot.datasets import KINDS
from earshot.model.dual import DualEncoderConfig
from earshot.schedules import PlateauConfig, Ramp
from earshot.types import EarshotError, require_above, require_least

Metric = Literal["mAP@10", "mAP@16", "R@1", "R@5", "R@10"]
"""What validation measures, and the best epoch may be chosen by."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is trained on and what chooses the best epoch: kinds of datasets and their splits.

    `train` and `validate` are `KIND:SPLIT`; a folder given to the command stands for its own kind.
    `excluded` are lists of Freesound ids, by file name in the data's folder, that training leaves
    out; `longest_s` leaves out longer clips.
    """

    train: tuple[str, ...] = ("clotho:development",)
    validate: str = "clotho:validation"
    test: str = "clotho:evaluation"
    excluded: tuple[str, ...] = ()
    wavcaps_audioset: Literal["all", "no_audiocaps"] = "all"
    longest_s: float | None = None

    def __post_init__(self) -> None:
        if not self.train:
            raise EarshotError("data.train is empty; name a dataset, such as clotho:development")
        for entry in (*self.train, self.validate, self.test):
            require_split(entry)
        require_above(0, {"data.longest_s": self.longest_s})


def require_split(entry: str) -> None:
    """Check that data are named by kind and split; behind the colon may be nothing (the usual one).

    Raises:
        EarshotError: they are not.
    """
    kind, colon, _ = entry.partition(":")
    if kind not in KINDS or not colon:
        raise EarshotError(
            f"data {entry!r}; they are named KIND:SPLIT, such as clotho:development, where KIND is "
            f"{', '.join(KINDS)}"
        )


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimised: a loss of pairs and the teachers' soft targets, each with its weight."""

    kind: Literal["triplet", "other-clips", "multiple-positives", "sigmoid"] = "multiple-positives"
    margin: float = 0.4
    impostors: Literal["random", "semi-hard"] = "random"
    weighting: Literal["pairs", "cells"] = "pairs"
    """How many positives weigh: each pair alike, or each cell of the batch's matrix, as published,
    so that a clip with k captions in a batch weighs k²."""
    supervised_weight: float = 1.0
    distillation_weight: float = 0.0

    def __post_init__(self) -> None:
        weights = {
            "loss.supervised_weight": self.supervised_weight,
            "loss.distillation_weight": self.distillation_weight,
        }
        require_least(0, {**weights, "loss.margin": self.margin})
        if not any(weights.values()):
            raise EarshotError(f"{' and '.join(weights)} are 0: nothing would be learnt")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimiser; the four parts of a model may learn at rates of their own, as factors."""

    kind: Literal["adam", "adamw"] = "adamw"
    rate: float = 2e-5
    weight_decay: float = 0.0
    audio_encoder: float = 1.0
    audio_head: float = 1.0
    text_encoder: float = 1.0
    text_head: float = 1.0
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        require_above(0, {"optimizer.rate": self.rate, "optimizer.clip_norm": self.clip_norm})
        factors = ("weight_decay", "audio_encoder", "audio_head", "text_encoder", "text_head")
        require_least(0, {f"optimizer.{name}": getattr(self, name) for name in factors})


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the rate goes: warm-up then cosine then constant, per step; or by a plateau, per epoch.

    `first_rate` is what warm-up starts from; the ramp falls from epoch `ramp_from_epoch`, counted
    from 0, to `last_rate` at `ramp_until_epoch`. With `whole_epochs` an epoch has one rate.

    A plateau is one of the validation loss: when more than `patience` epochs in a row are not lower
    by `threshold` than the best, the rate is multiplied by `factor`, never to below `last_rate`.
    `stop_std` ends training when the last `stop_epochs` losses vary by less, after `stop_after`.
    """

    kind: Literal["cosine", "linear", "plateau", "constant"] = "cosine"
    warm_up_epochs: float = 1.0
    first_rate: float = 0.0
    ramp_from_epoch: float = 1.0
    ramp_until_epoch: float = 15.0
    last_rate: float = 1e-7
    whole_epochs: bool = False
    factor: float = 0.1
    patience: int = 5
    threshold: float = 0.01
    stop_std: float | None = None
    stop_epochs: int = 10
    stop_after: int = 60

    def __post_init__(self) -> None:
        if self.kind in ("cosine", "linear"):
            self.ramp(inf)
        if self.kind == "plateau":
            self.plateau()
        require_above(0, {"schedule.stop_std": self.stop_std})
        require_least(2, {"schedule.stop_epochs": self.stop_epochs})  # One has no deviation.
        require_least(0, {"schedule.stop_after": self.stop_after})

    def ramp(self, peak: float) -> Ramp:
        """The rate's way, of weights whose highest rate is `peak`.

        Raises:
            EarshotError: epochs out of order, or a rate below 0.
        """
        return Ramp(
            warmup_epochs=self.warm_up_epochs,
            warmup_from=self.first_rate,
            down_from=self.ramp_from_epoch,
            down_to=self.ramp_until_epoch,
            lowest=min(self.last_rate, peak),
            shape="linear" if self.kind == "linear" else "cosine",
            whole_epochs=self.whole_epochs,
        )

    def plateau(self) -> PlateauConfig:
        """When the rate is lowered.

        Raises:
            EarshotError: numbers that no plateau has.
        """
        return PlateauConfig(
            factor=self.factor,
            patience=self.patience,
            threshold=self.threshold,
            lowest=self.last_rate,
        )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run.

    `chunk` pairs go through the towers at a time, with the gradients of the whole batch; `ema` is
    the decay of an averaged copy of the weights, which is then the result.
    """

    name: str
    about: str = ""
    model: DualEncoderConfig = field(default_factory=DualEncoderConfig)
    data: DataConfig = field(default_factory=DataConfig)
    batches: BatchConfig = field(default_factory=BatchConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    epochs: int = 20
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    chunk: int | None = None
    compile: bool = False
    ema: float | None = None
    select: Metric = "mAP@10"
    initialise: tuple[str, ...] = ()
    """Weights to begin with. `audio=ASSET`: those of `earshot.checkpoints`' TAGGERS and
    ENCODER_WEIGHTS, by name; `model=RUN`: a trained model's folder, in recipes the name of the
    recipe that it must have been trained by."""

    def __post_init__(self) -> None:
        require_least(1, {"epochs": self.epochs, "chunk": self.chunk})
        require_least(0, {"seed": self.seed})
        if self.ema is not None and not 0 < self.ema < 1:
            raise EarshotError(f"ema is {self.ema}; it must be between 0 and 1, or none")


def resolved(recipe: Recipe) -> str:
    """The recipe as JSON, every field; `recipe_from` reads it."""
    return json.dumps(asdict(recipe), indent=1)


def first_difference(one: Recipe, other: Recipe) -> str:
    """The dotted path of the first field in which two recipes differ; empty where they are one."""

    def differing(ours: Any, theirs: Any, above: tuple[str, ...]) -> str:
        if not (isinstance(ours, Mapping) and isinstance(theirs, Mapping)):
            return "" if ours == theirs else ".".join(above)
        keys = [*ours, *(key for key in theirs if key not in ours)]
        parts = (differing(ours.get(key), theirs.get(key), (*above, key)) for key in keys)
        return next(filter(None, parts), "")

    return differing(asdict(one), asdict(other), ())


def recipe_from(text: str) -> Recipe:
    """Read a recipe that `resolved` wrote.

    Raises:
        EarshotError: it is none, or has a field that is unknown or of another type.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise EarshotError(f"no recipe: {error}") from error
    if not isinstance(values, dict):
        raise EarshotError("no recipe: a recipe is a JSON object, as recipe.json of a run")
    return checked(values)


def checked(values: Mapping[str, Any]) -> Recipe:
    """A recipe of plain values.

    Raises:
        EarshotError: a field that is unknown or of another type, named by its path.
    """
    for path, value in paths(values):
        require_field(path)
        if isinstance(value, float) and not isfinite(value):
            raise EarshotError(f"{path} is {value}; a number is needed")
    try:
        return TypeAdapter(Recipe).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":  # Our own check of a part: it says all.
            raise EarshotError(str(first["ctx"]["error"])) from error
        place = ".".join(str(part) for part in first["loc"])
        raise EarshotError(f"{place}={first.get('input')!r}: {first['msg']}") from error


def paths(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values with their dotted paths."""
    for key, value in values.items():
        path = f"{above}{key}"
        yield path, value
        if isinstance(value, Mapping) and not path.endswith(".settings"):
            yield from paths(value, f"{path}.")


def require_field(path: str) -> None:
    """Check that a recipe has a field.

    Raises:
        EarshotError: it has not; the nearest one is named.
    """
    kind: Any = Recipe
    done: list[str] = []
    for name in path.split("."):
        if not is_dataclass(kind):
            if done[-1] == "settings":
                return  # An encoder's own settings: checked when it is built.
            raise EarshotError(f"{path}: {'.'.join(done)} has no fields of its own")
        hints = get_type_hints(kind)
        known = [item.name for item in fields(kind)]
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {'.'.join([*done, close[0]])}? " if close else ""
            raise EarshotError(f"no field {path}; {hint}there are {', '.join(known)}")
        done.append(name)
        kind = hints[name]


def overridden(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """The recipe with `path=value` settings; values are JSON, or text where that is no JSON.

    Raises:
        EarshotError: no such field, or a value of another type.
    """
    values = asdict(recipe)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise EarshotError(f"--set {setting!r} is no path=value, such as optimizer.rate=1e-4")
        require_field(path)
        *above, last = path.split(".")
        place = values
        for name in above:
            place = place[name]
        place[last] = plain(text)
    return checked(values)


def plain(text: str) -> Any:
    """The value that a person typed."""
    try:
        return json.loads(text)
    except ValueError:
        return {"none": None, "true": True, "false": False}.get(text.lower(), text)
