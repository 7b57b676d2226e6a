"""The long commands as the tests of crashes see them: how each is begun, and what must come out."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from crashes import SMALL, Conditions, Ended, Server

from earshot.store import LanceStore

Words = Sequence[str | Path]
ROUNDING = 1e-6  # of unit vectors in single precision
CACHED = re.compile(r"(audio|text)-[0-9a-f]{32}")
CUT = ("--window", "2", "--hop", "1")


@dataclass(frozen=True, kw_only=True)
class Material:
    """What commands read: recordings, soundscapes, a finished index, a trained run."""

    server: Server
    sounds: Path
    data: Path
    index: Path
    run: Path


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one case happens: all that a command may write is below one folder."""

    path: Path

    @property
    def out(self) -> Path:
        """What the command is to make."""
        return self.path / "out"

    def conditions(self, **others: Any) -> Conditions:
        """The variables that lead a command here, and small writes."""
        variables = {"EARSHOT_HOME": str(self.path / "home"), "TMPDIR": str(self.path / "tmp")}
        return Conditions(environment=variables, settings=SMALL, **others)

    def files(self) -> Iterator[Path]:
        """All files; folders may go while they are looked at."""
        for folder, _, names in os.walk(self.path):
            yield from (Path(folder, name) for name in names)

    def tree(self) -> set[str]:
        """The names of all files; a table of LanceDB is one, its own files have random names.

        A cache's key is left out where it depends on the place.
        """
        found = set()
        for path in self.files():
            name = path.relative_to(self.path)
            lance = next((part for part in name.parents if part.suffix == ".lance"), None)
            found.add(CACHED.sub(r"\1", str(lance or name)))
        return found

    def stamps(self) -> list[tuple[Path, int, int]]:
        """What changes whenever something is written."""
        found = []
        for path in self.files():
            try:
                stat = path.stat()
            except OSError:
                continue  # Gone since it was listed.
            found.append((path, stat.st_size, stat.st_mtime_ns))
        return sorted(found)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A command that may be run again until it is done."""

    name: str
    words: Callable[[Material, Place], Words]
    outcome: Callable[[Place], Mapping[str, Any]]
    prepare: Callable[[Material, Place], object] = lambda material, place: None
    done_before: str = ""
    """What is said of a task that was finished already."""

    def place(self, material: Material, path: Path) -> Place:
        """A new place, ready for the command."""
        for name in ("home", "tmp"):
            (path / name).mkdir(parents=True)
        self.prepare(material, place := Place(path=path))
        return place

    def run(self, material: Material, place: Place, **conditions: Any) -> Ended:
        """Run the command, or go on with it."""
        words = self.words(material, place)
        return material.server.run(words, place.conditions(**conditions))

    def finish(self, material: Material, place: Place, **conditions: Any) -> Mapping[str, Any]:
        """Run it to its end, which must be a good one; gives what came out."""
        ended = self.run(material, place, **conditions)
        if ended.code != 0:
            assert self.done_before, (ended.code, ended.errors)
            assert self.done_before in ended.refusal
        return self.outcome(place)


def indexed(place: Place) -> dict[str, Any]:
    """All that an index holds: records, segments, vectors."""
    store = LanceStore.open(str(place.out))
    # Change times are those of the recordings, whose rights some cases take.
    files = {
        path: replace(record, state=replace(record.state, ctime_ns=0))
        for path, record in store.files().items()
    }
    stored = store.segments(list(files))
    found: dict[str, Any] = {"manifest": store.manifest, **files}
    found |= {f"segments of {path}": file.segments for path, file in stored.items()}
    return found | {f"vectors of {path}": file.vectors for path, file in stored.items()}


def same(one: Any, other: Any) -> bool:
    """Whether two outcomes are one; vectors to rounding, as files are heard in other batches."""
    if isinstance(one, np.ndarray):
        return one.shape == other.shape and bool(np.abs(one - other).max(initial=0) <= ROUNDING)
    return bool(one == other)


def files(place: Place, *patterns: str) -> dict[str, bytes]:
    """The content of files of the output."""
    chosen = [path for pattern in patterns for path in place.out.glob(pattern) if path.is_file()]
    return {str(path.relative_to(place.out)): path.read_bytes() for path in chosen}


def train_words(material: Material, place: Place) -> Words:
    """A tiny run, or its rest."""
    words = ["train", "demo", "--tiny", "--data", material.data, "--out", place.out]
    words += ["--device", "cpu", "--set", "batches.crop_s=1", "--set", "batches.pairs=3"]
    return [*words, "--resume"] if (place.out / "recipe.json").exists() else words


def teach_words(material: Material, place: Place) -> Words:
    """Teachers of one run."""
    return ["teach", material.run, "--data", material.data, "--out", place.out, "--workers", "1"]


TASKS = {
    task.name: task
    for task in (
        Task(
            name="index",
            words=lambda material, place: (
                *("index", material.sounds, "--to", place.out),
                *("--model", "pocket", "--workers", "1"),
            ),
            outcome=indexed,
        ),
        Task(
            name="migrate",
            words=lambda material, place: ("migrate", place.out, *CUT, "--workers", "1"),
            outcome=indexed,
            prepare=lambda material, place: shutil.copytree(material.index, place.out),
            done_before="already; give another",
        ),
        Task(
            name="pack",
            words=lambda material, place: (
                *("data", "pack", "soundscapes", "--data", material.data / "train"),
                *("--to", place.out, "--rate", "8000"),
            ),
            outcome=lambda place: files(place, "*.*"),
        ),
        Task(
            name="train",
            words=train_words,
            outcome=lambda place: files(
                place, "metrics.*", "*/*.safetensors", "*/text/*", "plots/*", "data.json"
            ),
        ),
        Task(
            name="teach", words=teach_words, outcome=lambda place: files(place, "*.json", "*/*.npy")
        ),
    )
}
