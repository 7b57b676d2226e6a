"""Frozen towers are asked once: tables are found again, taken up again, and never stale."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_batches import ROOT, dataset

from earshot import audio, features
from earshot.batches import BatchConfig, Pairs, loader
from earshot.encoders.text import TextConfig
from earshot.encoders.tiny_text import tiny_text_folder
from earshot.features import audio_features, text_features
from earshot.model.dual import AudioSide, DualEncoder, DualEncoderConfig, TextSide
from earshot.types import EarshotError

CONFIG = DualEncoderConfig(
    audio=AudioSide(encoder="tiny-efficientat", frozen=True),
    text=TextSide(tower=TextConfig(name="tiny", pooling="cls"), frozen=True),
    dimension=16,
)
SECONDS = (0.3, 1.4, 0.7, 0.9, 0.5, 1.0, 0.6)


def tiny_network(folder: Path) -> DualEncoder:
    torch.manual_seed(4)
    return DualEncoder(CONFIG, tiny_text_folder(folder / "text", ("one clip 0 caption 0",)))


@pytest.fixture
def network(tmp_path: Path) -> DualEncoder:
    return tiny_network(tmp_path)


@pytest.fixture
def pairs(tmp_path: Path, network: DualEncoder) -> Pairs:
    return Pairs([dataset(tmp_path / "one", seconds=SECONDS)], network.audio.sample_rate_hz)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "BLOCK_ROWS", 3)
    monkeypatch.setattr(features, "TEXT_BLOCKS", 1)


def counted(tower: torch.nn.Module) -> list[int]:
    """Real calls of a tower from now on, as sizes of batches."""
    calls: list[int] = []
    tower.register_forward_hook(lambda module, given, made: calls.append(1))
    return calls


def test_tables_hold_what_the_towers_make(
    network: DualEncoder, pairs: Pairs, tmp_path: Path
) -> None:
    network.train()
    done: list[tuple[int, int]] = []
    heard = audio_features(network, pairs, tmp_path, batch=2, report=lambda *n: done.append(n))
    read = text_features(network, pairs, tmp_path)
    assert network.audio_head.training
    assert done == [(3, 7), (6, 7), (7, 7)]
    network.eval()
    some = [5, 0, 3]
    for place, row, logits in zip(some, heard.rows(some), heard.encoded(some).logits, strict=True):
        wave = audio.read(pairs.clips[place].path, sample_rate_hz=pairs.sample_rate_hz)
        alone = network.audio_features(torch.from_numpy(wave)[None], torch.tensor([len(wave)]))
        assert (alone.embedding[0] - row).abs().max() < 1e-4
        assert (alone.logits[0] - logits).abs().max() < 1e-4
    texts = [pairs.captions[place].text for place in some]
    expected = network.text_features(network.text.tokenize(texts))
    assert (expected - read.rows(some)).abs().max() < 1e-5
    assert read.encoded(some).logits is None
    with pytest.raises(ValueError, match="read-only"):
        heard.values[0] = 0


def test_batches_bear_them(network: DualEncoder, pairs: Pairs, tmp_path: Path) -> None:
    frozen = pairs.with_tables(
        audio_features(network, pairs, tmp_path), text_features(network, pairs, tmp_path)
    )
    for batch in loader(frozen, BatchConfig(pairs=4), None, seed=0, epoch=0):
        assert batch.audio_features is not None
        assert batch.text_features is not None
        assert network.project_audio(batch.audio_features).shape == (4, 16)
        assert network.project_text(batch.text_features).shape == (4, 16)


def test_what_was_computed_is_not_computed_again(
    network: DualEncoder, pairs: Pairs, tmp_path: Path
) -> None:
    heard, read = audio_features(network, pairs, tmp_path), text_features(network, pairs, tmp_path)
    calls = counted(network.audio), counted(network.text)
    assert np.array_equal(audio_features(network, pairs, tmp_path).values, heard.values)
    assert np.array_equal(text_features(network, pairs, tmp_path).values, read.values)
    assert calls == ([], [])
    # Heads are no part of a tower, and may learn.
    with torch.no_grad():
        network.audio_head.layers[0].bias += 1
    audio_features(network, pairs, tmp_path)
    assert calls == ([], [])


def test_whatever_a_table_depends_on_makes_a_new_one(
    network: DualEncoder, pairs: Pairs, tmp_path: Path
) -> None:
    audio_features(network, pairs, tmp_path)
    text_features(network, pairs, tmp_path)
    calls, reads = counted(network.audio), counted(network.text)
    os.utime(pairs.clips[2].path, ns=(1, 1))
    audio_features(network, pairs, tmp_path)
    assert len(calls) == 3
    with torch.no_grad():
        next(network.audio.parameters()).mul_(1.5)
        next(network.text.parameters()).mul_(1.5)
    audio_features(network, pairs, tmp_path)
    assert len(calls) == 6
    text_features(network, pairs, tmp_path)
    assert len(reads) == 5
    pairs.captions = (replace(pairs.captions[0], text="other words"), *pairs.captions[1:])
    text_features(network, pairs, tmp_path)
    assert len(reads) == 10


def test_what_is_no_number_is_refused(network: DualEncoder, pairs: Pairs, tmp_path: Path) -> None:
    weights = network.text.state_dict()
    kept = {name: values.clone() for name, values in weights.items()}
    second = network.text.tokenize([pairs.captions[1].text])["input_ids"][0]
    first = network.text.tokenize([pairs.captions[0].text])["input_ids"][0]
    only_there = next(int(token) for token in second if token not in first)
    with torch.no_grad():
        network.text.network.get_input_embeddings().weight[only_there] = torch.nan
    named = pairs.captions[1].id
    with pytest.raises(EarshotError, match=f"text tower makes of '{named}' what is no number"):
        text_features(network, pairs, tmp_path)
    network.text.load_state_dict(kept)
    assert np.isfinite(text_features(network, pairs, tmp_path).values).all()


STOPPED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_features import SECONDS, Pairs, audio_features, dataset, features, tiny_network

features.BLOCK_ROWS = 3
folder = Path(sys.argv[1])
network = tiny_network(folder)
pairs = Pairs([dataset(folder / "one", seconds=SECONDS)], network.audio.sample_rate_hz)
audio_features(network, pairs, folder, report=lambda *n: n[0] == 6 and os.kill(os.getpid(), 9))
"""


def test_a_killed_run_is_taken_up(network: DualEncoder, pairs: Pairs, tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", STOPPED, tmp_path], cwd=ROOT, check=False)
    assert run.returncode == -signal.SIGKILL
    (place,) = tmp_path.glob("audio-*")
    assert not (place / "values.npy").exists()
    with (place / "blocks.jsonl").open("ab") as file:
        file.write(b'{"start": 6, "wid')  # torn
    calls = counted(network.audio)
    heard = audio_features(network, pairs, tmp_path)
    assert len(calls) == 1  # of three blocks, the last
    fresh = audio_features(network, pairs, tmp_path / "fresh")
    assert np.array_equal(heard.values, fresh.values)
    assert sorted(path.name for path in place.iterdir()) == ["lock", "table.json", "values.npy"]


def test_a_block_that_is_not_what_was_written_is_computed_again(
    network: DualEncoder, pairs: Pairs, tmp_path: Path
) -> None:
    def stop(done: int, rows: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audio_features(network, pairs, tmp_path, report=stop)
    (place,) = tmp_path.glob("audio-*")
    with (place / "values.part").open("r+b") as file:
        file.seek(200)
        file.write(b"half")
    calls = counted(network.audio)
    heard = audio_features(network, pairs, tmp_path)
    assert len(calls) == 2  # the damaged first and the missing third
    fresh = audio_features(network, pairs, tmp_path / "fresh")
    assert np.array_equal(heard.values, fresh.values)
