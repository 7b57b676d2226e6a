"""Follow folders: what changes in them goes into the index as soon as it is quiet.

One idea: an event only says when to look; what there is to do follows, as in `earshot.library`,
from comparing the folders with the store. So nothing is lost by events that never came, by a crash,
or while a disk was away.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from earshot.audio import AUDIO_SUFFIXES
from earshot.folders import held_from, is_below, scan, unmounted
from earshot.library import Hear, Plan, Progress, Summary, carry_out, compare
from earshot.metadata.tables import TABLES
from earshot.model import require_same_model
from earshot.types import EarshotError, FileRecord, Model, Store

# How often it is looked after folders that are gone, and files that are not quiet yet.
TICK_S = 1.0
LONGEST_PAUSE_S = 60.0

Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What became of a file, or of a folder that is followed; `source` is its former name."""

    kind: Literal["new", "changed", "moved", "removed", "broken", "noted", "away", "back"]
    path: str
    source: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchConfig:
    """How folders are followed: files are left until they were quiet for `settle_s`.

    With `every_s` it is looked so often, instead of waiting for events of the file system, which
    network disks do not have.
    """

    settle_s: float = 2.0
    every_s: float | None = None

    def __post_init__(self) -> None:
        if not self.settle_s >= 0:
            raise EarshotError(
                f"settle for {self.settle_s} s: seconds must be 0 or more; 0 takes files at once"
            )
        if self.every_s is not None and not self.every_s > 0:
            raise EarshotError(
                f"look every {self.every_s} s: seconds must be above 0; leave it away to wait for "
                f"events of the file system"
            )


class Follower:
    """Brings a store up to date with folders, again and again; remembers only what must wait.

    Files are heard by threads with the model, or as `hear` does it, which needs no model here.
    """

    def __init__(
        self,
        roots: Sequence[str | Path],
        store: Store,
        model: Model | None,
        config: WatchConfig,
        hear: Hear | None = None,
    ) -> None:
        if model is not None:
            require_same_model(store.manifest, model)
        absolute = {Path(root).resolve() for root in roots}
        self.roots = sorted(r for r in absolute if not is_below(str(r), absolute - {r}))
        self.store, self.model, self.config, self.hear = store, model, config, hear
        self.settling = Settling(config.settle_s)
        self._away: set[Path] = set()
        self._unreadable: dict[str, str] = {}

    def look(
        self,
        tell: Callable[[Event], None],
        report: Callable[[Progress], None] = lambda progress: None,
    ) -> Summary:
        """Do what there is to do now; what is not quiet yet stays for the next look.

        Raises:
            EarshotError: the store cannot be read or written.
        """
        plan = self.settling.due(self._plan(self.store.files(), tell))
        summary = carry_out(plan, self.store, self.model, hear=self.hear, report=report)
        for path, reason in plan.unreadable.items():
            if path not in self._unreadable:
                tell(Event(kind="broken", path=path, reason=reason))
        self._unreadable = dict(plan.unreadable)
        if plan.new or plan.changed or plan.removed or summary.noted:
            for event in changes(plan.known, self.store.files()):
                tell(event)
        return summary

    def _plan(self, known: Mapping[str, FileRecord], tell: Callable[[Event], None]) -> Plan:
        """What to do in all folders that are there; of one that is gone nothing is dropped."""
        absent = {root: absence(root, known) for root in self.roots}
        for root, reason in absent.items():
            if reason and root not in self._away:
                tell(Event(kind="away", path=str(root), reason=reason))
            elif root in self._away and not reason:
                tell(Event(kind="back", path=str(root)))
        self._away = {root for root, reason in absent.items() if reason}
        here = [root for root in self.roots if not absent[root] and not is_empty(root)]
        try:
            plan = compare(here, known)
        except EarshotError:
            return Plan(known=known)  # One went away just now: the next look tells.
        return Plan(known=known) if plan.removed and any(map(is_empty, here)) else plan


def is_empty(root: Path) -> bool:
    """Whether a folder, or a file, is gone or holds no audio files."""
    return not root.exists() or next(scan(root, {}), None) is None


def absence(root: Path, known: Mapping[str, FileRecord]) -> str:
    """Why a folder counts as gone; empty where it does not.

    An empty one is there as long as the index holds nothing from it.
    """
    if not is_empty(root):
        return ""
    if held := held_from(root, known):
        return unmounted(root, held)
    return "" if root.exists() else f"{root} does not exist"


class Settling:
    """Tells what of a plan is due: files that are quiet, and names that are gone for good."""

    def __init__(self, settle_s: float) -> None:
        self.settle_s = settle_s
        self.waiting = False
        """Whether something was left for later."""
        self._seen: dict[str, tuple[Stamp, float]] = {}
        self._tried: dict[str, Stamp | None] = {}
        self._gone_s: dict[str, float] = {}

    def due(self, plan: Plan) -> Plan:
        """The part of a plan whose time has come.

        A broken file is tried again when it was changed, not at every look.
        """
        stamps = {path: stamp_of(path) for path in (*plan.new, *plan.changed)}
        hopeless = {
            path
            for path, stamp in stamps.items()
            if path in plan.known and plan.known[path].broken and path in self._tried
            if self._tried[path] == stamp
        }
        quiet = {
            path
            for path, stamp in stamps.items()
            if path not in hopeless and self._is_quiet(path, stamp, plan.known.get(path))
        }
        pending = stamps.keys() - hopeless - quiet
        self._seen = {path: seen for path, seen in self._seen.items() if path in pending}
        self._tried = {path: s for path, s in stamps.items() if path in quiet | hopeless}
        removed = self._gone(plan, pending, quiet, stamps)
        self.waiting = bool(pending or len(removed) < len(plan.removed))
        return replace(
            plan,
            new=tuple(path for path in plan.new if path in quiet),
            changed=tuple(path for path in plan.changed if path in quiet),
            removed=removed,
        )

    def _is_quiet(self, path: str, stamp: Stamp | None, record: FileRecord | None) -> bool:
        if stamp is None:  # It vanished since the folder was read: no reason to forget its sound.
            return record is None or bool(record.broken)
        size_bytes, *times_ns = stamp
        if time.time() - max(times_ns) / 1e9 >= self.settle_s:
            return True
        # Another machine's clock, or a time that was set by hand: what counts is that it stays.
        before, since_s = self._seen.get(path, (stamp, time.monotonic()))
        if before != stamp:
            since_s = time.monotonic()
        self._seen[path] = stamp, since_s
        return time.monotonic() - since_s >= self.settle_s

    def _gone(
        self,
        plan: Plan,
        pending: Iterable[str],
        quiet: Iterable[str],
        stamps: Mapping[str, Stamp | None],
    ) -> tuple[str, ...]:
        """Names to forget: what may turn up again under another one keeps its vectors so long."""
        now_s = time.monotonic()
        unsettled = {stamp[0] for path in pending if (stamp := stamps[path])}
        arrived = {stamp[0] for path in quiet if (stamp := stamps[path])}
        due = []
        gone_s = {path: self._gone_s.get(path, now_s) for path in plan.removed}
        for path, since_s in gone_s.items():
            size_bytes = plan.known[path].state.size_bytes
            settled = size_bytes in arrived or now_s - since_s >= self.settle_s
            if settled and size_bytes not in unsettled:
                due.append(path)
        self._gone_s = gone_s
        return tuple(due)


def stamp_of(path: str) -> Stamp | None:
    """What changes when a file is written; None where there is none."""
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def changes(before: Mapping[str, FileRecord], after: Mapping[str, FileRecord]) -> list[Event]:
    """What became of the files of a store, in the order of their paths."""
    gone: dict[str, list[str]] = {}
    for path in sorted(before.keys() - after.keys(), reverse=True):
        gone.setdefault(before[path].state.sha256, []).append(path)
    events = []
    for path, record in sorted(after.items()):
        if record.broken:
            if path not in before or before[path].broken != record.broken:
                events.append(Event(kind="broken", path=path, reason=record.broken))
        elif path not in before:
            sources = gone.get(record.state.sha256)
            source = sources.pop() if sources else ""
            events.append(Event(kind="moved" if source else "new", path=path, source=source))
        elif before[path].broken or before[path].state.sha256 != record.state.sha256:
            events.append(Event(kind="changed", path=path))
        elif (before[path].notes, before[path].beside) != (record.notes, record.beside):
            events.append(Event(kind="noted", path=path))
    left = sorted(path for paths in gone.values() for path in paths)
    return events + [Event(kind="removed", path=path) for path in left]


def follow(
    follower: Follower, tell: Callable[[Event], None], stop: threading.Event | None = None
) -> None:
    """Look whenever something has changed, until `stop` is set or Ctrl-C is pressed.

    Raises:
        EarshotError: the store cannot be read or written, or the file system gives no events.
    """
    stop = stop or threading.Event()
    wakes = ticks if follower.config.every_s else file_events
    for _ in wakes(follower, stop):
        started_s = time.monotonic()
        follower.look(tell)
        # Looking takes at most about half of the time, also in a folder that never rests.
        took_s = time.monotonic() - started_s
        stop.wait(min(max(follower.config.settle_s, took_s), LONGEST_PAUSE_S))


def ticks(follower: Follower, stop: threading.Event) -> Iterator[None]:
    """A look every so often."""
    while not stop.is_set():
        yield
        stop.wait(follower.config.every_s)


def file_events(follower: Follower, stop: threading.Event) -> Iterator[None]:
    """A look at the start, after changes, and while something waits.

    A folder that is gone is looked after until it is back; another disk in its place is noticed.

    Raises:
        EarshotError: the file system gives no events.
    """
    try:
        from watchfiles import watch
    except ImportError as error:
        raise EarshotError(
            "events of the file system need watchfiles; run: pip install 'earshot[watch]', or "
            "look every minute with --watch-every 60"
        ) from error
    while not stop.is_set():
        there = identities(follower.roots)
        if not there:
            yield
            stop.wait(TICK_S)
            continue
        first = True
        try:
            for events in watch(
                *there,
                watch_filter=matters,
                yield_on_timeout=True,
                rust_timeout=round(TICK_S * 1000),
                stop_event=stop,
                ignore_permission_denied=True,
            ):
                if first or events or follower.settling.waiting:
                    yield
                first = False
                if identities(follower.roots) != there:
                    break
        except FileNotFoundError:
            continue  # It went away just now.
        except OSError as error:
            raise EarshotError(
                f"the file system gives no events ({error}); look every minute with "
                f"--watch-every 60"
            ) from error


def identities(roots: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """The folders that are there, each with what tells it from another in its place."""
    found = {}
    for root in roots:
        try:
            stat = root.stat()
        except OSError:
            continue
        found[root] = (stat.st_dev, stat.st_ino)
    return found


def matters(change: Any, path: str) -> bool:
    """Whether an event may concern the index: recordings, tables beside them, folders."""
    name = Path(path).name
    if Path(path).suffix.lower() in AUDIO_SUFFIXES or name in TABLES:
        return not name.startswith(".")
    # What is gone cannot be asked whether it was a folder.
    return not Path(path).exists() or Path(path).is_dir()
