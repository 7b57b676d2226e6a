"""`earshot index --watch`, `migrate`, `compare`, `snapshot`, `copy`: an index through its life."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated

import typer

from earshot.commands import Device, Json, Workers, counting, print_json
from earshot.terminal import printable, say
from earshot.types import EarshotError

if TYPE_CHECKING:
    from earshot.disagreement import Comparison, Move
    from earshot.library import Hear
    from earshot.migrate import Migration
    from earshot.types import Store
    from earshot.watch import Event, WatchConfig

COLUMNS = 80
SHOWN_MOVES = 3
SHOWN_GONE = 20


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(migrate)
    app.command()(compare)
    app.command()(snapshot)
    app.command()(copy)


def follow_folders(
    paths: list[Path],
    to: str,
    config: WatchConfig,
    *,
    opened: Store,
    hear: Hear,
    as_json: bool,
) -> None:
    """Bring an index up to date, then follow the folders until Ctrl-C.

    Raises:
        EarshotError: a folder is not there, and the index holds nothing from there either.
    """
    from earshot.console import print_summary, progress_bar
    from earshot.folders import is_below
    from earshot.watch import Follower, follow

    name, known = opened.manifest.model, opened.files()
    for path in paths:
        if not path.exists() and not any(is_below(held, {path.resolve()}) for held in known):
            raise EarshotError(f"{path} does not exist; give files or folders of recordings")
    follower = Follower(paths, opened, None, config, hear)
    away: list[Event] = []
    with progress_bar("indexing") as report:
        summary = follower.look(
            lambda event: away.append(event) if event.kind == "away" else None, report
        )
    if as_json:
        first = {"event": "indexed", "index": to, "model": name, **summary.as_json()}
        say(json.dumps(first))
    else:
        print_summary(summary, to, name)
        say("following; Ctrl-C ends it")
    tell = tell_json if as_json else tell_line
    for event in away:
        tell(event)
    follow(follower, tell)


def tell_json(event: Event) -> None:
    """An event as one line of JSON, with the time in seconds since 1970."""
    fields = asdict(event)
    say(
        json.dumps({"time": round(time.time(), 3), "event": fields.pop("kind"), **fields}),
    )


def tell_line(event: Event) -> None:
    """An event as a line for a person."""
    from earshot.console import shortest

    about = event.reason or (f"was {shortest(event.source)}" if event.source else "")
    line = f"{time.strftime('%H:%M:%S')} {event.kind:<8} {shortest(event.path)}"
    say(f"{line}  ({printable(about)})" if about else line)


def migrate(
    index: Annotated[str, typer.Argument(help="The index: a folder, s3://… or milvus://… .")],
    model: Annotated[
        str | None, typer.Option(help="The new model, by name or folder; else the index's own.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Write the new index there and leave the old one.")
    ] = None,
    window: Annotated[
        float | None, typer.Option(help="Seconds of a segment; the model's own.")
    ] = None,
    hop: Annotated[
        float | None, typer.Option(help="Seconds between segments' starts; half a window.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Also leave out files of folders that are gone.")
    ] = False,
    workers: Workers = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Hear an index's files by another model while the old one answers, then switch. Resumable."""
    from earshot.console import progress_bar
    from earshot.isolated import IsolatedHearing
    from earshot.migrate import MigrationConfig, to_model
    from earshot.migrate import migrate as go_over
    from earshot.model import model_manifest

    heard_by = to_model(index, model, device)
    config = MigrationConfig(to=to, segment_s=window, hop_s=hop, prune=prune)
    manifest = model_manifest(heard_by, window, hop)
    with (
        IsolatedHearing(manifest, device=device, workers=workers) as hear,
        progress_bar("migrating") as report,
    ):
        done = go_over(index, heard_by, config, hear=hear, report=report)
    if as_json:
        print_json(done.as_json())
    else:
        print_migration(done)


def print_migration(done: Migration) -> None:
    """What a migration did."""
    from earshot.console import duration, print_broken, shortest

    heard = f", {duration(done.audio_s)} of audio heard now" if done.audio_s else ""
    say(f"{done.index}: {done.files} files by model {done.model}, before {done.before}{heard}")
    for path in done.gone[:SHOWN_GONE]:
        say(f"gone: {shortest(path)}")
    if len(done.gone) > SHOWN_GONE:
        say(f"and {len(done.gone) - SHOWN_GONE} more gone; --json lists all")
    print_broken(done.broken)


def compare(
    index_a: Annotated[str, typer.Argument(help="An index.")],
    index_b: Annotated[str, typer.Argument(help="Another index of the same recordings.")],
    words: Annotated[list[str] | None, typer.Argument(help="Queries, each in quotes.")] = None,
    queries: Annotated[Path | None, typer.Option(help="A CSV file with a column `query`.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How far answers are compared.")] = 10,
    html: Annotated[Path | None, typer.Option(help="Write a page for the browser.")] = None,
    as_json: Json = False,
) -> None:
    """Show where two models disagree: the same queries asked of two indexes."""
    from earshot.disagreement import compare_indexes, write_page
    from earshot.files import require_writable
    from earshot.search import read_queries

    require_writable(html)
    asked = [*(words or []), *(read_queries(queries) if queries else [])]
    comparison = compare_indexes(index_a, index_b, asked, k)
    if html:
        write_page(html, comparison)
    if as_json:
        print_json(comparison.as_json())
    else:
        print_comparison(comparison)


def print_comparison(comparison: Comparison) -> None:
    """A row per query, those that differ most first, and what moved most in each."""
    say(f"A: {comparison.index_a} ({comparison.model_a})")
    say(f"B: {comparison.index_b} ({comparison.model_b})")
    say(f"{'overlap@' + str(comparison.k):>11} {'rank-biased':>11}  query")
    for query in comparison.queries:
        text = shorten(printable(query.query), COLUMNS - 26, placeholder=" …")
        say(f"{query.overlap:11.2f} {query.rank_biased_overlap:11.2f}  {text}")
        for move in query.moves[:SHOWN_MOVES]:
            say(f"{'':25}{move_line(move)}")
    say(f"{comparison.overlap:11.2f} {comparison.rank_biased_overlap:11.2f}  mean")


def move_line(move: Move) -> str:
    """What became of a recording from A to B, its path cut on the left where it is long."""
    from earshot.console import shortest

    ranks = f"{move.rank_a or '–':>3} → {move.rank_b or '–':<3} "
    path, room = shortest(move.path), COLUMNS - 25 - len(ranks)
    return ranks + (path if len(path) <= room else "…" + path[1 - room :])


def snapshot(
    index: Annotated[str, typer.Argument(help="The index: a folder, s3://… or milvus://… .")],
    name: Annotated[str | None, typer.Argument(help="Name the present state so.")] = None,
    restore: Annotated[str | None, typer.Option(help="Go back to the state of this name.")] = None,
    forget: Annotated[str | None, typer.Option(help="Forget this name and its state.")] = None,
    as_json: Json = False,
) -> None:
    """Name the state of an index, list such states, go back to one. Takes no copy."""
    from earshot.store import LanceStore, require_versions
    from earshot.store import snapshots as states

    require_versions(index)
    if sum(given is not None for given in (name, restore, forget)) > 1:
        raise EarshotError("give one of NAME, --restore NAME and --forget NAME")
    store = LanceStore.open(index)
    if name is not None:
        states.snapshot(store, name)
    elif restore is not None:
        store = states.restore(store, restore)
    elif forget is not None:
        states.forget(store, forget)
    known = [{**asdict(one), "made": one.made.isoformat()} for one in states.snapshots(store)]
    if as_json:
        print_json({"index": index, "files": len(store.files()), "snapshots": known})
    else:
        say(f"{index}: {len(store.files())} files")
        for one in known:
            say(f"{one['made'][:19]}  {one['name']}")


def copy(
    source: Annotated[str, typer.Argument(help="The index to copy.")],
    target: Annotated[str, typer.Argument(help="A new place: a folder, s3://…, milvus://… .")],
    half: Annotated[
        bool | None,
        typer.Option("--half/--whole", help="Vectors in half or full precision; as they are."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy an index with its vectors to another place or kind of store. Resumable."""
    from earshot.transfer import copy_index

    with counting("copying") as report:
        done = copy_index(source, target, half=half, report=report)
    if as_json:
        print_json(done.as_json())
    else:
        say(f"{target}: {done.files} files, {done.segments} segments; {done.copied} copied now")
