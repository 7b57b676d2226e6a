"""`earshot teach` and `earshot correspondences`: what trained models say of training data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earshot.commands import Device, Json, Workers, counting, print_json
from earshot.terminal import say
from earshot.types import EarshotError

if TYPE_CHECKING:
    from earshot.batches import Pairs

Train = Annotated[
    list[str] | None,
    typer.Option("--train", help="KIND:SPLIT of the data; else what the first run trained on."),
]


def register(app: typer.Typer) -> None:
    """Put the commands into the application."""
    app.command()(teach)
    app.command()(correspondences)


def teach(
    runs: Annotated[list[str], typer.Argument(help="Runs or models: the ensemble of teachers.")],
    data: Annotated[Path, typer.Option(help="The folder of the datasets.")],
    out: Annotated[Path, typer.Option(help="The folder of the teachers to write.")],
    train: Train = None,
    workers: Workers = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Embed training data by trained models, once, for stage 2. Resumable."""
    from earshot.model import load
    from earshot.teach import teach as embed

    pairs = named_pairs(train, runs[0], data)
    models = [load(run, device) for run in runs]
    with counting("embedding", total=None) as done:
        embed(models, pairs, out, workers=workers, done=lambda what, n, total: done(n))
    clips = len(pairs.clips)
    if as_json:
        print_json({"out": str(out), "teachers": [m.name for m in models], "clips": clips})
    else:
        say(f"{len(models)} teachers, {clips} clips in {out}; use: train … --teachers {out}")


def correspondences(
    teachers: Annotated[Path, typer.Argument(help="What `earshot teach` wrote.")],
    data: Annotated[Path, typer.Option(help="The folder of the datasets.")],
    out: Annotated[Path, typer.Option(help="The CSV file to write.")],
    html: Annotated[Path | None, typer.Option(help="Also a page with players.")] = None,
    train: Train = None,
    top: Annotated[int, typer.Option(min=1, help="Other clips per caption.")] = 5,
    share: Annotated[
        float, typer.Option(help="How near to its own clip's similarity another must come.")
    ] = 1.0,
    as_json: Json = False,
) -> None:
    """List which captions also fit which other clips: the false negatives of the data."""
    from earshot.teach import load_teachers
    from earshot.teach.correspondences import correspondences as find
    from earshot.teach.correspondences import summary, write_csv, write_html

    known = load_teachers(teachers)
    pairs = named_pairs(train, known.teachers[0].name, data)
    found = list(find(known.for_pairs(pairs), pairs, top=top, share=share))
    write_csv(out, found)
    if html:
        write_html(html, found, pairs.clips)
    figures = summary(found, len(pairs))
    if as_json:
        print_json({"out": str(out), **figures})
    else:
        say(
            f"{figures['captions_with_others']} of {figures['captions']} captions fit another "
            f"clip too, {figures['correspondences']} in all; {out}"
        )


def named_pairs(names: list[str] | None, run: str, root: Path) -> Pairs:
    """The pairs of the data asked for, or of what a run was trained on.

    Raises:
        EarshotError: neither is known, or the data is not there.
    """
    from earshot.batches import Pairs
    from earshot.train.data import load_training
    from earshot.train.recipe import DataConfig
    from earshot.train.run import RunFolder

    folder = Path(run).parent if Path(run).name in ("best", "last") else Path(run)
    if names:
        config = DataConfig(train=tuple(names))
    elif (folder / "recipe.json").is_file():
        config = RunFolder(path=folder).recipe().data
    else:
        raise EarshotError(f"{run} is no training run; name the data by --train KIND:SPLIT")
    # Models hear files, and nothing is decoded here, so that the rate does not matter.
    datasets = load_training(config, root, allow_missing=False)
    return Pairs(datasets, sample_rate_hz=1, packs=[None] * len(datasets))
