"""The benchmark's queries are what they claim to be, and its halves share nothing."""

import re
from collections import Counter
from pathlib import Path

import pytest
from retrieval_queries import (
    QUERIES,
    Clip,
    Halves,
    Query,
    QuerySet,
    load_esc10,
    load_queries,
    load_sounds,
    split_by_fold,
    split_by_topic,
    topics,
)

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
SETS = ("esc10", "sounds")
NO_CONTENT = re.compile(
    "an?|the|of|on|in|into|to|and|or|with|by|at|from|for|is|its?|as|up|down|over|out|off|"
    "some(one|thing)?|person|man|woman"
)
ENDINGS = ("ings", "ing", "edly", "ed", "ers", "er", "es", "ly", "s", "y", "e")


def stem(word: str) -> str:
    word = re.sub(r"'s?$", "", word)
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def stems(*texts: str) -> set[str]:
    words = re.findall(r"[a-z0-9']+", " ".join(texts).lower())
    return {stem(word) for word in words if not NO_CONTENT.fullmatch(word)}


def load(name: str) -> QuerySet:
    if not (DATA / name).is_dir():
        pytest.skip(f"the {name} recordings are not here")
    return {"esc10": load_esc10, "sounds": load_sounds}[name](DATA / name)


def split(whole: QuerySet) -> Halves:
    return split_by_fold(whole) if whole.name == "esc10" else split_by_topic(whole)


@pytest.mark.parametrize("name", SETS)
def test_words_and_sentences_look_their_part(name: str) -> None:
    queries = load_queries(QUERIES / f"{name}.csv")
    for query in queries:
        assert query.labels
        if query.kind == "words":
            assert 1 <= len(query.text.split()) <= 3
        if query.kind == "sentence":
            assert len(query.text.split()) >= 3
            assert query.text[0].isupper()
            assert query.text.endswith(".")
    assert len({query.text.lower() for query in queries}) == len(queries)


@pytest.mark.parametrize("name", SETS)
def test_paraphrases_share_no_word_with_their_labels(name: str) -> None:
    for query in load_queries(QUERIES / f"{name}.csv"):
        if query.kind == "paraphrase":
            assert not stems(query.text) & stems(*query.labels), query.text


def test_counts() -> None:
    esc10, sounds = (load_queries(QUERIES / f"{name}.csv") for name in SETS)
    single = Counter((query.labels, query.kind) for query in esc10 if len(query.labels) == 1)
    assert len(single) == 10 * 3
    assert min(single.values()) >= 2
    kinds = Counter(query.kind for query in sounds)
    assert len(sounds) >= 180
    assert max(kinds.values()) <= 1.1 * min(kinds.values())


def test_stems() -> None:
    assert stems("the barking dogs") == stems("a dog barks")
    assert stems("railway") != stems("rain")


@pytest.mark.parametrize("name", SETS)
def test_labels_and_captions_exist(name: str) -> None:
    whole = load(name)
    known = {(clip.label, clip.caption) for clip in whole.clips}
    for query in whole.queries:
        assert set(query.labels) <= {label for label, _ in known}, query.text
        for caption in query.captions:
            assert any((label, caption) in known for label in query.labels), query.text
    relevance = whole.relevance()
    assert relevance.shape == (len(whole.queries), len(whole.clips))
    assert relevance.any(axis=1).all()


def test_sounds_paraphrases_share_no_word_with_their_captions_either() -> None:
    whole = load("sounds")
    for query in whole.queries:
        if query.kind == "paraphrase":
            captions = [clip.caption for clip in whole.clips if query.matches(clip)]
            assert not stems(query.text) & stems(*captions), query.text


@pytest.mark.parametrize("name", SETS)
def test_halves_share_nothing_and_lose_nothing(name: str) -> None:
    whole = load(name)
    halves = split(whole)
    assert split(whole) == halves
    tune, report = halves.tune, halves.report
    for part in ("queries", "clips"):
        assert not set(getattr(tune, part)) & set(getattr(report, part))
        assert set(getattr(tune, part)) | set(getattr(report, part)) == set(getattr(whole, part))
    assert tune.relevance().any(axis=1).all()
    assert report.relevance().any(axis=1).all()


def test_sounds_halves_share_no_label_and_are_balanced() -> None:
    whole = load("sounds")
    halves = split_by_topic(whole)
    tune, report = halves.tune, halves.report
    assert not {clip.label for clip in tune.clips} & {clip.label for clip in report.clips}
    assert whole.relevance().sum() == tune.relevance().sum() + report.relevance().sum(), (
        "a query lost a relevant clip to the other half"
    )
    assert abs(len(tune.clips) - len(report.clips)) <= 0.02 * len(whole.clips)
    for kind in ("words", "sentence", "paraphrase"):
        sizes = [sum(query.kind == kind for query in half.queries) for half in (tune, report)]
        assert abs(sizes[0] - sizes[1]) <= 4
    assert split_by_topic(whole, seed=1) != halves


def test_esc10_halves_share_no_fold_and_know_all_labels() -> None:
    halves = split_by_fold(load("esc10"))
    folds = [{clip.fold for clip in half.clips} for half in (halves.tune, halves.report)]
    assert not folds[0] & folds[1]
    for half in (halves.tune, halves.report):
        assert len({(query.labels, query.kind) for query in half.queries}) >= 30


def test_topics_join_labels_that_share_a_query() -> None:
    def query(text: str, *labels: str) -> Query:
        return Query(text=text, kind="words", labels=labels)

    clips = tuple(Clip(file_name=f"{label}.ogg", label=label) for label in "abcde")
    queries = (query("one", "a", "b"), query("two", "d"), query("three", "c", "b"))
    whole = QuerySet(name="toy", queries=queries, clips=clips)
    assert topics(whole) == (("a", "b", "c"), ("d",), ("e",))


def test_an_unknown_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("query,kind,labels\nrain,word,rain\n")
    with pytest.raises(ValueError, match="'word' of 'rain'"):
        load_queries(path)
