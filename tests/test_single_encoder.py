"""A single encoder on files: its own vectors and logits, from any checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from command_line import earshot, refused
from conftest import make_recordings

from earshot import audio
from earshot.encoders.catalogue import audio_encoder
from earshot.files import sha256_of
from earshot.model.single import SingleEncoder, published
from earshot.types import EarshotError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_recordings(tmp_path / "sounds", 3)
    torch.manual_seed(2)
    state = audio_encoder("tiny-efficientat").state_dict()
    torch.save({"model": state, "epoch": 3}, tmp_path / "tiny.pt")
    return tmp_path


ASKED = ("--encoder", "tiny-efficientat", "--checkpoint", "tiny.pt", "--out", "x.npz")


def test_vectors_and_logits_of_files(folder: Path) -> None:
    told = json.loads(earshot("embed", "sounds", *ASKED, "--json", cwd=folder).stdout)
    assert told == {"out": "x.npz", "segments": 3, "broken": []}
    network = audio_encoder("tiny-efficientat").eval()
    network.load_public(torch.load(folder / "tiny.pt", weights_only=True)["model"])
    with np.load(folder / "x.npz", allow_pickle=False) as found:
        assert str(found["model"]) == "tiny-efficientat"
        for path, vector, logits in zip(
            found["ids"], found["vectors"], found["logits"], strict=True
        ):
            waveform = torch.from_numpy(audio.read(str(path), sample_rate_hz=32_000))[None]
            with torch.no_grad():
                heard = network(waveform, torch.tensor([waveform.shape[1]]))
            assert heard.embedding[0].numpy() == pytest.approx(vector, abs=1e-4)
            assert heard.logits is not None
            assert heard.logits[0].numpy() == pytest.approx(logits, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--encoder", "mn1O"), "did you mean mn10"),
        (("--encoder", "tiny-efficientat"), "give --checkpoint FILE"),
        (("--encoder", "mn10", "--checkpoint", "tiny.pt"), "weights do not fit"),
        (("--encoder", "mn10", "--checkpoint", "no.pt"), "no.pt does not exist"),
        (("--encoder", "mn10", "--model", "tags"), "either"),
        (("--checkpoint", "tiny.pt"), "--encoder NAME"),
    ],
)
def test_what_does_not_go_together(folder: Path, arguments: tuple[str, ...], reason: str) -> None:
    assert reason in refused(earshot("embed", "sounds", "--out", "x.npz", *arguments, cwd=folder))


def test_no_recordings_have_no_vectors(folder: Path) -> None:
    encoder = SingleEncoder("tiny-efficientat", folder / "tiny.pt", "cpu")
    assert encoder.embed_audio([]).shape == (0, encoder.dimension)


@pytest.mark.parametrize(
    ("encoder", "file"),
    [
        ("passt_20", "passt-s-f128-20sec-p16-s10-ap.474-swa.pt"),
        ("passt_l", "passt-l-kd-ap.47.pt"),
        ("cnn14-dcase2023", "audio_encoder.pth"),
        ("atst-frame-base", "atst_as2M.ckpt"),
    ],
)
def test_every_encoder_with_public_weights_is_known(encoder: str, file: str) -> None:
    assert published(encoder).name == file


def test_the_hash_of_public_weights_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARSHOT_HOME", str(folder / "home"))
    monkeypatch.setenv("EARSHOT_ASSETS", str(folder))
    torch.manual_seed(5)
    torch.save(audio_encoder("mn05").state_dict(), folder / "mn05_as_mAP_443.pt")
    SingleEncoder("mn05", device="cpu")
    kept = folder / "home" / "assets" / "mn05_as_mAP_443.pt.sha256"
    assert kept.read_text() == sha256_of(folder / "mn05_as_mAP_443.pt")


def test_a_whole_recording_is_one_vector(folder: Path) -> None:
    random = np.random.default_rng(4)
    (folder / "long").mkdir()
    for name, seconds in (("a", 23), ("b", 2)):
        noise = random.normal(0, 0.1, seconds * 16_000)
        soundfile.write(folder / "long" / f"{name}.wav", noise, 16_000)
    told = earshot("embed", "long", *ASKED, "--whole", "--json", cwd=folder)
    assert json.loads(told.stdout)["segments"] == 2
    network = audio_encoder("tiny-efficientat").eval()
    network.load_public(torch.load(folder / "tiny.pt", weights_only=True)["model"])
    with np.load(folder / "x.npz", allow_pickle=False) as found:
        for path, vector in zip(found["ids"], found["vectors"], strict=True):
            waveform = torch.from_numpy(audio.read(str(path), sample_rate_hz=32_000))[None]
            with torch.no_grad():
                heard = network(waveform, torch.tensor([waveform.shape[1]]))
            assert heard.embedding[0].numpy() == pytest.approx(vector, abs=1e-4)


def test_what_cannot_hear_whole_recordings_says_so(folder: Path) -> None:
    torch.save(audio_encoder("tiny-passt").state_dict(), folder / "tiny.pt")
    with pytest.raises(EarshotError, match="hears 10 s at a time"):
        SingleEncoder("tiny-passt", folder / "tiny.pt", "cpu", whole=True)
