"""Ctrl-C where it may not strike: it is put off, or left to another process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def control_c_deferred() -> Iterator[None]:
    """Let what must not be done by halves come to its end; a Ctrl-C meanwhile is raised then."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread is told, and only it may change who is.
        return
    waiting: list[int] = []

    def note(number: int, frame: Any) -> None:
        waiting.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if waiting:
            raise KeyboardInterrupt


@contextmanager
def control_c_ignored() -> Iterator[None]:
    """Leave Ctrl-C to the main process, which ends its workers: they need not say so too."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread may change it.
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
