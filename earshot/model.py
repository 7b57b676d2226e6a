"""Models: a text tower and an audio tower into one space of unit vectors; loaded by name.

`TagModel` needs no training (SYSTEM 1 of DCASE 2022, w = 0): an AudioSet tagger hears 527 tags, a
sentence encoder reads the query, `earshot.encoders.tags` brings the two together.

The text side is numpy alone; torch is imported when the first audio is embedded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from earshot.checkpoints import TAGGERS, load_weights, sentence_folder
from earshot.encoders.sentence import sentence_encoder
from earshot.encoders.tags import (
    TAGS,
    PhraseTable,
    TagMatching,
    audio_vectors,
    fit_phrases,
    load_phrases,
    load_table,
    packaged_table,
    phrases_hash,
    save_table,
    text_vectors,
)
from earshot.files import asset_hash, fetch, find, home, record, recorded_hash
from earshot.types import EarshotError, Manifest, Model

if TYPE_CHECKING:
    from earshot.encoders.mobilenet import MobileNet

DEFAULT_MODEL = "tags"
# To be raised when decoding, resampling, segments or front-end change what a vector is.
AUDIO_VERSION = 1
# What taggers were trained on: ten seconds, shorter clips with silence after them. Without that
# silence they hear less (LOG.md, "Words to tags").
TAGGER_S = 10.0


@dataclass(frozen=True, kw_only=True)
class TagConfig:
    """Everything that a TagModel's vectors depend on."""

    tagger: str = "mn04"
    sentence_encoder: str = "all-MiniLM-L6-v2"
    segment_s: float = TAGGER_S
    hop_s: float = TAGGER_S
    silence_to_s: float = TAGGER_S
    matching: TagMatching = field(default_factory=TagMatching)


def known_models() -> dict[str, TagConfig]:
    """The models that can be loaded by name."""
    others = {f"tags-{tagger}": TagConfig(tagger=tagger) for tagger in TAGGERS if tagger != "mn04"}
    return {"tags": TagConfig(), **others}


def load(name: str, device: str = "auto") -> Model:
    """Load a model by name; `device` is auto, cpu, cuda or mps.

    Raises:
        EarshotError: an unknown name, or weights that are not to be had.
    """
    return TagModel(name, model_config(name), device)


def model_config(name: str) -> TagConfig:
    """The settings of a model by name.

    Raises:
        EarshotError: an unknown name.
    """
    models = known_models()
    if name not in models:
        close = get_close_matches(name, models, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise EarshotError(f"no model {name!r}; {hint}there are {', '.join(models)}")
    return models[name]


def model_manifest(model: Model) -> Manifest:
    """What a store of this model's vectors says of itself."""
    return Manifest(model=model.name, fingerprint=model.fingerprint, dimension=model.dimension)


def describe(name: str) -> dict[str, Any]:
    """What is known of a model, without loading it.

    Raises:
        EarshotError: an unknown name.
    """
    config = model_config(name)
    checkpoint = TAGGERS[config.tagger]
    asset = checkpoint.asset
    try:
        here = str(find(asset) or "")
    except EarshotError as error:
        here = f"wrong file: {error}"
    return {
        "name": name,
        "parameters": checkpoint.parameters,
        "audioset_map": checkpoint.audioset_map,
        "licence": asset.licence,
        "weights": asset.name,
        "source": asset.url,
        "sha256": asset.sha256 or recorded_hash(asset) or "not published; kept on first use",
        "sentence_encoder": config.sentence_encoder,
        "here": here,
    }


def require_same_model(manifest: Manifest, model: Model) -> None:
    """Refuse to mix vectors of different models.

    Raises:
        EarshotError: with the way out.
    """
    if manifest.fingerprint != model.fingerprint:
        raise EarshotError(
            f"the index was made with model {manifest.model} ({manifest.fingerprint[:8]}), not "
            f"with {model.name} ({model.fingerprint[:8]}), and their vectors do not compare; "
            f"make a new index: earshot index PATH... --to NEW --model {model.name}"
        )


class TagModel:
    """An AudioSet tagger and a sentence encoder, matched without training."""

    def __init__(self, name: str, config: TagConfig, device: str = "auto") -> None:
        self.name, self.config, self.device = name, config, device
        self.segment_s, self.hop_s = config.segment_s, config.hop_s
        self.sample_rate_hz = 32_000
        self.text_encoder = sentence_encoder(sentence_folder(config.sentence_encoder))
        self.lock = Lock()

        self.dimension = TAGS

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that the vectors of recordings depend on."""
        config = self.config
        tagger = asset_hash(TAGGERS[config.tagger].asset)
        spans = (config.segment_s, config.hop_s, config.silence_to_s)
        return hash_of(AUDIO_VERSION, tagger, spans, config.matching.power)

    @cached_property
    def phrases(self) -> PhraseTable:
        """From words to tags: shipped for the usual encoder, else fitted once and cached."""
        usual = TagConfig()
        if (self.config.sentence_encoder, self.config.matching) == (
            usual.sentence_encoder,
            usual.matching,
        ):
            return packaged_table()
        phrases = load_phrases()
        key = hash_of(asdict(self.config), phrases_hash(phrases))
        path = home() / "cache" / f"phrases-{key[:16]}.npz"
        if not path.exists():
            vectors = self.text_encoder(phrases.texts)
            save_table(fit_phrases(vectors, phrases.tags, self.config.matching), path)
        return load_table(path)

    @cached_property
    def tagger(self) -> MobileNet:
        """The network, on its device, ready for inference."""
        from earshot.encoders.mobilenet import PRESETS, MobileNet

        preset = PRESETS[self.config.tagger]
        network = MobileNet(replace(preset, silence_to_s=self.config.silence_to_s))
        asset = TAGGERS[self.config.tagger].asset
        path = fetch(asset)
        network.load_public(load_weights(path))
        record(asset, path)
        return network.eval().fold_norms().to(torch_device(self.device))

    def embed_text(self, sentences: Sequence[str]) -> np.ndarray:
        """Q sentences to unit vectors (Q, D) float32."""
        return text_vectors(self.text_encoder(sentences), self.phrases)

    def embed_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """N mono waveforms of any lengths, float32 in [-1, 1], to unit vectors (N, D) float32."""
        return self.vectors_of(self.logits(waveforms))

    def vectors_of(self, logits: np.ndarray) -> np.ndarray:
        """What was heard in N segments, (N, 527), as unit vectors (N, D)."""
        return audio_vectors(logits, self.config.matching)

    def logits(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """What the tagger hears in N waveforms: (N, 527)."""
        with self.lock:
            tagger = self.tagger
        return run(tagger, waveforms) if len(waveforms) else np.empty((0, TAGS), dtype=np.float32)


def hash_of(*parts: object) -> str:
    """A hash of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def run(tagger: MobileNet, waveforms: Sequence[np.ndarray]) -> np.ndarray:
    """One forward pass: N waveforms to logits (N, 527)."""
    import torch

    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    padded = torch.zeros(len(waveforms), int(lengths.max()))
    for row, waveform in zip(padded, waveforms, strict=True):
        row[: len(waveform)] = torch.from_numpy(waveform)
    device = tagger.front_end.window.device
    with torch.inference_mode():
        logits = tagger(padded.to(device), lengths.to(device)).logits
    assert logits is not None
    return np.asarray(logits.float().cpu().numpy())


def torch_device(name: str) -> str:
    """The device to compute on: a GPU if there is one and nothing else was asked for.

    Raises:
        EarshotError: the device asked for is not there.
    """
    import torch

    there = ["cpu"]
    there += ["cuda"] if torch.cuda.is_available() else []
    there += ["mps"] if torch.backends.mps.is_available() else []
    if name == "auto":
        return there[-1]
    if name not in there:
        raise EarshotError(f"no device {name!r} here; there is {', '.join(there)}, or say auto")
    return name
