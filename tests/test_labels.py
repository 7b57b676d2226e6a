"""Labels learnt beside the tags: what they add, what they leave alone, and the shipped heads."""

import csv
import json
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import needs

from earshot.encoders.labels import (
    LabelHead,
    LabelMatching,
    asked_labels,
    load_head,
    query_vectors,
    save_head,
    sound_vectors,
)
from earshot.encoders.tags import TAGS, audio_vectors, packaged_table, text_vectors, unit
from earshot.model import load
from earshot.model.labelled import NAMES
from earshot.types import EarshotError

DATA = Path(__file__).parent.parent / "earshot" / "data"
D, E, LABELS = 6, 384, 3


@pytest.fixture
def head() -> LabelHead:
    """Three labels with a text each, random weights."""
    rng = np.random.default_rng(0)
    return LabelHead(
        embedding_mean=rng.normal(size=D),
        embedding_scale=np.ones(D),
        tag_mean=np.full(TAGS, 0.01),
        label_weights=rng.normal(size=(D + TAGS, LABELS)),
        label_bias=np.zeros(LABELS),
        sentence_weights=rng.normal(size=(D + TAGS, E)),
        sentence_mean=np.zeros(E),
        texts=unit(rng.normal(size=(LABELS, E))),
        label_of_text=np.arange(LABELS),
    )


def heard(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(count, D)), rng.normal(-5.0, 2.0, size=(count, TAGS))


def test_a_score_is_the_sum_of_three(head: LabelHead) -> None:
    matching = LabelMatching()
    tags = text_vectors(head.texts, packaged_table())
    asked = query_vectors(head, matching, head.texts, (tags, tags))
    embeddings, logits = heard(5)
    sounds = sound_vectors(head, matching, embeddings, logits)
    assert sounds.shape == (5, head.dimension)
    assert np.linalg.norm(asked, axis=1) == pytest.approx(np.ones(LABELS), abs=1e-6)
    assert np.linalg.norm(sounds, axis=1) == pytest.approx(np.ones(5), abs=1e-6)
    by_tags = (asked[:, :TAGS] @ sounds[:, :TAGS].T) / (tags @ audio_vectors(logits).T)
    assert by_tags == pytest.approx(np.broadcast_to(by_tags[:, :1], by_tags.shape), rel=1e-4)


def test_a_text_that_was_taught_asks_for_its_label(head: LabelHead) -> None:
    tags = text_vectors(head.texts, packaged_table())
    labels, gate = asked_labels(head, LabelMatching(), head.texts @ head.texts.T, tags @ tags.T)
    assert labels.argmax(1).tolist() == [0, 1, 2]
    assert gate[:, 0] == pytest.approx(np.ones(LABELS))


def test_what_nobody_taught_is_ranked_as_by_tags(head: LabelHead) -> None:
    """Far from every text the gate is shut, and the order of sounds that of the tags."""
    strange = unit(np.random.default_rng(5).normal(size=(4, E)))
    matching = replace(LabelMatching(), tag_likeness=0.0)
    table = packaged_table()
    tags, of_texts = (text_vectors(vectors, table) for vectors in (strange, head.texts))
    embeddings, logits = heard(9)
    asked = query_vectors(head, matching, strange, (tags, of_texts))
    assert not asked[:, TAGS:].any()
    order = (asked @ sound_vectors(head, matching, embeddings, logits).T).argsort(1)
    assert (order == (tags @ audio_vectors(logits).T).argsort(1)).all()


def test_a_head_is_read_as_it_was_written(head: LabelHead, tmp_path: Path) -> None:
    save_head(head, tmp_path / "head.safetensors")
    read = load_head(tmp_path / "head.safetensors")
    for field in fields(LabelHead):
        assert getattr(read, field.name) == pytest.approx(getattr(head, field.name), abs=5e-3)
    with pytest.raises(EarshotError, match="does not exist"):
        load_head(tmp_path / "none")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shipped_was_free_and_is_small(name: str) -> None:
    with (DATA / "recordings.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert json.loads((DATA / name / "recipe.json").read_text())["recordings"] == len(rows) > 1000
    assert all(re.fullmatch(r"CC0( 1\.0)?|CC[ -]BY( [234]\.0)?", row["licence"]) for row in rows)
    assert all(row["source"].startswith("http") for row in rows)
    assert sum(path.stat().st_size for path in (DATA / name).iterdir()) < 5 << 20


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_models_find_a_dog(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARSHOT_ASSETS", str(needs("models")))
    from earshot import audio

    model = load(name, "cpu")
    folder = needs("data/esc10")
    # All of the fold that neither was trained on.
    paths = [*sorted(folder.glob("001*/5-*.ogg")), *sorted(folder.glob("002*/5-*.ogg"))]
    waveforms = [
        next(audio.segments(p, sample_rate_hz=32_000, segment_s=5.0, hop_s=5.0))[1] for p in paths
    ]
    vectors = model.embed_audio(waveforms)
    assert model.embed_audio(waveforms[3:4])[0] == pytest.approx(vectors[3], abs=1e-5)
    scores = model.embed_text(["a dog barking", "heavy rain"]) @ vectors.T
    dogs, rain = scores[:, :8].mean(1), scores[:, 8:].mean(1)
    assert dogs[0] > rain[0]
    assert rain[1] > dogs[1]
    assert model.fingerprint == load(name, "cpu").fingerprint
    assert model.embed_audio([]).shape == (0, model.dimension)
