"""`earshot data`: fetch, check, describe and pack datasets.

Like all commands, these import what is heavy only when they run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earshot.commands import Json, counting, print_json
from earshot.terminal import printable, say
from earshot.types import EarshotError

if TYPE_CHECKING:
    from earshot.datasets.check import Report
    from earshot.datasets.describe import Description, Spread

EXTRAS = {"py7zr": "data", "matplotlib": "plots"}
SHOWN = 20

app = typer.Typer(
    help="Fetch, check, describe and pack datasets.", no_args_is_help=True, rich_markup_mode=None
)
Name = Annotated[
    str, typer.Argument(help="clotho, audiocaps, wavcaps, queries, soundscapes or folder.")
]
Data = Annotated[Path, typer.Option(help="The folder of the dataset.")]
Split = Annotated[str, typer.Option(help="A split; each dataset has one that is usual.")]
TextColumn = Annotated[str, typer.Option(help="A folder's column to use as caption.")]
AllowMissing = Annotated[bool, typer.Option(help="Go on without the clips that are not here.")]


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="clotho, audiocaps, wavcaps or queries.")],
    to: Annotated[Path, typer.Option(help="The folder to fetch into.")],
    tables_only: Annotated[bool, typer.Option(help="Leave the audio out.")] = False,
    as_json: Json = False,
) -> None:
    """Get what is published of a dataset; resumable, checked. Says how to get the rest."""
    from earshot.datasets.fetch import fetch as fetch_files
    from earshot.datasets.fetch import instructions, source_of

    remotes = [r for r in source_of(name).remotes if not (tables_only and r.is_archive)]
    fetched = []
    for remote in remotes:
        with counting(remote.name, None) as report:
            fetched += fetch_files([remote], to, report)
    rest = instructions(name, to)
    if as_json:
        print_json({"to": str(to), "fetched": fetched, "instructions": rest})
    else:
        say(f"{len(fetched)} files fetched, {len(remotes) - len(fetched)} were here: {to}")
        say(rest or f"check it: earshot data check {name} --data {to}")


@app.command()
def check(
    name: Name,
    data: Data,
    split: Split = "",
    text_column: TextColumn = "",
    hashes: Annotated[
        Path | None, typer.Option(help="A list of SHA-256: written if new, else compared.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Decode every file, compare counts and hashes; exit code 1 if something is wrong."""
    from earshot.datasets import load
    from earshot.datasets.check import check as check_dataset
    from earshot.files import require_writable

    if hashes and not hashes.exists():
        require_writable(hashes)
    dataset = load(name, data, split, text_column=text_column)
    with counting("decoding", len(dataset.clips)) as report:
        found = check_dataset(dataset, hashes, report)
    if as_json:
        print_json(found.as_json())
    else:
        print_check(found)
    if found.problems:
        raise typer.Exit(1)


def print_check(found: Report) -> None:
    """What a check found, the problems last."""
    say(f"{found.dataset} {found.split}: {found.clips} clips, {found.captions} captions")
    say(f"{found.decoded} files decode, {found.audio_s / 60:.1f} minutes of audio")
    for clip, reason in list(found.broken.items())[:SHOWN]:
        say(f"broken: {printable(clip)}: {printable(reason)}")
    for what, clips in (("missing", found.missing), ("changed", found.changed)):
        for clip in clips[:SHOWN]:
            say(f"{what}: {printable(clip)}")
    for problem in found.problems:
        say(f"problem: {printable(problem)}")
    if not found.problems:
        say("nothing is wrong")


@app.command()
def describe(
    name: Name,
    data: Data,
    split: Split = "",
    text_column: TextColumn = "",
    other: Annotated[
        list[str] | None,
        typer.Option(help="NAME:FOLDER or NAME:FOLDER:SPLIT to look for overlaps; repeatable."),
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="A folder to write pictures into.")] = None,
    as_json: Json = False,
) -> None:
    """Counts, durations, words, duplicates, overlaps with other datasets."""
    from earshot.datasets import load
    from earshot.datasets.describe import describe as describe_dataset
    from earshot.datasets.describe import with_durations
    from earshot.files import require_writable

    require_writable(plots and plots / "words.png")
    dataset = with_durations(load(name, data, split, text_column=text_column))
    others = [load(*parse_other(text)) for text in other or []]
    described = describe_dataset(dataset, others)
    if plots is not None:
        from earshot.datasets.plots import draw

        draw(dataset, plots)
    if as_json:
        print_json(described.as_json())
    else:
        print_description(described)


def parse_other(text: str) -> tuple[str, str, str]:
    """The name, folder and split of a dataset.

    Raises:
        EarshotError: it has no name or folder.
    """
    parts = text.split(":")
    if not 2 <= len(parts) <= 3 or not all(parts[:2]):
        raise EarshotError(f"cannot read --other {text!r}; give NAME:FOLDER or NAME:FOLDER:SPLIT")
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""


def print_description(d: Description) -> None:
    """A table of what is in a dataset."""
    only = "; research only" if d.research_only else ""
    lines = {
        "dataset": f"{d.dataset}, split {d.split}",
        "source": d.source,
        "licence": d.licence + only,
        "cite": d.citation,
        "clips": f"{d.clips}, {d.clips_without_audio} without audio here",
        "captions": str(d.captions),
        "relevant per query": spread_text(d.relevant_per_query, "{:.3g}"),
        "duration (s)": spread_text(d.duration_s, "{:.1f}"),
        "audio": f"{d.duration_s.total / 3600:.2f} h" if d.duration_s.count else "",
        "words per caption": spread_text(d.words_per_caption, "{:.3g}"),
        "vocabulary": f"{d.vocabulary} words, {d.words_used_once} of them once",
        "frequent": " ".join(f"{word} {count}" for word, count in list(d.top_words.items())[:10]),
        "there twice or more": f"{d.duplicates.captions} captions, "
        f"{d.duplicates.freesound_ids} Freesound ids, {d.duplicates.youtube_ids} YouTube ids",
    }
    for label, text in lines.items():
        if text:
            say(f"{label:<20} {text}")
    for o in d.overlaps:
        shared = f"{o.freesound_ids} Freesound ids, {o.youtube_ids} YouTube ids"
        say(f"{'shared with':<20} {o.dataset} {o.split}: {shared}, {o.captions} captions")


def spread_text(spread: Spread, form: str) -> str:
    """Minimum, median, mean and maximum in one line."""
    if not spread.count:
        return ""
    values = (spread.minimum, spread.median, spread.mean, spread.maximum)
    least, middle, mean, most = (form.format(value) for value in values)
    return f"{least} to {most}, median {middle}, mean {mean}"


@app.command()
def pack(
    name: Name,
    data: Data,
    to: Annotated[Path, typer.Option(help="The folder of the pack.")],
    split: Split = "",
    rate: Annotated[int, typer.Option(help="Samples per second.")] = 32_000,
    codec: Annotated[str, typer.Option(help="pcm, flac, opus or mp3.")] = "pcm",
    text_column: TextColumn = "",
    allow_missing: AllowMissing = False,
    as_json: Json = False,
) -> None:
    """Decode and resample once into a store of which any crop is read at once. Resumable."""
    from earshot.datasets import detect, load, with_audio
    from earshot.datasets.pack import Settings
    from earshot.datasets.packing import pack_dataset
    from earshot.files import require_writable

    settings = Settings(sample_rate_hz=rate, codec=codec)  # type: ignore[arg-type] # it checks
    dataset = load(name, data, split, text_column=text_column)
    chosen = with_audio(dataset, allow_missing=allow_missing)
    require_writable(to / "pack.json")
    with counting("packing", len(chosen.clips)) as report:
        kind = name or detect(data)
        packed = pack_dataset(chosen, kind, to, settings, lambda p: report(p.done))
    with counting("verifying", len(packed)) as report:
        packed.verify(report)
    result = {
        "to": str(to),
        "clips": len(packed),
        "share_of_split": chosen.share,
        "audio_s": packed.entries.total("samples") / packed.sample_rate_hz,
        "stored_bytes": packed.entries.total("stored_bytes"),
        "clipped_samples": packed.entries.total("clipped"),
        "broken": packed.broken,
    }
    if as_json:
        print_json(result)
        return
    say(f"{result['clips']} clips in {to}, {result['stored_bytes']:,} bytes, verified")
    if chosen.share < 1:
        say(f"{chosen.share:.1%} of the split; the rest is not here")
    for clip, reason in list(packed.broken.items())[:SHOWN]:
        say(f"broken: {printable(clip)}: {printable(reason)}")
