"""A pack gives back what was decoded, any crop of it, also after a kill; damage is noticed."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import soundfile
from conftest import make_recordings
from hypothesis import given, settings
from hypothesis import strategies as st

from earshot import audio
from earshot.datasets.pack import Pack, Settings
from earshot.datasets.packing import pack, write_entries
from earshot.types import Clip, EarshotError

RATE_HZ = 16_000
ROOT = Path(__file__).parent.parent
CODECS = ["pcm", "flac", "opus", "mp3"]


def clips_of(folder: Path, count: int = 5) -> list[Clip]:
    return [Clip(id=path.stem, path=str(path)) for path in make_recordings(folder, count)]


@cache
def packed(codec: str) -> tuple[list[Clip], Pack]:
    """One pack per codec for all tests of this process; deleted with it."""
    folder = Path(mkdtemp(prefix="earshot-pack-"))
    clips = clips_of(folder / "audio")
    return clips, pack(clips, folder / "pack", Settings(sample_rate_hz=RATE_HZ, codec=codec))  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def _tidy() -> object:
    yield
    for codec in CODECS:
        shutil.rmtree(packed(codec)[1].folder.parent)
    packed.cache_clear()


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_packed_is_what_was_decoded(codec: str) -> None:
    clips, store = packed(codec)
    assert list(store.entries) == [clip.id for clip in clips]
    store.verify()
    for clip in clips:
        waveform = audio.read(clip.path, sample_rate_hz=RATE_HZ)
        got = store.crop(clip.id)
        assert got.dtype == np.float32
        assert len(got) == len(waveform)
        assert store.duration_s(clip.id) == len(waveform) / RATE_HZ
        difference = got - np.clip(waveform, -1, 1)
        if codec in ("pcm", "flac"):
            assert np.abs(difference).max() <= 0.5 / 2**15 + 1e-7
        elif len(waveform) > RATE_HZ // 4:
            assert np.std(difference) < 0.3 * np.std(waveform)


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_crop_is_that_slice_of_the_clip(codec: str, data: st.DataObject) -> None:
    clips, store = packed(codec)
    clip = data.draw(st.sampled_from(clips)).id
    whole = store.crop(clip)
    start = data.draw(st.integers(0, len(whole)))
    length = data.draw(st.integers(0, 2 * len(whole)))
    tolerance = 0 if codec in ("pcm", "flac") else 1e-4
    got = store.crop(clip, start, length)
    expected = whole[start : start + length]
    assert got.shape == expected.shape
    assert np.abs(got - expected).max(initial=0) <= tolerance


def test_crops_outside_and_unknown_clips_are_refused() -> None:
    _, store = packed("pcm")
    samples = len(store.crop("000"))
    for start, length in [(-1, 5), (samples + 1, 1), (0, -1)]:
        with pytest.raises(ValueError, match="samples"):
            store.crop("000", start, length)
    with pytest.raises(EarshotError, match="no clip 'x': it was not packed"):
        store.crop("x")


def test_random_crops_are_drawn_from_their_generator() -> None:
    _, store = packed("pcm")
    one, two = (
        [store.random_crop("000", 100, random) for _ in range(20)]
        for random in (np.random.default_rng(1), np.random.default_rng(1))
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert len({crop.tobytes() for crop in one}) > 10
    whole = store.crop("000")
    crop = store.random_crop("000", len(whole) + 1, np.random.default_rng(0))
    assert np.array_equal(crop, whole)


SUM = """
import pickle, sys
store = pickle.load(sys.stdin.buffer)
print(sum(float(abs(store.crop(clip)).sum()) for clip in store.entries))
"""


def test_other_processes_read_the_same_pack() -> None:
    _, store = packed("pcm")
    expected = sum(float(abs(store.crop(clip)).sum()) for clip in store.entries)
    done = subprocess.run(
        [sys.executable, "-c", SUM],
        input=pickle.dumps(store),
        capture_output=True,
        cwd=ROOT,
        check=True,
    )
    assert float(done.stdout) == expected


def test_loud_samples_are_clipped_and_counted(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0.5, 2.0, -3.0, -1.0]), RATE_HZ, subtype="FLOAT")
    clip = Clip(id="a", path=str(tmp_path / "a.wav"))
    store = pack([clip], tmp_path / "pack", Settings(sample_rate_hz=RATE_HZ))
    assert store.crop("a").tolist() == [0.5, 1 - 2**-15, -1.0, -1.0]
    assert store.entries["a"].clipped == 2


def test_broken_files_are_noted_and_others_added(tmp_path: Path) -> None:
    clips = clips_of(tmp_path, 3)
    Path(clips[1].path).write_text("no audio")
    chosen = Settings(sample_rate_hz=RATE_HZ)
    seen: list[int] = []
    store = pack(clips[:2], tmp_path / "pack", chosen, report=lambda p: seen.append(p.done))
    assert seen == [1, 2]
    assert list(store.broken) == ["001"]
    with pytest.raises(EarshotError, match="no clip '001': not audio"):
        store.crop("001")
    before = (tmp_path / "pack" / "00000.bin").read_bytes()
    store = pack(clips, tmp_path / "pack", chosen)
    assert (tmp_path / "pack" / "00000.bin").read_bytes().startswith(before)
    assert (list(store.entries), list(store.broken)) == (["000", "002"], ["001"])
    shutil.copy(clips[0].path, clips[1].path)
    store = pack(clips, tmp_path / "pack", chosen)
    assert not store.broken
    assert np.array_equal(store.crop("001"), store.crop("000"))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    clips = clips_of(tmp_path / "audio", 2)
    folder = tmp_path / "pack"
    pack(clips, folder, Settings(sample_rate_hz=RATE_HZ))
    with pytest.raises(EarshotError, match="holds pcm at 16000 Hz"):
        pack(clips, folder, Settings(sample_rate_hz=32_000))
    with pytest.raises(EarshotError, match="no pack of audio"):
        pack(clips, tmp_path / "audio", Settings(sample_rate_hz=RATE_HZ))
    with pytest.raises(EarshotError, match="no pack of audio"):
        Pack(tmp_path)
    with pytest.raises(EarshotError, match="the audio of 'gone' is missing"):
        pack([Clip(id="gone")], tmp_path / "other", Settings(sample_rate_hz=RATE_HZ))
    shutil.copy(clips[0].path, clips[1].path)
    with pytest.raises(EarshotError, match="1 files have changed since they were packed"):
        pack(clips, folder, Settings(sample_rate_hz=RATE_HZ))
    for codec, rate_hz, message in [
        ("wav", 1, "no codec"),
        ("pcm", 0, "1 or more"),
        ("opus", 32_000, "Opus has no"),
    ]:
        with pytest.raises(EarshotError, match=message):
            Settings(sample_rate_hz=rate_hz, codec=codec)  # type: ignore[arg-type]


def test_damage_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    pack(clips_of(tmp_path / "audio", 2), folder, Settings(sample_rate_hz=RATE_HZ))
    content = bytearray((folder / "00000.bin").read_bytes())
    content[100] ^= 1
    (folder / "00000.bin").write_bytes(content)
    with pytest.raises(EarshotError, match="audio of '000' is not what was written"):
        Pack(folder).verify()
    (folder / "00000.bin").write_bytes(content[:-1])
    with pytest.raises(EarshotError, match="bytes are expected|are expected"):
        Pack(folder)
    pack(clips_of(tmp_path / "audio", 2), tmp_path / "other", Settings(sample_rate_hz=RATE_HZ))
    (tmp_path / "other/index/offset.npy").write_bytes(b"no array")
    with pytest.raises(EarshotError, match=r"offset\.npy is missing or damaged; run `earshot data"):
        Pack(tmp_path / "other")


def test_an_index_is_made_anew_of_the_journals(tmp_path: Path) -> None:
    clips, folder = clips_of(tmp_path / "audio", 2), tmp_path / "pack"
    chosen = Settings(sample_rate_hz=RATE_HZ)
    before = dict(pack(clips, folder, chosen).entries)
    (folder / "index/id.content.npy").unlink()
    assert dict(pack(clips, folder, chosen).entries) == before
    (folder / "00000.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(EarshotError, match="line 1: damaged"):
        pack(clips, folder, chosen)


def test_shards_are_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = clips_of(tmp_path / "audio", 8)
    chosen = Settings(sample_rate_hz=RATE_HZ)
    whole = pack(clips, tmp_path / "one", chosen)
    sizes = [entry.stored_bytes for entry in whole.entries.values()]
    limit = sorted(sizes)[-2]  # The largest clip alone is larger than a shard.
    monkeypatch.setattr("earshot.datasets.packing.SHARD_BYTES", limit)
    parts = pack(clips, tmp_path / "many", chosen)
    for clip in clips:
        assert np.array_equal(parts.crop(clip.id), whole.crop(clip.id))
    parts.verify()
    found = sorted((tmp_path / "many").glob("*.bin"))
    assert len(found) > 2
    assert [path.stat().st_size <= limit for path in found].count(False) == 1
    assert (
        b"".join(path.read_bytes() for path in found)
        == (tmp_path / "one" / "00000.bin").read_bytes()
    )
    found[1].unlink()
    with pytest.raises(EarshotError, match=r"00001\.bin has 0 bytes, \d+ are expected"):
        Pack(tmp_path / "many")


class Tones:
    """Clips that are nowhere but in the computer's memory."""

    def state(self, clip: Clip) -> str:
        return "made"

    def blocks(self, clip: Clip, sample_rate_hz: int) -> Iterator[np.ndarray]:
        yield np.full(sample_rate_hz, float(clip.id), np.float32)


def test_clips_need_not_be_files(tmp_path: Path) -> None:
    clips = [Clip(id="0.25"), Clip(id="0.5")]
    store = pack(clips, tmp_path, Settings(sample_rate_hz=10), origin=Tones())
    assert store.crop("0.5").tolist() == [0.5] * 10
    assert store.entries["0.25"].source == "made"


def test_a_torn_end_is_cut_off(tmp_path: Path) -> None:
    """What a crash leaves: audio without a line, half a line, no mark of the end."""
    clips, folder = clips_of(tmp_path / "audio"), tmp_path / "pack"
    chosen = Settings(sample_rate_hz=RATE_HZ)
    whole = pack(clips, folder, chosen)
    expected = (folder / "00000.bin").read_bytes()
    lines = (folder / "00000.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "00000.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:20])
    described = json.loads((folder / "pack.json").read_text())
    (folder / "pack.json").write_text(json.dumps({**described, "finished": False}))
    with pytest.raises(EarshotError, match="is not finished; run"):
        Pack(folder)
    again = pack(clips, folder, chosen)
    assert (folder / "00000.bin").read_bytes() == expected
    assert again.entries == whole.entries
    again.verify()


def test_two_packers_do_not_mix(tmp_path: Path) -> None:
    clips = clips_of(tmp_path / "audio", 2)
    chosen = Settings(sample_rate_hz=RATE_HZ)

    def again(_: object) -> None:
        with pytest.raises(EarshotError, match="is being packed by another process"):
            pack(clips, tmp_path / "pack", chosen)

    assert len(pack(clips, tmp_path / "pack", chosen, report=again)) == 2


SLOW = """
import sys, time
from pathlib import Path
from earshot.datasets import packing
from earshot.datasets.pack import Settings
from earshot.types import Clip
packing.SYNC_CLIPS = 2
packing.SHARD_BYTES = 60_000
clips = [Clip(id=p.stem, path=str(p)) for p in sorted(Path(sys.argv[1]).glob("*.wav"))]
packing.pack(clips, sys.argv[2], Settings(sample_rate_hz=16_000), workers=1,
             report=lambda progress: (print(progress.done, flush=True), time.sleep(0.05)))
"""


def test_packing_goes_on_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earshot.datasets.packing.SHARD_BYTES", 60_000)
    clips = clips_of(tmp_path / "audio", 12)
    folder = tmp_path / "pack"
    for enough in (3, 7):
        run = subprocess.Popen(
            [sys.executable, "-c", SLOW, tmp_path / "audio", folder],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert run.stdout is not None
        with run.stdout:
            for line in run.stdout:
                if int(line) >= enough:
                    break
            time.sleep(0.02)
            os.kill(run.pid, signal.SIGKILL)
        run.wait()
    done: list[int] = []
    chosen = Settings(sample_rate_hz=RATE_HZ)
    store = pack(clips, folder, chosen, report=lambda progress: done.append(progress.done))
    assert done[0] > 5
    store.verify()
    fresh = pack(clips, tmp_path / "fresh", chosen)
    assert store.entries == fresh.entries
    shards = [path.name for path in sorted(folder.glob("*.bin"))]
    assert len(shards) > 2
    for name in shards:
        assert (folder / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_two_clips_of_one_id_are_refused(tmp_path: Path) -> None:
    first, second, third = clips_of(tmp_path / "audio", 3)
    folder, chosen = tmp_path / "pack", Settings(sample_rate_hz=RATE_HZ)
    with pytest.raises(EarshotError, match="2 clips have the id 000; give each its own"):
        pack([first, replace(second, id="000"), third], folder, chosen)
    assert not folder.exists()
    pack([first, second], folder, chosen)
    journal = next(folder.glob("[0-9]*.jsonl"))
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*lines, lines[0]]))
    with pytest.raises(EarshotError, match=r"holds 000 twice; delete it and pack again"):
        write_entries(folder)
