"""Embedding on a Ray cluster: the groups of files that threads take here, taken by workers there.

One idea: only where files are heard is another; the plan and the store are `earshot.library`'s, in
the one process that asked. Ray Data hands out groups, starts lost workers again and gives them what
they had; a ledger knows which file a lost worker was at, so that a file that kills its decoder ends
as a broken one and not the run (Moritz et al., OSDI 2018; Luan et al., arXiv:2501.12407).
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any

import numpy as np

from earshot.embed import (
    BATCH_SEGMENTS,
    SILENT,
    Batch,
    compute_with_one_thread,
    embed_into,
    groups,
)
from earshot.library import Hear, noted
from earshot.metadata import Tables
from earshot.model import load_for
from earshot.types import (
    EarshotError,
    EmbeddedFile,
    FileRecord,
    FileState,
    Manifest,
    Model,
)

LOCAL = "local"
CONNECT_S = 10.0
# A head speaks gRPC, hence HTTP/2: its first frame is of settings (RFC 9113, 3.4). One that wants
# to be spoken to in secret says so (RFC 8446, 6).
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
HTTP2_SETTINGS = b"\x04"
TLS_ALERT = b"\x15"
# What a Ray of this machine alone may hold at a time: groups' names and vectors are small.
OBJECT_STORE_BYTES = 256 << 20
# A task costs Ray milliseconds and some kilobytes, a lost worker costs its task: thousands of tasks
# are few, and a thousand files are heard in half a minute.
MOST_SINGLE_GROUPS = 1000
TASK_GROUPS = 64
# So often a worker may be lost at a file, and at a group without a file to blame.
FATAL_LOSSES = 2
UNEXPLAINED_LOSSES = 4
# What tells a worker where models are (`earshot.files`), handed on from the process that asks.
VARIABLES = {"EARSHOT_HOME", "EARSHOT_ASSETS"}


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Where Ray is, and what a worker is: one core, and `gpus_per_worker` (a quarter is allowed).

    `address` is HOST:PORT of a cluster that this machine belongs to, `auto` for the one that runs
    here, or `local` for one that is made for this run. At most `workers` are started, None for as
    many as there is room for; an autoscaling cluster grows up to that.
    """

    address: str = LOCAL
    workers: int | None = None
    gpus_per_worker: float = 0.0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise EarshotError(f"{self.workers} workers; give 1 or more")
        if not 0 <= self.gpus_per_worker < float("inf"):
            raise EarshotError(f"{self.gpus_per_worker} GPUs per worker; give 0 or more, as 0.25")


@contextmanager
def connected(config: ClusterConfig) -> Iterator[None]:
    """Connect to the cluster for a while; a program that did so itself keeps its connection.

    Raises:
        EarshotError: Ray is not installed, or there is none at the address.
    """
    ray = import_ray()
    if config.address != LOCAL:
        require_reachable(config.address)
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if config.address == LOCAL:
        cores = config.workers or os.cpu_count() or 1
        options |= {"num_cpus": cores, "include_dashboard": False}
        options |= {"object_store_memory": OBJECT_STORE_BYTES}
    try:
        ray.init(address=config.address, **options)
    except Exception as error:  # noqa: BLE001 - Ray raises bare ones, too
        why = str(error).strip().partition("\n")[0]
        raise EarshotError(f"no Ray cluster to be had at {config.address}: {why}") from error
    try:
        yield
    finally:
        ray.shutdown()


def import_ray() -> Any:
    """Ray with its data library; it takes seconds to import.

    Raises:
        EarshotError: it is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise EarshotError(
            "work on a cluster needs ray; run: pip install 'earshot[distributed]'"
        ) from error
    return ray


def require_reachable(address: str) -> None:
    """Refuse an address that nothing answers at; Ray itself would wait for minutes.

    Raises:
        EarshotError: also for what is no address.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise EarshotError(
            f"{address!r} is no address of a Ray cluster; give HOST:PORT of its head (of 6379, not "
            f"of Ray Client) from a machine that belongs to it, auto for the one here, or local"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_S) as line:
            line.sendall(HTTP2_GREETING)
            answer = line.recv(9)
    except (OSError, OverflowError) as error:
        raise EarshotError(
            f"no Ray cluster answers at {address} ({error}); is `ray start --head` running there?"
        ) from error
    if answer[3:4] != HTTP2_SETTINGS and answer[:1] != TLS_ALERT:
        raise EarshotError(f"what answers at {address} is no Ray cluster; give the head's address")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Of a group: whether it was begun before, and which of its files no worker survives."""

    again: bool
    fatal: tuple[str, ...]
    hopeless: bool
    """Too many workers were lost at it, and no file is to blame."""


class Ledger:
    """What is known of groups whose worker was lost: how often, and at which file it was.

    Lives in a process of its own on the machine of the process that asked.
    """

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()
        self._at: dict[int, str] = {}
        self._losses: dict[int, Counter[str]] = {}

    def begin(self, group: int) -> Known:
        """What is known of a group that is begun.

        That it is begun again means that its worker was lost, or its machine with what was done.
        Files are noted from then on: the first one at which a worker is lost has most likely cost
        the workers before, too.
        """
        losses = self._losses.setdefault(group, Counter())
        lost = self._begun[group]
        unexplained = lost - losses.total()
        if path := self._at.pop(group, ""):
            losses[path] += unexplained
            unexplained = 0
        self._begun[group] += 1
        return Known(
            again=lost > 0,
            fatal=tuple(path for path, count in losses.items() if count >= FATAL_LOSSES),
            hopeless=unexplained > UNEXPLAINED_LOSSES,
        )

    def at(self, group: int, path: str) -> None:
        """Note which file a worker takes up; none when it is through with all of them."""
        self._at[group] = path


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every worker has to know."""

    manifest: Manifest
    device: str
    ledger: Any


class Worker:
    """Hears groups of files, one at a time, in a process of its own."""

    def __init__(self, job: Job) -> None:
        self.job, self.tables = job, Tables()
        self._model: Model | None = None

    @property
    def model(self) -> Model:
        """The index's model, loaded when it is first needed.

        Raises:
            EarshotError: it is not on this machine, or is another one.
        """
        if self._model is None:
            compute_with_one_thread()
            self._model = load_for(self.job.manifest, device=self.job.device)
        return self._model

    def __call__(self, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Hear the groups of some rows; what a user must mend comes back as `error`."""
        answers: dict[str, np.ndarray] = {
            "files": np.empty(len(rows["group"]), dtype=object),
            "error": np.full(len(rows["group"]), "", dtype=object),
        }
        for i, (group, paths) in enumerate(zip(rows["group"], rows["paths"], strict=True)):
            answers["files"][i] = ()
            try:
                answers["files"][i] = tuple(self.hear(int(group), [str(path) for path in paths]))
            except EarshotError as error:
                answers["error"][i] = f"{socket.gethostname()}: {error}"
        return answers

    def hear(self, group: int, paths: Sequence[str]) -> list[EmbeddedFile]:
        """Embed a group as a thread does here, with the same batches, hence the same vectors.

        Raises:
            EarshotError: there is no working here, whatever the files.
        """
        import ray

        ledger = self.job.ledger
        known: Known = ray.get(ledger.begin.remote(group))
        if known.hopeless:
            raise EarshotError(
                f"workers were lost {UNEXPLAINED_LOSSES + 1} times at the same files, and none is "
                f"to blame; is there too little memory for the model? Give fewer --workers"
            )
        batch = Batch(self.model, BATCH_SEGMENTS, SILENT, Event())
        batch.segment_s, batch.hop_s = self.job.manifest.segment_s, self.job.manifest.hop_s
        records = []
        for path in paths:
            if path in known.fatal:
                records.append(lost_at(path))
                continue
            if known.again:
                ray.get(ledger.at.remote(group, path))
            records.append(embed_into(batch, path))
        if known.again:
            ray.get(ledger.at.remote(group, ""))
        batch.flush()
        return [noted(batch.embedded(record), self.tables) for record in records]


def lost_at(path: str) -> FileRecord:
    """A file that no worker survives."""
    state = FileState(path=path, size_bytes=0, mtime_ns=0, ctime_ns=0, sha256="")
    return FileRecord(
        state=state, broken="its decoding ended the worker process each time; damaged, or too large"
    )


def on_cluster(config: ClusterConfig, manifest: Manifest) -> Hear:
    """What hears files for `earshot.library.carry_out` on the cluster that is `connected`."""

    def hear(paths: Sequence[str], heard: Callable[[float], None]) -> Iterator[EmbeddedFile]:
        for file in answers(list(groups(paths)), config, manifest):
            heard(file.record.duration_s)
            yield file

    return hear


def answers(
    grouped: Sequence[Sequence[str]], config: ClusterConfig, manifest: Manifest
) -> Iterator[EmbeddedFile]:
    """Embed groups of files by workers; they come back as they are done, noted.

    Ray holds back workers while what they made waits to be taken.

    Raises:
        EarshotError: a worker cannot work, with the reason.
    """
    ray = import_ray()
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    ledger = ray.remote(Ledger).options(num_cpus=0, scheduling_strategy=here).remote()
    rows = [{"group": number, "paths": list(paths)} for number, paths in enumerate(grouped)]
    variables = {name: os.environ[name] for name in VARIABLES & os.environ.keys()}
    tasks = max(min(len(rows), MOST_SINGLE_GROUPS), len(rows) // TASK_GROUPS)
    with quiet_progress(ray.data.DataContext.get_current()):
        dataset = ray.data.from_items(rows, override_num_blocks=tasks).map_batches(
            Worker,
            fn_constructor_args=(Job(manifest=manifest, device=config.device, ledger=ledger),),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(
                min_size=1, max_size=config.workers, initial_size=room(ray, config, len(rows))
            ),
            num_cpus=1,
            num_gpus=config.gpus_per_worker or None,
            runtime_env={"env_vars": variables},
        )
        try:
            for row in dataset.iter_rows():
                if row["error"]:
                    raise EarshotError(f"a worker on {row['error']}")
                yield from row["files"]
        except ray.exceptions.RayError as error:
            why = str(error).strip().rpartition("\n")[2]
            raise EarshotError(f"the cluster gave up: {why}; run it again to go on") from error


def room(ray: Any, config: ClusterConfig, groups_: int) -> int:
    """How many workers to start with: what the cluster has room for now, and no idle ones.

    Raises:
        EarshotError: they are to have GPUs, and there are none.
    """
    resources = ray.cluster_resources()
    most = [int(resources.get("CPU", 1)), groups_, config.workers or groups_]
    if config.gpus_per_worker:
        gpus = resources.get("GPU", 0)
        if gpus < config.gpus_per_worker:
            raise EarshotError(
                f"the cluster has {gpus:g} GPUs, and a worker is to have {config.gpus_per_worker:g}"
                f"; start a node that has some, or leave --gpus-per-worker out"
            )
        most.append(int(gpus / config.gpus_per_worker))
    return max(1, min(most))


@contextmanager
def quiet_progress(context: Any) -> Iterator[None]:
    """Progress is told by who counts files; Ray's own bars would be drawn over it."""
    before = context.enable_progress_bars
    context.enable_progress_bars = False
    try:
        yield
    finally:
        context.enable_progress_bars = before
