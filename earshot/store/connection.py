"""The way to LanceDB, and what it says when something goes wrong, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten
from typing import Any

from earshot.types import EarshotError


def connect(uri: str) -> Any:
    """A connection to a place; asking makes its folder.

    Raises:
        EarshotError: LanceDB is not installed.
    """
    try:
        import lancedb
    except ImportError as error:
        raise EarshotError(
            f"{uri}: an index on disk needs LanceDB; run: pip install 'earshot[index]'"
        ) from error
    return lancedb.connect(uri)


@contextmanager
def explained(uri: str, task: str) -> Iterator[None]:
    """Turn what LanceDB raises into one line that says where, what and what to do."""
    try:
        yield
    except EarshotError:
        raise
    except (RuntimeError, OSError, ValueError) as error:
        # Its messages end with the place in LanceDB's own source, after the first ", /", and
        # those of object stores go on for pages.
        cause = shorten(str(error).split(", /")[0], 200) or type(error).__name__
        raise EarshotError(
            f"{uri}: cannot {task} the index: {cause}. Check that the place can be read and "
            "written; if its files are damaged, delete the index and index again"
        ) from error
