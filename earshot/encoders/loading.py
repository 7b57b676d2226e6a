"""Public weights into networks, and what is said where they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from earshot.types import EarshotError
from earshot.weights import naming, read_safetensors

# Names that only one family's public files have, the most specific first.
SIGNATURES = (
    ("post_extract_proj.", "BEATs"),
    ("time_new_pos_embed", "PaSST"),
    ("blocks.0.attn.qkv.", "a vision Transformer such as PaSST or ATST"),
    ("audio_spectrogram_transformer.", "AST"),
    ("conv_block1.", "PANNs' CNN14"),
    ("audio_projection.", "CLAP"),
    ("audio_encoder.embedder.dac_encoder.", "PE-AV"),
    ("features.0.0.", "EfficientAT"),
)


def load_own(
    network: nn.Module,
    state: Mapping[str, Tensor],
    what: str,
    file: Mapping[str, Tensor] | None = None,
) -> None:
    """Load a state dict of a network's own names; `what` says whose network it is.

    `file` is the whole state dict, where `state` is what was kept of it.

    Raises:
        EarshotError: names or shapes differ; the first that does, how many others, and whose
            weights they look like.
    """
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:
        raise EarshotError(
            f"weights do not fit {what}: {difference(network, state, file)}"
        ) from error


def load_saved(network: nn.Module, path: Path, what: str) -> None:
    """Load a file of our own; `what` says whose network it is.

    Raises:
        EarshotError: the file is damaged, or does not fit.
    """
    with naming(path):
        load_own(network, read_safetensors(path), what)


def difference(
    network: nn.Module, state: Mapping[str, Tensor], file: Mapping[str, Tensor] | None
) -> str:
    """The first difference between a network's weights and others, and how many there are."""
    own = network.state_dict()
    lacking = [f"{key} is missing" for key in own if key not in state]
    strange = [f"{key} is unknown" for key in state if key not in own]
    sizes = [
        f"{key} is {shape(value)} where {shape(own[key])} is expected"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]
    found = [*sizes, *lacking, *strange] or ["they cannot be copied"]
    others = f" and {len(found) - 1} others differ" if len(found) > 1 else ""
    likely = looks_like(state if file is None else file) if lacking or strange else ""
    return f"{found[0]}{others}" + (f"; the file looks like {likely}" if likely else "")


def shape(value: Tensor) -> str:
    """A tensor's shape in words."""
    return " x ".join(map(str, value.shape)) or "one number"


def looks_like(state: Mapping[str, Tensor]) -> str:
    """Whose weights these are by their names; empty if they are of nobody who is known here."""
    return next(
        (who for sign, who in SIGNATURES if any(f".{sign}" in f".{key}" for key in state)),
        "",
    )
