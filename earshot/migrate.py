"""Another model for an index: its files are heard again beside it, then the new takes its place.

One idea: the new index is an index of its own (`INDEX.migrating`), filled as any index is, so that
an interrupted migration is simply run again; the switch is one commit of the old index's table
(`LanceStore.take_over`), so that at every moment one of the two is there, and whole.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from earshot.embed import is_unchanged
from earshot.files import locked
from earshot.folders import scan
from earshot.library import Hear, Plan, Progress, carry_out
from earshot.model import load, load_for, model_manifest
from earshot.objects import SEPARATOR, is_uri, list_objects
from earshot.store import LanceStore, require_lasting, require_versions, store_exists
from earshot.types import EarshotError, FileRecord, Manifest, Model

DRAFT_SUFFIX = ".migrating"
# Files that come into the old index while the last are heard: after so many rounds the rest is
# heard after the switch.
ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """What a migration did: files of the new index, and those of the old one that are not in it."""

    index: str
    model: str
    before: str
    files: int
    gone: tuple[str, ...]
    broken: Mapping[str, str]
    audio_s: float

    def as_json(self) -> dict[str, Any]:
        """The migration as the command line prints it for programs."""
        fields = asdict(self)
        fields["broken"] = [{"path": p, "reason": why} for p, why in self.broken.items()]
        return fields


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationConfig:
    """Where the new index goes (None: to the old one's address) and how it is cut.

    `segment_s` and `hop_s` are as in `model_manifest`; `prune` allows to leave out the files of
    folders that are gone.
    """

    to: str | None = None
    segment_s: float | None = None
    hop_s: float | None = None
    prune: bool = False


def migrate(
    uri: str,
    model: Model,
    config: MigrationConfig,
    *,
    hear: Hear | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Migration:
    """Hear an index's files again by another model, or in other segments; `hear` may do it.

    May be killed at any moment, and run again: until the switch the old index answers, then the new
    one. Files that are gone are left out.

    Raises:
        EarshotError: the index is so already; a folder is gone; a draft of another migration lies
            beside it, or another process fills it; a place cannot be written, or is in Milvus.
    """
    require_movable(uri)
    if config.to is not None:
        require_movable(config.to)
        require_elsewhere(uri, config.to)
    LanceStore.open(uri)
    with alone(config.to or draft_of(uri)):
        return go_over(uri, model, config, hear=hear, report=report)


@contextmanager
def alone(draft_uri: str) -> Iterator[None]:
    """Keep other processes from filling the same new index; in an object store nothing does.

    Raises:
        EarshotError: one does so.
    """
    if "://" in draft_uri:
        yield
        return
    busy = f"{draft_uri} is being filled by another process; wait for it"
    with locked(Path(f"{draft_uri.rstrip('/')}.lock"), busy=busy, passing=True):
        yield


def go_over(
    uri: str,
    model: Model,
    config: MigrationConfig,
    *,
    hear: Hear | None,
    report: Callable[[Progress], None],
) -> Migration:
    """The migration of who is alone in doing it; see `migrate`."""
    old = LanceStore.open(uri)
    before, wanted = old.manifest, model_manifest(model, config.segment_s, config.hop_s)
    wanted = replace(wanted, half=before.half)
    draft_uri = config.to or draft_of(uri)
    if before == wanted:
        return finished_before(old, model, config, hear=hear, report=report)
    draft = open_draft(draft_uri, wanted)
    audio_s = 0.0
    for number in range(ROUNDS):
        known = LanceStore.open(uri).files()
        plan, gone = difference(known, draft.files(), prune=config.prune, retry=number == 0)
        if not (plan.new or plan.changed or plan.removed):
            break
        audio_s += carry_out(plan, draft, model, hear=hear, report=report).audio_s
    if config.to is not None:
        return migration(config.to, before, draft, gone, audio_s)
    old.take_over(draft)
    audio_s += finish(old, model, hear=hear, report=report)
    return migration(uri, before, old, gone, audio_s)


def to_model(uri: str, name: str | None, device: str = "auto") -> Model:
    """The model that an index goes over to; without a name it keeps its own.

    Raises:
        EarshotError: there is no index, or no such model.
    """
    require_movable(uri)
    return load(name, device) if name else load_for(LanceStore.open(uri).manifest, device=device)


def draft_of(uri: str) -> str:
    """Where the new index grows that is to take the place of one."""
    return uri.rstrip("/") + DRAFT_SUFFIX


def require_movable(uri: str) -> None:
    """Refuse a place that is not one of an index with versions, which the switch needs.

    Raises:
        EarshotError: it is in memory or in Milvus.
    """
    require_lasting(uri)
    require_versions(uri)


def require_elsewhere(uri: str, to: str) -> None:
    """Refuse to write a new index beside itself.

    Raises:
        EarshotError: both addresses are one.
    """
    same = to.rstrip("/") == uri.rstrip("/")
    if same or ("://" not in uri + to and Path(to).resolve() == Path(uri).resolve()):
        raise EarshotError(
            f"--to {to} is the index itself; leave --to away to put the new index in its place, or "
            f"give another folder to keep both"
        )


def finish(
    index: LanceStore, model: Model, *, hear: Hear | None, report: Callable[[Progress], None]
) -> float:
    """After the switch: hear what came into the old index at the last moment, delete the draft.

    Gives the seconds of audio that were heard.
    """
    late, _ = difference(index.replaced_files(), index.files(), prune=True, retry=False)
    audio_s = 0.0
    if late.new or late.changed:
        late = replace(late, removed=())
        audio_s = carry_out(late, index, model, hear=hear, report=report).audio_s
    index.optimize()
    LanceStore.delete(draft_of(index.uri))
    return audio_s


def finished_before(
    index: LanceStore,
    model: Model,
    config: MigrationConfig,
    *,
    hear: Hear | None,
    report: Callable[[Progress], None],
) -> Migration:
    """The end of a migration that was interrupted after the switch.

    Raises:
        EarshotError: there was none.
    """
    draft_uri = draft_of(index.uri)
    left_over = config.to is None and store_exists(draft_uri)
    if not left_over or LanceStore.open(draft_uri).manifest != index.manifest:
        cut = index.manifest
        raise EarshotError(
            f"{index.uri} is made with model {cut.model} in segments of {cut.segment_s:g} s every "
            f"{cut.hop_s:g} s already; give another --model, --window or --hop"
        )
    audio_s = finish(index, model, hear=hear, report=report)
    return migration(index.uri, index.manifest, index, (), audio_s)


def open_draft(uri: str, wanted: Manifest) -> LanceStore:
    """The new index as far as it is.

    Raises:
        EarshotError: it is one of something else.
    """
    if not LanceStore.exists(uri):
        return LanceStore.create(uri, wanted)
    draft = LanceStore.open(uri)
    if draft.manifest != wanted:
        raise EarshotError(
            f"{uri} holds an index made with model {draft.manifest.model} in segments of "
            f"{draft.manifest.segment_s:g} s every {draft.manifest.hop_s:g} s; finish that "
            f"migration, or delete it first"
        )
    return draft


def difference(
    known: Mapping[str, FileRecord], drafted: Mapping[str, FileRecord], *, prune: bool, retry: bool
) -> tuple[Plan, tuple[str, ...]]:
    """What the draft lacks of an index's files as they lie there now, and those that are gone.

    What is broken in the draft is tried again with `retry`.

    Raises:
        EarshotError: whole folders are gone, and `prune` does not allow it; objects cannot be
            listed.
    """
    listed = listing(path for path in known if is_uri(path))
    stats = {path: listed.get(path) if is_uri(path) else stat_of(path) for path in known}
    gone = tuple(path for path, stat in stats.items() if stat is None)
    if not prune:
        require_folders(gone)
    new: list[str] = []
    changed: list[str] = []
    unchanged: list[str] = []
    for path, stat in stats.items():
        if stat is None:
            continue
        if path not in drafted:
            new.append(path)
        elif drafted[path].broken:
            (changed if retry else unchanged).append(path)
        else:
            (unchanged if is_unchanged(path, stat, drafted[path]) else changed).append(path)
    plan = Plan(
        known=drafted,
        new=tuple(new),
        changed=tuple(changed),
        unchanged=tuple(unchanged),
        removed=tuple(path for path in drafted if stats.get(path) is None),
    )
    return plan, gone


def listing(uris: Iterable[str]) -> dict[str, os.stat_result]:
    """The states of objects by address, as their stores list them; what is gone is not in it.

    Raises:
        EarshotError: a store does not answer.
    """
    folders: dict[str, list[list[str]]] = {}
    for uri in uris:
        scheme, _, place = uri.partition(SEPARATOR)
        bucket, *names = place.split("/")
        folders.setdefault(f"{scheme}{SEPARATOR}{bucket}", []).append(names[:-1])
    shared = ("/".join([bucket, *common(names)]) for bucket, names in folders.items())
    return {uri: stat for folder in shared for uri, stat in list_objects(folder)}


def common(paths: Sequence[list[str]]) -> list[str]:
    """What all paths begin with, by their parts."""
    first, last = min(paths), max(paths)
    return [
        a for a, b in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    ]


def stat_of(path: str) -> os.stat_result | None:
    """A file's stat; None where it is gone, and also what cannot be asked is not here."""
    try:
        return Path(path).stat()
    except OSError:
        return None


def require_folders(gone: Iterable[str]) -> None:
    """Refuse to leave out files of folders that are gone or empty: their disk may not be mounted.

    Raises:
        EarshotError: names the folder that most of them were in.
    """
    lost = Counter(folder_of(path) for path in gone)
    for folder, count in lost.most_common():
        there = isinstance(folder, str) or folder.is_dir()
        if not there or next(scan(folder, {}), None) is None:
            cause = "is it the right store" if isinstance(folder, str) else "is its disk mounted"
            raise EarshotError(
                f"{folder} holds no audio files though the index holds {count} from there; {cause}?"
                f" The index is as it was; --prune leaves them out of the new one"
            )


def folder_of(path: str) -> str | Path:
    """Where a file lies, as `scan` takes it."""
    return path.rpartition("/")[0] if is_uri(path) else Path(path).parent


def migration(
    uri: str, before: Manifest, new: LanceStore, gone: tuple[str, ...], audio_s: float
) -> Migration:
    """What is to be said of a migration that is done."""
    files = new.files()
    return Migration(
        index=uri,
        model=new.manifest.model,
        before=before.model,
        files=len(files),
        gone=gone,
        broken={path: record.broken for path, record in files.items() if record.broken},
        audio_s=audio_s,
    )
