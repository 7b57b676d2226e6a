"""Vectors of fewer numbers: along the axes of what the model was calibrated by."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_recordings

from earshot.calibrate import Calibration
from earshot.library import Layout, index, open_or_create
from earshot.model import model_manifest
from earshot.model.calibration import write_calibration
from earshot.model.shortened import ShortenedModel, principal_axes
from earshot.search import Searcher
from earshot.types import EarshotError, Model

SENTENCES = ["rain", "a dog barks", "a door", "wind in the trees"]


def calibrated(model: Model, folder: Path, background: np.ndarray) -> Model:
    """The model, as if it lay in a folder with a calibration."""
    model.name = str(folder)
    calibration = Calibration(
        background=background,
        slope=1.0,
        intercept=-2.0,
        bar=1.0,
        bar_per_doubling=0.1,
        false_alarm_rate=0.2,
        fingerprint=model.fingerprint,
    )
    write_calibration(calibration, folder / "calibration.safetensors", {})
    return model


def recordings(model: Model, count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors (count, D) that lie in eight directions, and a little beside."""
    random = np.random.default_rng(seed)
    directions = np.random.default_rng(1).normal(size=(8, model.dimension))
    rows = random.normal(size=(count, 8)) @ directions
    rows += 0.01 * random.normal(size=rows.shape)
    unit: np.ndarray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def test_cosines_of_what_lies_on_the_axes_are_kept(random_model: Model, tmp_path: Path) -> None:
    model = calibrated(random_model, tmp_path, recordings(random_model, 40))
    shorter = ShortenedModel(model, 8)
    others = recordings(random_model, 20, seed=7)
    shortened = shorter._shortened(others)
    assert shortened.shape == (20, 8)
    np.testing.assert_allclose(np.linalg.norm(shortened, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(shortened @ shortened.T, others @ others.T, atol=0.01)
    coarse = ShortenedModel(model, 2)._shortened(others)
    assert np.abs(coarse @ coarse.T - others @ others.T).max() > 0.1, "two axes are too few"


def test_words_and_sounds_are_shortened_alike(random_model: Model, tmp_path: Path) -> None:
    model = calibrated(random_model, tmp_path, recordings(random_model, 40))
    shorter = ShortenedModel(model, 16)
    wave = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    for short, whole in (
        (shorter.embed_text(SENTENCES), model.embed_text(SENTENCES)),
        (shorter.embed_audio([wave]), model.embed_audio([wave])),
    ):
        rows = whole @ shorter.axes
        np.testing.assert_allclose(short, rows / np.linalg.norm(rows, axis=1)[:, None], atol=1e-6)
    assert shorter.embed_audio([]).shape == (0, 16)
    assert shorter.calibration.background.shape == (40, 16)


def test_axes_are_the_same_whatever_the_order_of_rows(random_model: Model) -> None:
    rows = recordings(random_model, 40)
    np.testing.assert_allclose(
        principal_axes(rows)[:, :8], principal_axes(rows[::-1])[:, :8], atol=1e-5
    )


def test_what_tells_shortened_vectors_apart(random_model: Model, tmp_path: Path) -> None:
    model = calibrated(random_model, tmp_path, recordings(random_model, 40))
    prints = [model.fingerprint, *(ShortenedModel(model, n).fingerprint for n in (8, 9))]
    calibrated(random_model, tmp_path, recordings(random_model, 40, seed=3))
    prints.append(ShortenedModel(model, 8).fingerprint)
    assert len(set(prints)) == 4, "the model's own, two lengths, other axes"


@pytest.mark.parametrize("dimensions", [0, -1, 41, 600])
def test_as_many_axes_as_recordings(random_model: Model, tmp_path: Path, dimensions: int) -> None:
    model = calibrated(random_model, tmp_path, recordings(random_model, 40))
    with pytest.raises(EarshotError, match=f"{dimensions} numbers.* between 1 and 40"):
        ShortenedModel(model, dimensions)


def test_without_a_calibration_there_are_no_axes(random_model: Model, tmp_path: Path) -> None:
    uri = str(tmp_path / "index")
    with pytest.raises(EarshotError, match="tags-mn05 has no calibration.*leave --dimensions out"):
        open_or_create(uri, "tags-mn05", "cpu", Layout(dimensions=64))
    assert not Path(uri).exists()


def test_an_index_of_shortened_vectors(real_model: Model, tmp_path: Path) -> None:
    make_recordings(tmp_path / "sounds", 4)
    uri = str(tmp_path / "index")
    store, model = open_or_create(uri, "tags", "cpu", Layout(dimensions=64))
    index([tmp_path / "sounds"], store, model, workers=1)
    whole = model_manifest(real_model)
    assert store.manifest == replace(
        whole, dimension=64, shortened_from=whole.dimension, fingerprint=model.fingerprint
    )
    searcher = Searcher.open(uri)
    hits = searcher.search("white noise", k=4)
    assert len(hits) == 4
    assert all(hit.probability is not None for hit in hits)
    store, again = open_or_create(uri, None, "cpu")
    assert again.fingerprint == model.fingerprint
    with pytest.raises(EarshotError, match="vectors of 64 numbers, not 32; leave --dimensions out"):
        open_or_create(uri, None, "cpu", Layout(dimensions=32))
    with pytest.raises(EarshotError, match="their vectors do not compare"):
        Searcher(real_model, store)
