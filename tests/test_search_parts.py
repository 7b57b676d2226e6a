"""The steps of a search, each a function of arrays or text."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from earshot.search.copies import are_copies
from earshot.search.examples import covered, read_example
from earshot.search.fusion import WORD_WEIGHT, fuse
from earshot.search.moments import BAR, MOST, moments
from earshot.search.phrases import take_apart
from earshot.search.scoring import (
    HEARD_FROM,
    Parts,
    background_of,
    evidence,
    on_cosine_scale,
    soft_minimum,
)
from earshot.types import EarshotError, EmbeddedFile, Example, FileRecord, FileState, Segment


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("a dog barking", ("a dog barking",)),
        ("rain and distant thunder", ("rain", "distant thunder")),
        ("rain, wind; birds", ("rain", "wind", "birds")),
        ("a car passes while birds sing", ("a car passes", "birds sing")),
        ("footsteps followed by a door slam", ("footsteps", "a door slam")),
        ("first a bell, then applause", ("a bell", "applause")),
        ("an owl with rain in the background", ("an owl", "rain")),
        ("there is a siren and a dog at the same time", ("a siren", "a dog")),
        ("a man washes and dries his hands", ("a man washes and dries his hands",)),
        ("sandstorm, sandstorm", ("sandstorm, sandstorm",)),
        ("withering bandwidth", ("withering bandwidth",)),
    ],
)
def test_phrases_of_a_sentence(text: str, phrases: tuple[str, ...]) -> None:
    asked = take_apart(text)
    assert asked.phrases == phrases
    assert asked.text == text
    assert asked.without == ()


@pytest.mark.parametrize(
    ("text", "rest", "without"),
    [
        ("rain without thunder", "rain", ("thunder",)),
        ("rain but no thunder", "rain", ("thunder",)),
        ("traffic, no speech", "traffic", ("speech",)),
        ("birds without any wind or rain", "birds", ("wind", "rain")),
        ("rain, not a trace of thunder", "rain", ("thunder",)),
        ("a dog in the absence of any rain", "a dog", ("rain",)),
        ("not a sound", "not a sound", ()),
        ("rain without thunder and with birds", "rain and with birds", ("thunder",)),
        ("no speech", "", ("speech",)),
        ("piano nocturne", "piano nocturne", ()),
    ],
)
def test_what_a_sentence_rules_out(text: str, rest: str, without: tuple[str, ...]) -> None:
    asked = take_apart(text)
    assert (asked.text, asked.without) == (rest, without)


def test_a_sentence_is_asked_beside_its_phrases() -> None:
    asked = take_apart("rain and distant thunder")
    assert asked.sounds == ("rain and distant thunder", "rain", "distant thunder")
    assert take_apart("rain").sounds == ("rain",)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture
def library() -> np.ndarray:
    """Unit vectors (200, 32)."""
    return unit(np.random.default_rng(0).normal(size=(200, 32)))


def test_a_plain_query_scores_its_cosine(library: np.ndarray) -> None:
    query = library[:1] + 0.1
    background = background_of(library, query)
    cosines = query @ library.T
    found = evidence(cosines, Parts(wanted=1), background)
    np.testing.assert_allclose(on_cosine_scale(found, background), cosines[0], atol=1e-12)
    assert abs(found.mean()) < 1e-9
    assert found.std() == pytest.approx(1)


def test_an_empty_library_has_a_background() -> None:
    background = background_of(np.empty((0, 8)), np.ones((1, 8)))
    assert background.z(np.array([[0.5]])) == pytest.approx(0.5)


def test_soft_minimum_lies_between_minimum_and_mean() -> None:
    z = np.random.default_rng(1).normal(size=(3, 50)) * 3
    joined = soft_minimum(z)
    assert (joined >= z.min(0)).all()
    assert (joined <= z.mean(0) + 1e-12).all()
    np.testing.assert_array_equal(soft_minimum(z[:1]), z[0])
    np.testing.assert_allclose(soft_minimum(np.repeat(z[:1], 3, 0)), z[0])


def test_better_cosines_never_score_lower(library: np.ndarray) -> None:
    """What the bounds of unseen clips rest on."""
    background = background_of(library, library[:4])
    parts = Parts(wanted=3, exclusion=(1.0,), sentence=True)
    cosines = np.random.default_rng(2).uniform(-1, 1, size=(4, 100))
    before = evidence(cosines, parts, background)
    for row in range(3):
        better = cosines.copy()
        better[row] += 0.1
        assert (evidence(better, parts, background) > before).all()
    absent = cosines.copy()
    absent[3] = -np.inf
    assert (evidence(absent, parts, background) >= before).all()


def test_both_sounds_beat_one_alone(library: np.ndarray) -> None:
    background = background_of(library, library[:2])
    both, one, none = [0.5, 0.5], [0.9, 0.0], [0.0, 0.0]
    found = evidence(np.array([both, one, none]).T, Parts(wanted=2), background)
    assert found[0] > found[1] > found[2]


def test_an_excluded_sound_takes_away_only_where_it_stands_out(library: np.ndarray) -> None:
    background = background_of(library, library[:2])
    bar = background.mean[1] + HEARD_FROM * background.deviation[1]
    cosines = np.array([[0.5, 0.5, 0.5], [bar - 0.2, bar, bar + 0.2]])
    found = evidence(cosines, Parts(wanted=1, exclusion=(1.0,)), background)
    assert found[0] == pytest.approx(found[1])
    assert found[2] < found[1]


def test_words_change_nothing_where_none_match() -> None:
    sound = np.array([0.3, 0.1, 0.2])
    np.testing.assert_array_equal(fuse(sound, np.zeros(3), 0.1), sound)
    fused = fuse(sound, np.array([0.0, 1.0, 0.5]), 0.1)
    np.testing.assert_allclose(fused, [0.3, 0.1 + 0.1 * WORD_WEIGHT, 0.2 + 0.05 * WORD_WEIGHT])


def spans(count: int, length_s: float = 10.0, hop_s: float = 5.0) -> list[Segment]:
    return [Segment(start_s=hop_s * i, end_s=hop_s * i + length_s) for i in range(count)]


def heard_share(segment: Segment, start_s: float, end_s: float) -> float:
    return max(0.0, min(segment.end_s, end_s) - max(segment.start_s, start_s)) / (end_s - start_s)


@pytest.mark.parametrize("start_s", np.linspace(3, 3590, 41).tolist())
def test_three_seconds_in_an_hour_are_located(start_s: float) -> None:
    """Each segment scores by how much of the event it holds, among noise."""
    segments = spans(719)
    noise = np.random.default_rng(round(start_s)).normal(0, 0.02, len(segments))
    heard = [heard_share(segment, start_s, start_s + 3) for segment in segments]
    scores = 0.1 + noise + 0.5 * np.array(heard)
    first = moments(segments, scores, 0.1)[0]
    assert first.end_s - first.start_s <= 10
    assert abs((first.start_s + first.end_s) / 2 - (start_s + 1.5)) <= 5
    assert first.score == scores.max()


def test_neighbouring_segments_are_one_moment() -> None:
    scores = np.array([0.1, 0.1, 0.8, 0.8, 0.8, 0.1, 0.1, 0.7, 0.1])
    first, second = moments(spans(9, hop_s=10), scores, 0.1)
    assert (first.start_s, first.end_s, first.score) == (20, 50, 0.8)
    assert (second.start_s, second.end_s, second.score) == (70, 80, 0.7)


def test_what_goes_on_throughout_is_one_moment() -> None:
    (moment,) = moments(spans(20), np.full(20, 0.6), 0.1)
    assert (moment.start_s, moment.end_s) == (0, 105)


def test_at_most_five_moments_best_first() -> None:
    scores = np.where(np.arange(40) % 4 == 0, 0.8 + np.arange(40) / 1000, 0.0)
    found = moments(spans(40), scores, 0.0)
    assert len(found) == MOST
    assert [moment.score for moment in found] == sorted((m.score for m in found), reverse=True)
    assert found[0].score == scores.max()
    assert min(moment.score for moment in found) >= BAR * scores.max()


def test_a_clip_below_the_background_has_a_moment() -> None:
    found = moments(spans(3), np.array([-0.3, -0.2, -0.4]), 0.1)
    assert found[0].score == -0.2
    assert found[0].start_s < found[0].end_s


def test_an_instant_counts_as_the_segments_around_it() -> None:
    """Against a slow mean over the segments that cover each tenth of a second."""
    random = np.random.default_rng(3)
    segments, scores = spans(12), random.uniform(0, 1, 12)
    first = moments(segments, scores, 0.0)[0]
    middles = np.arange(0.05, 65, 0.1)
    means = [
        np.mean([x for s, x in zip(segments, scores, strict=True) if s.start_s < t < s.end_s])
        for t in middles
    ]
    inside = [
        mean for t, mean in zip(middles, means, strict=True) if first.start_s < t < first.end_s
    ]
    run = [s for s, x in zip(segments, scores, strict=True) if x == first.score]
    assert max(inside) >= max(
        m for t, m in zip(middles, means, strict=True) if run[0].start_s < t < run[0].end_s
    )


def recording(path: str, vectors: np.ndarray, duration_s: float = 10.0) -> EmbeddedFile:
    state = FileState(path=path, size_bytes=1, mtime_ns=1, ctime_ns=1, sha256=path)
    record = FileRecord(state=state, duration_s=duration_s, sample_rate_hz=8000, channels=1)
    segments = tuple(spans(len(vectors)))
    return EmbeddedFile(record=record, segments=segments, vectors=vectors)


def test_copies(library: np.ndarray) -> None:
    one = recording("/a.wav", library[:2])
    assert are_copies(one, recording("/a.flac", unit(library[:2] + 0.001)))
    assert are_copies(one, recording("/b.wav", library[:2], duration_s=10.001))
    assert not are_copies(one, recording("/b.wav", library[:2], duration_s=11))
    assert not are_copies(one, recording("/b.wav", library[[0, 2]]))
    assert not are_copies(one, recording("/b.wav", library[:3]))
    other = recording("/c.wav", library[5:6], duration_s=3)
    same_bytes = replace(other.record.state, sha256="/a.wav")
    assert are_copies(one, replace(other, record=replace(other.record, state=same_bytes)))


@pytest.mark.parametrize(
    ("text", "example"),
    [
        ("dog.wav", Example(path="dog.wav")),
        ("dog.wav@2.5-4", Example(path="dog.wav", start_s=2.5, end_s=4)),
        ("a@b.wav@1:02-1:05.5", Example(path="a@b.wav", start_s=62, end_s=65.5)),
        ("dog.wav@3-", Example(path="dog.wav", start_s=3)),
        ("me@home.wav", Example(path="me@home.wav")),
    ],
)
def test_examples_are_read(text: str, example: Example) -> None:
    assert read_example(text) == example


def test_a_file_that_is_named_like_a_part(tmp_path: Path) -> None:
    path = tmp_path / "take@1-2"
    path.touch()
    assert read_example(str(path)) == Example(path=str(path))
    with pytest.raises(EarshotError, match="cannot read the example"):
        read_example("dog.wav@1.2.3-4")


def test_how_much_of_a_segment_lies_in_a_part() -> None:
    ten = Segment(start_s=0, end_s=10)
    assert covered(ten, ten) == covered(ten, Segment(start_s=0, end_s=300)) == 1
    assert covered(ten, Segment(start_s=5, end_s=300)) == 0.5
    assert covered(ten, Segment(start_s=2, end_s=4)) == pytest.approx(0.2)
    assert covered(ten, Segment(start_s=20, end_s=30)) < 0
