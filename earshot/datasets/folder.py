"""Any folder of recordings with a table: `metadata.csv` or `captions.csv`.

The table has a column `file_name` (a path below the folder) and `caption` or `caption_1`,
`caption_2`, …; any other column can serve as the text. Columns `licence`, `duration_s`, `source`,
`keywords` (`;` between them), `freesound_id` and `youtube_id` are taken over where they are there.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from earshot.datasets.shape import assemble, caption_id, freesound_id
from earshot.datasets.tables import Row, read_rows
from earshot.types import Caption, Clip, Dataset, DatasetCard, EarshotError

TABLES = ("metadata.csv", "captions.csv")
NUMBERED_CAPTION = re.compile(r"caption_\d+")
ALL = "all"


def load(root: Path, split: str = ALL, *, text_column: str = "", relevant_by: str = "") -> Dataset:
    """The clips of a table, each caption relevant to the clip in its row.

    Args:
        root: the folder of the table.
        split: rows whose column `split` has this value; `all` for every row.
        text_column: the column to use as caption, else `caption` or `caption_1` and so on.
        relevant_by: a column; a caption is relevant to all clips with its own clip's value there.

    Raises:
        EarshotError: no table, a column that it lacks, a file outside of the folder.
    """
    table = find_table(root)
    rows = read_rows(table, ("file_name", *filter(None, (text_column, relevant_by))))
    rows = _of_split(rows, table, split)
    columns = [text_column] if text_column else _caption_columns(table, rows)
    clips = [_clip(row, root) for row in rows]
    captions = [
        Caption(id=caption_id(clip.id, number), text=row.get(column), clip_id=clip.id)
        for row, clip in zip(rows, clips, strict=True)
        for number, column in enumerate(columns, 1)
        if row.get(column) or _is_needed(row, columns)
    ]
    relevance = _relevance(rows, captions, relevant_by) if relevant_by else None
    return assemble(_card(root, rows), split, clips, captions, relevance)


def find_table(root: Path) -> Path:
    """The table of a folder.

    Raises:
        EarshotError: there is none.
    """
    for name in TABLES:
        if (root / name).is_file():
            return root / name
    state = f"holds no {' or '.join(TABLES)}" if root.is_dir() else "is no folder"
    raise EarshotError(f"{root} {state}; write a table with the columns file_name and caption")


def _of_split(rows: list[Row], table: Path, split: str) -> list[Row]:
    if not rows:
        raise EarshotError(f"{table}: no rows below the header")
    if split == ALL:
        return rows
    if chosen := [row for row in rows if row.get("split") == split]:
        return chosen
    splits = sorted({row.get("split") for row in rows} - {""})
    raise EarshotError(f"{table}: no rows of split {split!r}; it has {', '.join([ALL, *splits])}")


def _caption_columns(table: Path, rows: Sequence[Row]) -> list[str]:
    columns = list(rows[0].values)
    found = [c for c in columns if c == "caption"] or [
        c for c in columns if NUMBERED_CAPTION.fullmatch(c)
    ]
    if not found:
        raise EarshotError(
            f"{table}: no column caption or caption_1; it has {', '.join(columns)}: "
            f"name one with --text-column"
        )
    return found


def _is_needed(row: Row, columns: Sequence[str]) -> bool:
    """A row may have fewer captions than others, but not none."""
    if not any(row.get(column) for column in columns):
        raise row.error(f"no text in {', '.join(columns)}")
    return False


def _clip(row: Row, root: Path) -> Clip:
    name = row.required("file_name")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise row.error(f"file_name is {name!r}; expected a path below the table's folder")
    path = root / name
    return Clip(
        id=name,
        path=str(path) if path.is_file() else "",
        duration_s=_duration(row),
        freesound_id=row.get("freesound_id") or freesound_id(row.get("source")),
        youtube_id=row.get("youtube_id"),
        licence=row.get("licence") or row.get("license"),
        keywords=tuple(w.strip() for w in row.get("keywords").split(";") if w.strip()),
    )


def _duration(row: Row) -> float | None:
    text = row.get("duration_s")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise row.error(f"duration_s is {text!r}; expected seconds")
    return seconds


def _relevance(
    rows: Sequence[Row], captions: Sequence[Caption], column: str
) -> Mapping[str, frozenset[str]]:
    value_of = {row.get("file_name"): row.required(column) for row in rows}
    alike = defaultdict(set)
    for clip_id, value in value_of.items():
        alike[value].add(clip_id)
    groups = {value: frozenset(ids) for value, ids in alike.items()}
    return {caption.id: groups[value_of[caption.clip_id]] for caption in captions}


def _card(root: Path, rows: Sequence[Row]) -> DatasetCard:
    licences = sorted({row.get("licence") or row.get("license") for row in rows} - {""})
    licence = ", ".join(licences) or "not stated"
    return DatasetCard(name=root.resolve().name, source="a folder", licence=licence, citation="")
