"""The tables of words that lead to AudioSet's tags are whole and well formed."""

import csv
from pathlib import Path

DATA = Path(__file__).parent.parent / "earshot" / "data"


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


TAGS = rows("audioset_tags.csv")


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
