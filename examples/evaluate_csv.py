"""Judge a model on one's own recordings: python examples/evaluate_csv.py FOLDER.

The folder holds a table `captions.csv` with the columns `file_name` and `caption`.
"""

import sys

from earshot.datasets import load
from earshot.evaluate.systems import evaluate, questions


def main(folder: str, model: str = "tags") -> None:
    (verdict,) = evaluate([model], questions(load("folder", folder)))
    for name, interval in verdict.report.metrics.items():
        print(f"{name:<14}{interval.mean:.3f}  ({interval.low:.3f} to {interval.high:.3f})")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("usage: evaluate_csv.py FOLDER [MODEL]")
    main(*sys.argv[1:])
