"""A store that is tidied while it grows: searches and puts take longer by what is not indexed yet.

One idea: tidied is whenever as much was put as there was, so that all of it costs no more than a
few times the last.
"""

from __future__ import annotations

from collections.abc import Sequence

from earshot.types import EmbeddedFile, Store

# Fewer are tidied at the end of a run.
LEAST_FILES = 4096


class Growing:
    """Puts files into a store that holds so many `files`, and optimizes it in between."""

    def __init__(self, store: Store, files: int) -> None:
        self.store = store
        self._files, self._since = files, 0

    def put(self, files: Sequence[EmbeddedFile]) -> None:
        """See `Store.put`."""
        self.store.put(files)
        self._since += len(files)
        if self._since >= max(self._files, LEAST_FILES):
            self.store.optimize()
            self._files, self._since = self._files + self._since, 0
