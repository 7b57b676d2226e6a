"""What files say of themselves is read, and damage to it never matters."""

import os
import shutil
import struct
import time
from pathlib import Path

import mutagen.flac
import mutagen.id3
import mutagen.mp4
import mutagen.oggvorbis
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from earshot.metadata import Tables, read_notes, tables
from earshot.metadata.fields import clean, date_of, notes_of
from earshot.metadata.licences import licence_name
from earshot.metadata.ucs import CATEGORIES, category_of
from earshot.types import Notes

NOISE = np.random.default_rng(0).uniform(-0.1, 0.1, 4000)


def recording(path: Path) -> Path:
    kinds = {".ogg": ("OGG", "VORBIS"), ".mp3": ("MP3", None), ".flac": ("FLAC", None)}
    kind, codec = kinds.get(path.suffix, ("WAV", None))
    soundfile.write(path, NOISE, 16000, format=kind, subtype=codec)
    return path


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def bext(description: str = "", originator: str = "", date: str = "") -> bytes:
    texts = (description.encode(), originator.encode(), b"", date.encode())
    return chunk(b"bext", struct.pack("<256s32s32s10s", *texts) + bytes(272))


def info(**texts: bytes) -> bytes:
    return chunk(b"LIST", b"INFO" + b"".join(chunk(k.encode(), v) for k, v in texts.items()))


def ixml(body: str) -> bytes:
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    return chunk(b"iXML", f"{head}<BWFXML>{body}</BWFXML>".encode())


def with_chunks(path: Path, *chunks: bytes) -> Path:
    content = recording(path).read_bytes() + b"".join(chunks)
    path.write_bytes(b"RIFF" + struct.pack("<I", len(content) - 8) + content[8:])
    return path


def test_bext(tmp_path: Path) -> None:
    notes = read_notes(
        with_chunks(tmp_path / "a.wav", bext("Rain on a tin roof", "Ann Field", "2019-07-30"))
    )
    assert notes == Notes(description="Rain on a tin roof", creator="Ann Field", date="2019-07-30")


def test_recorders_lines_in_bext_are_no_description(tmp_path: Path) -> None:
    lines = "sSPEED=025.000-NDF\r\nsSCENE=12A\r\nsTAKE=03\r\nsNOTE=door slams\r\n"
    notes = read_notes(with_chunks(tmp_path / "a.wav", bext(lines)))
    assert (notes.title, notes.description) == ("scene 12A take 03", "door slams")


def test_ixml_of_sound_libraries(tmp_path: Path) -> None:
    body = """<PROJECT>Forest</PROJECT><SPEED><NOTE>camera at 25</NOTE></SPEED>
        <USER><CATEGORY>ambience</CATEGORY><SUBCATEGORY>forest</SUBCATEGORY><CATID>AMBForst</CATID>
        <FXNAME>Dawn Chorus</FXNAME><DESCRIPTION>Birds &amp; wind</DESCRIPTION>
        <KEYWORDS>birds, dawn, Birds</KEYWORDS><DESIGNER>Ann</DESIGNER></USER>"""
    chunks = bext("other", date="2020-01-02"), ixml(body)
    notes = read_notes(with_chunks(tmp_path / "a.wav", *chunks))
    assert notes == Notes(
        title="Dawn Chorus",
        description="Birds & wind",
        tags=("birds", "dawn", "Forest"),
        category="AMBIENCE-FOREST",
        creator="Ann",
        date="2020-01-02",
    )


def test_ixml_of_steinberg(tmp_path: Path) -> None:
    pairs = {"MediaCategory": "FX", "MediaComment": "a comment", "MediaKeywords": "a|b"}
    attributes = "".join(
        f"<ATTR><TYPE>string</TYPE><NAME>{k}</NAME><VALUE>{v}</VALUE></ATTR>"
        for k, v in pairs.items()
    )
    body = f"<STEINBERG><ATTR_LIST>{attributes}</ATTR_LIST></STEINBERG>"
    notes = read_notes(with_chunks(tmp_path / "a.wav", ixml(body)))
    assert (notes.category, notes.description, notes.tags) == ("FX", "a comment", ("a", "b"))


@pytest.mark.parametrize(
    "prologue",
    [
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>',
        '<!DOCTYPE x [<!ENTITY b SYSTEM "file:///etc/passwd">]>',
        "<unclosed>",
    ],
)
def test_xml_is_not_trusted(tmp_path: Path, prologue: str) -> None:
    content = f"{prologue}<BWFXML><USER><FXNAME>&b;</FXNAME></USER></BWFXML>".encode()
    notes = read_notes(with_chunks(tmp_path / "a.wav", chunk(b"iXML", content), bext("kept")))
    assert (notes.title, notes.description) == ("", "kept")


def test_riff_info_in_either_encoding(tmp_path: Path) -> None:
    block = info(
        INAM="Gewitter über Köln".encode("cp1252"),
        ICMT="Donner – nah".encode(),
        IKEY=b"thunder; rain",
        IART=b"Bob",
        ICRD=b"2011",
        ICOP=b"http://creativecommons.org/licenses/by-nc/3.0/",
    )
    assert read_notes(with_chunks(tmp_path / "a.wav", block)) == Notes(
        title="Gewitter über Köln",
        description="Donner – nah",
        tags=("thunder", "rain"),
        creator="Bob",
        licence="CC BY-NC 3.0",
        date="2011",
    )


def test_rf64(tmp_path: Path) -> None:
    data = NOISE.astype("<f4").tobytes()
    fmt = chunk(b"fmt ", struct.pack("<HHIIHH", 3, 1, 16000, 64000, 4, 32))
    ds64 = chunk(b"ds64", struct.pack("<QQQI", 0, len(data), len(NOISE), 0))
    audio = b"data" + b"\xff" * 4 + data
    path = tmp_path / "a.wav"
    path.write_bytes(b"RF64" + b"\xff" * 4 + b"WAVE" + ds64 + fmt + audio + bext("After 4 GB"))
    assert read_notes(path).description == "After 4 GB"


EXPECTED = Notes(
    title="Dögs",
    description="Two of them",
    tags=("bark", "yard"),
    creator="Ann",
    licence="CC BY 4.0",
    date="2015-03",
)


def test_id3(tmp_path: Path) -> None:
    path = recording(tmp_path / "a.mp3")
    tags = mutagen.id3.ID3()
    tags.add(mutagen.id3.TIT2(encoding=1, text="Dögs"))
    tags.add(mutagen.id3.COMM(encoding=3, lang="eng", desc="", text="Two of them"))
    tags.add(mutagen.id3.TXXX(encoding=3, desc="KEYWORDS", text="bark, yard"))
    tags.add(mutagen.id3.TPE1(encoding=3, text="Ann"))
    tags.add(mutagen.id3.WCOP(url="https://creativecommons.org/licenses/by/4.0/"))
    tags.add(mutagen.id3.TDRC(encoding=3, text="2015-03"))
    tags.add(mutagen.id3.APIC(encoding=3, mime="image/png", data=bytes(3_000_000)))
    tags.save(path)
    assert read_notes(path) == EXPECTED


@pytest.mark.parametrize("suffix", [".flac", ".ogg"])
def test_vorbis_comments(tmp_path: Path, suffix: str) -> None:
    path = recording(tmp_path / f"a{suffix}")
    tags = mutagen.flac.FLAC(path) if suffix == ".flac" else mutagen.oggvorbis.OggVorbis(path)
    tags["TITLE"] = "Dögs"
    tags["DESCRIPTION"] = "Two of them"
    tags["keywords"] = ["bark", "yard"]
    tags["artist"] = "Ann"
    tags["license"] = "https://creativecommons.org/licenses/by/4.0/"
    tags["DATE"] = "2015-03"
    tags.save()
    assert read_notes(path) == EXPECTED


def test_mp4(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="M4A needs earshot[media]")
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        samples = np.zeros((1, 4096), dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
        frame.sample_rate = 16000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    tags = mutagen.mp4.MP4(path)
    tags["\xa9nam"], tags["\xa9cmt"], tags["\xa9ART"] = "Dögs", "Two of them", "Ann"
    tags["\xa9day"] = "2015-03"
    tags["----:com.apple.iTunes:KEYWORDS"] = b"bark,yard"
    tags["----:com.apple.iTunes:LICENSE"] = b"CC-BY 4.0"
    tags.save()
    assert read_notes(path) == EXPECTED


def test_id3_in_wav_is_read_after_the_chunks(tmp_path: Path) -> None:
    tags = mutagen.id3.ID3()
    tags.add(mutagen.id3.TIT2(encoding=3, text="From ID3"))
    tags.add(mutagen.id3.TCON(encoding=3, text="Field Recording"))
    tags.save(tmp_path / "tags")
    block = chunk(b"id3 ", (tmp_path / "tags").read_bytes())
    notes = read_notes(with_chunks(tmp_path / "a.wav", block, info(INAM=b"From INFO")))
    assert (notes.title, notes.tags) == ("From INFO", ("Field Recording",))


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        (
            "AMBForst_Dawn Chorus-Birds_ANN_Woods",
            Notes(title="Dawn Chorus Birds", category="AMBIENCE", creator="ANN"),
        ),
        (
            "DOORWood-Close_Creak 01_BOB_HOUSE_MKH8040",
            Notes(title="Creak 01", category="DOORS", creator="BOB", tags=("Close",)),
        ),
        ("UIClick_Menu_ANN", Notes(title="Menu", category="USER INTERFACE", creator="ANN")),
        ("RAIN_Roof_ANN_Home", Notes(title="Roof", category="RAIN", creator="ANN")),
        ("AMBForst_Dawn", Notes()),
        ("NOTACategory_Dawn_ANN_X", Notes()),
        ("rain_on_roof_2", Notes()),
        ("ZOOM0012", Notes()),
    ],
)
def test_names_of_the_universal_category_system(tmp_path: Path, stem: str, expected: Notes) -> None:
    notes = read_notes(tmp_path / f"{stem}.wav")
    assert notes == expected


def test_short_names_of_categories_are_unmistakable() -> None:
    assert all(category_of(short) == name for short, name in CATEGORIES.items())
    assert all(category_of(f"{short}Misc") == name for short, name in CATEGORIES.items())
    assert len(set(CATEGORIES.values())) == 81
    assert category_of("") == category_of("Rain") == category_of("AMBForst2") == ""


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "Public Domain"),
        ("https://creativecommons.org/licenses/by-nc-sa/3.0/deed.en", "CC BY-NC-SA 3.0"),
        ("CC0", "CC0"),
        ("cc0 1.0", "CC0"),
        ("CC-BY", "CC BY"),
        ("CC BY 3.0", "CC BY 3.0"),
        ("cc_by_nc 4.0", "CC BY-NC 4.0"),
        ("Creative Commons 0", "CC0"),
        ("Creative Commons Zero", "CC0"),
        ("Attribution", "CC BY"),
        ("Attribution 4.0", "CC BY 4.0"),
        ("Attribution NonCommercial 3.0", "CC BY-NC 3.0"),
        ("Creative Commons Attribution-ShareAlike 4.0 International", "CC BY-SA 4.0"),
        ("Public Domain", "Public Domain"),
        ("attribution is kindly asked for", "attribution is kindly asked for"),
        ("Sampling+", "Sampling+"),
        ("Sonniss GDC", "Sonniss GDC"),
    ],
)
def test_licences_by_one_name(text: str, name: str) -> None:
    assert licence_name(text) == name


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2020-05-31T10:00:00Z", "2020-05-31"),
        ("2020:05:31", "2020-05-31"),
        ("20200531", "2020-05-31"),
        ("2020-05", "2020-05"),
        ("2020", "2020"),
        ("2020-13-01", "2020"),
        ("31 May 2020", "2020"),
        ("0000-00-00", ""),
        ("12020", ""),
    ],
)
def test_dates_as_far_as_they_are_given(text: str, date: str) -> None:
    assert date_of(text) == date


def test_text_is_made_fit_to_be_kept() -> None:
    assert clean("a\x00b\r\n\tc \udcff") == "a b c"
    assert clean("bad \ufffd") == ""
    assert len(clean("x" * 10**6)) == 4000


def test_the_date_of_a_file_that_states_none_is_its_last_change(tmp_path: Path) -> None:
    path = recording(tmp_path / "a.wav")
    os.utime(path, (1_600_000_000, 1_600_000_000))
    assert read_notes(path) == Notes(date="2020-09-13")
    assert read_notes(tmp_path / "absent.wav") == Notes()


# Damage


def tagged(folder: Path) -> list[Path]:
    wav = with_chunks(folder / "a.wav", bext("text"), ixml("<NOTE>x</NOTE>"), info(INAM=b"name"))
    mp3, flac, ogg = (recording(folder / f"a{suffix}") for suffix in (".mp3", ".flac", ".ogg"))
    tags = mutagen.id3.ID3()
    tags.add(mutagen.id3.TIT2(encoding=1, text="title"))
    tags.save(mp3)
    for path, kind in ((flac, mutagen.flac.FLAC), (ogg, mutagen.oggvorbis.OggVorbis)):
        comments = kind(path)
        comments["title"] = "title"
        comments.save()
    return [wav, mp3, flac, ogg]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return tagged(tmp_path_factory.mktemp("whole"))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(which=st.integers(0, 3), places=st.lists(st.floats(0, 1), min_size=1), data=st.data())
def test_damage_never_raises(
    whole: list[Path], tmp_path: Path, which: int, places: list[float], data: st.DataObject
) -> None:
    content = bytearray(whole[which].read_bytes())
    for place in places:
        content[int(place**3 * (len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(content)))
    path = tmp_path / whole[which].name
    path.write_bytes(content[: end or None])
    assert isinstance(read_notes(path), Notes)


@pytest.mark.parametrize("separator", [" ", "_", " -_"])
def test_no_licence_keeps_its_reader(separator: str) -> None:
    started_s = time.thread_time()
    assert licence_name(f"cc by{separator * 20_000}x") == "CC BY"
    assert licence_name(f"cc{separator * 20_000}by{separator * 20_000}4.0") == "CC BY 4.0"
    assert time.thread_time() - started_s < 2.0


@pytest.mark.parametrize("text", [b"cc by" + b" " * 10**6, b"a," * 10**6, b" " * 10**6 + b"cc0"])
def test_comments_of_megabytes_take_no_time(tmp_path: Path, text: bytes) -> None:
    block = info(ICMT=text + b"x", IKEY=text, ICRD=text, ICOP=text)
    path = with_chunks(tmp_path / "a.wav", block, ixml(f"<NOTE>{text.decode()}</NOTE>"))
    started_s = time.thread_time()
    notes = read_notes(path)
    assert time.thread_time() - started_s < 5.0
    assert notes.licence == {99: "CC BY", 97: "", 32: "CC0"}[text[0]]
    assert len(notes.description) <= 4000
    assert len(notes.tags) <= 100


def test_many_values_of_one_name_take_no_time() -> None:
    said = {name: [f"cc, x {number}" for number in range(10**6)] for name in ("url", "tags")}
    started_s = time.thread_time()
    assert len(notes_of(said).tags) == 100
    assert time.thread_time() - started_s < 5.0


def test_many_comments_of_a_file_take_no_time(tmp_path: Path) -> None:
    comments = b"".join(chunk(b"ICMT", b"c%d" % number) for number in range(200_000))
    path = with_chunks(tmp_path / "a.wav", chunk(b"LIST", b"INFO" + comments))
    started_s = time.thread_time()
    assert read_notes(path).description.startswith("c0; c1; c2")
    assert time.thread_time() - started_s < 20.0


def test_a_chunk_that_claims_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = with_chunks(tmp_path / "a.wav", bext("kept"))
    with path.open("ab") as file:
        file.write(b"iXML" + struct.pack("<I", 2**32 - 2))
    assert read_notes(path).description == "kept"


# Tables beside recordings


def test_a_size_beyond_all_files_ends_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "endless.wav"
    ds64 = chunk(b"ds64", struct.pack("<QQQI", 0, 2**64 - 1, 0, 0))
    endless = b"data" + b"\xff" * 4 + bytes(8)
    path.write_bytes(b"RF64" + b"\xff" * 4 + b"WAVE" + ds64 + bext("Before") + endless)
    assert read_notes(path).description == "Before"


def test_a_table_goes_before_tags(tmp_path: Path) -> None:
    path = with_chunks(tmp_path / "a.wav", info(INAM=b"from the file", IART=b"Bob"))
    (tmp_path / "metadata.csv").write_text(
        "\ufefffile_name,Title,Tags,license,uploader,fold\n"
        'a.wav,from the table,"rain, roof",CC-BY,,3\nb.wav,other,,,,\n'
    )
    notes = read_notes(path, Tables().row(path))
    assert (notes.title, notes.tags) == ("from the table", ("rain", "roof"))
    assert (notes.licence, notes.creator) == ("CC BY", "Bob")


def test_tables_speak_for_the_folders_below(tmp_path: Path) -> None:
    (tmp_path / "dogs").mkdir()
    (tmp_path / "metadata.csv").write_text("file_name,caption\ndogs/a.wav,a dog\ndogs/b.wav,two\n")
    (tmp_path / "dogs" / "captions.csv").write_text(
        "file,caption_1,caption_2\nb.wav,two dogs,a pair of dogs\n"
    )
    found = Tables()
    row = {name: found.row(tmp_path / "dogs" / name) for name in ("a.wav", "b.wav", "c.wav")}
    assert row["a.wav"] == {"caption": ["a dog"]}
    assert read_notes(tmp_path / "x", row["b.wav"]).description == "two dogs; a pair of dogs"
    assert row["c.wav"] == {}


def test_a_change_of_a_row_shows_in_its_digest(tmp_path: Path) -> None:
    table = tmp_path / "metadata.csv"
    table.write_text("file_name,title\na.wav,one\nb.wav,two\n")
    names = ["a.wav", "b.wav", "c.wav"]
    before = [Tables().digest(tmp_path / name) for name in names]
    table.write_text("file_name,title\na.wav,one\nb.wav,three\n")
    after = [Tables().digest(tmp_path / name) for name in names]
    assert before[0] == after[0] != ""
    assert before[1] != after[1]
    assert after[2] == ""


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"no,file\n1,2\n", b'file_name,title\na.wav,"open', b"\0" * 99],
)
def test_tables_that_are_none_are_passed_over(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metadata.csv").write_bytes(content)
    shutil.copy(tmp_path / "metadata.csv", tmp_path / "notes.csv")
    assert Tables().row(tmp_path / "b.wav") == {}


def test_a_table_costs_what_its_cells_do(tmp_path: Path) -> None:
    """Not the product of its rows and the columns of its header, which are 32 kB here."""
    table = "file" + ",title" * 4000 + "\n" + "a\n" * 4000 + "b.wav,two,three\n"
    (tmp_path / "metadata.csv").write_text(table)
    started_s = time.thread_time()
    assert Tables().row(tmp_path / "b.wav") == {"title": ["two", "three"]}
    assert time.thread_time() - started_s < 2.0


def test_a_table_that_is_too_large_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "b.wav"
    rows = "".join(f"{n}.wav,a,ignored\n" for n in range(50)) + "b.wav,c,ignored\n"
    (tmp_path / "metadata.csv").write_text("file,title,colour\n" + rows)
    monkeypatch.setattr(tables, "MAX_TEXTS", 2 * 51)
    assert Tables().row(path) == {"title": ["c"]}
    monkeypatch.setattr(tables, "MAX_TEXTS", 2 * 51 - 1)
    assert Tables().row(path) == {}
    (tmp_path / "metadata.csv").write_text("file,title\nb.wav,c\n" + '"\n",' * 300_000)
    assert Tables().row(path) == {}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives files away")
def test_a_strangers_table_does_not_count_where_everybody_may_write(tmp_path: Path) -> None:
    table, path = tmp_path / "metadata.csv", tmp_path / "own" / "a.wav"
    table.write_text("file,title\nown/a.wav,theirs\n")
    os.chown(table, 12345, 12345)
    assert Tables().row(path) == {"title": ["theirs"]}
    tmp_path.chmod(0o1777)
    assert Tables().row(path) == {}
    os.chown(tmp_path, 12345, 12345)
    assert Tables().row(path) == {"title": ["theirs"]}
