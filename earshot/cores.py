"""How many processor cores this process may use: what it is bound to, and its group's quota.

A container, a job of a cluster or `taskset` may give a process less than the machine has. Threads
beyond that wait for each other, and a quota stops all of them until the next period.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def usable_cores(root: Path = ROOT) -> int:
    """The number of cores, at least 1; `root` holds the system's `proc` and `sys`."""
    return max(1, math.ceil(min(bound_cores(), quota_cores(root))))


def bound_cores() -> int:
    """The cores that the scheduler may run this process on."""
    if hasattr(os, "sched_getaffinity"):  # Linux; other systems bind no processes.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota_cores(root: Path = ROOT) -> float:
    """The lowest quota of the process's control groups in cores; infinity without one."""
    return min(quotas(root), default=math.inf)


def quotas(root: Path) -> Iterator[float]:
    """The quotas of all control groups that the process is in, of versions 1 and 2."""
    for line in lines_of(root / "proc/self/cgroup"):
        _, kinds, place = line.split(":", 2)
        if kinds and "cpu" not in kinds.split(","):
            continue
        mounted = root / "sys/fs/cgroup" / ("cpu" if kinds else "")
        # Inside a container the group may be mounted as the root; then its path leads nowhere.
        inner = mounted / place.lstrip("/")
        for group in {mounted, inner, *inner.parents} - set(mounted.parents):
            yield from quota_of(group)


def quota_of(group: Path) -> Iterator[float]:
    """The quota of one group, if it has one: time of cores in each period."""
    both = lines_of(group / "cpu.max")
    apart = lines_of(group / "cpu.cfs_quota_us") + lines_of(group / "cpu.cfs_period_us")
    for words in (" ".join(both).split(), apart):
        # Without a quota the first is "max", or -1.
        if len(words) == 2 and words[0].isdigit():
            yield int(words[0]) / int(words[1])


def lines_of(path: Path) -> list[str]:
    """The lines of a file, none if it cannot be read."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
