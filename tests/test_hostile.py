"""Hostile recordings go through `index`: each is indexed or reported, and none stops the others."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import soundfile
from conftest import make_recordings
from crashes import obey_permissions
from hostile import Fate
from stored import D, embedded
from test_audio import encode, needs_av, noise, reason, whole, write

from earshot import audio
from earshot.files import sha256_of
from earshot.library import Progress, Summary, index
from earshot.metadata import read_notes
from earshot.model import model_manifest
from earshot.store import create_store, open_store
from earshot.types import EmbeddedFile, FileRecord, Model, Store

SEED = 8
# A tenth of the time after which a decoder is ended.
MOST_CPU_S = 12
SAMPLE = 120
LEAST_CASES = 2000
# Beside what good files take: blocks, segments, a soxr that makes 32 kHz of 1 Hz, for each worker.
MORE_MEMORY_MIB = 512


@pytest.fixture
def store(random_model: Model) -> Store:
    return create_store(":memory:", model_manifest(random_model))


def require_right(
    fates: dict[str, Fate], records: dict[str, FileRecord], reported: dict[str, str]
) -> Counter[str]:
    """Every file is in the index or in the report, as it should be; what is neither is lost."""
    became: Counter[str] = Counter()
    wrong = {}
    for path, fate in fates.items():
        record = records.get(path)
        why = reported.get(path, record.broken if record else "")
        found = "broken" if why else "good" if record else "lost"
        became[found] += 1
        if found == "lost" or (fate != "either" and found != fate):
            wrong[path] = f"{found}, not {fate}: {why}"
        if why.startswith("unexpected") or "\n" in why:
            wrong[path] = why
    assert wrong == {}
    return became


def require_sound(files: dict[str, EmbeddedFile]) -> None:
    """What is indexed has vectors that can be searched."""
    for path, file in files.items():
        assert np.isfinite(file.vectors).all(), path
        assert np.allclose(np.linalg.norm(file.vectors, axis=1), 1, atol=1e-3), path
        assert len(file.vectors) == len(file.segments) > 0, path
        assert 0 < file.record.duration_s < 1e6, path


def checked(fates: dict[str, Fate], store: Store, summary: Summary) -> Counter[str]:
    records = dict(store.files())
    became = require_right(fates, records, summary.broken)
    good = [path for path, record in records.items() if not record.broken]
    require_sound(dict(store.segments(good)))
    return became


def test_a_sample_of_hostile_files(tmp_path: Path, store: Store, random_model: Model) -> None:
    cases = hostile.all_cases(tmp_path, SEED, formats=5)
    chosen = np.random.default_rng(SEED).permutation(len(cases))[:SAMPLE]
    fates = hostile.put([cases[i] for i in chosen], tmp_path / "corpus")
    summary = index([tmp_path / "corpus"], store, random_model)
    became = checked(fates, store, summary)
    assert became["good"] > SAMPLE / 10
    assert became["broken"] > SAMPLE / 3
    assert became.total() == SAMPLE


def test_what_folders_hold_beside_recordings(
    tmp_path: Path, store: Store, random_model: Model
) -> None:
    sound = write(tmp_path / "a.wav", noise(0.1)).read_bytes()
    fates = hostile.put_places(tmp_path / "corpus", sound)
    assert len(fates) > 40
    checked(fates, store, index([tmp_path / "corpus"], store, random_model))


def test_names_that_are_too_long(tmp_path: Path, store: Store, random_model: Model) -> None:
    """Beyond 4096 bytes nothing can be opened by its path: the folder is named instead."""
    sound = write(tmp_path / "a.wav", noise(0.1)).read_bytes()
    try:
        paths = hostile.put_deep(tmp_path / "corpus", sound)
        summary = index([tmp_path / "corpus"], store, random_model)
    finally:
        shutil.rmtree(tmp_path / "corpus")
    records = store.files()
    for path in paths:
        if len(path) < 4096:
            assert not records[path].broken, path
        else:
            assert any(path.startswith(named) for named in summary.broken), path
    assert len(summary.broken) < len(records) < len(paths)


def test_files_without_permission(tmp_path: Path, store: Store, random_model: Model) -> None:
    """Root may read everything, but for a thread that gave its rights away."""
    if os.geteuid() == 0 and sys.platform != "linux":
        pytest.skip("root may read everything")
    rights = obey_permissions if os.geteuid() == 0 else None
    first, _ = make_recordings(tmp_path, 2)
    first.chmod(0)
    with ThreadPoolExecutor(1, initializer=rights) as user:
        summary = user.submit(index, [tmp_path], store, random_model).result()
    assert summary.broken == {str(first): "permission denied"}


def test_a_file_that_grows_while_it_is_hashed(
    tmp_path: Path, store: Store, random_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is heard; the next run sees what it became."""
    (path,) = make_recordings(tmp_path, 1)
    begun = path.stat().st_size
    digest = hashlib.file_digest

    class Growing:
        """A file that is written on after a part of it was read."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:
            read: int = self.file.readinto(memoryview(buffer)[: begun // 2])
            if path.stat().st_size == begun:
                with path.open("ab") as more:
                    more.write(bytes(10_000))
            return read

    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: digest(Growing(file), kind))
    summary = index([tmp_path], store, random_model)
    assert (summary.added, dict(summary.broken)) == (1, {})
    assert path.stat().st_size == begun + 10_000
    again = index([tmp_path], store, random_model)
    assert (again.added, dict(again.broken)) == (0, {})
    state = store.files()[str(path)].state
    assert (state.size_bytes, state.sha256) == (begun + 10_000, sha256_of(path))


def test_files_that_vanish_and_grow(tmp_path: Path, store: Store, random_model: Model) -> None:
    """While the first is heard, some of the others go and some are written on."""
    long = tmp_path / "0.wav"
    soundfile.write(long, np.full(16_000 * 90, 0.1), 16_000)
    vanishing = make_recordings(tmp_path / "vanish", 5)
    growing = make_recordings(tmp_path / "grow", 5, seed=1)
    meddled = threading.Event()

    def meddle(progress: Progress) -> None:
        if meddled.is_set():
            return
        meddled.set()
        for path in vanishing:
            path.unlink()
        for path in (long, *growing):
            with path.open("ab") as file:
                file.write(bytes(10_000))

    summary = index([tmp_path], store, random_model, workers=1, report=meddle)
    gone: dict[str, Fate] = {str(path): "broken" for path in vanishing}
    kept: dict[str, Fate] = {str(path): "good" for path in (long, *growing)}
    checked({**gone, **kept}, store, summary)
    assert set(summary.broken.values()) == {"no such file or directory"}


# What fell, one by one


@needs_av
@pytest.mark.parametrize("share", [0.2, 0.45, 0.9, 0.99])
def test_wma_that_is_cut_off(tmp_path: Path, share: float) -> None:
    """FFmpeg reckons how long it is by the bytes that are there."""
    path = encode(tmp_path / "a.wma", noise(2.5), "wmav2")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert reason(lambda: whole(path)).startswith("truncated: header says")


def test_few_bytes_are_not_days(tmp_path: Path) -> None:
    """A rate of 1 Hz makes 100 kB last for days: hours of work for nothing that can be heard."""
    path = write(tmp_path / "a.wav", noise(0.5))
    content = bytearray(path.read_bytes())
    at = content.index(b"fmt ") + 12
    content[at : at + 4] = (1).to_bytes(4, "little")
    path.write_bytes(content)
    assert reason(lambda: audio.probe(path)) == "damaged: header says 24000 s in 48044 bytes"
    silence = write(tmp_path / "b.flac", np.zeros((20_000, 1)), 1)
    content = bytearray(silence.read_bytes())
    content[21:26] = bytes([content[21] & 0xF0, 0, 0, 0, 0])  # it states no length any more
    silence.write_bytes(content)
    assert reason(lambda: whole(silence, 8_000)).startswith("damaged: more than ")
    honest = write(tmp_path / "c.flac", np.zeros((3 * 3600 * 8_000, 1)), 8_000)
    assert audio.probe(honest).duration_s == 3 * 3600


def test_a_recording_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made of one is kept until then: 100 MB of silence are 43 days and gigabytes."""
    assert audio.MAX_DURATION_S == 48 * 3600
    monkeypatch.setattr(audio, "MAX_DURATION_S", 7200.0)
    path = write(tmp_path / "a.flac", np.zeros((7200 * 8_000, 1)), 8_000)
    assert audio.probe(path).duration_s == 7200
    path = write(tmp_path / "b.flac", np.zeros((7201 * 8_000, 1)), 8_000)
    assert reason(lambda: audio.probe(path)) == "lasts longer than 2 hours; cut it into parts"
    content = bytearray(path.read_bytes())
    content[21:26] = bytes([content[21] & 0xF0, 0, 0, 0, 0])  # it states no length any more
    path.write_bytes(content)
    assert reason(lambda: whole(path, 8_000)) == "lasts longer than 2 hours; cut it into parts"


def test_the_lowest_rates_take_no_more_memory(tmp_path: Path) -> None:
    """soxr, asked for 32 kHz of 1 Hz, would hold half a gigabyte."""
    path = write(tmp_path / "a.wav", noise(0.1, 8)[:2000], 2, subtype="DOUBLE")
    code = (
        "import resource, sys; from earshot import audio\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "n = sum(map(len, audio.stream(sys.argv[1], sample_rate_hz=32_000)))\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(n, (after - before) // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    count, grown_mib = map(int, done.stdout.split())
    assert count == 1000 * 32_000
    assert grown_mib < 100


def test_tags_that_are_made_to_hurt(tmp_path: Path) -> None:
    """Whatever tags hold, no file is named in another, and nothing outside the tag comes in."""
    for case in hostile.laden(tmp_path):
        path = tmp_path / f"{case.name}{case.suffix}"
        path.write_bytes(case.content)
        notes = read_notes(path)
        assert "root:" not in str(notes)
        assert max(map(len, (notes.title, notes.description, *notes.tags))) <= 4000


# All of it


# A process of its own: what is started by one of tests counts the memory of that as its own.
MEASURED = """
import json, resource, subprocess, sys

done = subprocess.run(sys.argv[1:], capture_output=True, check=True)
most_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps([json.loads(done.stdout), most_kib // 1024]))
"""


def run_index(folder: Path, uri: Path) -> tuple[dict[str, Any], int]:
    """`earshot index --json`, and the most memory that it or a process of its own took, in MiB."""
    command = [sys.executable, "-m", "earshot", "index", folder, "--to", uri]
    command += ["--model", "tags-mn05", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command], check=True, stdout=subprocess.PIPE
    )
    summary, most_mib = json.loads(done.stdout)
    return summary, most_mib


HEAR_EACH = """
import json, sys, time
from earshot import audio
from earshot.types import AudioError

for path in sys.stdin.read().splitlines():
    why, begun_s = "", time.process_time()
    try:
        for _ in audio.stream(path, sample_rate_hz=32_000):
            pass
    except AudioError as error:
        why = error.reason
    print(json.dumps([path, why, time.process_time() - begun_s]), flush=True)
"""


@pytest.mark.reliability
def test_each_of_thousands_is_decoded_or_refused_by_itself(tmp_path: Path) -> None:
    """In one process that dies of none, each in bounded time of a core."""
    fates = hostile.put(hostile.all_cases(tmp_path, SEED), tmp_path / "corpus")
    assert len(fates) > LEAST_CASES
    command = [sys.executable, "-c", HEAR_EACH]
    done = subprocess.run(command, input="\n".join(fates), capture_output=True, text=True)
    heard = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, heard[-1:]
    assert [path for path, *_ in heard] == list(fates)
    records = {path: embedded(path, np.zeros((0, D)), broken=why).record for path, why, _ in heard}
    became = require_right(fates, records, {})
    longest_s = sorted((cpu_s for *_, cpu_s in heard), reverse=True)
    print(f"\n{len(fates)} cases: {dict(became)}; longest {longest_s[:8]} s of a core")  # noqa: T201
    assert longest_s[0] < MOST_CPU_S


@pytest.mark.reliability
@pytest.mark.usefixtures("random_model")
def test_thousands_of_hostile_files(tmp_path: Path) -> None:
    pytest.importorskip("lancedb", reason="the index on disk needs earshot[index]")
    cases = hostile.all_cases(tmp_path, SEED)
    fates = hostile.put(cases, tmp_path / "corpus")
    sound = write(tmp_path / "a.wav", noise(0.1)).read_bytes()
    fates |= hostile.put_places(tmp_path / "corpus" / "places", sound)
    assert len(fates) > LEAST_CASES
    make_recordings(tmp_path / "good", 50)
    _, usual_mib = run_index(tmp_path / "good", tmp_path / "good-index")
    summary, most_mib = run_index(tmp_path / "corpus", tmp_path / "index")
    assert most_mib < usual_mib + MORE_MEMORY_MIB
    store = open_store(str(tmp_path / "index"))
    records = dict(store.files())
    reported = {entry["path"]: entry["reason"] for entry in summary["broken"]}
    became = require_right(fates, records, reported)
    assert not [why for why in reported.values() if "took longer" in why or "died" in why]
    good = [path for path, record in records.items() if not record.broken]
    for start in range(0, len(good), 500):
        require_sound(dict(store.segments(good[start : start + 500])))
    told = f"{dict(became)}; memory of good files {usual_mib} MiB, of all {most_mib} MiB"
    print(f"\n{len(fates)} cases: {told}")  # noqa: T201 - the figures of docs/reliability.md
