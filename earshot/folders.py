"""What lies in folders: the audio files of what a user gives, and what keeps an index from loss.

A folder that is not there, or holds nothing though the index has files from it, is taken for a disk
that is not mounted: that must never empty an index.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from earshot.audio import AUDIO_SUFFIXES
from earshot.objects import is_uri, list_objects
from earshot.types import EarshotError, FileRecord


def collect(roots: Sequence[str | Path]) -> list[str]:
    """Every audio file of files and folders.

    Raises:
        EarshotError: a root is missing or holds none.
    """
    return [path for path, _ in scan_all(map(located, roots), {}, {})]


def located(root: str | Path) -> str | Path:
    """The absolute path, links resolved, of what a user gives; the address of objects as it is."""
    if not is_uri(root):
        return Path(root).resolve()
    scheme, separator, place = str(root).partition("://")
    return scheme + separator + place.strip("/")


def require_recordings(roots: Iterable[str | Path]) -> None:
    """Check, without reading everything, that there is something to index.

    Raises:
        EarshotError: a root is missing or holds no audio.
    """
    for root in roots:
        if not is_uri(root) and not Path(root).exists():
            raise EarshotError(f"{root} does not exist; give files or folders of recordings")
        unreadable: dict[str, str] = {}
        if next(scan(root if is_uri(root) else Path(root), unreadable), None) is None:
            why = next(iter(unreadable.values()), "known are " + " ".join(sorted(AUDIO_SUFFIXES)))
            raise EarshotError(f"{root} holds no audio files; {why}")


def scan_all(
    roots: Iterable[str | Path],
    known: Mapping[str, FileRecord],
    unreadable: dict[str, str],
    *,
    prune: bool = False,
) -> Iterator[tuple[str, os.stat_result]]:
    """Every audio file of the roots with its stat, by path; folders that cannot be read are noted.

    Raises:
        EarshotError: as `compare`.
    """
    for root in roots:
        there = is_uri(root) or Path(root).exists()
        files = list(scan(root, unreadable)) if there else []
        held = 0 if files else held_from(Path(root), known)
        if held and not prune:
            raise EarshotError(unmounted(root, held))
        if not files and not held:
            require_recordings([root])
        yield from files


def held_from(root: Path, known: Iterable[str]) -> int:
    """How many files an index holds from a folder."""
    return sum(is_below(path, {root}) for path in known)


def unmounted(root: str | Path, held: int) -> str:
    """What to say of a folder without audio files from which an index holds some."""
    return (
        f"{root} holds no audio files though the index holds {held} from there; is its "
        f"disk mounted? Nothing was dropped; --prune forgets them"
    )


def scan(root: str | Path, unreadable: dict[str, str]) -> Iterator[tuple[str, os.stat_result]]:
    """Audio files below a folder in sorted order, hidden ones left out; a file stands for itself.

    Linked folders are not entered, so that a loop of links cannot trap the scan.

    Raises:
        EarshotError: objects that cannot be listed.
    """
    if isinstance(root, str):
        for uri, stat in list_objects(root):
            below = uri.removeprefix(root).split("/")
            if uri == root or (is_audio(below[-1]) and not any(map(is_hidden, below))):
                yield uri, stat
        return
    if not root.is_dir():
        yield str(root), root.stat()
        return

    def note(error: OSError) -> None:
        unreadable[error.filename] = f"the folder cannot be read: {(error.strerror or '').lower()}"

    for folder, folders, names in os.walk(root, onerror=note):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(names):
            if is_hidden(name) or not is_audio(name):
                continue
            path = Path(folder, name)
            try:
                yield str(path), path.stat()
            except OSError:
                # A dangling link or vanished file: reported when it is read.
                yield str(path), os.stat_result((0,) * 10)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is left out."""
    return name.startswith(".")


def is_audio(name: str) -> bool:
    """Whether a file of that name may be a recording."""
    return Path(name).suffix.lower() in AUDIO_SUFFIXES


def is_below(path: str, folders: Collection[Path]) -> bool:
    """Whether a path is one of the folders or lies in one."""
    return Path(path) in folders or any(parent in folders for parent in Path(path).parents)
