"""The tables of words that lead to AudioSet's tags are whole and well formed."""

import csv
from collections import Counter
from pathlib import Path

DATA = Path(__file__).parent.parent / "earshot" / "data"


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


TAGS = rows("audioset_tags.csv")
LEXICON = rows("sound_lexicon.csv")


def test_tags_are_complete_and_in_order() -> None:
    assert [int(row["index"]) for row in TAGS] == list(range(527))
    assert len({row["mid"] for row in TAGS}) == 527
    assert len({row["name"] for row in TAGS}) == 527
    assert TAGS[0]["name"] == "Speech"
    assert TAGS[526]["name"] == "Field recording"


def test_every_tag_has_distinct_wordings() -> None:
    for row in TAGS:
        wordings = row["wordings"].split(" | ")
        assert 3 <= len(wordings) <= 5, row
        assert all(wording and wording == wording.strip() for wording in wordings), row
        assert len({wording.lower() for wording in wordings}) == len(wordings), row


def test_no_tag_name_holds_a_separator() -> None:
    assert not [row["name"] for row in TAGS if set(row["name"]) & set(";=|")]


def parse(tags: str) -> list[tuple[str, float]]:
    pairs = [entry.rsplit("=", 1) for entry in tags.split("; ")]
    return [(name, float(weight)) for name, weight in pairs]


def test_lexicon_names_real_tags_with_weights_in_range() -> None:
    names = {row["name"] for row in TAGS}
    for row in LEXICON:
        pairs = parse(row["tags"])
        assert 2 <= len(pairs) <= 6, row
        assert {name for name, _ in pairs} <= names, row
        assert len({name for name, _ in pairs}) == len(pairs), row
        assert all(0 < weight <= 1 for _, weight in pairs), row


def test_lexicon_phrases_are_short_and_unique() -> None:
    phrases = Counter(row["phrase"].lower() for row in LEXICON)
    assert len(phrases) >= 1500
    assert not [phrase for phrase, count in phrases.items() if count > 1]
    for row in LEXICON:
        assert row["phrase"] == row["phrase"].strip(), row
        assert 1 <= len(row["phrase"].split()) <= 8, row
