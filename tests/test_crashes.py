"""Nothing is lost: kills, power loss, full disks, permissions, two writers, wrong clocks.

After each fault a command is run again, and what comes out must equal what an undisturbed run
makes; no file may be left that such a run does not leave. A sample runs with the tests, all of it
by `make reliability`.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import program
from conftest import make_recordings
from crash_tasks import TASKS, Material, Place, Task, same
from crashes import Run, Server

from earshot.datasets.soundscape import write_soundscapes
from earshot.files import package_folder
from earshot.model import load
from earshot.store import LanceStore
from earshot.types import EarshotError

pytest.importorskip("lancedb", reason="indexes on disk need earshot[index]")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and fork")

LONG = pytest.mark.reliability
KILLS, LOSSES = 100, 30
LARGE_BYTES = 256 << 20
OTHER_SHARES = (0.05, 0.2, 0.8, 0.95)
"""Of the room that a command needs, how much there is."""
READ_ONLY = 0o555
YEAR_S = 365 * 86_400.0
REFUSED = "another process|already; give another|holds a run"
KILLS_OF_ONE = 5
"""So often one and the same work is killed before it may finish."""


@dataclass(frozen=True, kw_only=True)
class Whole:
    """An undisturbed run: what came out, which files it left, how long it took."""

    outcome: Mapping[str, Any]
    tree: set[str]
    duration_s: float


class Bench:
    """The material of all cases, and undisturbed runs, each made when it is first asked for."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.folder, self.made = folder, 0
        data = folder / "data"
        for split, scenes in (("train", 5), ("validation", 3)):
            write_soundscapes(data / split, split=split, scenes=scenes)
        make_recordings(folder / "sounds", 9)
        (folder / "sounds" / "broken.wav").write_bytes(b"RIFF")
        self.material = Material(
            server=server,
            sounds=folder / "sounds",
            data=data,
            index=folder / "whole-index" / "out",
            run=folder / "whole-train" / "out",
        )
        self._whole: dict[str, Whole] = {}

    def whole(self, task: Task) -> Whole:
        """The undisturbed run of a task, after what it needs of others."""
        for needed in {"migrate": ["index"], "teach": ["train"]}.get(task.name, []):
            self.whole(TASKS[needed])
        if task.name not in self._whole:
            place = task.place(self.material, self.folder / f"whole-{task.name}")
            ended = task.run(self.material, place)
            assert ended.code == 0, ended.errors
            self._whole[task.name] = Whole(
                outcome=task.outcome(place), tree=place.tree(), duration_s=ended.duration_s
            )
        return self._whole[task.name]

    def place(self, task: Task) -> Place:
        """A place for the next case."""
        self.whole(task)
        self.made += 1
        return task.place(self.material, self.folder / f"case-{self.made}")

    def finishes(self, task: Task, place: Place, **conditions: Any) -> None:
        """The command is run again: it ends as if nothing had been, and leaves no other file."""
        outcome = task.finish(self.material, place, **conditions)
        whole = self.whole(task)
        assert outcome.keys() == whole.outcome.keys()
        assert [name for name in outcome if not same(outcome[name], whole.outcome[name])] == []
        assert place.tree() == whole.tree


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("crashes")
    (folder / "told").mkdir()
    with Server(folder / "told") as server:
        yield Bench(server, folder)


def sampled(*names: str) -> pytest.MarkDecorator:
    """Every task; those of these names run with the tests, the others by `make reliability`."""
    marks = {name: () if name in names else LONG for name in TASKS}
    each = [pytest.param(task, id=name, marks=marks[name]) for name, task in TASKS.items()]
    return pytest.mark.parametrize("task", each)


tasks = sampled()


# Kills


def killed(
    bench: Bench, task: Task, place: Place, chance: random.Random, **conditions: Any
) -> Run | None:
    """Begin the command and kill it: after a share of its usual time, or as something is written.

    Gives the killed run, or None where it came to its end before.
    """
    usual_s = bench.whole(task).duration_s
    words = task.words(bench.material, place)
    run = bench.material.server.start(words, place.conditions(**conditions))
    changes, share = (chance.randint(1, 12), 1.0) if chance.random() < 0.5 else (0, chance.random())
    until_s, before = time.monotonic() + share * usual_s, place.stamps()
    while time.monotonic() < until_s and not run.ended():
        if changes:
            now = place.stamps()
            changes, before = changes - (now != before), now
            if not changes:
                break
        time.sleep(0.001)
    run.kill()
    ended = run.wait()
    assert ended.code in (-9, 0) or task.done_before in ended.refusal, ended.errors
    return run if ended.code == -9 else None


def kill_and_compare(bench: Bench, task: Task, kills: int, seed: int) -> None:
    """Kill a command so often, letting it finish now and then, and compare."""
    chance, left = random.Random(f"{task.name} {seed}"), kills
    while left:
        place = bench.place(task)
        for _ in range(min(left, KILLS_OF_ONE)):
            if not killed(bench, task, place, chance):
                break
            left -= 1
        bench.finishes(task, place)


@sampled("index", "pack", "teach")
def test_killed_a_few_times_it_ends_the_same(bench: Bench, task: Task) -> None:
    kill_and_compare(bench, task, 2, seed=0)


@tasks
def test_killed_a_hundred_times_it_ends_the_same(bench: Bench, task: Task) -> None:
    kill_and_compare(bench, task, KILLS, seed=1)


# Loss of power


def lose_power(place: Place, safe: Collection[Path], run: Run, chance: random.Random) -> None:
    """Do to what was written last what a loss of power may do: cut it off, or zeros at its end."""
    found = [
        path
        for path in place.files()
        if path.stat().st_size and path not in safe and not run.is_safe(path)
    ]
    found.sort(key=lambda path: path.stat().st_mtime_ns)
    for path in found[-chance.randint(1, 3) :]:
        content = path.read_bytes()
        kept = content[: chance.randrange(len(content))]
        path.write_bytes(kept if chance.random() < 0.5 else kept.ljust(len(content), b"\0"))


def lose_power_and_compare(bench: Bench, task: Task, losses: int, seed: int) -> int:
    """After a loss of power: the right result, or one line that names what is damaged.

    What was not brought to the disk is at risk, also what came to its place by a new name. Gives
    how many losses were recovered from.
    """
    chance = random.Random(f"power {task.name} {seed}")
    lost = recovered = 0
    while lost < losses:
        place = bench.place(task)
        before = place.stamps()
        if not (run := killed(bench, task, place, chance)):
            continue
        lost += 1
        old = {path for path, *_ in set(before) & set(place.stamps())}
        lose_power(place, old, run, chance)
        ended = task.run(bench.material, place)
        if ended.code == 0:
            assert differences(task, place, bench.whole(task)) == []
            recovered += 1
        else:
            assert str(place.path) in ended.refusal
    # Shown by -s; the figures of docs/reliability.md.
    print(f"{task.name}: {recovered} of {losses} losses of power recovered from")  # noqa: T201
    return recovered


def differences(task: Task, place: Place, whole: Whole) -> list[str]:
    """What is not as in an undisturbed run."""
    found = task.outcome(place)
    names = whole.outcome.keys() | found.keys()
    return [name for name in names if not same(found.get(name), whole.outcome.get(name))]


@sampled("index")
def test_what_a_loss_of_power_damaged_is_made_again_or_named(bench: Bench, task: Task) -> None:
    lose_power_and_compare(bench, task, 2, seed=0)


@tasks
def test_many_losses_of_power(bench: Bench, task: Task) -> None:
    # To name what is damaged each time would be no help.
    assert lose_power_and_compare(bench, task, LOSSES, seed=1) > LOSSES / 2


@sampled("teach")
def test_a_file_that_is_cut_off_is_made_again_or_named(bench: Bench, task: Task) -> None:
    cut_and_compare(bench, task, 2, seed=0)


@tasks
def test_many_files_that_are_cut_off(bench: Bench, task: Task) -> None:
    cut_and_compare(bench, task, LOSSES, seed=1)


def cut_and_compare(bench: Bench, task: Task, files: int, seed: int) -> None:
    """Any file of a finished run is cut off, brought to the disk or not: as after a loss of power.

    What is not noticed by the next run is when it is read.
    """
    chance = random.Random(f"cut {task.name} {seed}")
    for _ in range(files):
        place = bench.place(task)
        killed(bench, task, place, chance)
        found = [path for path in place.files() if path.stat().st_size]
        if not found:
            continue
        path = chance.choice(sorted(found))
        with path.open("r+b") as file:
            file.truncate(chance.randrange(path.stat().st_size))
        ended = task.run(bench.material, place)
        if ended.code != 0 and task.done_before not in ended.refusal:
            assert str(place.path) in ended.refusal
            continue
        try:
            wrong = differences(task, place, bench.whole(task))
        except EarshotError as error:
            assert str(place.path) in str(error)
        else:
            assert [name for name in wrong if not is_refused(place.out / name)] == []


def is_refused(path: Path) -> bool:
    """Whether the model that a file belongs to is refused, and the file is named."""
    model = path.parent.parent if path.parent.name == "text" else path.parent
    with pytest.raises(EarshotError, match=re.escape(str(model))):
        load(str(model), "cpu")
    return True


# Full disks


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A disk in memory, whose size may be changed."""

    path: Path

    @property
    def used_bytes(self) -> int:
        """How much is taken."""
        stat = os.statvfs(self.path)
        return (stat.f_blocks - stat.f_bfree) * stat.f_frsize

    def resize(self, size_bytes: int) -> None:
        """Make it larger or smaller; never smaller than what is on it."""
        options = f"remount,size={size_bytes}"
        subprocess.run(["mount", "-o", options, self.path], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={LARGE_BYTES}", "none", folder]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield Disk(path=folder)
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("share", [0.5, *(pytest.param(s, marks=LONG) for s in OTHER_SHARES)])
@sampled("pack")
def test_on_a_full_disk_it_says_so_and_goes_on_later(
    bench: Bench, task: Task, disk: Disk, share: float
) -> None:
    bench.whole(task)
    trial = task.place(bench.material, disk.path / "trial")
    before_bytes = disk.used_bytes
    assert task.run(bench.material, trial).code == 0
    needed_bytes = disk.used_bytes - before_bytes
    shutil.rmtree(trial.path)
    place = task.place(bench.material, disk.path / "place")
    room_bytes = max(4096, int(share * needed_bytes) // 4096 * 4096)  # Of 0 there is no limit.
    disk.resize(disk.used_bytes + room_bytes)
    refusal = task.run(bench.material, place).refusal.lower()
    assert "no space left" in refusal or "no room" in refusal
    disk.resize(LARGE_BYTES)
    bench.finishes(task, place)


# Permissions


@contextmanager
def forbidden(*folders: Path, mode: int) -> Iterator[None]:
    """Take rights from folders and what is in them for a while."""
    paths = [path for folder in folders for path in (*folder.rglob("*"), folder)]
    modes = {path: path.stat().st_mode for path in paths}
    for path, before in modes.items():
        path.chmod(before & mode)
    try:
        yield
    finally:
        for path in reversed(paths):
            path.chmod(modes[path])


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Take the right to make new names in a folder for a while."""
    mode = folder.stat().st_mode
    folder.chmod(mode & READ_ONLY)
    try:
        yield
    finally:
        folder.chmod(mode)


@sampled("pack")
def test_what_is_read_may_be_read_only(bench: Bench, task: Task) -> None:
    material, place = bench.material, bench.place(task)
    bench.whole(TASKS["teach"])
    folders = (material.sounds, material.data, material.run)
    with forbidden(*folders, mode=READ_ONLY):
        bench.finishes(task, place, obeys_permissions=True)


@sampled("index")
def test_what_cannot_be_written_is_said(bench: Bench, task: Task) -> None:
    place = bench.place(task)
    place.out.mkdir(exist_ok=True)
    before = place.tree()
    with forbidden(place.out, mode=READ_ONLY), unwritable(place.path):
        refusal = task.run(bench.material, place, obeys_permissions=True).refusal
    assert str(place.out) in refusal
    assert place.tree() - before <= {"home/cache/tiny-text-1.lock"} | {
        name for name in bench.whole(task).tree if name.startswith("home/")
    }
    bench.finishes(task, place)


@pytest.mark.parametrize(
    "mode", [READ_ONLY, pytest.param(0, marks=LONG)], ids=["read-only", "unreadable"]
)
@sampled("pack")
def test_without_a_cache_it_works_or_says_so(bench: Bench, task: Task, mode: int) -> None:
    place = bench.place(task)
    home = place.path / "home"
    with forbidden(home, mode=mode):
        if task.name == "train":  # The tiny text encoder is kept there.
            assert str(home) in task.run(bench.material, place, obeys_permissions=True).refusal
        else:
            bench.finishes(task, place, obeys_permissions=True)
    bench.finishes(task, place)


# Two writers


def write_at_once(bench: Bench, task: Task, rounds: int) -> None:
    """Two of a command: both are right, or one is refused; then all is as if there had been one."""
    chance = random.Random(f"two {task.name}")
    for _ in range(rounds):
        place = bench.place(task)
        words, start = task.words(bench.material, place), bench.material.server.start
        runs = [start(words, place.conditions())]
        time.sleep(chance.random() * bench.whole(task).duration_s)
        runs.append(start(task.words(bench.material, place), place.conditions()))
        ended = [run.wait() for run in runs]
        refusals = [one.refusal for one in ended if one.code]
        assert len(refusals) < 2, refusals
        assert all(re.search(REFUSED, refusal) for refusal in refusals), refusals
        bench.finishes(task, place)


@sampled("teach")
def test_two_at_once(bench: Bench, task: Task) -> None:
    write_at_once(bench, task, 1)


@tasks
def test_two_at_once_ten_times(bench: Bench, task: Task) -> None:
    write_at_once(bench, task, 10)


# Clocks


def clock_and_compare(bench: Bench, task: Task, shifts_s: Sequence[float]) -> None:
    """Killed under one clock, going on under another; files have times of the first."""
    chance = random.Random(f"clock {task.name}")
    place = bench.place(task)
    for shift_s in shifts_s:
        killed(bench, task, place, chance, clock_shift_s=shift_s)
        for path in place.files():
            os.utime(path, (time.time() + shift_s, time.time() + shift_s))
    bench.finishes(task, place, clock_shift_s=shifts_s[0] / 2)


@pytest.mark.parametrize("years", [pytest.param(1, marks=LONG), -10])
@sampled("pack")
def test_the_clock_may_be_wrong(bench: Bench, task: Task, years: int) -> None:
    clock_and_compare(bench, task, [years * YEAR_S])


def fake_clock() -> Path:
    """The library that tells a process a wrong time; the test is skipped where it is absent."""
    installed = package_folder("libfaketime", "vendor/libfaketime/src")
    found = [*Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]
    found += [installed / "libfaketime.so.1"] if installed else []
    if not found:
        pytest.skip("needs libfaketime (PyPI libfaketime, Debian faketime)")
    return found[0]


@pytest.mark.reliability
def test_the_clock_may_be_wrong_for_the_store_too(bench: Bench) -> None:
    """LanceDB's own times of versions, which decide what is deleted, are faked as well."""
    task, library = TASKS["index"], str(fake_clock())
    place = bench.place(task)
    recordings = sorted(bench.material.sounds.glob("0*.wav"))
    for years, count in ((1, 2), (-10, 5), (3, 7), (-1, 9)):
        words = ("index", *recordings[:count], *task.words(bench.material, place)[2:])
        variables = {**place.conditions().environment, "LD_PRELOAD": library}
        done = program(
            *words, FAKETIME=f"{years:+}y", FAKETIME_DONT_FAKE_MONOTONIC="1", **variables
        )
        assert done.returncode == 0, done.stderr
        assert len(LanceStore.open(str(place.out)).files()) == count
    bench.finishes(task, place)
