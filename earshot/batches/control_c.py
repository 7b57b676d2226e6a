"""Ctrl-C where it may not strike: it is put off, noted, or left to another process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | signal.Handlers


@contextmanager
def on_control_c(handler: Handler) -> Iterator[None]:
    """Have Ctrl-C do something else for a while; `signal.default_int_handler` is what raises."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread is told, and only it may change who is.
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def control_c_deferred() -> Iterator[None]:
    """Let what must not be done by halves come to its end; a Ctrl-C meanwhile acts then."""
    waiting: list[int] = []
    try:
        with on_control_c(lambda number, frame: waiting.append(number)):
            yield
    finally:
        if waiting:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def control_c_ignored() -> Iterator[None]:
    """Leave Ctrl-C to the main process, which ends its workers: they need not say so too."""
    with on_control_c(signal.SIG_IGN):
        yield
