"""Search in 10,000 to 1,000,000 segments: build, disk, memory, latency, recall; FAISS beside it.

    EARSHOT_ASSETS=FOLDER python benchmarks/scale.py SIZE --indexes INDEX... --work FOLDER

The indexes are of real recordings by the model `tags`; SIZE vectors are made from theirs
(`sound_vectors.py`), or with `--noise` isotropic. Each engine runs in a process of its own with two
threads, builds, then answers one query at a time: half of the queries are further recordings, half
the texts of `queries/`. Recall is of the exact first ten. `scale.json` keeps a run beside earlier
ones of other sizes.

Building and searching are steps of their own (`--steps`), so that a shared machine is had alone for
what is timed; a build ends after `--minutes`, and the next call goes on with it.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import resource
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from retrieval_queries import QUERIES, load_queries
from sound_vectors import Sounds, local_dimension, noise, real_vectors

RESULT = Path(__file__).with_suffix(".json")
THREADS = 2
RECORDED, K, LONG = 100, 10, 40
FILES_AT_ONCE, FAISS_AT_ONCE = 4096, 10_000
# FAISS as it is used at these sizes: HNSW of 32 links, searched 128 wide; 64 bytes a vector of
# the first 256 principal axes, 32 of sqrt(N) lists searched, the best 200 scored exactly.
HNSW_LINKS, HNSW_BREADTH, PQ_BYTES, PROBES, CANDIDATES = 32, 128, 64, 32, 200
QUESTIONS = ("dog", "rain on a tin roof", "someone is walking on gravel while birds sing far away")


class Made:
    """The vectors (N, D), the files (N,) they are of, queries (Q, D), their exact first (Q, K)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        self.files = np.load(folder / "files.npy")
        self.queries = np.load(folder / "queries.npy")
        self.true = np.load(folder / "true.npy")


def make(folder: Path, size: int, uris: list[str], *, noisy: bool) -> dict[str, Any]:
    """Write what is searched, what is asked and what is right; gives what they are like."""
    from earshot.model import load

    folder.mkdir(parents=True, exist_ok=True)
    real = real_vectors(uris)
    dimension = real.shape[1]
    source = noise(size, dimension, 1) if noisy else Sounds(real, 1).blocks(size)
    vectors = np.lib.format.open_memmap(
        folder / "vectors.npy", "w+", dtype=np.float32, shape=(size, dimension)
    )
    files, start = np.empty(size, dtype=np.int64), 0
    for block, owners in source:
        vectors[start : start + len(block)], files[start : start + len(block)] = block, owners
        start += len(block)
    others = noise(RECORDED, dimension, 2) if noisy else Sounds(real, 2).blocks(RECORDED)
    recorded = np.concatenate([block for block, _ in others])[:RECORDED]
    asked_of = [QUERIES / f"{name}.csv" for name in ("esc10", "sounds")]
    texts = [query.text for path in asked_of for query in load_queries(path)]
    asked = load("tags", "cpu").embed_text(texts[:: max(1, len(texts) // RECORDED)][:RECORDED])
    queries = np.concatenate([recorded, asked]).astype(np.float32)
    np.save(folder / "files.npy", files)
    np.save(folder / "queries.npy", queries)
    np.save(folder / "true.npy", exact_first(vectors, queries))
    sample = np.asarray(vectors[np.unique(files, return_index=True)[1]][: len(real)])
    return {
        "files": len(np.unique(files)),
        "dimension": dimension,
        "local dimension": {
            "real": round(local_dimension(real[:500], real), 1),
            "made, as many": round(local_dimension(sample[:500], sample), 1),
        },
    }


def exact_first(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The numbers (Q, K) of the nearest vectors."""
    best = np.full((len(queries), K), -np.inf, dtype=np.float32)
    numbers = np.zeros((len(queries), K), dtype=np.int64)
    for start in range(0, len(vectors), 50_000):
        scores = queries @ vectors[start : start + 50_000].T
        near = np.argpartition(-scores, K - 1, axis=1)[:, :K]
        joined = np.concatenate([best, np.take_along_axis(scores, near, 1)], axis=1)
        where = np.concatenate([numbers, near + start], axis=1)
        order = np.argsort(-joined, axis=1, kind="stable")[:, :K]
        best = np.take_along_axis(joined, order, 1)
        numbers = np.take_along_axis(where, order, 1)
    return numbers


def timed(work: Callable[[Any], Any], given: Sequence[Any]) -> tuple[list[Any], dict[str, float]]:
    """The answers, and milliseconds of the median and the slowest twentieth; one to warm up.

    `cpu_ms` is the processor's time of all threads, which others on the machine change least.
    """
    work(given[0])
    answers, spent, cpu_s = [], [], time.process_time()
    for one in given:
        start_s = time.perf_counter()
        answers.append(work(one))
        spent.append((time.perf_counter() - start_s) * 1000)
    p95 = float(np.percentile(spent, 95))
    cpu_ms = (time.process_time() - cpu_s) * 1000 / len(given)
    figures = {"p50_ms": median(spent), "p95_ms": p95, "cpu_ms": cpu_ms}
    return answers, {name: round(value, 2) for name, value in figures.items()}


def recall(found: Sequence[Sequence[int]], true: np.ndarray) -> dict[str, float]:
    """The share of the exact first ten, of recordings and of texts as queries."""
    rows = zip(found, true, strict=True)
    shares = [len({*map(int, row[:K])} & {*map(int, right)}) for row, right in rows]
    half = len(shares) // 2
    return {
        "recordings": round(float(np.mean(shares[:half])) / K, 4),
        "texts": round(float(np.mean(shares[half:])) / K, 4),
    }


def search_numbers(made: Made, search: Callable[[np.ndarray], Sequence[int]]) -> dict[str, Any]:
    """Latency and recall of a search that gives row numbers."""
    found, latency = timed(search, list(made.queries))
    return {**latency, "recall": recall(found, made.true)}


class Built:
    """What a build took so far: it may end after `limit_s` and go on in another process."""

    def __init__(self, path: Path, limit_s: float) -> None:
        self.path, self.limit_s = path, limit_s
        self.figures = json.loads(path.read_text()) if path.exists() else {"done": False}
        self.load = os.getloadavg()[0]
        self.restart()

    def restart(self) -> None:
        """Count from now on."""
        self.begun_s, self.cpu_s = time.perf_counter(), time.process_time()

    @property
    def due(self) -> bool:
        """Whether it is time to end."""
        return time.perf_counter() - self.begun_s > self.limit_s

    def spent(self, what: str) -> None:
        """Add the seconds, and the processor's, since the start to those of earlier processes."""
        spent = {f"{what}_s": time.perf_counter() - self.begun_s}
        spent[f"{what}_cpu_s"] = time.process_time() - self.cpu_s
        for name, value in spent.items():
            self.figures[name] = round(self.figures.get(name, 0.0) + value, 1)
        self.restart()

    def keep(self, **figures: Any) -> None:
        """Write figures beside what there are."""
        self.figures |= figures | {"load while building": round(self.load, 1)}
        most = max(self.figures.get("peak while building_mb", 0), peak_mb())
        self.figures["peak while building_mb"] = most
        self.path.write_text(json.dumps(self.figures))


def nothing_to_build(made: Made, built: Built) -> None:
    built.keep(disk_mb=round(made.vectors.nbytes / 1e6), done=True)


def numpy_exact(made: Made) -> dict[str, Any]:
    vectors = np.array(made.vectors)

    def search(query: np.ndarray) -> Sequence[int]:
        scores = vectors @ query
        near = np.argpartition(-scores, K)[:K]
        return list(near[np.argsort(-scores[near])])

    return search_numbers(made, search)


def faiss_hnsw(dimension: int, size: int) -> Any:
    import faiss

    index = faiss.IndexHNSWFlat(dimension, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efSearch = HNSW_BREADTH
    return index


def faiss_pq(dimension: int, size: int) -> Any:
    import faiss

    kind = f"PCAR{4 * PQ_BYTES},IVF{int(size**0.5)},PQ{PQ_BYTES},RFlat"
    # Of unit vectors the nearest are those of the largest products, and stay so where principal
    # axes are counted from the mean.
    index: Any = faiss.index_factory(dimension, kind, faiss.METRIC_L2)
    index.k_factor = CANDIDATES / K
    lists = faiss.extract_index_ivf(index)
    lists.nprobe = PROBES
    # Hours of annealing for a search that compares codes by their bits, which nobody asks for.
    codes: Any = faiss.downcast_index(lists)
    codes.do_polysemous_training = False
    return index


def faiss_build(make: Callable[[int, int], Any], made: Made, built: Built) -> None:
    import faiss

    faiss.omp_set_num_threads(THREADS)
    size, dimension = made.vectors.shape
    path = faiss_path(make, made)
    index = faiss.read_index(str(path)) if path.exists() else make(dimension, size)
    built.restart()
    if not index.is_trained:
        some = np.random.default_rng(0).permutation(size)[:100_000]
        index.train(np.array(made.vectors[np.sort(some)]))
    while index.ntotal < size and not built.due:
        index.add(np.array(made.vectors[index.ntotal : index.ntotal + FAISS_AT_ONCE]))
    built.spent("build")
    faiss.write_index(index, str(path))
    built.keep(disk_mb=round(path.stat().st_size / 1e6), done=index.ntotal == size)


def faiss_search(make: Callable[[int, int], Any], made: Made) -> dict[str, Any]:
    import faiss

    faiss.omp_set_num_threads(THREADS)
    index = faiss.read_index(str(faiss_path(make, made)))
    return search_numbers(made, lambda query: index.search(query[None], K)[1][0].tolist())


def faiss_path(make: Callable[[int, int], Any], made: Made) -> Path:
    return made.folder / f"{make.__name__}.index"


def embedded_files(made: Made, first: int) -> Iterator[list[Any]]:
    """The made recordings, from one on, as files with names of sounds, some at a time."""
    from importlib.resources import files as resources

    from earshot.types import EmbeddedFile, FileRecord, FileState, Segment

    text = (resources("earshot") / "data" / "audioset_tags.csv").read_text(encoding="utf-8")
    names = [row["name"] for row in csv.DictReader(text.splitlines())]
    bounds = np.flatnonzero(np.diff(made.files, prepend=-1, append=-2))
    batch = []
    for number in range(first, len(bounds) - 1):
        start, end = bounds[number : number + 2]
        path = f"/library/{number % 997:03d}/{names[number % len(names)]} {start:08d}.wav"
        seconds = 5.0 * (end - start) + 5
        state = FileState(path=path, size_bytes=1, mtime_ns=1, ctime_ns=1, sha256=f"{number:064d}")
        spans = tuple(Segment(start_s=5.0 * i, end_s=5.0 * i + 10) for i in range(end - start))
        rate = 96_000 if number % 100 == 0 else 44_100
        record = FileRecord(state=state, duration_s=seconds, sample_rate_hz=rate, channels=1)
        vectors = np.array(made.vectors[start:end])
        batch.append(EmbeddedFile(record=record, segments=spans, vectors=vectors))
        if len(batch) == FILES_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def earshot_build(made: Made, built: Built, *, half: bool) -> None:
    """The store as `earshot index` fills it, and its indexes."""
    from earshot.model import load, model_manifest
    from earshot.store import LanceStore

    uri = made.folder / f"index-{half}"
    if "files" not in built.figures:
        shutil.rmtree(uri, ignore_errors=True)
        manifest = replace(model_manifest(load("tags", "cpu")), half=half)
        LanceStore.create(str(uri), manifest)
        built.keep(files=0)
    store = LanceStore.open(str(uri))
    files, every = built.figures["files"], len(np.unique(made.files))
    built.restart()
    if files < every:
        for batch in embedded_files(made, files):
            store.put(batch)
            files += len(batch)
            if built.due:
                break
        built.spent("write")
        built.keep(files=files)
        return
    store.optimize()
    store.wait()
    built.spent("build")
    disk_mb = megabytes(uri)
    with warnings.catch_warnings(action="ignore"):  # Nobody else reads it.
        store.newest().optimize(cleanup_older_than=timedelta(0))
    built.keep(**{"disk with former versions_mb": disk_mb, "disk_mb": megabytes(uri), "done": True})


def megabytes(folder: Path) -> int:
    return round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6)


def earshot_search(made: Made, *, half: bool) -> dict[str, Any]:
    """The store's lists, then whole questions by `Searcher`."""
    from earshot.model import load
    from earshot.search import Searcher
    from earshot.store import LanceStore
    from earshot.types import Condition

    model, store = load("tags", "cpu"), LanceStore.open(str(made.folder / f"index-{half}"))

    def numbers(limit: int, *where: Condition) -> Callable[[np.ndarray], list[int]]:
        def search(query: np.ndarray) -> list[int]:
            hits = store.search(query[None], limit, where)[0]
            return [int(hit.path[-12:-4]) + int(hit.start_s / 5) for hit in hits]

        return search

    rare = Condition(field="sample_rate_hz", operator="=", value=96_000)
    folder = Condition(field="folder", operator="=", value="/library/005")
    searcher = Searcher(model, store)
    first_s = time.perf_counter()
    searcher.search(QUESTIONS[0])
    first_s = time.perf_counter() - first_s
    # Not yet read from the disk: what a search costs whose candidates nobody asked for before.
    cold = timed(numbers(K), list(made.queries))[1]
    return {
        "each for the first time": cold,
        **search_numbers(made, numbers(K)),
        f"first {LONG}": search_numbers(made, numbers(LONG)),
        "one of 100 by number": filtered(made, numbers(K, rare), store, rare),
        "one of 1000 by folder": filtered(made, numbers(K, folder), store, folder),
        "words": timed(lambda words: store.search_words(words, K), QUESTIONS * 5)[1],
        "first question_s": round(first_s, 2),
        "question": timed(searcher.search, QUESTIONS * 10)[1],
        "by question": {text: timed(searcher.search, [text] * 5)[1] for text in QUESTIONS},
    }


def filtered(made: Made, search: Callable[[np.ndarray], list[int]], store: Any, where: Any) -> Any:
    """Latency with a condition, and recall against all rows for which it holds."""
    rows = len(made.vectors)
    bounds = np.flatnonzero(np.diff(made.files, prepend=-1, append=-2))
    owners = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    kept = owners % 100 == 0 if where.field == "sample_rate_hz" else owners % 997 == 5
    passing = np.flatnonzero(kept[:rows])
    scores = made.queries @ np.array(made.vectors[passing]).T
    true = passing[np.argsort(-scores, axis=1)[:, :K]]
    found, latency = timed(search, list(made.queries))
    return {**latency, "recall": recall(found, true)}


def peak_mb() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


@dataclass(frozen=True)
class Engine:
    """How an engine builds what it searches, and searches it."""

    build: Callable[[Made, Built], None]
    search: Callable[[Made], dict[str, Any]]


ENGINES = {
    "earshot": Engine(partial(earshot_build, half=False), partial(earshot_search, half=False)),
    "earshot --half": Engine(partial(earshot_build, half=True), partial(earshot_search, half=True)),
    "numpy": Engine(nothing_to_build, numpy_exact),
    "FAISS IVF-PQ": Engine(partial(faiss_build, faiss_pq), partial(faiss_search, faiss_pq)),
    "FAISS HNSW": Engine(partial(faiss_build, faiss_hnsw), partial(faiss_search, faiss_hnsw)),
}


def build(name: str, folder: Path, limit_s: float) -> None:
    """A part of an engine's build, in a process of its own."""
    built = Built(folder / f"{name}.json", limit_s)
    if not built.figures["done"]:
        ENGINES[name].build(Made(folder), built)


def search(name: str, folder: Path, answers: Any) -> None:
    """An engine's searches in a process of its own; what the build took is told, too."""
    built = json.loads((folder / f"{name}.json").read_text())
    assert built.pop("done"), f"{name} is not built yet"
    load = os.getloadavg()[0]
    measured = ENGINES[name].search(Made(folder))
    answers.put({**built, **measured, "peak_mb": peak_mb(), "load": round(load, 1)})


def keep(kind: str, size: int, key: str, value: Any) -> None:
    """Put one figure among those of earlier runs."""
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    result.setdefault(kind, {}).setdefault(str(size), {})[key] = value
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Search at scale.")
    parser.add_argument("size", type=int)
    parser.add_argument("--indexes", nargs="+", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--steps", nargs="+", default=["build", "search"])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--noise", action="store_true")
    options = parser.parse_args()
    kind = "noise" if options.noise else "sounds"
    folder = options.work / f"{kind}-{options.size}"
    if not (folder / "true.npy").exists():
        about = make(folder, options.size, options.indexes, noisy=options.noise)
        keep(kind, options.size, "about", about)
    for name in options.engines:
        if "build" in options.steps:
            build_step(name, folder, 60 * options.minutes)
        if "search" in options.steps:
            answers = apart(name, search, name, folder)
            if answers is not None:
                keep(kind, options.size, name, answers)
                print(name, json.dumps(answers), flush=True)


def build_step(name: str, folder: Path, limit_s: float) -> None:
    """Build, in as many processes as it takes, as long as there is time."""
    path, begun_s = folder / f"{name}.json", time.perf_counter()
    while (left_s := limit_s - (time.perf_counter() - begun_s)) > 0:
        former = path.read_text() if path.exists() else ""
        if former and json.loads(former)["done"]:
            return
        apart(name, build, name, folder, left_s)
        assert path.read_text() != former, f"{name} does not get on"


def apart(name: str, work: Callable[..., None], *given: Any) -> Any:
    """Do something with two threads in a process of its own; gives what it puts in its queue."""
    # The command line gives small matrix products one thread, too.
    small = "1" if name.startswith("earshot") else str(THREADS)
    threads = {"OMP_NUM_THREADS": small, "OPENBLAS_NUM_THREADS": small}
    waiting = {"OMP_WAIT_POLICY": "PASSIVE"}  # Spinning takes what others on the machine need.
    os.environ.update(threads | waiting, LANCE_CPU_THREADS=str(THREADS))
    spawning = multiprocessing.get_context("spawn")
    answers = spawning.Queue()
    given = (*given, answers) if work is search else given
    process = spawning.Process(target=work, args=given)
    process.start()
    process.join()
    return answers.get() if work is search and process.exitcode == 0 else None


if __name__ == "__main__":
    main()
