"""Every format goes in, every broken file is named, and nothing depends on how blocks fall."""

import importlib.util
import os
import re
import socket
import struct
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from earshot import audio
from earshot.audio import ffmpeg, libsndfile
from earshot.types import AudioError, Segment

ESC10 = Path(__file__).parent.parent.parent / "shared" / "data" / "esc10"
needs_av = pytest.mark.skipif(
    importlib.util.find_spec("av") is None, reason="PyAV is not installed (extra media)"
)
FORMATS = [  # suffix, container, codec, largest error of a sample (None: lossy)
    (".wav", "WAV", "PCM_U8", 1e-2),
    (".wav", "WAV", "PCM_16", 1e-4),
    (".wav", "WAVEX", "PCM_24", 1e-6),
    (".wav", "WAV", "PCM_32", 1e-6),
    (".wav", "WAV", "FLOAT", 0.0),
    (".wav", "WAV", "DOUBLE", 1e-7),
    (".wav", "WAV", "ULAW", None),
    (".wav", "WAV", "IMA_ADPCM", None),
    (".rf64", "RF64", "PCM_16", 1e-4),
    (".w64", "W64", "PCM_24", 1e-6),
    (".aiff", "AIFF", "PCM_16", 1e-4),
    (".aifc", "AIFF", "FLOAT", 1e-7),
    (".caf", "CAF", "PCM_24", 1e-6),
    (".caf", "CAF", "ALAC_16", 1e-4),
    (".au", "AU", "PCM_16", 1e-4),
    (".flac", "FLAC", "PCM_24", 1e-6),
    (".ogg", "OGG", "VORBIS", None),
    (".opus", "OGG", "OPUS", None),
    (".mp3", "MP3", "MPEG_LAYER_III", None),
]
MEDIA = [  # suffix, codec, step of its time stamps in samples
    (".m4a", "aac", 0),
    (".mp4", "aac", 0),
    (".mov", "pcm_s16le", 0),
    (".mov", "alac", 0),
    (".aac", "aac", 0),
    (".webm", "libopus", 48),
    (".mka", "flac", 48),
    (".wma", "wmav2", 48),
]
RATE_HZ = 48_000


def noise(duration_s: float, channels: int = 1, rate_hz: int = RATE_HZ) -> np.ndarray:
    """Smooth, so that lossy codecs keep it, and different everywhere, so that shifts show."""
    if not duration_s:
        return np.zeros((0, channels), np.float32)
    white = np.random.default_rng(7).standard_normal((round(duration_s * rate_hz), channels))
    smooth = np.apply_along_axis(np.convolve, 0, white, np.hanning(32), "same")
    return (smooth * 0.05).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate_hz: int = RATE_HZ, **how: str) -> Path:
    """In pieces: libsndfile's Vorbis encoder overflows the stack on large ones."""
    channels = samples.shape[1]
    with soundfile.SoundFile(path, "w", rate_hz, channels, **how) as file:
        for begin in range(0, len(samples), 10_000):
            file.write(samples[begin : begin + 10_000])
    return path


def encode(path: Path, samples: np.ndarray, codec: str, *, video: bool = False, **options: str):
    """Write media with PyAV; `video` adds a picture, no samples leave the sound out."""
    import av

    kind = {".m4a": "ipod", ".aac": "adts", ".mka": "matroska", ".wma": "asf"}.get(path.suffix)
    with av.open(str(path), "w", format=kind, options=options) as container:
        if video:
            picture = container.add_stream("mpeg4", rate=25)
            picture.width = picture.height = 64
            picture.pix_fmt = "yuv420p"
        if len(samples):
            stereo = {1: "mono", 2: "stereo"}[samples.shape[1]]
            sound = container.add_stream(codec, rate=RATE_HZ, layout=stereo)
            sound.bit_rate = 128_000
        if video:
            for index in range(50):
                image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                image.pts = index
                container.mux(picture.encode(image))
            container.mux(picture.encode(None))
        if len(samples):
            planes = np.ascontiguousarray(samples.T)
            frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=stereo)
            frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


def cut_off(path: Path, share: float = 0.6) -> Path:
    """Keep the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def reason(call: Callable[[], object]) -> str:
    with pytest.raises(AudioError) as caught:
        call()
    assert "\n" not in caught.value.reason
    return caught.value.reason


def whole(path: Path, rate_hz: int = RATE_HZ) -> np.ndarray:
    return audio.read(path, sample_rate_hz=rate_hz)


# What goes in


@pytest.mark.parametrize(("suffix", "container", "codec", "error"), FORMATS)
def test_libsndfile_formats(tmp_path: Path, suffix, container, codec, error) -> None:
    samples = noise(2.0, channels=2)
    path = write(tmp_path / f"a{suffix}", samples, format=container, subtype=codec)
    info = audio.probe(path)
    assert (info.sample_rate_hz, info.channels, info.duration_s) == (
        RATE_HZ, 2, pytest.approx(2.0, abs=0.05)
    )  # fmt: skip
    assert info.format == f"{container}/{codec}"
    assert suffix in audio.AUDIO_SUFFIXES
    mono = whole(path)
    assert mono.dtype == np.float32
    assert mono.ndim == 1
    expected = samples.mean(axis=1)
    if error is None:
        length = min(len(mono), len(expected))
        assert np.corrcoef(mono[:length], expected[:length])[0, 1] > 0.95
    else:
        np.testing.assert_allclose(mono, expected, rtol=0, atol=error + 1e-7)


@needs_av
@pytest.mark.parametrize(("suffix", "codec", "step"), MEDIA)
def test_media_formats(tmp_path: Path, suffix, codec, step) -> None:
    samples = noise(2.0, channels=2)
    path = encode(tmp_path / f"a{suffix}", samples, codec, video=suffix == ".mp4")
    info = audio.probe(path)
    assert (info.sample_rate_hz, info.channels) == (RATE_HZ, 2)
    assert info.duration_s == pytest.approx(2.0, abs=0.1)
    assert suffix in audio.AUDIO_SUFFIXES
    mono, expected = whole(path), samples.mean(axis=1)
    if suffix in (".m4a", ".mp4", ".mov"):
        assert len(mono) == len(expected)  # without the encoder's padding
    lag = np.argmax(np.correlate(expected, mono[20_000:24_000], "valid")) - 20_000
    if suffix not in (".aac", ".wma"):  # these do not state the delay of their codec
        assert lag == 0
    length = min(len(mono), len(expected) - lag, 80_000)
    again = expected[max(0, lag) :][: length - abs(lag)]
    assert np.corrcoef(mono[max(0, -lag) :][: len(again)], again)[0, 1] > 0.95
    part = audio.read(path, sample_rate_hz=RATE_HZ, start_s=1.2, duration_s=0.3)
    shifts = [
        np.abs(part - mono[57_600 + shift :][: len(part)]).max() for shift in range(-step, step + 1)
    ]
    assert len(part) == 14_400
    assert min(shifts) < 0.01  # the noise of AAC is drawn at random


def test_suffixes_are_lower_case() -> None:
    assert all(s.startswith(".") and s == s.lower() for s in audio.AUDIO_SUFFIXES)


@pytest.mark.parametrize("channels", [1, 2, 3, 64])
def test_downmix_is_the_mean(tmp_path: Path, channels: int) -> None:
    samples = noise(0.1, channels=channels)
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    np.testing.assert_allclose(whole(path), samples.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("seconds", [0.5, 12.0])
@pytest.mark.parametrize("rate_hz", [RATE_HZ, 8000])
def test_channels_may_stay_apart(tmp_path: Path, seconds: float, rate_hz: int) -> None:
    samples = noise(seconds, channels=2)
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    blocks = list(audio.stream(path, sample_rate_hz=rate_hz, start_s=0.25, all_channels=True))
    apart = np.concatenate(blocks)
    assert apart.shape == (round((seconds - 0.25) * rate_hz), 2)
    for channel in (0, 1):
        alone = write(tmp_path / f"{channel}.wav", samples[:, [channel]], subtype="FLOAT")
        expected = audio.read(alone, sample_rate_hz=rate_hz, start_s=0.25)
        np.testing.assert_allclose(apart[:, channel], expected, atol=1e-6)


@needs_av
@pytest.mark.parametrize("codec", ["PCM_S8", "PCM_16", "PCM_24"])
def test_both_decoders_agree(tmp_path: Path, codec: str) -> None:
    """FFmpeg's own down-mix would be 3 dB louder."""
    path = write(tmp_path / "a.flac", noise(1.0, channels=2), subtype=codec)
    ours, theirs = libsndfile.Libsndfile(str(path)), ffmpeg.open_ffmpeg(str(path))
    one, other = np.concatenate([*ours.blocks()]), np.concatenate([*theirs.blocks()])
    ours.close()
    theirs.close()
    np.testing.assert_array_equal(one, other)


@needs_av
@pytest.mark.parametrize(
    ("kind", "dtype"), [("u8", "u1"), ("s16p", "i2"), ("s32", "i4"), ("dblp", "f8")]
)
def test_sample_kinds_of_ffmpeg(kind: str, dtype: str) -> None:
    import av

    full = {"u1": 128, "i2": 2**15, "i4": 2**31}.get(dtype, 1)
    values = np.array([[0.5, -0.5], [0.25, 0.0]]) * full + (128 if dtype == "u1" else 0)
    planes = values.T if kind.endswith("p") else values.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(planes.astype(dtype)), format=kind, layout="stereo"
    )
    np.testing.assert_array_equal(ffmpeg._samples(frame), [[0.5, -0.5], [0.25, 0.0]])


@pytest.mark.parametrize("rate_hz", [1, 7, 8_000, 44_101, 384_000])
@pytest.mark.parametrize("frames", [1, 50])
def test_any_rate_and_length(tmp_path: Path, rate_hz: int, frames: int) -> None:
    path = write(tmp_path / "a.wav", np.full((frames, 1), 0.5), rate_hz)
    mono = whole(path, 32_000)
    assert len(mono) == max(1, round(frames / rate_hz * 32_000))
    assert np.isfinite(mono).all()
    assert audio.probe(path).duration_s == frames / rate_hz


def test_names_need_not_be_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff\xe9.wav")
    try:
        write(tmp_path / "a.wav", noise(0.1)).rename(path)
    except OSError:
        pytest.skip("this file system wants text")
    assert len(whole(path)) == 4_800


def test_two_threads_read_one_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", noise(1.0))
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(whole(path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(result, results[0]) for result in results)
    assert len(results) == 4


# Blocks and parts


@pytest.mark.parametrize("block", [64, 1_000, 10_007])
@pytest.mark.parametrize("suffix", [".wav", ".ogg", ".mp3", pytest.param(".m4a", marks=needs_av)])
def test_blocks_do_not_matter(tmp_path: Path, monkeypatch, block: int, suffix: str) -> None:
    path, samples = tmp_path / f"a{suffix}", noise(1.0, channels=2)
    path = encode(path, samples, "aac") if suffix == ".m4a" else write(path, samples)
    expected = soxr.resample(whole(path), RATE_HZ, 32_000, quality="HQ")
    for module in (audio, libsndfile, ffmpeg):
        monkeypatch.setattr(module, "BLOCK_SAMPLES", block)
    blocks = list(audio.stream(path, sample_rate_hz=32_000))
    assert len(blocks) > 2
    assert all(map(len, blocks))
    np.testing.assert_array_equal(np.concatenate(blocks), expected)


CLIPS = [
    (suffix, rate_hz)
    for suffix in (".wav", ".flac", ".ogg", ".mp3")
    for rate_hz in (22_050, 44_100)
]
CLIPS.append((".opus", 48_000))


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for suffix, rate_hz in CLIPS:
        how = {"format": "OGG", "subtype": "OPUS"} if suffix == ".opus" else {}
        write(folder / f"{rate_hz}{suffix}", noise(12.0, rate_hz=rate_hz), rate_hz, **how)
    return folder


@pytest.mark.parametrize(("suffix", "rate_hz"), CLIPS)
def test_a_part_is_a_slice_of_the_whole(clips: Path, suffix: str, rate_hz: int) -> None:
    path = clips / f"{rate_hz}{suffix}"
    full = whole(path, 32_000)
    # The last is inside the last page of Vorbis, where libsndfile's own seek goes astray.
    for start_s in (0.0, 0.00731, 0.2, 3.14159, 7.5, 11.7, len(full) / 32_000 - 0.01):
        part = audio.read(path, sample_rate_hz=32_000, start_s=start_s, duration_s=0.4)
        first = round(start_s * 32_000)
        expected = full[first : first + 12_800]
        assert len(part) == len(expected)
        np.testing.assert_allclose(part, expected, rtol=0, atol=1e-6)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    start=st.integers(0, 380_000),
    count=st.integers(1, 40_000),
    rate_hz=st.sampled_from([44_100, 16_000]),
)
def test_any_part_of_a_wav(clips: Path, start: int, count: int, rate_hz: int) -> None:
    path = clips / "44100.wav"
    start = start * rate_hz // 32_000
    full = whole(path, rate_hz)
    part = audio.read(
        path, sample_rate_hz=rate_hz, start_s=start / rate_hz, duration_s=count / rate_hz
    )
    np.testing.assert_allclose(part, full[start : start + count], rtol=0, atol=1e-6)


def hour(path: Path, rate_hz: int = 8_000) -> Path:
    """An hour of silence that takes no disk: a hole behind a WAV header."""
    size = 3_600 * rate_hz * 2
    form = struct.pack("<HHIIHH", 1, 1, rate_hz, 2 * rate_hz, 2, 16)
    header = b"RIFF" + struct.pack("<I", size + 36) + b"WAVEfmt \x10\0\0\0" + form
    path.write_bytes(header + b"data" + struct.pack("<I", size))
    os.truncate(path, size + 44)
    return path


def test_a_part_of_an_hour_decodes_that_part(tmp_path: Path, monkeypatch) -> None:
    decoded = 0
    blocks = libsndfile.Libsndfile.blocks

    def counted(self, *mix) -> Iterator[np.ndarray]:
        nonlocal decoded
        for block in blocks(self, *mix):
            decoded += len(block)
            yield block

    monkeypatch.setattr(libsndfile.Libsndfile, "blocks", counted)
    path = hour(tmp_path / "a.wav")
    part = audio.read(path, sample_rate_hz=16_000, start_s=3_000.0, duration_s=30.0)
    assert len(part) == 480_000
    assert decoded <= 30 * 8_000 + 2 * audio.BLOCK_SAMPLES


def test_an_hour_needs_the_memory_of_a_block(tmp_path: Path) -> None:
    path = hour(tmp_path / "a.wav")
    tracemalloc.start()
    try:
        spans = [s for s, _ in audio.segments(path, sample_rate_hz=8_000, segment_s=10, hop_s=10)]
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(spans) == 360
    assert peak_bytes < 12 * 2**20
    assert spans[-1] == Segment(start_s=3_590.0, end_s=3_600.0)


# Segments


def slow_cut(total: int, length: int, hop: int, tolerance: int) -> list[tuple[int, int]]:
    """(first, end) by looking at the whole clip."""
    if total <= length + tolerance:
        return [(0, total)]
    starts = [s for s in range(0, total, hop) if s + length + tolerance < total]
    last = starts[-1] + hop
    if last + length > total:
        last = total - length
    return [(s, s + length) for s in starts] + [(last, total)]


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 700), min_size=1, max_size=8),
    length=st.integers(1, 500),
    share=st.floats(0.01, 1.0),
)
def test_segments_of_any_clip(sizes: list[int], length: int, share: float) -> None:
    rate_hz, total, hop = 1_000, sum(sizes), max(1, int(length * share))
    clip = np.arange(total, dtype=np.float32)
    blocks = iter(np.split(clip, np.cumsum(sizes)[:-1]))
    found = list(audio._cut(blocks, rate_hz, length, hop))
    expected = slow_cut(total, length, hop, tolerance=5)
    assert [(s.start_s, s.end_s) for s, _ in found] == [
        (a / rate_hz, b / rate_hz) for a, b in expected
    ]
    for (first, _), (_, waveform) in zip(expected, found, strict=True):
        np.testing.assert_array_equal(waveform, clip[first : first + min(length, total)])
    starts = [s.start_s for s, _ in found]
    assert starts == sorted(set(starts))
    ends = [s.end_s for s, _ in found]
    assert starts[0] == 0
    assert ends[-1] == total / rate_hz
    assert all(start <= end for start, end in zip(starts[1:], ends, strict=False))


@pytest.mark.parametrize(
    ("duration_s", "spans"),
    [
        (0.02, [(0, 0.02)]),
        (10.0, [(0, 10)]),
        (10.003, [(0, 10.003)]),
        (10.02, [(0, 10), (0.02, 10.02)]),
        (20.0, [(0, 10), (10, 20)]),
        (20.5, [(0, 10), (10, 20), (10.5, 20.5)]),
    ],
)
@pytest.mark.parametrize("rate_hz", [11_025, 44_100])
def test_spans(tmp_path: Path, duration_s: float, spans, rate_hz: int) -> None:
    path = write(tmp_path / "a.wav", noise(duration_s, rate_hz=rate_hz), rate_hz)
    found = list(audio.segments(path, sample_rate_hz=32_000, segment_s=10, hop_s=10))
    assert [(s.start_s, s.end_s) for s, _ in found] == [pytest.approx(s, abs=1e-4) for s in spans]
    full = whole(path, 32_000)
    for segment, waveform in found:
        first = round(segment.start_s * 32_000)
        np.testing.assert_array_equal(waveform, full[first : first + 320_000])


def test_one_sample_is_a_segment(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.full((1, 1), 0.5))
    [(segment, waveform)] = audio.segments(path, sample_rate_hz=32_000, segment_s=10, hop_s=5)
    assert segment == Segment(start_s=0.0, end_s=1 / 32_000)
    assert waveform.shape == (1,)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sample_rate_hz": 0},
        {"start_s": -1.0},
        {"start_s": float("nan")},
        {"duration_s": 0.0},
        {"duration_s": float("inf")},
    ],
)
def test_wrong_arguments_of_read(tmp_path: Path, wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        audio.read(tmp_path / "a.wav", **{"sample_rate_hz": 8_000, **wrong})


@pytest.mark.parametrize(("segment_s", "hop_s"), [(0, 0), (1, 0), (1, 2), (-1, -1)])
def test_wrong_lengths_of_segments(tmp_path: Path, segment_s: float, hop_s: float) -> None:
    with pytest.raises(ValueError, match="0 < hop_s <= segment_s"):
        audio.segments(tmp_path / "a", sample_rate_hz=8_000, segment_s=segment_s, hop_s=hop_s)


# Broken files


def patched(path: Path, at: int, new: bytes) -> Path:
    content = bytearray(path.read_bytes())
    content[at : at + len(new)] = new
    path.write_bytes(content)
    return path


def with_value(value: float) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        samples = noise(2.0, channels=2)
        samples[round(1.23 * RATE_HZ), 1] = value
        return write(folder / "a.wav", samples, subtype="FLOAT")

    return build


def text(folder: Path, content: bytes = b"I am a shopping list.\n" * 50) -> Path:
    (folder / "a.wav").write_bytes(content)
    return folder / "a.wav"


def absurd_flac(folder: Path) -> Path:
    """36 bits of samples, which some readers allocate."""
    path = write(folder / "a.flac", noise(1.0))
    return patched(path, 21, bytes([path.read_bytes()[21] | 0x0F]) + b"\xff" * 4)


BROKEN = [
    (lambda d: text(d, b""), r"empty file \(0 bytes\)"),
    (text, "not audio.*"),
    (lambda d: text(d, np.random.default_rng(0).bytes(5_000)), "not audio.*"),
    (lambda d: text(d).rename(d / "a.raw"), "not audio.*"),
    (lambda d: write(d / "a.wav", noise(0)), "no audio samples"),
    (with_value(np.nan), "not a finite number at 1.23 s"),
    (with_value(-np.inf), "not a finite number at 1.23 s"),
    (with_value(1e30), r"absurd sample value 5e\+29 at 1.23 s"),
    (absurd_flac, r"damaged: header says 1431656 s in \d+ bytes"),
    (lambda d: patched(write(d / "a.wav", noise(1.0)), 22, b"\xff\xff"), ".*many channels.*"),
    (lambda d: patched(write(d / "a.wav", noise(1.0)), 24, bytes(4)), "not audio, or damaged.*"),
]  # fmt: skip
CUT_OFF = {
    ".wav": r"truncated: header says 192000 bytes, \d+ are there",
    ".rf64": "truncated: header says .* bytes.*",
    ".w64": "truncated: header says .* bytes.*",
    ".aiff": "truncated: header says .* bytes.*",
    ".au": "truncated: header says .* bytes.*",
    ".caf": "not audio.*malformed.*",
    ".flac": r"damaged or truncated: .*",
    ".mp3": r"truncated: header says 2.0 s, 1.\d s decoded",
    ".ogg": "truncated: the last Ogg page is cut off",
    ".opus": "truncated: the last Ogg page is cut off",
}


@pytest.mark.parametrize(("build", "expected"), BROKEN, ids=range(len(BROKEN)))
def test_broken_files_say_why(tmp_path: Path, build, expected: str) -> None:
    path = build(tmp_path)
    assert re.fullmatch(expected, reason(lambda: whole(path, 32_000)))


@pytest.mark.parametrize("suffix", CUT_OFF)
@pytest.mark.parametrize("share", [0.6, 0.95])
def test_cut_off_files_are_reported(tmp_path: Path, suffix: str, share: float) -> None:
    how = {"format": "OGG", "subtype": "OPUS"} if suffix == ".opus" else {}
    path = cut_off(write(tmp_path / f"a{suffix}", noise(2.0), **how), share)
    assert re.fullmatch(CUT_OFF[suffix].replace("1.\\d", r"\d.\d"), reason(lambda: whole(path)))
    assert reason(lambda: list(audio.segments(path, sample_rate_hz=8_000, segment_s=1, hop_s=1)))


@needs_av
@pytest.mark.parametrize("suffix", [".m4a", ".webm", ".mka", ".mov"])
def test_cut_off_media_are_reported(tmp_path: Path, suffix: str) -> None:
    codec = {".webm": "libopus", ".mka": "flac", ".mov": "pcm_s16le"}.get(suffix, "aac")
    options = {"movflags": "faststart"} if suffix in (".m4a", ".mov") else {}
    path = cut_off(encode(tmp_path / f"a{suffix}", noise(4.0), codec, **options))
    assert "truncated" in reason(lambda: whole(path))


@needs_av
def test_media_without_their_index(tmp_path: Path) -> None:
    path = cut_off(encode(tmp_path / "a.m4a", noise(2.0), "aac"))
    assert reason(lambda: whole(path)).startswith("not audio, or damaged: ")


@needs_av
def test_a_picture_without_sound(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", noise(0), "aac", video=True)
    assert reason(lambda: whole(path)) == "no audio stream"


@needs_av
@pytest.mark.parametrize(
    "script", ["ffconcat version 1.0\nfile b.wav\n", "#EXTM3U\n#EXTINF:1,\nb.wav\n"]
)
def test_scripts_that_name_other_files_stay_shut(tmp_path: Path, script: str) -> None:
    write(tmp_path / "b.wav", noise(1.0))
    (tmp_path / "a.m3u8").write_text(script)
    assert reason(lambda: whole(tmp_path / "a.m3u8")).startswith("not audio")


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".mp3"])
def test_damage_in_the_middle(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", noise(4.0))
    middle = path.stat().st_size // 2
    patched(path, middle, np.random.default_rng(3).bytes(4_000))
    assert "truncated" in reason(lambda: whole(path))


@pytest.mark.parametrize("suffix", [".wav", ".caf", ".aiff", ".flac", ".ogg", ".mp3"])
def test_nothing_but_audio_errors_escapes(tmp_path: Path, suffix: str) -> None:
    random = np.random.default_rng(11)
    good = write(tmp_path / f"a{suffix}", noise(0.3)).read_bytes()
    path = tmp_path / f"b{suffix}"
    for reach in [120, len(good)] * 15:
        content = bytearray(good)
        for at in random.integers(0, reach, 4):
            content[at] = random.integers(256)
        path.write_bytes(content)
        try:
            audio.probe(path)
            assert len(whole(path, 8_000))
        except AudioError as error:
            assert "\n" not in error.reason


def test_a_part_before_the_damage_is_readable(tmp_path: Path) -> None:
    path = cut_off(write(tmp_path / "a.mp3", noise(20.0)))
    assert len(audio.read(path, sample_rate_hz=RATE_HZ, duration_s=1.0)) == RATE_HZ


def test_a_part_behind_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(1.0))
    for start_s in (1.0, 1.1, 50.0):
        part = reason(lambda s=start_s: audio.read(path, sample_rate_hz=8_000, start_s=s))
        assert part == f"no audio samples at {start_s:g} s: the file ends before"


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_a_wav_from_a_pipe_states_no_length(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "a.wav", noise(1.0), format="WAV")
    at = path.read_bytes().index(b"data") + 4
    patched(patched(path, 4, struct.pack("<I", size)), at, struct.pack("<I", size))
    assert len(whole(path)) == RATE_HZ


def test_a_flac_from_a_pipe_states_no_length(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", noise(2.0))
    patched(path, 21, bytes([path.read_bytes()[21] & 0xF0]) + bytes(4))
    assert audio.probe(path).duration_s == 2.0
    assert len(whole(path)) == 2 * RATE_HZ
    part = audio.read(path, sample_rate_hz=RATE_HZ, start_s=1.5)
    np.testing.assert_array_equal(part, whole(path)[72_000:])


def chain(folder: Path) -> Path:
    """Two Ogg streams one after the other, as a radio sends them."""
    import av

    links = []
    for name in ("a.ogg", "b.ogg"):
        with av.open(str(folder / name), "w") as file:
            sound = file.add_stream("libopus", rate=RATE_HZ, layout="mono")
            frame = av.AudioFrame.from_ndarray(noise(2.0).T.copy(), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
            file.mux(sound.encode(frame))
            file.mux(sound.encode(None))
        links.append((folder / name).read_bytes())
    (folder / "chain.ogg").write_bytes(b"".join(links))
    return folder / "chain.ogg"


@needs_av
def test_a_chain_of_streams_is_read_to_its_end(tmp_path: Path, monkeypatch) -> None:
    path = chain(tmp_path)
    assert len(whole(path)) == pytest.approx(4 * RATE_HZ, rel=0.01)
    without_av(monkeypatch)
    assert "a chain of several Ogg streams" in reason(lambda: whole(path))


def without_av(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def untagged_mp3(path: Path, bit_rates: list[int]) -> Path:
    """No length header, and a bit rate that changes: what libsndfile guesses is wrong."""
    parts = []
    for bit_rate in bit_rates:
        import av

        with av.open(str(path), "w", options={"write_xing": "0", "id3v2_version": "0"}) as file:
            sound = file.add_stream("libmp3lame", rate=RATE_HZ, layout="mono")
            sound.bit_rate = bit_rate
            planes = np.ascontiguousarray(noise(4.0).T)
            frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
            file.mux(sound.encode(frame))
            file.mux(sound.encode(None))
        parts.append(path.read_bytes())
    path.write_bytes(b"".join(parts))
    return path


@needs_av
@pytest.mark.parametrize("bit_rates", [[128_000], [320_000, 32_000], [32_000, 320_000]])
def test_an_mp3_without_a_length_header(tmp_path: Path, bit_rates: list[int]) -> None:
    path = untagged_mp3(tmp_path / "a.mp3", bit_rates)
    full = whole(path)
    assert len(full) == pytest.approx(4 * len(bit_rates) * RATE_HZ, rel=0.03)
    assert audio.probe(path).duration_s == len(full) / RATE_HZ
    part = audio.read(path, sample_rate_hz=RATE_HZ, start_s=3.0, duration_s=0.5)
    np.testing.assert_allclose(part, full[144_000:168_000], atol=1e-6)


@needs_av
def test_an_mp3_without_a_length_header_nor_pyav(tmp_path: Path, monkeypatch) -> None:
    steady = untagged_mp3(tmp_path / "steady.mp3", [128_000])
    falling = untagged_mp3(tmp_path / "falling.mp3", [320_000, 32_000, 32_000, 32_000, 32_000])
    without_av(monkeypatch)
    assert len(whole(steady)) == pytest.approx(4 * RATE_HZ, rel=0.03)
    assert "pip install 'earshot[media]'" in reason(lambda: whole(falling))


def test_without_pyav_the_error_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    without_av(monkeypatch)
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x1cftypM4A " + bytes(100))
    expected = "not audio that libsndfile knows (Format not recognised); M4A, WebM, MP4 and WMA "
    assert (
        reason(lambda: whole(tmp_path / "a.m4a")) == f"{expected}need: pip install 'earshot[media]'"
    )


# What is no file


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "link.wav").symlink_to("nowhere.wav")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.wav"))
        for name, expected in {
            "pipe.wav": "not a regular file",
            "s.wav": "not a regular file",
            "folder.wav": "is a directory",
            "link.wav": "no such file or directory",
            "nowhere.wav": "no such file or directory",
            "zero\0byte.wav": "not a file name: embedded null byte",
            "long" * 100: "file name too long",
            "/dev/zero": "not a regular file",
        }.items():
            for call in (audio.probe, whole):
                assert reason(lambda c=call, n=name: c(tmp_path / n)) == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_without_permission(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(0.1))
    path.chmod(0)
    assert reason(lambda: whole(path)) == "permission denied"


def test_a_refusal_of_the_system_is_passed_on(tmp_path: Path, monkeypatch) -> None:
    path = write(tmp_path / "a.wav", noise(0.1))

    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    assert reason(lambda: whole(path)) == "permission denied"


def test_files_are_closed(tmp_path: Path) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc to count open files")
    bad, good = text(tmp_path).rename(tmp_path / "b.wav"), write(tmp_path / "a.wav", noise(9.0))
    cut = cut_off(write(tmp_path / "c.ogg", noise(1.0)))
    before = open_files()
    next(iter(audio.stream(good, sample_rate_hz=8_000)))
    for path in (bad, cut):
        reason(lambda p=path: whole(p))
    assert open_files() == before


# Real recordings


@pytest.mark.skipif(not ESC10.exists(), reason="the ESC-10 recordings are not here")
def test_real_recordings() -> None:
    for path in sorted(ESC10.glob("*/*.ogg"))[::40]:
        samples, rate_hz = soundfile.read(path, dtype="float32")
        expected = soxr.resample(samples, rate_hz, 32_000, quality="HQ")
        np.testing.assert_array_equal(whole(path, 32_000), expected)
        start_s = len(expected) / 32_000 - 0.5
        part = audio.read(path, sample_rate_hz=32_000, start_s=start_s)
        np.testing.assert_allclose(part, expected[round(start_s * 32_000) :], atol=1e-6)
