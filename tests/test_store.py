"""Every kind of store keeps the same promises; LanceDB's traps each have their test."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored import MANIFEST, D, axis, broken, embedded, hits, lance, milvus, paths, units

from earshot.store import STORES, LanceStore, MemoryStore, create_store, memory, open_store
from earshot.store.checks import check_path
from earshot.store.exact import exact_scores
from earshot.store.snapshots import restore, snapshot
from earshot.types import (
    Condition,
    EarshotError,
    EmbeddedFile,
    FileRecord,
    Segment,
    Store,
)

WEIRD_NAMES = [
    "it's.wav",
    'say "hi".wav',
    "a, b; c.wav",
    "x' OR '1'='1",
    "'; DROP TABLE segments; --",
    "id = 1; drop table h",
    "back\\slash\\'.wav",
    "new\nline\ttab.wav",
    "näh 中文 🎵.wav",
    "e\u0301.wav",
    "\u00e9.wav",
    "%_*?`$1{}.wav",
    " ",
    "NULL",
]


KINDS = {
    "memory": lambda folder: MemoryStore(MANIFEST),
    "lance": lance,
    "lance, scanned": partial(lance, exact_rows=-1),
}
KINDS["milvus"] = milvus
LANCE_KINDS = ["lance", "lance, scanned"]


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return KINDS[request.param](tmp_path / "index")


@pytest.fixture(params=LANCE_KINDS)
def lance_store(request: pytest.FixtureRequest, tmp_path: Path) -> LanceStore:
    return KINDS[request.param](tmp_path / "index")


# The contract


def test_an_empty_store_answers(store: Store) -> None:
    assert store.files() == {}
    assert store.paths() == []
    assert store.segment_count() == 0
    assert store.search(units(2), 5) == [[], []]
    assert store.search(units(0), 5) == []
    store.put([])
    store.drop([])
    store.optimize()
    assert store.manifest == MANIFEST


def test_what_is_put_is_found(store: Store) -> None:
    a, b = units(3, 1), units(2, 2)
    store.put([embedded("a", a), embedded("b", b)])
    best = hits(store, a[1:2], 1)
    assert [(hit.path, hit.start_s, hit.end_s) for hit in best] == [("a", 1.0, 2.5)]
    assert best[0].score == pytest.approx(1, abs=1e-6)
    found = hits(store, b[:1])
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    expected = sorted((float(v @ b[0]) for v in [*a, *b]), reverse=True)
    assert [hit.score for hit in found] == pytest.approx(expected, abs=1e-6)


def test_several_queries_are_answered_apart(store: Store) -> None:
    vectors = units(6)
    store.put([embedded(f"{i}", vectors[i : i + 1]) for i in range(6)])
    queries = units(150, 5)
    answers = store.search(queries, 2)
    assert [len(answer) for answer in answers] == [2] * 150
    assert answers == [hits(store, query[None], 2) for query in queries]


def test_scores_are_cosines_whatever_the_querys_length(store: Store) -> None:
    store.put([embedded("a", units(2))])
    long, unit = hits(store, units(1, 3) * 7), hits(store, units(1, 3))
    assert [hit.score for hit in long] == pytest.approx([hit.score for hit in unit], abs=1e-6)
    assert hits(store, units(1).astype(np.float64) * 1e-9)[0].score == pytest.approx(1)


def test_replacing_leaves_nothing_of_the_old_version(store: Store) -> None:
    store.put([embedded("a", units(5)), embedded("b", units(1, 9))])
    changed = embedded("a", units(2, 7), sha="new", channels=1)
    store.put([changed])
    assert sorted(paths(store, units(1))) == ["a", "a", "b"]
    assert store.files()["a"] == changed.record
    store.put([embedded("a", units(4, 8))])
    assert paths(store, units(1)).count("a") == 4
    assert hits(store, units(4, 8)[3:], 1)[0].start_s == 3.0


def test_drop_forgets(store: Store) -> None:
    store.put([embedded("a", units(2)), embedded("b", units(1)), broken("c")])
    store.drop(["a", "c", "never seen", "no utf-8 \udcff"])
    assert list(store.files()) == ["b"]
    assert paths(store, units(1)) == ["b"]
    store.put([embedded("a", units(1))])
    assert sorted(store.files()) == ["a", "b"]


def test_files_come_back_as_they_were(store: Store) -> None:
    given = [
        embedded("a", units(3), duration_s=0.1 + 0.2, sample_rate_hz=192000, channels=64),
        broken("b", "line 1\nit's 'quoted' ü"),
        embedded("c", units(0)),
    ]
    store.put(given)
    assert store.files() == {file.record.state.path: file.record for file in given}


def test_paths_and_segments_are_counted(store: Store) -> None:
    store.put([embedded("a", units(3)), broken("b"), embedded("c", units(2))])
    assert sorted(store.paths()) == ["a", "b", "c"]
    assert store.segment_count() == 5
    store.put([embedded("a", units(1))])
    store.drop(["b"])
    assert sorted(store.paths()) == ["a", "c"]
    assert store.segment_count() == 3, "what a file no longer has is not counted"


def test_broken_and_back(store: Store) -> None:
    store.put([embedded("a", units(3))])
    store.put([broken("a")])
    assert store.files()["a"].broken == "no audio"
    assert paths(store, units(1)) == []
    store.put([embedded("a", units(2))])
    assert store.files()["a"].broken == ""
    assert paths(store, units(1)) == ["a", "a"]
    assert len(store.files()) == 1


def test_equal_scores_are_ordered_by_path_then_start(store: Store) -> None:
    same = np.repeat(units(1), 3, axis=0)
    store.put([embedded(path, same) for path in ["c", "B", "ä", "a"]])
    store.put([embedded("Z", same)])
    found = [(hit.path, hit.start_s) for hit in hits(store, units(1, 2))]
    assert found == [(path, float(i)) for path in ["B", "Z", "a", "c", "ä"] for i in range(3)]


def test_limit_cuts_and_may_exceed_the_store(store: Store) -> None:
    store.put([embedded("a", units(4))])
    assert [len(hits(store, units(1), limit)) for limit in (1, 3, 4, 5, 10_000)] == [1, 3, 4, 4, 4]


@pytest.mark.parametrize(
    ("field", "operator", "value", "expected"),
    [
        ("duration_s", ">", 1, "bc"),
        ("duration_s", ">=", 2.0, "bc"),
        ("duration_s", "<", 2.5, "ab"),
        ("sample_rate_hz", "=", 48000.0, "c"),
        ("sample_rate_hz", "=", 48000.5, ""),
        ("sample_rate_hz", "<=", 32000, "ab"),
        ("channels", "!=", 1, "c"),
        ("channels", "!=", 9, "abc"),
        ("path", "=", "b", "b"),
        ("path", "!=", "b", "ac"),
        ("path", ">=", "b", "bc"),
    ],
)
def test_where(store: Store, field: str, operator: str, value: object, expected: str) -> None:
    rates = {"a": 16000, "b": 32000, "c": 48000}
    files = [
        embedded(path, units(n), sample_rate_hz=rates[path], channels=2 if path == "c" else 1)
        for n, path in enumerate("abc", start=1)
    ]
    store.put([*files, broken("d")])
    condition = Condition(field=field, operator=operator, value=value)
    assert sorted(set(paths(store, units(1), 100, condition))) == list(expected)
    # Several conditions must all hold.
    also = Condition(field="path", operator="<", value="c")
    both = sorted(set(paths(store, units(1), 100, condition, also)))
    assert both == [path for path in expected if path < "c"]


def test_any_name_that_is_unicode(store: Store) -> None:  # trap e
    store.put([embedded(name, axis(i % D)) for i, name in enumerate(WEIRD_NAMES)])
    assert sorted(store.files()) == sorted(WEIRD_NAMES)
    for name in WEIRD_NAMES:
        is_it = Condition(field="path", operator="=", value=name)
        assert paths(store, axis(0), 100, is_it) == [name]
    store.put([embedded(name, units(2)) for name in WEIRD_NAMES])
    store.put([broken(WEIRD_NAMES[0])])
    assert len(hits(store, axis(0))) == 2 * (len(WEIRD_NAMES) - 1)
    for name in WEIRD_NAMES:
        store.drop([name])
        assert name not in store.files()
    assert store.files() == {}


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (embedded("a\udcff.wav", units(1)), r"a\\udcff.wav: .* not valid UTF-8"),
        (broken("a", "bad \udcff"), "not valid UTF-8"),
        (embedded("a", units(1, dimension=D + 1)), rf"shape \(1, 12\).*\(segments, {D}\)"),
        (embedded("a", units(1) * 1.01), "vector of length 1.01"),
        (embedded("a", units(1) * np.nan), "vector of length nan"),
        (embedded("a", np.full((1, D), np.inf, np.float32)), "vector of length inf"),
        (embedded("a", np.zeros((1, D), np.float32)), "vector of length 0"),
        (embedded("a", units(2), broken="yes"), "a broken file has no segments"),
        (
            EmbeddedFile(record=broken("a").record, segments=(), vectors=units(1)),
            "1 vectors for 0 segments",
        ),
        (
            EmbeddedFile(
                record=embedded("a", units(0)).record,
                segments=(Segment(start_s=float("nan"), end_s=1),),
                vectors=units(1),
            ),
            "no span of time",
        ),
    ],
)
def test_what_may_not_enter(store: Store, file: EmbeddedFile, says: str) -> None:
    good = embedded("good", units(1))
    with pytest.raises(EarshotError, match=says):
        store.put([good, file])
    assert store.files() == {}


def test_a_file_twice_in_one_batch_is_refused(store: Store) -> None:
    with pytest.raises(EarshotError, match="a: given twice"):
        store.put([embedded("a", units(1)), broken("a")])


@pytest.mark.parametrize(
    ("query", "says"),
    [
        (np.zeros((1, D)), "query 0 is zero or not finite"),  # trap d
        (np.vstack([units(1), units(1) * np.nan]), "query 1 is zero or not finite"),
        (np.full((1, D), np.inf), "not finite"),
        (units(1)[0], r"shape \(11,\)"),
        (units(1, dimension=3), r"shape \(1, 3\)"),
    ],
)
def test_queries_without_direction_are_refused(store: Store, query: np.ndarray, says: str) -> None:
    store.put([embedded("a", units(2))])
    with pytest.raises(EarshotError, match=says):
        store.search(query, 3)


@pytest.mark.parametrize(
    ("field", "operator", "value", "says"),
    [
        ("sha256", "=", "x", "no field 'sha256'; there are path, folder"),
        ("path", "LIKE", "x", "no operator 'LIKE'; there are < <="),
        ("path", "=", 3, "compare a path with text"),
        ("path", "=", "\udcff", "not valid UTF-8"),
        ("channels", "=", "1 OR 1=1", "a finite number"),
        ("channels", "=", float("nan"), "a finite number"),
    ],
)
def test_senseless_conditions_are_refused(
    store: Store, field: str, operator: str, value: object, says: str
) -> None:
    with pytest.raises(EarshotError, match=says):
        store.search(units(1), 3, [Condition(field=field, operator=operator, value=value)])
    with pytest.raises(EarshotError, match="at least 1"):
        store.search(units(1), 0)


def test_paths_can_be_checked_before_the_work() -> None:
    check_path("fine ✓.wav")
    with pytest.raises(EarshotError, match="rename the file"):
        check_path(os.fsdecode(b"caf\xe9.wav"))


def test_equal_vectors_score_equal_wherever_they_lie() -> None:
    vectors = units(3000, dimension=911)
    vectors[::7] = vectors[0]
    query = units(1, 1, dimension=911)
    assert len(set(exact_scores(vectors, query[0])[::7])) == 1
    # In one precision the product does round them apart, and the limit must not show it.
    store = MemoryStore(replace(MANIFEST, dimension=911))
    store.put([embedded(f"{i:04d}", vector[None]) for i, vector in enumerate(vectors)])
    answers = store.search(vectors[:1] + 0.5 * units(9, 2, dimension=911), 20)
    firsts = [f"{i:04d}" for i in range(0, 140, 7)]
    assert [[hit.path for hit in answer] for answer in answers] == [firsts] * 9


# Addresses


def test_addresses() -> None:
    assert set(STORES) == {"memory", "lance", "milvus"}
    store = create_store(":memory:", MANIFEST)
    assert isinstance(store, MemoryStore)
    with pytest.raises(EarshotError, match="index the files first"):
        open_store(":memory:")
    for uri in ["", "ftp://host/x", "db://cloud", "memory://x"]:
        with pytest.raises(EarshotError, match="use a folder, s3://"):
            open_store(uri)


def test_without_lancedb_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(EarshotError, match=r"pip install 'earshot\[index\]'"):
        create_store(str(tmp_path / "index"), MANIFEST)


# What only a store on disk can promise


def test_reopened_it_is_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "näh" / "it's" / "index"
    first = lance(folder)
    first.put([embedded("a", units(3)), broken("b")])
    again = open_store(str(folder))
    assert again.manifest == MANIFEST
    assert again.files() == first.files()
    assert hits(again, units(1, 4)) == hits(first, units(1, 4))
    again.put([embedded("a", units(1))])
    again.optimize()
    assert open_store(str(folder)).manifest == MANIFEST
    assert len(hits(open_store(str(folder)), units(1, 4))) == 1


def test_an_open_reader_follows_other_writers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earshot.store.lance.REFRESH", timedelta(0))
    writer = lance(tmp_path)
    reader = open_store(str(tmp_path))
    assert paths(reader, units(1)) == []
    writer.put([embedded("a", units(1))])
    assert paths(reader, units(1)) == ["a"]
    assert list(reader.files()) == ["a"]


def test_a_reader_survives_the_pruning_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earshot.store.lance.REFRESH", timedelta(hours=1))
    writer = lance(tmp_path, exact_rows=-1)
    writer.put([embedded("a", units(2))])
    reader = LanceStore.open(str(tmp_path), exact_rows=-1)
    for seed in range(3):
        writer.put([embedded("b", units(2, seed))])
    writer.optimize()
    assert paths(reader, units(1)) == ["a", "a"]


def test_nothing_to_open(tmp_path: Path) -> None:
    pytest.importorskip("lancedb", reason="the index on disk needs earshot[index]")
    missing = tmp_path / "missing"
    with pytest.raises(EarshotError, match="missing: there is no index here"):
        open_store(str(missing))
    assert not missing.exists(), "asking must not make the folder"
    (tmp_path / "notes.txt").write_text("not an index")
    for place in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(EarshotError, match="there is no index here"):
            open_store(str(place))
    with pytest.raises(EarshotError, match="cannot create the index: .*exists"):
        create_store(str(tmp_path / "notes.txt"), MANIFEST)


def test_creating_never_overwrites(tmp_path: Path) -> None:
    lance(tmp_path).put([embedded("a", units(1))])
    with pytest.raises(EarshotError, match="there is an index already"):
        create_store(str(tmp_path), MANIFEST)
    assert list(open_store(str(tmp_path)).files()) == ["a"]


def test_who_makes_an_index_at_the_same_moment_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, others = LanceStore.exists, []

    def overtaken(uri: str) -> bool:
        there = real(uri)
        if not others:
            others.append(real)
            LanceStore.create(uri, MANIFEST).put([embedded("a", units(1))])
        return there

    monkeypatch.setattr(LanceStore, "exists", overtaken)
    with pytest.raises(EarshotError, match="cannot create the index: .*exists"):
        lance(tmp_path / "index")
    assert list(open_store(str(tmp_path / "index")).files()) == ["a"]


def test_of_many_who_make_an_index_all_write_into_the_same(tmp_path: Path) -> None:
    """LanceDB may let two make it in the same instant; what is put then is not lost."""
    made: list[str] = []

    def job(name: str) -> None:
        with suppress(EarshotError):
            lance(tmp_path / "index")
            made.append(name)
        open_store(str(tmp_path / "index")).put([embedded(name, units(1))])

    names = [f"{number}" for number in range(6)]
    threads = [Thread(target=job, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made
    assert sorted(open_store(str(tmp_path / "index")).files()) == names


class Busy:
    """A table of LanceDB whose first `times` changes other writers get in the way of."""

    def __init__(self, table: Any, says: str, times: int) -> None:
        self._table, self._says, self.times = table, says, times

    def __getattr__(self, name: str) -> Any:
        if name in ("merge_insert", "delete", "optimize") and self.times:
            self.times -= 1
            raise RuntimeError(f"lance error: {self._says}, /somewhere/commit.rs:7")
        return getattr(self._table, name)


@pytest.mark.parametrize(
    "says",
    [
        "Commit conflict for version 7: Failed to commit the transaction after 20 retries.",
        "Retryable commit conflict for version 7: preempted by Update at version 7",
        "Too many concurrent writers. ",
        "Incompatible transaction: This Update transaction is incompatible with Restore",
    ],
)
def test_busy_writers_are_given_way_to(tmp_path: Path, says: str) -> None:
    store = lance(tmp_path)
    store.put([embedded("a", units(1))])
    table = store._table
    for change, times_that_fail in (
        (lambda: store.put([embedded("b", units(2))]), 3),
        (lambda: store.drop(["a"]), 3),
        (store.optimize, None),
    ):
        store._table = Busy(table, says, 100)
        if times_that_fail:
            with pytest.raises(EarshotError, match="too many write to it at once; run it again"):
                change()
            assert store._table.times == 100 - times_that_fail
        else:
            change()
        store._table = Busy(table, says, 2)
        change()
    assert list(open_store(str(tmp_path)).files()) == ["b"]


def test_foreign_and_future_tables_are_refused(tmp_path: Path) -> None:
    lancedb = pytest.importorskip("lancedb", reason="the index on disk needs earshot[index]")
    pyarrow = pytest.importorskip("pyarrow")
    columns = pyarrow.schema([("x", pyarrow.int32())])
    lancedb.connect(tmp_path / "foreign").create_table("segments", schema=columns)
    with pytest.raises(EarshotError, match="foreign: this LanceDB table is not an index"):
        open_store(str(tmp_path / "foreign"))
    future = columns.with_metadata({"earshot": '{"format": 99}'})
    lancedb.connect(tmp_path / "future").create_table("segments", schema=future)
    with pytest.raises(EarshotError, match="another version of earshot"):
        open_store(str(tmp_path / "future"))


@pytest.mark.parametrize("damage", ["truncated", "emptied", "removed"])
@pytest.mark.parametrize("part", ["data", "_versions"])
def test_damage_is_one_clear_line(tmp_path: Path, damage: str, part: str) -> None:
    lance(tmp_path).put([embedded("a", units(3)), broken("b")])
    for file in (tmp_path / "segments.lance" / part).iterdir():
        if damage == "removed":
            file.unlink()
        else:
            file.write_bytes(
                file.read_bytes()[: file.stat().st_size // 2 * (damage == "truncated")]
            )
    for use in (lambda store: store.files(), lambda store: store.search(units(1), 3)):
        with pytest.raises(EarshotError, match=r"cannot (read|open) the index: .*index again") as e:
            use(open_store(str(tmp_path)))
        assert "\n" not in str(e.value)
        assert str(e.value).startswith(str(tmp_path))


# LanceDB's traps (a)-(g) and what was found on the way


def crowd(store: Store, n: int = 3000) -> np.ndarray:
    """Clustered vectors, as sounds are, in files of ten segments."""
    noise, centres = units(n, 1), np.repeat(units(n // 50, 2), 50, axis=0)
    vectors = centres + 0.7 * noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    blocks = vectors.reshape(-1, 10, D)
    store.put([embedded(f"{i:04d}", block, channels=1 + i % 100) for i, block in enumerate(blocks)])
    return vectors


def test_a_scan_logs_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:  # a
    store = lance(tmp_path, exact_rows=-1)
    store.put([embedded("a", units(2))])
    assert len(hits(store, units(1))) == 2
    assert "WARN" not in capfd.readouterr().err


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> tuple[LanceStore, MemoryStore]:
    """The same crowd behind an IVF_RQ index of many partitions, and in memory."""
    store, oracle = lance(tmp_path_factory.mktemp("indexed"), 100), MemoryStore(MANIFEST)
    crowd(store)
    crowd(oracle)
    from lancedb.index import IvfRq

    # Many, so that the usual 20 are few; a table of this size would get one.
    config = IvfRq(distance_type="cosine", num_partitions=100)
    store._table.create_index("vector", config=config)
    return store, oracle


def test_a_narrow_filter_finds_all_it_should(
    indexed: tuple[LanceStore, MemoryStore],
) -> None:  # b
    store, oracle = indexed
    where = Condition(field="channels", operator="=", value=7)
    for query in units(5, 11):
        assert hits(store, query[None], 40, where) == hits(oracle, query[None], 40, where)


def test_the_index_finds_the_true_neighbours(
    indexed: tuple[LanceStore, MemoryStore],
) -> None:  # c
    store, oracle = indexed
    queries = units(20, 3) * 0.5 + np.asarray(crowd(MemoryStore(MANIFEST)))[::150]
    found, true = store.search(queries, 10), oracle.search(queries, 10)
    shared = [len(set(a) & set(b)) for a, b in zip(found, true, strict=True)]
    assert sum(shared) >= 0.95 * 200  # equal as records: scores too are exact


def test_many_small_puts_are_tidied_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # f
    store = lance(tmp_path)
    for i in range(20):
        store.put([embedded(f"{i}", units(2, i))])
    store.put([embedded("0", units(1))])
    before = hits(store, units(1, 99))
    monkeypatch.setattr("earshot.store.lance.GRACE", timedelta(milliseconds=20))
    for _ in range(2):  # what the first makes superfluous, the second may remove
        time.sleep(0.05)
        store.optimize()
    assert len(store._table.list_versions()) <= 3
    assert len(list((tmp_path / "segments.lance" / "data").iterdir())) <= 2
    assert store._table.count_rows() == 39, "the blank of the lost segment is gone, too"
    assert hits(store, units(1, 99)) == before


def test_optimize_indexes_large_tables_only(tmp_path: Path) -> None:  # g
    small, large = lance(tmp_path / "small"), lance(tmp_path / "large", exact_rows=100)
    small.put([embedded("a", units(5))])
    small.optimize()
    assert small._table.list_indices() == []
    crowd(large)
    large.put([broken("b")])
    large.optimize()
    large.wait()
    indexes = {
        index.columns[0]: index for index in LanceStore.open(large.uri)._table.list_indices()
    }
    assert {column: index.index_type for column, index in indexes.items()} == {
        "vector": "IvfRq",
        "words": "FTS",
        "path": "BTree",
    }
    new = embedded("new", units(3, 77))
    large.put([new])
    assert hits(large, new.vectors[:1], 1)[0].path == "new", "found before it is in the index"
    large.optimize()
    assert large._table.index_stats(indexes["vector"].name).num_unindexed_rows == 0
    assert hits(large, new.vectors[:1], 1)[0].path == "new"
    large.put([broken("new")])
    assert hits(large, new.vectors[:1], 1)[0].path != "new"


def test_one_put_is_one_commit(lance_store: LanceStore) -> None:
    lance_store.put([embedded("a", units(5)), broken("b"), embedded("c", units(0))])
    before = lance_store._table.version
    lance_store.put([embedded("a", units(2)), embedded("b", units(3)), broken("c")])
    assert lance_store._table.version == before + 1


# Any content: disk and memory agree

names = st.sampled_from(["a", "b'", "ü", "z, y"])
grid = st.lists(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=D, max_size=D).filter(any))
contents = st.dictionaries(names, st.tuples(grid, st.booleans(), st.integers(1, 3)), min_size=1)
steps = st.lists(st.one_of(contents, st.sets(names)), max_size=4)
conditions = st.lists(
    st.one_of(
        st.builds(
            Condition,
            field=st.sampled_from(["duration_s", "sample_rate_hz", "channels"]),
            operator=st.sampled_from(["<", "<=", "=", "!=", ">=", ">"]),
            value=st.sampled_from([0, 1, 1.5, 2, 44100]),
        ),
        st.builds(
            Condition,
            field=st.just("path"),
            operator=st.sampled_from(["<", "<=", "=", "!=", ">=", ">"]),
            value=names,
        ),
    ),
    max_size=2,
)


def from_content(path: str, content: tuple[list[list[float]], bool, int]) -> EmbeddedFile:
    rows, is_broken, channels = content
    if is_broken:
        return broken(path)
    vectors = np.array(rows, dtype=np.float32).reshape(-1, D)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return embedded(path, vectors, channels=channels)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=steps, where=conditions, limit=st.integers(1, 6), scanned=st.booleans())
def test_disk_equals_memory(
    tmp_path: Path, steps: list, where: list[Condition], limit: int, scanned: bool
) -> None:
    shutil.rmtree(tmp_path / "index", ignore_errors=True)
    stores = [lance(tmp_path / "index", -1 if scanned else 1000), MemoryStore(MANIFEST)]
    for step in steps:
        for store in stores:
            if isinstance(step, dict):
                store.put([from_content(path, content) for path, content in step.items()])
            else:
                store.drop(step)
    disk, memory = stores
    assert disk.files() == memory.files()
    # A scan may choose among equals at the limit; without a limit nothing is open.
    limit = 1000 if scanned else limit
    assert disk.search(units(3), limit, where) == memory.search(units(3), limit, where)


# Several processes

# Without the imports of this module: they would take longer than the writing.
WRITER = """
import random, sys
import numpy as np
from earshot.store import open_store
from earshot.types import EmbeddedFile, FileRecord, FileState, Segment

def embedded(path, n, sha):
    state = FileState(path=path, size_bytes=1, mtime_ns=2, ctime_ns=3, sha256=sha)
    return EmbeddedFile(
        record=FileRecord(state=state, duration_s=float(n), sample_rate_hz=1, channels=1),
        segments=tuple(Segment(start_s=float(i), end_s=i + 1.0) for i in range(n)),
        vectors=np.eye(store.manifest.dimension, dtype=np.float32)[:n],
    )

store, name, seed = open_store(sys.argv[1]), sys.argv[2], int(sys.argv[3])
chance = random.Random(seed)
print("ready", flush=True)
sys.stdin.readline()
for round in range(int(sys.argv[4])):
    sha = f"{seed}-{round}"
    # Half of the files are everybody's, half are new and one's own.
    mine = [f"shared {i}" for i in range(3)] + [f"{name} {round} {i}" for i in range(3)]
    n = chance.randint(1, 5)
    store.put([embedded(path, n, sha) for path in mine])
    print(round, sha, n, flush=True)
"""


def start_writer(folder: Path, name: str, seed: int, rounds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), name, str(seed), str(rounds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    )


def let_go(*writers: subprocess.Popen[str]) -> None:
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()


def whole_files(folder: Path) -> dict[str, FileRecord]:
    """The files of the store, after checking that each has exactly its own segments."""
    store = open_store(str(folder))
    files = store.files()
    found = hits(store, units(1), 100_000)
    spans = Counter((hit.path, hit.start_s) for hit in found)
    assert set(spans.values()) <= {1}, "no segment twice"
    for path, record in files.items():
        count = int(record.duration_s)  # as `embedded` makes them
        starts = sorted(start for owner, start in spans if owner == path)
        assert starts == [float(i) for i in range(count)], path
    assert {hit.path for hit in found} == set(files)
    return files


def test_two_writers_at_once(tmp_path: Path) -> None:
    lance(tmp_path)
    writers = [start_writer(tmp_path, name, seed, 12) for seed, name in enumerate(["one", "two"])]
    let_go(*writers)
    said = [writer.communicate()[0].splitlines() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    files = whole_files(tmp_path)
    assert len(files) == 3 + 2 * 12 * 3
    last = {line.split()[1] for lines in said for line in lines[-1:]}
    assert {files[f"shared {i}"].state.sha256 for i in range(3)} <= last


def test_a_writer_in_between_leaves_no_surplus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = lance(tmp_path), open_store(str(tmp_path))
    look = LanceStore._surplus
    others = [embedded("a", units(4), sha="theirs"), embedded("b", units(1))]

    def look_then_lose_the_race(store: LanceStore, counts: dict[str, int]) -> list:
        seen = look(store, counts)
        if store is ours and others:
            theirs.put([others.pop(0)])
        return seen

    monkeypatch.setattr(LanceStore, "_surplus", look_then_lose_the_race)
    ours.put([embedded("a", units(2), sha="ours")])
    files = whole_files(tmp_path)
    assert files["a"].state.sha256 == "ours"
    assert len(hits(ours, units(1))) == 3


def test_a_killed_writer_leaves_whole_files(tmp_path: Path) -> None:
    lance(tmp_path)
    writers = [start_writer(tmp_path, f"w{seed}", seed, 10_000) for seed in range(2)]
    for seed, writer in enumerate(writers):
        let_go(writer)
        time.sleep(random.uniform(0.2, 0.6))
        writer.send_signal(signal.SIGKILL)
        rounds = len(writer.communicate()[0].splitlines())
        files = whole_files(tmp_path)
        own = {path for path in files if path.startswith(f"w{seed} ")}
        assert len(own) in (3 * rounds, 3 * rounds + 3), "what was acknowledged, or one batch more"
        newest = f"{seed}-{len(own) // 3 - 1}"
        if own:
            assert {files[f"shared {i}"].state.sha256 for i in range(3)} == {newest}
    store = open_store(str(tmp_path))
    store.optimize()
    store.put([embedded("after", units(1))])
    assert "after" in whole_files(tmp_path)


def test_tidying_while_another_writes(tmp_path: Path) -> None:
    lance(tmp_path)
    writer = start_writer(tmp_path, "w", 0, 25)
    let_go(writer)
    store = open_store(str(tmp_path))
    while writer.poll() is None:
        store.optimize()
    assert writer.returncode == 0
    writer.communicate()
    assert len(whole_files(tmp_path)) == 3 + 25 * 3


def test_segments_come_back_by_path(store: Store) -> None:
    one, two = embedded("a", units(3)), embedded("b", units(2, seed=1))
    backwards = replace(one, segments=one.segments[::-1], vectors=one.vectors[::-1])
    store.put([backwards, two, broken("c")])
    found = store.segments(["a", "b", "c", "nowhere"])
    assert sorted(found) == ["a", "b"]
    for file in (one, two):
        same = found[file.record.state.path]
        assert same.record == file.record
        assert same.segments == file.segments
        np.testing.assert_array_equal(same.vectors, file.vectors)
    assert store.segments([]) == {}


# Another model's vectors in the place of the old ones
def test_readers_go_on_with_what_they_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earshot.store.lance.REFRESH", timedelta(0))
    old = lance(tmp_path / "index")
    old.put([embedded("a", units(2)), embedded("b", units(1, 5))])
    new_manifest = replace(MANIFEST, model="other", fingerprint="f" * 64)
    new = LanceStore.create(str(tmp_path / "new"), new_manifest)
    new.put([embedded("a", units(3, 9)), broken("c")])
    readers = [
        LanceStore.open(str(tmp_path / "index")),
        LanceStore.open(str(tmp_path / "index"), exact_rows=-1),
    ]
    before = [hits(reader, units(1, 4)) for reader in readers]
    switching = LanceStore.open(str(tmp_path / "index"))
    switching.take_over(new)
    assert switching.manifest == new_manifest
    assert sorted(switching.files()) == ["a", "c"]
    switching.optimize()
    for reader, expected in zip(readers, before, strict=True):
        assert hits(reader, units(1, 4)) == expected
        assert sorted(reader.files()) == ["a", "b"]
        assert reader.replaced
        assert reader.manifest == MANIFEST
    reopened = LanceStore.open(str(tmp_path / "index"))
    assert reopened.manifest == new_manifest
    assert hits(reopened, units(1, 4)) == hits(new, units(1, 4))
    for write in (
        lambda: old.put([embedded("d", units(1))]),
        lambda: old.drop(["a"]),
        old.optimize,
    ):
        with pytest.raises(EarshotError, match="went over to another model meanwhile"):
            write()
    assert sorted(reopened.files()) == ["a", "c"]


def test_a_commit_that_a_switch_overtakes_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors of the old model never come among those of the new one."""
    old = lance(tmp_path / "index")
    old.put([embedded("a", units(2))])
    late = LanceStore.open(str(tmp_path / "index"))
    new = LanceStore.create(str(tmp_path / "new"), replace(MANIFEST, fingerprint="f" * 64))
    new.put([embedded("a", units(1, 9))])
    monkeypatch.setattr(late, "_follow_to_write", lambda: old.take_over(new))
    with pytest.raises(EarshotError, match="cannot write the index"):
        late.put([embedded("b", units(1))])
    assert list(LanceStore.open(str(tmp_path / "index")).files()) == ["a"]


class Interrupted:
    """A table of LanceDB whose rows are counted while `act` goes on, once."""

    def __init__(self, table: Any, act: Thread) -> None:
        self._table, self._act = table, act

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    def count_rows(self, *condition: str) -> int:
        count: int = self._table.count_rows(*condition)
        if self._act.ident is None:
            self._act.start()
            self._act.join(1)
        return count


def test_a_file_put_while_a_search_begins_is_found_by_the_next(tmp_path: Path) -> None:
    store = lance(tmp_path / "index")
    store.put([embedded("a", units(1))])
    putting = Thread(target=store.put, args=([embedded("b", units(1, 5))],))
    hits(store, units(1))  # Another search has read the vectors already.
    store._table, store._read = Interrupted(store._table, putting), None
    hits(store, units(1))
    putting.join()
    assert {hit.path for hit in store.search(units(1), 10)[0]} == {"a", "b"}


def test_a_file_put_while_memory_is_read_is_found_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, real = MemoryStore(MANIFEST), memory._segment_table
    store.put([embedded("a", units(1))])

    def overtaken(files: dict, dimension: int) -> object:
        table = real(files, dimension)
        if len(files) == 1:
            store.put([embedded("b", units(1, 5))])
        return table

    monkeypatch.setattr(memory, "_segment_table", overtaken)
    assert {hit.path for hit in hits(store, units(1))} == {"a"}
    assert {hit.path for hit in hits(store, units(1))} == {"a", "b"}


def test_what_is_put_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LanceDB brings nothing there by itself: after each change, all files of the table are."""
    synced: set[int] = set()
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.add(os.fstat(fd).st_ino) or real(fd))
    store = lance(tmp_path / "new" / "index")
    made: set[Path] = set()
    for change in (
        lambda: None,
        lambda: store.put([embedded("a", units(2))]),
        lambda: store.put([embedded("b", units(2))]),
        lambda: snapshot(store, "before"),
        lambda: store.drop(["a"]),
        lambda: restore(store, "before"),
        store.optimize,
    ):
        change()
        new = set(tmp_path.rglob("*")) - made
        assert new or change == store.optimize, "which may find nothing to do"
        assert {path for path in new if path.stat().st_ino not in synced} == set()
        made |= new
