"""Public checkpoints become model folders: every weight of ours filled, every key accounted for."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from command_line import earshot, refused
from conftest import needs

from earshot.encoders.beats import Beats, config_from_public
from earshot.encoders.catalogue import audio_encoder
from earshot.encoders.cnn14 import own_names
from earshot.encoders.tags import audio_vectors
from earshot.encoders.tiny_text import tiny_text_folder
from earshot.model import load
from earshot.model.dual import DualEncoder
from earshot.model.folder import load_dual, read_info
from earshot.model.import_settings import Parts, system_config
from earshot.model.imports import FORMATS, import_checkpoint, published
from earshot.model.networks import encoder_of
from earshot.types import EarshotError
from earshot.weights import WeightFile

ROBERTA_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "vocab_size": 50_265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "layer_norm_eps": 1e-5,
}


@dataclass(frozen=True)
class Published:
    """How a system names its parts."""

    audio: str
    text: str
    audio_head: str
    text_head: str
    extra: tuple[str, ...] = ()


SALSA = Published(
    audio="audio_embedding_model.model.model.",
    text="sentence_embedding_model.",
    audio_head="project_audio.0.",
    text_head="project_sentence.0.",
    extra=("timing_tau",),
)
DCASE2025 = Published(
    audio="audio_embedding_model.model.model.",
    text="text_embedding_model.",
    audio_head="audio_projection.",
    text_head="text_projection.",
)


def roberta_keys() -> Iterator[tuple[str, list[int]]]:
    """The names and shapes of RoBERTa-large, counted by hand."""
    width, inner = 1024, 4096
    yield "embeddings.word_embeddings.weight", [50_265, width]
    yield "embeddings.position_embeddings.weight", [514, width]
    yield "embeddings.token_type_embeddings.weight", [1, width]
    norms = ["embeddings.LayerNorm"]
    affine: dict[str, tuple[int, int]] = {"pooler.dense": (width, width)}
    for i in range(24):
        layer = f"encoder.layer.{i}"
        for name in ("query", "key", "value"):
            affine[f"{layer}.attention.self.{name}"] = (width, width)
        affine[f"{layer}.attention.output.dense"] = (width, width)
        affine[f"{layer}.intermediate.dense"] = (inner, width)
        affine[f"{layer}.output.dense"] = (width, inner)
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    for name in norms:
        yield f"{name}.weight", [width]
        yield f"{name}.bias", [width]
    for name, (out, start) in affine.items():
        yield f"{name}.weight", [out, start]
        yield f"{name}.bias", [out]


def audio_keys(name: str) -> list[tuple[str, list[int]]]:
    """The names and shapes of a public audio checkpoint."""
    described = json.loads(needs(f"golden/checkpoints/{name}.keys.json").read_text())
    return [(entry["key"], entry["shape"]) for entry in described["keys"]]


def full_size(audio: str, names: Published) -> dict[str, torch.Tensor]:
    """A checkpoint of full size, each key one value of its own, which takes no room on the disk."""
    keys: list[tuple[str, list[int]]] = [("tau", [])]
    keys += [(names.audio + key, shape) for key, shape in audio_keys(audio)]
    keys += [(names.text + key, shape) for key, shape in roberta_keys()]
    keys += [(names.audio_head + "weight", [1024, 768]), (names.audio_head + "bias", [1024])]
    keys += [(names.text_head + "weight", [1024, 1024]), (names.text_head + "bias", [1024])]
    keys += [(key, [1]) for key in names.extra]
    shared = "relative_attention_bias.weight"  # One table in all layers of BEATs.
    numbers = {key: i for i, (key, _) in enumerate(keys, start=1)}
    first = next((i for key, i in numbers.items() if key.endswith(shared)), 0)
    return {
        key: torch.tensor(1e-3 * (first if key.endswith(shared) else numbers[key])).expand(shape)
        for key, shape in keys
    }


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings of RoBERTa-large with a tiny tokenizer, and no weights."""
    folder = tiny_text_folder(tmp_path_factory.mktemp("text") / "roberta", ["a dog barks"])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | ROBERTA_LARGE))
    (folder / "model.safetensors").unlink()
    return folder


def compiled(state: dict[str, torch.Tensor], names: Published) -> dict[str, torch.Tensor]:
    """What `--compile` of the DCASE 2025 baseline makes of the names."""
    prefixes = (names.audio.removesuffix("model."), names.text)
    renamed = {}
    for key, value in state.items():
        prefix = next((p for p in prefixes if key.startswith(p)), "")
        renamed[f"{prefix}_orig_mod.{key.removeprefix(prefix)}" if prefix else key] = value
    return renamed


def filled(network: DualEncoder, state: Iterable[torch.Tensor]) -> None:
    """Every weight of ours is one of the file's values, and no value of the file came twice."""
    values = {round(float(value.flatten()[0]), 6) for value in state}
    seen = []
    for name, weight in network.state_dict().items():
        assert float(weight.min()) == float(weight.max()), name
        seen.append(round(float(weight.flatten()[0]), 6))
        assert seen[-1] in values, name
    assert len(seen) - len(set(seen)) <= 12


@pytest.mark.parametrize(
    ("format", "names", "audio", "is_compiled"),
    [
        pytest.param("salsa", SALSA, "passt_s_p16_s16", False, marks=pytest.mark.slow),
        # PaSST is in the first, the rest in the last; names are stripped in test_weights.py.
        pytest.param("dcase2025", DCASE2025, "passt_s_p16_s16", True, marks=pytest.mark.slow),
        pytest.param(
            *("dcase2025", DCASE2025, "beats_iter3_plus_AS2M_finetuned_cpt2", False),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_full_size_lightning_checkpoints(
    roberta: Path, tmp_path: Path, format: str, names: Published, audio: str, is_compiled: bool
) -> None:
    state = full_size(audio, names)
    stored = compiled(state, names) if is_compiled else state
    hyper_parameters = {"sentence_features": {"model": "roberta-large"}, "tau": 0.05}
    path = tmp_path / "system.ckpt"
    torch.save({"state_dict": stored, "hyper_parameters": hyper_parameters, "epoch": 19}, path)
    info = import_checkpoint(path, format, tmp_path / "m", str(roberta))
    assert info.about["research_only"]
    assert info.settings["audio"]["join"] == ("mean" if format == "salsa" else "duration")
    assert info.settings["text"]["tower"]["max_tokens"] == 32
    filled(load_dual(tmp_path / "m"), state.values())


@pytest.mark.slow
def test_a_weight_too_few_of_a_full_size_checkpoint_is_named(roberta: Path, tmp_path: Path) -> None:
    state = full_size("passt_s_p16_s16", SALSA)
    del state["audio_embedding_model.model.model.cls_token"]
    torch.save({"state_dict": state}, tmp_path / "c.ckpt")
    with pytest.raises(EarshotError, match=r"c\.ckpt: weights do not fit .*cls_token is missing"):
        import_checkpoint(tmp_path / "c.ckpt", "salsa", tmp_path / "m", str(roberta))
    assert not (tmp_path / "m").exists()


SMALL_BEATS = {
    "encoder_layers": 1,
    "encoder_embed_dim": 48,
    "encoder_ffn_embed_dim": 64,
    "encoder_attention_heads": 4,
    "embed_dim": 24,
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "finetuned_model": True,
    "predictor_class": 527,
}
BEATS = "beats-iter3-plus-as2m-finetuned"


def small_beats(path: Path, **changes: object) -> Beats:
    """A file of BEATs that is smaller than any published one, as its settings say."""
    torch.manual_seed(6)
    network = Beats(config_from_public(SMALL_BEATS | changes)).eval()
    torch.save({"cfg": SMALL_BEATS | changes, "model": network.state_dict()}, path)
    return network


def test_the_settings_of_a_file_are_kept(tmp_path: Path) -> None:
    network = small_beats(tmp_path / "b.pt")
    info = import_checkpoint(tmp_path / "b.pt", BEATS, tmp_path / "m")
    assert info.settings["settings"]["width"] == 48
    model = load(str(tmp_path / "m"), "cpu")
    noise = np.random.default_rng(2).normal(0, 0.1, 160_000).astype(np.float32)
    with torch.no_grad():
        logits = network(torch.from_numpy(noise)[None], torch.tensor([160_000])).logits
    assert model.embed_audio([noise]) == pytest.approx(audio_vectors(logits.numpy()), abs=1e-5)
    before = model.fingerprint
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["settings"]["settings"]["max_distance"] = 400
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    assert load(str(tmp_path / "m"), "cpu").fingerprint != before


def test_a_file_without_the_tags_is_no_model(tmp_path: Path) -> None:
    """Its own settings count, not those of the name that it is given."""
    small_beats(tmp_path / "b.pt", finetuned_model=False)
    with pytest.raises(EarshotError, match=r"the network in \S+b\.pt does not hear"):
        import_checkpoint(tmp_path / "b.pt", BEATS, tmp_path / "m")
    small_beats(tmp_path / "c.pt")
    file = torch.load(tmp_path / "c.pt", weights_only=True)
    torch.save(file | {"cfg": SMALL_BEATS | {"encoder_layers": "two"}}, tmp_path / "c.pt")
    with pytest.raises(EarshotError, match=r"c\.pt: settings of beats\S+: layers: "):
        import_checkpoint(tmp_path / "c.pt", BEATS, tmp_path / "m")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tagger": "mn99"}, "no audio encoder 'mn99'"),
        ({"tagger": "mn10"}, "model.safetensors: weights do not fit mn10"),
        ({"surprise": 1}, "config.json: settings.surprise is unknown"),
        ({"matching": {"surprise": 1}}, "config.json: settings.matching.surprise is unknown"),
        ({"matching": 3}, "config.json: settings.matching: "),
        ({"settings": {"surprise": 1}}, "mn04 has no setting 'surprise'"),
        ({"settings": {"front_end": {"surprise": 1}}}, "mn04.front_end has no setting 'surprise'"),
        ({"hop_s": "often"}, "config.json: settings.hop_s: "),
        (None, "lacks model.safetensors"),
    ],
)
def test_a_folder_of_a_tagger_that_is_not_whole_says_so(
    tmp_path: Path, change: dict[str, object] | None, reason: str
) -> None:
    torch.save(audio_encoder("mn04").state_dict(), tmp_path / "t.pt")
    import_checkpoint(tmp_path / "t.pt", "mn04", tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["settings"] |= change or {}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    if change is None:
        (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(EarshotError) as caught:
        load(str(tmp_path / "m"), "cpu")
    assert reason in str(caught.value)
    assert str(tmp_path / "m") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_that_an_older_version_did_not_know_are_as_usual(tmp_path: Path) -> None:
    torch.save(audio_encoder("mn04").state_dict(), tmp_path / "t.pt")
    import_checkpoint(tmp_path / "t.pt", "mn04", tmp_path / "m")
    before = load(str(tmp_path / "m"), "cpu").fingerprint
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    for name in ("settings", "matching"):
        del config["settings"][name]
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    assert load(str(tmp_path / "m"), "cpu").fingerprint == before


AUDIO, TEXT = SALSA.audio, SALSA.text
SMALL_SALSA = {
    f"{AUDIO}time_new_pos_embed": torch.ones(1, 8, 1, 62),
    f"{TEXT}embeddings.word_embeddings.weight": torch.ones(9, 1024),
    "project_audio.0.weight": torch.ones(16, 8),
    "project_sentence.0.weight": torch.ones(16, 8),
    "tau": torch.ones(1),
}
LAYER = {"audio_sequence.0.linear1.weight": torch.ones(5, 24)}
TOKEN = {"audio_token": torch.ones(1, 1, 24)}


@pytest.mark.parametrize(
    ("change", "hyper_parameters", "reason"),
    [
        ({"surprise": torch.ones(1)}, {}, "has surprise, which salsa has not"),
        ({"project_audio.0.weight": None}, {}, "no project_audio.*: no checkpoint of salsa"),
        (LAYER, {}, "no weight *audio_token"),
        (TOKEN | {"audio_sequence.0.norm1.weight": torch.ones(5)}, {}, "linear1.weight"),
        (LAYER | {"audio_token": torch.ones(24)}, {}, "*audio_token with 3 or more axes"),
        (LAYER | TOKEN, {"audio_features": {"sequence_model": {"nhead": 7}}}, "7 heads"),
        (
            {"project_sentence.0.weight": None, "project_sentence.0.bias": torch.ones(1)},
            {},
            "heads",
        ),
        ({"project_audio.0.weight": torch.ones(())}, {}, "one of its heads"),
        ({f"{TEXT}embeddings.word_embeddings.weight": torch.ones(3)}, {}, "word_embeddings.weight"),
        (
            {
                f"{TEXT}embeddings.word_embeddings.weight": None,
                f"{TEXT}embeddings.LayerNorm.bias": torch.ones(3),
            },
            {},
            "no weight *word_embeddings.weight",
        ),
        ({f"{AUDIO}time_new_pos_embed": torch.ones(62)}, {}, "time_new_pos_embed"),
        ({f"{AUDIO}time_new_pos_embed": torch.ones(1, 8, 1, 50)}, {}, "neither PaSST"),
        ({"tau": torch.ones(3)}, {}, "tau holds 3 numbers"),
        ({}, {"audio_features": {"adopt_n_layers": "two"}}, "adopt_n_layers is 'two'"),
        ({}, {"audio_features": 3}, "audio_features is 3"),
        ({}, {"audio_features": {"segment_length": 20}}, "segments last 20 s"),
        ({}, {"normalize": False}, "normalize is False; only True"),
        (
            LAYER | TOKEN,
            {"audio_features": {"sequence_model": {"posencode_project": True}}},
            "posencode_project is True",
        ),
    ],
)
def test_odd_checkpoints_of_salsa_are_one_line(
    roberta: Path,
    tmp_path: Path,
    change: dict[str, torch.Tensor | None],
    hyper_parameters: dict[str, object],
    reason: str,
) -> None:
    state = {key: value for key, value in (SMALL_SALSA | change).items() if value is not None}
    path = tmp_path / "odd.ckpt"
    torch.save({"state_dict": state, "hyper_parameters": hyper_parameters}, path)
    with pytest.raises(EarshotError) as caught:
        import_checkpoint(path, "salsa", tmp_path / "m", str(roberta))
    assert reason in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m").exists()


def parts_of(told: dict[str, object], join: dict[str, torch.Tensor] | None = None) -> Parts:
    """A small system: an audio head of two hidden layers, a text head of one."""
    sizes = {"0": (6, 8), "2": (6, 6), "4": (4, 6)}
    audio_head = {f"{name}.weight": torch.ones(size) for name, size in sizes.items()}
    return Parts(
        audio={"time_new_pos_embed": torch.ones(1, 8, 1, 62)},
        text={"embeddings.word_embeddings.weight": torch.ones(9, 768)},
        audio_head=dict(reversed(audio_head.items())),
        text_head={"0.weight": torch.ones(5, 8), "2.weight": torch.ones(4, 5)},
        join=join or {},
        temperature=torch.tensor([-0.1]),
        told=told,
    )


def test_each_head_has_its_own_depth() -> None:
    config = system_config("salsa", parts_of({}))
    heads = (config.audio_head, config.text_head)
    assert [(head.hidden_layers, head.hidden_dimension) for head in heads] == [(2, 6), (1, 5)]
    assert config.dimension == 4
    assert config.temperature == pytest.approx(0.1)
    assert config.text.tower.name == "roberta-base"


def test_hyper_parameters_decide_what_shapes_do_not_tell() -> None:
    told = {
        "init_audio_token_with_mean": False,
        "audio_features": {
            "adopt_n_layers": 2,
            "hop_length": 5,
            "sequence_model": {"nhead": 4, "dropout": 0, "norm_first": False},
        },
        "sentence_features": {
            "model": "bert-base-uncased",
            "use_first_token": False,
            "max_sentence_tokens": 20,
            "remove_punctuation": False,
        },
    }
    config = system_config("salsa", parts_of(told, LAYER | TOKEN))
    assert config.audio.hop_s == 5.0
    transformer = config.audio.transformer
    assert (transformer.dimension, transformer.heads, transformer.layers) == (24, 4, 1)
    assert (transformer.dropout, transformer.norm_first) == (0.0, False)
    assert not transformer.token_from_mean
    tower = config.text.tower
    assert (tower.name, tower.pooling, tower.max_tokens) == ("bert-base-uncased", "mean", 20)
    assert not tower.clean_up.remove_punctuation


def test_every_system_says_its_licence() -> None:
    for format in FORMATS:
        assert published(format)["licence"]
    assert not published("dcase2023")["research_only"]


@pytest.mark.parametrize(
    ("name", "licence"),
    [("mn04_as_mAP_432.pt", "MIT"), ("own.pt", "not known; the published mn04_as_mAP_432.pt has")],
)
def test_an_imported_tagger_has_a_card(tmp_path: Path, name: str, licence: str) -> None:
    """The published licence is that of the published file."""
    torch.save(audio_encoder("mn04").state_dict(), tmp_path / name)
    import_checkpoint(tmp_path / name, "mn04", tmp_path / "m")
    assert read_info(tmp_path / "m").about["licence"].startswith(licence)
    _, header, text = (tmp_path / "m" / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(header)["license"] == ("mit" if licence == "MIT" else "other")
    assert f"- Licence: {licence}" in text
    assert "a tagger of AudioSet's 527 tags" in text
    # Written again over itself: the card is a part of the model.
    import_checkpoint(tmp_path / name, "mn04", tmp_path / "m")


def test_a_tagger_becomes_a_model_that_can_be_asked(tmp_path: Path) -> None:
    torch.manual_seed(1)
    torch.save(audio_encoder("mn04").state_dict(), tmp_path / "tagger.pt")
    done = earshot("import", "tagger.pt", "--as", "mn04", "--to", "mine", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["kind"] == "tags", done.stderr
    told = json.loads(earshot("models", "mine", "--json", cwd=tmp_path).stdout)
    assert told[0]["kind"] == "tags"


@pytest.mark.parametrize(
    ("format", "reason"),
    [
        ("mn1O", "no format 'mn1O'"),
        ("cnn14-dcase2023", "earshot embed"),
        ("mn10", "weights do not fit"),
        ("salsa", "no audio_embedding_model.model.model.*"),
    ],
)
def test_wrong_imports_are_one_line(tmp_path: Path, format: str, reason: str) -> None:
    torch.save(audio_encoder("mn04").state_dict(), tmp_path / "t.pt")
    with pytest.raises(EarshotError) as caught:
        import_checkpoint(tmp_path / "t.pt", format, tmp_path / "m")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m").exists()


def test_a_wrong_import_is_a_line_and_a_code(tmp_path: Path) -> None:
    torch.save(audio_encoder("mn04").state_dict(), tmp_path / "t.pt")
    told = refused(earshot("import", "t.pt", "--as", "mn10", "--to", "m", cwd=tmp_path))
    assert "t.pt: weights do not fit" in told


def test_an_encoder_with_random_weights_is_no_encoder() -> None:
    """PANNs' files lack the projection of DCASE 2023's encoder: training alone may begin so."""
    state = public_names(audio_encoder("cnn14").state_dict())
    with pytest.raises(EarshotError, match=r"lacks projection\.weight of cnn14-dcase2023"):
        encoder_of("cnn14-dcase2023", WeightFile(path=Path("p.pth"), tensors=state, kind="PANNs"))


def public_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of CNN14 by PANNs' names."""
    public = {own: name for name, own in own_names(6).items() if not name.startswith("cnn.")}
    public |= {"hidden": "fc1", "classifier": "fc_audioset"}
    renamed = {}
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        renamed[f"{public.get(module, module)}.{leaf}"] = value
    return renamed
