"""Where two models disagree: measures by their properties and by a slow version, moves, pages."""

from pathlib import Path

import pytest
from conftest import make_recordings
from hypothesis import given
from hypothesis import strategies as st

from earshot.disagreement import compare_indexes, disagreement, names_of, write_page
from earshot.library import index, open_or_create
from earshot.metrics.overlap import overlap_at, rank_biased_overlap
from earshot.migrate import MigrationConfig, migrate
from earshot.types import EarshotError, Hit, Model

rankings = st.permutations("abcdefgh").flatmap(
    lambda order: st.integers(0, 8).map(lambda length: list(order[:length]))
)


def slow_rank_biased_overlap(one: list[str], other: list[str], p: float) -> float:
    """Equation 23 of Webber, Moffat and Zobel for lists of equal depth, term by term."""
    depth = min(len(one), len(other))
    agreed = [len({*one[:d]} & {*other[:d]}) / d for d in range(1, depth + 1)]
    sums = sum(share * p**d for d, share in enumerate(agreed, 1))
    return agreed[-1] * p**depth + (1 - p) / p * sums


@given(rankings, rankings, st.floats(0.1, 0.99))
def test_overlap_is_a_measure(one: list[str], other: list[str], p: float) -> None:
    for measure in (
        lambda a, b: rank_biased_overlap(a, b, p),
        lambda a, b: overlap_at(a, b, 5),
    ):
        assert 0 <= measure(one, other) <= 1 + 1e-12
        assert measure(one, other) == pytest.approx(measure(other, one))
        assert measure(one, one) == pytest.approx(1)
        assert measure(["x", "y"], one) == 0
    if one and other:
        slow = slow_rank_biased_overlap(one, other, p)
        assert rank_biased_overlap(one, other, p) == pytest.approx(slow)


def test_the_top_weighs_most() -> None:
    order = list("abcdefghij")
    top, bottom = ["b", "a", *order[2:]], [*order[:-2], "j", "i"]
    assert rank_biased_overlap(order, top) < rank_biased_overlap(order, bottom) < 1
    assert overlap_at(order, top, 10) == overlap_at(order, bottom, 10) == 1
    assert overlap_at(order, list("abxyz"), 5) == 0.4
    with pytest.raises(EarshotError, match="above 0 and below 1"):
        rank_biased_overlap(order, top, 1.0)


def test_what_moved() -> None:
    found = disagreement("q", ["a", "b", "c"], ["c", "b", "d"], 3)
    assert [(move.path, move.rank_a, move.rank_b) for move in found.moves] == [
        ("a", 1, None),
        ("c", 3, 1),
        ("d", None, 3),
    ]
    assert found.overlap == pytest.approx(2 / 3)


def test_copies_are_one_recording() -> None:
    one = Hit(path="b", score=1.0, start_s=0.0, end_s=1.0, copies=("a",))
    other = Hit(path="a", score=1.0, start_s=0.0, end_s=1.0, copies=("b",))
    assert names_of([one]) == names_of([other])


def test_two_indexes(tmp_path: Path, random_model: Model) -> None:
    pytest.importorskip("lancedb", reason="the index on disk needs earshot[index]")
    make_recordings(tmp_path / "sounds", 5)
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    store, model = open_or_create(one, "tags-mn05", "cpu")
    index([tmp_path / "sounds"], store, model)
    same = compare_indexes(one, one, ["rain", "a hum"], k=3)
    assert (same.overlap, same.rank_biased_overlap) == (1, pytest.approx(1))
    assert [query.moves for query in same.queries] == [(), ()]
    migrate(one, random_model, MigrationConfig(to=other, segment_s=0.3))
    differ = compare_indexes(one, other, ["rain", "a <hum>"], k=5)
    agreed = [query.rank_biased_overlap for query in differ.queries]
    assert agreed == sorted(agreed)
    assert differ.overlap == 1, "five recordings, five places"
    write_page(tmp_path / "page.html", differ)
    page = (tmp_path / "page.html").read_text()
    assert "a &lt;hum&gt;" in page
    assert "http" not in page
    with pytest.raises(EarshotError, match="no query"):
        compare_indexes(one, other, [])
