"""Search by words in a LanceDB table too large for memory: its full-text index proposes, we score.

The column `words` holds each file's words as `stored_words` writes them, and LanceDB takes them as
they stand. For each word of a query it counts the files, which tells how rare the word is; all
words together give candidates, which are scored like any files in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from earshot.store.rows import WORD_COLUMNS, worded_of
from earshot.store.terms import (
    BEGINNING,
    MAX_PREFIX_LETTERS,
    PREFIX_LETTERS,
    common_root,
    is_number,
    stem,
)
from earshot.store.words import MAX_GUESSED, TYPO_LETTERS, WordIndex, query_words, rarity
from earshot.types import WordHit

WORDS_COLUMN = "words"
# A word in more files than this is common, whatever their number.
MAX_COUNTED = 10_000
# Words whose files were counted are kept.
KEPT = 4096
# LanceDB's order is not ours: it knows no fields.
CANDIDATES_PER_HIT = 4
MIN_CANDIDATES = 400


class ScannedWords:
    """The words of one version of a table."""

    def __init__(self, table: Any) -> None:
        from lancedb.expr import col, lit

        self.table = table
        self.version = table.version
        first = col("number") == lit(0)
        paths = table.search().where(first & (col("broken") == lit(""))).select(["path"])
        found = paths.to_arrow()["path"].to_pylist()
        self.files, self.root = len(found), common_root(found)
        self._itself = lru_cache(KEPT)(self._as_it_stands)
        self._meant = lru_cache(KEPT)(self._as_it_was_meant)

    def search(self, query: str, limit: int, where: Any) -> list[WordHit]:
        """The best `limit` files, as `Store.search_words`; `where` is LanceDB's, or None."""
        from lancedb.query import BooleanQuery, Occur

        left, asked = MAX_GUESSED, []
        for word in query_words(query):
            part, count = self._itself(word)
            if not count and left and not is_number(word):
                part, count = self._meant(word)
                left -= 1
            asked.append((word, part, count))
        rarities = {word: rarity(count, self.files) for word, _, count in asked}
        parts = [(Occur.SHOULD, part) for _, part, count in asked if count]
        if not parts:
            return []
        most = max(limit * CANDIDATES_PER_HIT, MIN_CANDIDATES)
        candidates = worded_of(self._find(BooleanQuery(parts), most, WORD_COLUMNS, where))
        return WordIndex(candidates, self.root).search(query, limit, rarities=rarities)

    def _as_it_stands(self, word: str) -> tuple[Any, int]:
        """What to ask for a word as it stands, and its files."""
        from lancedb.query import MatchQuery

        query = MatchQuery(f"{word} {stem(word)}", WORDS_COLUMN)
        return query, self._count(query)

    def _as_it_was_meant(self, word: str) -> tuple[Any, int]:
        """What to ask for what an unknown word begins or was meant to be, and its files."""
        from lancedb.query import BooleanQuery, MatchQuery, Occur

        others = []
        if PREFIX_LETTERS <= len(word) <= MAX_PREFIX_LETTERS:
            others.append(MatchQuery(BEGINNING + word, WORDS_COLUMN))
        if len(word) >= TYPO_LETTERS:
            # Two, its most, for all: letters that swap are one typo to us and two to it.
            others.append(MatchQuery(word, WORDS_COLUMN, fuzziness=2))
        if not others:
            return None, 0
        query = BooleanQuery([(Occur.SHOULD, other) for other in others])
        return query, self._count(query)

    def _count(self, query: Any) -> int:
        return int(self._find(query, MAX_COUNTED, ("path",), None).num_rows)

    def _find(self, query: Any, limit: int, columns: Sequence[str], where: Any) -> Any:
        search = self.table.search(query, query_type="fts").limit(limit)
        if where is not None:
            search = search.where(where)
        return search.select([*columns, "_score"]).to_arrow()
