"""How many cores may be used: what the process is bound to, and the quotas of its groups."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from earshot.cores import bound_cores, quota_cores, usable_cores


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A system whose process is in `groups`, with these files of control groups."""
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V1 = "12:cpu,cpuacct:/docker/7f\n5:memory:/docker/7f\n1:name=systemd:/docker/7f\n"


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {}, float("inf")),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, float("inf")),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        # The quota of a group above holds, too.
        (
            "0::/a.slice/b.scope\n",
            {
                "sys/fs/cgroup/a.slice/b.scope/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/a.slice/cpu.max": "50000 100000\n",
            },
            0.5,
        ),
        # That of a group beside it does not.
        ("0::/a\n", {"sys/fs/cgroup/b/cpu.max": "100000 100000\n"}, float("inf")),
        (
            V1,
            {
                "sys/fs/cgroup/cpu/docker/7f/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/docker/7f/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        # In a container of its own the group is the root.
        (
            V1,
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            2.0,
        ),
        (
            V1,
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            float("inf"),
        ),
    ],
)
def test_quotas(tmp_path: Path, groups: str, files: dict[str, str], cores: float) -> None:
    assert quota_cores(machine(tmp_path, groups, files)) == cores


def test_the_smaller_of_both_counts(tmp_path: Path) -> None:
    tight = machine(tmp_path, "0::/\n", {"sys/fs/cgroup/cpu.max": "20000 100000\n"})
    assert usable_cores(tight) == 1
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("99900000 100000\n")
    assert usable_cores(tight) == bound_cores()


def test_a_system_without_groups(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == bound_cores()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no processes")
def test_a_bound_process_knows_it() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from earshot.cores import usable_cores; print(usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
