"""Is a dataset whole: every file decodes to its end, counts are as published, hashes are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from earshot import audio
from earshot.cores import usable_cores
from earshot.datasets.tables import read_text
from earshot.files import atomic_write, sha256_of
from earshot.types import AudioError, Clip, Dataset, EarshotError

HASH_LENGTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A clip's file after decoding: its hash and length, or what is wrong with it."""

    id: str
    sha256: str = ""
    duration_s: float = 0.0
    broken: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a check found; `problems` in words, none if the dataset is whole."""

    dataset: str
    split: str
    clips: int
    captions: int
    decoded: int
    audio_s: float
    missing: tuple[str, ...]
    broken: Mapping[str, str]
    changed: tuple[str, ...]
    problems: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The report as the documented JSON."""
        return asdict(self)


def check(
    dataset: Dataset, hashes: Path | None = None, report: Callable[[int], None] | None = None
) -> Report:
    """Decode every file that is here and compare counts and hashes.

    Args:
        dataset: what to check.
        hashes: a list in the form of `sha256sum`; written if it is not there, else compared.
        report: told how many files are done.

    Raises:
        EarshotError: a list of hashes that is none.
    """
    known = read_hashes(hashes) if hashes and hashes.exists() else None
    present = [clip for clip in dataset.clips if clip.path]
    heard = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        for done, result in enumerate(pool.map(listen, present), 1):
            heard.append(result)
            if report:
                report(done)
    whole = [result for result in heard if not result.broken]
    if hashes and known is None:
        write_hashes(hashes, whole)
    changed = tuple(h.id for h in whole if known is not None and known.get(h.id) != h.sha256)
    missing = tuple(clip.id for clip in dataset.clips if not clip.path)
    broken = {result.id: result.broken for result in heard if result.broken}
    problems = _differing_counts(dataset)
    for what, ids in (("missing", missing), ("broken", tuple(broken)), ("changed", changed)):
        if ids:
            problems.append(f"{len(ids)} files are {what}, first {ids[0]!r}")
    return Report(
        dataset=dataset.card.name,
        split=dataset.split,
        clips=len(dataset.clips),
        captions=len(dataset.captions),
        decoded=len(whole),
        audio_s=sum(result.duration_s for result in whole),
        missing=missing,
        broken=broken,
        changed=changed,
        problems=tuple(problems),
    )


def listen(clip: Clip) -> Heard:
    """Decode a clip's file to its end, in constant memory."""
    try:
        rate_hz = audio.probe(clip.path).sample_rate_hz
        samples = sum(len(block) for block in audio.stream(clip.path, sample_rate_hz=rate_hz))
    except AudioError as error:
        return Heard(id=clip.id, broken=error.reason)
    return Heard(id=clip.id, sha256=sha256_of(clip.path), duration_s=samples / rate_hz)


def _differing_counts(dataset: Dataset) -> list[str]:
    size = dataset.card.sizes.get(dataset.split)
    if size is None:
        return []
    counts = [
        ("clips", len(dataset.clips), size.clips),
        ("captions", len(dataset.captions), size.captions),
    ]
    return [
        f"{found} {what} where {published} are published"
        for what, found, published in counts
        if found != published
    ]


def read_hashes(path: Path) -> dict[str, str]:
    """Hashes by clip, as `write_hashes` wrote them.

    Raises:
        EarshotError: a line is not `hash  clip`.
    """
    hashes = {}
    for number, line in enumerate(read_text(path, "utf-8").split("\n")[:-1], 1):
        sha256, separator, clip_id = line.partition("  ")
        if len(sha256) != HASH_LENGTH or not separator:
            raise EarshotError(f"{path}, line {number}: {line[:60]!r}; expected a hash and a file")
        hashes[clip_id] = sha256
    return hashes


def write_hashes(path: Path, heard: list[Heard]) -> None:
    """Write a list that `sha256sum --check` understands where ids are file names."""
    lines = [f"{result.sha256}  {result.id}\n" for result in sorted(heard, key=lambda h: h.id)]
    with atomic_write(path) as file:
        file.write("".join(lines).encode())
