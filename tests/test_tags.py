"""Matching by tags: units and limits, the published formula, and the table of phrases."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from conftest import Golden

from earshot.checkpoints import sentence_folder
from earshot.encoders import tags
from earshot.encoders.sentence import sentence_encoder
from earshot.encoders.tags import TagMatching

RNG = np.random.default_rng(0)
ALL_AXES = np.ones(tags.TAGS) / np.sqrt(tags.TAGS)


def sentence_like(count: int, dimension: int = 24) -> np.ndarray:
    return tags.unit(RNG.standard_normal((count, dimension)))


def small_table(matching: TagMatching | None = None) -> tuple[np.ndarray, tags.PhraseTable]:
    """Twenty phrases for ten tags, two each."""
    vectors = sentence_like(20)
    return vectors, tags.fit_phrases(vectors, np.repeat(np.eye(10), 2, axis=0), matching)


def test_plain_formula_is_the_published_one() -> None:
    golden = Golden("pipelines/irit_passt_tags")
    vectors = tags.average_tag_names(golden.arrays["logits"], golden.arrays["tag_embeddings"])
    golden.check(vectors, "tag_branch")


def test_audio_vectors_at_power_one_lead_to_the_plain_formula() -> None:
    logits, names = RNG.normal(-4, 3, (5, tags.TAGS)), sentence_like(tags.TAGS)
    by_tag = tags.audio_vectors(logits, TagMatching(power=1.0))
    plain = tags.average_tag_names(logits, names)
    np.testing.assert_allclose(tags.unit(by_tag @ names), plain, atol=1e-6)


def test_audio_vectors_are_units_and_each_its_own() -> None:
    logits = RNG.normal(-9, 2, (7, tags.TAGS)).astype(np.float32)
    vectors = tags.audio_vectors(logits)
    assert vectors.shape == (7, tags.TAGS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(vectors, tags.audio_vectors(logits))
    np.testing.assert_array_equal(vectors[3:4], tags.audio_vectors(logits[3:4]))


@pytest.mark.parametrize("level", [-1000.0, -9.0, 0.0, 1000.0])
def test_equal_logits_hear_every_tag_alike(level: float) -> None:
    vectors = tags.audio_vectors(np.full((2, tags.TAGS), level, dtype=np.float32))
    np.testing.assert_allclose(vectors, [ALL_AXES, ALL_AXES], atol=1e-6)


def test_no_segments_no_vectors() -> None:
    assert tags.audio_vectors(np.zeros((0, tags.TAGS), dtype=np.float32)).shape == (0, tags.TAGS)


def test_a_louder_tag_never_counts_less() -> None:
    logits = RNG.normal(-6, 3, (1, tags.TAGS))
    louder = logits.copy()
    louder[0, 40] += 2.0
    assert tags.audio_vectors(louder)[0, 40] > tags.audio_vectors(logits)[0, 40]


def test_phrases_find_their_own_tags() -> None:
    vectors, table = small_table()
    weights = tags.text_vectors(vectors, table)
    np.testing.assert_array_equal(weights.argmax(axis=1), np.repeat(np.arange(10), 2))
    np.testing.assert_allclose(np.linalg.norm(weights, axis=1), 1.0, atol=1e-6)
    assert (weights >= 0).all()


def test_regression_equals_its_textbook_form() -> None:
    vectors, tag_weights = sentence_like(30), np.abs(RNG.standard_normal((30, 10)))
    matching = TagMatching(kernel_width=0.4, ridge=0.2)
    table = tags.fit_phrases(vectors, tag_weights, matching)
    gram = np.exp((vectors @ vectors.T - 1) / 0.4)
    dual = np.linalg.solve(gram + 0.2 * np.eye(30), tags.unit(tag_weights))
    queries = sentence_like(4)
    expected = tags.unit(np.maximum(np.exp((queries @ vectors.T - 1) / 0.4) @ dual, 0))
    np.testing.assert_allclose(tags.text_vectors(queries, table), expected, atol=1e-5)


def test_a_query_like_nothing_asks_for_nothing() -> None:
    _, table = small_table()
    table = dataclasses.replace(table, coefficients=-np.abs(table.coefficients))
    np.testing.assert_allclose(
        tags.text_vectors(sentence_like(1), table), np.full((1, 10), 1 / np.sqrt(10)), atol=1e-6
    )


def test_a_saved_table_ranks_alike(tmp_path: Path) -> None:
    vectors, table = small_table()
    tags.save_table(table, tmp_path / "table.npz")
    loaded = tags.load_table(tmp_path / "table.npz")
    before, after = tags.text_vectors(vectors, table), tags.text_vectors(vectors, loaded)
    np.testing.assert_allclose(after, before, atol=0.01)
    assert loaded.kernel_width == table.kernel_width


def test_the_packaged_table_knows_the_present_phrases() -> None:
    """Else run benchmarks/fit_phrases.py."""
    table = tags.packaged_table()
    assert table.fitted_on == tags.phrases_hash(tags.load_phrases())
    assert table.kernel_width == TagMatching().kernel_width


def test_the_packaged_table_translates() -> None:
    encode = sentence_encoder(sentence_folder("all-MiniLM-L6-v2"))
    table, names = tags.packaged_table(), tags.tag_names()
    wanted = {"a dog barks": "Bark", "pouring rain": "Rain", "somebody sneezed": "Sneeze"}
    weights = tags.text_vectors(encode(list(wanted)), table)
    assert [names[i] for i in weights.argmax(axis=1)] == list(wanted.values())
    sample = slice(None, None, 500)
    np.testing.assert_allclose(
        encode(tags.load_phrases().texts[sample]), table.vectors[sample], atol=2e-3
    )


def test_two_sounds_in_one_query_are_both_asked_for() -> None:
    encode = sentence_encoder(sentence_folder("all-MiniLM-L6-v2"))
    weights = tags.text_vectors(encode(["a dog barks in the rain"]), tags.packaged_table())[0]
    loudest = {tags.tag_names()[i] for i in np.argsort(-weights)[:8]}
    assert "Rain" in loudest
    assert loudest & {"Dog", "Bark"}


def test_a_repeated_phrase_is_no_harm() -> None:
    vectors = np.repeat(sentence_like(4), 3, axis=0)
    table = tags.fit_phrases(vectors, np.repeat(np.eye(4), 3, axis=0))
    assert np.isfinite(table.coefficients).all()
    assert (tags.text_vectors(vectors, table).argmax(axis=1) == np.repeat(np.arange(4), 3)).all()


def test_phrases_of_the_package() -> None:
    phrases = tags.load_phrases()
    names = tags.tag_names()
    assert phrases.tags.shape == (len(phrases.texts), tags.TAGS)
    assert phrases.texts[: tags.TAGS] == names
    np.testing.assert_array_equal(phrases.tags[: tags.TAGS], np.eye(tags.TAGS))
    assert (phrases.tags.max(axis=1) > 0).all()
    assert len(phrases.texts) > 5000


def test_tags_of_a_lexicon_line_are_parsed() -> None:
    parsed = tags.parse_tags("Walk, footsteps=1.0; Crunch=0.8")
    assert parsed == {"Walk, footsteps": 1.0, "Crunch": 0.8}


@pytest.mark.parametrize("name", ["power", "kernel_width", "ridge"])
def test_constants_are_above_zero(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0"):
        TagMatching(**{name: 0})
