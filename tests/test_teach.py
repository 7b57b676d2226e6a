"""Teachers: vectors kept once, by id; stage 2 learns from them; false negatives are listed."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training import cache, data, model, recipe, run, text_folder

from earshot.batches import Pairs
from earshot.datasets import load
from earshot.model import load as load_model
from earshot.model.dual import DualEncoder
from earshot.model.folder import DualModel
from earshot.teach import load_teachers, teach
from earshot.teach.correspondences import correspondences, summary, write_csv, write_html
from earshot.train.recipe import LossConfig, OptimizerConfig
from earshot.types import EarshotError

__all__ = ["cache", "data", "text_folder"]
DISTILS = LossConfig(supervised_weight=0.0, distillation_weight=1.0)


def teacher(text_folder: Path, seed: int, dimension: int = 16) -> DualModel:
    """A model of random weights; it has an opinion all the same."""
    torch.manual_seed(seed)
    config = replace(model(text_folder), dimension=dimension)
    network = DualEncoder(config, text_folder).eval()
    return DualModel(network=network, name=f"teacher{seed}", fingerprint=str(seed))


@pytest.fixture
def pairs(data: Path) -> Pairs:
    return Pairs([load("soundscapes", data / "train", "train")], sample_rate_hz=32_000)


def test_an_ensemble_is_the_mean_of_its_members(
    text_folder: Path, pairs: Pairs, tmp_path: Path
) -> None:
    """Members may have dimensions of their own; a slow sum of cosines agrees."""
    models = [teacher(text_folder, 1), teacher(text_folder, 2, dimension=24)]
    teach(models, pairs, tmp_path / "t")
    judge = load_teachers(tmp_path / "t").for_pairs(pairs)
    clips, captions = torch.tensor([3, 0, 5]), torch.tensor([7, 2])
    found = judge(clips, captions).numpy()
    for i, clip in enumerate(clips):
        for j, caption in enumerate(captions):
            cosines = [
                float(t.audio[int(clip)] @ t.text[int(caption)])
                / float(np.linalg.norm(t.audio[int(clip)]) * np.linalg.norm(t.text[int(caption)]))
                for t in judge.teachers
            ]
            assert found[i, j] == pytest.approx(np.mean(cosines), abs=1e-6)
    blocks = np.concatenate([block for _, block in judge.blocks(size=3)])
    assert blocks.shape == (len(pairs), len(pairs.clips))
    assert blocks[7, 3] == pytest.approx(found[0, 0], abs=1e-6)


def test_an_interrupted_run_keeps_what_it_has(
    text_folder: Path, pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earshot.teach.PART", 3)
    one, done = teacher(text_folder, 1), []

    def stop(what: str, count: int, total: int) -> None:
        done.append((what, count, total))
        if len(done) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach([one], pairs, tmp_path / "t", done=stop)
    with pytest.raises(EarshotError, match="has not finished"):
        load_teachers(tmp_path / "t")
    parts = tmp_path / "t" / "0" / "audio.parts"
    before = {path.name: path.stat().st_mtime_ns for path in parts.iterdir()}
    assert len(before) == 2
    again: list[tuple[str, int, int]] = []
    teach([one], pairs, tmp_path / "t", done=lambda *told: again.append(told))
    teach([one], pairs, tmp_path / "whole")
    for side in ("audio", "text"):
        kept, whole = (np.load(tmp_path / n / "0" / f"{side}.npy") for n in ("t", "whole"))
        assert np.array_equal(kept, whole)
    assert not parts.exists()
    with pytest.raises(EarshotError, match="other teachers"):
        teach([teacher(text_folder, 2)], pairs, tmp_path / "t")


def test_unknown_clips_are_an_error(
    text_folder: Path, data: Path, pairs: Pairs, tmp_path: Path
) -> None:
    teach([teacher(text_folder, 1)], pairs, tmp_path / "t")
    others = Pairs([load("soundscapes", data / "validation", "")], sample_rate_hz=32_000)
    with pytest.raises(EarshotError, match="do not know 6 of 6 clips"):
        load_teachers(tmp_path / "t").for_pairs(others)
    with pytest.raises(EarshotError, match="holds no teachers"):
        load_teachers(tmp_path)
    with pytest.raises(EarshotError, match="at least one run"):
        teach([], pairs, tmp_path / "none")


def test_stage_two_learns_from_stage_one(text_folder: Path, data: Path, tmp_path: Path) -> None:
    first = recipe(text_folder, epochs=1)
    run(first, data, tmp_path / "one")
    trained = load_model(str(tmp_path / "one"), "cpu")
    pairs = Pairs([load("soundscapes", data / "train", "train")], sample_rate_hz=32_000)
    teach([trained], pairs, tmp_path / "t")
    second = replace(
        first, loss=DISTILS, epochs=2, initialise=(f"model={tmp_path / 'one'}",), seed=8
    )
    history = run(second, data, tmp_path / "two", teachers=tmp_path / "t")
    assert history[-1]["loss"] < history[0]["loss"]
    with pytest.raises(EarshotError, match="has no teachers; give --teachers"):
        run(second, data, tmp_path / "three")
    with pytest.raises(EarshotError, match="nothing would be learnt from"):
        run(first, data, tmp_path / "four", teachers=tmp_path / "t")


def test_teachers_do_not_judge_what_they_have_not_heard(
    text_folder: Path, data: Path, tmp_path: Path
) -> None:
    """The validation loss of stage 2 is that of pairs: teachers know the training data alone."""
    first = recipe(text_folder, epochs=1, optimizer=OptimizerConfig(rate=1e-30))
    pairs = Pairs([load("soundscapes", data / "train", "train")], sample_rate_hz=32_000)
    teach([teacher(text_folder, 1)], pairs, tmp_path / "t")
    plain = run(first, data, tmp_path / "one")
    taught = run(replace(first, loss=DISTILS), data, tmp_path / "two", teachers=tmp_path / "t")
    assert taught[0]["loss"] != pytest.approx(plain[0]["loss"], abs=1e-3)
    assert taught[0]["validation_loss"] == pytest.approx(plain[0]["validation_loss"], abs=1e-6)


def test_captions_that_fit_other_clips_too(text_folder: Path, pairs: Pairs, tmp_path: Path) -> None:
    teach([teacher(text_folder, 1)], pairs, tmp_path / "t")
    judge = load_teachers(tmp_path / "t").for_pairs(pairs)
    found = list(correspondences(judge, pairs, top=2, share=-100.0))
    assert all(item.clip != item.own_clip for item in found)
    matrix = np.concatenate([block for _, block in judge.blocks()])
    numbers = {clip.id: i for i, clip in enumerate(pairs.clips)}
    captions = {caption.id: i for i, caption in enumerate(pairs.captions)}
    for item in found:
        row = matrix[captions[item.caption_id]]
        assert row[numbers[item.clip]] == pytest.approx(item.similarity, abs=1e-5)
        better = sum(row[i] > item.similarity + 1e-5 for i in range(len(row)))
        assert better - (item.own_similarity > item.similarity + 1e-5) == item.rank - 1
    nearer = list(correspondences(judge, pairs, top=2, share=1.0))
    assert {(i.caption_id, i.clip) for i in nearer} == {
        (i.caption_id, i.clip) for i in found if i.similarity >= i.own_similarity
    }
    write_csv(tmp_path / "c.csv", nearer)
    write_html(tmp_path / "c.html", nearer, pairs.clips)
    assert len(list(csv.DictReader((tmp_path / "c.csv").read_text().splitlines()))) == len(nearer)
    assert (tmp_path / "c.html").read_text().count("<audio") >= len(nearer)
    assert summary(nearer, len(pairs))["correspondences"] == len(nearer)
    assert json.dumps(summary([], 0))
