"""Exported models: equal to their originals, and searched without torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import earshot, refused
from conftest import make_recordings, needs
from tiny_hub import save_clap, save_pe

from earshot.audio import segments
from earshot.encoders.aggregate import TINY as TINY_TRANSFORMER
from earshot.encoders.text import TextConfig
from earshot.encoders.tiny_text import tiny_text_folder
from earshot.model import load
from earshot.model.dual import AudioSide, DualEncoder, DualEncoderConfig, TextSide
from earshot.model.folder import save_dual, write_whole
from earshot.model.listing import describe
from earshot.types import EarshotError, Model

for name in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(name)
from earshot.model import export, onnx_graphs  # noqa: E402
from earshot.model.export import TOLERANCE, export_onnx  # noqa: E402
from earshot.model.onnx_model import OnnxModel  # noqa: E402

SENTENCES = ("a dog barks", "heavy rain falls on a tin roof", "Two people talk, far away!")
SIDES = {
    "tiny-passt": AudioSide(
        encoder="tiny-passt", join="transformer", transformer=TINY_TRANSFORMER, hop_s=5.0
    ),
    "tiny-cnn14": AudioSide(encoder="tiny-cnn14"),
    "tiny-efficientat": AudioSide(encoder="tiny-efficientat"),
    "tiny-beats": AudioSide(encoder="tiny-beats", join="duration"),
}


def saved(folder: Path, encoder: str) -> Path:
    """A tiny model with random weights."""
    text_folder = tiny_text_folder(folder / "text", SENTENCES)
    text = TextSide(tower=TextConfig(name="tiny", pooling="cls", max_tokens=32))
    torch.manual_seed(4)
    config = DualEncoderConfig(audio=SIDES[encoder], text=text, dimension=16)
    save_dual(DualEncoder(config, text_folder), folder / "m", name="m")
    return folder / "m"


def noises(model: Model, seconds: tuple[float, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(7)
    draws = [random.normal(0, 0.1, round(s * model.sample_rate_hz)) for s in seconds]
    return [draw.astype(np.float32) for draw in draws]


def assert_same(exported: Model, model: Model) -> None:
    """Vectors equal the original's, which tell their inputs apart."""
    for seconds in ((9.0, 0.2, 4.0), (0.01,), *([(11.0, 31.0)] if model.joins_segments else [])):
        waves = noises(model, seconds)
        assert exported.embed_audio(waves) == pytest.approx(model.embed_audio(waves), abs=TOLERANCE)
    texts = [*SENTENCES, "", "far " * 50]
    expected = model.embed_text(texts)
    assert exported.embed_text(texts) == pytest.approx(expected, abs=TOLERANCE)
    assert np.abs(expected[0] - expected[1]).max() > 10 * TOLERANCE
    assert exported.embed_text([]).shape == exported.embed_audio([]).shape == (0, model.dimension)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, OnnxModel]:
    """A dual encoder with overlapping segments, and its export."""
    folder = tmp_path_factory.mktemp("dual")
    model = load(str(saved(folder, "tiny-passt")), "cpu")
    export_onnx(model, folder / "onnx")
    exported = load(str(folder / "onnx"))
    assert isinstance(exported, OnnxModel)
    return model, exported


@pytest.mark.slow
def test_a_dual_encoder_stays_the_same(pair: tuple[Model, OnnxModel]) -> None:
    model, exported = pair
    assert_same(exported, model)
    assert exported.fingerprint == model.fingerprint
    described = json.loads((exported.folder / "export.json").read_text())
    assert described["audio"]["inputs"]["waveforms"] == ["batch", "samples"]
    assert 0 <= described["audio"]["quality"]["largest"] <= TOLERANCE
    listed = describe(str(exported.folder))
    assert (listed["kind"], listed["exported_from"]) == ("onnx", model.name)


@pytest.mark.slow
def test_index_with_an_export_and_search_without_torch(
    pair: tuple[Model, OnnxModel], tmp_path: Path
) -> None:
    pytest.importorskip("lancedb")
    make_recordings(tmp_path / "sounds", 3)
    code = (
        "import sys; from earshot.search import Searcher; "
        "print(len(Searcher.open('index').search('a dog barks')), 'torch' in sys.modules, "
        "'transformers' in sys.modules)"
    )
    model = str(pair[1].folder)
    indexed = earshot("index", "sounds", "--to", "index", "--model", model, cwd=tmp_path)
    assert indexed.returncode == 0, indexed.stderr
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert found.stdout.split() == ["3", "False", "False"], found.stderr


@pytest.mark.slow
def test_an_export_that_differs_is_refused(
    pair: tuple[Model, OnnxModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is exact to nothing."""
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    with pytest.raises(EarshotError, match="differs from the original by"):
        export.checked(*pair)


class AsksItsData(torch.nn.Module):
    """What no graph can hold."""

    def forward(self, waveforms: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return waveforms if bool((lengths > 3).all()) else -waveforms


def test_what_the_exporter_cannot_do_is_named_and_not_kept(tmp_path: Path) -> None:
    inputs = {"waveforms": torch.ones(2, 9), "lengths": torch.tensor([9, 4])}
    axes = dict.fromkeys(inputs, {0: torch.export.Dim("batch")})

    def fill(draft: Path) -> None:
        export.write_graph(AsksItsData(), inputs, axes, draft / "audio.onnx")

    with pytest.raises(EarshotError, match=r"audio\.onnx cannot be exported: \w+: ") as caught:
        write_whole(tmp_path / "onnx", fill, ours=False)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_tags_are_exported_whole(random_model: Model, tmp_path: Path) -> None:
    export_onnx(random_model, tmp_path / "onnx", int8=True)
    exported = load(str(tmp_path / "onnx"))
    waves = noises(random_model, (10.0, 0.3))
    heard = exported.embed_audio(waves)
    quality = json.loads((tmp_path / "onnx" / "export.json").read_text())
    for side, got, expected in (
        ("audio", heard, random_model.embed_audio(waves)),
        ("text", exported.embed_text(SENTENCES), random_model.embed_text(SENTENCES)),
    ):
        assert quality[side]["quality"]["int8"]
        # What eight bits cost is told, not promised: random weights have nothing to lose.
        told = quality[side]["quality"]["cosine_loss_mean"]
        assert 0 < told < 0.5
        assert 1 - (got * expected).sum(1).mean() == pytest.approx(told, abs=0.2)
    # Vectors that were made in eight bits do not go into an index of exact ones.
    assert exported.fingerprint != random_model.fingerprint


@pytest.mark.slow
def test_real_weights_hear_the_same(real_model: Model, tmp_path: Path) -> None:
    files = sorted(needs("data/esc10").rglob("*.ogg"))[::60]
    export_onnx(real_model, tmp_path / "onnx")
    exported = load(str(tmp_path / "onnx"))
    spans = {"sample_rate_hz": real_model.sample_rate_hz, "segment_s": 10.0, "hop_s": 10.0}
    waves = [wave for file in files for _, wave in segments(str(file), **spans)]
    assert len(waves) >= 5
    assert exported.embed_audio(waves) == pytest.approx(
        real_model.embed_audio(waves), abs=TOLERANCE
    )


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [name for name in SIDES if name != "tiny-passt"])
def test_other_dual_encoders_stay_the_same(encoder: str, tmp_path: Path) -> None:
    model = load(str(saved(tmp_path, encoder)), "cpu")
    export_onnx(model, tmp_path / "onnx")
    assert_same(load(str(tmp_path / "onnx")), model)


@pytest.mark.slow
def test_a_clap_stays_the_same(tmp_path: Path) -> None:
    (tmp_path / "clap").mkdir()
    save_clap(tmp_path / "clap")
    model = load(str(tmp_path / "clap"), "cpu")
    export_onnx(model, tmp_path / "onnx")
    assert_same(load(str(tmp_path / "onnx")), model)


def test_a_pe_av_is_refused(tmp_path: Path) -> None:
    save_pe(tmp_path)
    with pytest.raises(EarshotError, match="cannot export PE-AV"):
        onnx_graphs.sides_of(load(str(tmp_path), "cpu"))


def test_what_cannot_be_exported_says_so(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert "say in which format: --onnx" in refused(earshot("export", "tags", cwd=tmp_path))
    (tmp_path / "export.json").write_text('{"kind": "onnx"}')
    with pytest.raises(EarshotError, match=r"no exported model \(KeyError: 'name'\)"):
        load(str(tmp_path))


def test_a_tokenizer_without_a_file_is_named() -> None:
    with pytest.raises(EarshotError, match="the tokenizer object has no tokenizer.json"):
        onnx_graphs.fast(object())


def test_a_damaged_export_says_so(tmp_path: Path) -> None:
    info = {
        "kind": "onnx",
        "name": "m",
        "fingerprint": "f",
        "dimension": 4,
        "sample_rate_hz": 100,
        "segment_s": 1.0,
        "hop_s": 1.0,
        "joins_segments": False,
        "audio": {"most_samples": 100},
        "text": {"tokens": {"clean_up": {}}},
    }
    (tmp_path / "export.json").write_text(json.dumps(info))
    (tmp_path / "audio.onnx").write_bytes(b"not a graph")
    model = load(str(tmp_path))
    with pytest.raises(EarshotError, match=r"audio\.onnx cannot be loaded"):
        model.embed_audio([np.zeros(100, np.float32)])
    with pytest.raises(EarshotError, match="hears 100 at a time"):
        model.embed_audio([np.zeros(101, np.float32)])
    with pytest.raises(EarshotError, match="runs on the CPU alone"):
        load(str(tmp_path), "cuda")
