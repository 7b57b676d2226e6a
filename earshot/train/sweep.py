"""Many runs of a recipe over listed values or ranges, the next chosen from how the last ones did.

Optuna chooses and keeps the book (`sweep.db`), so a sweep that was interrupted goes on; each trial
is an ordinary run in a folder of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from earshot.train.loop import DivergedError, best_row
from earshot.train.recipe import overridden, plain, require_field, resolved
from earshot.train.start import Job, load, train
from earshot.types import EarshotError

FORM = "path=a,b,c or path=low..high, with :log for a logarithmic range"


@dataclass(frozen=True, kw_only=True)
class Range:
    """What a field may be: one of `values`, or between `low` and `high`."""

    path: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    logarithmic: bool = False

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)


def parse_range(text: str) -> Range:
    """Read `path=a,b,c` or `path=low..high[:log]`.

    Raises:
        EarshotError: it is neither, or the recipe has no such field.
    """
    path, equals, given = text.partition("=")
    if not equals or not given:
        raise EarshotError(f"--sweep {text!r}: expected {FORM}")
    require_field(path)
    low, dots, rest = given.partition("..")
    if not dots:
        return Range(path=path, values=tuple(plain(value) for value in given.split(",")))
    high, _, scale = rest.partition(":")
    ends = plain(low), plain(high)
    numbers = all(isinstance(end, int | float) for end in ends)
    if not numbers or scale not in ("", "log") or not ends[0] < ends[1]:
        raise EarshotError(f"--sweep {text!r}: expected {FORM}, low below high")
    if scale and ends[0] <= 0:
        raise EarshotError(f"--sweep {text!r}: a logarithmic range begins above 0")
    return Range(path=path, low=ends[0], high=ends[1], logarithmic=bool(scale))


def suggested(trial: Any, choice: Range) -> Any:
    """The value that a trial is given for a field."""
    if choice.values:
        # Optuna keeps plain values alone.
        return plain(trial.suggest_categorical(choice.path, [json.dumps(v) for v in choice.values]))
    if choice.whole:
        low, high = int(choice.low), int(choice.high)
        return trial.suggest_int(choice.path, low, high, log=choice.logarithmic)
    return trial.suggest_float(choice.path, choice.low, choice.high, log=choice.logarithmic)


def sweep(
    job: Job,
    ranges: Sequence[Range],
    trials: int,
    watch: Callable[[bool], Any],
    told: Callable[[dict[str, Any]], None] = lambda row: None,
) -> list[dict[str, Any]]:
    """Run trials until there are so many, those of earlier calls included; best first.

    A trial that diverges is told and counted, and the search goes on.

    Raises:
        EarshotError: no ranges, others than the search began with, none that did not diverge, or
            whatever else a run raises.
    """
    import optuna

    if not ranges:
        raise EarshotError(f"nothing to sweep: --sweep {FORM}")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    job.out.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{(job.out / 'sweep.db').resolve()}",
        study_name="sweep",
        direction="maximize",
        load_if_exists=True,
    )
    require_same_search(job, ranges, study)
    # A sampler begins anew with each call: the same seed would suggest the same values again.
    seed = job.recipe.seed + len(study.trials)
    study.sampler = optuna.samplers.TPESampler(seed=seed)

    def one(trial: Any) -> float:
        values = {choice.path: suggested(trial, choice) for choice in ranges}
        recipe = overridden(job.recipe, [f"{k}={json.dumps(v)}" for k, v in values.items()])
        folder = job.out / f"trial-{trial.number:03}"
        try:
            history = train(replace(job, recipe=recipe, out=folder), watch)
        except DivergedError as error:
            told({"trial": trial.number, "diverged": str(error), **values})
            raise optuna.TrialPruned from error
        best = best_row(history, recipe.select)
        told({"trial": trial.number, recipe.select: best[recipe.select], **values})
        return float(best[recipe.select])

    finished = optuna.trial.TrialState.COMPLETE
    over = (finished, optuna.trial.TrialState.PRUNED)
    left = trials - sum(trial.state in over for trial in study.trials)
    if left > 0:
        study.optimize(one, n_trials=left)
    found = listed(study, job.recipe.select, finished)
    if not found:
        raise EarshotError(f"all {trials} trials diverged; search lower optimizer.rate")
    return found


def require_same_search(job: Job, ranges: Sequence[Range], study: Any) -> None:
    """Check that a search goes on with the recipe, data and ranges that it began with.

    Raises:
        EarshotError: they are others, so that its trials could not be compared.
    """
    asked = {
        "settings": resolved(job.recipe),
        "data or teachers": load(job, job.recipe).fingerprint,
        "ranges": [repr(choice) for choice in ranges],
    }
    begun = study.user_attrs.get("search")
    if begun is None:
        study.set_user_attr("search", asked)
    elif begun != asked:
        what = next(name for name, value in asked.items() if value != begun[name])
        raise EarshotError(f"{job.out} is a search with other {what}; name a new folder")


def listed(study: Any, metric: str, finished: Any) -> list[dict[str, Any]]:
    """The finished trials, best first."""
    rows = []
    for trial in study.trials:
        if trial.state == finished:
            values = {k: plain(v) if isinstance(v, str) else v for k, v in trial.params.items()}
            rows.append({"trial": trial.number, metric: trial.value, **values})
    return sorted(rows, key=lambda row: (-row[metric], row["trial"]))
