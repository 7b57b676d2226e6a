"""The way to LanceDB, and what it says when something goes wrong, in one line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from textwrap import shorten
from typing import Any

from earshot.types import EarshotError

# Whether a bucket is there is asked once with patience for few seconds; work in it has minutes.
ASKING = {"client_max_retries": "1", "client_retry_timeout": "3"}
# How often is tried what other writers get in the way of.
ATTEMPTS = 3
# What LanceDB raises, and what of it says that other writers were faster.
FAILURES = (RuntimeError, OSError, ValueError)
BUSY = re.compile(
    "commit conflict|too many concurrent write|incompatible transaction", re.IGNORECASE
)
# What becomes of a fault in its Rust code, as over a damaged file; no module offers the class.
PANIC = "RustPanic"
# What object stores' answers come to, by what stands in LanceDB's pages of them.
CAUSES = {
    r"NoSuchBucket|404 Not Found": "there is no bucket `{bucket}`; make it first",
    r"AccessDenied|Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch|\b40[13]\b": (
        "access is denied; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their rights"
    ),
    r"BadScheme|URL scheme is not allowed": (
        "AWS_ENDPOINT_URL is plain HTTP; allow that with AWS_ALLOW_HTTP=true"
    ),
    r"CredentialProvider|169\.254\.169\.254|instance.?metadata": (
        "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    ),
    r"error sending request|[Cc]onnect|dns|timed out": (
        "the object store cannot be reached; check the network and AWS_ENDPOINT_URL"
    ),
}


def connect(uri: str) -> Any:
    """A connection to a place; asking makes its folder.

    Raises:
        EarshotError: LanceDB is not installed, or an object store does not answer.
    """
    try:
        import lancedb
    except ImportError as error:
        raise EarshotError(
            f"{uri}: an index on disk needs LanceDB; run: pip install 'earshot[index]'"
        ) from error
    if "://" in uri:
        try:
            lancedb.connect(uri, storage_options=ASKING).list_tables()
        except FAILURES as error:
            raise EarshotError(f"{uri}: {cause_of(uri, str(error))}") from error
    return lancedb.connect(uri)


def cause_of(uri: str, said: str) -> str:
    """What an object store's error comes to, and what to do."""
    for pattern, cause in CAUSES.items():
        if re.search(pattern, said):
            return cause.format(bucket=uri.partition("://")[2].partition("/")[0])
    return shorten(said, 200)


@contextmanager
def explained(uri: str, task: str) -> Iterator[None]:
    """Turn what LanceDB raises into one line that says where, what and what to do."""
    try:
        yield
    except EarshotError:
        raise
    except Exception as error:
        if not isinstance(error, FAILURES) and type(error).__name__ != PANIC:
            raise
        if BUSY.search(str(error)):
            raise EarshotError(
                f"{uri}: cannot {task} the index: too many write to it at once; run it again"
            ) from error
        # Its messages end with the place in LanceDB's own source, after the first ", /", and
        # those of object stores go on for pages.
        cause = shorten(str(error).split(", /")[0], 200) or type(error).__name__
        if "://" in uri:
            cause = cause_of(uri, str(error))
        raise EarshotError(
            f"{uri}: cannot {task} the index: {cause}. Check that the place can be read and "
            "written; if its files are damaged, delete the index and index again"
        ) from error


def giving_way(work: Callable[[], None], *, else_leave: bool = False) -> None:
    """Try something again that other writers get in the way of.

    What they still prevent then fails, unless it may be left undone: `else_leave`.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            work()
        except FAILURES as error:
            if not BUSY.search(str(error)) or (attempt == ATTEMPTS and not else_leave):
                raise
        else:
            return
