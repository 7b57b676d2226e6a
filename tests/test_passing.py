"""Folders that pass with their process, and locks where others may put what they like."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from earshot.files import locked
from earshot.files.passing import PLACE, forget_the_dead, lock_of, machine, passing_folder
from earshot.types import EarshotError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing is locked there")

HOLDER = """
import time
from earshot.files.passing import passing_folder

with passing_folder() as folder:
    (folder / "a.wav").touch()
    print(folder, flush=True)
    time.sleep(100)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EARSHOT_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / PLACE


def test_it_is_one_s_own_and_gone_at_the_end(place: Path) -> None:
    with passing_folder() as folder, passing_folder() as other:
        assert folder.parent == other.parent == place
        assert folder != other
        assert {path.stat().st_mode & 0o777 for path in (place, folder, other)} == {0o700}
        (folder / "a.wav").touch()
    assert list(place.iterdir()) == []


def test_those_of_killed_processes_are_removed(place: Path) -> None:
    """Those alone: not what is held, of another machine, without its lock, of other names."""
    (place / "other").mkdir(parents=True)
    processes = [
        subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        held, left = (Path(process.stdout.readline().strip()) for process in processes)
        assert {held.parent, left.parent} == {place}
        (place / f"{machine()}-begun").mkdir()
        elsewhere = place / "elsewhere-1"
        shutil.copytree(left, elsewhere)
        lock_of(elsewhere).touch()
        processes[1].kill()
        processes[1].wait()
        forget_the_dead.cache_clear()
        forget_the_dead(place)
        assert not left.exists()
        assert not lock_of(left).exists()
        assert (held / "a.wav").exists()
        assert (elsewhere / "a.wav").exists(), "locks of another machine may not be seen here"
        assert len(list(place.iterdir())) == 6
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_nobody_else_s_names_are_used(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What others put into the folder for temporary files is neither opened nor looked at."""
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setenv("TMPDIR", str(shared))
    monkeypatch.setattr("tempfile.tempdir", str(shared))
    precious = tmp_path / "precious"
    precious.write_text("precious")
    for name in (f"earshot-copies-{machine()}-1", f"{machine()}-1"):
        (shared / name).mkdir()
        (shared / f"{name}.lock").symlink_to(precious)
    before = sorted(shared.rglob("*"))
    forget_the_dead.cache_clear()
    with passing_folder() as folder:
        assert folder.is_relative_to(place)
    assert precious.read_text() == "precious"
    assert sorted(shared.rglob("*")) == before


def test_without_a_cache_it_is_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EARSHOT_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with passing_folder() as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def link(path: Path) -> None:
    path.with_name("precious").write_text("precious")
    path.symlink_to("precious")


def link_to_nothing(path: Path) -> None:
    path.symlink_to("nothing")


@pytest.mark.parametrize("put", [link, link_to_nothing, os.mkfifo, Path.mkdir])
@pytest.mark.parametrize("passing", [False, True])
def test_what_is_no_lock_is_not_opened(
    tmp_path: Path, put: Callable[[Path], None], passing: bool
) -> None:
    lock = tmp_path / "lock"
    put(lock)
    before = {path: path.lstat() for path in tmp_path.iterdir()}
    with (
        pytest.raises(EarshotError, match=r"lock is to be a lock, and is no regular file; remove"),
        locked(lock, passing=passing),
    ):
        pass
    assert {path: path.lstat() for path in tmp_path.iterdir()} == before


def test_what_a_lock_holds_stays(tmp_path: Path) -> None:
    """Another name of it may be a file that somebody needs."""
    (tmp_path / "lock").write_text("precious")
    with locked(tmp_path / "lock"):
        pass
    assert (tmp_path / "lock").read_text() == "precious"
