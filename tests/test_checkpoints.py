"""Checkpoints load safely: tensors or nothing, and nothing that is loaded runs code."""

import os
from pathlib import Path

import pytest
import torch

from earshot.checkpoints import TAGGERS, load_weights, sentence_folder
from earshot.encoders.sentence import sentence_encoder
from earshot.types import EarshotError


class Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.canary}",)


def test_a_pickle_that_runs_code_is_refused_unrun(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    torch.save({"weight": Evil(canary)}, tmp_path / "evil.pt")
    with pytest.raises(EarshotError, match="nothing in it was run"):
        load_weights(tmp_path / "evil.pt")
    assert not canary.exists()


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04broken"])
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(content)
    with pytest.raises(EarshotError, match=r"w\.pt is no checkpoint") as raised:
        load_weights(path)
    assert "\n" not in str(raised.value)


def test_only_state_dicts_of_tensors(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    for value in ([torch.ones(1)], {"weight": 1.0}):
        torch.save(value, path)
        with pytest.raises(EarshotError, match="no state dict of tensors"):
            load_weights(path)
    torch.save({"weight": torch.ones(1)}, path)
    assert torch.equal(load_weights(path)["weight"], torch.ones(1))


def test_every_checkpoint_says_where_it_is_from() -> None:
    for checkpoint in TAGGERS.values():
        assert checkpoint.asset.url.startswith("https://")
        assert checkpoint.asset.licence


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
