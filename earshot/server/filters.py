"""Filters on lists of recordings, as the store filters its hits."""

from __future__ import annotations

from collections.abc import Sequence

from earshot.conditions import comparer_of, holds
from earshot.types import Condition, FileRecord


def matching(records: Sequence[FileRecord], where: Sequence[Condition]) -> Sequence[FileRecord]:
    """The recordings for which all conditions, which `parse_condition` has read, hold."""
    if not where:
        return records
    return [record for record in records if _holds(record, where)]


def _holds(record: FileRecord, where: Sequence[Condition]) -> bool:
    comparer = comparer_of(record)
    return all(holds(condition, comparer) for condition in where)
