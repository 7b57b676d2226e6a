"""Calibrations: fitted on recordings, kept beside the model, found again by a search."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import needs

from earshot.calibrate import Calibration, bar_of, probability_of
from earshot.evaluate.calibration import (
    Judged,
    background_from,
    calibrate,
    calibrate_model,
    halves,
    measured,
)
from earshot.library import index
from earshot.model import model_manifest
from earshot.model.calibration import (
    calibration_of,
    calibration_path,
    read_calibration,
    write_calibration,
)
from earshot.search import Searcher
from earshot.store import create_store
from earshot.types import EarshotError, Model

DIMENSION, KINDS = 32, 20


def judged(clips: int, seed: int) -> Judged:
    """Clips of one to three segments, one of which is like the query of the clip's kind."""
    random = np.random.default_rng(seed)
    kinds = np.random.default_rng(7).normal(size=(KINDS, DIMENSION))
    kinds /= np.linalg.norm(kinds, axis=1, keepdims=True)
    held = random.integers(KINDS, size=clips)
    vectors = []
    for kind in held:
        segments = random.normal(size=(random.integers(1, 4), DIMENSION)) / np.sqrt(DIMENSION)
        segments[0] += random.uniform(0.3, 1.5) * kinds[kind]
        segments /= np.linalg.norm(segments, axis=1, keepdims=True)
        vectors.append(segments.astype(np.float32))
    relevant = held[None] == np.arange(KINDS)[:, None]
    return Judged(queries=kinds.astype(np.float32), clips=vectors, relevant=relevant)


def test_it_holds_on_other_recordings() -> None:
    tune, report = judged(900, 0), judged(900, 1)
    calibration = calibrate([tune], background_from(tune.clips), "me", rate=0.1)
    assert calibration.bar_per_doubling > 0
    found = measured(calibration, report)
    assert found["ece_all_pairs"] < 0.05
    assert found["ece_shown"] < 0.1
    assert [size["clips"] for size in found["libraries"]] == [50, 100, 200, 400, 800]
    for size in found["libraries"][:-1]:
        # At 800 clips the libraries of a query are nearly the same ones.
        assert size["false_alarms"] == pytest.approx(0.1, abs=0.08)
    shuffled = replace(report, relevant=np.roll(report.relevant, 1, axis=0))
    assert measured(calibration, shuffled)["ece_shown"] > 0.4


def test_halves_share_nothing() -> None:
    whole = judged(201, 0)
    first, second = halves(whole)
    assert len(first.clips) + len(second.clips) == 201
    assert not {id(clip) for clip in first.clips} & {id(clip) for clip in second.clips}
    texts = [{query.tobytes() for query in part.queries} for part in (first, second)]
    assert not texts[0] & texts[1]
    assert first.relevant.any(1).all()
    with pytest.raises(EarshotError, match="too few"):
        halves(judged(40, 0))


@pytest.fixture
def calibration() -> Calibration:
    tune = judged(200, 0)
    return calibrate([tune], background_from(tune.clips), "me")


def test_what_is_written_is_read(calibration: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "calibration.safetensors"
    write_calibration(calibration, path, {"dataset": "x"})
    again = read_calibration(path)
    np.testing.assert_array_equal(again.background, calibration.background)
    distances = np.linspace(-3, 9, 7)
    np.testing.assert_array_equal(
        probability_of(again, distances), probability_of(calibration, distances)
    )
    assert (bar_of(again, 77), again.fingerprint) == (bar_of(calibration, 77), "me")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(EarshotError, match="damaged"):
        read_calibration(path)


def in_folder(model: Model, folder: Path) -> Model:
    """The same model as one of a folder."""
    model.name = str(folder)
    return model


def test_a_calibration_of_other_weights_is_ignored(
    calibration: Calibration, random_model: Model, tmp_path: Path
) -> None:
    assert calibration_path(random_model) is None
    assert calibration_of(random_model) is None
    model = in_folder(random_model, tmp_path)
    assert calibration_of(model) is None
    write_calibration(calibration, tmp_path / "calibration.safetensors", {})
    with pytest.warns(UserWarning, match="other weights"):
        assert calibration_of(model) is None


def test_the_package_calibrates_its_default_model(real_model: Model, tmp_path: Path) -> None:
    """Roosters are found among roosters and rain; helicopters are not."""
    esc10 = needs("data/esc10")
    rain, cock = (sorted((esc10 / name).glob("*.ogg"))[:6] for name in ("002-rain", "009-rooster"))
    for path in (*rain, *cock):
        (tmp_path / path.name).symlink_to(path)
    uri = str(tmp_path / "library")
    index([tmp_path], create_store(uri, model_manifest(real_model)), real_model)
    searcher = Searcher.open(uri)
    found = searcher.search("a rooster crows", k=12)
    assert min(hit.probability or 0 for hit in found[:4]) > 0.7
    assert max(hit.probability or 0 for hit in found[6:]) < 0.3
    from earshot.types import Question

    assert searcher.ask(Question(text="a rooster crows", by="sound")).found
    assert not searcher.ask(Question(text="church bells", by="sound")).found


def test_a_model_is_calibrated_on_a_dataset(real_model: Model, tmp_path: Path) -> None:
    """The folder's calibration is used by the next search, and judged on clips left out."""
    from earshot.datasets import load as load_dataset

    esc10 = needs("data/esc10")
    folder = tmp_path / "esc10"
    folder.mkdir()
    with (esc10 / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[::3]
    with (folder / "metadata.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["file_name", "caption", "label"])
        table.writeheader()
        for row in rows:
            place = folder / row["file_name"]
            place.parent.mkdir(exist_ok=True)
            place.symlink_to(esc10 / row["file_name"])
            row["caption"] = f"{row['label']} {row['fold']}"
            table.writerow({name: row[name] for name in ("file_name", "caption", "label")})
    dataset = load_dataset("", folder, text_column="caption", relevant_by="label")
    with pytest.raises(EarshotError, match="no folder"):
        calibrate_model(real_model, dataset)
    model = in_folder(real_model, tmp_path / "model")
    (tmp_path / "model").mkdir()
    with pytest.raises(EarshotError, match="false alarm rate"):
        calibrate_model(model, dataset, rate=1.0)
    found = calibrate_model(model, dataset)
    assert found["ece_all_pairs"] < 0.1
    kept = calibration_of(model)
    assert kept is not None
    assert kept.fingerprint == model.fingerprint
    assert json.loads(json.dumps(found)) == found
