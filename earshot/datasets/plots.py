"""Pictures of a dataset: how long its clips and captions are, how often its words occur."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from earshot.datasets.describe import words
from earshot.types import Dataset

BINS = 40
DOTS_PER_INCH = 120
TOP_WORDS = 25


def draw(dataset: Dataset, folder: Path) -> list[Path]:
    """Write PNG pictures into a folder; none of what the dataset does not state.

    Needs matplotlib, the extra `plots`.
    """
    lengths = [len(words(caption.text)) for caption in dataset.captions]
    counts = Counter(word for caption in dataset.captions for word in words(caption.text))
    durations = [clip.duration_s for clip in dataset.clips if clip.duration_s is not None]
    pictures = []
    if durations:
        pictures.append(histogram(folder / "durations.png", durations, "duration (s)", "clips"))
    if lengths:
        path = folder / "caption_lengths.png"
        pictures.append(histogram(path, lengths, "words per caption", "captions"))
    if counts:
        pictures += [ranks(folder / "word_ranks.png", counts), top(folder / "words.png", counts)]
    return pictures


def histogram(path: Path, values: Sequence[float], what: str, of: str) -> Path:
    """How many of the values lie where."""
    whole = all(isinstance(value, int) for value in values)
    bins = [n - 0.5 for n in range(int(min(values)), int(max(values)) + 2)] if whole else BINS
    figure, axes = _figure()
    axes.hist(values, bins=bins)
    axes.set(xlabel=what, ylabel=of, title=f"{len(values)} {of}")
    return _save(figure, path)


def ranks(path: Path, counts: Counter[str]) -> Path:
    """Frequency over rank on two logarithmic axes, where natural language is nearly straight."""
    figure, axes = _figure()
    frequencies = sorted(counts.values(), reverse=True)
    axes.loglog(range(1, len(frequencies) + 1), frequencies)
    axes.set(xlabel="rank", ylabel="occurrences", title=f"{len(counts)} different words")
    return _save(figure, path)


def top(path: Path, counts: Counter[str]) -> Path:
    """The most frequent words."""
    figure, axes = _figure()
    chosen = counts.most_common(TOP_WORDS)[::-1]
    axes.barh([word for word, _ in chosen], [count for _, count in chosen])
    axes.tick_params(axis="y", labelsize=7)
    axes.set(xlabel="occurrences")
    return _save(figure, path)


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    return figure, figure.add_subplot()


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    return path
