"""A file gives the same vectors whatever is embedded beside it; broken files stand apart."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import make_recordings, needs

from earshot import embed as embedding
from earshot.embed import GROUP_FILES, Reports, embed_files, file_state, groups, is_unchanged
from earshot.files import sha256_of
from earshot.types import EmbeddedFile, FileRecord, Model


def embed(paths: list[Path], model: Model, **options: Any) -> dict[str, EmbeddedFile]:
    files = embed_files([str(path) for path in paths], model, **options)
    return {Path(file.record.state.path).name: file for file in files}


def assert_same(a: dict[str, EmbeddedFile], b: dict[str, EmbeddedFile]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].segments == b[name].segments
        assert np.abs(a[name].vectors - b[name].vectors).max() < 1e-5


def test_vectors_are_those_of_the_file_alone(tmp_path: Path, random_model: Model) -> None:
    """Whatever the batch size, the order and the number of workers."""
    paths = make_recordings(tmp_path, 12)
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(1).normal(0, 0.1, 400_000), 16_000)
    paths.append(tmp_path / "long.wav")
    alone = {}
    for path in paths:
        alone.update(embed([path], random_model, workers=1, batch_segments=1))
    assert_same(alone, embed(paths, random_model, workers=1, batch_segments=64))
    assert_same(alone, embed(paths[::-1], random_model, workers=3, batch_segments=5))
    assert len(alone["long.wav"].segments) == 3


def test_real_recordings_do_not_depend_on_the_batch(real_model: Model) -> None:
    paths = sorted(needs("data/sounds").glob("*.ogg"))[:24]
    alone = embed(paths, real_model, workers=1, batch_segments=1)
    assert_same(alone, embed(paths[::-1], real_model, workers=2, batch_segments=16))


def test_broken_files_are_told_apart(tmp_path: Path, random_model: Model) -> None:
    good = make_recordings(tmp_path, 3)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is not audio, whatever its name says\n" * 50)
    soundfile.write(tmp_path / "nan.wav", np.full(8000, np.nan), 16_000, subtype="FLOAT")
    names = ["empty.wav", "text.wav", "nan.wav", "gone.wav"]
    files = embed([*good, *(tmp_path / name for name in names)], random_model, workers=2)
    for name in names:
        assert files[name].record.broken
        assert "\n" not in files[name].record.broken
        assert files[name].vectors.shape == (0, random_model.dimension)
    for path in good:
        assert not files[path.name].record.broken
        assert files[path.name].record.duration_s == pytest.approx(
            soundfile.info(path).duration, abs=1e-3
        )


def test_what_is_no_audio_is_not_read_to_its_end(tmp_path: Path, random_model: Model) -> None:
    """A sparse file has as many bytes as one likes, and takes none of the disk."""
    (path := tmp_path / "sparse.wav").touch()
    os.truncate(path, 10**12)
    reason = embed([path], random_model)["sparse.wav"].record.broken
    assert reason.startswith("not audio")
    (good,) = make_recordings(tmp_path, 1)
    known = FileRecord(state=file_state(str(good)))
    assert not is_unchanged(str(path), path.stat(), known)


def test_a_file_that_grows_is_read_to_where_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path := tmp_path / "grows.wav").write_bytes(bytes(10**6))
    before = file_state(str(path))

    def written_on(name: str, most_bytes: int | None = None) -> str:
        with path.open("ab") as file:
            file.write(b"more")
        return sha256_of(name, most_bytes)

    monkeypatch.setattr(embedding, "sha256_of", written_on)
    assert file_state(str(path)) == before
    assert sha256_of(path) != before.sha256


def test_vectors_have_unit_length(tmp_path: Path, random_model: Model) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(16_000), 16_000)
    soundfile.write(tmp_path / "sample.wav", np.zeros(1), 16_000)
    for file in embed([tmp_path / "silence.wav", tmp_path / "sample.wav"], random_model).values():
        assert not file.record.broken
        assert np.allclose(np.linalg.norm(file.vectors, axis=1), 1.0, atol=1e-5)


class Listener:
    """Hears whole clips, and notes how much of them it is given at a time."""

    name, dimension, sample_rate_hz = "listener", 2, 1000
    segment_s = hop_s = 10.0
    joins_segments = True
    fingerprint = "listener"

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def embed_text(self, sentences: Sequence[str]) -> np.ndarray:
        return np.zeros((len(sentences), 2), np.float32)

    def embed_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        self.batches.append([round(len(wave) / self.sample_rate_hz) for wave in waveforms])
        return np.array([[len(wave), 0] for wave in waveforms], np.float32)


def test_whole_clips_are_batched_by_their_duration(tmp_path: Path) -> None:
    """Padded to the longest, a batch is 160 s at most, or one clip."""
    seconds = [30, 30, 30, 30, 30, 30, 2, 100, 300, 1, 1]
    paths = []
    for i, duration_s in enumerate(seconds):
        paths.append(tmp_path / f"{i:02}.wav")
        soundfile.write(paths[-1], np.full(duration_s * 1000, 0.1), 1000)
    listener = Listener()
    files = embed(paths, listener, workers=1, cut=(3600, 3600))
    assert listener.batches == [[30] * 5, [30, 2], [100], [300], [1, 1]]
    found = [files[path.name].vectors[0, 0] / 1000 for path in paths]
    assert found == pytest.approx(seconds, rel=1e-3)


def test_segments_are_batched_by_their_number(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.full(205_000, 0.1), 1000)
    listener = Listener()
    embed([tmp_path / "long.wav"], listener, workers=1, batch_segments=20)
    assert [len(batch) for batch in listener.batches] == [20, 1]


def test_progress_counts_the_audio(tmp_path: Path, random_model: Model) -> None:
    paths = make_recordings(tmp_path, 5)
    seconds: list[float] = []
    list(embed_files([str(p) for p in paths], random_model, reports=Reports(heard=seconds.append)))
    assert sum(seconds) == pytest.approx(sum(soundfile.info(p).duration for p in paths), abs=0.01)


def test_groups_are_small(tmp_path: Path) -> None:
    paths = [str(path) for path in make_recordings(tmp_path, GROUP_FILES + 1)]
    assert [len(group) for group in groups(paths)] == [GROUP_FILES, 1]
    with (tmp_path / "large.wav").open("wb") as file:
        file.truncate(1 << 30)
    grouped = list(groups([paths[0], str(tmp_path / "large.wav"), paths[1]]))
    assert [len(group) for group in grouped] == [1, 1, 1]
