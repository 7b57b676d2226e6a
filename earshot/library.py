"""Folders to a store: what is new or changed is embedded, what is gone is dropped.

One idea: the store is the only memory. A run compares the folders with what the store holds and
does the difference, so an interrupted run is simply run again.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

from earshot.content import known_content
from earshot.embed import Reports, embed_files, file_state, has_times, is_unchanged
from earshot.folders import is_below, located, scan_all
from earshot.metadata import Tables, read_notes
from earshot.model import (
    load,
    load_default,
    load_for,
    model_manifest,
    require_same_cut,
    require_same_model,
)
from earshot.model.shortened import ShortenedModel
from earshot.objects import is_uri
from earshot.store import Growing, create_store, is_storable, open_store, store_exists
from earshot.types import (
    AudioError,
    EarshotError,
    EmbeddedFile,
    FileRecord,
    FileState,
    Model,
    Store,
)

# Written together, whichever comes first: few enough versions, little lost by a crash.
WRITE_FILES = 512
WRITE_SECONDS = 15.0
KINDS = ("new", "changed", "unchanged", "touched")
# Files to embedded and `noted` ones, as they are done; it tells the seconds of audio that it heard.
Hear = Callable[[Sequence[str], Callable[[float], None]], Iterable[EmbeddedFile]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How an index keeps recordings: cut as `model_manifest` says, and how large vectors are.

    In half precision by `half`; of so many `dimensions`, or as many as the model's have.
    """

    segment_s: float | None = None
    hop_s: float | None = None
    half: bool = False
    dimensions: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run has to do; all are absolute paths, `unreadable` with the reason why.

    `known` is what the store held when the plan was made; `touched` are unchanged but for times.
    """

    known: Mapping[str, FileRecord]
    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    touched: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a run is; handed to its reporter after every step."""

    files_total: int
    files_done: int = 0
    audio_s: float = 0.0
    started_s: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return max(time.monotonic() - self.started_s, 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run did, with every file of the given folders that cannot be searched and why.

    A file that is `moved`, from one name to another, is neither added nor removed. Of unchanged
    files, `noted` have new words or times.
    """

    added: int
    moved: int
    changed: int
    unchanged: int
    removed: int
    noted: int
    broken: dict[str, str]
    audio_s: float
    elapsed_s: float

    def as_json(self) -> dict[str, Any]:
        """The summary as the command line prints it for programs."""
        fields = asdict(self)
        fields["broken"] = [{"path": p, "reason": why} for p, why in self.broken.items()]
        return fields


def open_or_create(
    uri: str,
    model_name: str | None,
    device: str = "auto",
    layout: Layout = Layout(),
    *,
    tell: Callable[[str], None] = warnings.warn,
) -> tuple[Store, Model]:
    """Open an index with its model, or make one; unless one is named, `load_default` gives it.

    Raises:
        EarshotError: another model than the index's was asked for, or another layout, or something
            else lies there.
    """
    if not store_exists(uri):
        model = load(model_name, device) if model_name else load_default(device, tell)
        if layout.dimensions is not None:
            model = ShortenedModel(model, layout.dimensions)
        manifest = model_manifest(model, layout.segment_s, layout.hop_s)
        model.embed_audio([])  # Whatever is missing shows now, before anything is made.
        try:
            return create_store(uri, replace(manifest, half=layout.half)), model
        except EarshotError:
            if not store_exists(uri):
                raise
            # Another process made it at the same moment: then it is opened like any other.
    store = open_laid_out(uri, layout)
    return store, load_for(store.manifest, model_name, device)


def open_laid_out(uri: str, layout: Layout) -> Store:
    """Open an index that is there, without its model.

    Raises:
        EarshotError: another layout than its own was asked for.
    """
    store = open_store(uri)
    require_same_cut(store.manifest, layout.segment_s, layout.hop_s)
    if layout.half and not store.manifest.half:
        raise EarshotError(
            f"{uri} keeps its vectors in full precision; leave --half out, or make a new index"
        )
    if layout.dimensions not in (None, store.manifest.dimension):
        raise EarshotError(
            f"{uri} keeps vectors of {store.manifest.dimension} numbers, not {layout.dimensions}; "
            f"leave --dimensions out, or make a new index"
        )
    return store


def index(
    roots: Sequence[str | Path],
    store: Store,
    model: Model,
    *,
    workers: int | None = None,
    prune: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Summary:
    """Bring the store up to date with files and folders.

    Files of the store outside `roots` are left alone. May be killed at any moment: what was
    written stays, and the next run goes on from there. `prune` also forgets the files of roots that
    are gone or empty. `report` may be called from any thread, one at a time.

    Raises:
        EarshotError: a root does not exist or holds no audio, or the store is another model's.
    """
    require_same_model(store.manifest, model)
    plan = compare(roots, store.files(), prune=prune)
    return carry_out(plan, store, model, workers=workers, report=report)


def carry_out(
    plan: Plan,
    store: Store,
    model: Model | None,
    *,
    workers: int | None = None,
    hear: Hear | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Summary:
    """Do what a plan says; see `index`.

    Files are heard by `workers` threads, or as `hear` does it, which needs no model here. Content
    that the store has under any name keeps its vectors: a file that was moved, renamed or copied is
    not heard again.
    """
    progress = Progress(files_total=len(plan.new) + len(plan.changed))
    lock = Lock()

    def heard(seconds: float) -> None:
        with lock:
            progress.audio_s += seconds
            report(progress)

    def finished(file: EmbeddedFile) -> EmbeddedFile:
        with lock:
            progress.files_done += 1
            report(progress)
        return file

    tables, growing = Tables(), Growing(store, len(plan.known))
    reused: dict[str, FileState] = {}
    for batch in by_size_or_time(stored_content(plan, store)):
        growing.put([noted(finished(file), tables) for file in batch])
        reused |= {file.record.state.path: file.record.state for file in batch}
    store.drop(plan.removed)  # Last: what was moved has its vectors there.
    paths = [path for path in (*plan.new, *plan.changed) if path not in reused]
    if paths:
        embedded = (hear or hear_here(store, model, workers, tables))(paths, heard)
        for batch in by_size_or_time(map(finished, embedded)):
            growing.put(batch)
    refreshed = refresh(store, plan, tables)
    if not (progress.files_total or plan.removed or refreshed):
        return summarise(plan, plan.known, progress)
    store.optimize()
    summary = summarise(plan, store.files(), progress)
    moved = count_moved(plan, reused)
    added, removed = summary.added - moved, summary.removed - moved
    return replace(summary, added=added, removed=removed, moved=moved, noted=refreshed)


def hear_here(store: Store, model: Model | None, workers: int | None, tables: Tables) -> Hear:
    """Files are heard by threads of this process."""
    cut = (store.manifest.segment_s, store.manifest.hop_s)

    def hear(paths: Sequence[str], heard: Callable[[float], None]) -> Iterator[EmbeddedFile]:
        assert model is not None
        reports = Reports(heard=heard)
        for file in embed_files(paths, model, workers=workers, cut=cut, reports=reports):
            yield noted(file, tables)

    return hear


def stored_content(plan: Plan, store: Store) -> Iterator[EmbeddedFile]:
    """New and changed files whose content is stored under any name, with the vectors from there."""
    wanted = known_content(
        (*plan.new, *plan.changed),
        stored=[record.state for record in plan.known.values() if not record.broken],
        gone=[plan.known[path].state for path in (*plan.removed, *plan.changed)],
        read=file_state,
    )
    while chunk := list(islice(wanted, WRITE_FILES)):
        stored = store.segments([source for _, source in chunk])
        for state, source in chunk:
            file = stored.get(source)
            # Other content may have been put under that name by this very run.
            if file and file.record.state.sha256 == state.sha256:
                yield replace(file, record=replace(file.record, state=state))


def count_moved(plan: Plan, reused: Mapping[str, FileState]) -> int:
    """How many of the files that are gone are there under a new name."""
    gone = Counter(plan.known[path].state.sha256 for path in plan.removed)
    new = Counter(reused[path].sha256 for path in plan.new if path in reused)
    return (gone & new).total()


def noted(file: EmbeddedFile, tables: Tables) -> EmbeddedFile:
    """A file with what it, and a table beside it, says of itself."""
    path = file.record.state.path
    if file.record.broken or is_uri(path):
        return file  # An object was noted while it was here.
    notes = read_notes(path, tables.row(path))
    return replace(file, record=replace(file.record, notes=notes, beside=tables.digest(path)))


def refresh(store: Store, plan: Plan, tables: Tables) -> int:
    """Read anew the notes of unchanged files whose row in a table has changed, and new times.

    Their sound is not looked at: segments and vectors are put back as they are. Gives the number
    of files.
    """
    touched = set(plan.touched)
    due = [
        path
        for path in plan.unchanged
        if path in touched or tables.digest(path) != plan.known[path].beside
    ]
    for start in range(0, len(due), WRITE_FILES):
        stored = store.segments(due[start : start + WRITE_FILES]).values()
        store.put([noted(renewed(file), tables) for file in stored])
    return len(due)


def renewed(file: EmbeddedFile) -> EmbeddedFile:
    """A file with its present times, which spare reading it the next time."""
    try:
        state = file_state(file.record.state.path)
    except AudioError:
        return file
    if state.sha256 != file.record.state.sha256:
        return file  # It changed just now: the next run sees that by the old times.
    return replace(file, record=replace(file.record, state=state))


def compare(
    roots: Sequence[str | Path], known: Mapping[str, FileRecord], *, prune: bool = False
) -> Plan:
    """Compare files and folders with what the store knows.

    A file whose size and times are as recorded is taken as unchanged without reading it (a change
    of content always moves its change time); otherwise its hash decides. What was broken is always
    tried again: the reason may have lain elsewhere, as in a decoder that was not installed.

    Raises:
        EarshotError: a root is missing or holds no audio and `prune` is not asked for; that a disk
            is not mounted must not empty an index.
    """
    places = {located(root) for root in roots}
    absolute = set(map(Path, places))
    unreadable: dict[str, str] = {}
    found = dict(scan_all(sorted(places, key=str), known, unreadable, prune=prune))
    sorted_paths: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for path, stat in found.items():
        if not is_storable(path):
            unreadable[path] = "its name is not valid UTF-8; rename it"
        elif path not in known:
            sorted_paths["new"].append(path)
        elif is_unchanged(path, stat, known[path]):
            sorted_paths["unchanged"].append(path)
            if not has_times(stat, known[path]):
                sorted_paths["touched"].append(path)
        else:
            sorted_paths["changed"].append(path)
    hidden = {Path(path) for path in unreadable}
    removed = [
        path
        for path in known
        if path not in found and is_below(path, absolute) and not is_below(path, hidden)
    ]
    return Plan(
        known=known,
        **{kind: tuple(paths) for kind, paths in sorted_paths.items()},
        removed=tuple(removed),
        unreadable=unreadable,
    )


def by_size_or_time(files: Iterable[EmbeddedFile]) -> Iterator[list[EmbeddedFile]]:
    """Group files for writing."""
    batch: list[EmbeddedFile] = []
    since_s = time.monotonic()
    for file in files:
        batch.append(file)
        if len(batch) >= WRITE_FILES or time.monotonic() - since_s > WRITE_SECONDS:
            yield batch
            batch, since_s = [], time.monotonic()
    if batch:
        yield batch


def summarise(plan: Plan, after: Mapping[str, FileRecord], run: Progress) -> Summary:
    """Count what a run did; a file that was broken and still is has not changed."""
    paths = (*plan.new, *plan.changed, *plan.unchanged)
    broken = {path: after[path].broken for path in paths if path in after and after[path].broken}
    still = sum(bool(plan.known[path].broken and path in broken) for path in plan.changed)
    return Summary(
        added=len(plan.new),
        moved=0,
        noted=0,
        changed=len(plan.changed) - still,
        unchanged=len(plan.unchanged) + still,
        removed=len(plan.removed),
        broken=dict(sorted({**broken, **plan.unreadable}.items())),
        audio_s=run.audio_s,
        elapsed_s=run.elapsed_s,
    )
