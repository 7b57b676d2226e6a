"""What of `earshot index` is done by others: a cluster, or the other jobs of an array."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earshot.types import EarshotError

if TYPE_CHECKING:
    from earshot.cluster import ClusterConfig
    from earshot.library import Summary
    from earshot.shards import Shard
    from earshot.types import Model, Store

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


def cluster_of(
    ray: str | None, workers: int | None, gpus_per_worker: float, device: str
) -> ClusterConfig | None:
    """The cluster that is asked for; None for this process.

    Raises:
        EarshotError: settings of a cluster without one.
    """
    from earshot.cluster import ClusterConfig

    if ray:
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
    from earshot.cluster import connected, import_ray

    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import_ray()
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    with connected(config):
        yield


def run(
    paths: Sequence[str],
    opened: tuple[Store, Model],
    *,
    part: Shard | None,
    cluster: ClusterConfig | None,
    workers: int | None,
    prune: bool,
) -> Summary:
    """One run of `earshot index`, or one part of it, here or on the cluster that is connected."""
    from earshot.cluster import on_cluster
    from earshot.console import progress_bar
    from earshot.library import carry_out, compare
    from earshot.shards import part_of

    store, model = opened
    hear = on_cluster(cluster, store.manifest) if cluster else None
    with progress_bar("indexing") as report:
        plan = compare(paths, store.files(), prune=prune)
        if part:
            plan = part_of(plan, part)
        return carry_out(plan, store, model, workers=workers, hear=hear, report=report)
