"""How long the server takes: searches by many at once in large libraries, the page's first paint.

    EARSHOT_ASSETS=FOLDER python benchmarks/serve.py INDEX

INDEX is an index of real recordings; larger libraries are perturbed copies of its segments, whose
cosines with queries are as those of real ones. Clients run on the same cores as the server.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from earshot.store import create_store, open_store
from earshot.types import EmbeddedFile, Segment

RESULT = Path(__file__).with_suffix(".json")
SIZES = (10_000, 100_000)
CLIENTS = (1, 8, 32)
REQUESTS = 96
SEGMENTS_PER_FILE = 5
HOP_S = 5.0
# The cosine of a copy with its original is about 0.9: other takes of one sound are as near.
NOISE = 0.5
BATCH_FILES = 2000
# What clients ask to have a connection.
CONNECTING = ("sound",)
THINGS = (
    "dog",
    "rain",
    "rooster",
    "helicopter",
    "chainsaw",
    "fire",
    "clock",
    "baby",
    "waves",
    "wind",
)
PLACES = ("", " far away", " on a tin roof", " in a large hall", " while birds sing", " at night")


def queries() -> Iterator[str]:
    """Queries that nobody asked before, as far as they go."""
    for number in range(10_000):
        for thing, place in product(THINGS, PLACES):
            yield f"{thing}{place}" if not number else f"{thing} {number}{place}"


def copies(files: list[EmbeddedFile], count: int, seed: int = 0) -> Iterator[EmbeddedFile]:
    """Files of perturbed segments."""
    random = np.random.default_rng(seed)
    vectors = np.concatenate([file.vectors for file in files])
    scale = NOISE / np.sqrt(vectors.shape[1])
    spans = tuple(
        Segment(start_s=HOP_S * i, end_s=HOP_S * (i + 2)) for i in range(SEGMENTS_PER_FILE)
    )
    for number in range(count // SEGMENTS_PER_FILE):
        origin = files[int(random.integers(len(files)))]
        chosen = vectors[random.integers(len(vectors), size=SEGMENTS_PER_FILE)]
        noisy = chosen + random.normal(0, scale, chosen.shape)
        unit = (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)
        state = origin.record.state
        path = f"/library/{number % 97:02d}/{Path(state.path).parent.name} take {number}.wav"
        state = replace(state, path=path, sha256=f"{number:064x}")
        record = replace(origin.record, state=state, duration_s=spans[-1].end_s)
        yield EmbeddedFile(record=record, segments=spans, vectors=unit)


def enlarge(source: str, target: str, count: int) -> None:
    """Write an index of `count` segments."""
    store = open_store(source)
    files = list(store.segments(list(store.files())).values())
    large = create_store(target, store.manifest)
    batch: list[EmbeddedFile] = []
    for file in copies(files, count):
        batch.append(file)
        if len(batch) == BATCH_FILES:
            large.put(batch)
            batch = []
    if batch:
        large.put(batch)
    large.optimize()


@contextmanager
def serving(index: str) -> Iterator[tuple[str, int]]:
    """The server of an index; gives its address and process."""
    command = [sys.executable, "-m", "earshot", "serve", index, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[1], process.pid
        finally:
            process.send_signal(signal.SIGINT)


def cpu_s(process: int) -> float:
    """What a process has had of the processors (Linux); on a shared machine the fairer figure."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(process: int) -> float:
    """The most memory that a process had (Linux)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM"))
    return round(int(peak.split()[1]) / 1024)


def latencies_ms(url: str, server: int, clients: int, texts: list[str]) -> dict[str, float]:
    """Percentiles over requests of clients that ask again as soon as they are answered."""
    with httpx2.Client(base_url=url, timeout=60) as client:

        def ask(text: str) -> float:
            start_s = time.perf_counter()
            reply = client.get("/api/search", params={"q": text, "k": 20})
            reply.raise_for_status()
            return 1000 * (time.perf_counter() - start_s)

        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(ask, CONNECTING * clients))
            start_s, start_cpu_s = time.perf_counter(), cpu_s(server)
            spent = list(pool.map(ask, texts))
            took_s = time.perf_counter() - start_s
            spent_cpu_s = cpu_s(server) - start_cpu_s
    return {
        "p50_ms": round(float(np.percentile(spent, 50)), 1),
        "p95_ms": round(float(np.percentile(spent, 95)), 1),
        "per_s": round(len(texts) / took_s, 2),
        "server_cpu_ms": round(1000 * spent_cpu_s / len(texts), 1),
    }


def paint_ms(url: str) -> dict[str, float]:
    """Of a fresh visitor in Chromium: the first paint, and the first row of the list."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        paints, rows = [], []
        for _ in range(5):
            page = browser.new_context().new_page()
            start_s = time.perf_counter()
            page.goto(url)
            page.wait_for_selector(".hit")
            rows.append(1000 * (time.perf_counter() - start_s))
            entry = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"
            paints.append(page.evaluate(entry))
            page.context.close()
        browser.close()
    return {
        "first_contentful_paint_ms": round(float(np.median(paints)), 1),
        "first_row_ms": round(float(np.median(rows)), 1),
    }


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description="The server's latency.")
    parser.add_argument("index")
    parser.add_argument("--segments", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--clients", type=int, nargs="*", default=list(CLIENTS))
    parser.add_argument("--requests", type=int, default=REQUESTS)
    chosen = parser.parse_args()
    result: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for size in chosen.segments:
            large = f"{folder}/{size}"
            enlarge(chosen.index, large, size)
            with serving(large) as (url, server):
                asked = queries()
                figures: dict[str, Any] = {"cores": os.cpu_count(), "requests": chosen.requests}
                for clients in chosen.clients:
                    texts = [next(asked) for _ in range(chosen.requests)]
                    figures[f"{clients} clients"] = latencies_ms(url, server, clients, texts)
                known = texts[:8] * (chosen.requests // 8)
                figures["8 clients, 8 known queries"] = latencies_ms(url, server, 8, known)
                figures["page"] = paint_ms(url)
                figures["server_peak_memory_mb"] = memory_mb(server)
                figures["load_average"] = round(os.getloadavg()[0], 1)
            result[f"{size} segments"] = figures
            print(json.dumps({size: figures}, indent=2), flush=True)
            RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
