"""`earshot index`: recordings into an index, here, on a cluster, or in the jobs of an array."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earshot.commands import Device, Json, Workers, print_json
from earshot.commands.library import follow_folders
from earshot.types import EarshotError

if TYPE_CHECKING:
    from earshot.cluster import ClusterConfig
    from earshot.library import Hear, Layout, Summary
    from earshot.shards import Shard
    from earshot.types import Store

Recordings = Annotated[
    list[str], typer.Argument(help="Folders or files of recordings, or s3://… .")
]
To = Annotated[str, typer.Option(help="The index: a folder, s3://… or milvus://… .")]
ModelName = Annotated[
    str | None, typer.Option(help="The model of a new index; see `earshot models`.")
]
Window = Annotated[
    float | None, typer.Option(help="Seconds of a segment in a new index; the model's own.")
]
Hop = Annotated[float | None, typer.Option(help="Seconds between segments' starts; half a window.")]
Half = Annotated[
    bool,
    typer.Option("--half", help="A new index keeps vectors in half precision: half the space."),
]
Dimensions = Annotated[
    int | None, typer.Option(help="Numbers of a vector in a new index, as 128; the model's own.")
]
Prune = Annotated[
    bool, typer.Option("--prune", help="Also forget files of folders that are gone or empty.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Then follow the folders until Ctrl-C.")]
WatchEvery = Annotated[
    float | None, typer.Option(help="Look so often, in seconds, where there are no file events.")
]
Settle = Annotated[
    float, typer.Option(help="Followed files are left until they rest for so many seconds.")
]
RayAddress = Annotated[
    str | None,
    typer.Option("--ray", help="Hear on a Ray cluster: HOST:PORT of its head, auto, or local."),
]
GpusPerWorker = Annotated[
    float, typer.Option(min=0, help="With --ray: GPUs that each worker has, as 0.25.")
]
ShardText = Annotated[
    str | None,
    typer.Option("--shard", help="Do a part of the files, as 3/16, for arrays of jobs."),
]


def index(
    paths: Recordings,
    to: To,
    model: ModelName = None,
    window: Window = None,
    hop: Hop = None,
    half: Half = False,
    dimensions: Dimensions = None,
    prune: Prune = False,
    watch: Watch = False,
    watch_every: WatchEvery = None,
    settle: Settle = 2.0,
    ray: RayAddress = None,
    gpus_per_worker: GpusPerWorker = 0.0,
    shard: ShardText = None,
    workers: Workers = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Add new and changed recordings, drop removed ones, report broken ones. Resumable."""
    from earshot.console import print_summary
    from earshot.folders import require_recordings
    from earshot.isolated import IsolatedHearing
    from earshot.library import Layout
    from earshot.remote import on_cluster
    from earshot.shards import read_shard
    from earshot.store import require_lasting, store_exists
    from earshot.watch import WatchConfig

    require_lasting(to)
    following = watch or watch_every is not None
    config = WatchConfig(settle_s=settle, every_s=watch_every)
    if following and prune:
        raise EarshotError("--prune is for one run; end it, and follow then with --watch alone")
    if following and (ray is not None or shard is not None):
        raise EarshotError("--watch follows from one process; leave --ray and --shard out")
    folders = require_folders(paths) if following else []
    part = read_shard(shard) if shard is not None else None
    cluster = cluster_of(ray, workers, gpus_per_worker, device)
    if not store_exists(to) and not following:
        require_recordings(paths)
    with on_ray(cluster):
        layout = Layout(segment_s=window, hop_s=hop, half=half, dimensions=dimensions)
        store, name = open_to_hear(to, model, device, layout)
        apart = IsolatedHearing(store.manifest, name=name, device=device, workers=workers)
        with apart:  # It starts nothing until there is something to hear.
            hear = on_cluster(cluster, store.manifest, name) if cluster else apart
            if following:
                follow_folders(folders, to, config, opened=store, hear=hear, as_json=as_json)
                return
            summary = run(paths, store, hear, part=part, prune=prune)
    if as_json:
        print_json({"index": to, "model": store.manifest.model, **summary.as_json()})
    else:
        print_summary(summary, to, store.manifest.model)


def open_to_hear(
    uri: str, model: str | None, device: str, layout: Layout
) -> tuple[Store, str | None]:
    """Like `library.open_or_create`, for files heard elsewhere: no more is loaded than need be.

    With the index comes what its model is called, if that was asked for: a folder's whole path.
    """
    from earshot.console import print_note
    from earshot.library import open_laid_out, open_or_create
    from earshot.store import store_exists

    if model or not store_exists(uri):
        store, loaded = open_or_create(uri, model, device, layout, tell=print_note)
        return store, loaded.name
    return open_laid_out(uri, layout), None


def cluster_of(
    ray: str | None, workers: int | None, gpus_per_worker: float, device: str
) -> ClusterConfig | None:
    """The cluster that is asked for; None for this process.

    Raises:
        EarshotError: settings of a cluster without one.
    """
    from earshot.cluster import ClusterConfig

    if ray is not None:
        return ClusterConfig(
            address=ray, workers=workers, gpus_per_worker=gpus_per_worker, device=device
        )
    if gpus_per_worker:
        raise EarshotError("--gpus-per-worker is for the workers of a cluster; give --ray, too")
    return None


def require_folders(paths: Sequence[str]) -> list[Path]:
    """What can be followed.

    Raises:
        EarshotError: an address of objects.
    """
    from earshot.objects import is_uri

    if uri := next(filter(is_uri, paths), None):
        raise EarshotError(f"{uri}: object stores cannot be followed; run without --watch")
    return list(map(Path, paths))


@contextmanager
def on_ray(config: ClusterConfig | None) -> Iterator[None]:
    """Connect to a cluster, if there is one to connect to; its own messages are kept away."""
    if config is None:
        yield
        return
    from earshot.cluster import connected

    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with connected(config):
        yield


def run(
    paths: Sequence[str],
    store: Store,
    hear: Hear,
    *,
    part: Shard | None,
    prune: bool,
) -> Summary:
    """One run of `earshot index`, or one part of it."""
    from earshot.console import progress_bar
    from earshot.library import carry_out, compare
    from earshot.shards import part_of

    with progress_bar("indexing") as report:
        plan = compare(paths, store.files(), prune=prune)
        if part:
            plan = part_of(plan, part)
        return carry_out(plan, store, None, hear=hear, report=report)
