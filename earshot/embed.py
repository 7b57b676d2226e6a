"""Files to embeddings: workers decode and embed, broken files are told apart, memory is bounded.

One idea: a worker takes a handful of files all the way (hash, decode, resample, segment, embed).
The libraries release the interpreter's lock, so threads scale; on a CPU each worker computes with
one thread, which wastes nothing on waiting for others; on a GPU the same code keeps it fed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    Future,
    ThreadPoolExecutor,
    wait,
)
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from threading import Event

import numpy as np

from earshot import audio
from earshot.cores import usable_cores
from earshot.files import atomic_write, sha256_of
from earshot.folders import collect
from earshot.metadata import read_notes
from earshot.objects import fetched, is_uri
from earshot.types import (
    AudioError,
    EarshotError,
    EmbeddedFile,
    FileRecord,
    FileState,
    Model,
    Notes,
    Segment,
)

# A group is what one worker takes at a time: enough for full batches, little enough that progress
# is seen and a crash loses seconds of work.
GROUP_FILES = 16
GROUP_BYTES = 16 << 20
BATCH_SEGMENTS = 8
# Clips that are given whole are batched by what they take when padded to the longest. So much is
# what `earshot.encoders.segments` encodes at a time.
BATCH_S = 160.0

# Why a file is broken that a model makes NaN or infinity of.
NO_NUMBER = "the model makes of its sound what is no number"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """Who is told how far workers are; both are called from the workers' own threads.

    `heard` gets the seconds of audio as they are embedded. `at` gets the file that the thread works
    on, before it is opened and again with each of its segments, and an empty name when the thread
    turns to what is no decoder's work.
    """

    heard: Callable[[float], None] = lambda seconds: None
    at: Callable[[str], None] = lambda path: None


SILENT = Reports()


def embed_files(
    paths: Iterable[str],
    model: Model,
    *,
    workers: int | None = None,
    batch_segments: int = BATCH_SEGMENTS,
    cut: tuple[float, float] | None = None,
    reports: Reports = SILENT,
) -> Iterator[EmbeddedFile]:
    """Embed files in parallel; they come back as they are done, the broken ones with a reason.

    Segments are the model's own, or `cut` says how long they are and how far apart, in seconds.

    A file's vectors are the same to rounding whatever the order, the number of workers and the
    batch size.
    """
    workers = workers or usable_cores()
    stop = Event()
    with (
        torch_threads_kept(),
        ThreadPoolExecutor(workers, initializer=compute_with_one_thread) as pool,
    ):
        running: set[Future[list[EmbeddedFile]]] = set()
        try:
            for group in groups(paths):
                batch = Batch(model, batch_segments, reports, stop)
                if cut is not None:
                    batch.segment_s, batch.hop_s = cut
                running.add(pool.submit(embed_group, group, batch))
                if len(running) > workers:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield from future.result()
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        finally:
            stop.set()  # Whoever stops early does not wait for an hour-long file.
            pool.shutdown(cancel_futures=True)


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


def compute_with_one_thread() -> None:
    """Keep torch from starting threads of its own in a worker, and in threads that start later."""
    import torch

    torch.set_num_threads(1)


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """Give the program its number of threads back when the workers are done."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def groups(paths: Iterable[str]) -> Iterator[list[str]]:
    """Consecutive files, few enough and together small enough for one worker's turn."""
    group: list[str] = []
    total_bytes = 0
    for path in paths:
        try:
            size_bytes = Path(path).stat().st_size
        except OSError:
            size_bytes = 0  # Vanished meanwhile: the worker reports it.
        if group and (len(group) == GROUP_FILES or total_bytes + size_bytes > GROUP_BYTES):
            yield group
            group, total_bytes = [], 0
        group.append(path)
        total_bytes += size_bytes
    if group:
        yield group


def embed_group(paths: Sequence[str], batch: Batch) -> list[EmbeddedFile]:
    """Embed some files in one thread, their segments batched together."""
    records = [embed_into(batch, path) for path in paths]
    batch.flush()
    return [batch.embedded(record) for record in records]


def embed_into(batch: Batch, path: str) -> FileRecord:
    """Put the segments of one file into the batch; what is wrong with it is in the record.

    An object's notes are read while it is here.
    """
    state = FileState(path=path, size_bytes=0, mtime_ns=0, ctime_ns=0, sha256="")
    reports = batch.reports
    # An object has to be fetched first, which takes what it takes.
    reports.at("" if is_uri(path) else path)
    try:
        with here(path) as (file, fetched_state):
            reports.at(path)
            with faults_of(path):
                info = audio.probe(file)  # Before all of it is read for its hash.
            reports.at(path)
            state = fetched_state or file_state(path)
            reports.at(path)
            duration_s = 0.0
            for segment, waveform in decoded(file, batch):
                batch.add(path, segment, waveform)
                reports.heard(segment.end_s - duration_s)
                reports.at(path)
                duration_s = segment.end_s
            notes = read_notes(file) if is_uri(path) else Notes()
    except AudioError as error:
        return FileRecord(state=state, broken=error.reason)
    return FileRecord(
        state=state,
        duration_s=duration_s,
        sample_rate_hz=info.sample_rate_hz,
        channels=info.channels,
        notes=notes,
    )


@contextmanager
def here(path: str) -> Iterator[tuple[str, FileState | None]]:
    """A file of this machine to read: itself, or a copy while it is needed, with its state.

    Raises:
        AudioError: it cannot be had or read.
    """
    if is_uri(path):
        with fetched(path) as (copy, state):
            yield str(copy), state
    else:
        yield path, None


def decoded(path: str, batch: Batch) -> Iterator[tuple[Segment, np.ndarray]]:
    """The segments of a file.

    Raises:
        AudioError: the file cannot be used.
    """
    with faults_of(path):
        yield from audio.segments(
            path,
            sample_rate_hz=batch.model.sample_rate_hz,
            segment_s=batch.segment_s,
            hop_s=batch.hop_s,
        )


@contextmanager
def faults_of(path: str) -> Iterator[None]:
    """Whatever a decoder does wrong is that file's fault alone.

    Raises:
        AudioError: the file cannot be used.
    """
    try:
        yield
    except AudioError:
        raise
    except Exception as error:  # noqa: BLE001 - a library's surprise must not end the run
        told = " ".join(str(error).split())
        raise AudioError(path, f"unexpected {type(error).__name__}: {told}") from error


def file_state(path: str) -> FileState:
    """Read what identifies a file's content.

    Raises:
        AudioError: it cannot be read.
    """
    try:
        stat = Path(path).stat()
        if not S_ISREG(stat.st_mode):  # To read a pipe would be to wait for its writer.
            raise AudioError(path, "not a regular file")
        return FileState(
            path=path,
            size_bytes=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            ctime_ns=stat.st_ctime_ns,
            sha256=sha256_of(path, stat.st_size),  # One that grows has no other end.
        )
    except OSError as error:
        raise AudioError(path, (error.strerror or str(error)).lower()) from error


def is_unchanged(path: str, stat: os.stat_result, record: FileRecord) -> bool:
    """Whether a known good file's content is still the recorded one."""
    if record.broken or stat.st_size != record.state.size_bytes:
        return False
    if has_times(stat, record):
        return True
    try:
        return file_state(path).sha256 == record.state.sha256
    except AudioError:
        return False


def has_times(stat: os.stat_result, record: FileRecord) -> bool:
    """Whether size and times are the recorded ones."""
    state = record.state
    recorded = (state.size_bytes, state.mtime_ns, state.ctime_ns)
    return recorded == (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


class Batch:
    """Collects segments of several files, embeds them together, hands them back by file."""

    def __init__(self, model: Model, size: int, reports: Reports, stop: Event) -> None:
        self.model, self.size, self.reports, self.stop = model, size, reports, stop
        self.segment_s, self.hop_s = model.segment_s, model.hop_s
        self.most_samples = max(size * model.segment_s, BATCH_S) * model.sample_rate_hz
        self.waiting: list[tuple[str, Segment, np.ndarray]] = []
        self.segments: dict[str, list[Segment]] = {}
        self.vectors: dict[str, list[np.ndarray]] = {}

    def add(self, path: str, segment: Segment, waveform: np.ndarray) -> None:
        """Take one segment; a full batch is embedded at once, so that little is held.

        A batch is full when it has its number of segments, or when one more would be too much
        audio: whole clips may last an hour each.

        Raises:
            CancelledError: the run was stopped.
        """
        if self.stop.is_set():
            raise CancelledError
        longest = max(len(waveform), *(len(other) for _, _, other in self.waiting), 0)
        if (len(self.waiting) + 1) * longest > self.most_samples:
            self.flush()
        self.waiting.append((path, segment, waveform))
        if len(self.waiting) >= self.size:
            self.flush()

    def flush(self) -> None:
        """Embed what waits."""
        if not self.waiting:
            return
        self.reports.at("")
        vectors = self.model.embed_audio([waveform for _, _, waveform in self.waiting])
        for (path, segment, _), vector in zip(self.waiting, vectors, strict=True):
            self.segments.setdefault(path, []).append(segment)
            self.vectors.setdefault(path, []).append(vector)
        self.waiting = []

    def embedded(self, record: FileRecord) -> EmbeddedFile:
        """One file's segments and vectors; none for a broken file, however far it went."""
        path = record.state.path
        empty = np.empty((0, self.model.dimension), dtype=np.float32)
        if record.broken:
            return EmbeddedFile(record=record, segments=(), vectors=empty)
        segments, vectors = tuple(self.segments[path]), np.stack(self.vectors[path])
        wrong = ~np.isfinite(vectors).all(axis=1)
        if wrong.any():
            start_s = segments[int(wrong.argmax())].start_s
            reason = f"{NO_NUMBER}, at {start_s:g} s"
            silent = FileRecord(state=record.state, broken=reason)
            return EmbeddedFile(record=silent, segments=(), vectors=empty)
        return EmbeddedFile(record=record, segments=segments, vectors=vectors)
