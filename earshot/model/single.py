"""A single audio encoder, without a text side: what it makes of recordings, for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from earshot.checkpoints import encoder_assets
from earshot.files import Asset, fetch, record, sha256_of
from earshot.model.inference import prepared
from earshot.model.tensors import audio_hash, hash_of, padded
from earshot.types import EarshotError
from earshot.weights import read_weights

SEGMENT_S = 10.0
# What a whole recording may last; longer ones are cut there.
WHOLE_S = 3600.0


class SingleEncoder:
    """An encoder of the catalogue with the weights of a file.

    Its vectors are as the network gives them, with the logits of a tagger behind them:
    `dimension` = `embedding_dimension` + number of classes. With `whole` a recording is one
    segment (of an hour at most), for encoders that hear any duration at once.
    """

    joins_segments = False

    def __init__(
        self,
        name: str,
        checkpoint: Path | None = None,
        device: str = "auto",
        *,
        whole: bool = False,
    ) -> None:
        from earshot.encoders.catalogue import audio_encoder_config
        from earshot.model.networks import encoder_of

        self.name = name
        audio_encoder_config(name)  # An unknown name is told before anything is fetched.
        asset = None if checkpoint else published(name)
        self.checkpoint = checkpoint or fetch(published(name))
        self.network: Any = prepared(encoder_of(name, read_weights(self.checkpoint)), device)
        if asset:
            record(asset, self.checkpoint)
        if whole and self.network.segment_s is not None:
            raise EarshotError(
                f"{name} hears {self.network.segment_s:g} s at a time, no whole recordings; "
                f"leave --whole out"
            )
        self.whole = whole
        self.sample_rate_hz: int = self.network.sample_rate_hz
        self.segment_s: float = WHOLE_S if whole else self.network.segment_s or SEGMENT_S
        self.hop_s = self.segment_s
        self.embedding_dimension: int = self.network.dimension
        self.dimension = self.embed_audio([np.zeros(self.sample_rate_hz, np.float32)]).shape[1]

    @property
    def logits_from(self) -> int | None:
        """Where the logits begin in a vector; None if there are none."""
        return None if self.dimension == self.embedding_dimension else self.embedding_dimension

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the network's name, its weights and the segments."""
        heard = audio_hash(self.network)
        return hash_of(heard, sha256_of(self.checkpoint), self.segment_s, self.hop_s)

    def embed_text(self, sentences: Sequence[str]) -> np.ndarray:
        """There is no text side.

        Raises:
            EarshotError: always.
        """
        raise EarshotError(f"{self.name} is an audio encoder alone; it cannot be asked in words")

    def embed_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """N mono waveforms to embeddings and logits, (N, D + C) float32."""
        import torch

        if not len(waveforms):
            return np.empty((0, self.dimension), dtype=np.float32)
        if self.whole and len(waveforms) > 1:  # Together the longest decides what all of them take.
            return np.concatenate([self.embed_audio([waveform]) for waveform in waveforms])
        device = str(next(self.network.parameters()).device)
        with torch.inference_mode():
            heard = self.network(*padded(waveforms, device))
            parts = [heard.embedding] + ([] if heard.logits is None else [heard.logits])
            return np.asarray(torch.cat(parts, 1).float().cpu().numpy())


def published(name: str) -> Asset:
    """The public weights of an encoder.

    Raises:
        EarshotError: none are known by its name.
    """
    known = encoder_assets()
    if name not in known:
        raise EarshotError(f"no public weights of {name} are known; give --checkpoint FILE")
    return known[name]
