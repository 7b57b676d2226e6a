"""How long a search takes: warm in one process, cold as a command, and `earshot --help`.

    EARSHOT_ASSETS=FOLDER python benchmarks/search_speed.py RECORDINGS

Indexes the recordings into a fresh index first. Medians over repetitions; wall clock.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

RESULT = Path(__file__).with_suffix(".json")
QUERIES = ("dog", "rain on a tin roof", "someone is walking on gravel while birds sing far away")
WARM_ROUNDS, COLD_ROUNDS = 40, 7


def seconds(work: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Median and worst of several rounds."""
    spent = []
    for _ in range(rounds):
        start_s = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start_s)
    return {"median_s": round(median(spent), 4), "worst_s": round(max(spent), 4)}


def command(*arguments: str) -> Callable[[], Any]:
    """A fresh process of the command line."""
    line = [sys.executable, "-m", "earshot", *arguments]
    return lambda: subprocess.run(line, check=True, capture_output=True)


def warm(uri: str) -> dict[str, dict[str, float]]:
    """Searches after the first one in the same process, each for words that nobody asked before."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # As the command line does.
    from earshot.search import Searcher

    searcher = Searcher.open(uri)
    searcher.search(QUERIES[0])

    def ask(query: str, takes: Iterator[int]) -> None:
        searcher.search(f"{query} {next(takes)}")

    return {query: seconds(partial(ask, query, count(1)), WARM_ROUNDS) for query in QUERIES}


def main() -> None:
    parser = argparse.ArgumentParser(description="Search latency.")
    parser.add_argument("recordings", type=Path)
    recordings = parser.parse_args().recordings
    with tempfile.TemporaryDirectory() as folder:
        uri = f"{folder}/index"
        command("index", str(recordings), "--to", uri)()
        result = {
            "recordings": recordings.name,
            "cores": os.cpu_count(),
            "help": seconds(command("--help"), COLD_ROUNDS),
            "cold search": seconds(command("search", uri, QUERIES[1]), COLD_ROUNDS),
            "warm search": warm(uri),
        }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
