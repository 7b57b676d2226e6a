"""Hearing files in a process of its own, so that a file that ends its decoder ends no run.

One idea: the plan and the store stay where they are; only what decodes and embeds is elsewhere, and
it writes nothing, so that it can be killed at any moment. Its threads note in shared memory which
file they are at and since when. If the process dies, or a file takes too long, it is started again
and the files that were being worked on are tried one by one: a file that ends it alone is broken,
and why is known. What may crash is thus kept apart from what must not, as in Candea and Fox,
"Crash-Only Software" (HotOS 2003).
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from earshot.cores import usable_cores
from earshot.embed import Reports, embed_files
from earshot.examine import end_with_parent, manner_of_end
from earshot.library import noted
from earshot.metadata import Tables
from earshot.model import load_for
from earshot.types import (
    EarshotError,
    EmbeddedFile,
    FileRecord,
    FileState,
    Manifest,
    Model,
)

# From one segment to the next a decoder may take so long, and before the first one the time to read
# the file, which a slow disk does at a megabyte a second, up to some hours.
PATIENCE_S = 120.0
SLOWEST_BYTES_PER_S = 1e6
LONGEST_READING_S = 4 * 3600.0
BLOCK_BYTES = 512  # in which `stat` counts them, whatever the file system's are
POLL_S = 0.25
# So often the process may end, no decoder at work and no file heard in between, until it is clear
# that the fault is in no file.
UNEXPLAINED_ENDS = 5
# What a worker notes, a number each: its file's place in the job (NOBODY: at none), since when a
# decoder is at work (0: none is), seconds of audio.
FILE, SINCE, HEARD = range(3)
NOTES = 3
NOBODY = -1.0
# The thread that reads what files say of themselves is none of the workers.
READER = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How an index's files are heard: its model is loaded anew by its `name`, on `device`."""

    manifest: Manifest
    name: str
    device: str
    workers: int

    def model(self) -> Model:
        """The index's model.

        Raises:
            EarshotError: it is not to be had, or is another one.
        """
        return load_for(self.manifest, self.name, self.device)


class IsolatedHearing:
    """Hears files as `earshot.library.Hear` says, in a process that is started when it is needed.

    The process is kept for the next files until `close`, or the end of a `with`. The model is found
    where the index says, or by another `name` that it has now. A decoder may take `patience_s` for
    a step, and a second more for each megabyte of the file.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        name: str | None = None,
        device: str = "auto",
        workers: int | None = None,
        patience_s: float | None = None,
    ) -> None:
        self.setting = Setting(
            manifest=manifest,
            name=name or manifest.model,
            device=device,
            workers=workers or usable_cores(),
        )
        self.patience_s = PATIENCE_S if patience_s is None else patience_s
        self._process: _Process | None = None

    def __enter__(self) -> IsolatedHearing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(
        self, paths: Sequence[str], heard: Callable[[float], None]
    ) -> Iterator[EmbeddedFile]:
        """Embed files; they come back as they are done, the broken ones with a reason.

        Raises:
            EarshotError: the model cannot be loaded, or its process ends whatever it is given.
        """
        job = _Job(paths, heard, self.setting.manifest.dimension)
        try:
            while job.left:
                try:
                    yield from self._answers(job)
                except _EndedError as end:
                    self.close()
                    yield from job.learn(end)
        except BaseException:
            self.close()  # It is in the middle of what nobody wants any more.
            raise

    def _answers(self, job: _Job) -> Iterator[EmbeddedFile]:
        if self._process is None:
            self._process = _Process(self.setting)
        process = self._process
        process.begin(job)
        while (answer := process.next_answer(job, self.patience_s)) is not None:
            job.done(answer)
            yield answer

    def close(self) -> None:
        """End the process, whatever it does; it is started again when it is needed."""
        if self._process is not None:
            self._process.kill()
            self._process = None


class _EndedError(Exception):
    """The process is no more. `reason` is why, `decoding` and `embedding` the files in work."""

    def __init__(self, reason: str, decoding: Iterable[str], embedding: Iterable[str]) -> None:
        super().__init__(reason)
        self.reason, self.decoding, self.embedding = reason, tuple(decoding), tuple(embedding)


class _Job:
    """What is left of some files, and which of them have to be tried alone."""

    def __init__(
        self, paths: Sequence[str], heard: Callable[[float], None], dimension: int
    ) -> None:
        self.paths, self.dimension = tuple(paths), dimension
        self.left = dict.fromkeys(paths)
        self.suspects: dict[str, None] = {}
        self._heard, self._told_s, self._done_s = heard, 0.0, 0.0
        self._before_s = 0.0  # what was heard of this job by others, less what was heard of others
        self._unexplained = 0

    def begun(self, heard_s: float) -> None:
        """Note that a process begins, which has heard so much before."""
        self._before_s = self._done_s - heard_s

    def told(self, heard_s: float) -> None:
        """Tell how much the process has heard in all."""
        if more_s := self._before_s + heard_s - self._told_s:
            self._told_s += more_s
            self._heard(more_s)

    def done(self, file: EmbeddedFile) -> None:
        """Cross a file off."""
        path = file.record.state.path
        self.left.pop(path, None)
        self.suspects.pop(path, None)
        self._done_s += file.record.duration_s
        if not file.record.broken:
            self._unexplained = 0

    def learn(self, end: _EndedError) -> Iterator[EmbeddedFile]:
        """Find out who ended the process: one of those in work, or who was tried alone.

        Raises:
            EarshotError: it ends without a file to blame, again and again.
        """
        self.told(self._done_s - self._before_s)  # What was lost will be heard again.
        alone = bool(self.suspects)
        # Once each: a worker may hear a file that another has read.
        at_work = dict.fromkeys((*end.decoding, *end.embedding))
        present = [path for path in at_work if path in self.left]
        if not any(path in end.decoding for path in present):
            self._unexplained += 1
        if self._unexplained >= UNEXPLAINED_ENDS:
            raise EarshotError(
                f"the process that hears files {end.reason} {self._unexplained} times, whatever "
                f"the file; is there memory enough? Fewer --workers take less; run it again to go "
                f"on, what was written stays"
            )
        if not alone:
            self.suspects = dict.fromkeys(present)
            return
        for path in present:
            what = "decoder" if path in end.decoding else "process that heard it"
            file = broken(path, f"its {what} {end.reason}", self.dimension)
            self.done(file)
            yield file


def broken(path: str, reason: str, dimension: int) -> EmbeddedFile:
    """A file that was given up; it is not opened any more, so its hash stays unknown."""
    state = FileState(path=path, size_bytes=0, mtime_ns=0, ctime_ns=0, sha256="")
    record = FileRecord(state=state, broken=reason)
    return EmbeddedFile(record=record, segments=(), vectors=np.empty((0, dimension), np.float32))


class _Process:
    """The process, seen from outside."""

    def __init__(self, setting: Setting) -> None:
        # A fork would copy threads and locks of libraries that were not made for that.
        context = multiprocessing.get_context("spawn")
        self._notes: Any = context.RawArray("d", NOTES * (setting.workers + 1))
        self._forget_files()  # All are zeros, which would mean the first one.
        self._connection, inside = context.Pipe()
        self._process = context.Process(
            target=_hear_for_others, args=(setting, inside, self._notes), daemon=True
        )
        self._process.start()
        inside.close()  # So that its end is seen.

    def begin(self, job: _Job) -> None:
        """Hand a job over: suspects one by one, then the rest."""
        job.begun(self._heard_s())
        self._forget_files()
        numbers = {path: number for number, path in enumerate(job.paths) if path in job.left}
        alone = [(numbers[path], path) for path in job.suspects]
        rest = [(number, path) for path, number in numbers.items() if path not in job.suspects]
        try:
            # Suspects first and without the rest: it is known then that all others wait.
            self._connection.send(_Task(files=tuple(alone or rest), one_by_one=bool(alone)))
        except OSError as error:
            raise _EndedError(self._end(), (), ()) from error

    def next_answer(self, job: _Job, patience_s: float) -> EmbeddedFile | None:
        """The next file that is done; None after the last.

        Raises:
            _EndedError: the process died, or was ended because a file took too long.
            EarshotError: the process says that it cannot go on.
        """
        try:
            while not self._connection.poll(POLL_S):
                job.told(self._heard_s())
                self._require_progress(job, patience_s)
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            reason, now = self._end(), self._at(job)
            decoding = [path for path, since_s in now if since_s]
            embedding = [path for path, since_s in now if not since_s]
            raise _EndedError(reason, decoding, embedding) from error
        if isinstance(answer, BaseException):
            raise answer
        if answer is not None:
            job.told(self._heard_s())
        return answer  # type: ignore[no-any-return]  # a pipe holds anything

    def _require_progress(self, job: _Job, patience_s: float) -> None:
        now_s = time.monotonic()
        for path, since_s in self._at(job):
            most_s = patience_s + _reading_s(path)
            if since_s and now_s - since_s > most_s and path in job.left:
                self.kill()
                raise _EndedError(f"took longer than {most_s:.0f} s", [path], [])

    def _at(self, job: _Job) -> list[tuple[str, float]]:
        """The files that workers are at, and since when a decoder is at work.

        A decoder that went astray may have written over the notes.
        """
        files, since = self._notes[FILE::NOTES], self._notes[SINCE::NOTES]
        pairs = zip(files, since, strict=True)
        return [
            (job.paths[int(file)], since_s) for file, since_s in pairs if 0 <= file < len(job.paths)
        ]

    def _forget_files(self) -> None:
        """Nobody is at a file until the process says so: it may die before."""
        for row in range(0, len(self._notes), NOTES):
            self._notes[row + FILE] = NOBODY

    def _heard_s(self) -> float:
        return float(sum(self._notes[HEARD::NOTES]))

    def _end(self) -> str:
        """How it ended."""
        reason = manner_of_end(self._process)
        self.kill()
        return reason

    def kill(self) -> None:
        """End it."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def _reading_s(path: str) -> float:
    """How long a slow disk reads a file; of a sparse one's holes it reads nothing."""
    try:
        stat = Path(path).stat()
    except OSError:
        return 0.0
    # Windows tells none, nor do some file systems of networks.
    on_disk = BLOCK_BYTES * getattr(stat, "st_blocks", 0)
    size_bytes = min(stat.st_size, on_disk or stat.st_size)
    return min(size_bytes / SLOWEST_BYTES_PER_S, LONGEST_READING_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """Files with their places in the job."""

    files: tuple[tuple[int, str], ...]
    one_by_one: bool


@dataclass(slots=True)
class _Notebook:
    """The shared notes as the workers write them, each in a row of its own."""

    notes: Any
    numbers: dict[str, int] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def turn_over(self, numbers: dict[str, int]) -> None:
        """Begin anew: other files, other threads."""
        self.numbers, self.rows = numbers, {threading.get_ident(): READER}
        for row in range(len(self.notes) // NOTES):
            self.notes[row * NOTES + SINCE] = 0.0
            self.notes[row * NOTES + FILE] = NOBODY

    def at(self, path: str) -> None:
        """See `earshot.embed.Reports`; what a thread embeds are its last files."""
        row = self._row()
        self.notes[row + SINCE] = 0.0
        if path:
            self.notes[row + FILE] = float(self.numbers[path])
            self.notes[row + SINCE] = time.monotonic()

    def heard(self, seconds: float) -> None:
        """See `earshot.embed.Reports`."""
        self.notes[self._row() + HEARD] += seconds

    def _row(self) -> int:
        with self.lock:
            return NOTES * self.rows.setdefault(threading.get_ident(), len(self.rows))


def _hear_for_others(setting: Setting, connection: Connection[Any, Any], notes: Any) -> None:
    """Inside the process: hear what is handed over until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asks.
    threading.Thread(target=end_with_parent, daemon=True).start()
    notebook = _Notebook(notes)
    notebook.turn_over({})
    try:
        model = setting.model()
        while True:
            task: _Task = connection.recv()
            for file in _heard(task, setting, model, notebook):
                connection.send(file)
            connection.send(None)
    except (EOFError, BrokenPipeError):
        return
    except (EarshotError, OSError, ImportError) as error:
        connection.send(error)
    except Exception:  # noqa: BLE001 - a fault of ours is told where somebody sees it
        connection.send(RuntimeError(f"hearing files failed:\n{traceback.format_exc()}"))


def _heard(
    task: _Task, setting: Setting, model: Model, notebook: _Notebook
) -> Iterator[EmbeddedFile]:
    paths = [path for _, path in task.files]
    cut = (setting.manifest.segment_s, setting.manifest.hop_s)
    reports, tables = Reports(heard=notebook.heard, at=notebook.at), Tables()
    for part in [[path] for path in paths] if task.one_by_one else [paths]:
        notebook.turn_over({path: number for number, path in task.files})
        workers = 1 if task.one_by_one else setting.workers
        for file in embed_files(part, model, workers=workers, cut=cut, reports=reports):
            notebook.at(file.record.state.path)
            annotated = noted(file, tables)
            notebook.at("")
            yield annotated
