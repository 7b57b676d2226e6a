"""Search by words in memory: BM25 over the fields of files, forgiving of forms and typos.

One idea: a word of the query is answered by stems of the library, each with a strength: 1 for its
own stem, less for words that it begins or that it was meant to be. A file's weight for the word is
that of its best stem, so that no typo ever adds up to more than the word itself. Weights are those
of BM25F (Robertson and Zaragoza, 2009, https://doi.org/10.1561/1500000019): occurrences are counted
by the weight of their field, then saturated; repeating a word within one text counts for nothing.
Files are ordered by how much of the query they answer, then by BM25F: a list that ends somewhere
then says what any other file answers at most.
N files, P postings (a stem in a file).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from earshot.conditions import comparer_of, holds
from earshot.store.terms import (
    PREFIX_LETTERS,
    common_root,
    is_generic,
    is_number,
    stem,
    texts_of,
    words_of,
)
from earshot.types import WORD_FIELDS, Condition, FileRecord, WordHit, WordMatch

FIELD_WEIGHTS = {
    "name": 3.0,
    "title": 3.0,
    "tags": 2.5,
    "category": 2.0,
    "folder": 1.5,
    "description": 1.5,
    "creator": 0.5,
}
# How soon more of the same word stops counting, and how much long descriptions are held down:
# less than in collections of prose, for a name of four words is no worse than one of two.
SATURATION = 1.2
LENGTH_SHARE = 0.25
# Numbers, and the words that devices put before them.
QUIET = 0.3

PREFIX_STRENGTH = 0.8
TYPO_LETTERS, SECOND_TYPO_LETTERS = 4, 8
TYPO_STRENGTHS = {1: 0.6, 2: 0.4}
MAX_MEANT = 100
# Comparing an unknown word with all words of a library takes its time: whoever asks for hundreds of
# made-up words would keep all others waiting.
MAX_GUESSED = 10
# Of a query so many words, each with another stem, are looked for: the first.
MAX_ASKED = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A word of a query with the stems that answer it and how well, up to 1."""

    word: str
    strengths: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answering:
    """The words that are `asked`, how much of them each file answers (N,), and its BM25 (N,)."""

    asked: Sequence[Asked]
    shares: np.ndarray
    scores: np.ndarray


class WordIndex:
    """The words of some files. `root` is the folder whose parents say nothing of them."""

    def __init__(self, records: Sequence[FileRecord], root: str | None = None) -> None:
        self.records = sorted(
            (record for record in records if not record.broken),
            key=lambda record: record.state.path,
        )
        paths = [record.state.path for record in self.records]
        self.root = common_root(paths) if root is None else root
        self._stems: dict[str, int] = {}
        self._words: dict[str, tuple[int, float]] = {}
        self._loud: set[str] = set()
        self._said: dict[int, dict[str, tuple[int, str]]] = {}
        self._by_length: dict[int, list[str]] = {}
        self._build()

    def _build(self) -> None:
        """Lay out postings by stem: `_files` (P,) and `_weights` (P,) from `_starts` on."""
        stems: list[int] = []
        owners: list[int] = []
        weights: list[float] = []
        for number, record in enumerate(self.records):
            for field, text in texts_of(record, self.root):
                words = words_of(text)
                full = FIELD_WEIGHTS[field]
                loud = 1.0 if field != "name" or not is_generic(words) else QUIET
                for word in dict.fromkeys(words):
                    known = self._words.get(word) or self._learn(word)
                    stems.append(known[0])
                    owners.append(number)
                    weights.append(full * min(loud, known[1]))
                    if loud == known[1] == 1.0:
                        self._loud.add(word)
        self._vocabulary = sorted(self._loud)
        for word in self._vocabulary:
            self._by_length.setdefault(len(word), []).append(word)
        self._lay_out(np.array(stems, int), np.array(owners, int), np.array(weights, np.float64))

    def _learn(self, word: str) -> tuple[int, float]:
        number = self._stems.setdefault(stem(word), len(self._stems))
        known = self._words[word] = number, QUIET if is_number(word) else 1.0
        return known

    def _lay_out(self, stems: np.ndarray, owners: np.ndarray, weights: np.ndarray) -> None:
        count = max(len(self.records), 1)
        keys, places = np.unique(stems * count + owners, return_inverse=True)
        counted = np.bincount(places, weights, len(keys))
        self._files = keys % count
        self._starts = np.searchsorted(keys // count, np.arange(len(self._stems) + 1))
        lengths = np.bincount(self._files, counted, count)
        relative = lengths[self._files] / max(lengths.mean(), 1e-9)
        dampened = SATURATION * (1 - LENGTH_SHARE + LENGTH_SHARE * relative)
        self._weights = counted * (SATURATION + 1) / (counted + dampened)

    def search(
        self,
        query: str,
        limit: int,
        where: Sequence[Condition] = (),
        rarities: Mapping[str, float] | None = None,
        among: Collection[str] | None = None,
    ) -> list[WordHit]:
        """The best `limit` files, as `Store.search_words`.

        `rarities` of the query's words are those of a larger library that these files are from.
        """
        allowed = None if among is None else frozenset(among)
        answering = self.answering(query, rarities)
        shares, scores = answering.shares, answering.scores
        hits: list[WordHit] = []
        matching = np.flatnonzero(scores > 0)
        for number in matching[np.lexsort((-scores[matching], -shares[matching]))]:
            record = self.records[number]
            if allowed is not None and record.state.path not in allowed:
                continue
            if all(holds(condition, comparer_of(record)) for condition in where):
                matches = self.matches(int(number), answering)
                share, score = float(shares[number]), float(scores[number])
                path = record.state.path
                hits.append(WordHit(path=path, score=score, share=share, matches=matches))
            if len(hits) == limit:
                break
        return hits

    def answering(self, query: str, rarities: Mapping[str, float] | None = None) -> Answering:
        """What of the library answers a query; `rarities` as `search` takes them.

        Shares are 0 to 1. Words are added up one by one: figures of all files for each would fill
        the memory.
        """
        asked, files = self.asked(query), len(self.records)
        shares, scores, most = np.zeros(files), np.zeros(files), 0.0
        for word in asked:
            strengths, weights = self._answers(word.strengths)
            if rarities is None:
                rare = rarity(int(np.count_nonzero(strengths)), files)
            else:
                rare = rarities[word.word]
            shares += rare * strengths
            scores += rare * weights
            most += rare
        shares /= most or 1.0
        return Answering(asked=asked, shares=np.minimum(shares, 1.0, out=shares), scores=scores)

    def asked(self, query: str) -> list[Asked]:
        """The words of a query with what answers them; unknown ones beyond the first: nothing."""
        left, asked = MAX_GUESSED, []
        for word in query_words(query):
            own = stem(word)
            strengths: Mapping[str, float] = {own: 1.0}
            if own not in self._stems and not is_number(word):
                strengths = self.meant(word) if left else {}
                left = max(0, left - 1)
            asked.append(Asked(word=word, strengths=strengths))
        return asked

    def meant(self, word: str) -> dict[str, float]:
        """The stems of the library that an unknown word may mean, with their strengths."""
        strengths: dict[str, float] = {}
        for other, strength in [*self._begun(word), *self._misspelt(word)][:MAX_MEANT]:
            strengths[stem(other)] = max(strengths.get(stem(other), 0.0), strength)
        return strengths

    def _begun(self, word: str) -> list[tuple[str, float]]:
        """Words that a query's word begins, as while somebody types."""
        if len(word) < PREFIX_LETTERS:
            return []
        start = bisect_left(self._vocabulary, word)
        words = self._vocabulary[start : start + MAX_MEANT]
        return [(other, PREFIX_STRENGTH) for other in words if other.startswith(word)]

    def _misspelt(self, word: str) -> list[tuple[str, float]]:
        """Words one letter away, two from eight letters on; a swap of neighbours is one."""
        if len(word) < TYPO_LETTERS:
            return []
        from rapidfuzz.distance import OSA
        from rapidfuzz.process import extract

        most = 2 if len(word) >= SECOND_TYPO_LETTERS else 1
        lengths = range(len(word) - most, len(word) + most + 1)
        near = [other for length in lengths for other in self._by_length.get(length, ())]
        found = extract(word, near, scorer=OSA.distance, score_cutoff=most, limit=MAX_MEANT)
        return [(other, TYPO_STRENGTHS[max(1, int(distance))]) for other, distance, _ in found]

    def _answers(self, strengths: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """How well each file answers one word of a query, (N,), and its weight for it, (N,)."""
        strongest, heaviest = np.zeros(len(self.records)), np.zeros(len(self.records))
        for answer, strength in strengths.items():
            if (number := self._stems.get(answer)) is not None:
                postings = slice(self._starts[number], self._starts[number + 1])
                files = self._files[postings]
                strongest[files] = np.maximum(strongest[files], strength)
                heaviest[files] = np.maximum(heaviest[files], strength * self._weights[postings])
        return strongest, heaviest

    def matches(self, number: int, answering: Answering) -> tuple[WordMatch, ...]:
        """The words that file `number` of the records answers a query by."""
        if number not in self._said:
            self._said[number] = said_by(self.records[number], self.root)
        matches = [best_answer(self._said[number], word) for word in answering.asked]
        return tuple(match for match in matches if match is not None)


def query_words(query: str) -> list[str]:
    """The first words of a query, each stem once."""
    by_stem: dict[str, str] = {}
    for word in words_of(query):
        by_stem.setdefault(stem(word), word)
    return list(by_stem.values())[:MAX_ASKED]


def rarity(found: int, files: int) -> float:
    """How much a word that `found` of all `files` answer tells: BM25's, above 0 for any."""
    return math.log1p((files - found + 0.5) / (found + 0.5))


def said_by(record: FileRecord, root: str) -> dict[str, tuple[int, str]]:
    """Each stem of a file's words, with the first of `WORD_FIELDS` that has it, and its word."""
    said: dict[str, tuple[int, str]] = {}
    for field, text in texts_of(record, root):
        place = WORD_FIELDS.index(field)
        for word in words_of(text):
            stemmed = stem(word)
            said[stemmed] = min(said.get(stemmed, (place, word)), (place, word))
    return said


def best_answer(said: Mapping[str, tuple[int, str]], asked: Asked) -> WordMatch | None:
    """The word of a file that answers a query's word best; `said` is what `said_by` gives."""
    found = [(-strength, *said[s]) for s, strength in asked.strengths.items() if s in said]
    if not found:
        return None
    _, place, word = min(found)
    return WordMatch(asked=asked.word, found=word, field=WORD_FIELDS[place])
