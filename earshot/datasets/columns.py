"""Strings and numbers in columns that are mapped into memory: opened at once, shared by processes.

A list of half a million Python strings takes seconds to read and lives anew in every process. As
one array of bytes and one of ends they are there when the file is, and a string is made only when
it is asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import overload

import numpy as np

from earshot.files import atomic_write
from earshot.types import EarshotError

MAPPED_BYTES = 1 << 16  # What is smaller is read: mapping it would save nothing.


class Texts(Sequence[str]):
    """N strings as UTF-8 end to end: `content` (bytes,) uint8; the i-th lies in ends[i:i + 2]."""

    def __init__(self, content: np.ndarray, ends: np.ndarray) -> None:
        self.content, self.ends = content, ends
        self._content, self._ends = view(content), view(ends)

    @classmethod
    def of(cls, strings: Iterable[str]) -> Texts:
        """The same strings as a column."""
        # File names that are no UTF-8 hold halves of surrogate pairs; they come back as they were.
        encoded = [text.encode("utf-8", "surrogatepass") for text in strings]
        ends = np.fromiter(accumulate(map(len, encoded), initial=0), np.int64, len(encoded) + 1)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        stored = self._content[self._ends[place] : self._ends[place + 1]]
        return str(stored, "utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        content, start = self._content, 0
        for end in self._ends[1:]:
            yield str(content[start:end], "utf-8", "surrogatepass")
            start = end

    @property
    def empty(self) -> np.ndarray:
        """Which strings are empty, (N,) bool."""
        return np.asarray(self.ends[1:] == self.ends[:-1])

    def write(self, folder: Path, name: str) -> None:
        """Keep the column in a folder."""
        write(folder, f"{name}.content", self.content)
        write(folder, f"{name}.ends", self.ends)

    @classmethod
    def open(cls, folder: Path, name: str) -> Texts:
        """A column that was kept.

        Raises:
            EarshotError: it is absent or damaged.
        """
        content, ends = read(folder, f"{name}.content"), read(folder, f"{name}.ends")
        if not len(ends) or ends[-1] != len(content):
            raise damaged(folder, f"{name}.content")
        return cls(content, ends)


class Places:
    """Where a string lies in a column of different ones: `hashes` (N,) uint64 sort `order` (N,)."""

    def __init__(self, texts: Texts, hashes: np.ndarray, order: np.ndarray) -> None:
        self.texts, self.hashes, self.order = texts, hashes, order
        self._hashes, self._order = view(hashes), view(order)

    @classmethod
    def of(cls, texts: Texts) -> Places:
        """The places of a column's strings."""
        hashes = np.fromiter(map(hash_of, texts), np.uint64, len(texts))
        order = np.argsort(hashes, kind="stable")
        return cls(texts, hashes[order], order)

    def find(self, text: str) -> int | None:
        """A string's place; None where it is not there."""
        wanted = hash_of(text)
        at = bisect_left(self._hashes, wanted)
        while at < len(self._hashes) and self._hashes[at] == wanted:
            place: int = self._order[at]
            if self.texts[place] == text:
                return place
            at += 1
        return None

    def write(self, folder: Path, name: str) -> None:
        """Keep what is not in the column itself."""
        write(folder, f"{name}.hashes", self.hashes)
        write(folder, f"{name}.order", self.order)

    @classmethod
    def open(cls, texts: Texts, folder: Path, name: str) -> Places:
        """What was kept for a column.

        Raises:
            EarshotError: it is absent or damaged.
        """
        hashes, order = read(folder, f"{name}.hashes"), read(folder, f"{name}.order")
        if not len(hashes) == len(order) == len(texts):
            raise damaged(folder, f"{name}.hashes")
        return cls(texts, hashes, order)


def view(values: np.ndarray) -> memoryview:
    """A column whose elements are plain numbers, many times quicker to get than numpy's."""
    return memoryview(values)  # type: ignore[arg-type] # numpy's types do not say that it may


def hash_of(text: str) -> int:
    """64 bits that stand for a string."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def write(folder: Path, name: str, values: np.ndarray) -> None:
    """Keep an array in a folder."""
    with atomic_write(folder / f"{name}.npy") as file:  # Others may have mapped the one before.
        np.save(file, values, allow_pickle=False)


def read(folder: Path, name: str) -> np.ndarray:
    """An array that was kept, mapped where it is large; read-only.

    Raises:
        EarshotError: it is absent or damaged.
    """
    path = folder / f"{name}.npy"
    try:
        mapped = path.stat().st_size > MAPPED_BYTES
        values = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise damaged(folder, name) from error
    return np.asarray(values)  # A memmap's own class costs microseconds at every access.


def damaged(folder: Path, name: str) -> EarshotError:
    """What is said of a column that cannot be used."""
    return EarshotError(f"{folder / name}.npy is missing or damaged; run `earshot data pack` again")
