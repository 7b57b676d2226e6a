"""From names and values as others write them to the fields of `Notes`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import chain

from earshot.metadata.licences import known_licence, licence_name
from earshot.metadata.ucs import category_of
from earshot.types import Notes

# What a source says: values by name, the name written as `plain` writes it.
Said = Mapping[str, Sequence[str]]

# More than any catalogue writes; a novel in a comment must not fill the index.
MAX_CHARACTERS = 4000
MAX_LABEL_CHARACTERS = 200
MAX_TAGS = 100
# Of one value, and of all that is said of one field, no more than this is looked at: what sees them
# next are patterns.
MAX_VALUE_CHARACTERS = 4 * MAX_CHARACTERS
MAX_FIELD_CHARACTERS = 4 * MAX_VALUE_CHARACTERS

# The names under which a field comes, the best first. RIFF INFO writes INAM, ID3 TIT2 …; tags of
# sound libraries are those of Soundminer, Basehead and the iXML of UCS.
NAMES = {
    "title": ("title", "fxname", "inam", "trackname", "trktitle", "soundtitle", "scene"),
    "description": ("description", "caption", "comment", "icmt", "bwfdescription", "note")
    + ("notes", "isbj", "subject"),
    "tags": ("tags", "tag", "keywords", "keyword", "ikey", "label", "labels", "genre", "ignr")
    + ("usercategory", "vendorcategory", "project"),
    "creator": ("creator", "artist", "iart", "author", "designer", "recordist", "uploader")
    + ("username", "composer", "originator", "creatorid"),
    "date": ("date", "recorded", "recordingdate", "originationdate", "icrd", "year"),
}
LICENCES = ("licence", "license", "licenseurl", "rights")
# Mostly "© somebody"; of use only where a licence is named in them.
COPYRIGHTS = ("copyright", "icop", "url", "comment", "icmt")
CATEGORIES = ("category", "subcategory", "catid")
KNOWN = frozenset({*chain.from_iterable(NAMES.values()), *LICENCES, *COPYRIGHTS, *CATEGORIES})
TAG_SEPARATORS = re.compile(r"[,;|\n]")
DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)(?:[-:/. ]?(0[1-9]|1[0-2])(?:[-:/. ]?([0-2]\d|3[01]))?)?")


def plain(name: str) -> str:
    """A name without what writers differ in: case, spaces, punctuation, numbers at its end."""
    return re.sub(r"[\W_]+", "", name.casefold()).rstrip("0123456789")


def clean(text: str, most: int = MAX_CHARACTERS) -> str:
    """Text that can be stored and shown: one line, no control characters, not without end."""
    text = text[: 4 * most].encode(errors="ignore").decode()
    if "\ufffd" in text:  # An encoding was guessed wrong: half a word is worse than none.
        return ""
    shown = "".join(" " if unicodedata.category(c) in ("Cc", "Cf") else c for c in text)
    return " ".join(shown.split())[:most].strip()


def notes_of(said: Said) -> Notes:
    """One source's notes."""
    if not said:
        return Notes()
    tags = [tag for text in _values(said, NAMES["tags"]) for tag in TAG_SEPARATORS.split(text)]
    labels = [clean(tag, MAX_LABEL_CHARACTERS) for tag in tags]
    return Notes(
        title=clean(_first(said, NAMES["title"]), MAX_LABEL_CHARACTERS),
        description=clean(_description(said)),
        tags=tuple(_distinct(labels)[:MAX_TAGS]),
        category=_category(said),
        creator=clean(_first(said, NAMES["creator"]), MAX_LABEL_CHARACTERS),
        licence=_licence(said),
        date=next(filter(None, map(date_of, _values(said, NAMES["date"]))), ""),
    )


def overlaid(sources: Sequence[Notes]) -> Notes:
    """Notes of several sources: the first that has a field gives it, tags are gathered."""
    names = [field.name for field in fields(Notes) if field.name != "tags"]
    first = {
        name: next(filter(None, (getattr(notes, name) for notes in sources)), "") for name in names
    }
    tags = _distinct([tag for notes in sources for tag in notes.tags])
    return Notes(tags=tuple(tags[:MAX_TAGS]), **first)


def date_of(text: str) -> str:
    """The first date in a text, as far as it is given: YYYY, YYYY-MM or YYYY-MM-DD."""
    match = DATE.search(text)
    return "-".join(filter(None, match.groups())) if match else ""


def _values(said: Said, names: Sequence[str]) -> list[str]:
    """What is said under some names, in their order, as much of it as is looked at."""
    values: list[str] = []
    left = MAX_FIELD_CHARACTERS
    for text in (text for name in names for text in said.get(name, ())):
        if left > 0 and (value := text.strip()[:MAX_VALUE_CHARACTERS]):
            values.append(value)
            left -= len(value)
    return values


def _first(said: Said, names: Sequence[str]) -> str:
    return next(iter(_values(said, names)), "")


def _description(said: Said) -> str:
    """All captions of a table, else the first of the other names."""
    for name in NAMES["description"]:
        if texts := _values(said, [name]):
            return "; ".join(_distinct(texts))
    return ""


def _category(said: Said) -> str:
    main, sub = (clean(_first(said, [name]), 100).upper() for name in CATEGORIES[:2])
    main = main or category_of(_first(said, CATEGORIES[2:]))
    return f"{main}-{sub}" if main and sub else main


def _licence(said: Said) -> str:
    if stated := _first(said, LICENCES):
        return clean(licence_name(stated), MAX_LABEL_CHARACTERS)
    named = next(filter(None, map(known_licence, _values(said, COPYRIGHTS))), "")
    return clean(named, MAX_LABEL_CHARACTERS)


def _distinct(texts: Sequence[str]) -> list[str]:
    """Each text once, in order, as it was first written."""
    kept: dict[str, str] = {}
    for text in filter(None, texts):
        kept.setdefault(text.casefold(), text)
    return list(kept.values())
