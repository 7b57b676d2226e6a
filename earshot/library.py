"""Folders to a store: what is new or changed is embedded, what is gone is dropped.

One idea: the store is the only memory. A run compares the folders with what the store holds and
does the difference, so an interrupted run is simply run again.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from earshot.audio import AUDIO_SUFFIXES
from earshot.embed import embed_files, file_state
from earshot.files import atomic_write
from earshot.metadata import Tables, read_notes
from earshot.model import (
    load,
    load_default,
    model_manifest,
    require_same_cut,
    require_same_model,
)
from earshot.store import create_store, is_storable, open_store, store_exists
from earshot.types import (
    AudioError,
    EarshotError,
    EmbeddedFile,
    FileRecord,
    Model,
    Store,
)

# Written together, whichever comes first: few enough versions, little lost by a crash.
WRITE_FILES = 512
WRITE_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run has to do; all are absolute paths, `unreadable` with the reason why."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]
    removed: tuple[str, ...]
    unreadable: Mapping[str, str]


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
    """What a run did, with every file of the given folders that cannot be searched and why."""

    added: int
    changed: int
    unchanged: int
    removed: int
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
    *,
    segment_s: float | None = None,
    hop_s: float | None = None,
    tell: Callable[[str], None] = warnings.warn,
) -> tuple[Store, Model]:
    """Open an index with its model, or make one; unless one is named, `load_default` gives it.

    Its recordings are cut into segments of `segment_s` every `hop_s`; see `model_manifest`.

    Raises:
        EarshotError: another model than the index's was asked for, or other segments, or something
            else lies there.
    """
    if not store_exists(uri):
        model = load(model_name, device) if model_name else load_default(device, tell)
        manifest = model_manifest(model, segment_s, hop_s)
        model.embed_audio([])  # Whatever is missing shows now, before anything is made.
        try:
            return create_store(uri, manifest), model
        except EarshotError:
            if not store_exists(uri):
                raise
            # Another process made it at the same moment: then it is opened like any other.
    store = open_store(uri)
    require_same_cut(store.manifest, segment_s, hop_s)
    model = load(model_name or store.manifest.model, device)
    require_same_model(store.manifest, model)
    return store, model


def collect(roots: Sequence[str | Path]) -> list[str]:
    """Every audio file of files and folders.

    Raises:
        EarshotError: a root is missing or holds none.
    """
    return [path for path, _ in scan_all([Path(root).resolve() for root in roots], {}, {})]


def embed_to_file(
    roots: Sequence[str | Path],
    out: Path,
    model: Model,
    *,
    workers: int | None = None,
    logits_from: int | None = None,
) -> tuple[int, dict[str, str]]:
    """Write the embeddings of files: .npz with ids (S,), start_s (S,), end_s (S,), vectors (S, D).

    What a vector holds from `logits_from` on is written as `logits` (S, C) instead.

    Returns the number of segments and the broken files with their reasons.
    """
    if out.suffix != ".npz":
        raise EarshotError(f"{out} does not end in .npz, the format that is written")
    if out.is_dir() or not os.access(out.resolve().parent, os.W_OK):
        raise EarshotError(f"{out} cannot be written; give a file in an existing, writable folder")
    paths = collect(roots)
    embedded = {file.record.state.path: file for file in embed_files(paths, model, workers=workers)}
    files = [embedded[path] for path in dict.fromkeys(paths)]
    segments = [(file.record.state.path, segment) for file in files for segment in file.segments]
    vectors = np.concatenate([file.vectors for file in files])
    arrays = {"vectors": vectors[:, :logits_from]}
    if logits_from is not None:
        arrays["logits"] = vectors[:, logits_from:]
    with atomic_write(out) as target:
        np.savez(
            target,
            ids=np.array([path for path, _ in segments], dtype=np.str_),
            start_s=np.array([segment.start_s for _, segment in segments]),
            end_s=np.array([segment.end_s for _, segment in segments]),
            model=np.array(model.name),
            fingerprint=np.array(model.fingerprint),
            allow_pickle=False,
            **arrays,
        )
    broken = {f.record.state.path: f.record.broken for f in files if f.record.broken}
    return len(segments), broken


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
    before = store.files()
    plan = compare(roots, before, prune=prune)
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

    store.drop(plan.removed)
    cut = (store.manifest.segment_s, store.manifest.hop_s)
    embedded = embed_files((*plan.new, *plan.changed), model, workers=workers, cut=cut, heard=heard)
    tables = Tables()
    for batch in by_size_or_time(noted(finished(file), tables) for file in embedded):
        store.put(batch)
    refreshed = refresh_notes(store, plan.unchanged, before, tables)
    if progress.files_total or plan.removed or refreshed:
        store.optimize()
    return summarise(plan, before, store.files(), progress)


def noted(file: EmbeddedFile, tables: Tables) -> EmbeddedFile:
    """A file with what it, and a table beside it, says of itself."""
    if file.record.broken:
        return file
    path = file.record.state.path
    notes = read_notes(path, tables.row(path))
    return replace(file, record=replace(file.record, notes=notes, beside=tables.digest(path)))


def refresh_notes(
    store: Store, paths: Sequence[str], known: Mapping[str, FileRecord], tables: Tables
) -> int:
    """Read anew the notes of files whose row in a table has changed; gives their number.

    Their sound is not looked at: segments and vectors are put back as they are.
    """
    changed = [path for path in paths if tables.digest(path) != known[path].beside]
    for start in range(0, len(changed), WRITE_FILES):
        stored = store.segments(changed[start : start + WRITE_FILES])
        store.put([noted(file, tables) for file in stored.values()])
    return len(changed)


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
    absolute = {Path(root).resolve() for root in roots}
    unreadable: dict[str, str] = {}
    found = dict(scan_all(sorted(absolute), known, unreadable, prune=prune))
    sorted_paths: dict[str, list[str]] = {kind: [] for kind in ("new", "changed", "unchanged")}
    for path, stat in found.items():
        if not is_storable(path):
            unreadable[path] = "its name is not valid UTF-8; rename it"
        elif path not in known:
            sorted_paths["new"].append(path)
        elif is_unchanged(path, stat, known[path]):
            sorted_paths["unchanged"].append(path)
        else:
            sorted_paths["changed"].append(path)
    hidden = {Path(path) for path in unreadable}
    removed = [
        path
        for path in known
        if path not in found and is_below(path, absolute) and not is_below(path, hidden)
    ]
    return Plan(
        **{kind: tuple(paths) for kind, paths in sorted_paths.items()},
        removed=tuple(removed),
        unreadable=unreadable,
    )


def is_below(path: str, folders: Collection[Path]) -> bool:
    """Whether a path is one of the folders or lies in one."""
    return Path(path) in folders or any(parent in folders for parent in Path(path).parents)


def require_recordings(roots: Iterable[str | Path]) -> None:
    """Check, without reading everything, that there is something to index.

    Raises:
        EarshotError: a root is missing or holds no audio.
    """
    for root in roots:
        if not Path(root).exists():
            raise EarshotError(f"{root} does not exist; give files or folders of recordings")
        unreadable: dict[str, str] = {}
        if next(scan(Path(root), unreadable), None) is None:
            why = next(iter(unreadable.values()), "known are " + " ".join(sorted(AUDIO_SUFFIXES)))
            raise EarshotError(f"{root} holds no audio files; {why}")


def scan_all(
    roots: Iterable[Path],
    known: Mapping[str, FileRecord],
    unreadable: dict[str, str],
    *,
    prune: bool = False,
) -> Iterator[tuple[str, os.stat_result]]:
    """Every audio file of the roots with its stat, by path; folders that cannot be read are noted.

    Raises:
        EarshotError: as `compare`.
    """
    for root in roots:
        files = list(scan(root, unreadable)) if root.exists() else []
        held = 0 if files else sum(is_below(path, {root}) for path in known)
        if held and not prune:
            raise EarshotError(
                f"{root} holds no audio files though the index holds {held} from there; is its "
                f"disk mounted? Nothing was dropped; --prune forgets them"
            )
        if not files and not held:
            require_recordings([root])
        yield from files


def scan(root: Path, unreadable: dict[str, str]) -> Iterator[tuple[str, os.stat_result]]:
    """Audio files below a folder in sorted order, hidden ones left out; a file stands for itself.

    Linked folders are not entered, so that a loop of links cannot trap the scan.
    """
    if not root.is_dir():
        yield str(root), root.stat()
        return

    def note(error: OSError) -> None:
        unreadable[error.filename] = f"the folder cannot be read: {(error.strerror or '').lower()}"

    for folder, folders, names in os.walk(root, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith(".") or Path(name).suffix.lower() not in AUDIO_SUFFIXES:
                continue
            path = Path(folder, name)
            try:
                yield str(path), path.stat()
            except OSError:
                # A dangling link or vanished file: reported when it is read.
                yield str(path), os.stat_result((0,) * 10)


def is_unchanged(path: str, stat: os.stat_result, record: FileRecord) -> bool:
    """Whether a known good file's content is still the recorded one."""
    state = record.state
    if record.broken:
        return False
    if (state.size_bytes, state.mtime_ns, state.ctime_ns) == (
        stat.st_size,
        stat.st_mtime_ns,
        stat.st_ctime_ns,
    ):
        return True
    try:
        return file_state(path).sha256 == state.sha256
    except AudioError:
        return False


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


def summarise(
    plan: Plan, before: Mapping[str, FileRecord], after: Mapping[str, FileRecord], run: Progress
) -> Summary:
    """Count what a run did; a file that was broken and still is has not changed."""
    paths = (*plan.new, *plan.changed, *plan.unchanged)
    broken = {path: after[path].broken for path in paths if path in after and after[path].broken}
    still = sum(bool(before[path].broken and path in broken) for path in plan.changed)
    return Summary(
        added=len(plan.new),
        changed=len(plan.changed) - still,
        unchanged=len(plan.unchanged) + still,
        removed=len(plan.removed),
        broken=dict(sorted({**broken, **plan.unreadable}.items())),
        audio_s=run.audio_s,
        elapsed_s=run.elapsed_s,
    )
