"""A library to serve in tests: recordings of every awkward kind, its index, a server that runs."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import numpy as np
import soundfile
import uvicorn
from conftest import make_recordings
from fastapi import FastAPI
from fastapi.testclient import TestClient

from earshot.calibrate import Calibration
from earshot.search import Searcher
from earshot.server import ServerConfig, create_app
from earshot.server.catalogue import id_of
from earshot.server.running import listen

LONG_S = 65.0
TOKEN = "a-long-token"
OWN = "http://127.0.0.1:8000"
BRACKETED = "a [strange] näme & 100%?.wav"


def make_library(folder: Path) -> None:
    """Sixteen recordings, among them what browsers cannot play, and a broken one."""
    make_recordings(folder / "noises", 10)
    random = np.random.default_rng(3)
    t = np.arange(int(LONG_S * 8000)) / 8000
    sweep = 0.3 * np.sin(2 * np.pi * (200 + 20 * t) * t) + random.normal(0, 0.01, len(t))
    soundfile.write(folder / "long.flac", sweep, 8000)

    # Of different durations: the same sound of the same duration is one hit.
    def tone(duration_s: float) -> np.ndarray:
        return 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(duration_s * 48_000)) / 48_000)

    soundfile.write(folder / "tone.aiff", tone(1.1), 48_000, subtype="PCM_24")
    stereo = np.stack([tone(1.2), -tone(1.2) / 2], axis=1)
    soundfile.write(folder / "deep.wav", stereo, 48_000, "PCM_24")
    soundfile.write(folder / "wide.wav", np.repeat(tone(1.3)[:, None], 4, axis=1), 192_000)
    soundfile.write(folder / "tone.ogg", tone(1.0), 48_000)
    soundfile.write(folder / BRACKETED, tone(1.4), 48_000)
    (folder / "broken.wav").write_bytes(b"RIFF, but no more of it")


def client_of(searcher: Searcher, **config: object) -> TestClient:
    """A client of an app in this process."""
    return TestClient(create_app(searcher, ServerConfig(**config), name="lib"), base_url=OWN)


def clip_url(path: Path, what: str = "") -> str:
    return f"/api/clips/{id_of(str(path))}{what}"


def run_environment(home: Path) -> dict[str, str]:
    return {**os.environ, "EARSHOT_HOME": str(home), "OMP_NUM_THREADS": "1"}


def make_index(folder: Path, home: Path) -> Path:
    """The index of a library, made by the command."""
    index = folder.parent / f"{folder.name}-index"
    command = ("index", folder, "--to", index, "--model", "tags-mn05")
    subprocess.run(
        [sys.executable, "-m", "earshot", *map(str, command)],
        env=run_environment(home),
        capture_output=True,
        check=True,
        timeout=300,
    )
    return index


@contextmanager
def answering(app: FastAPI) -> Iterator[str]:
    """A server of an app in a thread of this process; gives its address."""
    taken = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
    thread = Thread(target=server.run, kwargs={"sockets": [taken]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
    finally:
        app.state.closing.set()
        server.should_exit = True
        thread.join(timeout=30)


@contextmanager
def serving(
    index: Path, home: Path, *options: str, **environment: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server of an index as a process of its own; gives its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "earshot", "serve", str(index), "--port", "0", *options],
        env=run_environment(home) | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("earshot: http://"), line + process.stderr.read()
        yield line.split()[1], process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def calibration(dimension: int, intercept: float) -> Calibration:
    """One by which everything is likely (a high intercept), or nothing (a low one)."""
    background = np.random.default_rng(0).normal(size=(50, dimension))
    return Calibration(
        background=background / np.linalg.norm(background, axis=1, keepdims=True),
        slope=0.01,
        intercept=intercept,
        bar=-np.sign(intercept) * 1e6,
        bar_per_doubling=0.0,
        false_alarm_rate=0.05,
    )
