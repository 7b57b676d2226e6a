"""What a person reads in a terminal; nothing in it commands the terminal.

Names of files, tags, captions and models are other people's words, and an escape sequence among
them could rename the window, fill the clipboard or hide lines. So all commands print by `say`.
"""

from __future__ import annotations

import sys


def say(text: object = "", *, end: str = "\n", error: bool = False) -> None:
    """Print to standard output, or standard error, with control characters spelled out."""
    lines = map(printable, str(text).split("\n"))
    print("\n".join(lines), end=end, file=sys.stderr if error else sys.stdout, flush=True)


def printable(text: str) -> str:
    """A text in which nothing commands the terminal, in one line."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
