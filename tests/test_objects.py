"""Recordings in an object store are indexed like files; the store is an S3 of this machine."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_recordings

from earshot import audio
from earshot.conditions import parse_condition
from earshot.embed import embed_files
from earshot.files.passing import PLACE
from earshot.library import Summary, index
from earshot.migrate import MigrationConfig, migrate
from earshot.model import model_manifest
from earshot.objects import fetched, list_objects
from earshot.store import create_store, open_store
from earshot.types import AudioError, EarshotError, Model, Store


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An S3 server of this machine."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty bucket, `s3://sounds`, and what writes to it."""
    s3fs = pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem(use_listings_cache=False)
    if files.exists("sounds"):
        files.rm("sounds", recursive=True)
    files.mkdir("sounds")
    return files


def upload(bucket: Any, paths: list[Path], folder: str) -> None:
    for path in paths:
        bucket.put_file(str(path), f"{folder}/{path.name}")


def counts(summary: Summary) -> tuple[int, int, int, int]:
    return summary.added, summary.changed, summary.unchanged, summary.removed


@pytest.fixture
def store(random_model: Model) -> Store:
    return create_store(":memory:", model_manifest(random_model))


def test_objects_are_heard_like_files(
    tmp_path: Path,
    bucket: Any,
    store: Store,
    random_model: Model,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EARSHOT_ASSETS", str(home / "assets"))
    monkeypatch.setenv("EARSHOT_HOME", str(tmp_path / "home"))
    paths = make_recordings(tmp_path, 4)
    (tmp_path / "broken.wav").write_bytes(paths[0].read_bytes()[:60])
    upload(bucket, [*paths, tmp_path / "broken.wav"], "sounds/rain")
    bucket.pipe_file("sounds/rain/.hidden/a.wav", b"left out")
    bucket.pipe_file("sounds/rain/notes.txt", b"no audio by its name")
    summary = index(["s3://sounds/rain/"], store, random_model)
    assert counts(summary) == (5, 0, 0, 0)
    assert list(summary.broken) == ["s3://sounds/rain/broken.wav"]
    here = {Path(f.record.state.path).name: f for f in embed_files(map(str, paths), random_model)}
    there = store.segments(store.files())
    assert sorted(there) == [f"s3://sounds/rain/{path.name}" for path in paths]
    for uri, file in there.items():
        expected = here[Path(uri).name]
        assert file.segments == expected.segments
        assert np.abs(file.vectors - expected.vectors).max() < 1e-5
        assert file.record.state.sha256 == expected.record.state.sha256
        assert file.record.notes.date, "an object's notes are read while it is here"
    query = there["s3://sounds/rain/000.wav"].vectors
    for folder, count in (("s3://sounds/rain/", 4), ("s3://sounds/snow", 0)):
        hits = store.search(query, 9, [parse_condition(f"folder = {folder}")])
        assert len(hits[0]) == count
    assert list((tmp_path / "home" / PLACE).iterdir()) == []


def test_only_the_difference_is_fetched(
    tmp_path: Path, bucket: Any, store: Store, random_model: Model
) -> None:
    paths = make_recordings(tmp_path, 3)
    upload(bucket, paths, "sounds/a")
    upload(bucket, paths[:1], "sounds/b")
    assert counts(index(["s3://sounds/a"], store, random_model)) == (3, 0, 0, 0)
    assert counts(index(["s3://sounds/a"], store, random_model)) == (0, 0, 3, 0)
    # Other content of equal size in the same second: only its version tells.
    content = bytearray(paths[1].read_bytes())
    content[100:200] = bytes(100)
    bucket.pipe_file("sounds/a/001.wav", bytes(content))
    bucket.rm_file("sounds/a/002.wav")
    assert counts(index(["s3://sounds/a"], store, random_model)) == (0, 1, 1, 1)
    assert counts(index(["s3://sounds/b", tmp_path], store, random_model)) == (4, 0, 0, 0)
    assert len(store.files()) == 6


def test_an_empty_bucket_empties_nothing(
    tmp_path: Path, bucket: Any, store: Store, random_model: Model
) -> None:
    upload(bucket, make_recordings(tmp_path, 2), "sounds/a")
    index(["s3://sounds/a"], store, random_model)
    bucket.rm("sounds/a", recursive=True)
    with pytest.raises(EarshotError, match="index holds 2 from there"):
        index(["s3://sounds/a"], store, random_model)
    assert counts(index(["s3://sounds/a"], store, random_model, prune=True)) == (0, 0, 0, 2)
    with pytest.raises(EarshotError, match="s3://sounds/nothing holds no audio"):
        index(["s3://sounds/nothing"], store, random_model)


def test_another_model_hears_objects_again(
    tmp_path: Path, bucket: Any, random_model: Model
) -> None:
    pytest.importorskip("lancedb")
    paths = make_recordings(tmp_path / "here", 4)
    upload(bucket, paths[:2], "sounds/a/deep")
    upload(bucket, paths[2:3], "sounds/a/b")
    uri = str(tmp_path / "library")
    index(
        ["s3://sounds/a", paths[3]], create_store(uri, model_manifest(random_model)), random_model
    )
    old = open_store(uri).files()
    bucket.rm_file("sounds/a/deep/001.wav")
    done = migrate(uri, random_model, MigrationConfig(segment_s=0.5, hop_s=0.25))
    assert done.gone == ("s3://sounds/a/deep/001.wav",)
    new = open_store(uri)
    assert new.manifest.segment_s == 0.5
    assert set(new.files()) == set(old) - set(done.gone)
    assert set(new.segments(new.files())) == set(new.files())
    for path, record in new.files().items():
        assert record.state == old[path].state


def test_an_empty_bucket_is_not_migrated_away(
    tmp_path: Path, bucket: Any, random_model: Model
) -> None:
    pytest.importorskip("lancedb")
    upload(bucket, make_recordings(tmp_path, 2), "sounds/a")
    uri = str(tmp_path / "library")
    index(["s3://sounds/a"], create_store(uri, model_manifest(random_model)), random_model)
    bucket.rm("sounds/a", recursive=True)
    config = MigrationConfig(segment_s=0.5, hop_s=0.25)
    said = "s3://sounds/a holds no audio files .* holds 2 from there; is it the right store"
    with pytest.raises(EarshotError, match=said):
        migrate(uri, random_model, config)
    assert len(open_store(uri).files()) == 2
    assert migrate(uri, random_model, replace(config, prune=True)).files == 0


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("ftp://host/a", "no place of recordings; use a folder, a file, s3://"),
        ("s3://", "no place of recordings"),
        ("gs://bucket/a", "need gcsfs; run: pip install gcsfs"),
    ],
)
def test_places_that_cannot_be_read_are_said(
    uri: str, said: str, store: Store, random_model: Model
) -> None:
    with pytest.raises(EarshotError, match=said):
        index([uri], store, random_model)


def test_objects_that_are_gone_are_broken_files(bucket: Any) -> None:
    with pytest.raises(AudioError, match="no such file"), fetched("s3://sounds/gone.wav"):
        pass
    with pytest.raises(AudioError, match="lies in an object store"):
        audio.probe("s3://sounds/gone.wav")


def test_a_store_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with pytest.raises(EarshotError, match="s3://sounds cannot be listed") as said:
        list(list_objects("s3://sounds"))
    assert "\n" not in str(said.value)


@pytest.mark.slow
def test_workers_of_a_cluster_fetch_objects(
    tmp_path: Path, bucket: Any, random_model: Model
) -> None:
    """By the command line; credentials are in the environment that workers inherit."""
    pytest.importorskip("ray")
    pytest.importorskip("lancedb")
    upload(bucket, make_recordings(tmp_path, 4), "sounds/a")
    where = str(tmp_path / "library")
    command = [sys.executable, "-m", "earshot", "index", "s3://sounds/a", "--to", where]
    command += ["--model", "tags-mn05", "--device", "cpu"]
    subprocess.run([*command, "--ray", "local", "--workers", "1"], check=True)
    plain = create_store(":memory:", model_manifest(random_model))
    index(["s3://sounds/a"], plain, random_model)
    there = open_store(where)
    assert there.files() == plain.files()
    for path, file in there.segments(there.files()).items():
        assert np.array_equal(file.vectors, plain.segments([path])[path].vectors)
