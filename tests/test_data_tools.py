"""Fetching is verified, archives write nowhere else, checks and figures are true."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import py7zr
import pytest
from conftest import make_recordings, needs
from test_datasets import TREES, folder_tree, sound

from earshot.datasets import KINDS, load, wavcaps
from earshot.datasets.archives import Member, refuse_unsafe, unpack
from earshot.datasets.check import check, read_hashes
from earshot.datasets.describe import describe, overlap, spread, with_durations, words
from earshot.datasets.fetch import CLOTHO, SOURCES, Remote, fetch, instructions, source_of
from earshot.datasets.pack import Pack
from earshot.datasets.shape import PUBLIC, with_audio
from earshot.types import Clip, Dataset, EarshotError

ROOT = Path(__file__).parent.parent
Get = Callable[[str, Path, Callable[[int], None] | None], None]


def make_7z(path: Path, folder: Path) -> Path:
    with py7zr.SevenZipFile(path, "w") as archive:
        archive.writeall(folder, folder.name)
    return path


def test_archives_are_unpacked_beside_what_is_there(tmp_path: Path) -> None:
    sound(tmp_path / "made" / "evaluation" / "a b.wav")
    seven = make_7z(tmp_path / "x.7z", tmp_path / "made" / "evaluation")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tmp_path / "made" / "evaluation" / "a b.wav", "evaluation/c.wav")
    kept = sound(tmp_path / "to" / "evaluation" / "own.wav")
    for path in (seven, tmp_path / "x.zip"):
        unpack(path, tmp_path / "to")
    names = sorted(p.name for p in (tmp_path / "to" / "evaluation").iterdir())
    assert names == ["a b.wav", "c.wav", "own.wav"]
    assert kept.exists()
    assert [p.name for p in (tmp_path / "to").iterdir()] == ["evaluation"]


@pytest.mark.parametrize(
    "name",
    ["../out.wav", "/out.wav", "a/../../out.wav", "C:\\out.wav", "..\\out.wav", "\\\\h\\s\\x"],
)
def test_names_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(EarshotError, match="lies outside"):
        refuse_unsafe(tmp_path, [Member(name=name, size_bytes=1, is_link=False)])


def test_a_zip_that_leads_outside_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.wav", "x")
        archive.writestr("../../evil.wav", "x")
    with pytest.raises(EarshotError, match="evil.wav"):
        unpack(path, tmp_path / "deep" / "to")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["evil.zip"]


def test_a_7z_that_leads_outside_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "evil.7z"
    with py7zr.SevenZipFile(path, "w") as archive:
        archive.writestr(b"x", "aaaevil.wav")
        # The library refuses such a name on writing, as an attacker's program would not.
        archive.header.files_info.files[0]["filename"] = "../evil.wav"
    with pytest.raises(EarshotError, match=r"\.\./evil.wav., which lies outside"):
        unpack(path, tmp_path / "to")
    assert [p.name for p in tmp_path.rglob("*")] == ["evil.7z"]


def test_links_in_archives_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "link").symlink_to("/etc")
    seven = tmp_path / "x.7z"
    with py7zr.SevenZipFile(seven, "w", dereference=False) as archive:
        archive.writeall(folder, "made")
    with pytest.raises(EarshotError, match="holds the link or device 'made/link'"):
        unpack(seven, tmp_path / "to")
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, "/etc")
    with pytest.raises(EarshotError, match="holds the link or device 'link'"):
        unpack(tmp_path / "x.zip", tmp_path / "to")


def test_damaged_archives_are_one_line(tmp_path: Path) -> None:
    sound(tmp_path / "evaluation" / "a.wav", 2)
    path = make_7z(tmp_path / "x.7z", tmp_path / "evaluation")
    whole = bytearray(path.read_bytes())
    for content in (bytes(whole[:-10]), b"nothing", b""):
        path.write_bytes(content)
        with pytest.raises(EarshotError, match="damaged or no archive") as caught:
            unpack(path, tmp_path / "to")
        assert "\n" not in str(caught.value)
    whole[40] ^= 255
    path.write_bytes(whole)
    with pytest.raises(EarshotError, match="damaged or no archive"):
        unpack(path, tmp_path / "to")
    assert not list((tmp_path / "to").glob("evaluation/*"))


def test_the_clotho_checksums_are_those_of_the_published_tables() -> None:
    """Our copies have LF where two of the published tables have CRLF."""
    known = {remote.name: remote.md5 for remote in CLOTHO}
    for path in needs("data/clotho").glob("*.csv"):
        content = path.read_bytes()
        found = {
            hashlib.md5(form).hexdigest() for form in (content, content.replace(b"\n", b"\r\n"))
        }
        assert known[path.name] in found
    assert len({remote.name for remote in CLOTHO}) == len(CLOTHO) == 9


def test_sources_are_https_and_named() -> None:
    assert set(SOURCES) < set(KINDS)
    for name, source in SOURCES.items():
        assert all(remote.url.startswith("https://") for remote in source.remotes)
        assert "{to}" not in instructions(name, Path("here"))
    with pytest.raises(EarshotError, match="nothing to fetch for 'x'; known are clotho"):
        source_of("x")


@pytest.fixture
def published(tmp_path: Path) -> tuple[list[Remote], Get, list[str]]:
    """A table and an archive, what serves them, and what was asked of it."""
    server = tmp_path / "server"
    sound(server / "evaluation" / "a.wav")
    make_7z(server / "audio.7z", server / "evaluation")
    (server / "table.csv").write_text("a,b\n")
    remotes = [
        Remote(
            url=f"https://example.org/{name}",
            name=name,
            md5=hashlib.md5((server / name).read_bytes()).hexdigest(),
        )
        for name in ("table.csv", "audio.7z")
    ]
    asked: list[str] = []

    def get(url: str, path: Path, report: Callable[[int], None] | None) -> None:
        asked.append(path.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((server / url.rsplit("/", 1)[1]).read_bytes())
        if report:
            report(path.stat().st_size)

    return remotes, get, asked


def test_fetching_goes_on_where_it_stopped(
    tmp_path: Path, published: tuple[list[Remote], Get, list[str]]
) -> None:
    remotes, get, asked = published
    to = tmp_path / "to"

    def breaks(url: str, path: Path, report: Callable[[int], None] | None) -> None:
        if path.name == "audio.7z":
            raise OSError("connection lost")
        get(url, path, report)

    with pytest.raises(EarshotError, match=r"audio.7z could not be fetched .*run it again"):
        fetch(remotes, to, get=breaks)
    assert fetch(remotes, to, get=get) == ["audio.7z"]
    assert asked == ["table.csv", "audio.7z"]
    assert (to / "evaluation" / "a.wav").exists()
    assert not (to / "audio.7z").exists()
    assert fetch(remotes, to, get=get) == []
    (to / "table.csv").unlink()
    assert fetch(remotes, to, get=get) == ["table.csv"]


def test_two_who_fetch_into_a_folder_fetch_a_file_once(
    tmp_path: Path, published: tuple[list[Remote], Get, list[str]]
) -> None:
    remotes, get, asked = published
    both_want = threading.Barrier(2)

    def slow(url: str, path: Path, report: Callable[[int], None] | None) -> None:
        time.sleep(0.3)  # Long enough for the other to come meanwhile.
        get(url, path, report)

    def fetch_table(_: int) -> list[str]:
        both_want.wait()
        return fetch([replace(remotes[0], md5="")], tmp_path / "to", get=slow)

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(fetch_table, range(2))) == [[], ["table.csv"]]
    assert asked == ["table.csv"]


def test_what_is_not_as_published_is_refused(
    tmp_path: Path, published: tuple[list[Remote], Get, list[str]]
) -> None:
    remotes, get, _ = published
    with pytest.raises(EarshotError, match="has another MD5, expected 0000"):
        fetch([replace(remotes[1], md5="0000")], tmp_path / "to", get=get)
    assert not (tmp_path / "to" / "evaluation").exists()
    unhashed = [replace(remotes[0], md5="")]
    assert fetch(unhashed, tmp_path / "first", get=get) == ["table.csv"]
    table = tmp_path / "first" / "table.csv"
    table.unlink()
    (tmp_path / "server" / "table.csv").write_text("changed")
    with pytest.raises(EarshotError, match="has SHA-256"):
        fetch(unhashed, tmp_path / "first", get=get)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_described_and_checked(name: str, tmp_path: Path) -> None:
    data = load(name, TREES[name](tmp_path / name))
    described = describe(with_durations(data), [data])
    assert json.loads(json.dumps(described.as_json()))["clips"] == len(data.clips)
    assert described.overlaps[0].captions > 0
    found = check(data)
    assert found.decoded == sum(bool(clip.path) for clip in data.clips)
    assert json.loads(json.dumps(found.as_json()))["clips"] == len(data.clips)
    counted = any("are published" in problem for problem in found.problems)
    assert counted == (data.split in data.card.sizes)


def test_a_check_finds_what_is_wrong(tmp_path: Path) -> None:
    data = load("folder", folder_tree(tmp_path))
    hashes = tmp_path / "hashes.txt"
    good = check(data, hashes)
    assert (good.problems, good.decoded) == ((), 2)
    assert good.audio_s == pytest.approx(0.2)
    assert check(data, hashes).problems == ()
    sums = {
        clip.id: hashlib.sha256(Path(clip.path).read_bytes()).hexdigest() for clip in data.clips
    }
    assert read_hashes(hashes) == sums
    sound(tmp_path / "b.wav", 0.3)
    assert check(data, hashes).changed == ("b.wav",)
    (tmp_path / "b.wav").write_text("x")
    (tmp_path / "deep" / "a.wav").unlink()
    found = check(load("folder", tmp_path), hashes)
    assert found.missing == ("deep/a.wav",)
    assert list(found.broken) == ["b.wav"]
    assert len(found.problems) == 2
    hashes.write_text("rubbish\n")
    with pytest.raises(EarshotError, match="line 1: 'rubbish'"):
        check(data, hashes)
    hashes.write_bytes(b"\x89PNG\r\n\xff\xd8")
    with pytest.raises(EarshotError, match="byte 0 is not UTF-8") as caught:
        check(data, hashes)
    assert "\n" not in str(caught.value)


def test_missing_audio_is_advised_by_names_that_exist(tmp_path: Path) -> None:
    assert set(PUBLIC) == set(SOURCES) - {"queries"}
    folder = folder_tree(tmp_path / "clotho")
    data = load("folder", folder)
    silent = replace(data, clips=tuple(replace(clip, path="") for clip in data.clips))
    with pytest.raises(EarshotError, match="put it where the table says"):
        with_audio(silent, allow_missing=True)
    silent = replace(silent, card=wavcaps.CARD)
    with pytest.raises(EarshotError, match="see `earshot data fetch wavcaps`"):
        with_audio(silent)


def test_figures_of_real_captions() -> None:
    train = describe(load("clotho", needs("data/clotho"), "development"))
    assert (train.words_per_caption.minimum, train.words_per_caption.maximum) == (8, 20)
    assert train.vocabulary == 4365
    assert train.duplicates.captions == 16
    audiocaps = load("audiocaps", needs("data/audiocaps"), "train")
    test = load("audiocaps", needs("data/audiocaps"), "test")
    shared = overlap(audiocaps, test)
    assert (shared.youtube_ids, shared.freesound_ids) == (0, 0)


def test_words_and_spreads() -> None:
    assert words('A dog\'s bark, then a "beep-beep" – 2x!') == [
        *("a", "dog's", "bark", "then", "a", "beep-beep", "2x")
    ]
    assert spread([]).count == 0
    assert spread([3, 1, 8]).median == 3


def test_overlaps_are_found_by_id(tmp_path: Path) -> None:
    data = load("folder", folder_tree(tmp_path))

    def with_ids(**ids: str) -> Dataset:
        return replace(data, clips=tuple(replace(clip, **ids) for clip in data.clips))  # type: ignore[arg-type]

    assert overlap(with_ids(freesound_id="1"), with_ids(freesound_id="1")).freesound_ids == 1
    assert overlap(with_ids(freesound_id="1"), with_ids(freesound_id="2")).freesound_ids == 0
    assert overlap(with_ids(youtube_id="a"), with_ids(youtube_id="a")).youtube_ids == 1
    assert describe(with_ids(youtube_id="a")).duplicates.youtube_ids == 1
    assert overlap(with_ids(freesound_id=""), with_ids(freesound_id="")).freesound_ids == 0


def earshot(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "earshot", "data", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80"},
        timeout=300,
    )


def test_describe_on_real_recordings(tmp_path: Path) -> None:
    done = earshot("describe", "folder", "--data", needs("data/sounds"), "--plots", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1505, 0 without audio here" in done.stdout
    assert len(list(tmp_path.glob("*.png"))) == 4
    done = earshot(
        *("describe", "folder", "--data", needs("data/esc10"), "--text-column", "title", "--json"),
        *("--other", f"folder:{needs('data/sounds')}"),
    )
    described = json.loads(done.stdout)
    assert described["clips"] == 400
    assert described["duration_s"]["mean"] == pytest.approx(5.0, abs=0.02)
    assert described["overlaps"][0]["freesound_ids"] == 0


def few(source: Path, folder: Path, columns: str, count: int = 6) -> Path:
    """The first recordings of a real collection, as links, with a table."""
    rows = [columns]
    folder.mkdir()
    for path in sorted(source.rglob("*.ogg"))[:count]:
        (folder / path.name).symlink_to(path)
        rows.append(f"{path.name},{path.stem}")
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize("collection", ["data/esc10", "data/sounds"])
def test_check_and_pack_real_recordings(tmp_path: Path, collection: str) -> None:
    folder = few(needs(collection), tmp_path / "few", "file_name,caption")
    done = earshot("check", "folder", "--data", folder, "--hashes", tmp_path / "h", "--json")
    assert (done.returncode, json.loads(done.stdout)["decoded"]) == (0, 6)
    packing = ("pack", "folder", "--data", folder, "--to", tmp_path / "pack", "--rate", "16000")
    done = earshot(*packing)
    assert done.returncode == 0, done.stderr
    assert "6 clips in" in done.stdout
    store = Pack(tmp_path / "pack")
    assert store.sample_rate_hz == 16_000
    assert np.abs(store.crop(next(iter(store.entries)))).max() > 0
    next(folder.glob("*.ogg")).unlink()
    missing = earshot("check", "folder", "--data", folder)
    assert missing.returncode == 1
    assert "problem: 1 files are missing" in missing.stdout
    refused = earshot(*packing)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "--allow-missing" in refused.stderr
    done = earshot(*packing, "--allow-missing", "--json")
    assert json.loads(done.stdout)["share_of_split"] == pytest.approx(5 / 6)


def test_user_errors_are_one_line(tmp_path: Path) -> None:
    make_recordings(tmp_path / "sounds", 1)
    for arguments, message in [
        (("fetch", "nothing", "--to", tmp_path), "known are clotho, audiocaps, wavcaps, queries"),
        (("describe", "clotho", "--data", tmp_path), "holds no clotho_captions_evaluation.csv"),
        (("check", "folder", "--data", tmp_path / "sounds"), "write a table with the columns"),
        (("pack", "folder", "--data", tmp_path, "--to", "x", "--codec", "zip"), "no codec 'zip'"),
        (("describe", "folder", "--data", tmp_path, "--other", "x"), "holds no metadata.csv"),
    ]:
        done = earshot(*arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert message in done.stderr


def test_a_clip_without_a_path_is_not_described_as_silent() -> None:
    clips = (Clip(id="a"), Clip(id="b", duration_s=2.0))
    data = load("clotho", needs("data/clotho"))
    assert describe(replace(data, clips=clips)).duration_s.count == 1
