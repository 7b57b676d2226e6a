"""A sound that is brought: decoded apart, to its end, and not longer than is stated."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from conftest import make_recordings
from test_isolated import FAULTS, REASONS, customised

from earshot.examine import LONGEST_S, Examiner, examine, manner_of_end
from earshot.server.uploads import Uploads
from earshot.types import AudioError

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="signals are told by their names on POSIX systems"
)
PATIENCE_S = 4.0
# As if libsndfile died of files of this length alone, whatever they are called.
FATAL_FRAMES = 777
FATAL = f"""
import signal
import soundfile

real = soundfile.SoundFile.read

def read(self, *arguments, **options):
    if self.frames == {FATAL_FRAMES}:
        signal.raise_signal(signal.SIGSEGV)
    return real(self, *arguments, **options)

soundfile.SoundFile.read = read
"""


@pytest.fixture
def examiner() -> Iterator[Examiner]:
    examiner = Examiner(PATIENCE_S)
    yield examiner
    examiner.close()


def silence(duration_s: float, rate_hz: int = 8000) -> bytes:
    """FLAC, of which an hour has less than 100 kB."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate_hz, 1, format="FLAC", subtype="PCM_16") as sound:
        for _ in range(round(duration_s)):
            sound.write(np.zeros(rate_hz, np.int16))
    return file.getvalue()


def test_a_decoder_that_ends_is_told_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, examiner: Examiner
) -> None:
    customised(tmp_path / "site", FAULTS, monkeypatch)
    good, *others = make_recordings(tmp_path / "sounds", 1 + len(REASONS))
    described = examiner(str(good))
    assert described == examine(str(good))
    first = examiner._process
    examiner(str(good))
    assert examiner._process is first
    for path, (name, reason) in zip(others, REASONS.items(), strict=True):
        culprit = path.rename(path.with_name(f"{name}.wav"))
        with pytest.raises(AudioError) as told:
            examiner(str(culprit))
        assert told.value.reason == reason
        assert examiner(str(good)) == described
    assert not first.is_alive()


@pytest.mark.parametrize(("code", "told"), [(-11, "died of SIGSEGV"), (-40, "died of signal 40")])
def test_every_end_can_be_told(code: int, told: str) -> None:
    assert manner_of_end(SimpleNamespace(join=lambda timeout: None, exitcode=code)) == told


def test_damage_is_told_from_there(tmp_path: Path, examiner: Examiner) -> None:
    sound = silence(20.0)
    path = tmp_path / "sound.flac"
    path.write_bytes(sound)
    assert examiner(str(path)).duration_s == 20.0
    path.write_bytes(sound[: len(sound) // 2])
    for examined in (examine, examiner):
        with pytest.raises(AudioError, match="truncated"):
            examined(str(path))


def test_what_lasts_too_long_is_refused(tmp_path: Path) -> None:
    (path := tmp_path / "long.flac").write_bytes(silence(LONGEST_S + 2))
    with pytest.raises(AudioError, match="longer than 10 minutes"):
        examine(str(path))
    path.write_bytes(silence(LONGEST_S))
    assert examine(str(path)).duration_s == LONGEST_S


@pytest.mark.parametrize("isolated", [False, True])
def test_no_upload_lasts_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolated: bool
) -> None:
    monkeypatch.setenv("EARSHOT_HOME", str(tmp_path))
    uploads = Uploads(2, isolated=isolated)
    try:
        with pytest.raises(AudioError, match=r"^x.flac: lasts longer than 10 minutes"):
            uploads.add(io.BytesIO(silence(3600.0)), "x.flac")
        assert list(uploads._folder.iterdir()) == []
        assert uploads.add(io.BytesIO(silence(2.0)), "x.flac").record.duration_s == 2.0
    finally:
        uploads.close()


def test_a_server_outlives_an_upload(
    tmp_path: Path, home: Path, library_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    httpx2 = pytest.importorskip("httpx2")
    served = pytest.importorskip("served")
    customised(tmp_path / "site", FATAL, monkeypatch)
    soundfile.write(fatal := tmp_path / "fatal.wav", np.full(FATAL_FRAMES, 0.1), 16_000)
    with served.serving(library_index, home) as (url, _):
        for route in ("sounds", "similar"):
            sound = {"sound": ("fatal.wav", fatal.read_bytes())}
            reply = httpx2.post(f"{url}/api/{route}", files=sound, timeout=120)
            assert reply.status_code == 422
            assert reply.json()["detail"] == "fatal.wav: its decoder died of SIGSEGV"
        good = {"sound": ("good.flac", silence(1.0))}
        assert httpx2.post(f"{url}/api/similar", files=good, timeout=120).status_code == 200
