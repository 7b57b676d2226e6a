"""The server: every route as a client meets it, and everything that must be refused."""

import asyncio
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pytest
import soundfile
from conftest import needs
from fastapi.testclient import TestClient
from served import (
    BRACKETED,
    LONG_S,
    OWN,
    TOKEN,
    calibration,
    client_of,
    clip_url,
    make_library,
    run_environment,
    serving,
)
from test_audio import encode, noise

from earshot import audio
from earshot.library import index
from earshot.model import model_manifest
from earshot.search import Searcher
from earshot.server import ServerConfig, create_app
from earshot.server.attempts import (
    FIRST_WAIT_S,
    FREE_ATTEMPTS,
    LONGEST_WAIT_S,
    MAX_ADDRESSES,
    Attempts,
)
from earshot.server.catalogue import Catalogue, id_of
from earshot.server.jobs import Indexer
from earshot.server.pictures import COLUMNS, Pictures, draw, grey_png
from earshot.server.playing import Wav, byte_range
from earshot.server.running import listen
from earshot.server.settings import is_loopback, require_token
from earshot.server.uploads import Uploads
from earshot.store import MemoryStore
from earshot.types import AudioError, EarshotError, Model

# ---- searching ----------------------------------------------------------------------------------


def test_search_by_words(client: TestClient, library: Path) -> None:
    answer = client.get("/api/search", params={"q": "a tone", "k": 3}).json()
    assert len(answer["hits"]) == 3
    hit = answer["hits"][0]
    assert hit["clip"]["path"].startswith(str(library))
    assert hit["clip"]["id"] == id_of(hit["clip"]["path"])
    assert hit["moments"][0]["start_s"] == hit["start_s"]
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)


def test_get_and_post_give_the_same_hits(client: TestClient) -> None:
    got = client.get("/api/search", params={"q": "rain", "k": 5, "where": "duration_s < 2"}).json()
    asked = {"text": "rain", "k": 5, "where": ["duration_s < 2"]}
    posted = client.post("/api/search", json=asked).json()
    assert got["hits"] == posted["hits"]
    assert all(hit["clip"]["duration_s"] < 2 for hit in got["hits"])


def test_questions_of_many_at_once_are_each_answered(client: TestClient) -> None:
    texts = ["rain", "a tone", " ", "thunder", "a tone and rain"] * 4
    alone = {text: client.get("/api/search", params={"q": text, "k": 4}) for text in texts}
    with ThreadPoolExecutor(8) as pool:
        asked = pool.map(lambda q: client.get("/api/search", params={"q": q, "k": 4}), texts)
        for text, reply in zip(texts, asked, strict=True):
            assert reply.status_code == alone[text].status_code == (200 if text.strip() else 422)
            told, expected = reply.json(), alone[text].json()
            if text.strip():
                paths = [hit["clip"]["path"] for hit in told["hits"]]
                assert paths == [hit["clip"]["path"] for hit in expected["hits"]]
            else:
                assert told == expected


@pytest.mark.parametrize(("intercept", "found"), [(50.0, True), (-50.0, False)])
def test_an_answer_says_whether_there_is_one(
    searcher: Searcher, intercept: float, found: bool
) -> None:
    known = calibration(searcher.model.dimension, intercept)
    with client_of(Searcher(searcher.model, searcher.store, known)) as client:
        answer = client.get("/api/search", params={"q": "zebra"}).json()
        assert answer["found"] is found
        assert answer["hits"][0]["probability"] == pytest.approx(float(found), abs=0.01)


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"text": "   "},
        {"text": "rain", "where": ["loudness > 3"]},
        {"text": "rain", "k": 0},
        {"text": "rain", "k": 100_000},
        {"text": "rain", "colour": "red"},
        {"text": "x" * 5000},
        {"like": [{"id": "0" * 16, "start_s": -1}]},
        {"text": "rain", "where": ["folder = /a\0b"]},
        {"text": "rain", "where": ["folder = ~nobody-of-this-name/sounds"]},
        {"text": "rain", "where": ["folder = ~root"]},
    ],
)
def test_senseless_questions_are_refused_in_a_line(
    client: TestClient, question: dict[str, object]
) -> None:
    reply = client.post("/api/search", json=question)
    assert reply.status_code == 422
    assert reply.json()["detail"]


@pytest.mark.parametrize(
    ("route", "field"), [("/api/search", "text"), ("/api/login", "token"), ("/api/add", "paths")]
)
def test_half_a_character_is_refused(client: TestClient, route: str, field: str) -> None:
    value = '["\\ud800"]' if field == "paths" else '"\\ud800"'
    headers = {"content-type": "application/json"}
    reply = client.post(route, content=f'{{"{field}": {value}}}', headers=headers)
    assert reply.status_code == 422
    assert field in reply.json()["detail"][0]["loc"]


def test_similar_ranks_all_others(client: TestClient, library: Path) -> None:
    clip = library / "noises" / "003.wav"
    hits = client.get(clip_url(clip, "/similar"), params={"k": 50}).json()["hits"]
    paths = [hit["clip"]["path"] for hit in hits]
    paths += [copy["path"] for hit in hits for copy in hit["copies"]]
    assert len(paths) == len(set(paths)) == 15
    assert str(clip) not in paths


def test_a_region_finds_what_sounds_like_that_region(tmp_path: Path, real_model: Model) -> None:
    esc10 = needs("data/esc10")
    rooster, rain = (
        [audio.read(path, sample_rate_hz=32_000) for path in sorted(esc10.glob(f"{label}/*"))[:4]]
        for label in ("009-rooster", "002-rain")
    )
    for name, samples in [("rooster", rooster[1]), ("rain", rain[1])]:
        soundfile.write(tmp_path / f"{name}.wav", samples, 32_000)
    soundfile.write(tmp_path / "both.wav", np.concatenate([*rooster[2:], *rain[2:]]), 32_000)
    store = MemoryStore(model_manifest(real_model))
    index([tmp_path], store, real_model)
    with client_of(Searcher(real_model, store)) as client:
        for name, span in [("rooster", (0, 9.5)), ("rain", (10.5, 20))]:
            part = {"start_s": span[0], "end_s": span[1], "where": "duration_s < 9"}
            hits = client.get(clip_url(tmp_path / "both.wav", "/similar"), params=part).json()
            assert hits["hits"][0]["clip"]["name"] == f"{name}.wav"


def test_search_by_a_sound_that_is_brought(client: TestClient, library: Path) -> None:
    clip = library / "noises" / "005.wav"
    with clip.open("rb") as file:
        upload = client.post("/api/sounds", files={"sound": ("../../mine.wav", file)})
    assert upload.status_code == 201
    brought = upload.json()
    assert brought["name"] == "mine.wav"
    asked = {"like": [{"id": brought["id"]}], "k": 16}
    hits = client.post("/api/search", json=asked).json()["hits"]
    sounds = {hit["clip"]["path"]: hit["sound"] for hit in hits}
    assert sounds[str(clip)] == pytest.approx(1, abs=1e-4)
    with clip.open("rb") as file:
        direct = client.post("/api/similar?k=16", files={"sound": ("x.wav", file)}).json()["hits"]
    assert [hit["clip"]["path"] for hit in direct] == [hit["clip"]["path"] for hit in hits]


def test_uploads_are_limited_in_kind_size_and_number(client: TestClient, library: Path) -> None:
    no_sound = client.post("/api/sounds", files={"sound": ("x.wav", b"not a sound")})
    assert no_sound.status_code == 422
    assert no_sound.json()["detail"].startswith("x.wav: ")
    large = client.post("/api/sounds", files={"sound": ("x.wav", bytes(2 << 20))})
    assert large.status_code == 413

    def chunks() -> Iterator[bytes]:
        yield from [bytes(1 << 18)] * 8

    unstated = client.post(
        "/api/sounds", content=chunks(), headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert unstated.status_code == 413
    ids = []
    for _ in range(3):
        with (library / "tone.ogg").open("rb") as file:
            ids.append(client.post("/api/sounds", files={"sound": file}).json()["id"])
    found = [client.get(f"/api/clips/{upload_id}").status_code for upload_id in ids]
    assert found == [404, 200, 200]


# ---- lists --------------------------------------------------------------------------------------


def test_an_upload_that_ends_by_a_fault_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EARSHOT_HOME", str(tmp_path))

    class Faulty(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise OSError("the line is dead")
            return super().read(1000)

    uploads = Uploads(2)
    try:
        with pytest.raises(OSError, match="dead"):
            uploads.add(Faulty(bytes(5000)), "x.wav")
        with pytest.raises(AudioError, match=r"^x.wav"):
            uploads.add(io.BytesIO(bytes(5000)), "x.wav")
        assert list(uploads._folder.iterdir()) == []
    finally:
        uploads.close()


def test_an_index_that_cannot_be_read_is_told_and_tried_again(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = Catalogue(searcher.store)
    before, asked = catalogue.now(), []

    def gone() -> None:
        asked.append(time.monotonic())
        raise EarshotError("the disk is away")

    with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        patch.setattr("earshot.server.catalogue.STALE_S", 0.0)
        patch.setattr(searcher.store, "files", gone)
        deadline_s = time.monotonic() + 60
        while len(asked) < 2 or len(told) < 2:
            assert catalogue.now() is before
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        assert "the disk is away" in str(told[0].message)
        patch.undo()
        patch.setattr("earshot.server.catalogue.STALE_S", 0.0)
        while catalogue.now() is before:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
    assert catalogue.now().files.keys() == before.files.keys()


def test_an_index_that_cannot_be_opened_again_is_tried_later(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands in the way: tried at each question, it would load a model each time."""
    tried: list[float] = []

    def fails() -> Searcher:
        tried.append(time.monotonic())
        raise MemoryError("no room for the model")

    desk = create_app(searcher, reopen=fails).state.desk
    monkeypatch.setattr(type(searcher.store), "replaced", True)
    deadline_s = time.monotonic() + 60
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        while not told:
            desk.renew()
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        for _ in range(10):
            desk.renew()
            time.sleep(0.02)
    assert len(tried) == len(told) == 1
    assert "the old index answers on: no room for the model" in str(told[0].message)
    desk.close()


def test_clips_are_paged_in_order(client: TestClient, library: Path) -> None:
    everything = client.get("/api/clips", params={"limit": 100}).json()
    paths = [clip["path"] for clip in everything["clips"]]
    assert everything["total"] == len(paths) == 16
    assert paths == sorted(paths)
    pages = [client.get("/api/clips", params={"offset": o, "limit": 7}).json() for o in (0, 7, 14)]
    assert [clip["path"] for page in pages for clip in page["clips"]] == paths
    long_ones = client.get("/api/clips", params={"where": "duration_s > 30"}).json()
    assert [clip["name"] for clip in long_ones["clips"]] == ["long.flac"]
    assert client.get("/api/clips", params={"where": "nonsense"}).status_code == 422


def test_status_facets_and_broken(client: TestClient, library: Path) -> None:
    status = client.get("/api/status").json()
    assert (status["files"], status["broken"], status["index"]) == (16, 1, "lib")
    assert status["common_folder"] == str(library)
    facets = client.get("/api/facets").json()
    assert {"value": str(library / "noises"), "count": 10} in facets["folder"]
    assert {"value": 16_000, "count": 10} in facets["sample_rate_hz"]
    broken = client.get("/api/broken").json()
    assert broken["total"] == 1
    assert Path(broken["files"][0]["path"]).name == "broken.wav"
    assert broken["files"][0]["reason"]


def test_openapi_health_metrics_page(client: TestClient) -> None:
    paths = client.get("/api/openapi.json").json()["paths"]
    assert {"/api/search", "/api/clips/{clip_id}/audio", "/api/events", "/health"} <= set(paths)
    assert client.get("/health").text == "ok\n"
    client.get("/api/search", params={"q": "rain"})
    metrics = client.get("/metrics").text
    assert "earshot_files 16.0" in metrics
    counted = 'earshot_requests_total{method="GET",route="/api/search",status="200"}'
    assert counted in metrics
    assert id_of("x")[:4] not in metrics
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert client.get("/web/main.js").headers["content-type"].startswith("text/javascript")


def test_the_page_is_small_and_asks_nobody_else() -> None:
    web = Path(sys.modules["earshot"].__path__[0], "web")
    files = [path for path in web.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 300_000
    for path in files:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, path
        assert "https://" not in text, path


# ---- sound --------------------------------------------------------------------------------------


def test_a_playable_file_is_served_as_it_is(client: TestClient, library: Path) -> None:
    path = library / "tone.ogg"
    whole = client.get(clip_url(path, "/audio"))
    assert (whole.status_code, whole.headers["content-type"]) == (200, "audio/ogg")
    assert whole.content == path.read_bytes()
    part = client.get(clip_url(path, "/audio"), headers={"range": "bytes=100-199"})
    assert part.status_code == 206
    assert part.content == path.read_bytes()[100:200]


@pytest.mark.parametrize("name", ["tone.aiff", "deep.wav", "wide.wav"])
def test_what_browsers_cannot_play_becomes_wav(
    client: TestClient, library: Path, name: str
) -> None:
    reply = client.get(clip_url(library / name, "/audio"))
    assert (reply.status_code, reply.headers["content-type"]) == (200, "audio/wav")
    assert int(reply.headers["content-length"]) == len(reply.content)
    samples, rate_hz = soundfile.read(io.BytesIO(reply.content), dtype="float32")
    expected = audio.read(library / name, sample_rate_hz=48_000)
    assert rate_hz == 48_000
    if name == "deep.wav":  # Two channels stay two.
        expected = soundfile.read(library / name, dtype="float32")[0]
        assert expected.shape[1] == 2
    assert samples.shape == expected.shape
    # Sixteen bits round to half a step; clipping would be far more.
    assert np.abs(samples - expected).max() < 2 / 32_768


@pytest.mark.parametrize("suffix", ["m4a", "wma"])
def test_formats_of_ffmpeg_play(
    suffix: str, home: Path, tmp_path: Path, searcher: Searcher
) -> None:
    pytest.importorskip("av")
    path = tmp_path / f"noise.{suffix}"
    encode(path, noise(2.0), {"m4a": "aac", "wma": "wmav2"}[suffix])
    store = MemoryStore(searcher.store.manifest)
    index([tmp_path], store, searcher.model)
    with client_of(Searcher(searcher.model, store)) as client:
        reply = client.get(clip_url(path, "/audio"))
        assert reply.headers["content-type"] == {"m4a": "audio/mp4", "wma": "audio/wav"}[suffix]
        as_wav = client.get(clip_url(path, "/audio"), params={"wav": True})
        samples, rate_hz = soundfile.read(io.BytesIO(as_wav.content), dtype="float32")
        expected = audio.read(path, sample_rate_hz=rate_hz)
        assert len(samples) == len(expected)
        assert np.corrcoef(samples, expected)[0, 1] > 0.95  # the noise of AAC is drawn at random


def test_any_range_of_the_wav_is_that_slice_of_it(client: TestClient, library: Path) -> None:
    url = clip_url(library / "long.flac", "/audio?wav=true")
    whole = client.get(url).content
    size = len(whole)
    assert size == 44 + 2 * round(LONG_S * 8000)
    for first, last in [(0, 9), (0, 43), (40, 51), (44, 1043), (45, 46), (size - 5, size - 1)]:
        part = client.get(url, headers={"range": f"bytes={first}-{last}"})
        assert part.status_code == 206
        assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"
        assert part.content == whole[first : last + 1]
    middle = client.get(url, headers={"range": "bytes=600001-700000"}).content
    assert middle == whole[600_001:700_001]
    tail = client.get(url, headers={"range": "bytes=-100"})
    assert tail.content == whole[-100:]
    head = client.head(url)
    assert (head.content, int(head.headers["content-length"])) == (b"", size)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-", (0, 100)),
        ("bytes=0-0", (0, 1)),
        ("bytes=99-", (99, 100)),
        ("bytes=10-1000", (10, 100)),
        ("bytes=-1", (99, 100)),
        ("bytes=-1000", (0, 100)),
        ("bytes=20-10", None),
        ("bytes=0-1,5-6", None),
        ("bytes=-", None),
        ("items=0-1", None),
        ("bytes=a-b", None),
    ],
)
def test_ranges(header: str | None, expected: tuple[int, int] | None) -> None:
    assert byte_range(header, 100) == expected


def test_any_range_of_a_stereo_wav_is_that_slice_of_it(client: TestClient, library: Path) -> None:
    url = clip_url(library / "deep.wav", "/audio")
    whole = client.get(url).content
    assert len(whole) == 44 + 4 * round(1.2 * 48_000)
    for first, last in [(44, 47), (1001, 2002), (1002, 2003), (100_003, 100_006)]:
        part = client.get(url, headers={"range": f"bytes={first}-{last}"}).content
        assert part == whole[first : last + 1]


def test_ranges_that_cannot_be_met(client: TestClient, library: Path) -> None:
    for header in ("bytes=100-", "bytes=-0"):
        with pytest.raises(ValueError, match="range"):
            byte_range(header, 100)
    url = clip_url(library / "tone.aiff", "/audio")
    reply = client.get(url, headers={"range": "bytes=99999999-"})
    assert reply.status_code == 416
    assert reply.headers["content-range"].startswith("bytes */")
    stale = client.get(url, headers={"range": "bytes=0-9", "if-range": '"another"'})
    assert stale.status_code == 200


def test_a_wav_never_outgrows_what_its_header_can_state() -> None:
    day = Wav.of("x", 48_000, 86_400.0)
    assert day.size_bytes < 2**32
    assert struct.unpack("<I", day.header()[4:8])[0] == day.size_bytes - 8
    assert len(day.header()) == 44


def test_download_keeps_bytes_and_name(client: TestClient, library: Path) -> None:
    path = library / BRACKETED
    reply = client.get(clip_url(path, "/audio?download=true"))
    assert reply.content == path.read_bytes()
    disposition = reply.headers["content-disposition"]
    assert disposition.startswith("attachment")
    assert "n%C3%A4me" in disposition


# ---- pictures -----------------------------------------------------------------------------------


def test_peaks_are_the_extremes_of_the_samples(client: TestClient, library: Path) -> None:
    path = library / "tone.ogg"
    told = client.get(clip_url(path, "/peaks")).json()
    samples = audio.read(path, sample_rate_hz=32_000)
    edges = np.arange(COLUMNS + 1) * len(samples) // COLUMNS
    high = [samples[a:b].max() for a, b in zip(edges[:-1], edges[1:], strict=True)]
    low = [samples[a:b].min() for a, b in zip(edges[:-1], edges[1:], strict=True)]
    assert np.abs(np.array(told["high"]) / 127 - high).max() <= 0.5 / 127 + 1e-6
    assert np.abs(np.array(told["low"]) / 127 - low).max() <= 0.5 / 127 + 1e-6
    assert told["end_s"] == pytest.approx(1.0)


def test_a_tone_is_a_line_in_the_spectrogram_and_a_sweep_climbs(library: Path) -> None:
    tone = draw(str(library / "tone.ogg"), 1.0).decibels
    loudest = tone[:, 50:-50].argmax(axis=0)
    assert np.ptp(loudest) <= 1
    sweep = draw(str(library / "long.flac"), LONG_S).decibels.argmax(axis=0)
    assert (sweep[50] < sweep[400]) & (sweep[400] < sweep[700])


def test_a_part_is_drawn_like_the_same_part_of_the_whole(library: Path) -> None:
    path = str(library / "long.flac")
    part = draw(path, 10.0, 20.0)
    samples = audio.read(path, sample_rate_hz=32_000, start_s=20.0, duration_s=10.0)
    assert part.peaks[:, 1].max() == round(127 * float(samples.max()))
    short = draw(str(library / "noises" / "000.wav"), 0.001)
    assert short.peaks.shape == (COLUMNS, 2)


def test_pictures_are_kept_and_damage_is_redrawn(
    client: TestClient, library: Path, home: Path
) -> None:
    url = clip_url(library / "deep.wav", "/spectrogram")
    first = client.get(url)
    assert first.headers["content-type"] == "image/png"
    version = client.get(clip_url(library / "deep.wav")).json()["version"]
    kept = next((home / "pictures").glob(f"{version[:2]}/{version}*.npz"))
    whole = kept.read_bytes()
    middle = len(whole) // 2
    for damaged in (
        *(b"", b"damaged", whole[:30], whole[:middle], whole[:-1], bytes(len(whole))),
        *(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :] for at in (0, middle)),
    ):
        kept.write_bytes(damaged)
        again = client.get(url)
        assert again.status_code == 200, damaged[:30]
        # A level apart where a product of matrices rounds otherwise.
        assert np.abs(grey_of(again.content) - grey_of(first.content)).max() <= 1


def test_a_cache_that_cannot_be_written_stops_no_picture(tmp_path: Path, library: Path) -> None:
    path = str(library / "noises" / "000.wav")
    (tmp_path / "file").touch()
    picture = Pictures(tmp_path / "file").of(path, "0" * 64, 1.0)
    assert np.array_equal(picture.peaks, draw(path, 1.0).peaks)


def grey_of(png: bytes) -> np.ndarray:
    plt = pytest.importorskip("matplotlib.image")
    return np.round(plt.imread(io.BytesIO(png), format="png") * 255).astype(np.int16)


def test_png_can_be_read_back() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (7, 13)).astype(np.uint8)
    assert np.array_equal(grey_of(grey_png(grey)), grey)


def test_parts_have_limits(client: TestClient, library: Path) -> None:
    url = clip_url(library / "long.flac", "/peaks")
    assert client.get(url, params={"start_s": 60, "end_s": 62}).status_code == 200
    assert client.get(url, params={"start_s": 70, "end_s": 80}).status_code == 422
    assert client.get(url, params={"start_s": "nan"}).status_code == 422
    assert client.get(url, params={"end_s": 0}).status_code == 422


def test_kept_pictures_have_a_limit(tmp_path: Path, library: Path) -> None:
    """What was looked at last stays."""
    paths = [str(library / "noises" / f"00{i}.wav") for i in range(6)]
    size = len(kept_picture(Pictures(tmp_path / "one"), paths[0]))
    pictures = Pictures(tmp_path / "few", limit_bytes=4 * size)
    for number, path in enumerate(paths):
        pictures.of(path, f"{number:064}", 1.0)
        for _ in range(2):  # Drawn again if it was dropped.
            pictures.of(paths[0], f"{0:064}", 1.0)
    kept = {path.name[:64] for path in (tmp_path / "few").glob("*/*.npz")}
    assert sum(p.stat().st_size for p in (tmp_path / "few").glob("*/*")) <= 4 * size
    assert {f"{0:064}", f"{5:064}"} <= kept
    assert f"{1:064}" not in kept


def test_pictures_are_kept_whatever_the_clock_was(tmp_path: Path, library: Path) -> None:
    """Of those from a year to come none stays for ever, and what was drawn just now does."""
    path = str(library / "noises" / "000.wav")
    size = len(kept_picture(Pictures(tmp_path / "one"), path))
    pictures = Pictures(tmp_path / "few", limit_bytes=4 * size)
    for number in range(8):
        pictures.of(path, f"{number:064}", 1.0)
        if number < 4:
            for kept in pictures.folder.glob("*/*"):
                os.utime(kept, (time.time() + 1e9, time.time() + 1e9))
    names = {kept.name[:64] for kept in pictures.folder.glob("*/*.npz")}
    assert {f"{number:064}" for number in (5, 6, 7)} <= names
    assert not {f"{number:064}" for number in (0, 1, 2)} & names


def kept_picture(pictures: Pictures, path: str) -> bytes:
    pictures.of(path, "0" * 64, 1.0)
    (kept,) = pictures.folder.glob("*/*")
    return kept.read_bytes()


# ---- who may come in ----------------------------------------------------------------------------


def test_only_what_is_indexed_is_served(client: TestClient, library: Path) -> None:
    secret = library.parent / "secret.wav"
    secret.write_bytes((library / "deep.wav").read_bytes())
    for name in (
        *(id_of(str(secret)), str(secret), "..", "../secret.wav", "%2e%2e%2fsecret.wav"),
        *("..%2f..%2fetc%2fpasswd", str(library / "deep.wav"), id_of(str(library / "broken.wav"))),
    ):
        assert client.get(f"/api/clips/{name}/audio").status_code == 404, name
    for path in ("/web/../server/guard.py", "/web/%2e%2e/server/guard.py", "/web//etc/passwd"):
        assert client.get(path).status_code == 404, path


def test_a_changed_or_lost_file_is_not_served(
    home: Path, tmp_path: Path, searcher: Searcher
) -> None:
    folder = tmp_path / "library"
    make_library(folder)
    store = MemoryStore(searcher.store.manifest)
    index([folder / "noises"], store, searcher.model)
    with client_of(Searcher(searcher.model, store)) as client:
        (folder / "noises" / "000.wav").unlink()
        (folder / "noises" / "001.wav").write_bytes(b"secret")
        for name in ("000.wav", "001.wav"):
            for what in ("/audio", "/peaks", "/audio?download=true"):
                reply = client.get(clip_url(folder / "noises" / name, what))
                assert reply.status_code == 410, (name, what)


def test_other_sites_cannot_have_the_browser_ask(client: TestClient) -> None:
    question = {"text": "rain"}
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9999", "file://"):
        reply = client.post("/api/search", json=question, headers={"origin": origin})
        assert reply.status_code == 403, origin
    assert client.post("/api/search", json=question, headers={"origin": OWN}).status_code == 200


def test_other_sites_may_lead_to_the_page_alone(client: TestClient) -> None:
    """A picture's address is asked for without Origin; each such question costs time."""
    inside = ("/api/search?q=rain", "/api/status", "/mcp", "/api/openapi.json", "/api/none")
    for path in inside:
        for method in ("GET", "HEAD", "POST", "OPTIONS"):
            reply = client.request(method, path, headers={"sec-fetch-site": "cross-site"})
            assert reply.status_code == 403, (method, path)
    for path in ("/", "/web/main.js", "/health"):
        assert client.get(path, headers={"sec-fetch-site": "cross-site"}).status_code == 200, path
    for site in ("same-origin", "none"):
        assert client.get(inside[0], headers={"sec-fetch-site": site}).status_code == 200, site


def test_a_token_is_asked_of_everybody(searcher: Searcher, library: Path) -> None:
    with client_of(searcher, token=TOKEN) as client:
        for path in ("/api/status", "/metrics", "/mcp", "/api/openapi.json", "/api/events"):
            assert client.get(path).status_code == 401, path
        assert client.get(clip_url(library / "tone.ogg", "/audio")).status_code == 401
        assert client.post("/api/search", json={"text": "rain"}).status_code == 401
        assert client.get("/health").status_code == client.get("/").status_code == 200
        for wrong in (f"Bearer {TOKEN}x", "Bearer ", TOKEN, f"Basic {TOKEN}", "Bearer ü"):
            headers = [(b"authorization", wrong.encode())]
            assert client.get("/api/status", headers=headers).status_code == 401
        right = {"authorization": f"Bearer {TOKEN}"}
        assert client.get("/api/status", headers=right).status_code == 200
        assert client.post("/api/login", json={"token": "wrong"}).status_code == 401
        login = client.post("/api/login", json={"token": TOKEN})
        assert login.status_code == 204
        cookie = login.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert TOKEN not in cookie
        assert client.get(clip_url(library / "tone.ogg", "/audio")).status_code == 200


def test_a_cookie_says_nothing_of_the_token(searcher: Searcher) -> None:
    """Else who guesses tokens would try them as cookies, many in a request."""
    with client_of(searcher, token=TOKEN) as client, client_of(searcher, token=TOKEN) as other:
        for visited in (client, other):
            assert visited.post("/api/login", json={"token": TOKEN}).status_code == 204
            assert visited.get("/api/status").status_code == 200
        assert dict(client.cookies).keys() == dict(other.cookies).keys()
        other.cookies = client.cookies
        assert other.get("/api/status").status_code == 401


def test_wrong_tokens_slow_their_sender_down(searcher: Searcher) -> None:
    right = {"authorization": f"Bearer {TOKEN}"}
    app = create_app(searcher, ServerConfig(token=TOKEN))
    there = TestClient(app, base_url=OWN, client=("10.0.0.2", 1))
    with TestClient(app, base_url=OWN, client=("10.0.0.1", 1)) as here:
        for number in range(FREE_ATTEMPTS):
            wrong = {"authorization": f"Bearer guess-{number}"}
            assert here.get("/api/status", headers=wrong).status_code == 401
        for reply in (
            here.get("/api/status", headers=right),
            here.post("/api/login", json={"token": TOKEN}),
        ):
            assert reply.status_code == 429
            assert int(reply.headers["retry-after"]) >= 1
            assert "too many wrong tokens" in reply.json()["detail"]
        assert here.get("/api/status").status_code == 401
        assert here.get("/").status_code == 200
        # Who came in before, from the same address, goes on, and makes nobody's wait shorter.
        cookie = {"cookie": f"earshot-8000={app.state.session}"}
        assert here.get("/api/status", headers=cookie).status_code == 200
        assert here.get("/api/status", headers=right).status_code == 429
        assert there.get("/api/status", headers=right).status_code == 200
        deadline_s = time.monotonic() + 60
        while here.get("/api/status", headers=right).status_code != 200:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        assert here.post("/api/login", json={"token": "wrong"}).status_code == 401


def test_a_right_token_forgives_no_guesses(searcher: Searcher) -> None:
    """Else who guesses needs only a friend at the same address, or the token's owner."""
    right, guesses = {"authorization": f"Bearer {TOKEN}"}, []
    with client_of(searcher, token=TOKEN) as client:
        for number in range(2 * FREE_ATTEMPTS):
            wrong = {"authorization": f"Bearer guess-{number}"}
            guesses.append(client.get("/api/status", headers=wrong).status_code)
            client.get("/api/status", headers=right)
            client.post("/api/login", json={"token": TOKEN})
            client.cookies.clear()
    assert guesses[:FREE_ATTEMPTS] == [401] * FREE_ATTEMPTS
    assert 429 in guesses


def test_what_is_known_of_wrong_tokens_is_bounded() -> None:
    attempts = Attempts()
    for address in ("2001:db8::1", "2001:db8::2"):
        for _ in range(FREE_ATTEMPTS):
            attempts.note(address)
    assert attempts.wait_s("2001:db8::3") > FIRST_WAIT_S
    assert attempts.wait_s("2001:db8:1::3") == 0
    for _ in range(5000):
        attempts.note("10.0.0.1")
    assert 0 < attempts.wait_s("10.0.0.1") <= LONGEST_WAIT_S
    for number in range(MAX_ADDRESSES):
        attempts.note(f"10.1.{number // 256}.{number % 256}")
    assert len(attempts._wrong) == MAX_ADDRESSES
    assert attempts.wait_s("10.0.0.1") == 0


def test_other_addresses_need_a_token() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.9.9.9"):
        assert is_loopback(host)
        require_token(host, "")
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org", ""):
        with pytest.raises(EarshotError, match="--token"):
            require_token(host, "")
        require_token(host, TOKEN)


@pytest.mark.parametrize("token", ["short", "with a space", "tökentöken", "line\nbreakbreak"])
def test_weak_tokens_are_refused(token: str) -> None:
    with pytest.raises(EarshotError, match="characters"):
        ServerConfig(token=token)


# ---- what may change ----------------------------------------------------------------------------


def test_adding_and_removing_below_the_roots_alone(
    home: Path, tmp_path: Path, searcher: Searcher
) -> None:
    folder = tmp_path / "library"
    make_library(folder)
    outside = tmp_path / "outside"
    make_library(outside)
    (folder / "link").symlink_to(outside)
    store = MemoryStore(searcher.store.manifest)
    index([outside / "noises"], store, searcher.model)
    with client_of(Searcher(searcher.model, store), roots=(folder,)) as client:
        for path in (outside, folder / "..", folder / "link", f"{folder}x", "noises", "\0"):
            reply = client.post("/api/add", json={"paths": [str(path)]})
            assert reply.status_code == 403, path
        assert client.post("/api/add", json={"paths": [f"{folder}/none"]}).status_code == 404
        reply = client.post("/api/add", json={"paths": [str(folder / "noises")]})
        assert reply.status_code == 202
        job = wait_for_the_job(client)
        assert job["summary"]["added"] == job["files_done"] == 10
        assert client.get("/api/status").json()["files"] == 20
        removed = id_of(str(folder / "noises" / "000.wav"))
        assert client.post("/api/remove", json={"ids": [removed]}).json()["files"] == 19
        assert (folder / "noises" / "000.wav").exists()
        kept = id_of(str(outside / "noises" / "000.wav"))
        assert client.post("/api/remove", json={"ids": [kept]}).status_code == 403
        empty = folder / "empty"
        empty.mkdir()
        client.post("/api/add", json={"paths": [str(empty)]})
        assert "holds no audio" in wait_for_the_job(client)["error"]


def wait_for_the_job(client: TestClient) -> dict[str, object]:
    for _ in range(600):
        job: dict[str, object] = client.get("/api/status").json()["job"]
        if not job["running"]:
            return job
        time.sleep(0.1)
    raise AssertionError("the job does not end")


def test_nothing_changes_without_roots(client: TestClient, library: Path) -> None:
    reply = client.post("/api/add", json={"paths": [str(library)]})
    assert reply.status_code == 403
    assert "--root" in reply.json()["detail"]
    reply = client.post("/api/remove", json={"ids": [id_of(str(library / "tone.ogg"))]})
    assert reply.status_code == 403


# ---- as a process -------------------------------------------------------------------------------


def test_events_tell_how_far_the_indexing_is(
    library_index: Path, library: Path, home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "more"
    make_library(folder)
    with serving(library_index, home, "--root", str(folder)) as (url, process):
        seen = []
        with httpx2.stream("GET", f"{url}/api/events", timeout=60) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            for line in stream.iter_lines():
                if not line.startswith("data: "):
                    continue
                seen.append(json.loads(line.removeprefix("data: ")))
                if len(seen) == 1:
                    noises = {"paths": [str(folder / "noises")]}
                    assert httpx2.post(f"{url}/api/add", json=noises).status_code == 202
                elif not seen[-1]["running"]:
                    break
        assert seen[0]["number"] == 0
        assert seen[-1]["summary"]["added"] == 10
        everything = httpx2.get(f"{url}/api/clips?where=path > {folder}").json()
        ids = [clip["id"] for clip in everything["clips"] if str(folder) in clip["path"]]
        assert len(ids) == 10
        assert httpx2.post(f"{url}/api/remove", json={"ids": ids}).status_code == 200
        # With a stream of events open, Ctrl-C still ends the server at once.
        with httpx2.stream("GET", f"{url}/api/events", timeout=60) as stream:
            next(stream.iter_lines())
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 0


def refused_to_serve(home: Path, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "earshot", "serve", *options],
        env=run_environment(home),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_a_busy_port_and_an_open_address_are_one_line(library_index: Path, home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = refused_to_serve(home, str(library_index), "--port", port)
        assert port in line
        assert "in use" in line
    assert "--token" in refused_to_serve(home, str(library_index), "--host", "0.0.0.0")
    assert "no index" in refused_to_serve(home, str(library_index / "none"), "--port", "0")


@pytest.mark.parametrize("way", ["file", "variable"])
def test_a_token_need_not_stand_in_the_command(
    library_index: Path, home: Path, tmp_path: Path, way: str
) -> None:
    """Where every user of the machine can read it."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    options = ("--token-file", str(file)) if way == "file" else ()
    variables = {} if way == "file" else {"EARSHOT_TOKEN": TOKEN}
    with serving(library_index, home, *options, **variables) as (url, process):
        assert TOKEN not in str(process.args)
        assert httpx2.get(f"{url}/api/status", timeout=60).status_code == 401
        right = {"authorization": f"Bearer {TOKEN}"}
        assert httpx2.get(f"{url}/api/status", headers=right, timeout=60).status_code == 200


def test_a_token_that_is_not_to_be_had_is_one_line(tmp_path: Path, home: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "short").write_text("short")
    for name, words in (("none", "no such file"), ("empty", "no token"), ("short", "5 characters")):
        line = refused_to_serve(home, "index", "--token-file", str(tmp_path / name))
        assert words in line
    twice = refused_to_serve(home, "index", "--token-file", "x", "--token", TOKEN)
    assert "given twice" in twice


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_run_that_ends_by_a_fault_is_over(searcher: Searcher, library: Path) -> None:
    def fail() -> None:
        raise RuntimeError("a fault")

    indexer = Indexer(searcher.store, searcher.model, ServerConfig(roots=(library,)), fail)
    for number in (1, 2):
        assert indexer.start([library]).number == number
        deadline_s = time.monotonic() + 60
        while indexer.state.running and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert not indexer.state.running
        assert indexer.state.error.startswith("ended by a fault")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_answers_are_sent_at_once(host: str) -> None:
    """Without TCP_NODELAY each answer waits 40 ms for the last one's acknowledgement."""

    async def delays() -> int:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            accepted.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        taken = listen(host, 0)
        async with await asyncio.start_server(note, sock=taken):
            _, writer = await asyncio.open_connection(host, taken.getsockname()[1])
            sends_at_once = await accepted
            writer.close()
            return sends_at_once

    if host == "::1" and not socket.has_ipv6:
        pytest.skip("needs IPv6")
    assert asyncio.run(delays())
