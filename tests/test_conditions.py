"""Filters are read, checked, and mean the same for every column they are held against."""

import time
from pathlib import Path

import pytest

from earshot.conditions import Comparer, check_condition, facets_of, holds, parse_condition
from earshot.types import Condition, EarshotError, Notes


@pytest.mark.parametrize(
    ("text", "field", "operator", "value"),
    [
        ("duration_s < 10", "duration_s", "<", 10.0),
        ("duration_s<10", "duration_s", "<", 10.0),
        ('path != "/it\'s a < b.wav"', "path", "!=", "/it's a < b.wav"),
        ("date >= 2020", "date", ">=", "2020"),
        ("folder = /x/y", "folder", "=", "/x/y"),
        ("tag = light rain", "tag", "=", "light rain"),
        ("licence = CC0", "licence", "=", "CC0"),
        ("category=AMBIENCE-FOREST", "category", "=", "AMBIENCE-FOREST"),
    ],
)
def test_filters_are_read(text: str, field: str, operator: str, value: str | float) -> None:
    assert parse_condition(text) == Condition(field=field, operator=operator, value=value)


def test_a_folder_is_taken_from_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = tmp_path.resolve()
    assert parse_condition("folder = rain/").value == str(here / "rain")
    assert parse_condition("path = rain/../a.wav").value == str(here / "a.wav")
    assert parse_condition("path != 'a.wav'").value == str(here / "a.wav")
    assert parse_condition("path >= a.wav").value == "a.wav", "an order of texts, not a file"
    (here / "linked.wav").symlink_to(here / "elsewhere.wav")
    assert parse_condition("path = linked.wav").value == str(here / "linked.wav")
    (here / "sounds").mkdir()
    (here / "link").symlink_to(here / "sounds")
    assert parse_condition(f"path = {here}/link/a.wav").value == str(here / "sounds" / "a.wav")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("duration < 10", "did you mean 'duration_s'"),
        ("license = CC0", "did you mean 'licence'"),
        ("colour = red", "with a field of path, folder"),
        ("duration_s", "write FIELD OPERATOR VALUE"),
        ("duration_s <", ": 'duration_s < 10'"),
        ("tag = one\ntwo", "write FIELD OPERATOR VALUE"),
        ("duration_s < ten", "compared with a number, not with 'ten'"),
        ("duration_s ~ 3", "write FIELD OPERATOR VALUE"),
        ("", "write FIELD OPERATOR VALUE"),
        ("1=1; drop", "write FIELD OPERATOR VALUE"),
        ("tag > rain", "tag has no order; ask with = or !="),
        ("folder < /x", "folder has no order"),
        ("date > last year", "write a date as 2020, 2020-05 or 2020-05-31"),
    ],
)
def test_filters_that_cannot_be_read(text: str, says: str) -> None:
    with pytest.raises(EarshotError, match=says):
        parse_condition(text)


@pytest.mark.parametrize(
    "text",
    [
        f"tag = {' ' * 990}a{' ' * 990}\na",
        f"tag{' ' * 1990}",
        f"tag = {chr(10) * 1990}",
        f"{' ' * 1000}tag{' ' * 1000}=",
        f"{'a' * 1000}{' ' * 1000}",
    ],
)
def test_no_filter_keeps_its_reader(text: str) -> None:
    """One that is searched in all ways takes 20 s, in which a server answers nobody."""
    started_s = time.thread_time()
    with pytest.raises(EarshotError, match="write FIELD OPERATOR VALUE"):
        parse_condition(text)
    assert time.thread_time() - started_s < 1.0


@pytest.mark.parametrize("field", ["folder", "path"])
@pytest.mark.parametrize("place", ["~", "~root/a", "./~root/a", "'~root/a'", "//h/a", "\\\\h\\a"])
def test_a_filter_from_elsewhere_asks_no_system(field: str, place: str) -> None:
    with pytest.raises(EarshotError, match="leads to a home or another machine"):
        parse_condition(f"{field} = {place}", local=False)
    assert parse_condition(f"{field} = /a/~b", local=False).value == "/a/~b"


FILE = {
    "path": "/sounds/birds/crow.wav",
    "duration_s": 3.0,
    "date": "2020-05-31",
    "facets": facets_of(
        Notes(
            tags=("Rain", "light  wind"),
            licence="CC BY 4.0",
            category="AMBIENCE-FOREST",
            creator="Ann",
        )
    ),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("folder = /sounds/birds", True),
        ("folder = /sounds/birds/", True),
        ("folder = /sounds/bird", False),
        ("folder = /", True),
        ("folder != /sounds/birds", False),
        ("folder != /sounds/bird", True),
        ("tag = rain", True),
        ("tag = RAIN", True),
        ("tag = Light wind", True),
        ("tag = wind", False),
        ("tag = cc by 4.0", False),
        ("tag != wind", True),
        ("licence = cc by 4.0", True),
        ("category = ambience", True),
        ("category = ambience-forest", True),
        ("category = forest", False),
        ("creator != ann", False),
        ("date = 2020", True),
        ("date = 2020-05", True),
        ("date = 2020-06", False),
        ("date != 2020", False),
        ("date > 2020", False),
        ("date >= 2020", True),
        ("date <= 2020-05", True),
        ("date < 2020-06", True),
        ("date < 2020", False),
        ("date > 2019", True),
        ("duration_s <= 3", True),
    ],
)
def test_what_holds(text: str, expected: bool) -> None:
    assert holds(parse_condition(text), Comparer(column=FILE.__getitem__)) is expected


@pytest.mark.parametrize("operator", ["<", "<=", "=", ">=", ">", "!="])
def test_a_file_without_a_date_is_only_ever_unequal(operator: str) -> None:
    asked = Condition(field="date", operator=operator, value="2020")
    assert holds(asked, Comparer(column={"date": ""}.__getitem__)) is (operator == "!=")


def test_a_tag_of_several_lines_forges_no_label() -> None:
    forged = facets_of(Notes(tags=("rain\nlicence=cc0\n",)))
    asked = Condition(field="licence", operator="=", value="CC0")
    assert holds(asked, Comparer(column={"facets": forged}.__getitem__)) is False
    check_condition(asked)


@pytest.mark.parametrize(
    ("text", "value"), [("tag = '80s", "'80s"), ("tag = '80s'", "80s"), ('tag = 12"', '12"')]
)
def test_only_a_pair_of_quotes_is_taken_off(text: str, value: str) -> None:
    assert parse_condition(text).value == value
