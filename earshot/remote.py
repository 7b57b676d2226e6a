"""Hearing files by workers on a cluster: the groups that threads take here, taken by actors there.

One idea: a worker has one group at a time and gets the next when it has answered, so that no more
than an answer of each waits here, however slowly they are written. Inside, a worker hears as
`earshot.isolated` does: a file that ends its decoder ends no worker. What is left is a worker that
is lost with its machine: another one is asked for, and its group is heard again, as a whole, so
that its batches, hence its vectors, are the same.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from earshot.cluster import ClusterConfig, import_ray, last_line, signs_of_loss, variables
from earshot.embed import groups
from earshot.isolated import IsolatedHearing
from earshot.library import Hear
from earshot.types import EarshotError, EmbeddedFile, Manifest

# So often workers may be lost at one group, or none get as far as to be ready.
MOST_LOSSES = 5
# So often is looked whether there is room for more.
LOOK_S = 10.0


class Worker:
    """Hears groups of files, one at a time; the actor of a cluster."""

    def __init__(
        self, manifest: Manifest, name: str | None, device: str, environment: Mapping[str, str]
    ) -> None:
        os.environ.update(environment)  # This process is the worker's own.
        self.hearing = IsolatedHearing(manifest, name=name, device=device, workers=1)

    def ready(self) -> list[EmbeddedFile]:
        """Answer when it has been started."""
        return []

    def hear(self, paths: Sequence[str]) -> list[EmbeddedFile] | EarshotError:
        """Embed a group as a thread does; gives the error where there is no working here."""
        try:
            return list(self.hearing(paths, lambda seconds: None))
        except EarshotError as error:
            return EarshotError(f"a worker on {socket.gethostname()}: {error}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A worker and what it was given; nothing while it is being started."""

    worker: Any
    group: tuple[str, ...] = ()


class Crew:
    """The workers of a run, each with one thing to do or on its way."""

    def __init__(
        self,
        config: ClusterConfig,
        manifest: Manifest,
        groups_: Sequence[Any],
        name: str | None = None,
    ) -> None:
        self.ray, self.config, self.manifest, self.name = import_ray(), config, manifest, name
        self.waiting = deque(map(tuple, groups_))
        self.turns: dict[Any, Turn] = {}
        self.losses: Counter[tuple[str, ...]] = Counter()
        self.looked_s = -LOOK_S

    def enlist(self) -> None:
        """Ask for workers, as many as there is room and work for."""
        if time.monotonic() - self.looked_s < LOOK_S:
            return
        self.looked_s = time.monotonic()
        wanted = room(self.ray.cluster_resources(), self.config)
        for _ in range(min(wanted - len(self.turns), len(self.waiting))):
            self.start()

    def start(self) -> None:
        """Ask for a worker; where there is no room for it now, it starts when there is."""
        actor = self.ray.remote(Worker).options(
            num_cpus=1, num_gpus=self.config.gpus_per_worker, scheduling_strategy="SPREAD"
        )
        worker = actor.remote(self.manifest, self.name, self.config.device, variables())
        self.turns[worker.ready.remote()] = Turn(worker=worker)

    def answers(self) -> Iterator[EmbeddedFile]:
        """The files of all groups as they are heard.

        Raises:
            EarshotError: a worker cannot work, or too many are lost.
        """
        while self.waiting or any(turn.group for turn in self.turns.values()):
            self.enlist()
            done, _ = self.ray.wait(list(self.turns), timeout=LOOK_S)
            for answered in done:
                turn = self.turns.pop(answered)
                files = self.taken(answered, turn)
                if files is None:
                    self.start()
                    continue
                if self.waiting:
                    group = self.waiting.popleft()
                    self.turns[turn.worker.hear.remote(group)] = Turn(
                        worker=turn.worker, group=group
                    )
                yield from files

    def taken(self, answered: Any, turn: Turn) -> list[EmbeddedFile] | None:
        """What a worker answers; None if it was lost, and what it had is another's to do.

        Raises:
            EarshotError: it cannot work, or too many are lost.
        """
        try:
            found = self.ray.get(answered)
        except signs_of_loss(self.ray) as error:
            self.losses[turn.group] += 1
            if self.losses[turn.group] >= MOST_LOSSES:
                raise given_up(turn, error) from error
            if turn.group:
                self.waiting.appendleft(turn.group)
            return None
        if isinstance(found, EarshotError):
            raise found
        self.losses[()] = 0
        return list(found)


def given_up(turn: Turn, error: Exception) -> EarshotError:
    """What is said when no worker lasts."""
    if turn.group:
        return EarshotError(
            f"workers were lost {MOST_LOSSES} times at the same files, from {turn.group[0]} on; is "
            f"there too little memory for the model? Give fewer --workers; what was written stays"
        )
    return EarshotError(
        f"no worker of the cluster could be started, {MOST_LOSSES} times: {last_line(error)}; all "
        f"its machines need the same versions of earshot and Python"
    )


def on_cluster(config: ClusterConfig, manifest: Manifest, name: str | None = None) -> Hear:
    """What hears files for `earshot.library.carry_out` on the cluster that is `connected`.

    Workers find the model where the index says, or by another `name` that it has now.
    """

    def hear(paths: Sequence[str], heard: Callable[[float], None]) -> Iterator[EmbeddedFile]:
        crew = Crew(config, manifest, list(groups(paths)), name)
        try:
            for file in crew.answers():
                heard(file.record.duration_s)
                yield file
        except crew.ray.exceptions.RayError as error:
            raise EarshotError(
                f"the cluster gave up: {last_line(error)}; run it again to go on"
            ) from error

    return hear


def room(resources: Mapping[str, float], config: ClusterConfig) -> int:
    """How many workers to ask for.

    Raises:
        EarshotError: they are to have GPUs, and there are none.
    """
    gpus = resources.get("GPU", 0)
    if config.gpus_per_worker > gpus:
        raise EarshotError(
            f"the cluster has {gpus:g} GPUs, and a worker is to have {config.gpus_per_worker:g}"
            f"; start a node that has some, or leave --gpus-per-worker out"
        )
    if config.workers:
        return config.workers
    most = int(resources.get("CPU", 0))
    if config.gpus_per_worker:
        most = min(most, int(gpus / config.gpus_per_worker))
    return max(1, most)
