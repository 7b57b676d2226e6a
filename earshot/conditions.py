"""Filters: what can be asked of a file, how that is read, and how it holds against columns.

One meaning for every store: a condition becomes comparisons of four kinds of columns (`path`,
numbers, `date`, and `facets`, which holds a file's labels), in whatever a store compares with.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePath
from typing import Any, cast, get_args, get_type_hints

from earshot.types import Condition, EarshotError, FileRecord, Notes, NumberField

NUMBER_FIELDS: tuple[str, ...] = get_args(NumberField)
# What a file has or has not; there is no order to ask for.
FACET_FIELDS = ("licence", "tag", "category", "creator")
EQUALITY_FIELDS = ("folder", *FACET_FIELDS)
FIELDS: tuple[str, ...] = get_args(get_type_hints(Condition)["field"])
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}
# What stands before a value; a pattern for the value would try all of its ends.
HEAD = re.compile(r"\s*(\w+)\s*(<=|>=|!=|<|>|=)")
DATE = re.compile(r"\d{4}(-\d\d(-\d\d)?)?")
# Sorts after every character of a date, so that `2020~` is the end of 2020.
AFTER = "~"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparer:
    """How a store compares: what stands for a column, for a constant, for "contains this text"."""

    column: Callable[[str], Any]
    constant: Callable[[Any], Any] = lambda value: value
    contains: Callable[[Any, str], Any] = lambda text, part: part in text


def parse_condition(text: str, *, local: bool = True) -> Condition:
    """Read a filter such as `duration_s < 10`, `date >= 2020-05` or `tag = rain`.

    One that is not `local` was written on another machine, whose user's home is not here.

    Raises:
        EarshotError: with the fields and operators that there are.
    """
    head = HEAD.match(text)
    written = text[head.end() :].strip() if head else ""
    if head is None or not written or "\n" in written or head[1] not in FIELDS:
        meant = get_close_matches(head[1], FIELDS, 1, 0.5) if head and written else []
        hint = f"; did you mean {meant[0]!r}?" if meant else ": 'duration_s < 10'"
        raise EarshotError(
            f"cannot read the filter {text!r}; write FIELD OPERATOR VALUE with a field of "
            f"{', '.join(FIELDS)} and an operator of {' '.join(OPERATORS)}{hint}"
        )
    field, relation = cast("Any", head[1]), cast("Any", head[2])
    value = _value(field, relation, written, local)
    condition = Condition(field=field, operator=relation, value=value)
    check_condition(condition)
    return condition


def _value(field: str, relation: str, text: str, local: bool) -> str | float:
    if field in NUMBER_FIELDS:
        try:
            return float(text)
        except ValueError:
            raise EarshotError(f"{field} is compared with a number, not with {text!r}") from None
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    text = text[1:-1] if quoted else text
    if field in ("folder", "path") and not local:
        _require_here(field, text)
    if field == "folder":
        return _folder(text)
    return path_in_index(text) if field == "path" and relation in ("=", "!=") else text


def _require_here(field: str, text: str) -> None:
    """Refuse to look up a user, or (on Windows) to log in at another machine, for a stranger."""
    first = next(iter(PurePath(text).parts), "").replace("\\", "/")
    if first.startswith(("~", "//")):
        raise EarshotError(
            f"{field} {text!r} leads to a home or another machine; write the path as hits have it"
        )


def path_in_index(text: str) -> str:
    """The path that a file has in an index: its folder's own, and its name even if it is a link.

    Raises:
        EarshotError: it is none that any file could have.
    """
    if "://" in text:
        return text
    path = Path(text)
    return str(Path(_folder(str(path.parent)), path.name)) if path.name else _folder(text)


def _folder(text: str) -> str:
    if "://" in text:
        return text.rstrip("/")
    try:
        return str(Path(text).expanduser().resolve())
    except (OSError, RuntimeError, ValueError) as error:  # A loop of links, no such user, a NUL.
        raise EarshotError(f"folder {text!r} cannot be asked for: {error}") from None


def check_condition(condition: Condition) -> None:
    """Refuse a condition on things that no file has.

    Raises:
        EarshotError: names the fields, operators or kinds of value that are allowed.
    """
    field, relation, value = condition.field, condition.operator, cast("object", condition.value)
    asked = f"{field} {relation} {value!r}"
    if field not in FIELDS:
        raise EarshotError(f"no field {field!r}; there are {', '.join(FIELDS)}")
    if relation not in OPERATORS:
        raise EarshotError(f"no operator {relation!r}; there are {' '.join(OPERATORS)}")
    if field in EQUALITY_FIELDS and relation not in ("=", "!="):
        raise EarshotError(f"{asked}: {field} has no order; ask with = or !=")
    if field in NUMBER_FIELDS:
        if not (isinstance(value, int | float) and math.isfinite(value)):
            raise EarshotError(f"{asked}: compare it with a finite number")
    elif not isinstance(value, str):
        raise EarshotError(f"{asked}: compare a {field} with text")
    elif value != value.encode(errors="ignore").decode():
        raise EarshotError(f"{asked}: the text is not valid UTF-8; no stored file can have it")
    elif field == "date" and not DATE.fullmatch(value):
        raise EarshotError(f"{asked}: write a date as 2020, 2020-05 or 2020-05-31")


def holds(condition: Condition, comparer: Comparer) -> Any:
    """Whether a sound condition holds, in what the comparer's columns are made of."""
    field, relation, value = condition.field, condition.operator, condition.value
    constant = comparer.constant
    if field == "path" or field in NUMBER_FIELDS:
        return OPERATORS[relation](comparer.column(field), constant(value))
    if field == "folder":
        return _in_folder(comparer, str(value), relation == "=")
    if field == "date":
        return _dated(comparer, relation, str(value))
    has = comparer.contains(comparer.column("facets"), _facet(field, str(value)))
    return has == constant(relation == "=")


def _in_folder(comparer: Comparer, folder: str, inside: bool) -> Any:
    """Paths below a folder are those from `folder/` to before `folder0`, 0 following the slash."""
    separator = "\\" if "\\" in folder and "/" not in folder else "/"
    start = folder.rstrip(separator) + separator
    end = start[:-1] + chr(ord(separator) + 1)
    path = comparer.column("path")
    if inside:
        return (path >= comparer.constant(start)) & (path < comparer.constant(end))
    return (path < comparer.constant(start)) | (path >= comparer.constant(end))


def _dated(comparer: Comparer, relation: str, value: str) -> Any:
    """Compare as far as the asked date goes; a file without a date is only ever unequal."""
    date = comparer.column("date")
    start, end = comparer.constant(value), comparer.constant(value + AFTER)
    if relation == "=":
        return (date >= start) & (date < end)
    if relation == "!=":
        return (date < start) | (date >= end)
    if relation in ("<", "<="):
        return (date < (start if relation == "<" else end)) & (date > comparer.constant(""))
    return date >= (start if relation == ">=" else end)


def facets_of(notes: Notes) -> str:
    """The labels of a file as lines, for `holds` to look for: one for each tag and name."""
    category = notes.category
    labels = [("category", category), ("category", category.partition("-")[0])]
    labels += [("licence", notes.licence), ("creator", notes.creator)]
    labels += [("tag", tag) for tag in notes.tags]
    lines = dict.fromkeys(_facet(field, text).strip("\n") for field, text in labels if text)
    return "\n" + "".join(f"{line}\n" for line in lines)


def _facet(field: str, text: str) -> str:
    return f"\n{field}={' '.join(text.casefold().split())}\n"


# What conditions ask of a file, by the name of its column.
COLUMNS: dict[str, Callable[[FileRecord], Any]] = {
    "path": lambda record: record.state.path,
    "duration_s": lambda record: record.duration_s,
    "sample_rate_hz": lambda record: record.sample_rate_hz,
    "channels": lambda record: record.channels,
    "date": lambda record: record.notes.date,
    "facets": lambda record: facets_of(record.notes),
}


def comparer_of(record: FileRecord) -> Comparer:
    """A record for conditions to be held against; what none asks for is not made."""
    return Comparer(column=lambda name: COLUMNS[name](record))


def filter_columns(record: FileRecord) -> dict[str, Any]:
    """All that conditions ask of a file, by the name of its column."""
    return {name: column(record) for name, column in COLUMNS.items()}
