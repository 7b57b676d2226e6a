"""Audio encoders with weights: from public files, and from our own folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earshot.encoders.beats import Beats, config_from_public
from earshot.encoders.catalogue import audio_encoder
from earshot.encoders.loading import load_saved
from earshot.encoders.mobilenet import MobileNetConfig
from earshot.model.dual import AudioSide, encoder_settings, validated
from earshot.types import EarshotError
from earshot.weights import naming

if TYPE_CHECKING:
    from torch import nn

    from earshot.weights import WeightFile


def bare_encoder(
    name: str, silence_to_s: float = 0.0, settings: Mapping[str, Any] | None = None
) -> Any:
    """An encoder without weights; those that can hear silence after short clips do so.

    `settings` are where it differs from its preset.
    """
    config = encoder_settings(AudioSide(encoder=name, settings=settings or {}))
    if isinstance(config, MobileNetConfig):
        config = replace(config, silence_to_s=silence_to_s)
    return audio_encoder(name, config)


def encoder_of(name: str, file: WeightFile, silence_to_s: float = 0.0) -> Any:
    """An encoder with the weights of a public file, which of BEATs has its settings and labels.

    Raises:
        EarshotError: the file does not fit the encoder.
    """
    network: Any = bare_encoder(name, silence_to_s)
    settings = {key: value for key, value in file.settings.items() if key != "label_dict"}
    if isinstance(network, Beats) and settings:
        with naming(file.path):
            network = Beats(validated(config_from_public(settings), name))
    if absent := fill_public(network, file):
        raise EarshotError(
            f"{file.path} lacks {absent[0]} of {name}, which would stay random; use a file of the "
            f"whole encoder, or begin a training with this one: initialise audio=FILE"
        )
    return network


def fill_public(network: nn.Module, file: WeightFile) -> tuple[str, ...]:
    """Load the weights of a public file into an encoder; the names of those that stay random.

    Raises:
        EarshotError: they do not fit it.
    """
    with naming(file.path):
        if isinstance(network, Beats):
            network.load_public(file.tensors, file.settings.get("label_dict"))
            return ()
        return network.load_public(file.tensors) or ()  # type: ignore[operator]


def restored(
    name: str, weights: Path, silence_to_s: float = 0.0, settings: Mapping[str, Any] | None = None
) -> nn.Module:
    """An encoder with the weights of our own file; `settings` are where it differs from its preset.

    Raises:
        EarshotError: the file does not fit the encoder.
    """
    network: nn.Module = bare_encoder(name, silence_to_s, settings)
    load_saved(network, weights, name)
    return network
