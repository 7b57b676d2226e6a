"""`earshot evaluate`, `earshot predict`, `earshot score`: how good is it?"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earshot.commands import Device, Json, Workers, counting, print_json
from earshot.terminal import say
from earshot.types import EarshotError

if TYPE_CHECKING:
    from earshot.evaluate.report import By
    from earshot.evaluate.systems import Verdict
    from earshot.metrics import Interval

Pool = Annotated[str, typer.Option(help="A clip is its `mean` segment, or its best one: `max`.")]
Relevance = Annotated[
    Path | None,
    typer.Option(help="Queries and all their relevant clips: a CSV file or TREC qrels."),
]
PerQuery = Annotated[Path | None, typer.Option("--csv", help="Write the figures of each query.")]
Bounds = Annotated[
    bool, typer.Option(help="Also the worst and best that an order of equal scores can do.")
]
By_ = Annotated[str, typer.Option("--interval", help="bootstrap (over clips) or jackknife.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (evaluate, predict, score, calibrate):
        app.command()(command)


def evaluate(
    model: Annotated[list[str], typer.Argument(help="Models, or prediction files, to compare.")],
    data: Annotated[Path, typer.Option(help="The folder of the dataset.")],
    split: Annotated[str, typer.Option(help="Which part; by default the usual one.")] = "",
    text_column: Annotated[str, typer.Option(help="The column that holds the queries.")] = "",
    relevant_by: Annotated[
        str, typer.Option(help="A column: clips with an equal value are relevant.")
    ] = "",
    relevance: Relevance = None,
    pool: Pool = "mean",
    interval: By_ = "bootstrap",
    bounds: Bounds = False,
    allow_missing: Annotated[bool, typer.Option(help="Leave out clips without audio.")] = False,
    per_query: PerQuery = None,
    html: Annotated[Path | None, typer.Option(help="Write a report for the browser.")] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Also the mean of all their similarities.")
    ] = False,
    workers: Workers = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Judge models, or prediction files, on a dataset: both directions, with intervals."""
    from earshot.datasets import load
    from earshot.evaluate.page import write_page
    from earshot.evaluate.systems import Judging, is_file, questions, verdicts_json
    from earshot.evaluate.systems import evaluate as judge
    from earshot.files import require_writable

    dataset = load("", data, split, text_column=text_column, relevant_by=relevant_by)
    require_writable(per_query, html)
    about = questions(dataset, relevance)
    if not all(map(is_file, model)):
        about = about.with_audio(allow_missing=allow_missing)
    with counting("listening", len(about.asked.clips)) as done:
        judging = Judging(
            pool=checked_pool(pool), by=checked_by(interval), workers=workers, device=device,
            done=done,
        )  # fmt: skip
        verdicts = judge(model, about, judging, ensemble=ensemble)
    if per_query:
        write_per_query(per_query, verdicts)
    if html:
        write_page(html, [verdict.report for verdict in verdicts])
    show(verdicts, verdicts_json(verdicts, bounds=bounds), as_json=as_json)


def predict(
    model: Annotated[
        list[str], typer.Argument(help="Models; of several the similarities are averaged.")
    ],
    audio: Annotated[Path, typer.Option(help="The folder of the recordings.")],
    queries: Annotated[Path, typer.Option(help="A CSV file with a column `caption` or `query`.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    form: Annotated[str, typer.Option("--format", help="matrix, top10 or trec.")] = "matrix",
    pool: Pool = "mean",
    workers: Workers = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Answer queries about a folder in a challenge's file format, with its `.meta.yaml`."""
    from earshot import model as models
    from earshot.evaluate import predict as room
    from earshot.files import require_writable

    chosen = one_of("--format", form, room.FORMATS)
    meta = room.meta_path(out)
    require_writable(out, meta)
    loaded = [models.load(name, device) for name in model]
    with counting("listening") as done:
        found = room.predict(
            loaded, audio, queries, pool=checked_pool(pool), workers=workers, done=done
        )
    room.write_prediction(out, found, chosen, tag="+".join(Path(one.name).name for one in loaded))
    label = meta.name.removesuffix(".meta.yaml")
    room.write_meta(meta, room.describe(loaded, found, label=label, pool=checked_pool(pool)))
    written = {"out": str(out), "meta": str(meta), "format": chosen}
    written |= {"queries": len(found.captions), "clips": len(found.scores.items)}
    if as_json:
        print_json(written)
    else:
        say(f"{written['queries']} queries, {written['clips']} clips in {out} and {meta}")


def score(
    file: Annotated[Path, typer.Argument(help="A challenge's prediction file, or a TREC run.")],
    truth: Annotated[Path, typer.Option(help="Captions and clips (CSV), or TREC qrels.")],
    relevance: Relevance = None,
    interval: By_ = "jackknife",
    bounds: Bounds = False,
    per_query: PerQuery = None,
    as_json: Json = False,
) -> None:
    """Judge a prediction file, ours or not, as the challenges do."""
    from earshot.evaluate.systems import score as judge
    from earshot.evaluate.systems import verdicts_json
    from earshot.files import require_writable

    require_writable(per_query)
    verdicts = [judge(file, truth, relevance, checked_by(interval))]
    if per_query:
        write_per_query(per_query, verdicts)
    show(verdicts, verdicts_json(verdicts, bounds=bounds), as_json=as_json)


def calibrate(
    model: Annotated[str, typer.Argument(help="The folder of a model.")],
    data: Annotated[Path, typer.Option(help="The folder of a dataset with captions.")],
    split: Annotated[str, typer.Option(help="Which part; by default the usual one.")] = "",
    text_column: Annotated[str, typer.Option(help="The column that holds the queries.")] = "",
    relevant_by: Annotated[
        str, typer.Option(help="A column: clips with an equal value are relevant.")
    ] = "",
    false_alarms: Annotated[
        float, typer.Option(help="Share of unanswerable queries that are answered all the same.")
    ] = 0.2,
    allow_missing: Annotated[bool, typer.Option(help="Leave out clips without audio.")] = False,
    workers: Workers = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure what a model's scores mean, keep it in its folder: searches tell probabilities."""
    from earshot.datasets import load, with_audio
    from earshot.evaluate.calibration import calibrate_model
    from earshot.model import load as load_model

    dataset = load("", data, split, text_column=text_column, relevant_by=relevant_by)
    heard = with_audio(dataset, allow_missing=allow_missing)
    found = calibrate_model(load_model(model, device), heard, rate=false_alarms, workers=workers)
    if as_json:
        print_json(found)
    else:
        print_calibration(found)


def print_calibration(found: Mapping[str, Any]) -> None:
    """How good a calibration is on data that it was not fitted on."""
    say(f"{found['calibration']}: judged on {found['queries']} queries, {found['clips']} clips")
    say(f"{'hits shown':>15} {found['mean_probability_shown']:.3f} likely on average, ", end="")
    say(f"{found['relevant_shown']:.3f} true; calibration error {found['ece_shown']:.3f}")
    for size in found["libraries"]:
        say(f"{size['clips']:>9} clips {size['false_alarms']:.3f} of queries ", end="")
        say(f"without an answer get one, {size['misses']:.3f} with one get none")


def show(verdicts: Sequence[Verdict], found: Mapping[str, Any], *, as_json: bool) -> None:
    """Print verdicts for a program or a person."""
    if as_json:
        print_json(found)
        return
    every = found.get("systems", [found])
    for verdict, values in zip(verdicts, every, strict=True):
        print_verdict(verdict, values)
    for comparison in found.get("comparisons", []):
        say(f"\n{comparison['first']} minus {comparison['second']}")
        for name, test in comparison["difference"].items():
            say(
                f"{name:>15} {test['estimate']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}]"
                f"  p = {test['p_value']:.4f}"
            )


def print_verdict(verdict: Verdict, values: Mapping[str, Any]) -> None:
    """A table per direction, and what a reader must know of it."""
    report = verdict.report
    where = f"{values['dataset']} {values['split']}".strip()
    if report.dataset.share < 1:
        where += f" ({report.dataset.share:.1%} of it: the rest has no audio here)"
    say(f"\n{report.system} on {where}: {values['queries']} queries, {values['clips']} clips")
    say(f"text to audio ({values['interval']})")
    print_intervals(report.metrics, values.get("bounds"))
    median = "not listed" if values["median_rank"] is None else f"{values['median_rank']:g}"
    say(f"{'median rank':>15} {median}")
    say(f"{'coverage@10':>15} {values['coverage@10']:.4f} of the clips are in some first ten")
    say(f"{'tied':>15} {values['tied_queries']} queries, where the clips' ids decide")
    if "note" in values:
        say(f"{'note':>15} {values['note']}")
    if report.audio_to_text:
        say("audio to text")
        print_intervals(report.audio_to_text)
    if verdict.pairing:
        count = len(verdict.pairing.dataset.captions)
        say(f"text to audio by pairing alone, each caption with its clip: {count} queries")
        print_intervals(verdict.pairing.metrics)
    elif verdict.left_out:
        say(f"text to audio by pairing is left out: {verdict.left_out}")


def print_intervals(
    figures: Mapping[str, Interval], bounds: Mapping[str, Sequence[float]] | None = None
) -> None:
    """One line per metric."""
    for name, figure in figures.items():
        line = f"{name:>15} {figure.mean:.4f} [{figure.low:.4f}, {figure.high:.4f}]"
        if bounds:
            line += f"  equal scores: {bounds[name][0]:.4f} to {bounds[name][1]:.4f}"
        say(line)


def write_per_query(path: Path, verdicts: Sequence[Verdict]) -> None:
    """Write a CSV file with a row per system and query."""
    from earshot.evaluate.report import per_query
    from earshot.files import atomic_write

    rows = [
        {"system": verdict.report.system, **row}
        for verdict in verdicts
        for row in per_query(verdict.report)
    ]
    with atomic_write(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        table = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        text.detach()


def one_of(option: str, value: str, known: Sequence[Any]) -> Any:
    """An option's value, if it is one of those known.

    Raises:
        EarshotError: it is not.
    """
    if value not in known:
        raise EarshotError(f"{option} is {value!r}; allowed are {', '.join(known)}")
    return value


def checked_pool(pool: str) -> Any:
    """A pool, if there is such."""
    from earshot.evaluate.scores import POOLS

    return one_of("--pool", pool, POOLS)


def checked_by(interval: str) -> By:
    """A kind of interval, if there is such."""
    from earshot.evaluate.report import INTERVALS

    by: By = one_of("--interval", interval, tuple(INTERVALS))
    return by
