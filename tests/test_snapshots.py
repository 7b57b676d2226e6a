"""Named states of an index: they stay, and can be gone back to."""

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from types import SimpleNamespace

import pytest
from stored import MANIFEST, embedded, hits, lance, units
from test_cli import earshot, refused

from earshot.store import LanceStore
from earshot.store.lance import SLACK, age_of_oldest_tag
from earshot.store.snapshots import forget, restore, snapshot, snapshots
from earshot.types import EarshotError


def test_back_to_a_named_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earshot.store.lance.GRACE", timedelta(milliseconds=10))
    store = lance(tmp_path)
    store.put([embedded("a", units(3)), embedded("b", units(1, 5))])
    before = hits(store, units(1, 4))
    made = snapshot(store, "before.1")
    assert snapshots(store) == [made]
    store.put([embedded("a", units(1, 8)), embedded("c", units(2))])
    store.drop(["b"])
    for _ in range(3):
        time.sleep(0.05)
        store.optimize()
    again = restore(store, "before.1")
    assert hits(again, units(1, 4)) == before
    assert sorted(LanceStore.open(str(tmp_path)).files()) == ["a", "b"]
    again.put([embedded("d", units(1))])
    assert sorted(LanceStore.open(str(tmp_path)).files()) == ["a", "b", "d"]
    forget(again, "before.1")
    assert snapshots(again) == []


def test_a_clock_that_was_put_back_keeps_no_index_from_being_tidied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LanceDB refuses to tidy where a named version is among what is too old."""
    monkeypatch.setattr("earshot.store.lance.GRACE", timedelta(0))

    class Behind(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) - timedelta(hours=1)

    store = lance(tmp_path)
    store.put([embedded("a", units(3))])
    snapshot(store, "summer")
    store.put([embedded("b", units(2))])
    monkeypatch.setattr("earshot.store.lance.datetime", Behind)
    store.optimize()
    assert sorted(restore(store, "summer").files()) == ["a"]


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone cannot be changed here")
def test_a_snapshot_of_summer_is_as_old_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    made, now = datetime(2026, 7, 1, 12, tzinfo=UTC), datetime(2026, 11, 22, 1, tzinfo=UTC)

    class Winter(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.fromtimestamp(now.timestamp(), tz)

    try:
        with monkeypatch.context() as patch:
            patch.setenv("TZ", "Europe/Berlin")
            time.tzset()
            patch.setattr("earshot.store.lance.datetime", Winter)
            told = datetime.fromtimestamp(made.timestamp())  # As LanceDB does.
            table = SimpleNamespace(
                tags=SimpleNamespace(list=lambda: {"summer": {"version": 2}}),
                list_versions=lambda: [{"version": 2, "timestamp": told}],
            )
            assert age_of_oldest_tag(table) == now - made + SLACK
    finally:
        time.tzset()


def test_back_to_another_model(tmp_path: Path) -> None:
    old = lance(tmp_path / "index")
    old.put([embedded("a", units(2))])
    snapshot(old, "old")
    new = LanceStore.create(str(tmp_path / "new"), replace(MANIFEST, fingerprint="f" * 64))
    new.put([embedded("b", units(1, 9))])
    old.take_over(new)
    again = restore(old, "old")
    assert again.manifest == MANIFEST
    assert list(again.files()) == ["a"]
    with pytest.raises(EarshotError, match="went over to another model meanwhile"):
        old.put([embedded("c", units(1))])


def test_names(tmp_path: Path) -> None:
    store = lance(tmp_path)
    snapshot(store, "one")
    for name, says in (("one", "has a snapshot one already"), ("a/b", "no name for a snapshot")):
        with pytest.raises(EarshotError, match=says):
            snapshot(store, name)
    for act in (restore, forget):
        with pytest.raises(EarshotError, match="no snapshot 'two'; there are one"):
            act(store, "two")


def test_the_command(tmp_path: Path) -> None:
    store = lance(tmp_path / "index")
    store.put([embedded("a", units(2))])
    run = {"cwd": tmp_path}
    made = earshot("snapshot", "index", "first", **run)
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines()[0] == "index: 1 files"
    assert made.stdout.splitlines()[1].endswith("  first")
    store.drop(["a"])
    back = earshot("snapshot", "index", "--restore", "first", "--json", **run)
    assert json.loads(back.stdout)["files"] == 1
    assert "give one of" in refused(earshot("snapshot", "index", "x", "--forget", "first", **run))
    assert "keeps no earlier states" in refused(earshot("snapshot", ":memory:", **run))
    assert "no index here" in refused(earshot("snapshot", "nowhere", **run))
