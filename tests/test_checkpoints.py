"""Public checkpoints say where they are from, and wrong ones are refused."""

import json
from pathlib import Path

import huggingface_hub
import pytest

from earshot import checkpoints
from earshot.checkpoints import ENCODER_WEIGHTS, TAGGERS, joint_folder, sentence_folder
from earshot.checkpoints.hub import is_whole
from earshot.encoders.sentence import sentence_encoder
from earshot.types import EarshotError


def test_every_checkpoint_says_where_it_is_from() -> None:
    taggers = [checkpoint.asset for checkpoint in TAGGERS.values()]
    for asset in (*taggers, *ENCODER_WEIGHTS.values()):
        assert asset.url.startswith("https://")
        assert asset.licence


def test_a_wrong_sentence_encoder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published name with other weights in the package that ships it."""
    (tmp_path / "model.safetensors").write_bytes(b"other")
    monkeypatch.setattr("earshot.checkpoints.package_folder", lambda *names: tmp_path)
    with pytest.raises(EarshotError, match="not the published all-MiniLM-L6-v2"):
        sentence_folder("all-MiniLM-L6-v2")


def test_a_sentence_encoder_with_a_dense_layer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "modules.json").write_text(
        '[{"type": "sentence_transformers.models.Transformer"},'
        ' {"type": "sentence_transformers.models.Dense"}]'
    )
    with pytest.raises(EarshotError, match="module Dense"):
        sentence_encoder(tmp_path)


def test_a_folder_does_not_take_a_known_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("all-mpnet-base-v2", "clap-htsat-unfused"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(checkpoints, "from_hub", lambda repository, *_: Path("hub", repository))
    hub = Path("hub", "sentence-transformers", "all-mpnet-base-v2")
    assert sentence_folder("all-mpnet-base-v2") == hub
    assert sentence_folder("./all-mpnet-base-v2").is_dir()
    assert joint_folder("clap-htsat-unfused") == Path("hub", "laion", "clap-htsat-unfused")
    assert joint_folder("./clap-htsat-unfused").is_dir()
    assert joint_folder(Path("clap-htsat-unfused")).is_dir()


FILES = ("config.json", "tokenizer.json", "model-1-of-2.safetensors", "model-2-of-2.safetensors")


@pytest.mark.parametrize("absent", FILES)
def test_a_partial_copy_in_the_hubs_cache_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    for name in FILES:
        (tmp_path / name).write_text("{}")
    shards = {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    # An index of files in the other format, which nobody fetched.
    other = tmp_path / "pytorch_model.bin.index.json"
    other.write_text(json.dumps({"weight_map": {"a": "pytorch_model-1-of-1.bin"}}))
    online = []

    def download(repository: str, local_files_only: bool, **_: object) -> str:
        if not local_files_only:
            online.append(repository)
            (tmp_path / absent).write_text("{}")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert joint_folder("owner/name") == tmp_path
    assert not online
    (tmp_path / absent).unlink()
    assert joint_folder("owner/name") == tmp_path
    assert online == ["owner/name"]


DAMAGED = ("", "{", "[]", "{}", '{"weight_map": 5}', '{"weight_map": ["a"]}', "[" * 10**5)


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_index_of_weights_is_named(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "models--owner--name" / "snapshots" / "revision"
    folder.mkdir(parents=True)
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(EarshotError, match=r"index\.json is damaged .*delete .*--name and") as told:
        is_whole(folder, "*.safetensors")
    assert "\n" not in str(told.value)


OFFERS = {
    "https://huggingface.co": True,
    "https://hub.example/mirror": True,
    "http://127.0.0.1:8080": True,
    "http://[::1]:8080": True,
    "http://localhost": True,
    "http://hub.example": False,
    "http://127.0.0.1@hub.example": False,
    "http://localhost.example": False,
    "ftp://localhost": False,
    "http://[": False,
    "": False,
}


@pytest.mark.parametrize("endpoint", OFFERS)
def test_a_hub_is_asked_safely_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    online = []

    def download(repository: str, local_files_only: bool, **_: object) -> str:
        if not local_files_only:
            online.append(repository)
        raise OSError("not here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    match = "the hub did not give it" if OFFERS[endpoint] else "HF_ENDPOINT is .* give a https"
    with pytest.raises(EarshotError, match=match):
        joint_folder("owner/name")
    assert bool(online) == OFFERS[endpoint]
