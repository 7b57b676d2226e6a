"""Sounds to search by: a file or a part of it becomes a vector.

What lies in the index has its vectors there, which costs neither reading nor hearing it again;
anything else is embedded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from earshot import audio
from earshot.conditions import path_in_index
from earshot.objects import is_uri
from earshot.types import EarshotError, EmbeddedFile, Example, Model, Segment, Store

# A stored segment stands for a part of its file that covers at least this of it.
COVERED = 0.5
# What people round a duration by.
ROUNDED_S = 0.5
SPAN = re.compile(r"(?P<path>.+)@(?P<start>[\d.:]+)-(?P<end>[\d.:]*)")


def read_example(text: str) -> Example:
    """Read `FILE` or `FILE@START-END`, in seconds or minutes:seconds; a file so named comes first.

    Raises:
        EarshotError: with the form that is read.
    """
    match = SPAN.fullmatch(text)
    if not match or Path(text).exists():
        return Example(path=text)
    try:
        end_s = seconds(match["end"]) if match["end"] else None
        return Example(path=match["path"], start_s=seconds(match["start"]), end_s=end_s)
    except ValueError:
        raise EarshotError(
            f"cannot read the example {text!r}; write FILE or FILE@START-END, as in "
            f"dog.wav@2.5-4 or dog.wav@1:02-1:05"
        ) from None


def seconds(text: str) -> float:
    """`62.5` or `1:02.5` in seconds.

    Raises:
        ValueError: it is neither.
    """
    value = 0.0
    for part in text.split(":"):
        value = value * 60 + float(part)
    return value


def stored_paths(example: Example) -> tuple[str, ...]:
    """The path that the example's file has in an index, and where it leads if it is a link."""
    known = path_in_index(example.path)
    if is_uri(known):
        return (known,)
    return tuple(dict.fromkeys((known, str(Path(known).resolve()))))


def example_vectors(examples: Sequence[Example], model: Model, store: Store) -> np.ndarray:
    """The unit vectors (N, D) of examples, each the mean of its segments'.

    Raises:
        EarshotError: a file that cannot be read, or a part that is none of it.
    """
    stored = store.segments([path for example in examples for path in stored_paths(example)])
    vectors = np.zeros((len(examples), store.manifest.dimension), dtype=np.float32)
    for row, example in enumerate(examples):
        check_span(example)
        file = next((stored[path] for path in stored_paths(example) if path in stored), None)
        heard = stored_vectors(example, file) if file else np.empty((0, 0))
        heard = heard if len(heard) else embedded(example, model, store)
        mean = heard.mean(0)
        vectors[row] = mean / np.linalg.norm(mean)
    return vectors


def check_span(example: Example) -> None:
    """Refuse a part that has no duration.

    Raises:
        EarshotError: with what was given.
    """
    end_s = math.inf if example.end_s is None else example.end_s
    if not 0 <= example.start_s < end_s:
        raise EarshotError(
            f"{example.path}: no sound from {example.start_s:g} to {end_s:g} s; "
            f"give a start from 0 and an end after it"
        )


def stored_vectors(example: Example, file: EmbeddedFile) -> np.ndarray:
    """Vectors (S, D) of the segments that stand for an example, none where no segment does.

    Raises:
        EarshotError: the example lies outside of the file.
    """
    if example.start_s == 0 and example.end_s is None:
        return file.vectors
    duration_s = file.record.duration_s
    require_inside(example, duration_s)
    part = Segment(start_s=example.start_s, end_s=min(example.end_s or duration_s, duration_s))
    inside = [covered(segment, part) >= COVERED for segment in file.segments]
    vectors: np.ndarray = file.vectors[np.array(inside)]
    return vectors


def covered(segment: Segment, part: Segment) -> float:
    """The share of a segment that lies in a part."""
    shared_s = min(segment.end_s, part.end_s) - max(segment.start_s, part.start_s)
    return shared_s / (segment.end_s - segment.start_s)


def require_inside(example: Example, duration_s: float) -> None:
    """Refuse a part that is not inside of the file.

    Raises:
        EarshotError: with the duration.
    """
    end_s = duration_s if example.end_s is None else example.end_s
    if example.start_s >= duration_s or end_s > duration_s + ROUNDED_S:
        raise EarshotError(
            f"{example.path} lasts {duration_s:.2f} s; there is no part from {example.start_s:g} "
            f"to {end_s:g} s in it"
        )


def embedded(example: Example, model: Model, store: Store) -> np.ndarray:
    """Vectors (S, D) of an example's segments, cut as the index's recordings are.

    One segment is heard after another: a long example needs no more memory than a short one.

    Raises:
        AudioError: the file cannot be read.
    """
    cut, rate_hz = store.manifest, model.sample_rate_hz
    if example.start_s == 0 and example.end_s is None:
        spans = audio.segments(
            example.path, sample_rate_hz=rate_hz, segment_s=cut.segment_s, hop_s=cut.hop_s
        )
        pieces: Iterator[np.ndarray] = (waveform for _, waveform in spans)
    else:
        require_inside(example, audio.probe(example.path).duration_s)
        blocks = audio.stream(
            example.path,
            sample_rate_hz=rate_hz,
            start_s=example.start_s,
            duration_s=None if example.end_s is None else example.end_s - example.start_s,
        )
        pieces = side_by_side(blocks, round(cut.segment_s * rate_hz), rate_hz)
    return np.concatenate([model.embed_audio([piece]) for piece in pieces])


def side_by_side(blocks: Iterable[np.ndarray], length: int, shortest: int) -> Iterator[np.ndarray]:
    """Cut a stream into waveforms of a length; a remainder up to `shortest` says little."""
    held, first = np.zeros(0, np.float32), True
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= length:
            yield held[:length]
            held, first = held[length:], False
    if first or len(held) > shortest:
        yield held
