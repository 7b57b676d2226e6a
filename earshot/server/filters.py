"""Filters on lists of recordings, as the store filters its hits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from earshot.conditions import Comparer, facets_of, holds
from earshot.types import Condition, FileRecord


def matching(records: Sequence[FileRecord], where: Sequence[Condition]) -> Sequence[FileRecord]:
    """The recordings for which all conditions, which `parse_condition` has read, hold."""
    if not where:
        return records
    return [record for record in records if _holds(record, where)]


def _holds(record: FileRecord, where: Sequence[Condition]) -> bool:
    def column(name: str) -> Any:
        if name == "path":
            return record.state.path
        if name == "date":
            return record.notes.date
        return facets_of(record.notes) if name == "facets" else getattr(record, name)

    comparer = Comparer(column=column)
    return all(holds(condition, comparer) for condition in where)
