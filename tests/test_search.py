"""From a query to ranked clips."""

import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import soundfile
from conftest import make_recordings, needs

from earshot import audio
from earshot.calibrate import Calibration
from earshot.conditions import parse_condition
from earshot.library import index
from earshot.model import model_manifest
from earshot.search import Searcher, read_queries
from earshot.search.examples import embedded, example_vectors
from earshot.search.sentences import Sentences
from earshot.store import create_store
from earshot.store.held import held
from earshot.types import (
    Answer,
    Condition,
    EarshotError,
    EmbeddedFile,
    Example,
    FileRecord,
    FileState,
    Model,
    Question,
    Segment,
    Store,
)


def with_segments(path: str, vectors: np.ndarray) -> EmbeddedFile:
    state = FileState(path=path, size_bytes=1, mtime_ns=1, ctime_ns=1, sha256=path)
    record = FileRecord(
        state=state, duration_s=10.0 * len(vectors), sample_rate_hz=8000, channels=1
    )
    spans = tuple(Segment(start_s=10.0 * i, end_s=10.0 * i + 10) for i in range(len(vectors)))
    return EmbeddedFile(record=record, segments=spans, vectors=vectors)


def test_a_long_clip_does_not_crowd_out_others(random_model: Model) -> None:
    """A thousand matching segments of one clip, and still k clips come back."""
    store = create_store(":memory:", model_manifest(random_model))
    target = random_model.embed_text(["rain"])[0]
    store.put([with_segments("/long.wav", np.tile(target, (1000, 1)))])
    others = [np.roll(target, shift) for shift in range(1, 5)]
    others.sort(key=lambda other: -float(other @ target))
    store.put([with_segments(f"/short{i}.wav", other[None]) for i, other in enumerate(others)])
    hits = Searcher(random_model, store).search("rain", k=5)
    assert [h.path for h in hits] == ["/long.wav", *(f"/short{i}.wav" for i in range(4))]


def test_bad_input_is_told(random_model: Model) -> None:
    searcher = Searcher(random_model, create_store(":memory:", model_manifest(random_model)))
    with pytest.raises(EarshotError, match="query is empty"):
        searcher.search("  ")
    with pytest.raises(EarshotError, match="at least one hit"):
        searcher.search("rain", k=0)
    assert searcher.search("rain") == []
    assert searcher.search_many([]) == []


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def noisy(model: Model, count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors (count, D) that are like nothing."""
    return unit(np.abs(np.random.default_rng(seed).normal(size=(count, model.dimension))))


def holding(model: Model, texts: list[str], rest: np.ndarray, share: float = 0.7) -> np.ndarray:
    """A vector (D,) in which all of the texts are heard, over some rest."""
    return unit(share * unit(model.embed_text(texts).sum(0)) + (1 - share) * rest)


@pytest.fixture
def scenes(random_model: Model) -> Searcher:
    """Rain, thunder, both, and a hundred clips of nothing."""
    store = create_store(":memory:", model_manifest(random_model))
    rest = noisy(random_model, 103)
    store.put([with_segments(f"/none{i:03d}.wav", rest[i : i + 1]) for i in range(100)])
    made = {"regen": ["rain"], "donner": ["thunder"], "both": ["rain", "thunder"]}
    for i, (name, texts) in enumerate(made.items()):
        vector = holding(random_model, texts, rest[100 + i])
        store.put([with_segments(f"/{name}.wav", vector[None])])
    return Searcher(random_model, store)


def paths(searcher: Searcher, question: Question, k: int = 3) -> list[str]:
    return [hit.path for hit in searcher.ask(question, k).hits]


def test_both_sounds_are_wanted(scenes: Searcher) -> None:
    assert paths(scenes, Question(text="rain and thunder"))[0] == "/both.wav"
    found = scenes.ask(Question(text="rain and thunder")).hits[0]
    assert found.sound == found.score
    assert found.moments[0].start_s == found.start_s == 0


def test_sounds_in_different_seconds_of_a_clip(scenes: Searcher) -> None:
    one, other = scenes.model.embed_text(["rain", "thunder"])
    rest = noisy(scenes.model, 8, seed=5)
    vectors = np.stack(
        [unit(0.9 * one + 0.1 * rest[0]), *rest[1:7], unit(0.9 * other + 0.1 * rest[7])]
    )
    scenes.store.put([with_segments("/storm.wav", vectors)])
    assert paths(scenes, Question(text="rain and thunder"), k=1) == ["/storm.wav"]


@pytest.mark.parametrize(
    "question",
    [Question(text="rain without thunder"), Question(text="rain", without=("thunder",))],
    ids=["in the text", "apart"],
)
def test_what_must_not_be_heard(scenes: Searcher, question: Question) -> None:
    plain = paths(scenes, Question(text="rain"))
    assert plain[:2] == ["/regen.wav", "/both.wav"]
    found = scenes.ask(question, k=103).hits
    ranks = [hit.path for hit in found]
    assert ranks[0] == "/regen.wav"
    scores = {hit.path: hit.score for hit in found}
    before = {hit.path: hit.score for hit in scenes.ask(Question(text="rain"), k=103).hits}
    assert scores["/both.wav"] < before["/both.wav"] - 0.01
    assert scores["/regen.wav"] == pytest.approx(before["/regen.wav"])


def test_an_exclusion_that_hits_most_candidates(random_model: Model) -> None:
    """The few best are those of all, though sixty better candidates lose by it."""
    store = create_store(":memory:", model_manifest(random_model))
    rest = noisy(random_model, 600)
    both = [holding(random_model, ["rain", "thunder"], row, 0.9) for row in rest[:60]]
    store.put([with_segments(f"/both{i:04d}.wav", row[None]) for i, row in enumerate(both)])
    store.put([with_segments(f"/n{i:04d}.wav", row[None]) for i, row in enumerate(rest[60:])])
    alone = holding(random_model, ["rain"], rest[1], 0.6)
    store.put([with_segments("/alone.wav", alone[None])])
    searcher = Searcher(random_model, store)
    plain = searcher.ask(Question(text="rain"), k=601).hits
    everything = searcher.ask(Question(text="rain", without=("thunder",)), k=601).hits
    few = searcher.ask(Question(text="rain", without=("thunder",)), k=5).hits
    assert [hit.path for hit in few] == [hit.path for hit in everything[:5]]
    before, after = ({h.path: h.score for h in hits} for hits in (plain, everything))
    assert all(after[path] < before[path] for path in before if path.startswith("/both"))


@pytest.mark.parametrize("text", ["rain", "rain and thunder", "rain, wind and no dog"])
@pytest.mark.parametrize("k", [1, 7])
def test_the_best_few_are_those_of_all(scenes: Searcher, text: str, k: int) -> None:
    where = (Condition(field="path", operator="!=", value="/both.wav"),)
    for question in (Question(text=text), Question(text=text, where=where)):
        everything = scenes.ask(question, k=200).hits
        assert scenes.ask(question, k=k).hits == everything[:k]
        assert [h.score for h in everything] == sorted((h.score for h in everything), reverse=True)


def test_a_plain_text_scores_its_cosine(scenes: Searcher) -> None:
    (query,) = scenes.model.embed_text(["rain"])
    expected = scenes.store.search(query[None], 20)[0]
    found = scenes.search("rain", k=20)
    assert [hit.path for hit in found] == [hit.path for hit in expected]
    np.testing.assert_allclose([h.score for h in found], [h.score for h in expected], atol=1e-12)
    many = scenes.search_many(["rain", "dog"], k=20)[0]
    assert [hit.path for hit in many] == [hit.path for hit in found]


def test_examples_of_the_index(scenes: Searcher) -> None:
    """Files that need not exist any more: their vectors do."""
    like = Question(like=(Example(path="/regen.wav"),))
    assert paths(scenes, like)[0] == "/both.wav"
    assert "/regen.wav" not in paths(scenes, like, k=200)
    thunder = Question(text="rain", like=(Example(path="/donner.wav"),))
    assert paths(scenes, thunder)[0] == "/both.wav"
    part = Question(like=(Example(path="/regen.wav", start_s=1, end_s=9),))
    assert scenes.ask(part) == scenes.ask(like)


def test_a_part_is_the_mean_of_the_segments_in_it(scenes: Searcher) -> None:
    """However long it is; only what no segment stands for has to be heard, and is not there."""
    vectors = noisy(scenes.model, 30, seed=4)
    scenes.store.put([with_segments("/hours.wav", vectors)])
    for start_s, end_s, first, last in [(20, 290, 2, 29), (4, 26, 0, 3), (3, 9, 0, 1)]:
        part = Example(path="/hours.wav", start_s=start_s, end_s=end_s)
        mean = vectors[first:last].mean(0)
        (found,) = example_vectors([part], scenes.model, scenes.store)
        np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-6)
    between = Example(path="/hours.wav", start_s=8, end_s=12)
    with pytest.raises(EarshotError, match="no such file"):
        example_vectors([between], scenes.model, scenes.store)


def test_an_object_of_the_index_is_an_example(scenes: Searcher) -> None:
    (vector,) = noisy(scenes.model, 1, seed=6)
    uri = "s3://bucket/rain/a.wav"
    scenes.store.put([with_segments(uri, vector[None])])
    hits = scenes.ask(Question(like=(Example(path=uri),)), k=300).hits
    assert hits
    assert uri not in [hit.path for hit in hits]
    assert parse_condition(f"path = {uri}").value == uri


def test_a_link_of_the_index_is_an_example(random_model: Model, tmp_path: Path) -> None:
    """By its own name, which is what the index knows, or by that of its file."""
    store = create_store(":memory:", model_manifest(random_model))
    (tmp_path / "library").mkdir()
    first, second, *_ = make_recordings(tmp_path / "elsewhere", 3)
    link = tmp_path / "library" / "link.wav"
    link.symlink_to(first)
    (tmp_path / "library" / "other.wav").write_bytes(second.read_bytes())
    other_link = tmp_path / "link.wav"
    other_link.symlink_to(tmp_path / "library" / "other.wav")
    index([tmp_path / "library"], store, random_model)
    first.unlink()  # What is known need not be heard again.
    searcher = Searcher(random_model, store)
    assert paths(searcher, Question(like=(Example(path=str(link)),))) == [
        str(tmp_path / "library" / "other.wav")
    ]
    assert paths(searcher, Question(like=(Example(path=str(other_link)),))) == [str(link)]


def test_more_like_these_less_like_those(scenes: Searcher) -> None:
    rest = noisy(scenes.model, 2, seed=9)
    made = {
        "shower": holding(scenes.model, ["rain"], rest[0]),
        "storm": holding(scenes.model, ["rain", "thunder"], rest[1]),
    }
    scenes.store.put([with_segments(f"/{name}.wav", row[None]) for name, row in made.items()])
    likes, dislikes = (Example(path="/regen.wav"),), (Example(path="/both.wav"),)
    found = scenes.ask(Question(text="rain", like=likes, unlike=dislikes), k=200).hits
    assert found[0].path == "/shower.wav"
    gap = {hit.path: hit.score for hit in found}
    liked = {
        hit.path: hit.score for hit in scenes.ask(Question(text="rain", like=likes), k=200).hits
    }
    assert gap["/shower.wav"] - gap["/storm.wav"] > liked["/shower.wav"] - liked["/storm.wav"]
    disliked = scenes.ask(Question(text="rain", unlike=dislikes), k=200).hits
    assert "/both.wav" not in [hit.path for hit in disliked]
    plain = {hit.path: hit.score for hit in scenes.ask(Question(text="rain"), k=200).hits}
    lowered = {hit.path: hit.score - plain[hit.path] for hit in disliked}
    assert lowered["/storm.wav"] < 0


def test_a_recording_from_outside(random_model: Model, tmp_path: Path) -> None:
    """A file that is not in the index is heard; so is a part of one."""
    store = create_store(":memory:", model_manifest(random_model))
    inside, outside = tmp_path / "in", tmp_path / "out"
    first, *others = make_recordings(inside, 6)
    index([inside], store, random_model)
    outside.mkdir()
    copy = outside / "copy.wav"
    copy.write_bytes(first.read_bytes())
    searcher = Searcher(random_model, store)
    assert paths(searcher, Question(like=(Example(path=str(copy)),)), k=1) == [str(first)]
    whole = searcher.ask(Question(like=(Example(path=str(copy)),))).hits
    part = searcher.ask(Question(like=(Example(path=str(copy), end_s=0.03),))).hits
    assert whole[0].sound == pytest.approx(1, abs=1e-5)
    assert part[0].sound == pytest.approx(1, abs=0.1)
    for bad in (
        Example(path=str(copy), start_s=100),
        Example(path=str(copy), end_s=100),
        Example(path=str(copy), start_s=2, end_s=1),
        Example(path=str(first), start_s=100),
        Example(path=str(tmp_path / "absent.wav")),
    ):
        with pytest.raises(EarshotError):
            searcher.ask(Question(like=(bad,)))


def test_a_long_part_is_heard_in_little_memory(random_model: Model, tmp_path: Path) -> None:
    store = create_store(":memory:", model_manifest(random_model))
    random = np.random.default_rng(7)
    soundfile.write(path := tmp_path / "long.wav", random.normal(0, 0.1, 240 * 8000), 8000)
    rate_hz, length_s = random_model.sample_rate_hz, store.manifest.segment_s

    def heard(end_s: float) -> tuple[np.ndarray, int]:
        tracemalloc.start()
        part = Example(path=str(path), start_s=3.0, end_s=end_s)
        vectors = embedded(part, random_model, store)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return vectors, peak_bytes

    few, _ = heard(3.0 + 2.5 * length_s)
    waveform = audio.read(path, sample_rate_hz=rate_hz, start_s=3.0, duration_s=2.5 * length_s)
    length = round(length_s * rate_hz)
    pieces = [waveform[at : at + length] for at in range(0, len(waveform), length)]
    np.testing.assert_allclose(few, random_model.embed_audio(pieces), atol=1e-5)
    many, peak_bytes = heard(238.0)
    assert len(many) == -(-235 // length_s)
    assert peak_bytes < 235 * rate_hz * np.float32().itemsize / 2


def test_copies_are_one_hit(scenes: Searcher) -> None:
    (rain,) = scenes.store.segments(["/regen.wav"]).values()
    state = replace(rain.record.state, path="/again.wav")
    scenes.store.put([replace(rain, record=replace(rain.record, state=state))])
    again = with_segments("/zz.flac", rain.vectors)
    scenes.store.put([again])
    first, second, *_ = scenes.ask(Question(text="rain"), k=3).hits
    assert (first.path, first.copies) == ("/again.wav", ("/regen.wav", "/zz.flac"))
    assert (second.path, second.copies) == ("/both.wav", ())
    (only,) = scenes.ask(Question(text="rain"), k=1).hits
    assert only == first


def calibration(searcher: Searcher, bar: float) -> Calibration:
    return Calibration(
        background=noisy(searcher.model, 300, seed=3),
        slope=1.0,
        intercept=-4.0,
        bar=bar,
        bar_per_doubling=0.0,
        false_alarm_rate=0.1,
    )


def test_probabilities_and_nothing_found(scenes: Searcher) -> None:
    plain = scenes.ask(Question(text="rain"))
    assert plain.found
    assert plain.hits[0].probability is None
    sure = Searcher(scenes.model, scenes.store, calibration(scenes, 4.0))
    assert (sure.ask(Question(text="rain and thunder")).hits[0].probability or 0) > 0.9
    answer = sure.ask(Question(text="rain"), k=50)
    likely = [hit.probability or 0 for hit in answer.hits]
    assert answer.found
    assert likely == sorted(likely, reverse=True)
    assert likely[0] > 0.9
    assert likely[-1] < 0.5
    strict = Searcher(scenes.model, scenes.store, calibration(scenes, 1e3))
    assert not strict.ask(Question(text="rain")).found
    assert len(strict.ask(Question(text="rain"), k=5).hits) == 5
    # What stands out among few may be chance among many.
    rising = replace(calibration(scenes, 4.0), bar_per_doubling=100.0)
    assert not Searcher(scenes.model, scenes.store, rising).ask(Question(text="rain")).found


@pytest.mark.parametrize(
    "question",
    [
        Question(),
        Question(text=" "),
        Question(text="rain", without=("",)),
        Question(without=("rain",)),
        Question(text="no speech"),
        Question(unlike=(Example(path="/regen.wav"),)),
        Question(by="words"),
        Question(text="rain", without=("dog",), by="words"),
        Question(text="rain", like=(Example(path="/regen.wav"),), by="words"),
    ],
    ids=str,
)
def test_questions_without_sense(scenes: Searcher, question: Question) -> None:
    with pytest.raises(EarshotError) as caught:
        scenes.ask(question)
    assert "\n" not in str(caught.value)


QUESTIONS = [
    Question(text="rain"),
    Question(text="rain and thunder, no wind"),
    Question(text="regen", by="words"),
    Question(text="rain", by="sound", where=(Condition(field="path", operator=">", value="/n"),)),
    Question(like=(Example(path="/regen.wav"),)),
    Question(text="donner both none001"),
]


def require_same(answer: Answer, expected: Answer) -> None:
    """The same hits, scores to rounding."""
    assert [hit.path for hit in answer.hits] == [hit.path for hit in expected.hits]
    for one, other in zip(answer.hits, expected.hits, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert (one.words, one.copies) == (other.words, other.copies)


def test_questions_are_answered_together_as_alone(scenes: Searcher) -> None:
    """A senseless question among them is told what is wrong with it, and nobody else."""
    asked = [*QUESTIONS[:3], Question(text=" "), *QUESTIONS[3:], Question(text="rain")]
    together = list(scenes.answer_each(asked, [7] * 7 + [0]))
    bad = [answer for answer in together if isinstance(answer, EarshotError)]
    assert [together.index(error) for error in bad] == [3, 7]
    answers = [answer for answer in together if not isinstance(answer, EarshotError)]
    for question, answer in zip(QUESTIONS, answers, strict=True):
        require_same(answer, Searcher(scenes.model, scenes.store).ask(question, 7))


class Lists:
    """A store that gives lists alone, as one does whose library is too large for memory."""

    def __init__(self, store: Store) -> None:
        self.manifest, self.replaced = store.manifest, False
        self.search, self.search_words = store.search, store.search_words
        self.segments, self.files = store.segments, store.files
        self.paths, self.segment_count = store.paths, store.segment_count
        self.put, self.drop, self.optimize = store.put, store.drop, store.optimize


def in_milvus(store: Store, folder: Path) -> Store:
    pytest.importorskip("milvus_lite", reason="Milvus is tested with milvus-lite")
    copy = create_store(f"milvus:{folder}/index.db", store.manifest)
    copy.put(list(store.segments(store.paths()).values()))
    return copy


# More files have the words of the last question than a list of words holds.
@pytest.mark.parametrize(
    "kind", [lambda store, folder: Lists(store), in_milvus], ids=["lists", "milvus"]
)
@pytest.mark.parametrize("k", [1, 7, 200])
def test_lists_and_memory_give_the_same_hits(
    scenes: Searcher, tmp_path: Path, kind: Callable[[Store, Path], Store], k: int
) -> None:
    listed = Searcher(scenes.model, kind(scenes.store, tmp_path))
    assert held(listed.store) is None
    assert held(scenes.store) is not None
    for question in QUESTIONS:
        require_same(listed.ask(question, k), scenes.ask(question, k))


def test_files_of_equal_words_are_ordered_by_their_sound(random_model: Model) -> None:
    """More of them than a list of words holds, and the best by sound is the last by its name."""
    store = create_store(":memory:", model_manifest(random_model))
    rest = noisy(random_model, 300)
    store.put([named(f"rain take {i}.wav", row[None]) for i, row in enumerate(rest)])
    best = holding(random_model, ["rain"], rest[0], 0.5)
    store.put([named("rain take 999.wav", best[None])])
    (hit,) = Searcher(random_model, store).search("rain", k=1)
    assert hit.path == "/sounds/rain take 999.wav"
    assert [match.found for match in hit.words] == ["rain"]


@pytest.mark.parametrize("text", ["rain", "rain and a dog"])
def test_a_store_is_asked_a_few_times(random_model: Model, text: str) -> None:
    """However many files have the words, and even where none stands out by its sound."""
    store = create_store(":memory:", model_manifest(random_model))
    rest = noisy(random_model, 3000)
    names = ("rain take", "dog take", "rain dog")
    store.put([named(f"{names[i % 3]} {i}.wav", row[None]) for i, row in enumerate(rest)])
    best = holding(random_model, ["rain", "dog"], rest[0], 1.0)
    store.put([named("rain dog 9999.wav", best[None])])
    lists = Lists(store)
    asked: Counter[str] = Counter()

    def counted(name: str, ask: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*given: Any, **more: Any) -> Any:
            asked[name] += 1
            return ask(*given, **more)

        return counting

    for name in ("search", "search_words", "segments"):
        setattr(lists, name, counted(name, getattr(lists, name)))
    searcher = Searcher(random_model, lists)
    searcher.search("wind")  # The library's background is read once.
    asked.clear()
    assert searcher.search(text, 10)[0].path == "/sounds/rain dog 9999.wav"
    assert asked["search"] == 1
    assert asked["segments"] <= 5
    assert asked["search_words"] <= 5


def test_sentences_are_kept(random_model: Model) -> None:
    asked: list[str] = []

    class Listening:
        def embed_text(self, texts: list[str]) -> np.ndarray:
            asked.extend(texts)
            return random_model.embed_text(texts)

    sentences = Sentences(cast("Model", Listening()), kept=2)
    first = sentences(["rain", "wind", "rain"])
    assert asked == ["rain", "wind"]
    again = sentences(["wind", "dog"])
    assert asked == ["rain", "wind", "dog"]
    assert np.array_equal(again["wind"], first["wind"])
    np.testing.assert_allclose(again["dog"], random_model.embed_text(["dog"])[0], atol=1e-6)
    sentences(["rain"])  # The one that was asked for least lately is forgotten.
    assert asked[-1] == "rain"


def test_an_index_of_another_model_is_refused(random_model: Model) -> None:
    manifest = replace(model_manifest(random_model), fingerprint="0" * 64)
    with pytest.raises(EarshotError, match="do not compare"):
        Searcher(random_model, create_store(":memory:", manifest))


def test_queries_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text('\ufeffid,query\n1,rain\n2,"a dog, barking"\n')
    assert read_queries(path) == ["rain", "a dog, barking"]
    path.write_text("text\nrain\n")
    with pytest.raises(EarshotError, match="no column `query`"):
        read_queries(path)
    with pytest.raises(EarshotError, match=r"absent.csv: no such file or directory; give a CSV"):
        read_queries(tmp_path / "absent.csv")


def test_real_recordings_are_found(real_model: Model, tmp_path: Path) -> None:
    """Forty recordings of ten kinds, asked for in plain words."""
    folder = tmp_path / "sounds"
    for kind in sorted(needs("data/esc10").iterdir()):
        for path in sorted(kind.glob("*.ogg"))[:4] if kind.is_dir() else []:
            (folder / kind.name).mkdir(parents=True, exist_ok=True)
            (folder / kind.name / path.name).symlink_to(path)
    store = create_store(":memory:", model_manifest(real_model))
    index([folder], store, real_model)
    searcher = Searcher(real_model, store)
    for query, kind in {
        "a dog barking": "001-dog-bark",
        "rooster crowing at dawn": "009-rooster",
        "someone sneezes": "006-person-sneeze",
        "an infant is crying": "004-baby-cry",
    }.items():
        hits = searcher.search(query, k=3)
        assert Path(hits[0].path).parent.name == kind


def test_a_moment_in_a_long_recording(real_model: Model, tmp_path: Path) -> None:
    """Forty short recordings in a row, with 5-s hops: each sound is found where it is."""
    kinds = {
        "001-dog-bark": "a dog barking",
        "009-rooster": "rooster",
        "006-person-sneeze": "sneeze",
    }
    data, rate_hz = needs("data/esc10"), 32_000
    quiet = sorted((data / "003-sea-waves").glob("*.ogg"))[:24]
    pieces = [audio.read(path, sample_rate_hz=rate_hz) for path in quiet]
    starts_s = {}
    for place, kind in ((5, "001-dog-bark"), (13, "009-rooster"), (20, "006-person-sneeze")):
        first = sorted((data / kind).glob("*.ogg"))[1]
        pieces[place] = audio.read(first, sample_rate_hz=rate_hz)
        starts_s[kind] = sum(map(len, pieces[:place])) / rate_hz
    long = tmp_path / "long.wav"
    soundfile.write(long, np.concatenate(pieces), rate_hz)
    store = create_store(":memory:", model_manifest(real_model))
    index([long], store, real_model)
    searcher = Searcher(real_model, store)
    for kind, query in kinds.items():
        (hit,) = searcher.search(query, k=1)
        middle_s = (hit.start_s + hit.end_s) / 2
        assert abs(middle_s - (starts_s[kind] + 2.5)) <= 5, (kind, starts_s[kind], hit.moments)


def named(path: str, vectors: np.ndarray) -> EmbeddedFile:
    return with_segments(f"/sounds/{path}", vectors)


def test_a_name_that_reads_like_an_exclusion(random_model: Model) -> None:
    store = create_store(":memory:", model_manifest(random_model))
    rest = noisy(random_model, 3)
    names = ("No_Parking_Sign.wav", "parking sign falls.wav", "dog.wav")
    store.put([named(name, row[None]) for name, row in zip(names, rest, strict=True)])
    searcher = Searcher(random_model, store)
    hits = searcher.ask(Question(text="no parking sign")).hits
    assert {hit.path for hit in hits} == {f"/sounds/{name}" for name in names[:2]}
    assert {hit.sound for hit in hits} == {None}
    for question in (
        Question(text="no dog"),
        Question(text="no parking sign", without=("dog",)),
        Question(text="no parking sign", by="sound"),
        Question(
            text="no parking sign",
            where=(Condition(field="path", operator="=", value="/sounds/dog.wav"),),
        ),
    ):
        with pytest.raises(EarshotError, match="only says what must not be heard"):
            searcher.ask(question)


def test_words_of_names_count_beside_sound(random_model: Model) -> None:
    store = create_store(":memory:", model_manifest(random_model))
    rest = noisy(random_model, 40)
    files = [named(f"ZOOM{i:04d}.wav", row[None]) for i, row in enumerate(rest)]
    rain = holding(random_model, ["rain"], rest[0], 0.4)
    store.put([*files, named("rain on tin.wav", rest[3:4] * 1.0), named("take.wav", rain[None])])
    searcher = Searcher(random_model, store)
    by_sound = searcher.ask(Question(text="rain", by="sound"), k=50).hits
    both = {hit.path: hit for hit in searcher.ask(Question(text="rain"), k=50).hits}
    (words,) = searcher.ask(Question(text="rain", by="words"), k=50).hits
    assert by_sound[0].path == "/sounds/take.wav"
    assert words.path == "/sounds/rain on tin.wav"
    assert (words.sound, words.start_s, words.end_s) == (None, 0, 10)
    assert [match.found for match in words.words] == ["rain"]
    for hit in by_sound:
        fused = both[hit.path] if hit.path in both else both[hit.copies[0]]
        if fused.words:
            assert fused.score > hit.score
        else:
            assert fused == hit
    assert any(hit.words for hit in both.values())
    nothing = Question(text="thunder")
    assert searcher.ask(nothing) == searcher.ask(replace(nothing, by="sound"))
