"""What ready dual encoders of transformers share: text towers, and layers that are recomputed.

Axis legend: N sentences, L tokens, D dimension.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from earshot.encoders.folders import require_own_files
from earshot.encoders.sentence import equal_lengths
from earshot.encoders.text import loading
from earshot.text import TOKENIZER_FILES
from earshot.types import EarshotError

# Constants that networks compute themselves; not every file holds them.
CONSTANTS = re.compile(
    r"(^|\.)(position_ids|token_type_ids|relative_position_index|num_batches_tracked)$"
)


@dataclass(frozen=True, kw_only=True)
class TextTower:
    """Sentences to vectors by a tokenizer and a network from token ids (N, L) to (N, D).

    Sentences are computed in groups of equal length, so there is no padding, and a vector cannot
    depend on its batch. Longer sentences are cut after `max_tokens`.
    """

    tokenizer: Any
    network: nn.Module
    dimension: int
    max_tokens: int

    def __call__(self, sentences: Sequence[str]) -> np.ndarray:
        """Encode N sentences to unit vectors (N, D) float32."""
        vectors = nn.functional.normalize(self.embed(sentences), dim=1)
        return np.asarray(vectors.float().cpu().numpy())

    def embed(self, sentences: Sequence[str]) -> Tensor:
        """Encode N sentences to vectors (N, D) as long as the network makes them."""
        device = next(self.network.parameters()).device
        vectors = torch.zeros(len(sentences), self.dimension, device=device)
        if not sentences:
            return vectors
        # All options are named here: what a folder's tokenizer.json says of padding or truncation
        # must not decide what is read.
        tokens = self.tokenizer(
            list(sentences), padding=False, truncation=True, max_length=self.max_tokens
        )["input_ids"]
        with torch.inference_mode():
            for same in equal_lengths(tokens):
                ids = torch.tensor([tokens[i] for i in same], device=device)
                vectors[same] = self.network(ids).float()
        return vectors


def whole_model(kind: Any, folder: Path, config: Any) -> tuple[Any, Any]:
    """The network of a folder in float32, in evaluation mode, and its tokenizer.

    `kind` is a class of transformers.

    Raises:
        EarshotError: it cannot be loaded, or weights are missing: they would be random.
    """
    from transformers import AutoTokenizer

    if not any(path.is_file() for name in TOKENIZER_FILES for path in folder.glob(name)):
        raise EarshotError(  # The library would make an empty one up.
            f"{folder} holds no dual encoder that can be loaded: it has no tokenizer "
            f"({', '.join(TOKENIZER_FILES)}); get the whole folder again"
        )
    with loading(folder, "dual encoder"):
        require_own_files(folder)
        model, found = kind.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
        missing = sorted(key for key in found["missing_keys"] if not CONSTANTS.search(key))
        if missing:
            raise EarshotError(
                f"{folder} lacks weights of its network: {missing[0]} and {len(missing) - 1} "
                f"others; get the whole folder again"
            )
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    return model.eval(), tokenizer


def token_limit(tokenizer: Any, positions: int) -> int:
    """The longest sentence in tokens that both a tokenizer and its network can take."""
    return min(int(tokenizer.model_max_length), positions)


def recompute_layers(network: nn.Module) -> None:
    """Let each layer forget its activations in training, and compute them again when needed.

    The library's own switch refuses models that do not declare it, though their layers can do it.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    for layer in network.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.gradient_checkpointing = True
            layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
