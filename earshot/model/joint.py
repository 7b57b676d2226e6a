"""Ready dual encoders of others (CLAP, PE-AV) as models: searched, judged and indexed like ours."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from earshot.checkpoints import JOINT_ENCODERS, joint_folder
from earshot.files import sha256_of
from earshot.model.inference import prepared
from earshot.model.tensors import audio_hash, hash_of, padded

if TYPE_CHECKING:
    from earshot.encoders.joint import JointEncoder

SEGMENT_S = 10.0


class JointModel:
    """A dual encoder by known name or from its folder; a clip is the mean of its segments."""

    joins_segments = False

    def __init__(self, name: str, device: str = "auto") -> None:
        self.folder = joint_folder(name)
        here = name not in JOINT_ENCODERS and Path(name).is_dir()
        self.name = str(Path(name).resolve()) if here else name
        self.device, self.lock = device, Lock()
        self.dimension = self.encoder.dimension
        self.sample_rate_hz: int = self.encoder.audio.sample_rate_hz
        self.segment_s = self.encoder.audio.segment_s or SEGMENT_S
        self.hop_s = self.segment_s

    @cached_property
    def encoder(self) -> JointEncoder:
        """Both towers, on their device."""
        from earshot.encoders.joint import joint_encoder

        encoder = joint_encoder(self.folder)
        for tower in (encoder.audio, encoder.text.network):
            prepared(tower, self.device)
        return encoder

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the weights, the settings and the segments.

        The settings are also those of the feature extractor: it decides CLAP's mel filters.
        """
        files = sorted(p for p in self.folder.iterdir() if p.suffix in (".safetensors", ".bin"))
        settings = [self.folder / name for name in ("config.json", "preprocessor_config.json")]
        hashes = [sha256_of(path) for path in (*files, *settings) if path.is_file()]
        heard = audio_hash(self.encoder.audio)
        return hash_of(heard, hashes, self.segment_s, self.hop_s)

    def embed_text(self, sentences: Sequence[str]) -> np.ndarray:
        """Q sentences to unit vectors (Q, D) float32."""
        with self.lock:
            return self.encoder.text(sentences)

    def embed_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """N mono waveforms, none longer than a segment, to unit vectors (N, D) float32."""
        import torch

        if not len(waveforms):
            return np.empty((0, self.dimension), dtype=np.float32)
        device = str(next(self.encoder.audio.parameters()).device)
        with torch.inference_mode():
            heard = self.encoder.audio(*padded(waveforms, device)).embedding.float()
            return np.asarray(torch.nn.functional.normalize(heard, dim=1).cpu().numpy())
