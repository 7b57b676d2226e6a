"""Checks of settings, for configurations that refuse what cannot work as they are made."""

from __future__ import annotations

from collections.abc import Mapping

from earshot.types.errors import EarshotError

Numbers = Mapping[str, float | None]


def require_above(bound: float, numbers: Numbers) -> None:
    """Check settings by their names; None stands for one that is left out.

    Raises:
        EarshotError: one is not above the bound.
    """
    for name, value in numbers.items():
        if value is not None and not value > bound:
            raise EarshotError(f"{name} is {value}; it must be above {bound:g}")


def require_least(bound: float, numbers: Numbers) -> None:
    """Check settings by their names; None stands for one that is left out.

    Raises:
        EarshotError: one is below the bound.
    """
    for name, value in numbers.items():
        if value is not None and not value >= bound:
            raise EarshotError(f"{name} is {value}; it must be {bound:g} or more")
