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


def filter_of(where: Sequence[Condition]) -> Any:
    """Rows for which all conditions hold."""
    from lancedb.expr import Expr, col, lit

    comparer = Comparer(column=col, constant=lit, contains=Expr.contains)
    return reduce(and_, (holds(condition, comparer) for condition in where))
