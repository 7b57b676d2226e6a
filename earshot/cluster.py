"""A Ray cluster: where it is, whether it answers, and being connected to it for a while.

One idea: what does work on a cluster (`earshot.remote`, `earshot.train.by_ray`) asks Ray for
processes and nothing else (Moritz et al., OSDI 2018).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from earshot.cores import usable_cores
from earshot.types import EarshotError

LOCAL = "local"
CONNECT_S = 10.0
# A head speaks gRPC, hence HTTP/2: its first frame is of settings (RFC 9113, 3.4). One that wants
# to be spoken to in secret says so (RFC 8446, 6).
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
HTTP2_SETTINGS = b"\x04"
TLS_ALERT = b"\x15"
# What a Ray of this machine alone may hold at a time: names of files and vectors are small.
OBJECT_STORE_BYTES = 256 << 20
# What tells a process where models are (`earshot.files`), handed on from the one that asks.
VARIABLES = ("EARSHOT_HOME", "EARSHOT_ASSETS")


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Where Ray is, and what a worker is: one core, and `gpus_per_worker` (a quarter is allowed).

    `address` is HOST:PORT of a cluster that this machine belongs to, `auto` for the one that runs
    here, or `local` for one that is made for this run. `workers` are asked for, so that a cluster
    that scales by itself grows to that; None for as many as there is room for.
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
        cores = config.workers or usable_cores()
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
    """Ray; it takes seconds to import.

    Raises:
        EarshotError: it is not installed.
    """
    try:
        import ray
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


def variables() -> dict[str, str]:
    """What of this process's environment those on other machines need."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def signs_of_loss(ray: Any) -> tuple[type[Exception], ...]:
    """What Ray raises where a process was lost, with its machine or without.

    One that Ray's own memory monitor ended is said by an error of its own.
    """
    names = ray.exceptions
    return (
        names.RayActorError,
        names.ObjectLostError,
        names.OutOfMemoryError,
        names.NodeDiedError,
        names.LocalRayletDiedError,
        names.WorkerCrashedError,
    )


def last_line(error: Exception) -> str:
    """What went wrong at last, of an error with a history."""
    return str(error).strip().rpartition("\n")[2]
