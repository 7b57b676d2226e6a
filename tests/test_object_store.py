"""An index on an object store, as a local S3 server has it: many writers, readers without state."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from conftest import make_recordings
from stored import MANIFEST, broken, embedded, hits, paths, units

from earshot.library import index, open_or_create
from earshot.store import LanceStore, create_store, open_store, store_exists
from earshot.types import EarshotError, Model

pytestmark = pytest.mark.usefixtures("bucket")
pytest.importorskip("lancedb", reason="the index needs earshot[index]")
URI = "s3://library/näh/index"


def test_a_store_in_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earshot.store.lance.REFRESH", timedelta(0))
    assert not store_exists(URI)
    with pytest.raises(EarshotError, match="there is no index here"):
        open_store(URI)
    writer = create_store(URI, MANIFEST)
    assert store_exists(URI)
    with pytest.raises(EarshotError, match="there is an index already"):
        create_store(URI, MANIFEST)
    reader = open_store(URI)
    writer.put([embedded("a", units(3)), embedded("it's", units(2, 5)), broken("b")])
    assert sorted(reader.files()) == ["a", "b", "it's"]
    assert sorted(paths(reader, units(1))) == ["a", "a", "a", "it's", "it's"]
    writer.put([embedded("a", units(1))])
    writer.drop(["it's"])
    assert paths(reader, units(1)) == ["a"]
    writer.optimize()
    assert paths(reader, units(1)) == ["a"]
    assert [hit.path for hit in reader.search_words("a", 5)] == []


def test_a_large_one_is_indexed_there() -> None:
    store = LanceStore.create(URI, replace(MANIFEST, half=True), exact_rows=100)
    blocks = units(600).reshape(60, 10, -1)
    store.put([embedded(f"{i:03d} dog.wav", block) for i, block in enumerate(blocks)])
    store.optimize()
    store.wait()
    reader = LanceStore.open(URI, exact_rows=100)
    assert len(reader._table.list_indices()) == 3
    assert hits(reader, blocks[7][:1], 1)[0].path == "007 dog.wav"
    assert len(reader.search_words("dogs", 100)) == 60
    assert reader.segments(["007 dog.wav"])["007 dog.wav"].vectors.shape == (10, 11)


def test_another_model_takes_over_in_a_bucket() -> None:
    old = create_store(URI, MANIFEST)
    old.put([embedded("a", units(2))])
    new = LanceStore.create(URI + ".migrating", replace(MANIFEST, fingerprint="f" * 64))
    new.put([embedded("a", units(1, 9)), embedded("c", units(1))])
    old.take_over(new)
    LanceStore.delete(URI + ".migrating")
    assert not store_exists(URI + ".migrating")
    assert sorted(open_store(URI).files()) == ["a", "c"]
    assert open_store(URI).manifest.fingerprint == "f" * 64


INDEX = """
import sys
from earshot import library
library.WRITE_FILES = 3
store, model = library.open_or_create(sys.argv[2], "tags-mn05", "cpu")
library.index(sys.argv[3:], store, model, report=lambda p: print(p.files_done, flush=True))
"""


def start(*arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", INDEX, "", URI, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)


def test_writers_at_once_and_a_killed_one_lose_and_double_nothing(
    tmp_path: Path, random_model: Model
) -> None:
    """Two index different folders into one new index; a third is killed, and run again."""
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for seed, folder in enumerate(folders):
        make_recordings(folder, 12, seed)
    writers = [start(str(folder)) for folder in folders]
    assert writers[2].stdout is not None
    writers[2].stdout.readline()
    time.sleep(random.uniform(0, 0.3))
    writers[2].send_signal(signal.SIGKILL)
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0, -signal.SIGKILL]
    store, model = open_or_create(URI, None, "cpu")
    summary = index([folders[2]], store, model)
    assert summary.added + summary.unchanged == 12
    files = open_store(URI).files()
    assert sorted(files) == sorted(str(path) for folder in folders for path in folder.iterdir())
    found = hits(open_store(URI), model.embed_text(["anything"]), 10_000)
    spans = [(hit.path, hit.start_s) for hit in found]
    assert len(spans) == len(set(spans))
    assert {path for path, _ in spans} == set(files)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "earshot", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )


def test_commands_take_a_bucket(tmp_path: Path, home: Path, random_model: Model) -> None:
    make_recordings(tmp_path, 3)
    made = run("index", str(tmp_path), "--to", URI, "--model", "tags-mn05", "--half", "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["added"] == 3
    found = run("search", URI, "a tone", "--json")
    assert found.returncode == 0, found.stderr
    assert open_store(URI).manifest.half
    again = run("index", str(tmp_path), "--to", URI, "--json")
    assert json.loads(again.stdout)["unchanged"] == 3


@pytest.mark.parametrize(
    ("uri", "environment", "says"),
    [
        ("s3://nowhere/index", {}, "no bucket `nowhere`"),
        ("s3://library/index", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "cannot be reached"),
    ],
)
def test_what_is_wrong_is_one_clear_line(
    tmp_path: Path, uri: str, environment: dict[str, str], says: str
) -> None:
    make_recordings(tmp_path, 1)
    for command in (["index", str(tmp_path), "--to", uri], ["search", uri, "dog"]):
        done = run(*command, **environment)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1, done.stderr
        assert says in done.stderr
        assert uri in done.stderr


def test_no_rights_are_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    create_store(URI, MANIFEST).put([embedded("a", units(1))])
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0.0)  # From now on.
    done = run("search", URI, "dog")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "access is denied" in done.stderr


def test_vectors_come_back_as_they_were() -> None:
    store = create_store(URI, MANIFEST)
    file = embedded("a", units(5))
    store.put([file])
    np.testing.assert_array_equal(open_store(URI).segments(["a"])["a"].vectors, file.vectors)
