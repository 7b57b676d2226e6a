"""Indexing while the server answers: one run at a time, in a thread, whose progress can be seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from earshot.folders import is_below, scan
from earshot.isolated import IsolatedHearing
from earshot.library import Progress, Summary, carry_out, compare, index
from earshot.server.settings import ServerConfig
from earshot.types import EarshotError, Model, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """Where the indexing is; `number` counts the runs, `summary` tells what the last one did."""

    number: int = 0
    running: bool = False
    folders: tuple[str, ...] = ()
    files_total: int = 0
    files_done: int = 0
    audio_s: float = 0.0
    elapsed_s: float = 0.0
    error: str = ""
    summary: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """For events and the status."""
        return asdict(self)


class _StoppedError(Exception):
    """The server ends."""


class Indexer:
    """Indexes folders below the roots, here or, with `isolated`, in a process of its own."""

    def __init__(
        self,
        store: Store,
        model: Model,
        config: ServerConfig,
        changed: Callable[[], object],
    ) -> None:
        self.roots = tuple(root.resolve() for root in config.roots)
        self._isolated = config.isolated
        self.state = JobState()
        self._store, self._model, self._changed = store, model, changed
        self._lock, self._stop = Lock(), Event()
        self._thread: Thread | None = None

    def turn_to(self, store: Store, model: Model) -> None:
        """Later runs fill another store; one that is under way ends with the old."""
        with self._lock:
            self._store, self._model = store, model

    def require_allowed(self, path: str) -> Path:
        """The absolute path, links resolved, of what may be added or removed.

        Raises:
            PermissionError: it does not lie below the allowed folders.
        """
        try:
            resolved = Path(path).resolve()
        except (OSError, ValueError, RuntimeError) as error:  # A loop of links is the last.
            raise PermissionError(f"{path!r} is no path") from error
        if not Path(path).is_absolute() or not is_below(str(resolved), self.roots):
            allowed = ", ".join(map(str, self.roots))
            raise PermissionError(
                f"{path} does not lie below the folders that may change: {allowed}"
                if allowed
                else "this server changes nothing; start it with --root FOLDER to allow it there"
            )
        return resolved

    def start(self, paths: Sequence[Path]) -> JobState:
        """Begin to index files and folders, which `require_allowed` has seen.

        Raises:
            EarshotError: a run is not over yet.
        """
        with self._lock:
            if self.state.running:
                raise EarshotError("the index is being brought up to date already; wait for that")
            folders = tuple(map(str, paths))
            self.state = JobState(number=self.state.number + 1, running=True, folders=folders)
            args = (paths, self._store, self._model)
            self._thread = Thread(target=self._run, args=args, daemon=True)
            self._thread.start()
            return self.state

    def _run(self, paths: Sequence[Path], store: Store, model: Model) -> None:
        try:
            self._require_within(paths)
            summary = self._indexed(paths, store, model)
        except _StoppedError:
            self.state = replace(self.state, running=False, error="stopped")
        except (EarshotError, OSError) as error:
            self.state = replace(self.state, running=False, error=str(error))
        else:
            self._changed()
            self.state = replace(self.state, running=False, summary=summary.as_json())
        finally:
            if self.state.running:  # A fault of ours: the next run must not wait for this one.
                fault = "ended by a fault; see the server's log"
                self.state = replace(self.state, running=False, error=fault)

    def _indexed(self, paths: Sequence[Path], store: Store, model: Model) -> Summary:
        if not self._isolated:
            return index(paths, store, model, report=self._report)
        with IsolatedHearing(store.manifest, name=model.name) as hear:
            plan = compare(paths, store.files())
            return carry_out(plan, store, None, hear=hear, report=self._report)

    def _require_within(self, paths: Sequence[Path]) -> None:
        """Of links below a folder, too, which may lead to what the server alone may read.

        Raises:
            EarshotError: one leads out of the allowed folders.
        """
        for path in (path for folder in paths for path, _ in scan(folder, {})):
            if Path(path).is_symlink() and not is_below(str(Path(path).resolve()), self.roots):
                raise EarshotError(
                    f"{path} is a link that leads out of the folders that may change; remove it, "
                    "or index its folder by command"
                )

    def _report(self, progress: Progress) -> None:
        if self._stop.is_set():
            raise _StoppedError
        self.state = replace(
            self.state,
            files_total=progress.files_total,
            files_done=progress.files_done,
            audio_s=progress.audio_s,
            elapsed_s=progress.elapsed_s,
        )

    def remove(self, paths: Sequence[str]) -> None:
        """Forget files, which stay where they are.

        Raises:
            PermissionError: one does not lie below the allowed folders.
        """
        for path in paths:
            self.require_allowed(path)
        self._store.drop(paths)
        self._changed()

    def stop(self) -> None:
        """End the run, if there is one; what was written stays."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
