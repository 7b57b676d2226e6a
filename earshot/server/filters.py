"""Filters on lists of recordings, as the store filters its hits."""

from __future__ import annotations

from collections.abc import Sequence

from earshot.store.checks import OPERATORS, check_search
from earshot.types import Condition, FileRecord


def matching(records: Sequence[FileRecord], where: Sequence[Condition]) -> Sequence[FileRecord]:
    """The recordings for which all conditions hold.

    Raises:
        EarshotError: a senseless condition.
    """
    check_search(1, where)
    if not where:
        return records
    return [record for record in records if all(_holds(record, c) for c in where)]


def _holds(record: FileRecord, condition: Condition) -> bool:
    value = record.state.path if condition.field == "path" else getattr(record, condition.field)
    return bool(OPERATORS[condition.operator](value, condition.value))
