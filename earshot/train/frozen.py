"""What frozen towers make of the data, computed once for all epochs and runs, kept on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from earshot.batches import Pairs
from earshot.features import audio_features, text_features
from earshot.model.dual import DualEncoder
from earshot.model.folder import DualModel


def with_frozen_features(network: DualEncoder, pairs: Pairs, cache: Path, workers: int) -> Pairs:
    """The pairs with the features of whichever tower is frozen in place of its input."""
    heard = read = None
    if network.config.audio.frozen:
        heard = audio_features(network, pairs, cache, workers=workers)
    if network.config.text.frozen:
        read = text_features(network, pairs, cache)
    return pairs.with_tables(heard, read)


class RememberingModel(DualModel):
    """A model that reads each sentence once, where its text tower is frozen."""

    def __init__(self, network: DualEncoder, read: dict[str, torch.Tensor]) -> None:
        super().__init__(network=network, name="in training")
        self.read = read

    def embed_text(self, sentences: Sequence[str]) -> np.ndarray:
        """Q sentences to unit vectors (Q, D) float32."""
        network = self.network
        new = [text for text in dict.fromkeys(sentences) if text not in self.read]
        with torch.no_grad():
            if new:
                self.read |= dict(zip(new, network.finished(network.text.embed(new)), strict=True))
            features = torch.stack([self.read[text] for text in sentences])
            return np.asarray(network.project_text(features.to(network.tau.device)).cpu().numpy())
