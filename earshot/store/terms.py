"""Words of file names, folders, notes and queries: split, folded, stemmed, the same for all.

`DoorSlam_02` is door, slam and 2; accents and case do not count; barking and barks are one stem
(Porter2 for English, https://snowballstem.org). Words of other languages stay whole.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from os.path import commonprefix
from string import ascii_lowercase
from typing import Any

from earshot.types import FileRecord

WORD = re.compile(r"[^\W\d_]+|\d+")
# wordWord and ABCWord: where a small letter meets a capital, or capitals a capitalised word.
CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
SEPARATOR = re.compile(r"[/\\]")
# English, and what says nothing in a library of sounds.
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """a about above after again all also an and any are as at be been before being below
        between but by can did do does doing down each few for from further had has have having he
        her here hers him his how i if in into is it its itself just me more most my no nor not
        now of off on once only or other our out over own same she so some such than that the
        their them then there these they this those through to too under until up very was we were
        what when where which while who whom why will with you your sound sounds recording
        recordings""",
    )
)
# One letter is no word, but one digit is a number, and one sign of Chinese is a word.
IGNORED = STOP_WORDS | frozenset(ascii_lowercase)
# What recorders and programs call every file, alone or before a number.
DEVICE_WORDS = frozenset(
    ("audio", "clip", "dr", "export", "file", "img", "mix", "mono", "mov", "mvi", "new", "output")
    + ("rec", "record", "sample", "sfx", "ste", "stereo", "take", "tascam", "tk", "track", "trk")
    + ("untitled", "vid", "video", "voice", "wav", "zoom")
)
MAX_FOLDERS = 3
# A word's beginning finds it from so many letters on; beyond the most, typos are what differs.
PREFIX_LETTERS, MAX_PREFIX_LETTERS = 3, 12
BEGINNING = "^"
# What comes again and again is short: words of the latest short texts are kept, and stems of the
# latest short words, at most some 30 MB. Those of long texts would be gigabytes.
KEPT_TEXTS, MAX_KEPT_LETTERS = 1 << 13, 40
KEPT_STEMS, MAX_KEPT_WORD_LETTERS = 1 << 15, 32


def fold(text: str) -> str:
    """Text without accents; case stays, for it tells words apart."""
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in order: lower case, numbers without leading zeros."""
    return _kept_words(text) if len(text) <= MAX_KEPT_LETTERS else _telling_words(text)


def _telling_words(text: str) -> tuple[str, ...]:
    return tuple(word for word in all_words_of(text) if word not in IGNORED)


_kept_words = lru_cache(KEPT_TEXTS)(_telling_words)


def all_words_of(text: str) -> list[str]:
    """As `words_of`, with those that say nothing."""
    folded = fold(text)
    if not folded.islower():
        folded = CAMEL.sub(" ", folded).casefold()
    words = WORD.findall(folded)
    return [word if word[0] != "0" else word.lstrip("0") or "0" for word in words]


def says(record: FileRecord, phrase: str) -> bool:
    """Whether a text of a file has all words of a phrase in a row."""
    wanted = f" {' '.join(all_words_of(phrase))} "
    return any(wanted in f" {' '.join(all_words_of(text))} " for _, text in texts_of(record, ""))


def stem(word: str) -> str:
    """What the forms of a word have in common."""
    return _kept_stem(word) if len(word) <= MAX_KEPT_WORD_LETTERS else _stem(word)


def _stem(word: str) -> str:
    stemmed: str = _stemmer().stemWord(word)
    return stemmed


_kept_stem = lru_cache(KEPT_STEMS)(_stem)


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    from Stemmer import Stemmer

    return Stemmer("english", 0)  # It would keep words of any length itself.


def is_number(word: str) -> bool:
    """Whether a word is a number: it counts only where it is asked for."""
    return word[0].isdigit()


def is_generic(name: Sequence[str]) -> bool:
    """Whether a name is a device's or program's: ZOOM0012, `Track 03`, 2021-05-05."""
    return all(is_number(word) or word in DEVICE_WORDS for word in name)


def common_root(paths: Collection[str]) -> str:
    """The folder that all paths lie in, with its last separator; empty if there is none."""
    shared = commonprefix([min(paths), max(paths)]) if paths else ""
    return shared[: max(shared.rfind("/"), shared.rfind("\\")) + 1]


def texts_of(record: FileRecord, root: str) -> Iterator[tuple[str, str]]:
    """What there is to find words in, each with its one of `WORD_FIELDS`.

    Folders count below `root`, and only the last three, that nobody's home is found everywhere.
    """
    path, notes = record.state.path, record.notes
    *folders, name = SEPARATOR.split(path.removeprefix(root))
    yield "name", name.rpartition(".")[0] or name
    for field, text in (("title", notes.title), ("category", notes.category)):
        if text:
            yield field, text
    for tag in notes.tags:
        yield "tags", tag
    for folder in folders[-MAX_FOLDERS:]:
        if folder:
            yield "folder", folder
    for field, text in (("description", notes.description), ("creator", notes.creator)):
        if text:
            yield field, text


def stored_words(record: FileRecord) -> str:
    """A file's words for an index that knows no stems: each as it is, its stem, what begins it.

    Beginnings are marked by `BEGINNING`, so that no word is taken for one. Where the files' common
    root lies is not known yet, so all of the last folders are in.
    """
    words = {word for _, text in texts_of(record, "") for word in words_of(text)}
    begun = {
        BEGINNING + word[:length]
        for word in words
        if not is_number(word)
        for length in range(PREFIX_LETTERS, min(len(word), MAX_PREFIX_LETTERS + 1))
    }
    return " ".join(sorted(words | {stem(word) for word in words} | begun))
