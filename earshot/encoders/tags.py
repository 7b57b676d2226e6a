"""Words and sounds on the 527 axes of AudioSet's tags: what the default model matches by.

One idea: a tagger names what it hears with 527 tags, so a query only has to be translated into the
tags that its sound would raise. That translation is learnt from words alone: everyday phrases and
their tags (`data/sound_lexicon.csv`, `data/audioset_tags.csv`), regressed on a sentence encoder's
vectors. No recording takes part, and a query and a sound never have to meet before the search.

- audio: sigmoid(logit)^power, scaled to unit length. The power is the point: it lets tags count
  that a tagger finds ten times less likely than the loudest one, as sounds without a tag of their
  own have only such tags; a length of one keeps noisy clips, which raise everything, from winning.
- text: kernel ridge regression from a sentence vector to tag weights, negative weights cut off.
  The kernel is exp((cosine - 1) / width), each phrase of the table is one of its centres.

The published formula that this grew out of, tags averaged in the space of their names, is
`average_tag_names` (Pellegrini, "Language-based audio retrieval with textual embeddings of tag
names", DCASE 2022, with weight 0 on the scene).

Axis legend: S segments, Q queries, C tags, D sentence vector, P phrases.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from earshot.files import atomic_write
from earshot.types import EarshotError

Floats = NDArray[np.float32]
TAGS = 527


@dataclass(frozen=True, kw_only=True)
class TagMatching:
    """The constants of the match, chosen on the tune halves of two sound collections."""

    power: float = 0.25
    """What the tags' probabilities are raised to; 1 lets the loudest tag decide alone."""
    kernel_width: float = 0.3
    """How far a phrase speaks for its neighbours, in cosine."""
    ridge: float = 0.3
    """How little a single phrase is trusted."""

    def __post_init__(self) -> None:
        for name in ("power", "kernel_width", "ridge"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")


@dataclass(frozen=True, kw_only=True)
class Phrases:
    """What people call sounds, P texts, and the tags that these raise, `tags` (P, C)."""

    texts: tuple[str, ...]
    tags: Floats


@dataclass(frozen=True, kw_only=True)
class PhraseTable:
    """The fitted translation: the phrases' `vectors` (P, D) and their `coefficients` (P, C)."""

    vectors: Floats
    coefficients: Floats
    kernel_width: float
    fitted_on: str = ""
    """The fingerprint of the phrases, to tell a table that they have outgrown."""


def tag_names() -> tuple[str, ...]:
    """AudioSet's names of the C tags, in the order of the logits."""
    return tuple(row["name"] for row in _rows("audioset_tags.csv"))


def tag_ids() -> tuple[str, ...]:
    """AudioSet's ids of the C tags, such as /m/09x0r, in the order of the logits."""
    return tuple(row["mid"] for row in _rows("audioset_tags.csv"))


def load_phrases() -> Phrases:
    """The names of the tags, their wordings, then the lexicon, in the order of the files."""
    rows = _rows("audioset_tags.csv")
    index = {row["name"]: i for i, row in enumerate(rows)}
    entries = [(row["name"], {row["name"]: 1.0}) for row in rows]
    entries += [
        (wording, {row["name"]: 1.0}) for row in rows for wording in row["wordings"].split(" | ")
    ]
    entries += [(row["phrase"], parse_tags(row["tags"])) for row in _rows("sound_lexicon.csv")]
    tags = np.zeros((len(entries), len(rows)), dtype=np.float32)
    for i, (_, weights) in enumerate(entries):
        for name, weight in weights.items():
            tags[i, index[name]] = weight
    return Phrases(texts=tuple(text for text, _ in entries), tags=tags)


def parse_tags(joined: str) -> dict[str, float]:
    """The lexicon's `Tag name=weight; Tag name=weight`."""
    pairs = (entry.rsplit("=", 1) for entry in joined.split("; "))
    return {name: float(weight) for name, weight in pairs}


def phrases_hash(phrases: Phrases) -> str:
    """What identifies phrases and their tags."""
    digest = hashlib.sha256("\n".join(phrases.texts).encode())
    digest.update(np.ascontiguousarray(phrases.tags, dtype="<f4").tobytes())
    return digest.hexdigest()


def fit_phrases(
    vectors: np.ndarray, tags: np.ndarray, matching: TagMatching | None = None
) -> PhraseTable:
    """Regress tag weights (P, C) on the phrases' unit vectors (P, D).

    Each phrase's weights count with unit length, so one with six tags speaks no louder than a
    name. Takes seconds for thousands of phrases; the result is meant to be saved.
    """
    matching = matching or TagMatching()
    exact = vectors.astype(np.float64)
    penalised = kernel(exact, exact, matching.kernel_width)
    penalised[np.diag_indices_from(penalised)] += matching.ridge
    coefficients = np.linalg.solve(penalised, unit(tags.astype(np.float64)))
    return PhraseTable(
        vectors=vectors.astype(np.float32),
        coefficients=coefficients.astype(np.float32),
        kernel_width=matching.kernel_width,
    )


def save_table(table: PhraseTable, path: Path) -> None:
    """Write a table with one byte for each figure and a scale for each row (moves no ranking)."""
    vectors, vectors_scale = _bytes(table.vectors)
    coefficients, coefficients_scale = _bytes(table.coefficients)
    with atomic_write(path) as file:
        np.savez_compressed(
            file,
            vectors=vectors,
            vectors_scale=vectors_scale,
            coefficients=coefficients,
            coefficients_scale=coefficients_scale,
            kernel_width=np.float64(table.kernel_width),
            fitted_on=np.str_(table.fitted_on),
        )


def load_table(path: Path) -> PhraseTable:
    """Read what `save_table` wrote.

    Raises:
        EarshotError: the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return PhraseTable(
                vectors=stored["vectors"] * stored["vectors_scale"],
                coefficients=stored["coefficients"] * stored["coefficients_scale"],
                kernel_width=float(stored["kernel_width"]),
                fitted_on=str(stored["fitted_on"]),
            )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, BadZipFile) as error:
        raise EarshotError(
            f"{path} holds no table of phrases ({str(error)[:80]}); delete it, it is made anew"
        ) from error


def packaged_table() -> PhraseTable:
    """The table that the package ships; `benchmarks/fit_phrases.py` makes it."""
    with as_file(files("earshot") / "data" / "phrase_table.npz") as path:
        return load_table(path)


def text_vectors(query_vectors: np.ndarray, table: PhraseTable) -> Floats:
    """Queries' sentence vectors (Q, D) to unit vectors (Q, C) of the tags they ask for."""
    near = kernel(query_vectors, table.vectors, table.kernel_width)
    weights = np.maximum(near @ table.coefficients, 0.0)
    # A query like nothing in the table asks for nothing: it fits every sound equally badly.
    weights[~weights.any(axis=1)] = 1.0
    return unit(weights).astype(np.float32)


def audio_vectors(logits: np.ndarray, matching: TagMatching | None = None) -> Floats:
    """A tagger's logits (S, C) to unit vectors (S, C) of the tags that are heard."""
    power = (matching or TagMatching()).power
    log_heard = -power * np.logaddexp(0.0, -logits.astype(np.float64))
    # Relative to the likeliest tag: after scaling it is the same, and silence does not underflow.
    return unit(np.exp(log_heard - log_heard.max(axis=1, keepdims=True))).astype(np.float32)


def average_tag_names(logits: np.ndarray, name_vectors: np.ndarray) -> Floats:
    """The plain formula: names (C, D) averaged by probability, unit vectors (S, D)."""
    heard = np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))
    return unit(heard / heard.sum(axis=1, keepdims=True) @ name_vectors).astype(np.float32)


def kernel(x: np.ndarray, y: np.ndarray, width: float) -> np.ndarray:
    """How alike unit vectors (M, D) and (N, D) are, (M, N) in (0, 1]."""
    return np.asarray(np.exp((x @ y.T - 1.0) / width))


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of length one; no row may be zero."""
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def _bytes(rows: Floats) -> tuple[NDArray[np.int8], Floats]:
    scale = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-12) / 127
    return np.round(rows / scale).astype(np.int8), scale.astype(np.float32)


def _rows(name: str) -> list[dict[str, str]]:
    text = (files("earshot") / "data" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
