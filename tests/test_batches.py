"""Batches are a function of seed and epoch: whatever the workers, processes and resumption."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import sleep

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from earshot import audio
from earshot.batches import Batch, BatchConfig, Pairs, PairSampler, loader
from earshot.batches.control_c import control_c_deferred
from earshot.batches.draws import below, draws
from earshot.batches.recordings import FILE, Recordings
from earshot.datasets.pack import Pack, Settings
from earshot.datasets.packing import pack
from earshot.datasets.shape import assemble
from earshot.types import AudioError, Caption, Clip, Dataset, DatasetCard, EarshotError, Encoded

RATE_HZ = 8_000
ROOT = Path(__file__).parent.parent
SECONDS = (0.3, 1.4, 2.2, 0.9, 3.0, 1.0)
CONFIG = BatchConfig(pairs=4, crop_s=1.0, workers=0)


def tokenize(sentences: Sequence[str]) -> dict[str, torch.Tensor]:
    """Lengths and first letters: all that these tests need of tokens."""
    return {"input_ids": torch.tensor([[len(s), ord(s[0])] for s in sentences])}


def dataset(folder: Path, name: str = "one", seconds: Sequence[float] = SECONDS) -> Dataset:
    """Clips whose samples tell where they are from: clip i rises from 0.1 i by steps."""
    folder.mkdir(parents=True, exist_ok=True)
    clips, captions = [], []
    for i, duration_s in enumerate(seconds):
        samples = np.arange(round(duration_s * RATE_HZ), dtype=np.int16) + 5000 * (i % 2)
        soundfile.write(folder / f"{i}.wav", samples, RATE_HZ)
        clips.append(Clip(id=f"{i}.wav", path=str(folder / f"{i}.wav")))
        captions += [
            Caption(id=f"{i}#{n}", text=f"{name} clip {i} caption {n}", clip_id=f"{i}.wav")
            for n in range(1 + i % 3)
        ]
    card = DatasetCard(name=name, source="", licence="", citation="")
    return assemble(card, "train", clips, captions)


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    return Pairs([dataset(tmp_path / "one")], RATE_HZ)


def same_batch(one: Batch, two: Batch) -> bool:
    return (
        torch.equal(one.waveforms, two.waveforms)
        and torch.equal(one.lengths, two.lengths)
        and torch.equal(one.tokens["input_ids"], two.tokens["input_ids"])
        and torch.equal(one.clip_ids, two.clip_ids)
        and torch.equal(one.caption_ids, two.caption_ids)
    )


def test_pairs_join_datasets(tmp_path: Path) -> None:
    one, two = dataset(tmp_path / "1", "one"), dataset(tmp_path / "2", "two", (0.5, 0.5))
    silent = Clip(id="no-caption.wav", path="x")
    query = Caption(id="query", text="of no clip")
    two = replace(two, clips=(*two.clips, silent), captions=(query, *two.captions))
    pairs = Pairs([one, two], RATE_HZ)
    pairs.check(probe=True)
    assert len(pairs) == len(one.captions) + len(two.captions) - 1
    assert len(pairs.clips) == len({clip.id for clip in pairs.clips}) == 8
    assert pairs.clips[6].id == "two:train/0.wav"
    for place in range(len(pairs)):
        caption, clip = pairs[place]
        assert caption.clip_id == clip.id
        assert caption.text.split(" caption")[0] == f"{clip.id[:3]} clip {clip.id[-5]}"
    with pytest.raises(EarshotError, match="a clip is there twice in one:train, one:train"):
        Pairs([one, one], RATE_HZ)
    with pytest.raises(EarshotError, match="no caption is of a clip"):
        Pairs([replace(one, captions=(query,))], RATE_HZ)


def test_a_batch_holds_what_its_ids_say(pairs: Pairs) -> None:
    batches = list(loader(pairs, CONFIG, tokenize, seed=3, epoch=0))
    assert len(batches) == len(pairs) // 4 == 3
    for batch in batches:
        assert len(batch) == 4
        assert batch.waveforms.dtype == torch.float32
        assert batch.waveforms.shape[1] % (RATE_HZ // 2) == 0
        for row, clip, caption, length in zip(
            batch.waveforms, batch.clip_ids, batch.caption_ids, batch.lengths, strict=True
        ):
            assert pairs.clip_of[caption] == clip
            whole = audio.read(pairs.clips[clip].path, sample_rate_hz=RATE_HZ)
            assert length == min(len(whole), RATE_HZ)
            start = round((float(row[0]) - float(whole[0])) * 2**15)
            assert 0 <= start <= len(whole) - length
            assert np.array_equal(row[:length], whole[start : start + length])
            assert not row[length:].any()
        texts = [pairs.captions[i].text for i in batch.caption_ids]
        assert torch.equal(batch.tokens["input_ids"], tokenize(texts)["input_ids"])


def test_workers_make_no_difference(pairs: Pairs) -> None:
    before = torch.random.get_rng_state()
    alone = list(loader(pairs, CONFIG, tokenize, seed=3, epoch=1))
    helped = list(loader(pairs, replace(CONFIG, workers=2), tokenize, seed=3, epoch=1))
    assert len(alone) == len(helped) == 3
    assert all(map(same_batch, alone, helped))
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_epoch_is_taken_up_where_it_was_left(pairs: Pairs) -> None:
    whole = list(loader(pairs, CONFIG, tokenize, seed=3, epoch=2))
    for start in range(4):
        rest = loader(pairs, CONFIG, tokenize, seed=3, epoch=2, start_step=start)
        assert len(rest) == 3 - start
        assert all(map(same_batch, whole[start:], list(rest)))
    with pytest.raises(EarshotError, match="has 3 steps; none to start at is 4"):
        loader(pairs, CONFIG, tokenize, seed=3, epoch=2, start_step=4)


def test_processes_share_the_batch_of_one(pairs: Pairs) -> None:
    config = replace(CONFIG, pad_to_crop=True)
    whole = list(loader(pairs, config, tokenize, seed=5, epoch=0))
    parts = [
        list(loader(pairs, config, tokenize, seed=5, epoch=0, rank=rank, world=2))
        for rank in (0, 1)
    ]
    for batch, *shares in zip(whole, *parts, strict=True):
        for name in ("waveforms", "lengths", "clip_ids", "caption_ids"):
            together = torch.cat([getattr(share, name) for share in shares])
            assert torch.equal(together, getattr(batch, name))
    with pytest.raises(EarshotError, match="3 processes cannot share 4 pairs evenly"):
        loader(pairs, CONFIG, tokenize, seed=5, epoch=0, world=3)
    with pytest.raises(EarshotError, match="process 2 of 2"):
        loader(pairs, CONFIG, tokenize, seed=5, epoch=0, rank=2, world=2)


@settings(deadline=None, max_examples=50)
@given(
    per_clip=st.lists(st.integers(1, 6), min_size=1, max_size=40),
    limit=st.none() | st.integers(1, 4),
    seed=st.integers(0, 2**40),
    data=st.data(),
)
def test_an_epoch_draws_each_clip_as_often_as_asked(
    per_clip: list[int], limit: int | None, seed: int, data: st.DataObject
) -> None:
    clip_of = np.repeat(np.arange(len(per_clip)), per_clip)
    clip_of = clip_of[np.random.default_rng(seed).permutation(len(clip_of))]
    expected = sum(min(count, limit or count) for count in per_clip)
    pairs = data.draw(st.integers(1, expected))
    config = BatchConfig(pairs=pairs, captions_per_clip=limit)
    sampler = PairSampler(clip_of, config, seed=seed)
    chosen = sampler.drawn_captions(1)
    counts = np.bincount(clip_of[chosen], minlength=len(per_clip))
    assert counts.tolist() == [min(count, limit or count) for count in per_clip]
    assert len(set(chosen.tolist())) == len(chosen) == expected
    batches = sampler.batches(1)
    assert batches.shape == (expected // pairs, pairs) == (len(sampler), pairs)
    assert set(batches.ravel().tolist()) <= set(chosen.tolist())
    assert len(set(batches.ravel().tolist())) == batches.size


def test_epochs_and_seeds_differ_and_captions_take_turns() -> None:
    clip_of = np.repeat(np.arange(200), 5)
    sampler = PairSampler(clip_of, BatchConfig(pairs=10, captions_per_clip=1), seed=0)
    other = PairSampler(clip_of, BatchConfig(pairs=10, captions_per_clip=1), seed=1)
    assert not np.array_equal(sampler.batches(0), sampler.batches(1))
    assert not np.array_equal(sampler.batches(0), other.batches(0))
    # Five captions, evenly: 200 clips in 20 epochs draw each place 800 times, sd 25.
    places = np.concatenate([sampler.drawn_captions(epoch) % 5 for epoch in range(20)])
    assert np.abs(np.bincount(places) - 800).max() < 120


def test_draws_are_the_same_for_ever() -> None:
    """Numbers of today: a run that is taken up after an update goes on with the same batches."""
    assert draws(2, 1, 7, 3, 11).tolist() == [5780278577189387955, 13747986141652838237]
    with pytest.raises(EarshotError, match="seed is -1"):
        draws(1, 1, -1, 0)


def test_crops_lie_evenly_within_the_clip() -> None:
    starts = np.array([below(int(draws(1, 3, 0, epoch, 5)[0]), 11) for epoch in range(1100)])
    assert np.bincount(starts, minlength=11).min() > 60  # 100 expected, sd 9.5
    assert starts.max() == 10
    assert below(2**64 - 1, 11) == 10


def test_crops_are_new_in_each_epoch_and_for_each_caption(tmp_path: Path) -> None:
    one = dataset(tmp_path, seconds=(3.0,))
    captions = tuple(replace(one.captions[0], id=str(n)) for n in range(4))
    pairs = Pairs([replace(one, captions=captions)], RATE_HZ)
    firsts = [
        float(start)
        for epoch in range(2)
        for batch in loader(pairs, CONFIG, tokenize, seed=0, epoch=epoch)
        for start in batch.waveforms[:, 0]
    ]
    assert len(set(firsts)) == 8


def test_only_the_crop_is_decoded(tmp_path: Path) -> None:
    """A file that is damaged behind the crop is not found out: nobody read as far."""
    path = tmp_path / "a.flac"
    noise = np.random.default_rng(0).normal(0, 0.1, 300 * RATE_HZ)
    soundfile.write(path, noise, RATE_HZ)
    content = bytearray(path.read_bytes())
    content[-len(content) // 2 :] = bytes(len(content) // 2)
    path.write_bytes(content)
    clip = Recordings(
        sample_rate_hz=RATE_HZ,
        names=(str(path),),
        pack_of=np.array([FILE]),
        packs=(),
        durations_s=np.array([np.nan]),
    )
    start = clip.waveform(0, RATE_HZ, draw=0)
    assert np.abs(start - noise[:RATE_HZ]).max() < 1e-4
    with pytest.raises(AudioError, match="damaged or truncated"):
        clip.waveform(0)


def test_without_crops_clips_are_whole(pairs: Pairs) -> None:
    config = replace(CONFIG, crop_s=None)
    for batch in loader(pairs, config, tokenize, seed=0, epoch=0):
        expected = [round(SECONDS[clip] * RATE_HZ) for clip in batch.clip_ids]
        assert batch.lengths.tolist() == expected
        assert batch.waveforms.shape[1] == -(-max(expected) // 4000) * 4000


def test_widths_never_pass_the_crop(pairs: Pairs) -> None:
    config = replace(CONFIG, crop_s=0.7)
    widths = {b.waveforms.shape[1] for b in loader(pairs, config, tokenize, seed=0, epoch=0)}
    assert widths == {round(0.7 * RATE_HZ)}


def test_packs_give_the_same_batches(tmp_path: Path) -> None:
    one, two = dataset(tmp_path / "1", "one"), dataset(tmp_path / "2", "two", (1.5, 2.5))
    packed = pack(two.clips, tmp_path / "pack", Settings(sample_rate_hz=RATE_HZ))
    files = Pairs([one, two], RATE_HZ)
    mixed = Pairs([one, two], RATE_HZ, packs=[None, packed])
    mixed.check()
    for clip in two.clips:
        Path(clip.path).rename(f"{clip.path}.away")
    got = list(loader(mixed, replace(CONFIG, workers=1), tokenize, seed=0, epoch=0))
    for clip in two.clips:
        Path(f"{clip.path}.away").rename(clip.path)
    expected = list(loader(files, CONFIG, tokenize, seed=0, epoch=0))
    assert all(map(same_batch, got, expected))
    with pytest.raises(EarshotError, match="is at 8000 Hz, the model hears 16000 Hz"):
        Pairs([two], 16_000, packs=[packed])
    with pytest.raises(EarshotError, match="1 packs for 2 datasets"):
        Pairs([one, two], RATE_HZ, packs=[packed])
    assert isinstance(packed, Pack)


def test_missing_and_broken_audio_is_named_before_training(pairs: Pairs) -> None:
    pairs.check()
    seen: list[int] = []
    Path(pairs.clips[2].path).write_text("no audio")
    pairs.check()
    with pytest.raises(EarshotError, match=r"1 of 6 clips have no usable audio: .*2\.wav: not aud"):
        pairs.check(probe=True, report=seen.append)
    assert seen == [1, 2, 3, 4, 5, 6]
    Path(pairs.clips[1].path).unlink()
    with pytest.raises(EarshotError, match=r"1 of 6 .*1\.wav: no such file"):
        pairs.check()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_ends_the_epoch_with_its_name(pairs: Pairs, workers: int) -> None:
    Path(pairs.clips[2].path).write_text("no audio")
    config = replace(CONFIG, workers=workers)
    with pytest.raises(AudioError, match=r"^\S*2\.wav: not audio[^\n]*$"):
        list(loader(pairs, config, tokenize, seed=0, epoch=0))


def test_measured_clips_give_the_same_crops(pairs: Pairs) -> None:
    before = list(loader(pairs, CONFIG, tokenize, seed=0, epoch=0))
    pairs.check(probe=True)
    assert pairs.recordings.durations_s.tolist() == pytest.approx(SECONDS, abs=1e-3)
    assert all(map(same_batch, before, loader(pairs, CONFIG, tokenize, seed=0, epoch=0)))


class Table:
    """Features that tell their place."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = list(ids)

    def rows(self, places: Sequence[int]) -> torch.Tensor:
        return torch.tensor(places, dtype=torch.float32)[:, None]

    def encoded(self, places: Sequence[int]) -> Encoded:
        return Encoded(embedding=self.rows(places), logits=self.rows(places) + 0.5)


def test_features_stand_for_what_they_were_made_of(pairs: Pairs) -> None:
    heard = Table([clip.id for clip in pairs.clips])
    read = Table([caption.id for caption in pairs.captions])
    for clip in pairs.clips:
        Path(clip.path).unlink()  # Nothing is decoded.
    frozen = pairs.with_tables(audio_table=heard, text_table=read)
    for batch in loader(frozen, CONFIG, None, seed=0, epoch=0):
        assert batch.audio_features is not None
        assert batch.text_features is not None
        assert batch.audio_features.logits is not None
        assert batch.audio_features.embedding[:, 0].tolist() == batch.clip_ids.tolist()
        assert batch.text_features[:, 0].tolist() == batch.caption_ids.tolist()
        assert batch.waveforms.shape == (4, 0)
        assert batch.tokens == {}
        part = batch.to("cpu").part(1, 3)
        assert part.audio_features is not None
        assert part.text_features is not None
        assert part.audio_features.logits is not None
        assert torch.equal(part.audio_features.logits, batch.audio_features.logits[1:3])
        assert torch.equal(part.text_features, batch.text_features[1:3])
    with pytest.raises(EarshotError, match="features are of other captions"):
        pairs.with_tables(text_table=heard)
    with pytest.raises(EarshotError, match="captions need a tokenizer"):
        loader(pairs, CONFIG, None, seed=0, epoch=0)


def test_parts_make_up_the_batch(pairs: Pairs) -> None:
    batch = next(iter(loader(pairs, CONFIG, tokenize, seed=0, epoch=0)))
    parts = [batch.part(0, 3), batch.part(3, 6)]
    assert [len(part) for part in parts] == [3, 1]
    assert torch.equal(torch.cat([part.waveforms for part in parts]), batch.waveforms)
    together = torch.cat([part.tokens["input_ids"] for part in parts])
    assert torch.equal(together, batch.tokens["input_ids"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"pairs": 0},
        {"crop_s": 0.0},
        {"crop_s": None, "pad_to_crop": True},
        {"workers": -1},
        {"captions_per_clip": 0},
    ],
)
def test_senseless_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(EarshotError):
        BatchConfig(**wrong)  # type: ignore[arg-type]


def test_too_few_pairs_are_refused(pairs: Pairs) -> None:
    with pytest.raises(EarshotError, match="an epoch has 12 pairs, fewer than a batch of 64"):
        loader(pairs, replace(CONFIG, pairs=64), tokenize, seed=0, epoch=0)


ENDLESS = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_batches import CONFIG, RATE_HZ, Pairs, dataset, loader, replace, tokenize

if __name__ == "__main__":
    one = dataset(Path(sys.argv[1]))
    many = [replace(one.captions[0], id=str(n)) for n in range(100_000)]
    pairs = Pairs([replace(one, captions=tuple(many))], RATE_HZ)
    try:
        for batch in loader(pairs, replace(CONFIG, workers=2), tokenize, seed=0, epoch=0):
            print(len(batch), flush=True)
    except KeyboardInterrupt:
        sys.exit("stopped")
"""


def test_control_c_ends_workers_quietly(tmp_path: Path) -> None:
    """As a terminal does it: the signal goes to the whole group of processes."""
    run = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, tmp_path / "data"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    assert run.stdout is not None
    for _ in range(4):  # Both workers, who take turns, have started.
        run.stdout.readline()
    os.killpg(run.pid, signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 1
    assert said == "stopped\n"
    with pytest.raises(ProcessLookupError):
        for _ in range(100):  # The server of workers ends once it sees that nobody needs it.
            os.killpg(run.pid, 0)
            sleep(0.1)


def test_ctrl_c_is_put_off() -> None:
    """What is under way is done before Ctrl-C acts, also where it fails."""
    done = []
    with pytest.raises(KeyboardInterrupt), control_c_deferred():
        signal.raise_signal(signal.SIGINT)
        done.append("all of it")
    assert done == ["all of it"]
    with pytest.raises(KeyboardInterrupt), control_c_deferred():
        signal.raise_signal(signal.SIGINT)
        raise RuntimeError("another process has stopped already")
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
