"""Indexing by threads beside indexing on a Ray cluster: two nodes on this machine, one core each.

The same recordings, model and cores: one thread, two threads, two Ray nodes with a worker each, and
the same with a worker killed by the system in the middle. Each in a fresh process, in turn, into an
index on disk; then the indexes are compared to the bit. Both nodes share this machine's cores, so
what Ray costs shows, and what more machines bring does not. Processor seconds are those of all
processes of a run (but the killed one); they say more than the wall's where the machine is shared.

    python benchmarks/ray_index.py FOLDER [--rounds 3]

Needs real weights (EARSHOT_ASSETS) and the extras index and distributed; Linux (/proc).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

RESULT = Path(__file__).with_suffix(".json")
WAYS = ("one thread", "two threads", "two ray nodes", "two ray nodes, a worker killed")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
OBJECT_STORE_BYTES = 100 << 20
KILL_AFTER_FILES = 100


def run(way: str, folder: Path, out: str) -> dict[str, Any]:
    """Index a folder one way; the figures of the run."""
    from earshot.library import index, open_or_create

    store, model = open_or_create(out, "tags", "cpu")
    model.embed_audio([np.zeros(32_000, dtype=np.float32)])  # Load everything before timing.
    if not way.startswith("two ray"):
        started = Clock()
        summary = index([folder], store, model, workers=1 if way == "one thread" else 2)
        return figures(summary, started)
    from earshot.cluster import ClusterConfig, connected, on_cluster
    from earshot.library import Progress, carry_out, compare

    killer = Killer(after_files=KILL_AFTER_FILES if way.endswith("killed") else None)

    def report(progress: Progress) -> None:
        killer.at(progress.files_done)

    starting = Clock()
    with two_nodes() as address:
        config = ClusterConfig(address=address, workers=2)
        with connected(config):
            started = Clock()
            plan = compare([folder], store.files())
            hear = on_cluster(config, store.manifest)
            summary = carry_out(plan, store, model, hear=hear, report=report)
            found = figures(summary, started)
    return {**found, "start_nodes_s": started.wall_s - starting.wall_s, "killed": killer.killed}


@contextmanager
def two_nodes() -> Iterator[str]:
    """A cluster of two nodes with a core each; gives its address."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": OBJECT_STORE_BYTES}
    head = {**node, "include_dashboard": False}
    cluster: Any = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(**node)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


class Killer:
    """Kills one worker process of the cluster, once, when so many files are done."""

    def __init__(self, after_files: int | None) -> None:
        self.after_files, self.killed = after_files, 0
        self.lock = threading.Lock()

    def at(self, files_done: int) -> None:
        """Look whether it is time."""
        with self.lock:
            if self.killed or self.after_files is None or files_done < self.after_files:
                return
            worker = next(p for p in descendants() if b"MapWorker" in command_of(p))
            os.kill(worker, signal.SIGKILL)
            self.killed = 1


class Clock:
    """When something began, in wall and processor seconds of this process and all below it."""

    def __init__(self) -> None:
        self.wall_s, self.cpu_s = time.monotonic(), cpu_seconds()


def figures(summary: Any, started: Clock) -> dict[str, Any]:
    """Seconds and rates of a run that ends now."""
    wall_s, cpu_s = time.monotonic() - started.wall_s, cpu_seconds() - started.cpu_s
    return {
        "files": summary.added,
        "broken": len(summary.broken),
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "files_per_s": summary.added / wall_s,
        "times_real_time": summary.audio_s / wall_s,
        "files_per_cpu_s": summary.added / cpu_s,
    }


def cpu_seconds() -> float:
    """Processor seconds of this process and its descendants, ended children included."""
    return sum(ticks_of(p) for p in (os.getpid(), *descendants())) / TICKS_PER_S


def descendants() -> list[int]:
    """The processes below this one."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := fields_of(int(entry.name))):
            parents[int(entry.name)] = int(fields[1])
    below = {os.getpid()}
    while more := {p for p, parent in parents.items() if parent in below} - below:
        below |= more
    return sorted(below - {os.getpid()})


def fields_of(process: int) -> list[str]:
    """What the system tells of a process from its state on; nothing when it has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []


def ticks_of(process: int) -> int:
    return sum(map(int, fields_of(process)[11:15]))


def command_of(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def measure(way: str, folder: Path, out: str) -> dict[str, Any]:
    """Run one way in a fresh process."""
    command = [sys.executable, __file__, str(folder), "--way", way, "--out", out]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(way, found, flush=True)
    return found


def same(a: str, b: str) -> bool:
    """Whether two indexes hold the same records, segments and vectors, to the bit."""
    from earshot.store import open_store

    left, right = open_store(a), open_store(b)
    if left.files() != right.files():
        return False
    files, others = left.segments(left.files()), right.segments(right.files())
    return all(
        file.segments == others[path].segments
        and np.array_equal(file.vectors, others[path].vectors)
        for path, file in files.items()
    )


def compare_ways(folder: Path, rounds: int) -> dict[str, Any]:
    """All ways in turn; medians over rounds, and whether the indexes are the same."""
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    equal = dict.fromkeys(WAYS, True)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as home:
            places = {way: f"{home}/{number}" for number, way in enumerate(WAYS)}
            for way, place in places.items():
                runs[way].append(measure(way, folder, place))
                equal[way] = equal[way] and same(places[WAYS[0]], place)
    return {
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "load_average": os.getloadavg(),
        "folder": folder.name,
        "rounds": rounds,
        "ways": {
            way: {
                **{key: median(found[key] for found in results) for key in results[0]},
                "same_as_one_thread": equal[way],
            }
            for way, results in runs.items()
        },
        "runs": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--out", default="")
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(run(arguments.way, arguments.folder, arguments.out)))
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    # Else the other work of the machine goes first. Ray has its own way with capitals.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    os.environ["RAY_agent_register_timeout_ms"] = "200000"  # noqa: SIM112 - of a busy one, too
    result = compare_ways(arguments.folder, arguments.rounds)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
