"""Search: a question becomes vectors and words, the store gives candidates, the best are answers.

`Searcher` is the way in. A question may name several sounds, rule some out, begin from examples,
and ask for words of names and tags; `docs/search.md` says how each of these counts.
"""

from __future__ import annotations

from earshot.search.examples import read_example
from earshot.search.question import read_queries
from earshot.search.searcher import Searcher

__all__ = ["Searcher", "read_example", "read_queries"]
