"""A stranger's sound decoded once, in a process of its own: it may end that, and nothing else.

One idea: what came through a decoder there to its end may be decoded again where others would be
ended with it. `earshot.isolated` hears whole indexes so; this is for one file that somebody waits
for, hence its process has no model and is kept.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from earshot import audio
from earshot.audio import AudioInfo
from earshot.types import AudioError

# The longest sound that is taken, and the time that its decoder has for it.
LONGEST_S = 600.0
PATIENCE_S = 60.0
# Any that is not far from that of most sounds: what is resampled is thrown away.
RATE_HZ = 32_000
END_S = 5.0


def examine(path: str, longest_s: float = LONGEST_S) -> AudioInfo:
    """Describe a file that was decoded to its end, or up to where it lasts too long.

    Raises:
        AudioError: it is no audio, damaged anywhere, or longer than `longest_s`.
    """
    blocks = audio.stream(path, sample_rate_hz=RATE_HZ, duration_s=longest_s + 1)
    if sum(map(len, blocks)) > longest_s * RATE_HZ:
        raise AudioError(path, f"lasts longer than {longest_s / 60:g} minutes; cut out a part")
    return audio.probe(path)


class Examiner:
    """`examine` in a process that is started at the first file and kept for the next."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s, self._lock = patience_s, threading.Lock()
        self._process: Any = None
        self._connection: Connection[Any, Any] | None = None

    def __call__(self, path: str) -> AudioInfo:
        """See `examine`.

        Raises:
            AudioError: also for a file that ends its decoder, or keeps it too long.
        """
        with self._lock:
            if self._process is None or not self._process.is_alive():
                self._start()
            try:
                answer = self._asked(path)
            except (EOFError, OSError) as error:
                reason = manner_of_end(self._process)
                self.close()
                raise AudioError(path, f"its decoder {reason}") from error
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _asked(self, path: str) -> AudioInfo | BaseException:
        assert self._connection is not None
        self._connection.send(path)
        if not self._connection.poll(self._patience_s):
            self.close()
            return AudioError(path, f"its decoder took longer than {self._patience_s:.0f} s")
        answer: AudioInfo | BaseException = self._connection.recv()
        return answer

    def _start(self) -> None:
        self.close()
        # A fork would copy threads and locks of libraries that were not made for that.
        context = multiprocessing.get_context("spawn")
        self._connection, inside = context.Pipe()
        self._process = context.Process(target=_examine_for_others, args=(inside,), daemon=True)
        self._process.start()
        inside.close()  # So that its end is seen.

    def close(self) -> None:
        """End the process, whatever it does; it is started again when it is needed."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _examine_for_others(connection: Connection[Any, Any]) -> None:
    """Inside the process: examine files until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asks.
    threading.Thread(target=end_with_parent, daemon=True).start()
    with suppress(EOFError, BrokenPipeError):
        while True:
            path = connection.recv()
            try:
                answer: AudioInfo | Exception = examine(path)
            except AudioError as error:
                answer = error
            except Exception as error:  # noqa: BLE001 - a fault of ours is told where it is seen
                answer = RuntimeError(f"examining a sound failed: {error!r}")
            connection.send(answer)


def end_with_parent() -> None:
    """Do not outlive who asked: one who was killed cannot say that nobody waits any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
    os._exit(1)


def manner_of_end(process: Any) -> str:
    """How a process ended, as the end of a sentence."""
    process.join(END_S)
    code = process.exitcode
    if code is None:
        return "fell silent"
    if code >= 0:
        return f"ended with code {code}"
    # Those for programs' own use, of real time, have no names.
    name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
    return f"died of {name}" + (", for want of memory perhaps" if name == "SIGKILL" else "")
