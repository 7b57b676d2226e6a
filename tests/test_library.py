"""An index follows its folders, and an interrupted run loses and doubles nothing."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import make_recordings

from earshot.embed import embed_to_file
from earshot.library import Progress, Summary, index, open_or_create
from earshot.model import model_manifest
from earshot.store import create_store, open_store
from earshot.types import EarshotError, Model, Store


@pytest.fixture
def store(random_model: Model) -> Store:
    return create_store(":memory:", model_manifest(random_model))


def counts(summary: Summary) -> tuple[int, int, int, int]:
    return summary.added, summary.changed, summary.unchanged, summary.removed


def names(store: Store) -> list[str]:
    return sorted(Path(path).name for path in store.files())


def test_only_the_difference_is_done(tmp_path: Path, store: Store, random_model: Model) -> None:
    make_recordings(tmp_path / "a", 3)
    make_recordings(tmp_path / "b", 2, seed=1)
    roots = [tmp_path / "a", tmp_path / "b"]
    assert counts(index(roots, store, random_model)) == (5, 0, 0, 0)
    assert counts(index(roots, store, random_model)) == (0, 0, 5, 0)
    (tmp_path / "a" / "000.wav").unlink()
    make_recordings(tmp_path / "a" / "sub", 1, seed=2)
    shutil.copy(tmp_path / "b" / "000.wav", tmp_path / "a" / "001.wav")
    assert counts(index(roots, store, random_model)) == (1, 1, 3, 1)
    assert names(store) == ["000.wav", "000.wav", "001.wav", "001.wav", "002.wav"]


def test_content_decides_not_time(tmp_path: Path, store: Store, random_model: Model) -> None:
    first, second = make_recordings(tmp_path, 2)
    index([tmp_path], store, random_model)
    os.utime(first, (1, 1))
    assert counts(index([tmp_path], store, random_model)) == (0, 0, 2, 0)
    state = store.files()[str(first)].state
    assert state.mtime_ns == 10**9, "the new times spare reading it again"
    # Other content of equal size under the old modification time.
    stat = second.stat()
    content = bytearray(second.read_bytes())
    content[100:200] = bytes(100)
    second.write_bytes(content)
    os.utime(second, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert counts(index([tmp_path], store, random_model)) == (0, 1, 1, 0)


def test_a_table_beside_recordings_is_followed(
    tmp_path: Path, store: Store, random_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = map(str, make_recordings(tmp_path, 2))
    table = tmp_path / "metadata.csv"
    table.write_text("file_name,title,tags\n000.wav,Rain,wet\n")
    index([tmp_path], store, random_model)
    before = store.segments([first, second])
    assert (before[first].record.notes.title, before[first].record.notes.tags) == ("Rain", ("wet",))
    assert [hit.path for hit in store.search_words("rain", 5)] == [first]
    table.write_text("file_name,title,tags\n000.wav,Snow,wet\n001.wav,Rain,\n")
    assert counts(index([tmp_path], store, random_model)) == (0, 0, 2, 0)
    after = store.segments([first, second])
    assert [after[path].record.notes.title for path in (first, second)] == ["Snow", "Rain"]
    assert [hit.path for hit in store.search_words("rain", 5)] == [second]
    for path in (first, second):
        assert after[path].segments == before[path].segments
        assert np.array_equal(after[path].vectors, before[path].vectors)
    table.unlink()
    index([tmp_path], store, random_model)
    assert {record.notes.title for record in store.files().values()} == {""}
    written = []
    monkeypatch.setattr(store, "put", written.append)
    index([tmp_path], store, random_model)
    assert written == [], "what has not changed is not written again"


def test_other_roots_are_left_alone(tmp_path: Path, store: Store, random_model: Model) -> None:
    make_recordings(tmp_path / "a", 2)
    make_recordings(tmp_path / "b", 2)
    index([tmp_path / "a"], store, random_model)
    assert counts(index([tmp_path / "b"], store, random_model)) == (2, 0, 0, 0)
    (tmp_path / "a" / "000.wav").unlink()
    assert counts(index([tmp_path / "b"], store, random_model)) == (0, 0, 2, 0)
    assert counts(index([tmp_path / "a"], store, random_model)) == (0, 0, 1, 1)
    single = tmp_path / "b" / "001.wav"
    assert counts(index([single], store, random_model)) == (0, 0, 1, 0)


def test_an_unmounted_disk_empties_nothing(
    tmp_path: Path, store: Store, random_model: Model
) -> None:
    make_recordings(tmp_path / "disk", 2)
    index([tmp_path / "disk"], store, random_model)
    shutil.rmtree(tmp_path / "disk")
    for _ in range(2):
        with pytest.raises(EarshotError, match="index holds 2 from there; is its disk mounted"):
            index([tmp_path / "disk"], store, random_model)
        (tmp_path / "disk").mkdir(exist_ok=True)
    assert len(store.files()) == 2
    assert counts(index([tmp_path / "disk"], store, random_model, prune=True)) == (0, 0, 0, 2)


def test_an_unreadable_folder_drops_nothing(
    tmp_path: Path, store: Store, random_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_recordings(tmp_path / "a", 1)
    make_recordings(tmp_path / "b", 2)
    index([tmp_path], store, random_model)
    real = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    summary = index([tmp_path], store, random_model)
    assert counts(summary) == (0, 0, 1, 0)
    assert summary.broken == {str(tmp_path / "b"): "the folder cannot be read: permission denied"}
    assert len(store.files()) == 3


def test_broken_files_are_reported_every_time_and_recover(
    tmp_path: Path, store: Store, random_model: Model
) -> None:
    make_recordings(tmp_path, 1)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "notes.txt").write_text("not audio by its name: left out")
    (tmp_path / ".hidden.wav").touch()
    (tmp_path / "link.wav").symlink_to(tmp_path / "nowhere.wav")
    for _ in range(2):
        summary = index([tmp_path], store, random_model)
        assert sorted(Path(path).name for path in summary.broken) == ["empty.wav", "link.wav"]
        assert summary.changed == 0
    soundfile.write(tmp_path / "empty.wav", np.zeros(1000), 8000)
    summary = index([tmp_path], store, random_model)
    assert [Path(path).name for path in summary.broken] == ["link.wav"]
    assert not store.files()[str(tmp_path / "empty.wav")].broken


def test_a_name_that_is_not_text_is_reported(
    tmp_path: Path, store: Store, random_model: Model
) -> None:
    make_recordings(tmp_path, 1)
    shutil.copy(tmp_path / "000.wav", os.fsencode(tmp_path) + b"/\xff.wav")
    summary = index([tmp_path], store, random_model)
    assert list(summary.broken.values()) == ["its name is not valid UTF-8; rename it"]
    assert names(store) == ["000.wav"]


def test_a_loop_of_links_does_not_trap(tmp_path: Path, store: Store, random_model: Model) -> None:
    make_recordings(tmp_path / "a", 1)
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    assert counts(index([tmp_path / "a"], store, random_model)) == (1, 0, 0, 0)


def test_overlapping_roots_count_once(tmp_path: Path, store: Store, random_model: Model) -> None:
    make_recordings(tmp_path / "a", 2)
    roots = [tmp_path, tmp_path / "a", tmp_path / "a" / "000.wav"]
    assert counts(index(roots, store, random_model)) == (2, 0, 0, 0)


def test_progress_is_reported(tmp_path: Path, store: Store, random_model: Model) -> None:
    make_recordings(tmp_path, 4)
    seen: list[tuple[int, float]] = []

    def report(progress: Progress) -> None:
        seen.append((progress.files_done, progress.audio_s))
        assert progress.files_total == 4

    summary = index([tmp_path], store, random_model, report=report)
    assert seen == sorted(seen)
    assert seen[-1] == (4, summary.audio_s)


def test_what_is_put_is_tidied_whenever_it_has_doubled(
    tmp_path: Path, store: Store, random_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earshot.library.WRITE_FILES", 2)
    monkeypatch.setattr("earshot.store.growth.LEAST_FILES", 4)
    tidied: list[int] = []
    monkeypatch.setattr(store, "optimize", lambda: tidied.append(len(store.files())))
    make_recordings(tmp_path, 12)
    index([tmp_path], store, random_model)
    assert tidied == [4, 8, 12]
    make_recordings(tmp_path / "more", 14, seed=1)
    index([tmp_path], store, random_model)
    assert tidied == [4, 8, 12, 24, 26]


def test_stopping_does_not_wait_for_long_files(
    tmp_path: Path, store: Store, random_model: Model
) -> None:
    """Whoever stops at the first sign of life does not wait for ten minutes of audio."""
    soundfile.write(tmp_path / "long.wav", np.full(8000 * 600, 0.1), 8000)

    def interrupt(progress: Progress) -> None:
        seen.append(progress.audio_s)
        raise KeyboardInterrupt

    seen: list[float] = []
    with pytest.raises(KeyboardInterrupt):
        index([tmp_path], store, random_model, report=interrupt)
    assert max(seen) < 300
    assert store.files() == {}


def test_a_making_that_was_killed_is_made_again(tmp_path: Path, random_model: Model) -> None:
    pytest.importorskip("lancedb")
    (tmp_path / "index" / "segments.lance").mkdir(parents=True)
    open_or_create(str(tmp_path / "index"), "tags-mn05", "cpu")
    assert open_store(str(tmp_path / "index")).files() == {}


def test_another_model_is_refused(tmp_path: Path, random_model: Model) -> None:
    make_recordings(tmp_path, 1)
    other = replace(model_manifest(random_model), model="tags", fingerprint="f" * 64)
    with pytest.raises(EarshotError, match=r"made with model tags .* make a new index"):
        index([tmp_path], create_store(":memory:", other), random_model)


def test_an_index_keeps_its_model(tmp_path: Path, random_model: Model) -> None:
    pytest.importorskip("lancedb")
    uri = str(tmp_path / "index")
    _, model = open_or_create(uri, "tags-mn05", "cpu")
    assert model.name == "tags-mn05"
    assert open_or_create(uri, None, "cpu")[1].name == "tags-mn05"


def test_embeddings_to_a_file(tmp_path: Path, random_model: Model) -> None:
    make_recordings(tmp_path, 3)
    (tmp_path / "empty.wav").touch()
    out = tmp_path / "x.npz"
    count, broken = embed_to_file([tmp_path], out, random_model)
    with np.load(out, allow_pickle=False) as saved:
        assert count == 3 == len(saved["ids"])
        assert saved["vectors"].shape == (3, random_model.dimension)
        assert [Path(path).name for path in saved["ids"]] == ["000.wav", "001.wav", "002.wav"]
        assert (saved["end_s"] > saved["start_s"]).all()
    assert [Path(path).name for path in broken] == ["empty.wav"]
    with pytest.raises(EarshotError, match=r"does not end in \.npz"):
        embed_to_file([tmp_path], tmp_path / "x.csv", random_model)


INDEX = """
import sys
from earshot import library
library.WRITE_FILES = 3
store, model = library.open_or_create(sys.argv[2], "tags-mn05", "cpu")
library.index([sys.argv[1]], store, model, report=lambda p: print(p.files_done, flush=True))
"""


def test_killed_at_any_moment_nothing_is_lost_or_doubled(
    tmp_path: Path, random_model: Model
) -> None:
    pytest.importorskip("lancedb")
    recordings, uri = tmp_path / "sounds", str(tmp_path / "index")
    make_recordings(recordings, 30)
    chance = random.Random(0)
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", INDEX, str(recordings), uri],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()  # The first files are done.
            time.sleep(chance.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
    store, model = open_or_create(uri, None, "cpu")
    summary = index([recordings], store, model)
    assert summary.added + summary.unchanged == 30
    again = open_store(uri)
    assert len(again.files()) == 30
    hits = again.search(model.embed_text(["anything"]), 1000)[0]
    whole = create_store(":memory:", model_manifest(model))
    index([recordings], whole, model)
    expected = whole.search(model.embed_text(["anything"]), 1000)[0]
    assert sorted((h.path, h.start_s) for h in hits) == sorted(
        (h.path, h.start_s) for h in expected
    )
    scores = {hit.path: hit.score for hit in hits}
    assert all(abs(scores[hit.path] - hit.score) < 1e-5 for hit in expected)


def test_what_was_moved_keeps_its_vectors(
    tmp_path: Path, store: Store, random_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = make_recordings(tmp_path / "a", 3)
    (tmp_path / "a" / "metadata.csv").write_text("file,title\n000.wav,Rain\n")
    index([tmp_path], store, random_model)
    before = store.segments(map(str, (first, second, third)))
    heard: list[int] = []
    real = random_model.embed_audio
    monkeypatch.setattr(
        random_model, "embed_audio", lambda waves: heard.append(len(waves)) or real(waves)
    )
    (tmp_path / "b").mkdir()
    moved = first.rename(tmp_path / "b" / "renamed.wav")
    swapped = second.read_bytes()
    shutil.copy(third, second)
    third.write_bytes(swapped)
    copy = Path(shutil.copy(moved, tmp_path / "b" / "copy.wav"))
    summary = index([tmp_path], store, random_model)
    assert (summary.moved, *counts(summary)) == (1, 1, 2, 0, 0)
    assert heard == [], "no content is new"
    after = store.segments(map(str, (moved, copy, second, third)))
    sources = {moved: first, copy: first, second: third, third: second}
    for path, source in sources.items():
        assert np.array_equal(after[str(path)].vectors, before[str(source)].vectors), path
        assert after[str(path)].segments == before[str(source)].segments
        assert after[str(path)].record.state.path == str(path)
    assert after[str(moved)].record.notes.title != "Rain", "what a table said of the old name"
    assert names(store) == ["001.wav", "002.wav", "copy.wav", "renamed.wav"]


def test_vectors_of_other_content_are_not_taken(
    tmp_path: Path, store: Store, random_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored under a name may be replaced in the run that wanted it as a source."""
    monkeypatch.setattr("earshot.library.WRITE_FILES", 1)
    first, second, third = make_recordings(tmp_path, 3)
    index([tmp_path], store, random_model)
    contents = [path.read_bytes() for path in (first, second, third)]
    for path, content in zip((second, third, first), contents, strict=True):
        path.write_bytes(content)
    index([tmp_path], store, random_model)
    fresh = create_store(":memory:", model_manifest(random_model))
    index([tmp_path], fresh, random_model)
    for path, file in fresh.segments(map(str, (first, second, third))).items():
        np.testing.assert_allclose(store.segments([path])[path].vectors, file.vectors, atol=1e-5)
