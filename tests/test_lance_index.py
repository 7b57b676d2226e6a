"""Large tables: their indexes come behind what goes on, and answers stay right meanwhile."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
from stored import MANIFEST, D, embedded, hits, lance, paths, units

from earshot.model import model_manifest
from earshot.search import Searcher
from earshot.store import LanceStore, MemoryStore, lance_index, open_store
from earshot.store.connection import explained
from earshot.types import Condition, EarshotError, Model, Store


def crowd(store: Store, files: int, seed: int, dimension: int = D) -> np.ndarray:
    """Files of ten segments around a centre each."""
    centres = np.repeat(units(files, seed, dimension), 10, axis=0)
    vectors = centres + 0.4 * units(10 * files, seed + 1, dimension)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    blocks = vectors.reshape(files, 10, dimension)
    store.put([embedded(f"{seed} {i:04d}", block) for i, block in enumerate(blocks)])
    return vectors


def kinds(store: LanceStore) -> dict[str, str]:
    table = LanceStore.open(store.uri)._table
    return {index.columns[0]: index.index_type for index in table.list_indices()}


def test_files_that_come_while_the_index_is_made_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = lance(tmp_path, exact_rows=100)
    crowd(store, 100, 1)
    begun, go_on = Event(), Event()

    def held(table: object) -> None:
        begun.set()
        assert go_on.wait(60)
        lance_index.make_indexes(table)

    monkeypatch.setattr("earshot.store.lance.make_indexes", held)
    store.optimize()
    assert begun.wait(60)
    new = embedded("new", units(2, 77))
    store.put([new])
    store.drop(["1 0000"])
    assert hits(store, new.vectors[:1], 1)[0].path == "new"
    store.optimize()  # A second one waits for no one and begins nothing anew.
    go_on.set()
    store.wait()
    assert kinds(store) == {"vector": "IvfRq", "words": "FTS", "path": "BTree"}
    assert hits(store, new.vectors[:1], 1)[0].path == "new"
    assert "1 0000" not in paths(store, units(1), 2000)
    assert len(hits(store, units(1), 2000)) == 992, "a list is as long as there are rows"


def test_an_index_that_is_outgrown_is_made_anew(tmp_path: Path) -> None:
    store = lance(tmp_path, exact_rows=100, dimension=64)
    oracle = MemoryStore(store.manifest)
    names = []
    for files, seed in ((50, 1), (120, 2), (120, 3)):
        crowd(oracle, files, seed, 64)
        vectors = crowd(store, files, seed, 64)
        store.optimize()
        store.wait()
        names += lance_index.vector_indexes(LanceStore.open(store.uri)._table)
    assert names == ["vector_500", "vector_500", "vector_2900"]
    queries = vectors[::60] + 0.5 * units(20, 9, 64)
    found, true = store.search(queries, 10), oracle.search(queries, 10)
    shared = [len({*a} & {*b}) for a, b in zip(found, true, strict=True)]
    assert sum(shared) >= 0.98 * 200


def test_a_failure_behind_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = lance(tmp_path, exact_rows=1)
    crowd(store, 2, 1)

    def full(table: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("earshot.store.lance.make_indexes", full)
    told: list[str] = []
    monkeypatch.setattr("warnings.warn", lambda text, **kwargs: told.append(text))
    store.optimize()
    store.wait()
    assert len(told) == 1
    assert "cannot make the search index of the index: no space left on device" in told[0]
    assert len(hits(store, units(1))) == 20


ENDING = """
import sys
from earshot.store import LanceStore
store = LanceStore.open(sys.argv[1], exact_rows=100)
store.optimize()
print("done", flush=True)
"""


def test_a_process_ends_when_its_index_is_made(tmp_path: Path) -> None:
    store = lance(tmp_path)
    crowd(store, 50, 1)
    command = [sys.executable, "-c", ENDING, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "done\n"
    assert kinds(store)["vector"] == "IvfRq"


def test_an_approximate_list_gives_the_same_hits(tmp_path: Path, random_model: Model) -> None:
    """Files and their moments are as in an exact search: all segments of a file are looked at."""
    manifest = model_manifest(random_model)
    store = LanceStore.create(str(tmp_path / "index"), manifest, exact_rows=100)
    oracle = MemoryStore(manifest)
    words = ["dog", "cat", "rain", "wind", "door", "horn", "bell", "car", "sea", "clock"]
    centres = random_model.embed_text([f"a {a} near a {b}" for a in words for b in words])
    vectors = np.repeat(centres, 10, axis=0) + 0.5 * units(1000, 1, manifest.dimension)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    blocks = vectors.reshape(100, 10, manifest.dimension)
    for one in (store, oracle):
        one.put([embedded(f"{i:03d}", block) for i, block in enumerate(blocks)])
    store.optimize()
    store.wait()
    where = [Condition(field="path", operator="<", value="060")]
    for conditions in ([], where):
        found, true = (
            Searcher(random_model, one).search_many(["a dog", "rain on tin"], 5, conditions)
            for one in (store, oracle)
        )
        for some, right in zip(found, true, strict=True):
            assert [hit.path for hit in some] == [hit.path for hit in right]
            for hit, wanted in zip(some, right, strict=True):
                assert [(one.start_s, one.end_s) for one in hit.moments] == [
                    (one.start_s, one.end_s) for one in wanted.moments
                ]
                scores = [one.score for one in hit.moments]
                assert scores == pytest.approx([one.score for one in wanted.moments], abs=1e-9)


# Half precision


def test_half_precision_is_half_the_size_and_nearly_the_same(tmp_path: Path) -> None:
    manifest = replace(MANIFEST, half=True)
    store, oracle = LanceStore.create(str(tmp_path), manifest), MemoryStore(MANIFEST)
    for one in (store, oracle):
        crowd(one, 20, 1)
    again = open_store(str(tmp_path))
    assert again.manifest == manifest
    assert str(again._table.schema.field("vector").type.value_type) == "halffloat"
    for scanned in (False, True):
        reader = LanceStore.open(str(tmp_path), exact_rows=-1 if scanned else 1000)
        found, true = hits(reader, units(1, 5), 200), hits(oracle, units(1, 5), 200)
        scores = {(hit.path, hit.start_s): hit.score for hit in true}
        assert len(found) == 200
        for hit in found:
            assert hit.score == pytest.approx(scores[hit.path, hit.start_s], abs=1e-3)
        kept = reader.segments(["1 0003"])["1 0003"]
        assert kept.vectors.dtype == np.float32
        np.testing.assert_allclose(
            kept.vectors, oracle.segments(["1 0003"])["1 0003"].vectors, atol=5e-4
        )
    again.put([kept])  # What was read may be put back, and stays as it is.
    np.testing.assert_array_equal(again.segments(["1 0003"])["1 0003"].vectors, kept.vectors)


def test_a_half_index_is_indexed_when_large(tmp_path: Path) -> None:
    store = LanceStore.create(str(tmp_path), replace(MANIFEST, half=True), exact_rows=100)
    vectors = crowd(store, 100, 1)
    store.optimize()
    store.wait()
    assert kinds(store)["vector"] == "IvfRq"
    assert hits(store, vectors[:1], 1)[0].score == pytest.approx(1, abs=1e-3)


def test_searching_goes_on_from_other_threads_while_an_index_is_made(tmp_path: Path) -> None:
    store = lance(tmp_path, exact_rows=100)
    vectors = crowd(store, 300, 1)
    store.optimize()
    failures: list[EarshotError | AssertionError] = []

    def ask() -> None:
        try:
            for _ in range(10):
                assert hits(store, vectors[:1], 1)[0].score == pytest.approx(1, abs=1e-5)
        except (EarshotError, AssertionError) as error:
            failures.append(error)

    threads = [Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.wait()
    assert failures == []


def test_a_panic_in_its_rust_code_is_one_line() -> None:
    class RustPanic(Exception):
        """Of this name and ancestry, made where nobody can import it from."""

    said = pytest.raises(EarshotError, match="cannot open the index: rust future panicked")
    with said, explained("place", "open"):
        raise RustPanic("rust future panicked: unknown error")
    with pytest.raises(ZeroDivisionError), explained("place", "open"):
        raise ZeroDivisionError
