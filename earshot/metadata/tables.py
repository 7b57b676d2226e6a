"""Tables beside recordings: `metadata.csv`, `captions.csv` or `notes.csv` with a file per row.

A table speaks for the files of its folder and of those below it, named relative to it. The nearest
table that knows a file is the one that counts. What is kept of a table is what `fields` knows, and
costs what its cells do: rows are not filled up to the length of the header.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from stat import S_IWOTH
from typing import TextIO

from earshot.metadata.fields import KNOWN, Said, plain

TABLES = ("metadata.csv", "captions.csv", "notes.csv")
FILE_COLUMNS = ("filename", "file", "path", "fname", "filepath")
MAX_TABLE_BYTES = 256 << 20
MAX_ROW_CHARACTERS = 1 << 20
# Names and texts that are kept of a table: those of a million files, in a gigabyte or two.
MAX_TEXTS = 4 * 10**6

Row = dict[str, list[str]]
Rows = Mapping[str, Row]


class Tables:
    """The tables beside recordings and above them, each read once and kept."""

    def __init__(self) -> None:
        self._rows: dict[Path, Rows] = {}
        self._above: dict[Path, list[tuple[Path, Rows]]] = {}

    def row(self, path: str | Path) -> Said:
        """What the nearest table says of a file, by name of column; nothing where none does."""
        path = Path(path)
        for folder, rows in self._tables(path.parent):
            if row := rows.get(path.relative_to(folder).as_posix()):
                return row
        return {}

    def digest(self, path: str | Path) -> str:
        """A hash of what the tables say of a file; empty where they say nothing."""
        row = self.row(path)
        return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest() if row else ""

    def _tables(self, folder: Path) -> list[tuple[Path, Rows]]:
        """The tables that may speak for files of a folder, the nearest first."""
        if folder not in self._above:
            for above in (folder, *folder.parents):
                if above not in self._rows:
                    self._rows[above] = _read_folder(above)
            near = [(above, self._rows[above]) for above in (folder, *folder.parents)]
            self._above[folder] = [(above, rows) for above, rows in near if rows]
        return self._above[folder]


def _read_folder(folder: Path) -> Rows:
    rows: dict[str, Row] = {}
    for name in TABLES:
        for file, said in _read(folder / name):
            row = rows.setdefault(file, {})
            for column, texts in said.items():
                row.setdefault(column, []).extend(texts)
    return rows


def _read(table: Path) -> list[tuple[str, Row]]:
    """The rows of one table by file; none if there is no such table, or it is not one."""
    rows: list[tuple[str, Row]] = []
    texts = 0
    try:
        if not _speaks(table):
            return []
        with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            for row in _named(_rows(file)):
                rows.append(row)
                texts += 1 + sum(map(len, row[1].values()))
                if texts > MAX_TEXTS:
                    return []
    except (OSError, csv.Error):
        return []
    return rows


def _speaks(table: Path) -> bool:
    """Whether there is a table that is not too large, and none that a stranger left there.

    Where everybody may write, as in /tmp, it counts if it is the user's, or the folder's owner's.
    """
    if not table.is_file() or table.stat().st_size > MAX_TABLE_BYTES:
        return False
    folder, owner = table.parent.stat(), table.lstat().st_uid
    return not folder.st_mode & S_IWOTH or owner == folder.st_uid or owner == os.geteuid()


def _rows(file: TextIO) -> Iterator[list[str]]:
    """The rows of a table as they are.

    Raises:
        csv.Error: one is longer than rows are.
    """
    left = 0

    def lines() -> Iterator[str]:
        nonlocal left
        while line := file.readline(left + 1):
            left -= len(line)
            if left < 0:
                raise csv.Error("a row without an end")
            yield line

    left = MAX_ROW_CHARACTERS
    for row in csv.reader(lines()):
        yield row
        left = MAX_ROW_CHARACTERS


def _named(rows: Iterator[list[str]]) -> Iterator[tuple[str, Row]]:
    """Each row's file, as its path is written below the table's folder, and what else it says.

    Columns get plain names; `caption_1` to `caption_5` are five texts of one.
    """
    names = [plain(name) for name in next(rows, [])]
    place = next((names.index(wanted) for wanted in FILE_COLUMNS if wanted in names), len(names))
    for row in rows:
        file = PurePosixPath("".join(row[place : place + 1]).strip().replace("\\", "/")).as_posix()
        if file != ".":
            yield file, _said(names, row)


def _said(names: Sequence[str], row: Sequence[str]) -> Row:
    said: Row = {}
    for name, text in zip(names, row, strict=False):
        if name in KNOWN and text.strip():
            said.setdefault(name, []).append(text.strip())
    return said
