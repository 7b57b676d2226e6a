"""Indexing by threads beside indexing on a Ray cluster, on one machine.

The same recordings and model: one thread, two threads, a Ray of this machine with two workers, two
Ray nodes with a worker each, and the same with a worker killed in the middle. Each in
a fresh process, in turn, into an index on disk; then the indexes are compared to the bit. Both
nodes share this machine's cores, so what Ray costs shows, and what more machines bring does not.
Run it on a machine that does nothing else.

    python benchmarks/ray_index.py FOLDER [--files 200]        adds a round to the JSON beside it

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
WAYS = (
    "one thread",
    "two threads",
    "ray local, two workers",
    "two ray nodes",
    "two ray nodes, a worker killed",
)
OBJECT_STORE_BYTES = 100 << 20
KILL_AFTER_SHARE = 0.4


def run(way: str, paths: list[str], out: str) -> dict[str, Any]:
    """Index files one way; the figures of the run."""
    from earshot.library import Progress, carry_out, compare, index, open_or_create

    store, model = open_or_create(out, "tags", "cpu")
    if "ray" not in way:
        model.embed_audio([np.zeros(32_000, dtype=np.float32)])  # Load everything before timing.
        began_s = time.monotonic()
        summary = index(paths, store, model, workers=1 if way == "one thread" else 2)
        return figures(summary, began_s)
    from earshot.cluster import ClusterConfig, connected
    from earshot.remote import on_cluster

    killer = Killer(after_files=KILL_AFTER_SHARE * len(paths) if way.endswith("killed") else None)
    first: list[float] = []

    def report(progress: Progress) -> None:
        if progress.files_done and not first:
            first.append(progress.elapsed_s)
        killer.at(progress.files_done)

    before_s = time.monotonic()
    with nodes_of(way) as address:
        config = ClusterConfig(address=address, workers=2)
        with connected(config):
            began_s = time.monotonic()
            plan = compare(paths, store.files())
            hear = on_cluster(config, store.manifest)
            summary = carry_out(plan, store, model, hear=hear, report=report)
            found = figures(summary, began_s)
    return {
        **found,
        "start_ray_s": began_s - before_s,
        "first_file_s": first[0],
        "files_per_s_from_then": len(paths) / (found["wall_s"] - first[0]),
        "killed": killer.killed,
    }


@contextmanager
def nodes_of(way: str) -> Iterator[str]:
    """The Ray of a way; gives its address."""
    if way.startswith("two ray nodes"):
        with two_nodes() as address:
            yield address
    else:
        yield "local"


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

    def __init__(self, after_files: float | None) -> None:
        self.after_files, self.killed = after_files, 0
        self.lock = threading.Lock()

    def at(self, files_done: int) -> None:
        """Look whether it is time."""
        with self.lock:
            if self.killed or self.after_files is None or files_done < self.after_files:
                return
            worker = next(p for p in descendants() if command_of(p).startswith(b"ray::Worker"))
            os.kill(worker, signal.SIGKILL)
            self.killed = 1


def figures(summary: Any, began_s: float) -> dict[str, Any]:
    """Seconds and rates of a run that ends now."""
    wall_s = time.monotonic() - began_s
    return {
        "files": summary.added,
        "broken": len(summary.broken),
        "wall_s": wall_s,
        "files_per_s": summary.added / wall_s,
        "times_real_time": summary.audio_s / wall_s,
    }


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


def command_of(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def measure(way: str, paths: list[str], out: str) -> dict[str, Any]:
    """Run one way in a fresh process."""
    command = [sys.executable, __file__, *paths, "--way", way, "--out", out]
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


def one_round(paths: list[str]) -> dict[str, Any]:
    """All ways in turn, and whether their indexes are the same."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as home:
        places = {way: f"{home}/{number}" for number, way in enumerate(WAYS)}
        for way, place in places.items():
            figures_ = measure(way, paths, place)
            found[way] = {**figures_, "same_as_one_thread": same(places[WAYS[0]], place)}
    return {"load_average": os.getloadavg(), "ways": found}


def medians(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each way's figures; the same only if they were in all rounds."""
    found = {}
    for way in WAYS:
        runs = [each["ways"][way] for each in rounds]
        found[way] = {key: median(run[key] for run in runs) for key in runs[0]}
        found[way]["same_as_one_thread"] = all(run["same_as_one_thread"] for run in runs)
    return found


def files_of(one: dict[str, Any]) -> int:
    """How many files a round heard."""
    return int(one["ways"][WAYS[0]]["files"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--out", default="")
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(run(arguments.way, arguments.paths, arguments.out)))
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    # Else the other work of the machine goes first. Ray has its own way with capitals.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    os.environ["RAY_agent_register_timeout_ms"] = "200000"  # noqa: SIM112 - of a busy one, too
    from earshot.folders import collect

    paths = collect(arguments.paths)[: arguments.files]
    before = json.loads(RESULT.read_text())["rounds"] if RESULT.exists() else []
    rounds = [*before, one_round(paths)]
    result = {
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "files": len(paths),
        "medians": medians([each for each in rounds if files_of(each) == len(paths)]),
        "rounds": rounds,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["medians"], indent=2))


if __name__ == "__main__":
    main()
