"""Training by processes on a Ray cluster, each an actor in a place as torchrun would give it.

One idea: Ray gives places, and others for those that are lost; everything else is what
`earshot.train.start` does under any launcher. When a process is lost, all begin again from the last
saved state. What the first one tells goes over a desk beside the process that asked, which is also
where it learns of Ctrl-C.
"""

from __future__ import annotations

import _thread
import os
import socket
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from earshot.cluster import (
    ClusterConfig,
    connected,
    import_ray,
    last_line,
    signs_of_loss,
    variables,
)
from earshot.files import locked
from earshot.train.loop import Watch
from earshot.train.run import LOCK, RunFolder
from earshot.train.start import Job, train
from earshot.types import EarshotError

# So often processes may be lost between two epochs.
MOST_LOSSES = 3
# Between looks at the desk, here and where the first process is.
LOOK_S = 0.5
# What the others may take to end when one has: they wait for it in an exchange.
END_S = 30.0
# What a cluster may take to give its places until it is said what is waited for.
BUSY_S = 10.0
NAMES = {"CPU": "cores", "GPU": "GPUs"}


@dataclass(kw_only=True)
class Desk:
    """Where the first process puts what it tells, and looks whether it is to stop; an actor."""

    told: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    stopped: bool = False

    def tell(self, what: str, *values: Any) -> bool:
        """Put down what `Watch` is told; gives whether to stop."""
        self.told.append((what, values))
        return self.stopped

    def take(self) -> list[tuple[str, tuple[Any, ...]]]:
        """What was told since the last time."""
        told, self.told = self.told, []
        return told

    def stop(self) -> None:
        """Have the first process stop as Ctrl-C does."""
        self.stopped = True


class Teller:
    """The `Watch` of the first process: tells the desk, though not of every step of many."""

    def __init__(self, desk: Any) -> None:
        self.desk, self.told_s = desk, 0.0

    def step(self, epoch: int, step: int, steps: int, loss: float | None) -> None:
        """See `Watch`; where it is to stop, it is as if Ctrl-C had been pressed here."""
        if loss is None and time.monotonic() - self.told_s < LOOK_S:
            return
        self.told_s = time.monotonic()
        if import_ray().get(self.desk.tell.remote("step", epoch, step, steps, loss)):
            _thread.interrupt_main()  # The signal itself is kept from Ray's processes.

    def epoch(self, row: Mapping[str, Any]) -> None:
        """See `Watch`."""
        import_ray().get(self.desk.tell.remote("epoch", row))


class Mute:
    """The `Watch` of the others."""

    def step(self, epoch: int, step: int, steps: int, loss: float | None) -> None:
        """See `Watch`."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """See `Watch`."""


class Place:
    """One process of a training; an actor."""

    def address(self) -> tuple[str, str]:
        """Where the others find this one: its machine, and a port that is free now."""
        with socket.create_server(("", 0)) as server:
            return import_ray().util.get_node_ip_address(), str(server.getsockname()[1])

    def train(self, job: Job, environment: Mapping[str, str], desk: Any) -> Any:
        """Train; gives the history, none where it was stopped, or a fault of the user's."""
        os.environ.update(environment)  # This process is the actor's own.
        try:
            return train(job, lambda first: Teller(desk) if first else Mute())
        except EarshotError as error:
            return error
        except KeyboardInterrupt:
            return []


class LostError(Exception):
    """A process was lost, with its machine or without."""


def train_by_ray(
    job: Job,
    address: str,
    watch: Callable[[bool], Watch],
    tell: Callable[[str], None] = warnings.warn,
) -> list[dict[str, Any]]:
    """Like `earshot.train.start.train`, on the cluster at an address as `ClusterConfig` has it.

    `tell` is told, in a line, what is waited for where the cluster is busy.

    Raises:
        EarshotError: there is no cluster, or not that many machines; processes are lost again and
            again; or what `train` raises.
    """
    if not job.resume:
        RunFolder(path=job.out).require_new()
    job = replace(job, data=job.data.resolve(), out=job.out.resolve())
    if job.teachers:
        job = replace(job, teachers=job.teachers.resolve())
    told = watch(True)
    losses, epochs = 0, -1
    with connected(ClusterConfig(address=address, workers=job.processes * job.machines)):
        while True:
            try:
                return attempt(job, told, tell)
            except LostError as error:
                done = len(RunFolder(path=job.out).history())
                losses, epochs = 1 if done > epochs else losses + 1, done
                if losses >= MOST_LOSSES:
                    raise EarshotError(
                        f"processes were lost {MOST_LOSSES} times after epoch {done}: {error}; is "
                        f"there too little memory? Go on with --resume"
                    ) from error
                with locked(job.out / LOCK):  # The lost run's first process may still be ending.
                    job = replace(job, resume=(job.out / "recipe.json").is_file())


def attempt(job: Job, told: Watch, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Train once, until it ends or a process is lost.

    Raises:
        LostError: the latter.
        EarshotError: see `train_by_ray`.
    """
    ray = import_ray()
    gpus = wants_gpus(job, ray.nodes())
    each = {"CPU": job.processes, **({"GPU": job.processes} if gpus else {})}
    group = ray.util.placement_group([each] * job.machines, strategy="STRICT_SPREAD")
    desk = ray.remote(Desk).options(num_cpus=0).remote()
    try:
        wait_for(ray, group, tell)
        places = [
            ray.remote(Place)
            .options(
                num_cpus=1,
                num_gpus=int(gpus),
                scheduling_strategy=ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(
                    group, placement_group_bundle_index=number // job.processes
                ),
            )
            .remote()
            for number in range(job.processes * job.machines)
        ]
        # Each sees one GPU alone, its own, as if it were alone on its machine.
        alone = replace(job, processes=1, machines=len(places))
        alone = replace(alone, device="cuda") if gpus else alone
        runs = begun(ray, places, alone, desk)
        return followed(ray, runs, desk, told)
    except signs_of_loss(ray) as error:
        raise LostError(last_line(error)) from error
    except ray.exceptions.RayError as error:
        raise EarshotError(
            f"the cluster gave up: {last_line(error)}; go on with --resume"
        ) from error
    finally:
        ray.util.remove_placement_group(group)


def wait_for(ray: Any, group: Any, tell: Callable[[str], None]) -> None:
    """Wait until the cluster gives the places, and say so if it takes long."""
    ready = group.ready()
    if not ray.wait([ready], timeout=BUSY_S)[0]:
        machines, (each, *_) = len(group.bundle_specs), group.bundle_specs
        free, there = ray.available_resources(), ray.cluster_resources()
        wanted = " and ".join(f"{each[kind]:g} {NAMES[kind]}" for kind in each)
        left = " and ".join(
            f"{free.get(kind, 0):g} of {there.get(kind, 0):g} {NAMES[kind]}" for kind in each
        )
        tell(
            f"the cluster is busy: waiting for {machines} machine{'s' * (machines > 1)} with "
            f"{wanted} free; {left} are, on all together; Ctrl-C ends the waiting"
        )
    ray.get(ready)


def begun(ray: Any, places: Sequence[Any], job: Job, desk: Any) -> list[Any]:
    """Begin in all places, with what torchrun tells its processes."""
    host, port = ray.get(places[0].address.remote())
    shared = {
        **variables(),
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
        "WORLD_SIZE": str(len(places)),
        "LOCAL_RANK": "0",
        "TORCHELASTIC_RUN_ID": "ray",
    }
    return [
        place.train.remote(job, {**shared, "RANK": str(rank), "GROUP_RANK": str(rank)}, desk)
        for rank, place in enumerate(places)
    ]


def followed(ray: Any, runs: Sequence[Any], desk: Any, told: Watch) -> list[dict[str, Any]]:
    """Tell what the first process tells until all have ended; the history.

    Raises:
        LostError: a process was lost.
        EarshotError: one of them cannot go on.
    """
    waiting = list(runs)
    try:
        while waiting:
            done, waiting = ray.wait(waiting, timeout=LOOK_S)
            tell_all(ray, desk, told)
            for run in done:
                require_well(ray, run, waiting)
    except KeyboardInterrupt:
        ray.get(desk.stop.remote())
        ray.wait(runs[:1])  # It saves the state, which takes what it takes.
        raise
    history: list[dict[str, Any]] = ray.get(runs[0])
    return history


def tell_all(ray: Any, desk: Any, told: Watch) -> None:
    """Pass on what lies on the desk."""
    for what, values in ray.get(desk.take.remote()):
        if what == "step":
            told.step(*values)
        else:
            told.epoch(*values)


def require_well(ray: Any, run: Any, others: Sequence[Any]) -> None:
    """Look how a process ended, and what is behind it: those that lose another one fail, too.

    Raises:
        LostError: it, or another one, was lost.
        EarshotError: it, or another one, cannot go on.
    """
    faults = [fault for fault in [ended(ray, run)] if fault is not None]
    if not faults:
        return
    over, _ = ray.wait(list(others), num_returns=len(others), timeout=END_S) if others else ([], [])
    faults += [fault for fault in (ended(ray, other) for other in over) if fault is not None]
    for fault in faults:
        if isinstance(fault, EarshotError):
            raise fault
    for fault in faults:
        if isinstance(fault, signs_of_loss(ray)):
            raise LostError(last_line(fault)) from fault
    raise faults[0]


def ended(ray: Any, run: Any) -> Exception | None:
    """What went wrong in a process that has ended, if anything."""
    try:
        found = ray.get(run)
    except ray.exceptions.RayError as error:
        fault: Exception = error
        return fault
    return found if isinstance(found, EarshotError) else None


def wants_gpus(job: Job, nodes: Sequence[Mapping[str, Any]]) -> bool:
    """Whether each process is to have a GPU.

    Raises:
        EarshotError: there are not so many machines with so many cores or GPUs.
    """
    there = [node["Resources"] for node in nodes if node["Alive"]]

    def machines(kind: str) -> int:
        return sum(resources.get(kind, 0) >= job.processes for resources in there)

    gpus = job.device == "cuda" or (job.device == "auto" and machines("GPU") > 0)
    for kind, name in list(NAMES.items())[: 1 + gpus]:
        if machines(kind) < job.machines:
            raise EarshotError(
                f"{machines(kind)} machines of the cluster have {job.processes} {name}, and "
                f"--machines is {job.machines}; give fewer --processes, or start more machines"
            )
    return gpus
