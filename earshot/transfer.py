"""An index to another place, or another kind of store, with its vectors: nothing is heard again.

One idea: the target is compared with the source by what each says of its files, and only the
difference goes over; so a copy that was interrupted is simply run again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from earshot.store import Growing, create_store, open_store, require_lasting, store_exists
from earshot.types import EarshotError, EmbeddedFile, FileRecord, Manifest, Store

FILES_AT_ONCE = 512
# Half precision rounds a number of a unit vector by so much at most.
ROUNDING = 5e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What a copy did: files of both indexes now, and how many went over in this run."""

    source: str
    target: str
    model: str
    fingerprint: str
    files: int
    segments: int
    copied: int

    def as_json(self) -> dict[str, Any]:
        """The copy as the command line prints it for programs."""
        return asdict(self)


def copy_index(
    source_uri: str,
    target_uri: str,
    *,
    half: bool | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> Transfer:
    """Copy an index; what is there of it already stays. `half` is the source's unless given.

    What was written is read back and compared. `report` is told how many files are done.

    Raises:
        EarshotError: the target is of another model, or holds files that the source has not, or
            does not give back what was put.
    """
    require_lasting(source_uri)
    require_lasting(target_uri)
    source = open_store(source_uri)
    target = open_target(target_uri, source.manifest, half)
    files, there = source.files(), target.files()
    if foreign := there.keys() - files.keys():
        raise EarshotError(
            f"{target_uri} holds {len(foreign)} files that {source_uri} has not, such as "
            f"{min(foreign)}; copy to a new place"
        )
    due = [path for path, record in files.items() if there.get(path) != record]
    growing = Growing(target, len(there))
    for start in range(0, len(due), FILES_AT_ONCE):
        paths = due[start : start + FILES_AT_ONCE]
        batch = whole_files(source, paths, files)
        growing.put(batch)
        require_same(target, batch)
        report(start + len(paths))
    if due:
        target.optimize()
    if target.files() != files:
        raise EarshotError(f"{target_uri} was changed while it was copied to; run it again")
    return Transfer(
        source=source_uri,
        target=target_uri,
        model=source.manifest.model,
        fingerprint=target.manifest.fingerprint,
        files=len(files),
        segments=target.segment_count(),
        copied=len(due),
    )


def open_target(uri: str, manifest: Manifest, half: bool | None) -> Store:
    """The place that is copied to; it is made unless it is there.

    Raises:
        EarshotError: it is of another model or cut, or not in the precision that is asked for.
    """
    wanted = manifest if half is None else replace(manifest, half=half)
    if not store_exists(uri):
        return create_store(uri, wanted)
    target = open_store(uri)
    if replace(target.manifest, half=wanted.half) != wanted:
        raise EarshotError(
            f"{uri} holds an index made with model {target.manifest.model} in segments of "
            f"{target.manifest.segment_s:g} s, not that of the source; copy to a new place"
        )
    if half not in (None, target.manifest.half):
        kept = "half" if target.manifest.half else "full"
        raise EarshotError(f"{uri} is kept in {kept} precision already; copy to a new place")
    return target


def whole_files(
    source: Store, paths: Collection[str], records: Mapping[str, FileRecord]
) -> list[EmbeddedFile]:
    """Files with their segments, those without any included.

    Raises:
        EarshotError: one has lost its segments since its record was read.
    """
    stored = source.segments(paths)
    for path in paths:
        if path not in stored and records[path].duration_s > 0 and not records[path].broken:
            raise EarshotError(f"{path} was changed while it was copied; run it again")
    nothing = np.zeros((0, source.manifest.dimension), dtype=np.float32)
    return [
        stored.get(path) or EmbeddedFile(record=records[path], segments=(), vectors=nothing)
        for path in paths
    ]


def require_same(target: Store, files: Collection[EmbeddedFile]) -> None:
    """Refuse to go on if what was put does not come back.

    Raises:
        EarshotError: names the first file.
    """
    kept = target.segments([file.record.state.path for file in files])
    for file in files:
        path = file.record.state.path
        if not file.segments:
            continue
        same = path in kept and kept[path].segments == file.segments
        if not same or not np.allclose(kept[path].vectors, file.vectors, rtol=0, atol=ROUNDING):
            raise EarshotError(f"{path}: its copy differs; was it changed meanwhile? Run it again")
