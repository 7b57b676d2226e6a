"""What LanceDB is asked for, as expressions: text of a user is never part of a query's text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import reduce
from operator import and_
from typing import Any

from earshot.conditions import Comparer, holds
from earshot.types import Condition


def any_of(paths: Collection[str]) -> Any:
    """Rows of files."""
    from lancedb.expr import col

    return col("path").isin(list(paths))


def searchable() -> Any:
    """Rows with a span: neither files without segments nor blanks."""
    from lancedb.expr import col, lit

    return col("start_s") >= lit(0.0)


def rows_of(where: Sequence[Condition], among: Collection[str] | None) -> Any | None:
    """Rows of the files that conditions and a list of paths allow; None where there is neither."""
    parts = [filter_of(where)] if where else []
    parts += [] if among is None else [any_of(among)]
    return reduce(and_, parts) if parts else None


def filter_of(where: Sequence[Condition]) -> Any:
    """Rows for which all conditions hold."""
    from lancedb.expr import Expr, col, lit

    comparer = Comparer(column=col, constant=lit, contains=Expr.contains)
    return reduce(and_, (holds(condition, comparer) for condition in where))
