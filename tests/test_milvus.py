"""What only Milvus does: addresses, filters as text, what a killed process leaves."""

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stored import MANIFEST, broken, embedded, hits, milvus, paths, units

from earshot.store import MilvusStore, create_store, open_store
from earshot.store import milvus as milvus_store
from earshot.store.milvus_server import Address, connect
from earshot.store.words import WordIndex
from earshot.types import Condition, EarshotError, FileRecord

pytest.importorskip("milvus_lite", reason="Milvus is tested with milvus-lite")


def test_addresses(tmp_path: Path) -> None:
    far = Address.of("milvus://db.example:19530/field_sounds")
    assert (far.server, far.collection) == ("http://db.example:19530", "field_sounds")
    assert not far.is_file
    near = Address.of(f"milvus:{tmp_path}/a.db")
    assert near.path == tmp_path / "a.db"
    for uri in ("milvus:", "milvus://host", "milvus://host/", "milvus:x.txt", "milvus://h/a;b"):
        with pytest.raises(EarshotError, match="no place in Milvus; write milvus://HOST"):
            open_store(uri)


def test_without_the_client_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(EarshotError, match=r"pip install 'earshot\[milvus\]'"):
        create_store(f"milvus:{tmp_path}/a.db", MANIFEST)


def test_nothing_to_open(tmp_path: Path) -> None:
    uri = f"milvus:{tmp_path}/a.db"
    with pytest.raises(EarshotError, match="there is no index here"):
        open_store(uri)
    assert not (tmp_path / "a.db").exists(), "asking must not make the file"
    with pytest.raises(EarshotError, match="cannot reach the index: nobody answers there"):
        open_store("milvus://127.0.0.1:9/sounds")
    create_store(uri, MANIFEST)
    with pytest.raises(EarshotError, match="there is an index already"):
        create_store(uri, MANIFEST)
    with pytest.raises(EarshotError, match="full precision; leave --half out"):
        create_store(f"milvus:{tmp_path}/b.db", replace(MANIFEST, half=True))


def test_foreign_collections_are_refused(tmp_path: Path) -> None:
    uri = f"milvus:{tmp_path}/a.db"
    connect(uri).create_collection("segments", dimension=4)
    with pytest.raises(EarshotError, match="this Milvus collection is not an index"):
        open_store(uri)


def test_reopened_it_is_the_same(tmp_path: Path) -> None:
    first = milvus(tmp_path)
    first.put([embedded("a", units(3)), broken("b")])
    again = open_store(first.uri)
    assert again.manifest == MANIFEST
    assert again.files() == first.files()
    assert hits(again, units(1, 4)) == hits(first, units(1, 4))


def test_another_reader_sees_what_is_written(tmp_path: Path) -> None:
    writer = milvus(tmp_path)
    reader = MilvusStore.open(writer.uri)
    assert reader.search_words("dog", 5) == []
    writer.put([embedded("dog.wav", units(1))])
    reader._looked_s = 0.0  # As 5 s later.
    assert [hit.path for hit in reader.search_words("dog", 5)] == ["dog.wav"]
    assert list(reader.files()) == ["dog.wav"]


def test_what_comes_while_words_are_read_is_found_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, real = milvus(tmp_path), milvus_store.WordIndex
    store.put([embedded("dog.wav", units(1))])

    def overtaken(records: list[FileRecord]) -> WordIndex:
        if len(records) == 1:
            store.put([embedded("cat.wav", units(1, 2))])
            assert len(store.files()) == 2
        return real(records)

    monkeypatch.setattr(milvus_store, "WordIndex", overtaken)
    assert [hit.path for hit in store.search_words("dog", 5)] == ["dog.wav"]
    assert [hit.path for hit in store.search_words("cat", 5)] == ["cat.wav"]


def test_a_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("notes")
    command = [sys.executable, "-m", "earshot", "search", f"milvus:{tmp_path}/a.db", "dog"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "one process at a time" in line


def test_labels_and_dates_are_asked_for_as_elsewhere(tmp_path: Path) -> None:
    from earshot.types import Notes

    store = milvus(tmp_path)
    one = Notes(tags=("Rain", "it's \"wet\"; x'\n"), date="2020-05-01", licence="CC0")
    store.put([embedded("/a/b.wav", units(1), notes=one), embedded("/a c/d.wav", units(1, 2))])
    for field, operator, value, expected in (
        ("tag", "=", "rain", ["/a/b.wav"]),
        ("tag", "!=", "rain", ["/a c/d.wav"]),
        ("tag", "=", "it's \"wet\"; x'", ["/a/b.wav"]),
        ("licence", "=", "cc0", ["/a/b.wav"]),
        ("date", "=", "2020", ["/a/b.wav"]),
        ("date", "<", "2020-05", []),
        ("folder", "=", "/a", ["/a/b.wav"]),
        ("folder", "!=", "/a", ["/a c/d.wav"]),
    ):
        where = Condition(field=field, operator=operator, value=value)
        assert [hit.path for hit in hits(store, units(1), 5, where)] == expected, where


def test_more_rows_than_milvus_gives_are_scored_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = milvus(tmp_path)
    store.put([embedded(f"{i}", units(4, i)) for i in range(20)])
    few = hits(store, units(1, 99), 50)
    monkeypatch.setattr("earshot.store.milvus.MOST_ROWS", 10)
    assert hits(store, units(1, 99), 50) == few


WRITER = """
import sys
import numpy as np
from earshot.store import open_store
from earshot.types import EmbeddedFile, FileRecord, FileState, Segment

store = open_store(sys.argv[1])
for number in range(10_000):
    n = 1 + number % 4
    files = []
    for path in ("shared", f"own {number}"):
        state = FileState(path=path, size_bytes=1, mtime_ns=2, ctime_ns=3, sha256=f"{number}")
        spans = tuple(Segment(start_s=float(i), end_s=i + 1.0) for i in range(n))
        vectors = np.eye(store.manifest.dimension, dtype=np.float32)[:n]
        record = FileRecord(state=state, duration_s=float(n), sample_rate_hz=1, channels=1)
        files.append(EmbeddedFile(record=record, segments=spans, vectors=vectors))
    store.put(files)
    print(number, flush=True)
"""


def test_a_killed_writer_leaves_what_was_acknowledged(tmp_path: Path) -> None:
    uri = f"milvus:{tmp_path}/index.db"
    made = "import sys; from earshot.store import create_store; from stored import MANIFEST; "
    subprocess.run(
        [sys.executable, "-c", made + "create_store(sys.argv[1], MANIFEST)", uri],
        check=True,
        cwd=Path(__file__).parent,
    )
    with subprocess.Popen([sys.executable, "-c", WRITER, uri], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(5):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        last = max([last, *map(int, writer.stdout.read().split())])
    store = open_store(uri)
    files = store.files()
    assert {f"own {number}" for number in range(last + 1)} <= set(files)
    whole = store.segments(list(files))
    for number in range(last + 1):
        assert len(whole[f"own {number}"].segments) == 1 + number % 4
    if not files["shared"].broken:  # Else the next run writes it again.
        number = int(files["shared"].state.sha256)
        assert number >= last
        assert len(whole["shared"].segments) == 1 + number % 4
    store.put([embedded("shared", units(2), sha="new")])
    assert len(store.segments(["shared"])["shared"].segments) == 2


@pytest.mark.parametrize(
    "step", ["delete", "upsert", "query_iterator", "alter_collection_properties"]
)
def test_an_interrupted_put_leaves_no_file_of_two_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Before and after each call of the client that writes."""
    for after in range(3):
        for done in (False, True):
            folder = tmp_path / f"{after} {done}"
            folder.mkdir()
            store = milvus(folder)
            former, latter = embedded("a", units(3), sha="old"), embedded("a", units(4, 1))
            store.put([former])
            with monkeypatch.context() as patch:
                interrupt(patch, store._client, step, after, done)
                with suppress(KeyboardInterrupt):
                    store.put([latter])
            again = MilvusStore.open(store.uri)
            known = again.files()
            if not known["a"].broken:
                ours = latter if known["a"].state.sha256 == "a" else former
                (kept,) = again.segments(["a"]).values()
                assert kept.record == ours.record
                assert kept.segments == ours.segments
                np.testing.assert_allclose(kept.vectors, ours.vectors, atol=1e-6)
            again.put([latter])
            assert len(again.segments(["a"])["a"].segments) == 4


@pytest.mark.parametrize("change", ["put", "drop"])
@pytest.mark.parametrize("step", ["delete", "upsert", "query_iterator"])
def test_what_an_interrupted_change_leaves_is_known_and_can_be_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, change: str
) -> None:
    kept = embedded("kept", units(2, 5))
    for after in range(3):
        for done in (False, True):
            folder = tmp_path / f"{after} {done}"
            folder.mkdir()
            store = milvus(folder)
            store.put([embedded("a", units(3)), kept])
            with monkeypatch.context() as patch:
                interrupt(patch, store._client, step, after, done)
                with suppress(KeyboardInterrupt):
                    if change == "put":
                        store.put([embedded("a", units(4, 1)), embedded("new", units(3, 2))])
                    else:
                        store.drop(["a"])
            again = MilvusStore.open(store.uri)
            known = again.files()
            assert set(paths(again, units(1))) <= set(known)
            whole = {path for path, record in known.items() if not record.broken}
            assert set(again.segments(list(known))) == whole
            assert all(len(again.segments([path])[path].segments) > 1 for path in whole)
            again.drop(set(known) - {"kept"})
            assert paths(again, units(1)) == ["kept", "kept"]
            assert again.segment_count() == 2


def interrupt(patch: pytest.MonkeyPatch, client: object, step: str, after: int, done: bool) -> None:
    """Stop at a call of Milvus' client: the `after`th of a kind, before or after it is `done`."""
    real: Callable[..., object] = getattr(client, step)
    calls: list[int] = []

    def call(*args: object, **options: object) -> object:
        calls.append(1)
        if len(calls) <= after:
            return real(*args, **options)
        if done:
            real(*args, **options)
        raise KeyboardInterrupt

    patch.setattr(client, step, call)
