"""Named states of an index on disk or an object store, to go back to.

One idea: every change of a LanceDB table leaves the version before it whole, so a snapshot is a
name for a version; it takes no copy and no time. Old versions are removed in time, but for a named
one and those after it, which stay until the name is forgotten.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from earshot.store.connection import explained
from earshot.store.lance import LanceStore
from earshot.types import EarshotError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A named state: which version of the table, and when that was made, in local time."""

    name: str
    version: int
    made: datetime


def snapshots(store: LanceStore) -> list[Snapshot]:
    """All of an index, oldest first."""
    with explained(store.uri, "read"):
        table = store.newest()
        times = {entry["version"]: entry["timestamp"] for entry in table.list_versions()}
        named = table.tags.list()
    found = [
        Snapshot(name=name, version=tag["version"], made=times[tag["version"]])
        for name, tag in named.items()
        if tag["version"] in times
    ]
    return sorted(found, key=lambda snapshot: (snapshot.version, snapshot.name))


def snapshot(store: LanceStore, name: str) -> Snapshot:
    """Name the present state of an index.

    Raises:
        EarshotError: a name that is taken, or none for a snapshot.
    """
    if not NAME.fullmatch(name):
        raise EarshotError(f"{name!r} is no name for a snapshot: write letters, digits, . _ and -")
    if any(other.name == name for other in snapshots(store)):
        raise EarshotError(f"{store.uri} has a snapshot {name} already; choose another name")
    with store.disk.commits("write"):
        table = store.newest()
        table.tags.create(name, table.version)
    return require(store, name)


def forget(store: LanceStore, name: str) -> None:
    """Let a snapshot's state be removed in time, like any other that is past.

    Raises:
        EarshotError: there is none of that name.
    """
    require(store, name)
    with explained(store.uri, "write"):
        store.newest().tags.delete(name)


def restore(store: LanceStore, name: str) -> LanceStore:
    """Make a snapshot's state the present one, in one commit; gives the index as it is then.

    Who has the index open sees it as any other change, and where the snapshot is of another model,
    goes on with what there was until it is opened again.

    Raises:
        EarshotError: there is none of that name.
    """
    version = require(store, name).version
    with store.disk.commits("write"):
        table = store.newest()
        table.checkout(version)
        table.restore()
    return LanceStore.open(store.uri, store.exact_rows)


def require(store: LanceStore, name: str) -> Snapshot:
    """The snapshot of a name.

    Raises:
        EarshotError: there is none; with those that there are.
    """
    known = {one.name: one for one in snapshots(store)}
    if name not in known:
        there_are = f"there are {', '.join(known)}" if known else "there is none yet"
        raise EarshotError(f"{store.uri} has no snapshot {name!r}; {there_are}")
    return known[name]
