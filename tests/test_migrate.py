"""Another model takes an index over: at every moment the old answers or the new, and whole."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import make_recordings
from test_dual import SENTENCES, network

from earshot.encoders.tiny_text import tiny_text_folder
from earshot.library import index, open_or_create
from earshot.migrate import MigrationConfig, migrate, to_model
from earshot.model import load, model_manifest
from earshot.model.folder import save_dual
from earshot.search import Searcher
from earshot.store import LanceStore
from earshot.types import EarshotError, Model

pytest.importorskip("lancedb", reason="the index on disk needs earshot[index]")
HALF = MigrationConfig(segment_s=0.5, hop_s=0.25)


@pytest.fixture
def library(tmp_path: Path, random_model: Model) -> Path:
    """Six recordings and their index."""
    make_recordings(tmp_path / "sounds", 6)
    (tmp_path / "sounds" / "metadata.csv").write_text("file,title\n000.wav,Rain\n")
    store, model = open_or_create(str(tmp_path / "index"), "tags-mn05", "cpu")
    index([tmp_path / "sounds"], store, model)
    return tmp_path


def answers(uri: str) -> set[str]:
    """The names of all files that a search in the index finds."""
    return {Path(hit.path).name for hit in Searcher.open(uri).search("anything", k=50)}


ALL = {f"00{number}.wav" for number in range(6)}


def test_other_segments_under_the_same_address(library: Path, random_model: Model) -> None:
    uri = str(library / "index")
    reader = LanceStore.open(uri)
    done = migrate(uri, random_model, HALF)
    assert (done.files, done.gone, done.broken) == (6, (), {})
    new = LanceStore.open(uri)
    assert new.manifest == model_manifest(random_model, 0.5, 0.25)
    paths = [str(library / "sounds" / name) for name in sorted(ALL)]
    assert max(len(file.segments) for file in new.segments(paths).values()) > 1
    assert new.files()[paths[0]].notes.title == "Rain"
    assert [len(file.segments) for file in reader.segments(paths).values()] == [1] * 6
    assert answers(uri) == ALL
    assert not (library / "index.migrating").exists()
    with pytest.raises(EarshotError, match="in segments of 0.5 s every 0.25 s already"):
        migrate(uri, random_model, HALF)


def test_from_tags_to_the_folder_of_a_model(library: Path) -> None:
    folder, uri = library / "run" / "best", str(library / "index")
    save_dual(network(tiny_text_folder(library / "text", SENTENCES)), folder, name="trained")
    done = migrate(uri, load(str(library / "run"), "cpu"), MigrationConfig())
    assert (done.before, done.files) == ("tags-mn05", 6)
    assert Searcher.open(uri).model.name == str(folder)
    assert answers(uri) == ALL


def test_to_another_place_leaves_the_old_one(library: Path, random_model: Model) -> None:
    uri, other = str(library / "index"), str(library / "other")
    before = LanceStore.open(uri).manifest
    migrate(uri, random_model, MigrationConfig(to=other, segment_s=0.5))
    assert LanceStore.open(uri).manifest == before
    assert LanceStore.open(other).manifest.segment_s == 0.5
    assert answers(uri) == answers(other) == ALL
    with pytest.raises(EarshotError, match=r"other holds an index made with .* 0.5 s every 0.25"):
        migrate(uri, random_model, MigrationConfig(to=other, segment_s=0.4))


def test_files_that_are_gone_are_told(library: Path, random_model: Model) -> None:
    uri = str(library / "index")
    (library / "sounds" / "003.wav").unlink()
    (library / "sounds" / "004.wav").write_bytes(b"no longer audio")
    done = migrate(uri, random_model, HALF)
    assert done.gone == (str(library / "sounds" / "003.wav"),)
    assert list(done.broken) == [str(library / "sounds" / "004.wav")]
    assert answers(uri) == ALL - {"003.wav", "004.wav"}


def test_an_unmounted_disk_changes_nothing(library: Path, random_model: Model) -> None:
    uri = str(library / "index")
    before = LanceStore.open(uri)
    shutil.rmtree(library / "sounds")
    for _ in range(2):
        with pytest.raises(EarshotError, match="holds 6 from there; is its disk mounted"):
            migrate(uri, random_model, HALF)
        (library / "sounds").mkdir(exist_ok=True)
    assert LanceStore.open(uri).files() == before.files()


def test_what_others_put_at_the_last_moment_is_not_lost(
    library: Path, random_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(library / "index")
    real = LanceStore.take_over

    def overtaken(self: LanceStore, other: LanceStore) -> object:
        make_recordings(library / "sounds" / "late", 1, seed=9)
        index([library / "sounds"], LanceStore.open(uri), random_model)
        return real(self, other)

    monkeypatch.setattr(LanceStore, "take_over", overtaken)
    migrate(uri, random_model, HALF)
    late = LanceStore.open(uri).segments([str(library / "sounds" / "late" / "000.wav")])
    assert len(late) == 1


MIGRATE = """
import os, signal, sys
import lancedb
import earshot.library, earshot.migrate, earshot.store, earshot.store.lance as lance
from earshot.model import load

uri, where = sys.argv[1:]
earshot.library.WRITE_FILES = 1

def die(*arguments, **named):
    os.kill(os.getpid(), signal.SIGKILL)

def after(function, calls):
    left = [calls]
    def wrapped(*arguments, **named):
        result = function(*arguments, **named)
        left[0] -= 1
        return result if left[0] else die()
    return wrapped

Store = lance.LanceStore
if where == "made": Store.create = after(Store.create, 1)
if where == "filling": Store.put = after(Store.put, 3)
if where == "filled": Store.take_over = die
if where == "stamped":
    create = lancedb.db.LanceDBConnection.create_table
    lancedb.db.LanceDBConnection.create_table = lambda *arguments, **named: (
        die() if named.get("mode") == "overwrite" else create(*arguments, **named)
    )
def overtaken(self, other):
    late = earshot.store.LanceStore.open(uri)
    earshot.library.index([os.path.join(os.path.dirname(uri), "late")], late, model)
    real(self, other)
    die()

real = Store.take_over
if where == "late": Store.take_over = overtaken
if where == "switched": Store.take_over = after(Store.take_over, 1)
if where == "deleting": Store.delete = die
if where == "deleted": Store.delete = after(Store.delete, 1)
model = load("tags-mn05", "cpu")
config = earshot.migrate.MigrationConfig(segment_s=0.5, hop_s=0.25)
earshot.migrate.migrate(uri, model, config)
"""


@pytest.mark.parametrize(
    ("where", "new"),
    [
        ("filling", False),
        ("switched", True),
        *(pytest.param(at, False, marks=pytest.mark.slow) for at in ("made", "filled", "stamped")),
        *(pytest.param(at, True, marks=pytest.mark.slow) for at in ("deleting", "deleted")),
    ],
)
def test_killed_anywhere_one_of_the_two_answers(
    library: Path, random_model: Model, where: str, new: bool
) -> None:
    uri = str(library / "index")
    command = [sys.executable, "-c", MIGRATE, uri, where]
    killed = subprocess.run(command, env={**os.environ, "PYTHONWARNINGS": "ignore"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    segment_s = 0.5 if new else random_model.segment_s
    assert LanceStore.open(uri).manifest.segment_s == segment_s
    assert answers(uri) == ALL
    if where == "deleted":
        return
    heard: list[int] = []
    done = migrate(uri, random_model, HALF, report=lambda p: heard.append(p.files_done))
    assert done.files == 6
    assert max(heard, default=0) == {"made": 6, "filling": 3}.get(where, 0), "the rest alone"
    assert LanceStore.open(uri).manifest.segment_s == 0.5
    assert answers(uri) == ALL
    assert not (library / "index.migrating").exists()


def test_what_came_at_the_last_moment_outlives_a_kill(library: Path, random_model: Model) -> None:
    uri = str(library / "index")
    (late,) = make_recordings(library / "late", 1, seed=9)
    command = [sys.executable, "-c", MIGRATE, uri, "late"]
    killed = subprocess.run(command, env={**os.environ, "PYTHONWARNINGS": "ignore"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert str(late) not in LanceStore.open(uri).files()
    done = migrate(uri, random_model, HALF)
    assert (done.files, done.audio_s > 0) == (7, True)
    assert list(LanceStore.open(uri).segments([str(late)])) == [str(late)]


@pytest.mark.parametrize("place", ["milvus:there.db", "milvus://127.0.0.1:9/sounds", ":memory:"])
def test_places_without_versions_are_refused(
    library: Path, random_model: Model, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(library)
    before = sorted(library.iterdir())
    for uri, to in ((place, None), (str(library / "index"), place)):
        with pytest.raises(EarshotError, match="keeps no earlier states|ends with this command"):
            migrate(uri, random_model, replace(HALF, to=to))
    with pytest.raises(EarshotError, match="keeps no earlier states|ends with this command"):
        to_model(place, None)
    assert sorted(library.iterdir()) == before


@pytest.mark.parametrize("to", ["index", "index/", "sounds/../index"])
def test_an_index_cannot_go_beside_itself(library: Path, random_model: Model, to: str) -> None:
    uri = str(library / "index")
    with pytest.raises(EarshotError, match="is the index itself; leave --to away"):
        migrate(uri, random_model, MigrationConfig(to=f"{library}/{to}", segment_s=0.5))


def test_a_server_goes_over_to_the_new_index(library: Path, random_model: Model) -> None:
    pytest.importorskip("fastapi", reason="the server needs earshot[serve]")
    from fastapi.testclient import TestClient

    from earshot.server import create_app

    uri = str(library / "index")
    searcher = Searcher.open(uri)
    app = create_app(searcher, reopen=lambda: Searcher.open(uri))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        assert client.get("/api/status").json()["segment_s"] != 0.5
        migrate(uri, random_model, HALF)
        with pytest.raises(EarshotError, match="open it again"):
            searcher.store.drop(["whatever"])
        assert searcher.store.replaced
        deadline_s = time.monotonic() + 60
        while client.get("/api/status").json()["segment_s"] != 0.5:
            assert time.monotonic() < deadline_s
            assert client.get("/api/search", params={"q": "anything"}).json()["hits"]
            time.sleep(0.05)
        hits = client.get("/api/search", params={"q": "anything", "k": 50}).json()["hits"]
        assert {hit["clip"]["name"] for hit in hits} == ALL
        assert not app.state.desk.searcher.store.replaced
