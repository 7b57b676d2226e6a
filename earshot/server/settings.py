"""How a server is set up: who may come in, what may be added, how large an upload may be."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from earshot.types import EarshotError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
MIN_TOKEN_LETTERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Settings of `create_app`.

    `token` is asked of everybody unless it is empty. `hosts` are the names, besides loopback, that
    requests may call the server by. Files below `roots` may be added to the index and removed from
    it over HTTP. Uploads have at most `upload_bytes`; the latest `uploads` of them are kept.
    With `isolated`, what is added is heard in a process of its own, which a decoder may end; it
    loads the model by its name. Uploads then are decoded first in another.
    """

    token: str = ""
    hosts: tuple[str, ...] = ()
    roots: tuple[Path, ...] = ()
    upload_bytes: int = 64 << 20
    uploads: int = 32
    isolated: bool = False

    def __post_init__(self) -> None:
        if self.token and (
            len(self.token) < MIN_TOKEN_LETTERS
            or not (self.token.isascii() and self.token.isprintable())
            or " " in self.token
        ):
            raise EarshotError(
                f"the token has {len(self.token)} characters; give {MIN_TOKEN_LETTERS} or more "
                "letters, digits and signs without spaces"
            )
        if missing := next((root for root in self.roots if not root.is_dir()), None):
            raise EarshotError(f"{missing} is no folder; give folders that hold recordings")


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def require_token(host: str, token: str) -> None:
    """Refuse to listen to other machines without asking them for a token.

    Raises:
        EarshotError: the address is not loopback, and there is no token.
    """
    if not token and not is_loopback(host):
        raise EarshotError(
            f"{host} can be reached from other machines, which needs a token of at least "
            f"{MIN_TOKEN_LETTERS} characters: give --token-file, EARSHOT_TOKEN or --token, or "
            "leave --host away to listen on this machine alone"
        )
