"""Several sequences as one, without a copy: what is in it is made when it is asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Generic, TypeVar, overload

import numpy as np

Made = TypeVar("Made")
Source = TypeVar("Source")


@dataclass(frozen=True, kw_only=True)
class Part(Generic[Source, Made]):
    """The things at `places` (n,) of a sequence, each as `make` makes it."""

    things: Sequence[Source]
    places: np.ndarray
    make: Callable[[Source], Made]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: int) -> Made:
        return self.make(self.things[int(self.places[place])])


class Joined(Sequence[Made]):
    """Parts one after another."""

    def __init__(self, parts: Sequence[Part[Source, Made]]) -> None:
        self.parts = tuple(parts)
        self.starts = list(accumulate(map(len, self.parts), initial=0))

    def __len__(self) -> int:
        return self.starts[-1]

    @overload
    def __getitem__(self, place: int) -> Made: ...
    @overload
    def __getitem__(self, place: slice) -> list[Made]: ...
    def __getitem__(self, place: int | slice) -> Made | list[Made]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        part = bisect_right(self.starts, place) - 1
        made: Made = self.parts[part][place - self.starts[part]]
        return made
