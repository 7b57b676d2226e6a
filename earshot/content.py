"""Files whose content an index has already: moved, renamed or copied, they need not be heard again.

One idea: a hash alone tells, and reading a file for it takes time, so files are read only while
that pays. Their sizes say much where lengths differ and nothing where all recordings are equally
long; so the likeliest come first, and reading ends when too much was read in vain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from earshot.types import AudioError, FileState

# So much may be read in vain: ten seconds of a slow disk. What is found pays for so many times as
# much, as to hear a file takes that much longer than to read it.
MOST_VAIN_BYTES = 1 << 30
WORTH = 16


class Doubts(NamedTuple):
    """What speaks against a file's content being a stored one; fewer doubts come first."""

    not_moved: bool
    other_times: bool
    no_size_of_gone: bool


def known_content(
    paths: Iterable[str],
    *,
    stored: Sequence[FileState],
    gone: Sequence[FileState],
    read: Callable[[str], FileState],
) -> Iterator[tuple[FileState, str]]:
    """Files of the content of stored ones, each with the name that this is stored under.

    All that have size and time of one that is `gone`, as after a move, are looked at; of others as
    many as pays. `read` hashes a file, or raises an `AudioError`: then it is left to who hears it.
    """
    by_hash = {state.sha256: state.path for state in stored}
    vain_bytes = 0
    for doubts, path in of_known_sizes(paths, stored, gone):
        if doubts.not_moved and vain_bytes >= MOST_VAIN_BYTES:
            return
        try:
            state = read(path)
        except AudioError:
            continue
        if state.sha256 in by_hash:
            vain_bytes = max(0, vain_bytes - WORTH * state.size_bytes)
            yield state, by_hash[state.sha256]
        else:
            vain_bytes += state.size_bytes


def of_known_sizes(
    paths: Iterable[str], stored: Sequence[FileState], gone: Sequence[FileState]
) -> list[tuple[Doubts, str]]:
    """Files of the size of a stored one, the likeliest to be one first, else in their order."""
    sizes, times = {state.size_bytes for state in stored}, set(map(size_and_time, stored))
    gone_sizes, gone_times = {state.size_bytes for state in gone}, set(map(size_and_time, gone))
    found = []
    for path in paths:
        try:
            stat = Path(path).stat()
        except OSError:
            continue  # An object; or it vanished, which is reported when it is heard.
        own = (stat.st_size, stat.st_mtime_ns)
        if stat.st_size in sizes:
            no_size_of_gone = stat.st_size not in gone_sizes
            found.append((Doubts(own not in gone_times, own not in times, no_size_of_gone), path))
    return sorted(found, key=itemgetter(0))


def size_and_time(state: FileState) -> tuple[int, int]:
    """What a file keeps when it is moved."""
    return state.size_bytes, state.mtime_ns
