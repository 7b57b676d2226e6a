"""A cluster hears what threads hear, bit for bit, whatever becomes of its workers."""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import make_recordings

from earshot.cli import app
from earshot.cluster import ClusterConfig, connected
from earshot.embed import groups
from earshot.library import Progress, Summary, carry_out, compare, index
from earshot.model import model_manifest
from earshot.remote import MOST_LOSSES, Crew, Turn, on_cluster
from earshot.store import create_store, open_store
from earshot.types import EarshotError, Model, Store

needs_ray = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
CONFIG = ClusterConfig(workers=1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray of this machine, for one worker at a time."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        be_quick(patch)
        with connected(CONFIG):
            yield


def be_quick(patch: pytest.MonkeyPatch) -> None:
    """Let workers not give way to what else runs on a busy machine, nor Ray give up starting."""
    patch.setenv("RAY_worker_niceness", "0")
    patch.setenv("RAY_agent_register_timeout_ms", "200000")


def on_ray(folder: Path, store: Store, model: Model, config: ClusterConfig = CONFIG) -> Summary:
    plan = compare([folder], store.files())
    return carry_out(plan, store, model, hear=on_cluster(config, store.manifest))


def empty_store(model: Model) -> Store:
    return create_store(":memory:", model_manifest(model))


def heard_here(folder: Path, model: Model) -> tuple[Store, Summary]:
    store = empty_store(model)
    return store, index([folder], store, model, workers=1)


def assert_equal(a: Store, b: Store) -> None:
    assert a.files() == b.files()
    left, right = (store.segments(store.files()) for store in (a, b))
    assert left.keys() == right.keys()
    for path, file in left.items():
        assert file.record == right[path].record
        assert file.segments == right[path].segments
        assert np.array_equal(file.vectors, right[path].vectors), path


def long_recording(path: Path, minutes: float) -> Path:
    noise = np.random.default_rng(0).normal(0, 0.1, round(minutes * 60 * 16_000))
    soundfile.write(path, noise, 16_000)
    return path


@contextmanager
def reader_is_killed(path: Path, times: int, *, parent: bool = False) -> Iterator[list[int]]:
    """Kill whichever other process has a file open, or who started it, so often; gives whom."""
    killed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set() and len(killed) < times:
            for process in readers(path):
                with suppress(OSError):  # It ended meanwhile.
                    starter = parent_of(process)
                    victim = starter if parent else process
                    # Where its worker was killed it has another for a moment, such as process 1.
                    if is_worker(starter) and victim not in killed:
                        os.kill(victim, signal.SIGKILL)
                        killed.append(victim)
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()[1])


def is_worker(process: int) -> bool:
    """Whether Ray runs one of its actors in a process."""
    return Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::")


def readers(path: Path) -> Iterator[int]:
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            for handle in (process / "fd").iterdir():
                if handle.readlink() == path:
                    yield int(process.name)
        except OSError:
            continue  # It ended, or is another user's.


@needs_ray
def test_the_same_index_as_without(tmp_path: Path, random_model: Model, cluster: None) -> None:
    """Records, notes, broken files and vectors, in more groups than workers."""
    make_recordings(tmp_path / "a", 20)
    make_recordings(tmp_path / "b", 20, seed=1)
    (tmp_path / "a" / "empty.wav").touch()
    (tmp_path / "b" / "text.wav").write_text("no audio, whatever its name says\n" * 50)
    (tmp_path / "a" / "metadata.csv").write_text("file_name,title\n000.wav,Rain\n")
    plain, expected = heard_here(tmp_path, random_model)
    store = empty_store(random_model)
    summary = on_ray(tmp_path, store, random_model)
    assert_equal(plain, store)
    assert store.files()[str(tmp_path / "a" / "000.wav")].notes.title == "Rain"
    assert summary.broken == expected.broken
    assert len(summary.broken) == 2
    assert (summary.added, summary.audio_s) == (42, pytest.approx(expected.audio_s))
    again = on_ray(tmp_path, store, random_model)
    assert (again.added, again.changed, again.unchanged) == (0, 0, 42)


@needs_ray
def test_workers_wait_while_nobody_takes_what_they_made(
    tmp_path: Path, random_model: Model, cluster: None
) -> None:
    ray = pytest.importorskip("ray")
    paths = [str(path) for path in make_recordings(tmp_path, 64)]
    crew = Crew(CONFIG, empty_store(random_model).manifest, list(groups(paths)))
    files = crew.answers()
    taken = [next(files)]
    ray.wait(list(crew.turns), timeout=60)
    assert [len(turn.group) for turn in crew.turns.values()] == [16], "an answer of one worker"
    assert len(crew.waiting) == 2
    taken += files
    assert sorted(file.record.state.path for file in taken) == paths


@pytest.mark.slow
@needs_ray
def test_a_killed_worker_loses_and_doubles_nothing(
    tmp_path: Path, random_model: Model, cluster: None
) -> None:
    make_recordings(tmp_path, 20)
    victim = long_recording(tmp_path / "010.wav", 1)
    plain, _ = heard_here(tmp_path, random_model)
    store = empty_store(random_model)
    with reader_is_killed(victim, times=1, parent=True) as killed:
        summary = on_ray(tmp_path, store, random_model)
    assert len(killed) == 1
    assert summary.broken == {}
    assert_equal(plain, store)


@pytest.mark.slow
@needs_ray
def test_a_file_that_ends_its_decoder_is_broken(
    tmp_path: Path, random_model: Model, cluster: None
) -> None:
    others = make_recordings(tmp_path, 20)
    deadly = long_recording(tmp_path / "deadly.wav", 1)
    store = empty_store(random_model)
    with reader_is_killed(deadly, times=9) as killed:
        summary = on_ray(tmp_path, store, random_model)
    assert len(killed) == 2
    assert summary.broken == {
        str(deadly): "its decoder died of SIGKILL, for want of memory perhaps"
    }
    assert store.segments(list(map(str, others))).keys() == set(map(str, others))
    assert on_ray(tmp_path, store, random_model).broken == {}, "it is tried again at the next run"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
        ("ray://head:10001", "no address of a Ray cluster; give HOST:PORT"),
        ("head", "no address of a Ray cluster; give HOST:PORT"),
    ],
)
def test_an_address_without_a_cluster_is_said(
    address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(EarshotError, match=said), connected(ClusterConfig(address=address)):
        pass


def test_what_is_no_cluster_is_told_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def answer() -> None:
            line, _ = server.accept()
            with line:
                line.recv(100)
                line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        config = ClusterConfig(address=address)
        with pytest.raises(EarshotError, match="is no Ray cluster"), connected(config):
            pass
        thread.join()


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EarshotError, match=r"earshot\[distributed\]"), connected(CONFIG):
        pass


@needs_ray
def test_a_model_that_workers_lack_is_one_line(
    tmp_path: Path, random_model: Model, cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_recordings(tmp_path / "sounds", 1)
    store = empty_store(random_model)
    monkeypatch.setenv("EARSHOT_HOME", str(tmp_path / "nothing"))
    monkeypatch.setenv("EARSHOT_ASSETS", "")
    with pytest.raises(
        EarshotError, match=r"a worker on .*: mn05_as_mAP_443.pt is not here"
    ) as said:
        on_ray(tmp_path / "sounds", store, random_model)
    assert "\n" not in str(said.value)


@needs_ray
def test_workers_take_the_model_by_the_name_that_is_given(
    tmp_path: Path, random_model: Model, cluster: None
) -> None:
    """Its folder may have been moved since the index was made."""
    pytest.importorskip("lancedb")
    make_recordings(tmp_path / "sounds", 2)
    where = str(tmp_path / "library")
    create_store(where, replace(model_manifest(random_model), model=str(tmp_path / "moved away")))
    arguments = ["index", str(tmp_path / "sounds"), "--to", where, "--ray", "local"]
    app([*arguments, "--workers", "1", "--model", random_model.name], standalone_mode=False)
    assert len(open_store(where).files()) == 2


@pytest.mark.slow
@needs_ray
def test_a_group_that_no_worker_survives_is_said(
    tmp_path: Path, random_model: Model, cluster: None
) -> None:
    recording = long_recording(tmp_path / "long.wav", 1)
    store = empty_store(random_model)
    with (
        reader_is_killed(recording, times=9, parent=True) as killed,
        pytest.raises(EarshotError, match=f"workers were lost {MOST_LOSSES} times at the same"),
    ):
        on_ray(tmp_path, store, random_model)
    assert len(killed) == MOST_LOSSES
    assert not store.files()


@needs_ray
def test_gpus_that_nobody_has_are_said(tmp_path: Path, random_model: Model, cluster: None) -> None:
    make_recordings(tmp_path, 1)
    config = ClusterConfig(gpus_per_worker=0.5)
    with pytest.raises(EarshotError, match="the cluster has 0 GPUs"):
        on_ray(tmp_path, empty_store(random_model), random_model, config)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a", "--watch", "--ray", "local"], "leave --ray and --shard out"),
        (["a", "--watch", "--shard", "1/2"], "leave --ray and --shard out"),
        (["s3://a/b", "--watch"], "s3://a/b: object stores cannot be followed"),
        (["a", "--gpus-per-worker", "0.5"], "give --ray, too"),
        (["a", "--shard", "3/2"], "no part of the files"),
        (["a", "--ray", "nowhere"], "no address of a Ray cluster"),
        (["a", "--shard", ""], "no part of the files"),
        (["a", "--ray", ""], "'' is no address of a Ray cluster"),
        (["a", "--watch", "--shard", ""], "leave --ray and --shard out"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_recordings(tmp_path / "a", 1)
    with pytest.raises(EarshotError, match=said):
        app(["index", *arguments, "--to", "library"], standalone_mode=False)
    assert not (tmp_path / "library").exists()


class Errors:
    """Ray for a worker whose answer is an error."""

    def __init__(self, error: Exception) -> None:
        self.exceptions = importlib.import_module("ray.exceptions")
        self.error = error

    def get(self, answered: object) -> None:
        raise self.error


def test_a_worker_that_ray_ended_for_want_of_memory_is_lost(random_model: Model) -> None:
    exceptions = pytest.importorskip("ray.exceptions")
    crew = Crew(CONFIG, empty_store(random_model).manifest, [])
    turn = Turn(worker=None, group=("a.wav",))
    for error in (
        exceptions.OutOfMemoryError("task was killed due to the node running low on memory"),
        exceptions.WorkerCrashedError(),
    ):
        crew.ray = Errors(error)
        assert crew.taken("answer", turn) is None
        assert list(crew.waiting) == [("a.wav",)], "it is another's to do"
        crew.waiting.clear()


@pytest.mark.parametrize("options", [{"workers": 0}, {"gpus_per_worker": -1.0}])
def test_settings_without_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(EarshotError, match="give"):
        ClusterConfig(**options)


@pytest.mark.slow
@needs_ray
def test_a_lost_node_loses_and_doubles_nothing(
    tmp_path: Path, random_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes of a worker each; the second is lost in the middle of the run."""
    ray = pytest.importorskip("ray")
    be_quick(monkeypatch)
    from ray.cluster_utils import Cluster

    make_recordings(tmp_path, 60)
    plain, _ = heard_here(tmp_path, random_model)
    store = empty_store(random_model)
    ray.shutdown()
    node = {"num_cpus": 1, "object_store_memory": 100 << 20}
    nodes = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        second = nodes.add_node(**node)
        nodes.wait_for_nodes()
        config = ClusterConfig(address=nodes.address, workers=2)
        lost: list[int] = []

        def lose_second(progress: Progress) -> None:
            if progress.files_done and not lost:
                lost.append(progress.files_done)
                nodes.remove_node(second, allow_graceful=False)

        with connected(config):
            assert ray.cluster_resources()["CPU"] == 2
            plan = compare([tmp_path], {})
            hear = on_cluster(config, store.manifest)
            carry_out(plan, store, random_model, hear=hear, report=lose_second)
    finally:
        nodes.shutdown()
    assert lost
    assert lost[0] < 60
    assert_equal(plain, store)


@pytest.mark.slow
@needs_ray
def test_a_killed_run_is_gone_on_with(
    tmp_path: Path, random_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command line, into an index on disk; the process that asked is killed."""
    pytest.importorskip("lancedb")
    be_quick(monkeypatch)
    make_recordings(tmp_path / "sounds", 20)
    late = long_recording(tmp_path / "sounds" / "zzz.wav", 1)
    where = str(tmp_path / "library")
    command = [sys.executable, "-m", "earshot", "index", str(tmp_path / "sounds"), "--to", where]
    command += ["--model", "tags-mn05", "--device", "cpu", "--ray", "local", "--workers", "1"]
    run = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE)
    while not any(readers(late)):
        assert run.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    run.kill()
    run.communicate()
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, check=True)
    summary = json.loads(done.stdout)
    assert summary["added"] + summary["unchanged"] == 21
    assert summary["broken"] == []
    plain, _ = heard_here(tmp_path / "sounds", random_model)
    there = open_store(where)
    assert there.files() == plain.files()
    for path, file in there.segments(there.files()).items():
        expected = plain.segments([path])[path]
        assert file.segments == expected.segments
        assert np.abs(file.vectors - expected.vectors).max() < 1e-5
