"""An index that follows its folders: at once, whole, and without loss while a disk is away."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import make_recordings

from earshot.model import model_manifest
from earshot.store import create_store
from earshot.types import EarshotError, FileRecord, FileState, Model, Notes, Store
from earshot.watch import Event, Follower, WatchConfig, changes, follow

SETTLE_S = 0.3


@pytest.fixture
def store(random_model: Model) -> Store:
    return create_store(":memory:", model_manifest(random_model))


class Watched:
    """A folder that is followed in a thread, and what was told of it."""

    def __init__(self, follower: Follower) -> None:
        self.follower, self.stop = follower, threading.Event()
        self.events: list[Event] = []
        self.failure: list[BaseException] = []
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        try:
            follow(self.follower, self.events.append, self.stop)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self.failure.append(error)

    def kinds(self) -> list[tuple[str, str]]:
        return [(event.kind, Path(event.path).name) for event in self.events]

    def wait_for(self, met: Callable[[], bool]) -> None:
        end_s = time.monotonic() + 60
        while not met():
            assert not self.failure, self.failure
            assert time.monotonic() < end_s, f"it never came; told was {self.events}"
            time.sleep(0.02)

    def wait_told(self, kind: str, name: str) -> None:
        self.wait_for(lambda: (kind, name) in self.kinds())


@contextmanager
def watched(
    store: Store, model: Model, *roots: Path, every_s: float | None = None
) -> Iterator[Watched]:
    config = WatchConfig(settle_s=SETTLE_S, every_s=every_s)
    watch = Watched(Follower(roots, store, model, config))
    watch.thread.start()
    try:
        yield watch
    finally:
        watch.stop.set()
        watch.thread.join(60)
    assert not watch.failure, watch.failure


@pytest.mark.parametrize("every_s", [None, 0.2], ids=["events", "polling"])
def test_it_follows(
    tmp_path: Path, store: Store, random_model: Model, every_s: float | None
) -> None:
    if every_s is None:
        pytest.importorskip("watchfiles", reason="events need earshot[watch]")
    root = tmp_path / "sounds"
    root.mkdir()
    with watched(store, random_model, root, every_s=every_s) as watch:
        make_recordings(root / "deep", 2)
        watch.wait_told("new", "000.wav")
        watch.wait_told("new", "001.wav")
        (root / "deep").rename(root / "renamed")
        watch.wait_for(lambda: watch.kinds().count(("moved", "001.wav")) == 1)
        (root / "broken.wav").write_bytes(b"not audio")
        watch.wait_told("broken", "broken.wav")
        soundfile.write(root / "broken.wav", np.zeros(8000), 8000)
        watch.wait_told("changed", "broken.wav")
        (root / "metadata.csv").write_text("file,title\nbroken.wav,Silence\n")
        watch.wait_told("noted", "broken.wav")
        assert [hit.path for hit in store.search_words("silence", 3)] == [str(root / "broken.wav")]
        (root / "renamed" / "000.wav").unlink()
        watch.wait_told("removed", "000.wav")
    assert sorted(Path(path).name for path in store.files()) == ["001.wav", "broken.wav"]
    assert ("removed", "001.wav") not in watch.kinds()


def test_an_empty_mount_point_is_not_an_empty_library(
    tmp_path: Path, store: Store, random_model: Model
) -> None:
    pytest.importorskip("watchfiles", reason="events need earshot[watch]")
    disk, other = tmp_path / "disk", tmp_path / "other"
    make_recordings(disk, 2)
    other.mkdir()
    with watched(store, random_model, disk, other) as watch:
        watch.wait_for(lambda: len(store.files()) == 2)
        disk.rename(tmp_path / "elsewhere")
        watch.wait_told("away", "disk")
        disk.mkdir()
        make_recordings(other, 1, seed=3)
        watch.wait_for(lambda: len(store.files()) == 3)  # The other folder goes on.
        disk.rmdir()
        (tmp_path / "elsewhere").rename(disk)
        watch.wait_told("back", "disk")
        make_recordings(disk / "new", 1, seed=4)
        watch.wait_for(lambda: len(store.files()) == 4)
    assert [event.kind for event in watch.events].count("away") == 1
    assert "removed" not in [event.kind for event in watch.events]
    assert "is its disk mounted?" in next(e.reason for e in watch.events if e.kind == "away")


def test_files_still_being_written_are_left(
    tmp_path: Path, store: Store, random_model: Model
) -> None:
    (source,) = make_recordings(tmp_path / "source", 1)
    root = tmp_path / "sounds"
    make_recordings(root, 1, seed=1)
    follower = Follower([root], store, random_model, WatchConfig(settle_s=3600))
    for path in root.iterdir():
        os.utime(path, (1, 1))
    told: list[Event] = []
    follower.look(told.append)
    assert (told, store.files()) == ([], {}), "their change time is recent, whatever they say"
    assert follower.settling.waiting
    follower.settling.settle_s = SETTLE_S
    shutil.copy(source, root / "slow.wav")
    end_s = time.time() + 3 * SETTLE_S
    with (root / "slow.wav").open("ab") as file:
        while time.time() < end_s:
            file.write(bytes(2))
            file.flush()
            follower.look(told.append)
            assert [Path(event.path).name for event in told] in ([], ["000.wav"])
            time.sleep(SETTLE_S / 10)
    time.sleep(SETTLE_S)
    follower.look(told.append)
    follower.look(told.append)
    assert [(event.kind, Path(event.path).name) for event in told] == [
        ("new", "000.wav"),
        ("new", "slow.wav"),
    ]
    assert not follower.settling.waiting


def test_a_broken_file_is_tried_again_when_it_changes(
    tmp_path: Path, store: Store, random_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    import earshot.embed

    probed: list[str] = []
    real = earshot.embed.audio.probe
    monkeypatch.setattr(
        earshot.embed.audio, "probe", lambda path: probed.append(path) or real(path)
    )
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"not audio")
    follower = Follower([tmp_path], store, random_model, WatchConfig(settle_s=0))
    told: list[Event] = []
    for _ in range(3):
        follower.look(told.append)
    assert (len(probed), [event.kind for event in told]) == (1, ["broken"])
    broken.write_bytes(b"not audio either")
    follower.look(told.append)
    assert len(probed) == 2
    assert len(told) == 1, "it is broken as it was"


def test_a_move_that_is_seen_in_two_halves_is_one(
    tmp_path: Path, store: Store, random_model: Model
) -> None:
    first, _ = make_recordings(tmp_path / "sounds", 2)
    follower = Follower([tmp_path / "sounds"], store, random_model, WatchConfig(settle_s=0))
    told: list[Event] = []
    follower.look(told.append)
    follower.settling.settle_s = SETTLE_S
    first.rename(tmp_path / "on the way.wav")
    follower.look(told.append)
    (tmp_path / "on the way.wav").rename(tmp_path / "sounds" / "there.wav")
    follower.look(told.append)
    assert len(told) == 2, "neither is dropped nor heard again before it is quiet"
    time.sleep(SETTLE_S)
    follower.look(told.append)
    assert [(e.kind, Path(e.path).name, Path(e.source).name) for e in told[2:]] == [
        ("moved", "there.wav", "000.wav")
    ]


def test_a_file_that_vanishes_while_it_is_looked_at_keeps_its_vectors(
    tmp_path: Path, store: Store, random_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = make_recordings(tmp_path, 2)
    follower = Follower([tmp_path], store, random_model, WatchConfig(settle_s=0))
    follower.look(lambda event: None)
    real = os.walk

    def unmounted(*arguments: object, **named: object) -> Iterator[object]:
        for entry in real(*arguments, **named):
            first.rename(tmp_path / "000.hidden")
            try:
                yield entry
            finally:
                (tmp_path / "000.hidden").rename(first)

    monkeypatch.setattr(os, "walk", unmounted)
    told: list[Event] = []
    follower.look(told.append)
    assert told == []
    assert len(store.segments([str(first)])) == 1


def record(path: str, sha256: str = "", broken: str = "", title: str = "") -> FileRecord:
    state = FileState(path=path, size_bytes=1, mtime_ns=1, ctime_ns=1, sha256=sha256 or path)
    return FileRecord(state=state, broken=broken, notes=Notes(title=title))


def test_what_became_of_files() -> None:
    before = [record("a"), record("b"), record("c"), record("d", broken="x"), record("e"),
              record("f", "same"), record("g", "same"), record("h", broken="x")]  # fmt: skip
    after = [record("a"), record("b", "new"), record("c", title="T"), record("d"),
             record("e", broken="y"), record("f2", "same"), record("h", broken="x"),
             record("i")]  # fmt: skip
    found = changes({r.state.path: r for r in before}, {r.state.path: r for r in after})
    assert [(event.kind, event.path, event.source) for event in found] == [
        ("changed", "b", ""),
        ("noted", "c", ""),
        ("changed", "d", ""),
        ("broken", "e", ""),
        ("moved", "f2", "f"),
        ("new", "i", ""),
        ("removed", "g", ""),
    ]


def test_senseless_seconds_are_refused() -> None:
    with pytest.raises(EarshotError, match="seconds must be above 0"):
        WatchConfig(every_s=0)
    for settle_s in (-1.0, float("nan")):
        with pytest.raises(EarshotError, match=r"^settle for \S+ s: seconds must be 0 or more"):
            WatchConfig(settle_s=settle_s)
