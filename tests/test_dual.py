"""The dual encoder: two towers meet; a folder keeps them; an index is made with it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from command_line import earshot, refused
from conftest import make_recordings

from earshot.encoders.aggregate import TINY as TINY_TRANSFORMER
from earshot.encoders.passt import PaSST
from earshot.encoders.text import TextConfig
from earshot.encoders.tiny_text import tiny_text_folder
from earshot.evaluate.scores import embed_clips
from earshot.files import sha256_of
from earshot.model import load
from earshot.model.dual import (
    AudioSide,
    DualEncoder,
    DualEncoderConfig,
    TextSide,
    encoder_settings,
)
from earshot.model.folder import (
    WEIGHTS,
    DualModel,
    exchange,
    load_dual,
    read_info,
    save_dual,
)
from earshot.model.onnx_graphs import exportable
from earshot.model.tensors import audio_hash, hash_of
from earshot.types import Clip, EarshotError

SENTENCES = ("a dog barks", "heavy rain falls on a tin roof", "Two people talk, far away!")
CONFIG = DualEncoderConfig(
    audio=AudioSide(encoder="tiny-passt"),
    text=TextSide(tower=TextConfig(name="tiny", pooling="cls", max_tokens=32)),
    dimension=16,
)


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text_folder(tmp_path_factory.mktemp("text") / "tiny", SENTENCES)


def network(text_folder: Path, config: DualEncoderConfig = CONFIG) -> DualEncoder:
    torch.manual_seed(4)
    return DualEncoder(config, text_folder)


def clips(seconds: tuple[float, ...], rate_hz: int = 32_000) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([round(s * rate_hz) for s in seconds])
    waves = torch.randn(len(seconds), int(lengths.max()), generator=generator) * 0.1
    return waves * (torch.arange(waves.shape[1]) < lengths[:, None]), lengths


def test_both_sides_are_unit_vectors(text_folder: Path) -> None:
    dual = network(text_folder).eval()
    audio, text = dual(*clips((0.5, 25.0)), dual.text.tokenize(SENTENCES[:2]))
    assert audio.shape == text.shape == (2, 16)
    for vectors in (audio, text):
        assert vectors.detach().norm(dim=1).numpy() == pytest.approx(np.ones(2), abs=1e-5)


@pytest.mark.parametrize("join", ["mean", "duration", "transformer"])
def test_a_clip_does_not_depend_on_its_batch(text_folder: Path, join: str) -> None:
    side = AudioSide(encoder="tiny-passt", join=join, transformer=TINY_TRANSFORMER)
    dual = network(text_folder, replace(CONFIG, audio=side)).eval()
    waves, lengths = clips((31.0, 12.0, 1.0))
    with torch.no_grad():
        together = dual.embed_audio(waves, lengths)
        for i, length in enumerate(lengths):
            alone = dual.embed_audio(waves[i : i + 1, :length], length[None])
            assert (alone[0] - together[i]).abs().max() < 1e-5


def test_frozen_towers_stay_as_they_are(text_folder: Path) -> None:
    config = replace(
        CONFIG,
        audio=replace(CONFIG.audio, frozen=True),
        text=replace(CONFIG.text, frozen=True),
        train_temperature=True,
    )
    dual = network(text_folder, config).train()
    assert not dual.audio.training
    assert not dual.text.training
    assert dual.audio_head.training
    audio, text = dual(*clips((1.0, 0.5)), dual.text.tokenize(SENTENCES[:2]))
    ((audio @ text.T) / dual.temperature).sum().backward()
    learning = {name for name, weight in dual.named_parameters() if weight.grad is not None}
    heads = {
        f"{side}_head.layers.0.{kind}" for side in ("audio", "text") for kind in ("weight", "bias")
    }
    assert learning == heads | {"tau"}


def test_without_a_frozen_tower_all_learns(text_folder: Path) -> None:
    dual = network(text_folder)
    audio, text = dual(*clips((1.0, 0.5)), dual.text.tokenize(SENTENCES[:2]))
    (audio * text).sum().backward()
    still = {n for n, w in dual.named_parameters() if w.grad is None and "encoder.head" not in n}
    assert still == {"tau"}


def test_the_front_end_can_be_set_too(text_folder: Path) -> None:
    """As JSON has it: a mapping within the settings."""
    side = AudioSide(encoder="tiny-cnn14", settings={"front_end": {"hop_s": 0.04}})
    front_end = encoder_settings(side).front_end
    assert front_end == replace(
        encoder_settings(AudioSide(encoder="tiny-cnn14")).front_end, hop_s=0.04
    )
    wrong = replace(side, settings={"front_end": {"hops": 0.04}})
    with pytest.raises(EarshotError, match="tiny-cnn14.front_end has no setting 'hops'"):
        encoder_settings(wrong)
    with pytest.raises(EarshotError, match="tiny-cnn14.classes is 5; it has no"):
        encoder_settings(replace(side, settings={"classes": {"hops": 0.04}}))


def test_unknown_settings_of_an_encoder_are_named(text_folder: Path) -> None:
    side = AudioSide(encoder="tiny-passt", settings={"dept": 3})
    with pytest.raises(EarshotError, match="tiny-passt has no setting 'dept'"):
        network(text_folder, replace(CONFIG, audio=side))


def test_a_folder_keeps_the_model(text_folder: Path, tmp_path: Path) -> None:
    side = AudioSide(encoder="tiny-passt", join="transformer", transformer=TINY_TRANSFORMER)
    dual = network(text_folder, replace(CONFIG, audio=side)).eval()
    save_dual(dual, tmp_path / "m", name="m", about={"metrics": {"mAP@10": 0.25}})
    again = load_dual(tmp_path / "m")
    assert again.config == dual.config
    with torch.no_grad():
        assert torch.equal(again.embed_audio(*clips((2.0,))), dual.embed_audio(*clips((2.0,))))
        tokens = dual.text.tokenize(SENTENCES)
        assert torch.equal(
            again.embed_text(again.text.tokenize(SENTENCES)), dual.embed_text(tokens)
        )
    card = (tmp_path / "m" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: earshot\n")
    assert "| mAP@10 | 0.2500 |" in card
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]


def test_a_model_replaces_a_model_but_no_other_files(text_folder: Path, tmp_path: Path) -> None:
    save_dual(network(text_folder), tmp_path / "m", name="m")
    save_dual(network(text_folder), tmp_path / "m", name="m")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(EarshotError, match="holds other files"):
        save_dual(network(text_folder), tmp_path / "other", name="m")
    assert (tmp_path / "other" / "notes.txt").read_text() == "mine"


def test_what_the_text_folder_decides_is_kept(text_folder: Path, tmp_path: Path) -> None:
    """The pooling and length of a Sentence-Transformers folder come back with the model."""
    sentence = tmp_path / "sentence"
    shutil.copytree(text_folder, sentence)
    (sentence / "1_Pooling").mkdir()
    (sentence / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (sentence / "sentence_bert_config.json").write_text('{"max_seq_length": 8}')
    undecided = replace(CONFIG, text=TextSide(tower=TextConfig(name="tiny")))
    dual = network(sentence, undecided).eval()
    assert (dual.text.pooling, dual.text.max_tokens) == ("cls", 8)
    save_dual(dual, tmp_path / "m", name="m")
    again = load_dual(tmp_path / "m")
    assert (again.text.pooling, again.text.max_tokens) == ("cls", 8)
    long = ["heavy rain falls on a tin roof and a dog barks far away"]
    assert torch.equal(again.text.embed(long), dual.text.embed(long))


def test_nothing_of_others_is_deleted(text_folder: Path, tmp_path: Path) -> None:
    dual, place = network(text_folder), tmp_path / "m"
    save_dual(dual, place, name="m")
    (place / "notes.txt").write_text("mine")
    with pytest.raises(EarshotError, match=r"holds other files, such as notes\.txt"):
        save_dual(dual, place, name="m")
    assert (place / "notes.txt").read_text() == "mine"
    with pytest.raises(EarshotError, match=r"notes\.txt is a file"):
        save_dual(dual, place / "notes.txt" / "m", name="m")


def test_a_link_stays_and_leads_to_the_new_model(text_folder: Path, tmp_path: Path) -> None:
    dual = network(text_folder)
    save_dual(dual, tmp_path / "m", name="old")
    (tmp_path / "link").symlink_to("m")
    save_dual(dual, tmp_path / "link", name="new")
    assert (tmp_path / "link").is_symlink()
    assert read_info(tmp_path / "m").name == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "m"]


def test_the_folder_one_stands_in_is_not_replaced(
    text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EarshotError, match="the folder you are in"):
        save_dual(network(text_folder), Path(), name="m")


def test_the_old_model_stays_when_the_new_one_fails(text_folder: Path, tmp_path: Path) -> None:
    save_dual(network(text_folder), tmp_path / "m", name="old")
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "draft", tmp_path / "m")
    assert read_info(tmp_path / "m").name == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_changed_preset_changes_the_fingerprint(text_folder: Path, tmp_path: Path) -> None:
    """The folder names its preset alone; what that stands for counts."""
    save_dual(network(text_folder), tmp_path / "m", name="m")
    model = DualModel.load(tmp_path / "m", "cpu")
    preset = model.network.audio.encoder.config
    assert audio_hash(PaSST(preset)) == audio_hash(model.network.audio.encoder)
    louder = replace(preset, front_end=replace(preset.front_end, fmax_hz=14_000.0))
    assert audio_hash(PaSST(louder)) != audio_hash(PaSST(preset))
    settings, weights = read_info(tmp_path / "m").settings, sha256_of(tmp_path / "m" / WEIGHTS)
    assert model.fingerprint == hash_of(audio_hash(PaSST(preset)), weights, settings, 10.0, 10.0)


def test_an_index_is_cut_with_the_towers_hop(text_folder: Path) -> None:
    dual = network(text_folder, replace(CONFIG, audio=replace(CONFIG.audio, hop_s=5.0)))
    model = DualModel(network=dual, name="m")
    assert (model.segment_s, model.hop_s) == (10.0, 5.0)


def test_a_folder_that_is_not_whole_says_so(text_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EarshotError, match="no model folder"):
        load_dual(tmp_path)
    save_dual(network(text_folder), tmp_path / "m", name="m")
    config = tmp_path / "m" / "config.json"
    stored = json.loads(config.read_text())
    stored["settings"]["audio"]["encodr"] = "x"
    config.write_text(json.dumps(stored))
    with pytest.raises(EarshotError, match=r"settings\.audio\.encodr"):
        load_dual(tmp_path / "m")
    stored["settings"]["audio"].pop("encodr")
    config.write_text(json.dumps(stored))
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(EarshotError, match=r"lacks model\.safetensors"):
        load_dual(tmp_path / "m")


def test_a_model_by_its_folder(text_folder: Path, tmp_path: Path) -> None:
    dual = network(text_folder).eval()
    save_dual(dual, tmp_path / "m", name="m")
    model = load(str(tmp_path / "m"), "cpu")
    assert isinstance(model, DualModel)
    waves = [wave.numpy()[:length] for wave, length in zip(*clips((12.0, 0.5)), strict=True)]
    with torch.no_grad():
        expected = dual.embed_audio(*clips((12.0, 0.5))).numpy()
        asked = dual.embed_text(dual.text.tokenize(SENTENCES)).numpy()
    assert model.embed_audio(waves) == pytest.approx(expected, abs=1e-5)
    assert model.embed_text(SENTENCES) == pytest.approx(asked, abs=1e-5)
    assert model.embed_audio([]).shape == (0, 16)
    assert model.fingerprint == load(str(tmp_path / "m"), "cpu").fingerprint


def test_inference_is_as_fast_as_it_can_be_and_equal(text_folder: Path, tmp_path: Path) -> None:
    """Norms are folded and Winograd's convolutions taken where a folder is loaded to be used."""
    settings = {"channels": (4, 4, 8, 256, 256, 16)}
    side = AudioSide(encoder="tiny-cnn14", settings=settings)
    dual = network(text_folder, replace(CONFIG, audio=side)).eval()
    for layer in dual.audio.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(layer.running_mean, -0.5, 0.5)
    save_dual(dual, tmp_path / "m", name="m")
    model = DualModel.load(tmp_path / "m", "cpu")
    kinds = [type(layer).__name__ for layer in model.network.modules()]
    assert kinds.count("WinogradConvolution") == 4
    assert kinds.count("ValidBatchNorm") == 1
    with torch.no_grad():
        expected = dual.embed_audio(*clips((12.0, 0.5))).numpy()
    waves = [wave.numpy()[:length] for wave, length in zip(*clips((12.0, 0.5)), strict=True)]
    assert model.embed_audio(waves) == pytest.approx(expected, abs=1e-5)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    again = exportable(model.network.audio)
    assert "WinogradConvolution" not in [type(layer).__name__ for layer in again.modules()]
    with torch.no_grad():
        heard = model.network.project_audio(again(*clips((12.0, 0.5)))).numpy()
    assert heard == pytest.approx(expected, abs=1e-5)


def test_a_clip_is_judged_whole(text_folder: Path, tmp_path: Path) -> None:
    """Its segments are joined before the head, as in training, not after it."""
    side = AudioSide(encoder="tiny-passt", join="transformer", transformer=TINY_TRANSFORMER)
    save_dual(network(text_folder, replace(CONFIG, audio=side)), tmp_path / "m", name="m")
    model = load(str(tmp_path / "m"), "cpu")
    wave = clips((25.0,))[0][0].numpy()
    soundfile.write(tmp_path / "long.wav", wave, 32_000, subtype="FLOAT")
    judged = embed_clips([Clip(id="long", path=str(tmp_path / "long.wav"))], model).means()
    assert judged == pytest.approx(model.embed_audio([wave]), abs=1e-5)
    cut = model.embed_audio([wave[:320_000], wave[320_000:640_000], wave[640_000:]]).mean(0)
    assert np.abs(judged[0] - cut / np.linalg.norm(cut)).max() > 1e-3


def test_index_and_search_with_a_folder(text_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    save_dual(network(text_folder), tmp_path / "m", name="m")
    make_recordings(tmp_path / "sounds", 3)
    done = earshot("index", "sounds", "--to", "index", "--model", "m", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["added"] == 3, done.stderr
    found = json.loads(earshot("search", "index", "a dog barks", "--json", cwd=tmp_path).stdout)
    assert len(found[0]["hits"]) == 3
    save_dual(DualEncoder(CONFIG, text_folder), tmp_path / "m", name="m")
    assert "their vectors do not compare" in refused(
        earshot("search", "index", "a dog barks", cwd=tmp_path)
    )


def test_duration_joins_segments_of_ten_seconds_alone(text_folder: Path) -> None:
    side = AudioSide(encoder="tiny-passt", join="duration", hop_s=5.0)
    with pytest.raises(EarshotError, match="hears 10 s every 5 s: use join = mean"):
        network(text_folder, replace(CONFIG, audio=side))


def test_settings_of_an_encoder_survive_a_folder(text_folder: Path, tmp_path: Path) -> None:
    """Nested ones too, and tuples, which json has not."""
    front_end = replace(encoder_settings(CONFIG.audio).front_end, fmax_hz=14_000.0)
    side = replace(CONFIG.audio, settings={"front_end": front_end})
    save_dual(network(text_folder, replace(CONFIG, audio=side)), tmp_path / "m", name="m")
    assert load_dual(tmp_path / "m").audio.encoder.config == encoder_settings(side)
    listed = AudioSide(encoder="tiny-cnn14", settings={"channels": [4, 4]})
    assert encoder_settings(listed).channels == (4, 4)
    with pytest.raises(EarshotError, match="settings of tiny-passt: depth"):
        encoder_settings(replace(CONFIG.audio, settings={"depth": "deep"}))
