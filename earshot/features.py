"""What frozen towers make of all clips and captions, computed once and kept on disk.

One idea: a table is found by a hash of all that its values depend on (weights, settings, audio,
captions), so it is never stale and never asked for twice. Rows are written block by block; a line
of the journal follows its block once that is on the disk, so after a kill whatever no line speaks
of is computed again. A whole table is renamed into its place and mapped into memory, so that
processes share it.

Axis legend: N clips or captions, B of them at a time, D embedding dimension, C classes (tags).
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from earshot import __version__
from earshot.batches import Pairs
from earshot.batches.loader import Crops, Reader, Steps, read_ahead
from earshot.files import atomic_write, clear_drafts, locked, sync_folder
from earshot.model.dual import DualEncoder
from earshot.model.inference import prepared_copy
from earshot.model.tensors import hash_of
from earshot.types import EarshotError, Encoded, NotANumberError

BLOCK_ROWS = 64  # Clips lost at most by a kill.
TEXT_BLOCKS = 16  # Captions are quicker, and of more of them more have the same length.
Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTable:
    """Features of N clips or captions with these `ids`: `values` (N, D + C) float32, read-only."""

    ids: tuple[str, ...]
    dimension: int
    values: np.ndarray

    def rows(self, places: Sequence[int]) -> Tensor:
        """The embeddings at some places, (n, D) float32, a copy."""
        return self.encoded(places).embedding

    def encoded(self, places: Sequence[int]) -> Encoded:
        """Embeddings (n, D) and, of a tagger, logits (n, C) at some places, copies."""
        taken = torch.from_numpy(np.array(self.values[np.asarray(places, dtype=np.int64)]))
        embedding, logits = taken[:, : self.dimension], taken[:, self.dimension :]
        return Encoded(embedding=embedding, logits=logits if logits.shape[1] else None)


@dataclass(frozen=True, kw_only=True)
class Work:
    """A table to be computed: `blocks` yields (embedding, logits) of the ids from a block on."""

    kind: str
    fingerprint: str
    ids: tuple[str, ...]
    block_rows: int
    blocks: Callable[[Sequence[int]], Iterator[Encoded]]


def audio_features(
    network: DualEncoder,
    pairs: Pairs,
    folder: Path,
    *,
    batch: int = 8,
    workers: int = 0,
    report: Report | None = None,
) -> FeatureTable:
    """What the audio tower hears in all clips, whole; from `folder` if it was computed before.

    `batch` clips are heard at a time on the network's device, `workers` processes decode; `report`
    is told the rows that are done, and all.

    Raises:
        EarshotError: audio is absent or broken, or the tower made a value that is no number.
    """
    recordings = pairs.recordings
    states = [recordings.state(clip) for clip in range(len(recordings))]
    side = asdict(network.config.audio)
    parts = (side, weights_hash(network.audio), recordings.sample_rate_hz, states)
    ids = tuple(clip.id for clip in pairs.clips)

    def blocks(starts: Sequence[int]) -> Iterator[Encoded]:
        groups = [group for start in starts for group in batches_of(start, len(ids), batch)]
        steps = Steps(recordings=recordings, clips=groups, captions=groups)
        heard = iter(read_ahead(Reader(recordings, Crops()), steps, min(workers, len(steps))))
        device = str(network.tau.device)
        tower = prepared_copy(network.audio, device)
        for start in starts:
            some = []
            for _ in batches_of(start, len(ids), batch):
                waveforms, lengths = next(heard)
                some.append(tower(waveforms.to(device), lengths.to(device)))
            yield joined(some)

    key = fingerprint(ids, BLOCK_ROWS, parts)
    work = Work(kind="audio", fingerprint=key, ids=ids, block_rows=BLOCK_ROWS, blocks=blocks)
    return table(work, network, folder, report)


def text_features(
    network: DualEncoder,
    pairs: Pairs,
    folder: Path,
    *,
    batch: int = 64,
    report: Report | None = None,
) -> FeatureTable:
    """What the text tower reads in all captions; from `folder` if it was computed before.

    Raises:
        EarshotError: the tower made a value that is no number.
    """
    texts = [caption.text for caption in pairs.captions]
    ids = tuple(caption.id for caption in pairs.captions)
    settings = dict(network.text.network.config.to_dict())  # type: ignore[union-attr, operator]
    settings.pop("_name_or_path", None)  # A folder that was moved is the same encoder.
    side = asdict(network.config.text)
    parts = (side, settings, weights_hash(network.text), tokens_hash(network, texts))
    block_rows = TEXT_BLOCKS * BLOCK_ROWS

    def blocks(starts: Sequence[int]) -> Iterator[Encoded]:
        for start in starts:
            read = network.text.embed(texts[start : start + block_rows], batch)
            yield Encoded(embedding=network.finished(read))

    key = fingerprint(ids, block_rows, parts)
    work = Work(kind="text", fingerprint=key, ids=ids, block_rows=block_rows, blocks=blocks)
    return table(work, network, folder, report)


def batches_of(start: int, end: int, batch: int) -> list[np.ndarray]:
    """The places of the block at `start`, some at a time."""
    stop = min(start + BLOCK_ROWS, end)
    return [np.arange(first, min(first + batch, stop)) for first in range(start, stop, batch)]


def joined(parts: Sequence[Encoded]) -> Encoded:
    """Features of several batches as those of one, on the CPU."""
    logits = [part.logits for part in parts if part.logits is not None]
    return Encoded(
        embedding=torch.cat([part.embedding for part in parts]).float().cpu(),
        logits=torch.cat(logits).float().cpu() if logits else None,
    )


def fingerprint(ids: Sequence[str], block_rows: int, parts: Sequence[Any]) -> str:
    """A hash of all that a table depends on, this code among it."""
    return hash_of(__version__, block_rows, list(ids), json.dumps(parts, default=str))


def weights_hash(network: nn.Module) -> str:
    """A hash of all weights with their names, whatever the device."""
    digest = hashlib.sha256()
    for name, values in sorted(network.state_dict().items()):
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        flat = values.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def tokens_hash(network: DualEncoder, texts: Sequence[str]) -> str:
    """A hash of what the tower is given for captions: it knows tokenizer and cleaning too."""
    digest = hashlib.sha256()
    for start in range(0, len(texts), BLOCK_ROWS):
        tokens = network.text.tokenize(texts[start : start + BLOCK_ROWS])
        for name, values in sorted(tokens.items()):
            digest.update(f"{name} {tuple(values.shape)}".encode() + values.numpy().tobytes())
    return digest.hexdigest()


def table(work: Work, network: DualEncoder, folder: Path, report: Report | None) -> FeatureTable:
    """Open a table, computing what is missing of it; other processes wait for it meanwhile."""
    place = folder / f"{work.kind}-{work.fingerprint[:32]}"
    with locked(place / "lock"):
        clear_drafts(place)
        if not (place / "values.npy").is_file():
            compute(work, network, Draft(place, len(work.ids), work.block_rows), report)
    try:
        stored = json.loads((place / "table.json").read_text())
        values = np.load(place / "values.npy", mmap_mode="r", allow_pickle=False)
        sound = values.dtype == np.float32 and len(values) == len(work.ids) and values.ndim == 2
    except Exception as error:  # its reader of headers raises errors of many kinds
        raise EarshotError(f"{place} is damaged ({type(error).__name__}); delete it") from error
    if not sound:
        raise EarshotError(f"{place} is damaged: {values.dtype} {values.shape}; delete it")
    return FeatureTable(ids=work.ids, dimension=stored["dimension"], values=values)


def compute(work: Work, network: DualEncoder, draft: Draft, report: Report | None) -> None:
    """Fill a table's missing blocks, in evaluation mode and without gradients.

    Raises:
        EarshotError: a value is no number; what was written before stays.
    """
    missing = [start for start in range(0, draft.rows, work.block_rows) if start not in draft.done]
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            for start, block in zip(missing, work.blocks(missing), strict=True):
                require_numbers(block, work, start)
                draft.write(start, block)
                if report:
                    report(min(len(draft.done) * work.block_rows, draft.rows), draft.rows)
    finally:
        for module, training in modes:
            module.training = training
    draft.finish()


def require_numbers(block: Encoded, work: Work, start: int) -> None:
    """Refuse NaN and infinity, naming the clip or caption.

    Raises:
        EarshotError: there are some.
    """
    for values in (block.embedding, block.logits):
        if values is not None and not bool(values.isfinite().all()):
            row = int((~values.isfinite()).any(dim=1).nonzero()[0])
            raise NotANumberError(
                f"the {work.kind} tower makes of {work.ids[start + row]!r} what is no number; "
                f"look at its weights, or leave it out"
            )


class Draft:
    """A table that is being written: `done` are the first rows of the blocks that are on disk."""

    def __init__(self, place: Path, rows: int, block_rows: int) -> None:
        self.place, self.rows, self.block_rows = place, rows, block_rows
        self.values: np.memmap[Any, Any] | None = None
        self.dimension = 0
        self.done: set[int] = set()
        lines = self.journal_lines()
        if lines and self.opened(lines[0]):
            self.done = {line["start"] for line in lines if self.holds(line)}
        self.rewrite_journal([line for line in lines if line["start"] in self.done])

    @property
    def journal(self) -> Path:
        """A line for each block that is on disk."""
        return self.place / "blocks.jsonl"

    def journal_lines(self) -> list[dict[str, Any]]:
        """The whole lines of the journal; a torn last one is none."""
        content = self.journal.read_bytes() if self.journal.exists() else b""
        try:
            return [json.loads(line) for line in content.split(b"\n")[:-1]]
        except ValueError:
            return []  # Damaged: what it speaks of is computed again.

    def rewrite_journal(self, lines: Sequence[dict[str, Any]]) -> None:
        """Keep the lines of blocks that are there alone."""
        with atomic_write(self.journal) as file:
            file.writelines(json.dumps(line).encode() + b"\n" for line in lines)

    def opened(self, line: dict[str, Any]) -> bool:
        """Whether the values written before are there, with the shape that the journal says."""
        try:
            values = np.lib.format.open_memmap(self.place / "values.part", mode="r+")
        except (OSError, ValueError):
            return False
        self.values, self.dimension = values, line["dimension"]
        return bool(values.shape == (self.rows, line["width"]))

    def holds(self, line: dict[str, Any]) -> bool:
        """Whether a block is what was written."""
        return bool(self.block_hash(line["start"]) == line["sha256"])

    def block_hash(self, start: int) -> str:
        """The hash of a block's values."""
        assert self.values is not None
        return hashlib.sha256(self.values[start : start + self.block_rows].tobytes()).hexdigest()

    def write(self, start: int, block: Encoded) -> None:
        """Bring a block to the disk, then the line that speaks of it."""
        parts = [block.embedding] if block.logits is None else [block.embedding, block.logits]
        rows = torch.cat(parts, dim=1).numpy()
        if self.values is None or not self.done:
            self.dimension = block.embedding.shape[1]
            self.values = created(self.place / "values.part", (self.rows, rows.shape[1]))
        self.values[start : start + len(rows)] = rows
        self.values.flush()
        line = {
            "start": start,
            "width": rows.shape[1],
            "dimension": self.dimension,
            "sha256": self.block_hash(start),
        }
        with self.journal.open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.done.add(start)

    def finish(self) -> None:
        """Name the table as whole, last of all; a kill before that costs nothing."""
        # What was flushed of mapped memory need not have reached the disk everywhere.
        with (self.place / "values.part").open("r+b") as values:
            os.fsync(values.fileno())
        with atomic_write(self.place / "table.json") as file:
            file.write(json.dumps({"dimension": self.dimension}).encode())
        (self.place / "values.part").replace(self.place / "values.npy")
        sync_folder(self.place)
        self.journal.unlink(missing_ok=True)


def created(path: Path, shape: tuple[int, int]) -> np.memmap[Any, Any]:
    """A new file of float32 values, mapped for writing.

    Raises:
        EarshotError: there is no room for it.
    """
    values = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    if sys.platform == "linux":  # A full disk met by writing to mapped memory would be a crash.
        try:
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            needed = f"{path.stat().st_size / 2**20:.0f} MiB"
            raise EarshotError(
                f"{path} needs {needed}: {(error.strerror or '').lower()}"
            ) from error
    return values
