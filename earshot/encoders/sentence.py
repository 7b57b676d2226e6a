"""Sentence encoders: words to one vector, from a Sentence-Transformers or Hugging Face folder.

One idea: a query must be answered at once. Importing torch and transformers takes longer than the
whole search, so networks of the BERT family (MiniLM among them) run here in plain numpy, equal to
transformers to 1e-5; every other network goes through transformers.

Devlin et al. 2019 (BERT); Reimers and Gurevych 2019 (mean pooling of token vectors).
Axis legend: N sentences, L tokens of one, T tokens of all, D dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from earshot.encoders.folders import read_config, read_json, require_known_modules
from earshot.text import AS_WRITTEN
from earshot.types import EarshotError

Array = NDArray[np.float32]
BATCH_SENTENCES = 64


def gelu(x: Array) -> Array:
    """x·Φ(x), its error function to 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26); x is consumed."""
    scaled = np.abs(x)
    scaled *= np.float32(np.sqrt(0.5))
    t = np.float32(0.3275911) * scaled
    t += np.float32(1.0)
    np.reciprocal(t, out=t)
    series = np.float32(1.061405429) * t
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series += np.float32(coefficient)
        series *= t
    np.square(scaled, out=scaled)
    np.negative(scaled, out=scaled)
    series *= np.exp(scaled, out=scaled)
    np.subtract(np.float32(1.0), series, out=series)
    np.copysign(series, x, out=series)
    series += np.float32(1.0)
    x *= np.float32(0.5)
    x *= series
    return x


def equal_lengths(tokens: Sequence[Sequence[int]]) -> list[list[int]]:
    """Positions of the token lists in groups of one length each."""
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    runs = (list(run) for _, run in groupby(order, key=lambda i: len(tokens[i])))
    return [
        run[start : start + BATCH_SENTENCES]
        for run in runs
        for start in range(0, len(run), BATCH_SENTENCES)
    ]


class BertEncoder:
    """A BERT network with absolute positions and GELU, in numpy."""

    def __init__(self, folder: Path) -> None:
        self.config = read_config(folder)
        network = read_json(folder / "config.json")
        self.heads = int(network["num_attention_heads"])
        self.layers = int(network["num_hidden_layers"])
        self.eps = float(network["layer_norm_eps"])
        self.dimension = int(network["hidden_size"])
        weights = load_file(folder / "model.safetensors")
        named = {key.removeprefix("bert."): value for key, value in weights.items()}
        if missing := self.needed() - set(named):
            raise KeyError(f"{min(missing)} and {len(missing) - 1} other weights are missing")
        self.weights = arranged(named)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.config.max_tokens)

    def needed(self) -> set[str]:
        """The names of all weights."""
        tables = {f"embeddings.{kind}_embeddings" for kind in ("word", "position", "token_type")}
        parts = ("self.query", "self.key", "self.value", "output.dense", "output.LayerNorm")
        own = [f"attention.{part}" for part in parts]
        own += ["intermediate.dense", "output.dense", "output.LayerNorm"]
        affine = {f"encoder.layer.{i}.{name}" for i in range(self.layers) for name in own}
        affine.add("embeddings.LayerNorm")
        biases = {f"{name}.bias" for name in affine}
        return biases | {f"{name}.weight" for name in affine | tables}

    def __call__(self, sentences: Sequence[str]) -> Array:
        """Encode N sentences to unit vectors (N, D).

        Sentences meet in matrix products alone, token by token: nothing is padded, and a vector
        does not depend on its batch.
        """
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch(list(sentences))]
        vectors = np.empty((len(tokens), self.dimension), dtype=np.float32)

        def fill(batch: list[list[int]]) -> None:
            order = [i for same in batch for i in same]
            vectors[order] = self.pooled([np.array([tokens[i] for i in same]) for same in batch])

        batches = batches_of(equal_lengths(tokens))
        if len(batches) == 1:  # Some queries: starting threads would take longer than them.
            fill(batches[0])
            return vectors
        with ThreadPoolExecutor() as pool:
            list(pool.map(fill, batches))
        return vectors

    def pooled(self, groups: Sequence[NDArray[np.int64]]) -> Array:
        """Sentences in groups of one length each, token ids (N, L), to unit vectors (N, D)."""
        ends = {"cls": 0, "last": -1}
        pooling = self.config.pooling
        pooled = np.concatenate(
            [
                states[:, ends[pooling]] if pooling in ends else states.mean(1)
                for states in apart(self.token_vectors(groups), [ids.shape for ids in groups])
            ]
        )
        return np.asarray(pooled / np.linalg.norm(pooled, axis=1, keepdims=True))

    def token_vectors(self, groups: Sequence[NDArray[np.int64]]) -> Array:
        """Token ids (N, L) of groups to the last layer's states (T, D), one group after another."""
        table = self.weights
        shapes = [ids.shape for ids in groups]
        tokens = np.concatenate([ids.ravel() for ids in groups])
        places = np.concatenate([np.tile(np.arange(length), n) for n, length in shapes])
        states = table["embeddings.word_embeddings.weight"][tokens]
        states = states + table["embeddings.position_embeddings.weight"][places]
        states = states + table["embeddings.token_type_embeddings.weight"][0]
        states = self.norm(states, "embeddings.LayerNorm")
        for number in range(self.layers):
            layer = f"encoder.layer.{number}"
            attended = self.attend(self.linear(states, f"{layer}.attention.self"), shapes)
            attended = self.linear(attended, f"{layer}.attention.output.dense")
            states = self.norm(states + attended, f"{layer}.attention.output.LayerNorm")
            hidden = self.linear(states, f"{layer}.intermediate.dense")
            changed = self.linear(gelu(hidden), f"{layer}.output.dense")
            states = self.norm(states + changed, f"{layer}.output.LayerNorm")
        return states

    def attend(self, projected: Array, shapes: Sequence[tuple[int, ...]]) -> Array:
        """Self-attention within each sentence of queries, keys and values (T, 3D): (T, D)."""
        mixed = []
        for group in apart(projected, shapes):
            n, length, _ = group.shape
            parts = group.reshape(n, length, 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
            query, key, value = parts
            scores = query @ key.transpose(0, 1, 3, 2) / np.float32(np.sqrt(query.shape[-1]))
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            heard = (scores / scores.sum(-1, keepdims=True)) @ value
            mixed.append(heard.transpose(0, 2, 1, 3).reshape(n * length, -1))
        return mixed[0] if len(mixed) == 1 else np.concatenate(mixed)

    def linear(self, states: Array, name: str) -> Array:
        """An affine map of (T, D); one matrix product for all sentences."""
        mapped: Array = states @ self.weights[f"{name}.weight"]
        mapped += self.weights[f"{name}.bias"]
        return mapped

    def norm(self, states: Array, name: str) -> Array:
        """Layer normalisation of the last axis."""
        centred: Array = states - states.mean(-1, keepdims=True)
        deviation = np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(self.eps))
        centred /= deviation
        centred *= self.weights[f"{name}.weight"]
        centred += self.weights[f"{name}.bias"]
        return centred


def arranged(weights: Mapping[str, Array]) -> dict[str, Array]:
    """Weights as they are multiplied: matrices (in, out), and one for query, key and value.

    Short sentences wait for weights, which are read through in this order: 2/3 of the time.
    """
    table = dict(weights)
    for first in [name for name in weights if name.endswith(".self.query.weight")]:
        layer = first.removesuffix(".query.weight")
        for kind in ("weight", "bias"):
            parts = [table.pop(f"{layer}.{part}.{kind}") for part in ("query", "key", "value")]
            table[f"{layer}.{kind}"] = np.concatenate(parts)
    maps = [
        name for name, weight in table.items() if name.startswith("encoder.") and weight.ndim == 2
    ]
    return table | {name: np.ascontiguousarray(table[name].T) for name in maps}


def apart(rows: Array, shapes: Sequence[tuple[int, ...]]) -> Iterator[Array]:
    """Rows (T, D) of groups of N sentences, L tokens each, as (N, L, D)."""
    start = 0
    for n, length in shapes:
        yield rows[start : start + n * length].reshape(n, length, -1)
        start += n * length


def batches_of(groups: Sequence[list[int]]) -> list[list[list[int]]]:
    """Groups of sentences together, as far as a batch's size goes."""
    batches: list[list[list[int]]] = []
    for group in groups:
        if not batches or sum(map(len, batches[-1])) + len(group) > BATCH_SENTENCES:
            batches.append([])
        batches[-1].append(group)
    return batches


class TransformersEncoder:
    """Any network that transformers can load, pooled as its folder says."""

    def __init__(self, folder: Path) -> None:
        # Imported here: the numpy network answers a query in less time than torch is imported in.
        from earshot.encoders.text import TextConfig, TextTower

        self.config = read_config(folder)
        self.tower = TextTower(folder, TextConfig(clean_up=AS_WRITTEN)).eval()
        self.dimension = self.tower.dimension

    def __call__(self, sentences: Sequence[str]) -> Array:
        """Encode N sentences to unit vectors (N, D)."""
        vectors = self.tower.embed(sentences, BATCH_SENTENCES).numpy()
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def sentence_encoder(folder: Path) -> BertEncoder | TransformersEncoder:
    """Load the sentence encoder of a folder.

    Raises:
        EarshotError: the folder holds none.
    """
    network = read_json(folder / "config.json")
    if not network:
        raise EarshotError(f"{folder} has no config.json: not a sentence encoder's folder")
    require_known_modules(folder)
    plain_bert = network.get("model_type") == "bert" and network.get("hidden_act") == "gelu"
    absolute = network.get("position_embedding_type", "absolute") == "absolute"
    files = ("model.safetensors", "tokenizer.json")
    if plain_bert and absolute and all((folder / name).is_file() for name in files):
        try:
            return BertEncoder(folder)
        except EarshotError:
            raise
        except Exception as error:  # the tokenizer's errors have no kind of their own
            reason = (str(error).strip().splitlines() or [""])[0][:120]
            raise EarshotError(
                f"{folder} holds no sentence encoder that can be loaded "
                f"({type(error).__name__}: {reason}); get the whole folder again"
            ) from error
    return TransformersEncoder(folder)
