"""EfficientAT against its reference, with golden and with real weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import Golden, golden_clip, golden_state, needs

from earshot import audio
from earshot.encoders.mobilenet import PRESETS, TINY, ActivatedConvolution, MobileNet
from earshot.model.inference import prepared_copy
from earshot.types import EarshotError, Encoded

CLIPS = ["example", "dog", "sea", "synth", "example10s"]


@torch.inference_mode()
def encode(network: MobileNet, waveform: torch.Tensor) -> Encoded:
    return network(waveform, torch.tensor([waveform.shape[1]]))


def check(golden: Golden, encoded: Encoded, prefix: str) -> None:
    assert encoded.logits is not None
    golden.check(encoded.logits[0], f"{prefix}__logits")
    golden.check(encoded.embedding[0], f"{prefix}__embedding")


@pytest.fixture(scope="module")
def mn10() -> MobileNet:
    network = MobileNet(PRESETS["mn10"]).eval()
    network.load_public(golden_state("efficientat_mn10_as"))
    return network


@pytest.fixture(scope="module")
def mn04() -> MobileNet:
    weights = torch.load(needs("models/mn04_as_mAP_432.pt"), weights_only=True)
    network = MobileNet(PRESETS["mn04"]).eval()
    network.load_public(weights)
    return network


@pytest.mark.parametrize("clip", CLIPS)
def test_mn10_equals_reference(mn10: MobileNet, clip: str) -> None:
    check(Golden("encoders/efficientat_mn10"), encode(mn10, golden_clip(clip, 32_000)), clip)


def test_sequence_is_the_course_of_the_embedding(mn10: MobileNet) -> None:
    heard = encode(mn10, golden_clip("dog", 32_000))
    assert heard.sequence is not None
    assert heard.valid is not None
    golden = Golden("encoders/efficientat_mn10")
    golden.check(heard.sequence[0].T, "dog__feature_map_mean_over_freq")
    assert heard.valid.all()
    assert torch.allclose(heard.sequence.mean(1), heard.embedding, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("clip", CLIPS)
def test_real_mn04_equals_reference(mn04: MobileNet, clip: str) -> None:
    golden = Golden("encoders/efficientat_mn04_real_esc10")
    check(golden, encode(mn04, golden_clip(clip, 32_000)), f"clip_{clip}")


@pytest.mark.parametrize("step", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_real_mn04_on_real_recordings(mn04: MobileNet, step: int) -> None:
    """The 200 recordings of the golden file, decoded from Ogg and resampled as everywhere here."""
    golden = Golden("encoders/efficientat_mn04_real_esc10")
    golden.arrays = {name: golden.arrays[name][::step] for name in ("logits", "embedding")}
    folder = needs("data/esc10")
    paths = {path.name: path for path in folder.rglob("*.ogg")}
    encoded = [
        encode(mn04, decode(paths[Path(entry["file"]).name]))
        for entry in golden.facts["files"][::step]
    ]
    golden.check(torch.cat([e.logits for e in encoded if e.logits is not None]), "logits")
    golden.check(torch.cat([e.embedding for e in encoded]), "embedding")


@pytest.mark.parametrize("clip", CLIPS)
def test_fastest_inference_equals_reference(mn04: MobileNet, mn10: MobileNet, clip: str) -> None:
    waveform = golden_clip(clip, 32_000)
    golden = Golden("encoders/efficientat_mn04_real_esc10")
    check(golden, encode(prepared_copy(mn04, "cpu"), waveform), f"clip_{clip}")
    check(Golden("encoders/efficientat_mn10"), encode(prepared_copy(mn10, "cpu"), waveform), clip)


def decode(path: Path) -> torch.Tensor:
    """As everywhere here, but for its length: the reference rounds up and fills with a zero."""
    waveform = audio.read(path, sample_rate_hz=32_000)
    info = soundfile.info(path)
    missing = -(-info.frames * 32_000 // info.samplerate) - len(waveform)
    return torch.from_numpy(np.pad(waveform, (0, missing)))[None]


@pytest.mark.parametrize("name", ["mn04", "mn10"])
def test_vectors_do_not_depend_on_the_batch(name: str) -> None:
    """Clips of any length, a single sample included, alone and padded together."""
    torch.manual_seed(0)
    network = MobileNet(PRESETS[name]).eval()
    lengths = torch.tensor([1, 640, 20_000, 32_000, 90_123])
    waveforms = 0.1 * torch.randn(5, 90_123)
    for row, length in zip(waveforms, lengths.tolist(), strict=True):
        row[length:] = 0
    with torch.inference_mode():
        together = network(waveforms, lengths)
    for i, length in enumerate(lengths.tolist()):
        alone = encode(network, waveforms[i : i + 1, :length])
        assert alone.logits is not None
        assert torch.allclose(together.logits[i], alone.logits[0], atol=1e-5)
        assert torch.allclose(together.embedding[i], alone.embedding[0], atol=1e-5)


def test_folded_norms_change_nothing() -> None:
    torch.manual_seed(0)
    network = MobileNet(PRESETS["mn04"]).eval()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(layer.running_mean, -0.5, 0.5)
    waveform = 0.1 * torch.randn(1, 50_000)
    before = encode(network, waveform).embedding
    assert torch.allclose(encode(network.fold_norms(), waveform).embedding, before, atol=1e-5)


@pytest.mark.parametrize("activation", [None, torch.nn.ReLU(), torch.nn.Hardswish()])
@pytest.mark.parametrize(("groups", "kernel", "stride"), [(1, 1, 1), (8, 3, 2), (1, 3, 1)])
def test_a_fused_convolution_is_one_after_the_other(
    activation: torch.nn.Module | None, groups: int, kernel: int, stride: int
) -> None:
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=groups)
    layer = ActivatedConvolution(convolution, activation)
    features = 3 * torch.randn(2, 8, 12, 31).to(memory_format=torch.channels_last)
    apart = layer(features)  # With gradients, which the fused one does not have.
    with torch.inference_mode():
        assert torch.allclose(layer(features), apart, atol=1e-5)


def test_folded_norms_can_be_compiled() -> None:
    torch.manual_seed(0)
    network = MobileNet(TINY).eval().fold_norms()
    inputs = 0.1 * torch.randn(1, 50_000), torch.tensor([50_000])
    with torch.inference_mode():
        compiled = torch.compile(network, fullgraph=True, backend="eager")(*inputs).embedding
        assert torch.allclose(compiled, network(*inputs).embedding, atol=1e-5)


def test_silence_after_a_clip_is_what_zeros_would_be() -> None:
    """Silent frames are filled in, not computed; the network must not notice."""
    torch.manual_seed(0)
    network = MobileNet(replace(PRESETS["mn04"], silence_to_s=3.0)).eval()
    plain = MobileNet(PRESETS["mn04"]).eval()
    plain.load_state_dict(network.state_dict())
    lengths = torch.tensor([1, 700, 31_000, 95_990, 96_000, 130_000])
    waveforms = 0.1 * torch.randn(6, 130_000)
    with torch.inference_mode():
        together = network(waveforms, lengths).embedding
    for i, length in enumerate(lengths.tolist()):
        zeros = torch.zeros(1, max(96_000, length))
        zeros[0, :length] = waveforms[i, :length]
        assert torch.allclose(together[i], encode(plain, zeros).embedding[0], atol=1e-5)


def test_padding_content_is_ignored() -> None:
    torch.manual_seed(0)
    network = MobileNet(PRESETS["mn04"]).eval()
    lengths = torch.tensor([20_000, 40_000])
    waveforms = 0.1 * torch.randn(2, 40_000)
    silent = waveforms.clone()
    silent[0, 20_000:] = 0
    with torch.inference_mode():
        a, b = network(waveforms, lengths).embedding, network(silent, lengths).embedding
    assert np.allclose(a, b, atol=1e-6)


def test_wrong_weights_are_named() -> None:
    network = MobileNet(PRESETS["mn04"])
    with pytest.raises(EarshotError, match=r"do not fit EfficientAT of width 0\.4"):
        network.load_public(golden_state("efficientat_mn10_as"))
    with pytest.raises(EarshotError, match="do not fit"):
        network.load_public({})
