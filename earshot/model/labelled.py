"""`sounds` and `pocket`: a tagger with labels learnt from recordings (`earshot.encoders.labels`).

`sounds` hears with the public tagger mn04, `pocket` with a small tower of this project's own that
the package ships. What was learnt lies in `earshot/data`, with recipe, recordings and card.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from earshot.checkpoints import sentence_folder
from earshot.encoders.labels import LabelMatching, load_head, query_vectors, sound_vectors
from earshot.encoders.sentence import sentence_encoder
from earshot.encoders.tags import packaged_table, text_vectors
from earshot.files import sha256_of
from earshot.model.inference import prepared
from earshot.model.tags import TagConfig, TagModel
from earshot.model.tensors import AUDIO_VERSION, hash_of, padded
from earshot.types import EarshotError

if TYPE_CHECKING:
    from earshot.encoders.tags import Floats

NAMES = ("sounds", "pocket")
TOWER = "tower.safetensors"
HEAD = "head.safetensors"


class LabelModel:
    """A tagger, a head of learnt labels, and a sentence encoder."""

    joins_segments = False

    def __init__(self, name: str, device: str = "auto") -> None:
        if name not in NAMES:
            raise EarshotError(f"no model {name!r} with learnt labels; there are {NAMES}")
        self.name, self.device = name, device
        self.folder = packaged_folder(name)
        self.recipe: dict[str, Any] = json.loads((self.folder / "recipe.json").read_text())
        self.matching = LabelMatching(**self.recipe["matching"])
        self.head = load_head(self.folder / HEAD)
        self.dimension = self.head.dimension
        self.sample_rate_hz = 32_000
        self.segment_s = self.hop_s = float(self.recipe["segment_s"])
        self.text_encoder = sentence_encoder(sentence_folder("all-MiniLM-L6-v2"))
        self.lock = Lock()

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that the vectors of recordings depend on."""
        if self.name == "sounds":
            tagger = TagModel("tags", TagConfig(), self.device).fingerprint
        else:
            tagger = sha256_of(self.folder / TOWER)
        matching = [self.matching.power, self.matching.label_weight, self.matching.sentence_weight]
        return hash_of(AUDIO_VERSION, tagger, sha256_of(self.folder / HEAD), matching)

    @cached_property
    def text_tags(self) -> tuple[Any, Floats]:
        """The table from words to tags, and the tags that the head's texts ask for, (P, C)."""
        table = packaged_table()
        return table, text_vectors(self.head.texts, table)

    @cached_property
    def tagger(self) -> Any:
        """The network, on its device, ready for inference."""
        if self.name == "sounds":
            return TagModel("tags", TagConfig(), self.device).tagger
        return prepared(pocket_tower(self.folder / TOWER, self.recipe), self.device)

    def embed_text(self, sentences: Sequence[str]) -> np.ndarray:
        """Q sentences to unit vectors (Q, D) float32."""
        vectors = self.text_encoder(sentences)
        table, of_texts = self.text_tags
        tags = (text_vectors(vectors, table), of_texts)
        return query_vectors(self.head, self.matching, vectors, tags)

    def embed_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """N mono waveforms, none longer than a segment, to unit vectors (N, D) float32."""
        import torch

        with self.lock:
            tagger = self.tagger
        if not len(waveforms):
            return np.empty((0, self.dimension), dtype=np.float32)
        device = next(tagger.parameters()).device
        with torch.inference_mode():
            heard = tagger(*padded(waveforms, str(device)))
            embeddings, logits = (x.float().cpu().numpy() for x in (heard.embedding, heard.logits))
        return sound_vectors(self.head, self.matching, embeddings, logits)


def packaged_folder(name: str) -> Path:
    """Where the package holds what a model learnt."""
    return Path(str(files("earshot"))) / "data" / name


def pocket_tower(path: Path, recipe: dict[str, Any]) -> Any:
    """The small network with the weights of the package, in single precision."""
    from earshot.encoders.mobilenet import MobileNet, MobileNetConfig
    from earshot.frontends.passt import LogMelConfig
    from earshot.weights import read_safetensors

    front_end = LogMelConfig(**recipe["front_end"])
    width, silence_to_s = recipe["tower"]["width"], recipe["segment_s"]
    network = MobileNet(
        MobileNetConfig(width=width, silence_to_s=silence_to_s, front_end=front_end)
    )
    weights = read_safetensors(path)
    network.load_state_dict(
        {n: value.float() if value.is_floating_point() else value for n, value in weights.items()}
    )
    return network
