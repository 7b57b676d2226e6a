"""What an index has is found under its new name, without all files of known sizes being read."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from earshot import content
from earshot.content import known_content
from earshot.embed import file_state
from earshot.types import AudioError, FileState

SIZE_BYTES = 100


def write(folder: Path, count: int, seed: int) -> list[Path]:
    """Files of one size, a second of time apart."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(seed)
    paths = [folder / f"{seed}-{i:03}.wav" for i in range(count)]
    for i, path in enumerate(paths):
        path.write_bytes(random.bytes(SIZE_BYTES))
        os.utime(path, ns=(0, (seed * 1000 + i) * 10**9))
    return paths


class Library:
    """Six stored files; another is stored and gone, moved to the end of many that are new."""

    def __init__(self, folder: Path) -> None:
        stored = write(folder, 7, seed=1)
        self.stored = [file_state(str(path)) for path in stored]
        self.gone = self.stored[-1:]
        self.kept, self.new = stored[:-1], write(folder, 50, seed=2)
        self.moved = stored[-1].rename(folder / "zzz.wav")
        self.folder, self.read_paths = folder, list[str]()

    def read(self, path: str) -> FileState:
        self.read_paths.append(path)
        return file_state(path)

    def found(self, gone: bool = True) -> dict[str, str]:
        paths = sorted(set(map(str, self.folder.iterdir())) - set(map(str, self.kept)))
        left = self.gone if gone else []
        found = known_content(paths, stored=self.stored, gone=left, read=self.read)
        return {Path(state.path).name: Path(source).name for state, source in found}


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path)


def test_reading_ends_where_nothing_is_found(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a run that goes on; what was moved is found all the same."""
    monkeypatch.setattr(content, "MOST_VAIN_BYTES", 3 * SIZE_BYTES)
    assert library.found() == {"zzz.wav": "1-006.wav"}
    assert len(library.read_paths) == 1 + 3


def test_the_likeliest_are_read_first(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "MOST_VAIN_BYTES", 1)
    shutil.copy2(library.kept[0], library.folder / "yyy.wav")
    assert library.found() == {"yyy.wav": "1-000.wav", "zzz.wav": "1-006.wav"}
    assert library.read_paths == [str(library.moved), str(library.folder / "yyy.wav")] + [
        str(library.new[0])
    ]


def test_what_is_found_pays_for_more(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies with times of their own, each behind files that are new."""
    monkeypatch.setattr(content, "MOST_VAIN_BYTES", 10 * SIZE_BYTES)
    for place, path in zip(library.new[5::9], library.kept, strict=False):
        shutil.copyfile(path, place)
        os.utime(place)
    assert len(library.found(gone=False)) == 6, "five copies, and the one that was moved"


def test_all_that_was_moved_is_read(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where size and time are those of a file that is gone, and the content is another."""
    monkeypatch.setattr(content, "MOST_VAIN_BYTES", 1)
    for path in library.new:
        os.utime(path, ns=(0, library.gone[0].mtime_ns))
    assert library.found() == {"zzz.wav": "1-006.wav"}
    assert len(library.read_paths) == 51


def test_what_cannot_be_read_is_left(library: Library) -> None:
    def read(path: str) -> FileState:
        raise AudioError(path, "permission denied")

    paths = [str(library.moved), "s3://bucket/a.wav", str(library.folder / "vanished.wav")]
    assert not list(known_content(paths, stored=library.stored, gone=library.gone, read=read))
