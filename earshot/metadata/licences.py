"""Licences by one name each, however they are written: CC0, CC BY 4.0, CC BY-NC-SA 3.0."""

from __future__ import annotations

import re

# creativecommons.org/licenses/by-nc-sa/3.0/, CC-BY-NC 4.0, Attribution-NonCommercial 3.0 …
ADDRESS = re.compile(r"creativecommons\.org/(licenses|publicdomain)/([a-z-]+)(?:/(\d\.\d))?", re.I)
# In words that `SEPARATORS` part, so that no two neighbours of the pattern match the same blanks.
CODE = re.compile(r"\bcc ?(0|zero|by(?: (?:nc|nd|sa))*)(?: ?(?:v(?:ersion)?)? ?(\d\.\d))?", re.I)
SEPARATORS = re.compile(r"[ _-]+")
WORDS = re.compile(r"\battribution\b(.*)", re.I | re.S)
PARTS = {"noncommercial": "NC", "sharealike": "SA", "noderiv": "ND"}
PUBLIC = {"zero": "CC0", "mark": "Public Domain"}


def licence_name(text: str) -> str:
    """The licence's usual name; what is none that is known stays as it is written."""
    return known_licence(text) or text


def known_licence(text: str) -> str:
    """The licence that a text names or links to; empty where it names none."""
    if match := ADDRESS.search(text):
        kind, code, version = match.groups()
        if kind.casefold() == "publicdomain":
            return PUBLIC.get(code.casefold(), "Public Domain")
        return _named(code, version) if code.casefold().startswith("by") else ""
    if match := CODE.search(SEPARATORS.sub(" ", text)):
        return "CC0" if match[1] in ("0", *_cases("zero")) else _named(match[1], match[2])
    if re.search(r"creative commons (0|zero)\b", text, re.I):
        return "CC0"
    if re.search(r"\bpublic domain\b", text, re.I):
        return "Public Domain"
    return _spelled(text)


def _spelled(text: str) -> str:
    """`Attribution-NonCommercial 3.0`, as Freesound writes; no sentence about attribution."""
    match = WORDS.search(text)
    rest = re.sub(r"[\s_-]", "", match[1].casefold()) if match else ""
    named = "creative commons" in text.casefold() or rest.startswith(tuple(PARTS))
    if not match or not (named or re.fullmatch(r"(\d\.\d)?", rest)):
        return ""
    version = re.search(r"\d\.\d", rest)
    parts = [short for long, short in PARTS.items() if long in rest]
    return _named("-".join(["by", *parts]), version[0] if version else "")


def _named(code: str, version: str | None) -> str:
    code = SEPARATORS.sub("-", code.strip()).upper()
    return f"CC {code} {version}" if version else f"CC {code}"


def _cases(word: str) -> tuple[str, ...]:
    return word, word.upper(), word.capitalize()
