"""Search by words: every kind of store finds the same files, for the same reasons."""

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from rapidfuzz.process import extract
from stored import lance
from test_store import KINDS, broken, embedded, units

from earshot.metadata.fields import MAX_CHARACTERS, MAX_LABEL_CHARACTERS, MAX_TAGS
from earshot.store.terms import common_root, stem, stored_words, words_of
from earshot.store.words import MAX_ASKED, MAX_GUESSED, WordIndex, query_words
from earshot.types import Condition, EarshotError, EmbeddedFile, Notes, Store, WordHit, WordMatch


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return KINDS[request.param](tmp_path / "index")


def file(path: str, **notes: object) -> EmbeddedFile:
    made = embedded(path, units(2, len(path)))
    return replace(made, record=replace(made.record, notes=Notes(**notes), beside="b"))


def fill(store: Store, *files: EmbeddedFile) -> Store:
    """Put files, and let the kind that has an index of words build it."""
    store.put(files)
    store.optimize()
    return store


def found(store: Store, query: str, limit: int = 10, *where: Condition) -> list[str]:
    return [hit.path for hit in store.search_words(query, limit, where)]


def only(hits: Sequence[WordHit]) -> WordHit:
    (hit,) = hits
    return hit


def test_notes_come_back_as_they_were(store: Store) -> None:
    files = [
        file("/a.wav", title="T", description="d ü", tags=("x", "y, z"), category="RAIN-GENERAL"),
        file("/b.wav", creator="C", licence="CC0", date="2020-05"),
        broken("/c.wav"),
    ]
    store.put(files)
    assert store.files() == {each.record.state.path: each.record for each in files}
    segments = store.segments(["/a.wav", "/b.wav"])
    assert [segments[path].record for path in ("/a.wav", "/b.wav")] == [
        each.record for each in files[:2]
    ]
    store.put([file("/a.wav", title="new")])
    assert store.files()["/a.wav"].notes == Notes(title="new")


@pytest.mark.parametrize("letter", ["x", "雨", "🌧"])
def test_notes_of_full_size_come_back_as_they_were(store: Store, letter: str) -> None:
    """As large as the reader of tags lets them be, between two that are not."""
    label = letter * (MAX_LABEL_CHARACTERS - 3)
    notes = dict.fromkeys(("title", "category", "creator", "licence"), label)
    full = file(
        "/full.wav",
        **notes,
        description=letter * MAX_CHARACTERS,
        tags=tuple(f"{label}{number:03}" for number in range(MAX_TAGS)),
    )
    files = [file("/a.wav"), full, file("/b.wav")]
    store.put(files)
    assert store.files() == {each.record.state.path: each.record for each in files}
    assert store.segments(["/full.wav"])["/full.wav"].record == full.record
    tag = Condition(field="tag", operator="=", value=f"{label}099")
    assert {hit.path for hit in store.search(units(1), 9, [tag])[0]} == {"/full.wav"}


def test_notes_that_are_no_text_are_refused(store: Store) -> None:
    with pytest.raises(EarshotError, match="notes are not valid UTF-8"):
        store.put([file("/a.wav", tags=("bad \udcff",))])


@pytest.mark.parametrize(
    ("notes", "field"),
    [
        ({"title": "Steady Rain"}, "title"),
        ({"description": "it was raining on the roof"}, "description"),
        ({"tags": ("wet", "rain")}, "tags"),
        ({"category": "RAIN-GENERAL"}, "category"),
        ({"creator": "Rain Man"}, "creator"),
    ],
)
def test_every_field_is_searched(store: Store, notes: dict, field: str) -> None:
    fill(store, file("/lib/1.wav", **notes), file("/lib/2.wav", title="dog"), broken("/lib/rain"))
    hit = only(store.search_words("rain", 10))
    assert (hit.path, hit.share) == ("/lib/1.wav", 1.0)
    assert hit.score > 0
    assert only(hit.matches).field == field


def test_names_and_folders_are_searched(store: Store) -> None:
    fill(
        store,
        file("/home/ann/lib/weather/HeavyRain_02.wav"),
        file("/home/ann/lib/rain/b.wav"),
        file("/home/ann/lib/x.wav"),
    )
    assert found(store, "rain") == [
        "/home/ann/lib/weather/HeavyRain_02.wav",
        "/home/ann/lib/rain/b.wav",
    ]
    assert store.search_words("rain", 1)[0].matches == (
        WordMatch(asked="rain", found="rain", field="name"),
    )
    assert found(store, "ann") == [], "what all files share tells nothing"


@pytest.mark.parametrize(
    ("query", "asked", "said"),
    [
        ("barking", "barking", "barks"),
        ("Café", "cafe", "cafe"),
        ("thunde", "thunde", "thunder"),
        ("thudner", "thudner", "thunder"),
        ("thundre", "thundre", "thunder"),
        ("refridgerater", "refridgerater", "refrigerator"),
        ("doors", "doors", "door"),
        ("12", "12", "12"),
        ("0012", "12", "12"),
    ],
)
def test_forms_and_typos_are_allowed_for(store: Store, query: str, asked: str, said: str) -> None:
    fill(
        store,
        file("/l/1.wav", title="a dog barks"),
        file("/l/2.wav", title="Le café"),
        file("/l/3.wav", title="thunder"),
        file("/l/4.wav", title="refrigerator"),
        file("/l/DoorSlam.wav"),
        file("/l/ZOOM0012.WAV"),
        file("/l/9.wav"),
    )
    hit = only(store.search_words(query, 10))
    match = only(hit.matches)
    assert (match.asked, match.found) == (asked, said)
    assert (hit.share < 1) == (asked in ("thunde", "thudner", "thundre", "refridgerater"))


def test_short_words_and_numbers_have_no_typos(store: Store) -> None:
    fill(store, file("/l/cat.wav"), file("/l/take 1234.wav", title="x"))
    assert found(store, "cut") == found(store, "1235") == found(store, "1") == []


def test_few_unknown_words_are_compared_with_all_words(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"thunder{letter}{letter}" for letter in "abcdefghijklmnop"]
    fill(store, *(file(f"/l/{word}.wav") for word in words), file("/l/known.wav"))
    compared: list[str] = []

    def counted(word: str, *args: Any, **kwargs: Any) -> Any:
        compared.append(word)
        return extract(word, *args, **kwargs)

    monkeypatch.setattr("rapidfuzz.process.extract", counted)
    misspelt = " ".join(word.replace("thunder", "tunder") for word in words)
    answers = found(store, f"{misspelt} known", limit=50)
    assert sorted(answers) == sorted(
        [*(f"/l/{word}.wav" for word in words[:MAX_GUESSED]), "/l/known.wav"]
    )
    assert len(compared) == MAX_GUESSED


def test_few_unknown_words_are_asked_of_lancedb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"thunder{letter}{letter}" for letter in "abcdefghijklmnop"]
    names = [*words, *(f"filler{i}" for i in range(300))]
    store = lance(tmp_path / "index", exact_rows=-1)
    fill(store, *(file(f"/l/{name}.wav") for name in names))
    store.wait()
    query = pytest.importorskip("lancedb.query")
    made: Callable[..., object] = query.MatchQuery
    fuzzy: list[object] = []

    def counted(word: str, column: str, **options: object) -> object:
        fuzzy.extend(options)
        return made(word, column, **options)

    monkeypatch.setattr(query, "MatchQuery", counted)
    answers = found(store, " ".join(word.replace("thunder", "tunder") for word in words), 50)
    assert len(answers) == len(fuzzy) == MAX_GUESSED


def test_the_right_word_goes_before_typos_and_beginnings(store: Store) -> None:
    fill(store, file("/l/1.wav", title="rainforest"), file("/l/2.wav", title="rain"))
    assert found(store, "rain") == ["/l/2.wav"]
    assert found(store, "rainf") == ["/l/1.wav", "/l/2.wav"]


def test_more_and_rarer_words_are_better(store: Store) -> None:
    many = [file(f"/l/{i}.wav", title="dog in the park") for i in range(10)]
    fill(store, *many, file("/l/a.wav", title="dog howling"), file("/l/b.wav", title="howling"))
    hits = store.search_words("a dog howling", 3)
    assert [hit.path for hit in hits] == ["/l/a.wav", "/l/b.wav", "/l/0.wav"]
    shares = [hit.share for hit in hits]
    assert shares[0] == 1.0
    assert 1 > shares[1] > 0.5 > shares[2] > 0
    assert hits[0].score > hits[1].score > hits[2].score
    assert [len(hit.matches) for hit in hits] == [2, 1, 1]


def test_a_name_counts_more_than_a_long_description(store: Store) -> None:
    text = "birds in the morning, some wind, a car, and far away a dog " * 5
    fill(store, file("/l/1.wav", description=text), file("/l/dog.wav"))
    assert found(store, "dog") == ["/l/dog.wav", "/l/1.wav"]


def test_what_devices_call_files_says_little(store: Store) -> None:
    fill(store, file("/l/Track 03.wav"), file("/l/x.wav", title="race track"), file("/l/y.wav"))
    assert found(store, "track") == ["/l/x.wav", "/l/Track 03.wav"]
    assert found(store, "trac") == ["/l/x.wav"] + ["/l/Track 03.wav"], "by the same stem"
    assert found(store, "track 3")[0] == "/l/Track 03.wav"


def test_equal_scores_are_ordered_by_path(store: Store) -> None:
    names = ["/l/c.wav", "/l/B.wav", "/l/ä.wav", "/l/a.wav"]
    fill(store, *(file(name, title="rain") for name in names))
    assert found(store, "rain", 3) == ["/l/B.wav", "/l/a.wav", "/l/c.wav"]


@pytest.mark.parametrize("query", ["", "  ", "the", "the sound of a", "?!", "xylophone"])
def test_nothing_to_find(store: Store, query: str) -> None:
    assert store.search_words(query, 5) == []
    fill(store, file("/l/a.wav", title="the sound of it all"))
    assert store.search_words(query, 5) == []


def test_what_is_put_and_dropped_is_known_at_once(store: Store) -> None:
    fill(store, file("/l/a.wav", title="rain"))
    store.put([file("/l/b.wav", title="heavy rain")])
    assert sorted(found(store, "rain")) == ["/l/a.wav", "/l/b.wav"]
    store.put([file("/l/a.wav", title="snow")])
    assert found(store, "rain") == ["/l/b.wav"]
    store.drop(["/l/b.wav"])
    assert found(store, "rain") == []


FILTERED = [
    file("/lib/birds/crow.wav", title="rain", tags=("Black Bird", "field"), date="2019-05-31"),
    file("/lib/birds/owl.wav", title="rain", licence="CC BY 4.0", date="2020", creator="Ann"),
    file("/lib/birdsong.wav", title="rain", category="AMBIENCE-FOREST", date="2020-07-01"),
    file("/lib/cars.wav", title="rain", category="VEHICLES", licence="CC0"),
]


@pytest.mark.parametrize(
    ("field", "operator", "value", "expected"),
    [
        ("folder", "=", "/lib/birds", "crow owl"),
        ("folder", "=", "/lib/birds/", "crow owl"),
        ("folder", "!=", "/lib/birds", "birdsong cars"),
        ("folder", "=", "/lib", "crow owl birdsong cars"),
        ("tag", "=", "black bird", "crow"),
        ("tag", "=", "black", ""),
        ("tag", "!=", "field", "owl birdsong cars"),
        ("tag", "=", "it's \n'; --", ""),
        ("licence", "=", "cc0", "cars"),
        ("licence", "!=", "CC0", "crow owl birdsong"),
        ("creator", "=", "ANN", "owl"),
        ("category", "=", "ambience", "birdsong"),
        ("category", "=", "AMBIENCE-FOREST", "birdsong"),
        ("date", "=", "2020", "owl birdsong"),
        ("date", "=", "2020-07", "birdsong"),
        ("date", "!=", "2020", "crow cars"),
        ("date", "<", "2020", "crow"),
        ("date", "<=", "2020", "crow owl birdsong"),
        ("date", ">", "2019-05", "owl birdsong"),
        ("date", ">=", "2019-05", "crow owl birdsong"),
        ("channels", "=", 2, "crow owl birdsong cars"),
        ("duration_s", "<", 2, ""),
    ],
)
def test_filters(store: Store, field: str, operator: str, value: object, expected: str) -> None:
    """Words and sounds are filtered alike, every row of a file in the same way."""
    fill(store, *FILTERED, broken("/lib/birds/broken.wav"))
    where = Condition(field=field, operator=operator, value=value)
    (sounds,) = store.search(units(1), 100, [where])
    assert {Path(hit.path).stem for hit in sounds} == set(expected.split())
    assert len(sounds) == 2 * len(expected.split())
    assert {Path(path).stem for path in found(store, "rain", 10, where)} == set(expected.split())


def test_senseless_questions_are_refused(store: Store) -> None:
    with pytest.raises(EarshotError, match="at least 1"):
        store.search_words("rain", 0)
    with pytest.raises(EarshotError, match="tag has no order"):
        store.search_words("rain", 1, [Condition(field="tag", operator="<", value="x")])


def test_kinds_agree_on_a_larger_library(tmp_path: Path) -> None:
    """The same hits with the same shares and reasons, through memory and through an index."""
    random = np.random.default_rng(0)
    words = ["rain", "dog", "barking", "thunder", "engine", "door", "slam", "bird", "song", "wind"]
    files = []
    for i in range(300):
        name, title = (" ".join(random.choice(words, 2)) for _ in range(2))
        files.append(file(f"/lib/{words[i % 10]}/{name} {i:03d}.wav", title=title * (i % 2)))
    stores = [fill(KINDS[kind](tmp_path / kind), *files) for kind in KINDS]
    for query in ("rain", "dog barks", "thundr", "a door slamming in the wnid", "eng", "17"):
        memory, *others = [each.search_words(query, 40) for each in stores]
        assert memory
        for other in others:
            assert {hit.path: hit.matches for hit in other[:5]}.keys() <= {
                hit.path for hit in memory
            }
            assert other[0].share == pytest.approx(memory[0].share, abs=0.02)
            assert len(other) == len(memory)


# How words are made


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("DoorSlam_02", ["door", "slam", "2"]),
        ("AMBForst_Dawn-Chorus", ["amb", "forst", "dawn", "chorus"]),
        ("WAVRecorder", ["wav", "recorder"]),
        ("dog's bark", ["dog", "bark"]),
        ("Élan VITAL", ["elan", "vital"]),
        ("e\u0301lan", ["elan"]),
        ("2021-05-05", ["2021", "5", "5"]),
        ("000", ["0"]),
        ("the sound of", []),
        ("中文 5", ["中文", "5"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert list(words_of(text)) == words


def test_words_of_long_texts_are_not_kept() -> None:
    """Else whoever asks for text after text fills the memory."""
    random = Random(1)

    def text() -> str:
        return " ".join(f"{random.getrandbits(32):x}" for _ in range(200))

    stem("warm")
    tracemalloc.start()
    try:
        for _ in range(300):
            words_of(text())
            stem(text().replace(" ", ""))
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 300_000


def test_the_first_words_of_a_long_query_count(store: Store) -> None:
    fill(store, file("/l/first.wav"), file("/l/last.wav"))
    unknown = " ".join(f"{'x' * number}y" for number in range(1, 2 * MAX_ASKED))
    assert len(query_words(unknown)) == MAX_ASKED
    assert found(store, f"first {unknown} last") == ["/l/first.wav"]


def test_a_query_of_many_words_takes_the_memory_of_one() -> None:
    records = [file(f"/l/{number}.wav", title="rain").record for number in range(5000)]
    index = WordIndex(records, "/l/")
    of_a_word = 2 * 8 * len(records)
    for query in ("rain", " ".join(map(str, range(300)))):
        index.answering(query)  # What is imported at first counts for nothing.
        tracemalloc.start()
        try:
            index.answering(query)
            _, most_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most_bytes < 5 * of_a_word


def test_a_query_asks_each_stem_once() -> None:
    assert query_words("rain raining in the Rain, dogs") == ["rain", "dogs"]


@pytest.mark.parametrize(
    ("paths", "root"),
    [
        (["/a/b/x.wav", "/a/bc/y.wav"], "/a/"),
        (["/a/b/x.wav"], "/a/b/"),
        (["C:\\s\\x.wav", "C:\\s\\t\\y.wav"], "C:\\s\\"),
        (["x.wav"], ""),
        ([], ""),
    ],
)
def test_the_root_is_what_all_paths_share(paths: list[str], root: str) -> None:
    assert common_root(paths) == root


def test_words_for_an_index_without_stems() -> None:
    record = file("/home/l/ZOOM0012.wav", title="Barking").record
    assert stored_words(record).split() == sorted(
        ["12", "zoom", "^zoo", "home", "^hom", "barking", "bark"]
        + ["^bar", "^bark", "^barki", "^barkin"]
    )


def test_scores_are_those_of_the_formula() -> None:
    """Two files of one word each, worked out by hand."""
    index = WordIndex([file("/l/a.wav", title="rain").record, file("/l/b.wav").record], "/l/")
    (hit,) = index.search("rain", 5)
    frequency, length, mean = 3.0, 3.0, 1.5
    weight = frequency * 2.2 / (frequency + 1.2 * (0.75 + 0.25 * length / mean))
    assert hit.score == pytest.approx(np.log(1 + (2 - 1 + 0.5) / (1 + 0.5)) * weight)
