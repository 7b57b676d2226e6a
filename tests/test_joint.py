"""Ready dual encoders, loaded as a user would: from a folder of the hub's form, or by name."""

import fnmatch
import json
import re
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_hub import save_clap, save_pe, save_tokenizer, tiny_clap

from earshot.checkpoints import JOINT_ENCODERS, joint_folder
from earshot.encoders.joint import JointEncoder, joint_encoder
from earshot.types import EarshotError

SENTENCES = ["a dog barks", "rain falls", "slow piano music in the large hall", "a cat"]


@pytest.fixture(scope="module", params=["clap", "clap-fusion", "pe"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    if request.param == "pe":
        save_pe(path)
    else:
        save_clap(path, fusion=request.param == "clap-fusion")
    return path


@pytest.fixture(scope="module")
def joint(folder: Path) -> JointEncoder:
    return joint_encoder(folder)


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)


def heard(joint: JointEncoder, waveform: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return joint.audio(
            torch.from_numpy(waveform)[None], torch.tensor([len(waveform)])
        ).embedding


def test_both_towers_lead_into_one_space(joint: JointEncoder) -> None:
    vectors = joint.text(SENTENCES)
    assert vectors.shape == (4, joint.dimension)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert heard(joint, noise(30_000)).shape == (1, joint.dimension)
    assert joint.audio.sample_rate_hz == 48_000
    assert joint.text([]).shape == (0, joint.dimension)


def test_a_sentence_does_not_depend_on_its_batch(joint: JointEncoder) -> None:
    together = joint.text(SENTENCES)
    alone = np.concatenate([joint.text([sentence]) for sentence in SENTENCES])
    assert np.allclose(together, alone, atol=1e-6)
    assert np.allclose(joint.text(SENTENCES[::-1])[::-1], together, atol=1e-6)


@torch.inference_mode()
@pytest.mark.parametrize("fusion", [False, True])
def test_clap_equals_the_library(tmp_path: Path, fusion: bool) -> None:
    """On one short clip, not marked as longer, and on sentences."""
    model = save_clap(tmp_path, fusion)
    joint = joint_encoder(tmp_path)
    waveform = noise(100_000)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    features = extractor(waveform, sampling_rate=48_000, return_tensors="pt")["input_features"]
    expected = model.get_audio_features(features, is_longer=torch.tensor([[False]])).pooler_output
    ours = torch.nn.functional.normalize(heard(joint, waveform))
    assert torch.allclose(ours, expected, atol=1e-5)

    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    words = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    words.pop("token_type_ids", None)
    texts = model.get_text_features(**words).pooler_output
    assert np.allclose(joint.text(SENTENCES), texts.numpy(), atol=1e-5)
    assert joint.logit_scale == pytest.approx(model.logit_scale_a.exp().item())


def test_what_a_tokenizer_cuts_decides_nothing(tmp_path: Path) -> None:
    """A tokenizer.json with truncation leaks into the library's processor: 4 samples are heard."""
    plain, cutting = tmp_path / "plain", tmp_path / "cutting"
    save_clap(plain)
    save_clap(cutting, truncated_to=4)
    one, other = joint_encoder(plain), joint_encoder(cutting)
    assert torch.equal(heard(one, noise(50_000)), heard(other, noise(50_000)))
    assert np.array_equal(one.text(SENTENCES), other.text(SENTENCES))
    long, longer = "dog " * 18, "dog " * 18 + "cat"
    assert np.array_equal(other.text([long]), other.text([longer]))  # 20 tokens with both marks.
    assert not np.allclose(other.text(["dog " * 17]), other.text([long]), atol=1e-4)


def collapse(model: Any) -> None:
    with torch.no_grad():
        model.text_projection.linear1.weight.mul_(1e-4)
        model.text_projection.linear1.bias.fill_(1.0)


def test_a_collapsed_text_tower_is_refused(tmp_path: Path) -> None:
    model = tiny_clap()
    save_tokenizer(tmp_path)
    model.save_pretrained(tmp_path)
    joint_encoder(tmp_path)
    collapse(model)
    model.save_pretrained(tmp_path)
    with pytest.raises(EarshotError, match="text tower has collapsed"):
        joint_encoder(tmp_path)


@pytest.mark.parametrize("name", ["clap-larger-music", "laion/larger_clap_music"])
def test_weights_known_not_to_work_are_not_even_fetched(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    with pytest.raises(EarshotError, match="same vector for every sentence"):
        joint_folder(name)


def test_unknown_names_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(EarshotError, match="did you mean clap-htsat-unfused"):
        joint_folder("clap-htsat-unfuse")
    with pytest.raises(EarshotError, match="no config.json"):
        joint_encoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(EarshotError, match="model of type 'bert'"):
        joint_encoder(tmp_path)


def test_another_form_of_clap_is_refused(tmp_path: Path) -> None:
    save_clap(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["audio_config"]["window_size"] = 4
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(EarshotError, match="not built as the published ones: window_size"):
        joint_encoder(tmp_path)


def test_cards_say_whose_weights_they_are() -> None:
    for name, card in JOINT_ENCODERS.items():
        assert card.licence == "Apache-2.0"
        assert "/" in card.repository
        assert card.research_only == name.startswith("clap")
        assert card.notes or card.refused


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_name_is_fetched_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    """The hub's own cache is asked first; of two formats of the weights one is fetched."""
    published, cache = tmp_path / "published", tmp_path / "cache"
    model = save_clap(published)
    if weights.endswith(".bin"):
        (published / "model.safetensors").unlink()
    torch.save(model.state_dict(), published / "pytorch_model.bin")
    asked = []

    def download(
        repository: str, allow_patterns: list[str], revision: str, local_files_only: bool = False
    ) -> str:
        asked.append((repository, local_files_only))
        if local_files_only and not cache.exists():
            raise FileNotFoundError(repository)
        cache.mkdir(exist_ok=True)
        for path in published.iterdir():
            wanted = any(fnmatch.fnmatch(path.name, pattern) for pattern in allow_patterns)
            if wanted and not local_files_only:
                shutil.copy(path, cache)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    first = joint_encoder(joint_folder("clap-htsat-unfused"))
    assert asked[0] == ("laion/clap-htsat-unfused", True)
    assert asked[1] == ("laion/clap-htsat-unfused", False)
    assert [path.name for path in cache.iterdir() if path.suffix != ".json"] == [weights]
    asked.clear()
    again = joint_encoder(joint_folder("laion/clap-htsat-unfused"))
    assert all(offline for _, offline in asked)
    assert np.array_equal(first.text(SENTENCES), again.text(SENTENCES))


def test_without_a_hub_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        raise ConnectionError

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(EarshotError, match="download it elsewhere and name its folder"):
        joint_folder("pe-av-small")


def without_weight(folder: Path, name: str) -> None:
    state = load_file(folder / "model.safetensors")
    del state[name]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("save", "name"),
    [
        (save_clap, "text_projection.linear2.weight"),
        (save_clap, "text_model.pooler.dense.weight"),
        (save_clap, "audio_projection.linear1.bias"),
        (save_pe, "audio_encoder.norm.weight"),
        (save_pe, "text_audio_head.proj.weight"),
    ],
)
def test_weights_that_are_missing_are_not_made_up(tmp_path: Path, save: Any, name: str) -> None:
    save(tmp_path)
    without_weight(tmp_path, name)
    with pytest.raises(EarshotError, match=f"lacks weights of its network: {re.escape(name)}"):
        joint_encoder(tmp_path)


@pytest.mark.parametrize("save", [save_clap, save_pe])
@pytest.mark.parametrize("pattern", ["model.safetensors", "tokenizer*"])
def test_a_folder_without_weights_or_words_is_told(tmp_path: Path, save: Any, pattern: str) -> None:
    save(tmp_path)
    for path in tmp_path.glob(pattern):
        path.unlink()
    with pytest.raises(EarshotError, match="no dual encoder that can be loaded") as raised:
        joint_encoder(tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


@torch.inference_mode()
def test_a_clip_without_samples_is_silence(joint: JointEncoder) -> None:
    clips = torch.randn(2, 9_600)
    heard = joint.audio(clips, torch.tensor([0, 9_600])).embedding
    assert heard.isfinite().all()
    alone = joint.audio(torch.zeros(1, 0), torch.tensor([0])).embedding
    assert torch.allclose(heard[:1], alone, atol=1e-5)
    assert torch.allclose(
        heard[1:], joint.audio(clips[1:], torch.tensor([9_600])).embedding, atol=1e-5
    )
