"""Every kind of model is loaded by name or folder, listed, judged and indexed alike."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command_line import earshot, refused
from conftest import make_recordings
from tiny_hub import save_clap, save_pe

from earshot import checkpoints
from earshot.checkpoints import ENCODER_WEIGHTS, ENCODERS
from earshot.encoders.catalogue import known_audio_encoders
from earshot.model import load
from earshot.model.card import render
from earshot.model.folder import FolderInfo
from earshot.model.imports import FORMATS
from earshot.model.joint import JointModel
from earshot.model.listing import describe, listed
from earshot.types import EarshotError


@pytest.fixture(params=["clap", "pe"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (save_clap if request.param == "clap" else save_pe)(tmp_path / "joint")
    return tmp_path


def test_a_ready_dual_encoder_is_a_model(folder: Path) -> None:
    model = load(str(folder / "joint"), "cpu")
    assert isinstance(model, JointModel)
    noise = np.random.default_rng(1).normal(0, 0.1, 60_000).astype(np.float32)
    vectors = model.embed_audio([noise, noise[:20_000]])
    assert vectors.shape == (2, model.dimension)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(2), abs=1e-5)
    assert model.embed_audio([noise[:20_000]])[0] == pytest.approx(vectors[1], abs=1e-5)
    assert model.embed_audio([]).shape == (0, model.dimension)
    assert model.fingerprint == load(str(folder / "joint"), "cpu").fingerprint


@pytest.mark.parametrize(
    "folder", ["clap", pytest.param("pe", marks=pytest.mark.slow)], indirect=True
)
def test_a_ready_dual_encoder_is_a_row_of_evaluate(folder: Path) -> None:
    paths = make_recordings(folder / "data", 4)
    rows = [
        f"{path.name},a {word}"
        for path, word in zip(paths, ["dog", "rain", "cat", "car"], strict=True)
    ]
    (folder / "data" / "captions.csv").write_text("file_name,caption\n" + "\n".join(rows) + "\n")
    done = earshot("evaluate", "joint", "--data", "data", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["metrics"]["mAP@10"]["estimate"] <= 1


def test_all_that_is_listed_says_whose_it_is() -> None:
    for model in listed():
        assert model["licence"]
        assert model["source"].startswith("https://")
        assert model["sha256"]
    research = {model["name"] for model in listed() if model.get("research_only")}
    assert {"salsa-2024", "dcase2025-baseline", "clap-htsat-unfused"} <= research
    assert all("research only" in m["licence"] for m in listed() if m["name"] in research)


def test_unknown_and_unusable_names(tmp_path: Path) -> None:
    assert "did you mean clap-htsat-fused" in refused(earshot("models", "clap-htsat-fuse"))
    (tmp_path / "a").mkdir()
    make_recordings(tmp_path / "a", 1)
    done = earshot("index", "a", "--to", "i", "--model", "clap-larger-music", cwd=tmp_path)
    assert "same vector for every sentence" in refused(done)


def test_the_fingerprint_knows_the_mel_filters(tmp_path: Path) -> None:
    save_clap(tmp_path)
    before = load(str(tmp_path), "cpu").fingerprint
    path = tmp_path / "preprocessor_config.json"
    path.write_text(path.read_text().replace('"rand_trunc"', '"fusion"'))
    assert load(str(tmp_path), "cpu").fingerprint != before


def test_a_repository_of_the_hub_is_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_clap(tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoints, "from_hub", lambda *_: tmp_path / "cache")
    for name in ("laion/clap-htsat-unfused", "someone/clap-2"):
        model = load(name, "cpu")
        assert isinstance(model, JointModel)
        assert model.name == name
    with pytest.raises(EarshotError, match="same vector for every sentence"):
        load("laion/larger_clap_music")
    (tmp_path / "runs").mkdir()
    for path in ("runs/first", "./runs", "/no/where", "a/b/c", "../x"):
        with pytest.raises(EarshotError, match="no model"):
            load(path)


def test_a_known_name_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_clap(tmp_path / "cache")
    save_clap(tmp_path / "pe-av-small")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoints, "from_hub", lambda *_: tmp_path / "cache")
    model = load("pe-av-small", "cpu")
    assert isinstance(model, JointModel)
    assert (model.name, model.folder) == ("pe-av-small", tmp_path / "cache")
    assert load("./pe-av-small", "cpu").name == str(tmp_path / "pe-av-small")


def test_an_index_is_searched_with_its_model_where_that_is_now(tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    save_clap(tmp_path / "joint")
    make_recordings(tmp_path / "sounds", 1)
    asked = ("index", "sounds", "--to", "i", "--model", "joint")
    assert earshot(*asked, cwd=tmp_path).returncode == 0
    (tmp_path / "joint").rename(tmp_path / "moved")
    told = refused(earshot("search", "i", "dog", cwd=tmp_path))
    assert "give its new folder with --model" in told
    done = earshot("search", "i", "dog", "--model", "moved", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "000.wav" in done.stdout
    save_clap(tmp_path / "other", fusion=True)
    told = refused(earshot("search", "i", "dog", "--model", "other", cwd=tmp_path))
    assert "do not compare" in told


def test_encoders_with_public_weights_are_listed() -> None:
    described = {model["name"]: model for model in listed()}
    assert {name: described[name]["encoder"] for name in ENCODER_WEIGHTS} == ENCODERS
    assert set(ENCODERS.values()) <= set(known_audio_encoders())


def test_only_what_can_be_imported_says_so() -> None:
    for model in listed():
        assert model.get("import_as", "salsa") in FORMATS
    assert describe("dcase2023-audio-encoder")["encoder"] == "cnn14-dcase2023"


def test_whatever_is_loaded_is_described(tmp_path: Path) -> None:
    save_clap(tmp_path / "clap")
    assert describe(str(tmp_path / "clap"))["network"] == "clap"
    assert describe("laion/clap-htsat-unfused") == describe("clap-htsat-unfused")
    best = tmp_path / "run" / "best"
    best.mkdir(parents=True)
    stored = {"earshot": "1", "name": "x", "kind": "dual", "settings": {}, "about": {"seed": 3}}
    (best / "config.json").write_text(json.dumps(stored))
    told = describe(str(tmp_path / "run"))
    assert (told["kind"], told["seed"], told["here"]) == ("dual", 3, str(best))


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"licence": "MIT"}, "mit"),
        ({"licence": "Apache-2.0", "research_only": True}, "other"),
        ({"licence": "see its Zenodo record"}, "other"),
        ({}, "other"),
    ],
)
def test_a_card_names_licences_as_the_hub_does(about: dict[str, Any], expected: str) -> None:
    card = render(FolderInfo(name="x", kind="dual", version="1", settings={}, about=about))
    assert yaml.safe_load(card.split("---")[1])["license"] == expected
    assert str(about.get("licence", "")) in card
