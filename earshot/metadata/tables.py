"""Tables beside recordings: `metadata.csv`, `captions.csv` or `notes.csv` with a file per row.

A table speaks for the files of its folder and of those below it, named relative to it. The nearest
table that knows a file is the one that counts.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from earshot.metadata.fields import Said, plain

TABLES = ("metadata.csv", "captions.csv", "notes.csv")
FILE_COLUMNS = ("filename", "file", "path", "fname", "filepath")
MAX_TABLE_BYTES = 256 << 20

Rows = Mapping[str, Mapping[str, list[str]]]


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
    rows: dict[str, dict[str, list[str]]] = {}
    for name in TABLES:
        for file, said in _read(folder / name):
            row = rows.setdefault(file, {})
            for column, texts in said.items():
                row.setdefault(column, []).extend(texts)
    return rows


def _read(table: Path) -> list[tuple[str, dict[str, list[str]]]]:
    """The rows of one table by file; none if there is no such table, or it is not one."""
    try:
        if not table.is_file() or table.stat().st_size > MAX_TABLE_BYTES:
            return []
        text = table.read_text(encoding="utf-8-sig", errors="replace")
        rows = list(csv.DictReader(text.splitlines(keepends=True), restkey="", restval=""))
    except (OSError, csv.Error):
        return []
    return [pair for row in rows if (pair := _named(row))]


def _named(row: Mapping[str, str | list[str]]) -> tuple[str, dict[str, list[str]]] | None:
    """A row's file, as its path is written below the table's folder, and what else it says."""
    texts = {name: text for name, text in row.items() if name and isinstance(text, str)}
    column = next((name for wanted in FILE_COLUMNS for name in texts if plain(name) == wanted), "")
    file = PurePosixPath(texts.pop(column, "").strip().replace("\\", "/")).as_posix()
    return (file, _joined(texts)) if file != "." else None


def _joined(texts: Mapping[str, str]) -> dict[str, list[str]]:
    """Columns under plain names; `caption_1` to `caption_5` are five texts of one."""
    said: dict[str, list[str]] = {}
    for name, text in texts.items():
        if text.strip():
            said.setdefault(plain(name), []).append(text.strip())
    return said
