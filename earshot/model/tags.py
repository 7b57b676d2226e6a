"""The model that needs no training: SYSTEM 1 of DCASE 2022 with w = 0.

An AudioSet tagger hears 527 tags, a sentence encoder reads the query, `earshot.encoders.tags`
brings the two together. The text side is numpy alone; torch is imported when the first audio is
embedded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from earshot.checkpoints import TAGGERS, sentence_folder
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
from earshot.files import asset_hash, fetch, home, record, sha256_of
from earshot.model.inference import prepared
from earshot.model.tensors import AUDIO_VERSION, hash_of, padded
from earshot.weights import read_weights

if TYPE_CHECKING:
    from torch import nn

# What taggers were trained on: ten seconds, shorter clips with silence after them. Without that
# silence they hear less (LOG.md, "Words to tags").
TAGGER_S = 10.0


@dataclass(frozen=True, kw_only=True)
class TagConfig:
    """Everything that a TagModel's vectors depend on; `settings` are the tagger's own ones.

    They are given where a file's network differs from the preset of its name.
    """

    tagger: str = "mn04"
    settings: Mapping[str, Any] = field(default_factory=dict)
    sentence_encoder: str = "all-MiniLM-L6-v2"
    segment_s: float = TAGGER_S
    hop_s: float = TAGGER_S
    silence_to_s: float = TAGGER_S
    matching: TagMatching = field(default_factory=TagMatching)


class TagModel:
    """An AudioSet tagger and a sentence encoder, matched without training.

    The tagger is a public one, or with `weights` the encoder of that name with those of a file.
    """

    joins_segments = False

    def __init__(
        self, name: str, config: TagConfig, device: str = "auto", weights: Path | None = None
    ) -> None:
        self.name, self.config, self.device, self.weights = name, config, device, weights
        self.segment_s, self.hop_s = config.segment_s, config.hop_s
        self.sample_rate_hz = self.own_rate_hz()
        self.text_encoder = sentence_encoder(sentence_folder(config.sentence_encoder))
        self.lock = Lock()
        self.dimension = TAGS

    def own_rate_hz(self) -> int:
        """The tagger's rate, known of public ones without importing torch."""
        if self.weights is None:
            return TAGGERS[self.config.tagger].sample_rate_hz
        return int(self.tagger.sample_rate_hz)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that the vectors of recordings depend on.

        The encoder stands there by its name, so that who only searches needs no torch.
        """
        config = self.config
        if self.weights is None:
            known = TAGGERS[config.tagger]
            encoder, tagger = known.encoder, asset_hash(known.asset)
        else:
            encoder, tagger = config.tagger, sha256_of(self.weights)
        spans = (config.segment_s, config.hop_s, config.silence_to_s)
        own = [dict(config.settings)] if config.settings else []
        return hash_of(AUDIO_VERSION, encoder, tagger, spans, config.matching.power, *own)

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
    def tagger(self) -> Any:
        """The network, on its device, ready for inference."""
        from earshot.model.networks import encoder_of, restored

        silence_to_s, settings = self.config.silence_to_s, self.config.settings
        if self.weights is not None:
            network = restored(self.config.tagger, self.weights, silence_to_s, settings)
            return prepared(network, self.device)
        checkpoint = TAGGERS[self.config.tagger]
        path = fetch(checkpoint.asset)
        network = encoder_of(checkpoint.encoder, read_weights(path), silence_to_s)
        record(checkpoint.asset, path)
        return prepared(network, self.device)

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


def run(tagger: nn.Module, waveforms: Sequence[np.ndarray]) -> np.ndarray:
    """One forward pass: N waveforms to logits (N, 527)."""
    import torch

    device = next(tagger.parameters()).device
    with torch.inference_mode():
        logits = tagger(*padded(waveforms, str(device))).logits
    return np.asarray(logits.float().cpu().numpy())
