"""`index --watch`, `migrate` and `compare` as a user meets them."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from command_line import earshot, refused
from conftest import make_recordings

from earshot.store import open_store
from earshot.types import Model

pytest.importorskip("lancedb", reason="the index on disk needs earshot[index]")
pytestmark = pytest.mark.usefixtures("random_model")


@pytest.fixture
def library(tmp_path: Path, random_model: Model) -> Path:
    make_recordings(tmp_path / "sounds", 4)
    done = earshot("index", "sounds", "--to", "index", "--model", "tags-mn05", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(["--watch"], id="events"),
        pytest.param(["--watch-every", "0.3"], id="polling", marks=pytest.mark.slow),
    ],
)
def test_watch_until_control_c(tmp_path: Path, how: list[str]) -> None:
    if how == ["--watch"]:
        pytest.importorskip("watchfiles", reason="events need earshot[watch]")
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    command = [sys.executable, "-m", "earshot", "index", "sounds", "--to", "index"]
    command += ["--model", "tags-mn05", "--settle", "0.2", "--json", *how]
    lines: Queue[str] = Queue()

    def told() -> dict[str, Any]:
        return json.loads(lines.get(timeout=120))

    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=lambda: [*map(lines.put, process.stdout)])
        reader.start()
        try:
            first = told()
            assert (first["event"], first["added"], first["model"]) == ("indexed", 0, "tags-mn05")
            (path,) = make_recordings(sounds, 1)
            new = told()
            assert (new["event"], new["path"]) == ("new", str(path))
            path.rename(sounds / "b.wav")
            moved = told()
            assert (moved["event"], moved["source"]) == ("moved", str(path))
            assert moved["path"] == str(sounds / "b.wav")
        finally:
            process.send_signal(signal.SIGINT)
            reader.join()
        assert process.wait(60) == 130
        assert process.stderr is not None
        assert "what was written stays" in process.stderr.read()
    assert list(open_store(str(tmp_path / "index")).files()) == [str(sounds / "b.wav")]


def test_watching_what_is_not_there_is_refused(library: Path) -> None:
    line = refused(earshot("index", "typo", "--to", "index", "--watch", cwd=library))
    assert line == "earshot: typo does not exist; give files or folders of recordings"
    line = refused(earshot("index", "sounds", "--to", "index", "--watch", "--prune", cwd=library))
    assert "--prune is for one run" in line
    line = refused(earshot("index", "sounds", "--to", "index", "--watch-every", "0", cwd=library))
    assert "seconds must be above 0" in line


def test_migrate(library: Path) -> None:
    (library / "sounds" / "003.wav").unlink()
    command = ("migrate", "index", "--window", "0.5")
    done = earshot(*command, cwd=library)
    assert done.returncode == 0, done.stderr
    assert "index: 3 files by model tags-mn05, before tags-mn05, " in done.stdout
    assert "gone: sounds/003.wav" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert open_store(str(library / "index")).manifest.segment_s == 0.5
    assert "in segments of 0.5 s every 0.25 s already" in refused(earshot(*command, cwd=library))
    done = earshot("migrate", "index", "--to", "new", "--hop", "0.5", "--json", cwd=library)
    told = json.loads(done.stdout)
    assert (told["index"], told["files"], told["gone"]) == ("new", 3, [])
    assert "there is no index here" in refused(earshot("migrate", "nowhere", cwd=library))


def test_compare(library: Path) -> None:
    earshot("migrate", "index", "--to", "new", "--window", "0.3", cwd=library)
    (library / "q.csv").write_text("query\nrain\na dog barks in a very long sentence " + "x" * 99)
    command = ("compare", "index", "new", "thunder", "--queries", "q.csv", "-k", "3")
    done = earshot(*command, "--html", "page.html", cwd=library)
    assert done.returncode == 0, done.stderr
    assert "overlap@3" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "<summary>thunder: overlap" in (library / "page.html").read_text()
    told = json.loads(earshot(*command, "--json", cwd=library).stdout)
    assert len(told["queries"]) == 3
    assert {"query", "overlap", "rank_biased_overlap", "moves"} == set(told["queries"][0])
    assert told["model_a"] == "tags-mn05"
    assert "no query" in refused(earshot("compare", "index", "new", cwd=library))
