"""What files say of themselves, in tags, chunks, names and tables beside them: text in, notes out.

Every source is read into names and values (`Said`), one list of names says which field each belongs
to, and the sources are laid over one another. Damage to tags never makes a recording bad: what
cannot be read is left out. docs/metadata.md lists it all for users.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from earshot.metadata.fields import Said, notes_of, overlaid
from earshot.metadata.riff import read_riff
from earshot.metadata.tables import Tables
from earshot.metadata.tags import read_tags
from earshot.metadata.ucs import read_name
from earshot.types import Notes

__all__ = ["Tables", "read_notes"]


def read_notes(path: str | Path, row: Said | None = None) -> Notes:
    """What a file says of itself; what `row`, a table's, says of it goes first.

    Where several sources speak, the order is: table, iXML, BWF, RIFF INFO, other tags, file name.
    Tags are gathered from all of them.
    """
    path = Path(path)
    sources = [row or {}, *read_riff(path), read_tags(path), read_name(path.stem)]
    return overlaid([*map(notes_of, sources), Notes(date=_changed(path))])


def _changed(path: Path) -> str:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
    except (OSError, OverflowError, ValueError):
        return ""
