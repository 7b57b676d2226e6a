"""What Milvus is asked for: text of a user enters a filter only as hexadecimal digits.

Its filters are text, and not every kind of it takes parameters apart. So what conditions compare is
stored in hexadecimal, which keeps the order of UTF-8, and there is nothing to escape.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Any

from earshot.conditions import NUMBER_FIELDS, Comparer, holds
from earshot.types import Condition

SEARCHABLE = "start_s >= 0"


class Filter:
    """A filter's text, put together by operators as conditions are."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __and__(self, other: Filter) -> Filter:
        return Filter(f"({self.text}) and ({other.text})")

    def __or__(self, other: Filter) -> Filter:
        return Filter(f"({self.text}) or ({other.text})")

    def __eq__(self, other: object) -> Any:
        if isinstance(other, bool):
            return self if other else Filter(f"not ({self.text})")
        return Filter(f"{self.text} == {_text(other)}")

    def __ne__(self, other: object) -> Any:
        return Filter(f"{self.text} != {_text(other)}")

    def __lt__(self, other: Filter) -> Filter:
        return Filter(f"{self.text} < {other.text}")

    def __le__(self, other: Filter) -> Filter:
        return Filter(f"{self.text} <= {other.text}")

    def __gt__(self, other: Filter) -> Filter:
        return Filter(f"{self.text} > {other.text}")

    def __ge__(self, other: Filter) -> Filter:
        return Filter(f"{self.text} >= {other.text}")

    __hash__ = None  # type: ignore[assignment]


def _text(value: object) -> str:
    assert isinstance(value, Filter)
    return value.text


def hexadecimal(text: str) -> str:
    """Text as digits, in the order of its letters."""
    return text.encode().hex()


def facet_key(line: str) -> str:
    """A label of a file, of whatever length, as digits."""
    return hashlib.sha256(line.strip("\n").encode()).hexdigest()[:32]


def any_of(paths: Collection[str]) -> str:
    """Rows of files."""
    listed = ", ".join(f'"{hexadecimal(path)}"' for path in paths)
    return f"path_key in [{listed}]"


def filter_of(where: Sequence[Condition]) -> str:
    """Rows with a span for which all conditions hold."""
    comparer = Comparer(column=_column, constant=_constant, contains=_has)
    return " and ".join([SEARCHABLE, *(f"({holds(one, comparer).text})" for one in where)])


def _column(name: str) -> Filter:
    return Filter(name if name in NUMBER_FIELDS else f"{name}_key")


def _constant(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    return Filter(f'"{hexadecimal(value)}"' if isinstance(value, str) else repr(float(value)))


def _has(column: Filter, line: str) -> Filter:
    return Filter(f'ARRAY_CONTAINS({column.text}, "{facet_key(line)}")')
