"""A dataset kept as columns is the dataset: every field, every part of it, in every order."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_batches import CONFIG, RATE_HZ, same_batch, tokenize
from test_batches import dataset as waveforms

from earshot.batches import Pairs, loader
from earshot.datasets import load, missing, subset, wavcaps, with_audio
from earshot.datasets.columns import Places, Texts
from earshot.datasets.index import clip_places, open_index, write_index
from earshot.datasets.pack import Settings
from earshot.datasets.packing import pack_dataset
from earshot.datasets.shape import assemble
from earshot.train.run import fingerprint
from earshot.types import Caption, Clip, Dataset, DatasetCard, EarshotError, SplitSize

CARD = DatasetCard(
    name="small",
    source="here",
    licence="none",
    citation="",
    research_only=True,
    sizes={"train": SplitSize(clips=4, captions=6)},
)


def small() -> Dataset:
    """Clips with and without everything; captions of one clip, of none, and that fit several."""
    clips = [
        Clip(id="a", path="x/a.wav", duration_s=1.5, freesound_id="7", keywords=("dog", "bark")),
        Clip(id="b\ud800", path="x/\udcff.wav", licence="CC0"),
        Clip(id="c", youtube_id="Yx", duration_s=0.0),
        Clip(id="d", path="x/d.wav"),
    ]
    captions = [Caption(id=f"d#{i}", text=f"Türen {i}", clip_id="d") for i in range(2)]
    captions += [Caption(id="a#1", text="", clip_id="a"), Caption(id="free", text="of none")]
    captions += [Caption(id="wide", text="of many"), Caption(id="e", text="e", clip_id="")]
    relevance = {"d#0": frozenset({"d"}), "d#1": frozenset({"d", "a"}), "a#1": frozenset({"a"})}
    relevance["wide"] = frozenset({"a", "b\ud800", "d"})
    return assemble(CARD, "train", clips, captions, relevance)


def same(one: Dataset, two: Dataset) -> bool:
    return (
        list(one.clips) == list(two.clips)
        and list(one.captions) == list(two.captions)
        and dict(one.relevance) == dict(two.relevance)
        and (one.card, one.split, one.share) == (two.card, two.split, two.share)
    )


def test_a_kept_dataset_is_the_dataset(tmp_path: Path) -> None:
    before = small()
    write_index(before, "folder", tmp_path)
    after = open_index(tmp_path)
    assert same(before, after)
    assert len(after.relevance) == len(before.relevance)
    assert after.clips[-1] == before.clips[-1]
    assert list(after.clips[1:3]) == list(before.clips[1:3])
    assert list(after.captions[::-2]) == list(before.captions[::-2])
    assert [clip.id for clip in missing(after)] == ["c"]
    assert clip_places(after).tolist() == clip_places(before).tolist() == [3, 3, 0, -1, -1, -1]
    with pytest.raises(KeyError):
        after.relevance["free"]
    with pytest.raises(IndexError):
        after.clips[4]
    again = tmp_path / "again"
    write_index(after, "folder", again)
    assert same(open_index(again), before)


@settings(deadline=None, max_examples=60)
@given(
    first=st.sets(st.sampled_from(["a", "b\ud800", "c", "d"]), min_size=1),
    second=st.sets(st.sampled_from(["a", "b\ud800", "c", "d"]), min_size=1),
)
def test_a_part_is_that_part(
    tmp_path_factory: pytest.TempPathFactory, first: set[str], second: set[str]
) -> None:
    """The same as of a dataset in memory, also of a part of a part."""
    folder = tmp_path_factory.getbasetemp() / "part"
    if not folder.exists():
        write_index(small(), "folder", folder)
    objects, columns = (subset(d, frozenset(first)) for d in (small(), open_index(folder)))
    assert same(objects, columns)
    assert clip_places(objects).tolist() == clip_places(columns).tolist()
    if first & second:
        assert same(*(subset(d, frozenset(second)) for d in (objects, columns)))


@given(st.lists(st.text(st.characters()), unique=True))
def test_columns_hold_any_string(texts: list[str]) -> None:
    column = Texts.of(texts)
    assert list(column) == [column[i] for i in range(len(texts))] == texts
    places = Places.of(column)
    assert [places.find(text) for text in texts] == list(range(len(texts)))
    assert places.find("".join(texts) + "x") is None
    assert column.empty.tolist() == [not text for text in texts]


def test_strings_of_one_hash_are_told_apart() -> None:
    column = Texts.of(["one", "two", "three"])
    hashes = np.full(3, Places.of(Texts.of(["two"])).hashes[0])
    places = Places(column, hashes, np.arange(3))
    assert places.find("two") == 1
    column = Texts.of(["one", "three"])
    assert Places(column, hashes[:2], np.arange(2)).find("two") is None


def test_damaged_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EarshotError, match="holds no dataset"):
        open_index(tmp_path)
    write_index(small(), "folder", tmp_path)
    np.save(tmp_path / "captions.clip.npy", np.zeros(2, np.int64))
    with pytest.raises(EarshotError, match=r"captions\.clip\.npy is missing or damaged"):
        open_index(tmp_path)
    np.save(tmp_path / "clips.path.content.npy", np.zeros(2, np.uint8))
    with pytest.raises(EarshotError, match=r"clips\.path\.content\.npy is missing or damaged"):
        open_index(tmp_path)


def test_a_pack_stands_for_its_dataset(tmp_path: Path) -> None:
    """The same batches without the files, and the same fingerprint: the run is the same."""
    files = waveforms(tmp_path / "audio")
    expected = list(loader(Pairs([files], RATE_HZ), CONFIG, tokenize, seed=3, epoch=1))
    pack_dataset(files, "folder", tmp_path / "pack", Settings(sample_rate_hz=RATE_HZ))
    for clip in files.clips:
        Path(clip.path).unlink()
    packed = with_audio(load("", tmp_path / "pack"))
    assert fingerprint(packed) == fingerprint(files)
    pairs = Pairs([packed], RATE_HZ)
    pairs.check()
    for workers in (0, 2):
        config = replace(CONFIG, workers=workers)
        got = list(loader(pairs, config, tokenize, seed=3, epoch=1))
        assert len(got) == len(expected)
        assert all(map(same_batch, got, expected))
    assert load("folder", tmp_path / "pack", "train").pack == str(tmp_path / "pack")
    with pytest.raises(EarshotError, match="holds 'train', not 'test'"):
        load("folder", tmp_path / "pack", "test")
    with pytest.raises(EarshotError, match="is a pack of folder with its captions"):
        load("clotho", tmp_path / "pack")
    with pytest.raises(EarshotError, match="is at 8000 Hz, the model hears 16000 Hz"):
        Pairs([packed], 16_000)


def test_what_could_not_be_packed_is_missing(tmp_path: Path) -> None:
    files = waveforms(tmp_path / "audio")
    Path(files.clips[2].path).write_text("no audio")
    pack_dataset(files, "folder", tmp_path / "pack", Settings(sample_rate_hz=RATE_HZ))
    packed = load("", tmp_path / "pack")
    assert [clip.id for clip in missing(packed)] == ["2.wav"]
    with pytest.raises(EarshotError, match="the audio of 1 of 6 clips is missing, first '2.wav'"):
        with_audio(packed)
    left = with_audio(packed, allow_missing=True)
    assert same(left, subset(files, frozenset(c.id for c in files.clips) - {"2.wav"}))
    assert len(Pairs([left], RATE_HZ).clips) == 5


def test_a_pack_of_wavcaps_is_selected_from(tmp_path: Path) -> None:
    clips = [
        Clip(id="FreeSound/1", path="1", duration_s=3.0, freesound_id="1"),
        Clip(id="FreeSound/2", path="2", duration_s=300.0, freesound_id="2"),
        Clip(id="AudioSet_SL/Yabc", path="3", duration_s=10.0, youtube_id="abc"),
    ]
    captions = [Caption(id=clip.id, text="sound", clip_id=clip.id) for clip in clips]
    write_index(assemble(wavcaps.CARD, wavcaps.ALL, clips, captions), "wavcaps", tmp_path)
    whole = open_index(tmp_path)
    (tmp_path / wavcaps.BLACKLIST).write_text('{"AudioSet": ["Yabc.wav"]}')

    def left(**chosen: object) -> list[str]:
        selection = wavcaps.Selection(**chosen)  # type: ignore[arg-type]
        found = wavcaps.selected(whole, tmp_path, selection)
        assert found.share == 1.0
        return [clip.id for clip in found.clips]

    assert left() == [clip.id for clip in clips]
    assert left(max_duration_s=120.0) == ["FreeSound/1", "AudioSet_SL/Yabc"]
    assert left(excluded_freesound_ids=frozenset({"1"})) == ["FreeSound/2", "AudioSet_SL/Yabc"]
    assert left(audioset="no_audiocaps") == ["FreeSound/1", "FreeSound/2"]
    source = wavcaps.of_source(whole, "FreeSound")
    assert ([clip.id for clip in source.clips], source.split) == (
        ["FreeSound/1", "FreeSound/2"],
        "FreeSound",
    )
