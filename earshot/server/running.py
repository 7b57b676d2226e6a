"""Listening: takes the port before the model is loaded, ends at once on Ctrl-C."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from earshot.types import EarshotError

# How long answers that are under way may take when the server ends.
GRACE_S = 2
# Who comes beyond these is told so, before the system has no more files for them.
CONNECTIONS = 512
# Of a target and headers together, which are read before anybody is asked for the token.
HEADER_BYTES = 64 << 10


class _Server(uvicorn.Server):
    """Tells the app at once that it ends: streams of events would be waited for."""

    def __init__(self, config: uvicorn.Config, ending: Callable[[], None]) -> None:
        super().__init__(config)
        self._ending = ending

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End in order; uvicorn's own would die of the signal afterwards, as if by a fault."""
        self._ending()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """Take an address; port 0 is any that is free.

    Raises:
        EarshotError: it is in use, not this machine's, or not allowed.
    """
    try:
        # Only where the protocol is named does asyncio send at once: else each answer waits 40 ms
        # for the last one's acknowledgement.
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, 0, socket.SOCK_STREAM, socket.IPPROTO_TCP, socket.AI_PASSIVE
        )[0]
        taken = socket.socket(family, kind, protocol)
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(address)
            taken.listen()
        except BaseException:
            taken.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise EarshotError(
            f"cannot listen at {host}, port {port}: {reason.lower()}; give another --port, or "
            "--port 0 for one that is free"
        ) from error
    return taken


def run(app: FastAPI, taken: socket.socket) -> None:
    """Answer until Ctrl-C or SIGTERM."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        # Another that happens to be installed has other limits.
        http="h11",
        h11_max_incomplete_event_size=HEADER_BYTES,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE_S,
        ws="none",
    )
    _Server(config, app.state.closing.set).run(sockets=[taken])
