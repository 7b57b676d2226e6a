"""Sentences that a model has read: those of several questions together, and the latest kept.

People ask for the same few things, and a phrase of one question is the whole of another.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from threading import Lock

import numpy as np

from earshot.types import Model

# Of 527 figures each: 2 MB.
KEPT = 1024


class Sentences:
    """The vectors of sentences by a model; safe to be asked by several threads."""

    def __init__(self, model: Model, kept: int = KEPT) -> None:
        self.model, self.kept = model, kept
        self._vectors: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = Lock()

    def __call__(self, texts: Iterable[str]) -> Mapping[str, np.ndarray]:
        """The vector (D,) of each text; those that are not known are embedded in one batch."""
        found: dict[str, np.ndarray] = {}
        unknown: dict[str, None] = {}
        with self._lock:
            for text in texts:
                vector = self._vectors.get(text)
                if vector is None:
                    unknown[text] = None
                else:
                    self._vectors.move_to_end(text)
                    found[text] = vector
        if unknown:
            # Rows of their own: a view would keep all of a large batch.
            rows = [row.copy() for row in self.model.embed_text(list(unknown))]
            found.update(zip(unknown, rows, strict=True))
            self._keep({text: found[text] for text in unknown})
        return found

    def _keep(self, vectors: Mapping[str, np.ndarray]) -> None:
        with self._lock:
            self._vectors.update(vectors)
            while len(self._vectors) > self.kept:
                self._vectors.popitem(last=False)
