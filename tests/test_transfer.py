"""Copies of an index between all kinds of stores that last."""

import json
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import pytest
from stored import MANIFEST, broken, embedded, hits, lance, units
from test_cli import earshot, refused

from earshot import transfer
from earshot.store import LanceStore, MilvusStore, create_store, open_store
from earshot.transfer import copy_index
from earshot.types import EarshotError, EmbeddedFile, Store

S3 = "s3://library/copy"
PLACES: dict[str, Callable[[Path], str]] = {
    "folder": lambda folder: str(folder / "copied"),
    "milvus": lambda folder: f"milvus:{folder}/copied.db",
    "s3": lambda folder: S3,
}


def fill(store: Store) -> Store:
    store.put([embedded(f"{i}", units(1 + i % 3, i)) for i in range(40)])
    store.put([broken("b"), embedded("silent", units(0))])
    return store


@pytest.mark.parametrize("kind", PLACES)
def test_there_and_back(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if kind == "s3":
        request.getfixturevalue("bucket")
    if kind == "milvus":
        pytest.importorskip("milvus_lite", reason="Milvus is tested with milvus-lite")
    first = fill(lance(tmp_path / "first"))
    place = PLACES[kind](tmp_path)
    done = copy_index(str(tmp_path / "first"), place)
    assert (done.files, done.copied, done.segments) == (42, 42, sum(1 + i % 3 for i in range(40)))
    assert done.fingerprint == MANIFEST.fingerprint
    assert copy_index(str(tmp_path / "first"), place).copied == 0
    back = str(tmp_path / "back")
    copy_index(place, back)
    again = open_store(back)
    assert again.manifest == MANIFEST
    assert again.files() == first.files()
    assert hits(again, units(1, 99)) == hits(first, units(1, 99))
    assert again.search_words("silent", 5) == first.search_words("silent", 5)


def test_vectors_are_read_once_from_each_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, read, real = fill(lance(tmp_path / "a")), [], LanceStore.segments

    def segments(store: LanceStore, paths: Collection[str]) -> dict[str, EmbeddedFile]:
        read.extend(paths)
        return real(store, paths)

    monkeypatch.setattr(LanceStore, "segments", segments)
    uris = str(tmp_path / "a"), str(tmp_path / "b")
    assert copy_index(*uris).segments == source.segment_count()
    assert sorted(read) == sorted([*source.files()] * 2)
    assert copy_index(*uris).segments == source.segment_count()
    assert len(read) == 2 * 42


def test_interrupted_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FILES_AT_ONCE", 10)
    fill(lance(tmp_path / "a"))
    uris = str(tmp_path / "a"), str(tmp_path / "b")

    def stop(done: int) -> None:
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_index(*uris, report=stop)
    open_store(uris[0]).put([embedded("3", units(2, 77), sha="new")])
    done = copy_index(*uris)
    assert done.copied == 23, "22 that were left, and the one that changed"
    assert open_store(uris[1]).files() == open_store(uris[0]).files()


def test_a_file_that_is_dropped_meanwhile_is_not_copied_without_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "FILES_AT_ONCE", 10)
    source = fill(lance(tmp_path / "a"))
    uris = str(tmp_path / "a"), str(tmp_path / "b")
    late = [path for path, record in source.files().items() if record.duration_s][-1]
    # The very store that is copied from: another would see the change some seconds later.
    opened = {uris[0]: source}
    monkeypatch.setattr(transfer, "open_store", lambda uri: opened.get(uri) or open_store(uri))

    def drop(done: int) -> None:
        if late in source.files():
            source.drop([late])

    with pytest.raises(EarshotError, match=f"{late} was changed while it was copied"):
        copy_index(*uris, report=drop)
    assert late not in open_store(uris[1]).files()
    copy_index(*uris)
    assert open_store(uris[1]).files() == source.files()


def test_half_and_whole(tmp_path: Path) -> None:
    fill(lance(tmp_path / "a"))
    uris = str(tmp_path / "a"), str(tmp_path / "b")
    copy_index(*uris, half=True)
    assert open_store(uris[1]).manifest == replace(MANIFEST, half=True)
    assert copy_index(*uris).copied == copy_index(*uris, half=True).copied == 0
    with pytest.raises(EarshotError, match="kept in half precision already; copy to a new place"):
        copy_index(*uris, half=False)
    with pytest.raises(EarshotError, match="Milvus keeps vectors in full precision"):
        copy_index(uris[1], f"milvus:{tmp_path}/c.db", half=True)


def test_what_is_not_overwritten(tmp_path: Path) -> None:
    fill(lance(tmp_path / "a"))
    other = lance(tmp_path / "b")
    other.put([embedded("mine", units(1))])
    with pytest.raises(EarshotError, match=r"holds 1 files that .* has not, such as mine"):
        copy_index(str(tmp_path / "a"), str(tmp_path / "b"))
    create_store(str(tmp_path / "c"), replace(MANIFEST, fingerprint="f" * 64))
    with pytest.raises(EarshotError, match="not that of the source"):
        copy_index(str(tmp_path / "a"), str(tmp_path / "c"))
    with pytest.raises(EarshotError, match="ends with this command"):
        copy_index(str(tmp_path / "a"), ":memory:")


def test_the_command(tmp_path: Path) -> None:
    fill(lance(tmp_path / "a"))
    done = earshot("copy", "a", "milvus:b.db", "--whole", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"] == 42
    assert sorted(MilvusStore.open(f"milvus:{tmp_path}/b.db").files())[:2] == ["0", "1"]
    for bad, says in (
        (("a", "milvus://127.0.0.1:9/sounds"), "nobody answers there"),
        (("a", "milvus:b"), "is no place in Milvus"),
        (("nowhere", "c"), "no index here"),
    ):
        assert says in refused(earshot("copy", *bad, cwd=tmp_path))
