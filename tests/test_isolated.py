"""A file that ends its decoder, or keeps it for ever, is a broken file and not the end of a run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import make_recordings

from earshot.embed import embed_files
from earshot.isolated import (
    FILE,
    LONGEST_READING_S,
    NOTES,
    IsolatedHearing,
    _EndedError,
    _Job,
    _reading_s,
)
from earshot.model import model_manifest
from earshot.store import open_store
from earshot.types import EarshotError, EmbeddedFile, Model

# What Python runs at its start: libsndfile as it would be with a fault for each of these names.
FAULTS = """
import os, signal, sys, time
import soundfile

real = soundfile.SoundFile.read

def read(self, *arguments, **options):
    name = os.path.basename(os.fsdecode(self.name))
    if "segfault" in name:
        signal.raise_signal(signal.SIGSEGV)
    if "abort" in name:
        os.abort()
    if "memory" in name:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(10**6)
    if "exit" in name:
        os._exit(3)
    if "hang" in name:
        time.sleep(10**6)
    return real(self, *arguments, **options)

soundfile.SoundFile.read = read
"""
# As if there were no memory even for the model, so many times.
STILLBORN = """
import os, pathlib, signal, sys
if "spawn_main" in " ".join(sys.orig_argv):
    born = pathlib.Path(__file__).with_name("born")
    with born.open("a") as file:
        file.write(".")
    if born.stat().st_size <= {}:
        os.kill(os.getpid(), signal.SIGKILL)
"""
REASONS = {
    "segfault": "its decoder died of SIGSEGV",
    "abort": "its decoder died of SIGABRT",
    "memory": "its decoder died of SIGKILL, for want of memory perhaps",
    "exit": "its decoder ended with code 3",
    "hang": "its decoder took longer than 4 s",
}
PATIENCE_S = 4.0
pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="signals are told by their names on POSIX systems"
)


def customised(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every Python that is started from now on run some code first."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), before])))


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    customised(tmp_path / "site", FAULTS, monkeypatch)


@pytest.fixture
def hearing(random_model: Model) -> Iterator[IsolatedHearing]:
    manifest = model_manifest(random_model)
    with IsolatedHearing(manifest, device="cpu", workers=2, patience_s=PATIENCE_S) as hear:
        yield hear


def with_culprits(folder: Path, *names: str) -> tuple[list[str], dict[str, str]]:
    """Good recordings with files among them that end their decoder; these with their reasons."""
    good = make_recordings(folder, 8)
    culprits = {}
    for number, name in enumerate(names):
        path = folder / f"{number * 3:03d}-{name}.wav"
        path.write_bytes(good[number].read_bytes())
        culprits[str(path)] = REASONS[name]
    return list(map(str, good)), culprits


def by_path(files: Iterator[EmbeddedFile]) -> dict[str, EmbeddedFile]:
    found = {}
    for file in files:
        path = file.record.state.path
        assert path not in found, "told twice"
        found[path] = file
    return found


@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize(
    "names",
    [
        ("segfault", "hang"),
        pytest.param(tuple(REASONS), marks=pytest.mark.reliability),
        pytest.param(("segfault",) * 8, marks=pytest.mark.reliability),
    ],
    ids=len,
)
def test_a_decoder_that_ends_takes_one_file(
    tmp_path: Path, hearing: IsolatedHearing, random_model: Model, names: tuple[str, ...]
) -> None:
    good, culprits = with_culprits(tmp_path / "sounds", *names)
    seconds: list[float] = []
    found = by_path(hearing(sorted([*good, *culprits]), seconds.append))
    broken = {path: file.record.broken for path, file in found.items() if file.record.broken}
    assert broken == culprits
    assert found.keys() == {*good, *culprits}
    here = by_path(embed_files(good, random_model))
    for path in good:
        assert found[path].record.state == here[path].record.state
        np.testing.assert_allclose(found[path].vectors, here[path].vectors, atol=1e-5)
    assert sum(seconds) == pytest.approx(sum(f.record.duration_s for f in here.values()))
    again = by_path(hearing(good[:3], lambda seconds: None))
    assert not any(file.record.broken for file in again.values())


def test_without_a_fault_one_process_does_all(tmp_path: Path, hearing: IsolatedHearing) -> None:
    paths = list(map(str, make_recordings(tmp_path / "sounds", 5)))
    seconds: list[float] = []
    found = by_path(hearing(paths[:3], seconds.append))
    process = hearing._process
    assert process is not None
    found |= by_path(hearing(paths[3:], seconds.append))
    assert hearing._process is process
    assert sum(seconds) == pytest.approx(sum(f.record.duration_s for f in found.values()))
    assert list(hearing([], seconds.append)) == []


def test_who_stops_early_leaves_no_process(tmp_path: Path, hearing: IsolatedHearing) -> None:
    paths = list(map(str, make_recordings(tmp_path / "sounds", 5)))
    files = hearing(paths, lambda seconds: None)
    next(files)
    process = hearing._process
    assert process is not None
    files.close()  # type: ignore[attr-defined]
    assert not process._process.is_alive()


def test_a_process_that_never_lives_is_not_started_for_ever(
    tmp_path: Path, hearing: IsolatedHearing, monkeypatch: pytest.MonkeyPatch
) -> None:
    customised(tmp_path / "site", STILLBORN.format(10**6), monkeypatch)
    paths = list(map(str, make_recordings(tmp_path / "sounds", 2)))
    told: list[EmbeddedFile] = []
    with pytest.raises(EarshotError, match=r"died of SIGKILL, .* 5 times, whatever the file"):
        told.extend(hearing(paths, lambda seconds: None))
    assert not told


def test_a_process_that_dies_as_it_starts_blames_no_file(
    tmp_path: Path, hearing: IsolatedHearing, monkeypatch: pytest.MonkeyPatch
) -> None:
    customised(tmp_path / "site", STILLBORN.format(2), monkeypatch)
    paths = list(map(str, make_recordings(tmp_path / "sounds", 3)))
    found = by_path(hearing(paths, lambda seconds: None))
    assert found.keys() == set(paths)
    assert not any(file.record.broken for file in found.values())


def test_what_was_noted_of_other_files_blames_nobody(
    tmp_path: Path, hearing: IsolatedHearing
) -> None:
    """The process is killed before it takes a job up; its notes are of others, or senseless."""
    paths = list(map(str, make_recordings(tmp_path / "sounds", 2)))
    list(hearing(paths, lambda seconds: None))
    process = hearing._process
    assert process is not None
    assert process._process.pid
    os.kill(process._process.pid, signal.SIGSTOP)
    process._notes[FILE::NOTES] = [0.0] * (len(process._notes) // NOTES)
    job = _Job(paths[:1], lambda seconds: None, 1)
    process.begin(job)
    process._notes[FILE] = 1.0
    os.kill(process._process.pid, signal.SIGKILL)
    with pytest.raises(_EndedError) as ended:
        process.next_answer(job, PATIENCE_S)
    assert (ended.value.decoding, ended.value.embedding) == ((), ())


def test_a_file_that_two_are_at_is_told_once() -> None:
    job = _Job(["a.wav", "b.wav"], lambda seconds: None, 1)
    end = _EndedError("died", ["a.wav"], ["a.wav", "a.wav"])
    assert list(job.learn(end)) == []
    assert [file.record.broken for file in job.learn(end)] == ["its decoder died"]
    assert list(job.left) == ["b.wav"]


def test_another_model_is_refused_there_too(tmp_path: Path, random_model: Model) -> None:
    (path,) = map(str, make_recordings(tmp_path / "sounds", 1))
    other = replace(model_manifest(random_model), fingerprint="f" * 64)
    with (
        IsolatedHearing(other, device="cpu", workers=1) as hear,
        pytest.raises(EarshotError, match="vectors do not compare"),
    ):
        list(hear([path], lambda seconds: None))


# The command


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "earshot", "index", *arguments, "--model", "tags-mn05"]


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    if not listed.exists():
        pytest.skip("no /proc to look for processes")
    return list(map(int, listed.read_text().split()))


def hearing_child(pid: int) -> int:
    """The process of a command's own that hears, as soon as it is at work."""
    for _ in range(600):
        for child in children(pid):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                return child
        time.sleep(0.1)
    raise AssertionError("no such process")


def gone(pid: int) -> bool:
    for _ in range(300):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":  # Whose parent was killed has nobody to be waited for by.
            return True
        time.sleep(0.1)
    return False


@pytest.mark.usefixtures("faults", "random_model")
def test_the_command_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    good, culprits = with_culprits(tmp_path / "sounds", "segfault")
    done = subprocess.run(
        command("sounds", "--to", "index", "--json"),
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert {entry["path"]: entry["reason"] for entry in summary["broken"]} == culprits
    assert summary["added"] == len(good) + len(culprits)
    records = open_store(str(tmp_path / "index")).files()
    assert {path for path, record in records.items() if not record.broken} == set(good)
    assert records[next(iter(culprits))].broken == REASONS["segfault"]


TERMINATED = pytest.param(signal.SIGTERM, marks=pytest.mark.reliability)


@pytest.mark.usefixtures("faults", "random_model")
@pytest.mark.parametrize("how", [signal.SIGINT, TERMINATED, signal.SIGKILL])
def test_nothing_outlives_the_command(tmp_path: Path, how: signal.Signals) -> None:
    pytest.importorskip("lancedb")
    with_culprits(tmp_path / "sounds", "hang")
    with subprocess.Popen(
        command("sounds", "--to", "index"), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        child = hearing_child(process.pid)
        time.sleep(1)
        process.send_signal(how)
        assert process.stderr is not None
        told = process.stderr.read()
        assert process.wait(60) == (130 if how == signal.SIGINT else -how)
    assert gone(child)
    if how == signal.SIGINT:
        assert told == "earshot: stopped; what was written stays, run it again\n"


@pytest.mark.slow
@pytest.mark.usefixtures("faults", "random_model")
def test_a_server_outlives_a_decoder(tmp_path: Path, home: Path) -> None:
    pytest.importorskip("lancedb")
    httpx2 = pytest.importorskip("httpx2")
    served = pytest.importorskip("served")
    make_recordings(tmp_path / "library", 2, seed=9)
    uri = served.make_index(tmp_path / "library", home)
    good, culprits = with_culprits(tmp_path / "more", "segfault")
    with served.serving(uri, home, "--root", str(tmp_path / "more")) as (url, _):
        asked = httpx2.post(f"{url}/api/add", json={"paths": [str(tmp_path / "more")]})
        assert asked.status_code == 202
        for _ in range(1200):
            status = httpx2.get(f"{url}/api/status", timeout=60).json()
            if not status["job"]["running"]:
                break
            time.sleep(0.1)
        assert status["job"]["error"] == ""
        reported = {entry["path"]: entry["reason"] for entry in status["job"]["summary"]["broken"]}
        assert reported == culprits
        assert status["files"] == 2 + len(good)


def test_patience_is_for_what_lies_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sparse file of no bytes must not buy months for its decoder."""
    (path := tmp_path / "sparse.wav").write_bytes(b"RIFF")
    os.truncate(path, 10**12)
    assert _reading_s(str(path)) < 1
    assert _reading_s(str(tmp_path / "absent")) == 0
    path.write_bytes(bytes(2_000_000))
    assert _reading_s(str(path)) == pytest.approx(2, abs=0.1)
    monkeypatch.setattr(Path, "stat", lambda path: SimpleNamespace(st_size=10**14))
    assert _reading_s(str(path)) == LONGEST_READING_S
