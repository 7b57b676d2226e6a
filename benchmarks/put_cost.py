"""What it costs to put 512 files, as `earshot index` does, into an index that has grown large.

LanceDB looks for the paths of what is put among all rows: by scanning those that no index has. An
index of 16 numbers a vector, four segments a file, is filled; at each size the CPU seconds of the
process are taken for five puts, before it is optimized and after.

    OMP_NUM_THREADS=1 python benchmarks/put_cost.py [--segments 100000 400000 800000]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from earshot.library import WRITE_FILES
from earshot.store import LanceStore
from earshot.types import EmbeddedFile, FileRecord, FileState, Manifest, Segment

RESULT = Path(__file__).with_suffix(".json")
MANIFEST = Manifest(model="none", fingerprint="f" * 64, dimension=16, segment_s=10.0, hop_s=5.0)
SEGMENTS = tuple(Segment(start_s=5.0 * i, end_s=5.0 * i + 10) for i in range(4))
PUTS = 5


def made(seed: int = 0) -> Iterator[EmbeddedFile]:
    """Files without end, of names in no order."""
    draw = np.random.default_rng(seed)
    while True:
        vectors = draw.normal(size=(len(SEGMENTS), MANIFEST.dimension)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        name = f"/sounds/{draw.integers(100):02d}/{draw.integers(2**60):015x}.wav"
        state = FileState(path=name, size_bytes=1, mtime_ns=1, ctime_ns=1, sha256=name)
        record = FileRecord(state=state, duration_s=25.0, sample_rate_hz=48_000, channels=1)
        yield EmbeddedFile(record=record, segments=SEGMENTS, vectors=vectors)


def put_cpu_s(store: LanceStore, files: Iterator[EmbeddedFile]) -> float:
    """The median over some puts."""
    costs = []
    for _ in range(PUTS):
        batch = [next(files) for _ in range(WRITE_FILES)]
        since = time.process_time()
        store.put(batch)
        costs.append(time.process_time() - since)
    return round(median(costs), 3)


def main() -> None:
    """Measure all, print and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--segments", type=int, nargs="+", default=[100_000, 400_000, 800_000])
    files, rows = made(), []
    with TemporaryDirectory() as folder:
        store = LanceStore.create(f"{folder}/index", MANIFEST, exact_rows=1_000)
        for wanted in parser.parse_args().segments:
            while (count := store.segment_count()) < wanted:
                due = min(16_384, -(-(wanted - count) // len(SEGMENTS)))
                store.put([next(files) for _ in range(due)])
            before = put_cpu_s(store, files)
            store.optimize()
            store.wait()
            store.optimize()
            row = {"segments": count, "since_last": before, "optimized": put_cpu_s(store, files)}
            print(row, flush=True)
            rows.append(row)
    RESULT.write_text(json.dumps({"files_a_put": WRITE_FILES, "cpu_s": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
