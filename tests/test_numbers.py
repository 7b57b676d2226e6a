"""Numbers that are none, halves of numbers, and data of one or none: told, never passed on."""

import csv
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_losses import LOSSES
from test_metrics import METRICS
from test_search import with_segments
from test_teach import teacher
from test_training import SENTENCES, pairs, recipe, run, still, text_folder
from torch import Tensor

from earshot import audio, metrics
from earshot.batches import Pairs
from earshot.calibrate import Calibration, probability
from earshot.cli import app
from earshot.datasets import load
from earshot.evaluate.calibration import calibrate_model
from earshot.evaluate.scores import embed_captions, embed_clips
from earshot.library import index
from earshot.model import model_manifest
from earshot.search import Searcher
from earshot.search.fusion import fuse
from earshot.search.scoring import Parts, background_of, evidence
from earshot.store import create_store
from earshot.teach import load_teachers, teach
from earshot.teach.correspondences import correspondences, summary
from earshot.train.recipe import DataConfig
from earshot.types import Caption, Clip, Condition, EarshotError, Hit, Model, Question

__all__ = ["text_folder"]
RATE_HZ = 16_000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARSHOT_HOME", str(tmp_path / "home"))


@dataclass
class Directions:
    """A model without weights: a text's direction follows from its letters, a sound's from its sum.

    What it makes of loud sounds, and of one word, is no number.
    """

    name: str = "directions"
    fingerprint: str = "f" * 64
    dimension: int = 8
    sample_rate_hz: int = RATE_HZ
    segment_s: float = 1.0
    hop_s: float = 1.0
    joins_segments: bool = False
    wrong: float = np.nan

    def drawn(self, seed: int) -> np.ndarray:
        values = np.random.default_rng(seed).normal(size=self.dimension)
        return (values / np.linalg.norm(values)).astype(np.float32)

    def embed_text(self, sentences: Sequence[str]) -> np.ndarray:
        vectors = np.stack([self.drawn(zlib.crc32(text.encode())) for text in sentences])
        vectors[[text == "nothing" for text in sentences], 3] = self.wrong
        return vectors

    def embed_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        vectors = np.stack([self.drawn(int(abs(w).sum() * 100)) for w in waveforms])
        vectors[[abs(w).max() > 0.9 for w in waveforms], 2] = self.wrong
        return vectors


def recordings(folder: Path) -> list[Path]:
    """Three sounds of three seconds; in the second second of `b.wav` it is loud."""
    folder.mkdir()
    random = np.random.default_rng(1)
    paths = []
    for name in "abc":
        wave = random.uniform(-0.5, 0.5, 3 * RATE_HZ)
        if name == "b":
            wave[RATE_HZ + 100] = 0.99
        paths.append(folder / f"{name}.wav")
        soundfile.write(paths[-1], wave, RATE_HZ)
    return paths


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_segment_that_is_no_number_breaks_its_file_alone(tmp_path: Path, wrong: float) -> None:
    paths, model = recordings(tmp_path / "sounds"), Directions(wrong=wrong)
    store = create_store(":memory:", model_manifest(model))
    found = index([tmp_path / "sounds"], store, model, workers=1)
    assert list(found.broken) == [str(paths[1])]
    # The first segment that hears it begins half a second before.
    assert "what is no number, at 0.5 s" in found.broken[str(paths[1])]
    stored = store.segments([str(path) for path in paths])
    assert sorted(stored) == [str(paths[0]), str(paths[2])]
    assert all(np.isfinite(file.vectors).all() for file in stored.values())
    clips = [Clip(id=path.name, path=str(path)) for path in paths]
    with pytest.raises(EarshotError, match=r"1 of 3 recordings .*b\.wav.* what is no number"):
        embed_clips(clips, model, workers=1)
    assert len(embed_clips(clips[::2], model, workers=1).ids) == 2


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_text_that_is_no_number_is_a_clear_error(tmp_path: Path, wrong: float) -> None:
    recordings(tmp_path / "sounds")
    model = Directions(wrong=wrong)
    store = create_store(":memory:", model_manifest(model))
    index([tmp_path / "sounds"], store, model, workers=1)
    searcher = Searcher(model, store)
    assert searcher.search("something")
    with pytest.raises(EarshotError, match="not finite"):
        searcher.search("nothing")
    with pytest.raises(EarshotError, match="not finite"):
        searcher.ask(Question(text="something", without=("nothing",)))
    captions = [Caption(id=text, text=text, clip_id="a") for text in ("something", "nothing")]
    with pytest.raises(EarshotError, match="makes of 'nothing' what is no number"):
        embed_captions(captions, model)


def test_a_network_of_no_numbers_puts_nothing_into_an_index(
    text_folder: Path, tmp_path: Path
) -> None:
    paths, model = recordings(tmp_path / "sounds"), teacher(text_folder, 1)
    with torch.no_grad():
        next(iter(model.network.audio_head.parameters())).fill_(float("nan"))
    store = create_store(":memory:", model_manifest(model))
    found = index([tmp_path / "sounds"], store, model, workers=1)
    assert len(found.broken) == len(paths)
    assert not store.segments([str(path) for path in paths])


# Half precision.

LARGEST = 0.01
"""How far a cosine may lie from that of single precision where a tower computes in bfloat16."""


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_towers_in_half_precision_answer_as_in_single(
    text_folder: Path, dtype: torch.dtype
) -> None:
    """Each vector is where it was to the stated tolerance, and what is far apart keeps order."""
    network = still(text_folder)
    batch = pairs(network)
    with torch.no_grad():
        exact = network(batch.waveforms, batch.lengths, batch.tokens)
        with torch.autocast("cpu", dtype=dtype):
            rough = network(batch.waveforms, batch.lengths, batch.tokens)
    for one, other in zip(exact, rough, strict=True):
        cosines = torch.nn.functional.cosine_similarity(one, other.float())
        assert float(cosines.min()) > 1 - LARGEST
        assert not torch.equal(one, other.float())
    scores = [np.asarray(text.float() @ heard.float().T) for heard, text in (exact, rough)]
    assert np.abs(scores[0] - scores[1]).max() <= LARGEST
    first, second = scores
    ahead = first[:, :, None] - first[:, None, :] > 2 * LARGEST
    assert (second[:, :, None] > second[:, None, :])[ahead].all()


def test_an_index_of_half_precision_vectors_answers_as_of_single() -> None:
    model = Directions()
    rows = np.stack([model.drawn(seed) for seed in range(60)])
    found: list[dict[str, Hit]] = []
    for vectors in (rows, rows.astype(np.float16).astype(np.float32)):
        store = create_store(":memory:", model_manifest(model))
        store.put([with_segments(f"/{i:02}.wav", row[None]) for i, row in enumerate(vectors)])
        found.append({hit.path: hit for hit in Searcher(model, store).search("rain", k=60)})
    assert found[0].keys() == found[1].keys()
    for path, hit in found[0].items():
        assert found[1][path].score == pytest.approx(hit.score, abs=1e-3)


# Data of one or none.


def table(folder: Path, rows: Sequence[tuple[str, str]]) -> Path:
    """A dataset of noises; recordings with the same first letter are the same noise."""
    folder.mkdir()
    for name, _ in rows:
        wave = np.random.default_rng(ord(name[0])).uniform(-0.4, 0.4, RATE_HZ)
        soundfile.write(folder / name, wave, RATE_HZ)
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "caption"), *rows])
    with (folder / "queries.txt").open("w", newline="") as file:
        csv.writer(file).writerows([("caption",), *((caption,) for _, caption in rows)])
    return folder


DATA = {
    "one": [("a.wav", "a dog in the rain")],
    "all equal": [(f"a{i}.wav", f"{text}") for i, text in enumerate(SENTENCES)],
    "one caption": [(f"{name}.wav", "a dog in the rain") for name in "abcdef"],
}


def asked(*arguments: object) -> None:
    """Run a command here, where a warning would be an error."""
    app([str(argument) for argument in arguments], standalone_mode=False)


@pytest.mark.parametrize("case", DATA)
def test_little_data_is_judged(
    random_model: Model, tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, rows = table(tmp_path / "data", DATA[case]), DATA[case]
    out = tmp_path / "x.output.csv"
    asked("evaluate", "tags-mn05", "--data", folder, "--json", "--bounds")
    figures = json.loads(capsys.readouterr().out)
    assert figures["clips"] == len(rows)
    ask = ("--audio", folder, "--queries", folder / "queries.txt", "--out", out)
    asked("predict", "tags-mn05", *ask, "--json")
    capsys.readouterr()
    if case != "one caption":  # There a query's own clip is not told by its text.
        asked("score", out, "--truth", folder / "captions.csv", "--json")
        scored = json.loads(capsys.readouterr().out)
        for name, figure in scored["metrics"].items():
            assert figure["estimate"] == pytest.approx(figures["metrics"][name]["estimate"])
    if case == "one":
        assert figures["metrics"].pop("P@10")["estimate"] == 0.1
        assert {figure["estimate"] for figure in figures["metrics"].values()} == {1.0}


def test_equal_scores_are_ordered_by_id_and_bounded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names, captions = ["a.wav", "b.wav", "c.wav"], ["first", "second", "third"]
    rows = [["file_name", "caption_1"], *([n, c] for n, c in zip(names, captions, strict=True))]
    matrix = [["index", *names], *([caption, *[0.5] * 3] for caption in captions)]
    for file, content in (("truth.csv", rows), ("x.csv", matrix)):
        with (tmp_path / file).open("w", newline="") as opened:
            csv.writer(opened).writerows(content)
    asked("score", tmp_path / "x.csv", "--truth", tmp_path / "truth.csv", "--json", "--bounds")
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"]["mAP@10"]["estimate"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert found["bounds"]["mAP@10"] == pytest.approx([1 / 3, 1])


@pytest.mark.parametrize("content", ["", "file_name,caption\n"])
def test_no_data_is_a_clear_line(
    random_model: Model, text_folder: Path, tmp_path: Path, content: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "captions.csv").write_text(content)
    here = ("--data", folder)
    for command in (
        ("evaluate", "tags-mn05", *here),
        ("predict", "tags-mn05", "--audio", folder, "--queries", folder / "captions.csv",
         "--out", tmp_path / "x.csv"),
        ("score", folder / "captions.csv", "--truth", folder / "captions.csv"),
        ("calibrate", "tags-mn05", *here),
        ("teach", "tags-mn05", *here, "--train", "folder:all", "--out", tmp_path / "t"),
    ):  # fmt: skip
        with pytest.raises(EarshotError) as raised:
            asked(*command)
        assert "\n" not in str(raised.value)
    one = DataConfig(train=("folder:all",), validate="folder:all")
    with pytest.raises(EarshotError, match=r"captions\.csv"):
        run(recipe(text_folder, data=one), folder, tmp_path / "run")


@pytest.mark.parametrize("case", DATA)
def test_little_data_teaches_and_trains(text_folder: Path, tmp_path: Path, case: str) -> None:
    folder = table(tmp_path / "data", DATA[case])
    given = Pairs([load("folder", folder)], sample_rate_hz=RATE_HZ)
    teach([teacher(text_folder, 1)], given, tmp_path / "t", workers=1)
    judge = load_teachers(tmp_path / "t").for_pairs(given)
    found = list(correspondences(judge, given, top=5))
    told = summary(found, len(given))
    assert told["captions"] == len(DATA[case])
    if case == "one":
        assert told["correspondences"] == 0
    else:
        assert told["correspondences"] > 0  # As near to other clips as to its own.
    small = DataConfig(train=("folder:all",), validate="folder:all")
    asked_for = replace(recipe(text_folder, data=small), epochs=1)
    with pytest.raises(EarshotError, match=f"has {len(DATA[case])} pairs, fewer than a batch of 8"):
        run(asked_for, folder, tmp_path / "large")
    batches = replace(asked_for.batches, pairs=len(DATA[case]))
    history = run(replace(asked_for, batches=batches), folder, tmp_path / "run")
    assert len(history) == 1
    assert all(np.isfinite(value) for value in history[0].values() if isinstance(value, float))


@pytest.mark.parametrize("case", DATA)
def test_little_data_is_too_little_to_calibrate(
    text_folder: Path, tmp_path: Path, case: str
) -> None:
    model = teacher(text_folder, 1)
    model.name = str(tmp_path / "model")
    with pytest.raises(EarshotError, match="are too few") as raised:
        calibrate_model(model, load("folder", table(tmp_path / "data", DATA[case])), workers=1)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "model").exists()


def test_a_teacher_of_no_numbers_is_refused(text_folder: Path, tmp_path: Path) -> None:
    given = Pairs([load("folder", table(tmp_path / "data", DATA["one"]))], sample_rate_hz=RATE_HZ)
    teach([teacher(text_folder, 1)], given, tmp_path / "t", workers=1)
    path = tmp_path / "t" / "0" / "audio.npy"
    for wrong in (np.nan, np.inf, 0.0):
        vectors = np.load(path)
        np.save(path, np.full_like(vectors, wrong))
        judge = load_teachers(tmp_path / "t").for_pairs(given)
        with pytest.raises(EarshotError, match="zero or no numbers"):
            list(correspondences(judge, given))


# Properties: few examples each by default, many for the marker `reliability`.


def similarity(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Clips (M, N) and captions (N, N) whose dot products are given scores (M, N)."""
    return scores, torch.eye(scores.shape[1], dtype=scores.dtype)


@st.composite
def score_matrices(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Scores (P, P) of double precision, and the clips' ids, some of them equal."""
    ids = draw(st.lists(st.integers(0, 4), min_size=1, max_size=6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    scores = torch.rand(len(ids), len(ids), generator=generator, dtype=torch.float64)
    return 2 * scores - 1, torch.tensor(ids)


def shifts_do_not_matter(case: tuple[Tensor, Tensor], shift: float) -> None:
    """Only differences count, but to the sigmoid, which judges each cell by itself."""
    scores, ids = case
    for name, loss in LOSSES.items():
        if name != "sigmoid":
            there, moved = loss(*_sides(scores, ids)), loss(*_sides(scores + shift, ids))
            assert torch.isclose(there, moved, rtol=1e-6, atol=1e-9), name


def _sides(scores: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    clips, captions = similarity(scores)
    return clips, ids, captions, ids


def gradients_are_differences(case: tuple[Tensor, Tensor]) -> None:
    """Of every smooth loss, against differences of double precision."""
    scores, ids = case
    for name, loss in LOSSES.items():
        if name == "semi-hard":
            continue  # It has corners; its slope is checked where it is published.
        step, rows = 1e-6, scores.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(*_sides(rows, ids)), rows, allow_unused=True)
        gradient = torch.zeros_like(scores) if gradient is None else gradient
        for place in np.ndindex(*scores.shape):
            ends = []
            for sign in (1, -1):
                moved = scores.clone()
                moved[place] += sign * step
                ends.append(float(loss(*_sides(moved, ids))))
            slope = (ends[0] - ends[1]) / (2 * step)
            assert slope == pytest.approx(float(gradient[place]), rel=1e-4, abs=1e-6), name


def gradients_follow_the_order(case: tuple[Tensor, Tensor], seed: int) -> None:
    """Pairs in another order have their gradients in that order."""
    scores, ids = case
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))
    for name, loss in LOSSES.items():
        found = []
        for rows, own in ((scores, ids), (scores[order][:, order], ids[order])):
            leaf = rows.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(*_sides(leaf, own)), leaf, allow_unused=True)
            found.append(torch.zeros_like(rows) if gradient is None else gradient)
        assert torch.allclose(found[0][order][:, order], found[1], atol=1e-8), name


@st.composite
def judged(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores (Q, N) with ties, and relevance (Q, N) with at least one in each row."""
    queries, items = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = random.integers(0, draw(st.sampled_from([1, 3, 50])), (queries, items)) / 4
    relevance = random.random((queries, items)) < draw(st.floats(0, 1))
    relevance[np.arange(queries), random.integers(0, items, queries)] = True
    return scores, relevance


def ties_lie_between_their_bounds(case: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    """Whatever the order of equal scores, a metric lies between the best and the worst of them."""
    scores, relevance = case
    mixed = np.random.default_rng(seed).permutation(scores.shape[1])
    for name, metric in METRICS.items():
        worst = metric(scores - 0.01 * relevance, relevance)
        best = metric(scores + 0.01 * relevance, relevance)
        found = metric(scores[:, mixed], relevance[:, mixed])
        assert (worst - 1e-12 <= found).all(), name
        assert (found <= best + 1e-12).all(), name


def a_better_place_is_never_worse(case: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    """A relevant item that rises lowers no metric; an irrelevant one behind all changes none."""
    scores, relevance = case
    random = np.random.default_rng(seed)
    row = int(random.integers(len(scores)))
    item = int(random.choice(np.flatnonzero(relevance[row])))
    risen = scores.copy()
    risen[row, item] += random.integers(1, 9) / 4
    longer = np.column_stack([scores, np.full(len(scores), scores.min() - 1)])
    also = np.column_stack([relevance, np.zeros(len(scores), dtype=bool)])
    for name, metric in METRICS.items():
        assert (metric(risen, relevance) >= metric(scores, relevance) - 1e-12).all(), name
        np.testing.assert_allclose(metric(longer, also), metric(scores, relevance), atol=1e-12)


def lists_of_more_begin_with_lists_of_fewer(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, _ = case
    for k in range(1, scores.shape[1]):
        fewer, more = metrics.top_items(scores, k), metrics.top_items(scores, k + 1)
        for one, other in zip(fewer, more, strict=True):
            assert list(other[: len(one)]) == list(one)


def segments_cover_a_file(rate_hz: int, frames: int, segment_s: float, share: float) -> None:
    """Of any rate and duration: whole, in order, no gap, no overlap but the hop's and the last."""
    hop_s = segment_s * share
    with TemporaryDirectory() as folder:
        path = f"{folder}/x.wav"
        soundfile.write(path, np.full(frames, 0.1), rate_hz)
        cut = audio.segments(path, sample_rate_hz=rate_hz, segment_s=segment_s, hop_s=hop_s)
        found = [segment for segment, _ in cut]
    duration_s, step_s = frames / rate_hz, 1 / rate_hz
    assert found[0].start_s == 0
    assert found[-1].end_s == pytest.approx(duration_s, abs=step_s)
    for one, other in zip(found, found[1:], strict=False):
        assert one.start_s < other.start_s <= one.end_s + step_s
        assert one.end_s - one.start_s == pytest.approx(segment_s, abs=step_s)
    for one, other in zip(found, found[1:-1], strict=False):
        assert other.start_s - one.start_s == pytest.approx(hop_s, abs=step_s)
    if duration_s > segment_s + 0.01:
        assert found[-1].end_s - found[-1].start_s == pytest.approx(segment_s, abs=0.006)


def searcher_of(count: int, seed: int, more: Sequence[np.ndarray] = ()) -> Searcher:
    """An index of drawn clips of one or two segments, then some of one."""
    model, random = Directions(), np.random.default_rng(seed)
    rows = random.normal(size=(count, 2, model.dimension))
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    store = create_store(":memory:", model_manifest(model))
    files = [
        with_segments(f"/{i:03}.wav", row[: 1 + i % 2].astype(np.float32))
        for i, row in enumerate(rows)
    ]
    files += [with_segments(f"/more{i}.wav", row[None]) for i, row in enumerate(more)]
    store.put(files)
    return Searcher(model, store)


QUESTIONS = (
    Question(text="rain"),
    Question(text="rain and thunder"),
    Question(text="rain", without=("thunder",)),
)


def fewer_hits_are_the_first_of_more(count: int, seed: int) -> None:
    searcher = searcher_of(count, seed)
    for question in QUESTIONS:
        every = searcher.ask(question, count + 3).hits
        assert len({hit.path for hit in every}) == len(every) == count
        for k in range(1, count + 1):
            assert searcher.ask(question, k).hits == every[:k]


def filters_commute(count: int, seed: int, low: float, name: int) -> None:
    searcher = searcher_of(count, seed)
    long = Condition(field="duration_s", operator=">", value=low)
    other = Condition(field="path", operator="!=", value=f"/{name:03}.wav")
    for question in QUESTIONS:
        every = searcher.ask(question, count).hits
        one, two = (
            searcher.ask(replace(question, where=where), count).hits
            for where in ((long, other), (other, long))
        )
        assert one == two
        durations = {path: r.duration_s for path, r in searcher.store.files().items()}
        expected = [h for h in every if durations[h.path] > low and h.path != f"/{name:03}.wav"]
        assert [hit.path for hit in one] == [hit.path for hit in expected]


def an_irrelevant_file_changes_no_order(count: int, seed: int) -> None:
    """Of a plain query, whose scores are cosines."""
    query = Directions().embed_text(["rain"])[0]
    aside = np.random.default_rng(seed + 1).normal(size=(2, len(query)))
    aside -= (aside @ query)[:, None] * query
    aside = (aside / np.linalg.norm(aside, axis=1, keepdims=True)).astype(np.float32)
    before = searcher_of(count, seed).search("rain", count)
    after = searcher_of(count, seed, aside).search("rain", count + 2)
    kept = [hit for hit in after if not hit.path.startswith("/more")]
    assert [hit.path for hit in kept] == [hit.path for hit in before]
    np.testing.assert_allclose([h.score for h in kept], [h.score for h in before], atol=1e-6)


def an_exclusion_lifts_nothing(count: int, seed: int) -> None:
    searcher = searcher_of(count, seed)
    plain = {hit.path: hit.score for hit in searcher.ask(Question(text="rain"), count).hits}
    without = searcher.ask(Question(text="rain", without=("thunder", "wind")), count).hits
    assert {hit.path for hit in without} == set(plain)
    assert all(hit.score <= plain[hit.path] + 1e-9 for hit in without)


def evidence_is_monotone(wanted: int, excluded: int, seed: int) -> None:
    """More of what is wanted never counts less, more of what is excluded never more."""
    random = np.random.default_rng(seed)
    queries = random.normal(size=(wanted + excluded, 8))
    background = background_of(random.normal(size=(30, 8)), queries)
    parts = Parts(wanted=wanted, exclusion=(1.0,) * excluded, sentence=wanted > 2)
    cosines = random.uniform(-1, 1, (wanted + excluded, 5))
    before = evidence(cosines, parts, background)
    for row in range(len(cosines)):
        more = cosines.copy()
        more[row] += random.uniform(0, 1, 5)
        after = evidence(more, parts, background)
        rises = row < wanted
        assert (after >= before - 1e-9).all() if rises else (after <= before + 1e-9).all()
    words = random.uniform(0, 1, 5)
    assert (fuse(before, words, 0.1) >= before).all()
    order = random.permutation(5)
    np.testing.assert_array_equal(
        fuse(before[order], words[order], 0.1), fuse(before, words, 0.1)[order]
    )


def probabilities_are_probabilities(seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    background = random.normal(size=(20, 8)).astype(np.float32)
    calibration = Calibration(
        background=background,
        fingerprint="f",
        slope=abs(scale) + 0.1,
        intercept=-scale,
        bar=2.0,
        bar_per_doubling=0.1,
        false_alarm_rate=0.2,
    )
    scores = np.sort(random.uniform(-1e3, 1e3, 30))
    found = probability(calibration, random.normal(size=8), scores)
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found) >= 0).all()


Check = Callable[..., None]
seeds, few_clips = st.integers(0, 10_000), st.integers(1, 14)
PROPERTIES: dict[str, tuple[Check, dict[str, Any]]] = {
    check.__name__: (check, given_)
    for check, given_ in (
        (shifts_do_not_matter, {"case": score_matrices(), "shift": st.floats(-3, 3)}),
        (gradients_are_differences, {"case": score_matrices()}),
        (gradients_follow_the_order, {"case": score_matrices(), "seed": seeds}),
        (ties_lie_between_their_bounds, {"case": judged(), "seed": seeds}),
        (a_better_place_is_never_worse, {"case": judged(), "seed": seeds}),
        (lists_of_more_begin_with_lists_of_fewer, {"case": judged()}),
        (
            segments_cover_a_file,
            {
                "rate_hz": st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000]),
                "frames": st.integers(1, 60_000),
                "segment_s": st.floats(0.05, 2.0),
                "share": st.floats(0.1, 1.0),
            },
        ),
        (fewer_hits_are_the_first_of_more, {"count": few_clips, "seed": seeds}),
        (
            filters_commute,
            {
                "count": few_clips,
                "seed": seeds,
                "low": st.floats(0, 25),
                "name": st.integers(0, 14),
            },
        ),
        (an_irrelevant_file_changes_no_order, {"count": few_clips, "seed": seeds}),
        (an_exclusion_lifts_nothing, {"count": few_clips, "seed": seeds}),
        (
            evidence_is_monotone,
            {"wanted": st.integers(1, 4), "excluded": st.integers(0, 3), "seed": seeds},
        ),
        (probabilities_are_probabilities, {"seed": seeds, "scale": st.floats(-5, 5)}),
    )
}


def examples(name: str, count: int) -> None:
    """Ask a property of so many examples, the same ones each time."""
    check, arguments = PROPERTIES[name]
    bounded = settings(max_examples=count, deadline=None, derandomize=True, database=None)
    bounded(given(**arguments)(check))()


@pytest.mark.parametrize("name", PROPERTIES)
def test_property(name: str) -> None:
    examples(name, 15)


@pytest.mark.reliability
@pytest.mark.parametrize("name", PROPERTIES)
def test_property_at_length(name: str) -> None:
    examples(name, 200)
