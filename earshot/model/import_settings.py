"""The settings of a published system's checkpoint: from its hyper-parameters, else its shapes.

Lightning files of the 2024 winner hold the configuration of their run, under the names of its
public code. What neither that nor the weights tell is as it was published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from earshot.encoders.aggregate import SegmentTransformerConfig
from earshot.encoders.text import TextConfig
from earshot.model.dual import AudioSide, DualEncoderConfig, HeadConfig, TextSide
from earshot.text import AS_WRITTEN
from earshot.types import EarshotError

if TYPE_CHECKING:
    from torch import Tensor

# RoBERTa's sizes: hidden dimension to name.
ROBERTA = {1024: "roberta-large", 768: "roberta-base"}
# Options of the 2024 winner that change what a network computes, and the one value known here.
AGREED: dict[str, object] = {"normalize": True}
AGREED_TRANSFORMER: dict[str, object] = {
    "posencode_init": "sinosoidal_fixed",  # Its spelling.
    "posencode_project": False,
    "ablate_posencode": False,
    "reduce_sequence": False,
}
Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A system's checkpoint, part by part, each with its own names, and its hyper-parameters."""

    audio: Mapping[str, Tensor]
    text: Mapping[str, Tensor]
    audio_head: Mapping[str, Tensor]
    text_head: Mapping[str, Tensor]
    join: Mapping[str, Tensor]
    temperature: Tensor | None
    told: Mapping[str, Any] = field(default_factory=dict)


def system_config(format: str, parts: Parts) -> DualEncoderConfig:
    """The settings of a system of one of the formats of `earshot import`.

    Raises:
        EarshotError: a weight is missing that tells one, or a hyper-parameter is no such value.
    """
    if format == "dcase2023":
        return DualEncoderConfig(
            audio=AudioSide(encoder="cnn14-dcase2023"),
            audio_head=HeadConfig(kind="unit"),
            text=TextSide(
                tower=TextConfig(name="all-mpnet-base-v2", clean_up=AS_WRITTEN),
                frozen=True,
                unit_length=True,
            ),
            dimension=size_of(parts.text_head, "bias", 0),
            temperature=0.07,
        )
    require_agreed(parts.told, AGREED)
    audio, text = section(parts.told, "audio_features"), section(parts.told, "sentence_features")
    return DualEncoderConfig(
        audio=audio_side(format, parts, audio),
        text=TextSide(tower=text_config(parts.text, text)),
        audio_head=head_config(parts.audio_head, audio),
        text_head=head_config(parts.text_head, text),
        dimension=size_of(dict([layers_of(parts.text_head)[-1]]), "weight", 0),
        temperature=temperature(parts.temperature),
    )


def told(settings: Mapping[str, Any], name: str, usual: Value) -> Value:
    """A hyper-parameter by name, of the type of the usual one, which it is if it is not told.

    Raises:
        EarshotError: it is of another type.
    """
    value = settings.get(name, usual)
    if isinstance(usual, float) and type(value) is int:
        return type(usual)(value)
    if not isinstance(value, type(usual)):
        raise EarshotError(
            f"its hyper-parameter {name} is {value!r}; expected a value of type "
            f"{type(usual).__name__}"
        )
    return value


def section(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Hyper-parameters that are kept together under a name; none where the file has none."""
    usual: dict[str, Any] = {}
    return told(settings, name, usual)


def require_agreed(settings: Mapping[str, Any], agreed: Mapping[str, object]) -> None:
    """Refuse options that no published checkpoint was trained with.

    Raises:
        EarshotError: the first of them.
    """
    for name, value in agreed.items():
        if settings.get(name, value) != value:
            raise EarshotError(
                f"its hyper-parameter {name} is {settings[name]!r}; only {value!r} can be imported"
            )


def size_of(state: Mapping[str, Tensor], ending: str, axis: int) -> int:
    """The size of the first weight whose name ends so.

    Raises:
        EarshotError: there is none, or it has no such axis.
    """
    for key, value in state.items():
        if key.endswith(ending) and value.ndim > axis:
            return value.shape[axis]
    raise EarshotError(f"no weight *{ending} with {axis + 1} or more axes is in it")


def layers_of(head: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """The weights of a head's affine layers in their order: 0, 2, 4 …, or a single one.

    Raises:
        EarshotError: there are none.
    """
    found = [
        (key, value)
        for key, value in head.items()
        if key.rpartition(".")[2] == "weight" and value.ndim == 2
    ]
    if not found:
        raise EarshotError("one of its heads has no layer with a matrix of weights")
    return sorted(found, key=lambda item: (len(item[0]), item[0]))


def head_config(head: Mapping[str, Tensor], settings: Mapping[str, Any]) -> HeadConfig:
    """A head: its depth as the run was told, else as it has layers."""
    layers = layers_of(head)
    width = (
        size_of(dict(layers[:1]), "weight", 0) if len(layers) > 1 else HeadConfig.hidden_dimension
    )
    return HeadConfig(
        hidden_layers=told(settings, "adopt_n_layers", len(layers) - 1),
        hidden_dimension=told(settings, "adopt_layer_size", width),
    )


def audio_side(format: str, parts: Parts, settings: Mapping[str, Any]) -> AudioSide:
    """The audio tower, and how its segments are joined."""
    # Segments of ten seconds are the encoder's own; only how often they begin is free.
    segment_s = told(settings, "segment_length", 10.0)
    hop_s = told(settings, "hop_length", segment_s)
    if segment_s != 10.0 or not 0 < hop_s <= segment_s:
        raise EarshotError(
            f"its segments last {segment_s:g} s, every {hop_s:g} s; only 10 s can be imported, "
            f"every 10 s or less"
        )
    side = AudioSide(encoder=heard_by(parts.audio), hop_s=None if hop_s == segment_s else hop_s)
    if parts.join:
        return replace(side, join="transformer", transformer=transformer_config(parts, settings))
    return replace(side, join="duration") if format == "dcase2025" else side


def transformer_config(parts: Parts, settings: Mapping[str, Any]) -> SegmentTransformerConfig:
    """The Transformer over segments."""
    own, usual = section(settings, "sequence_model"), SegmentTransformerConfig()
    require_agreed(own, AGREED_TRANSFORMER)
    state = parts.join
    layers = {key.split(".")[1] for key in state if key.startswith("audio_sequence.")}
    return SegmentTransformerConfig(
        dimension=size_of(state, "audio_token", 2),
        layers=told(own, "num_layers", len(layers)),
        heads=told(own, "nhead", usual.heads),
        feed_forward_dimension=size_of(state, "audio_sequence.0.linear1.weight", 0),
        dropout=told(own, "dropout", usual.dropout),
        norm_first=told(own, "norm_first", usual.norm_first),
        position_weight=told(own, "posencode_weight", usual.position_weight),
        token_from_mean=told(parts.told, "init_audio_token_with_mean", usual.token_from_mean),
        first_token=told(own, "use_first_token", usual.first_token),
        unit_length_input=told(own, "normalize_input", usual.unit_length_input),
    )


def text_config(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> TextConfig:
    """The text tower: named by the run, else RoBERTa of the weights' size."""
    width = size_of(state, "word_embeddings.weight", 1)
    usual = TextConfig()
    clean_up = replace(
        usual.clean_up,
        remove_punctuation=told(settings, "remove_punctuation", usual.clean_up.remove_punctuation),
    )
    return TextConfig(
        name=told(settings, "model", ROBERTA.get(width, ROBERTA[768])),
        max_tokens=told(settings, "max_sentence_tokens", 32),
        pooling="cls" if told(settings, "use_first_token", True) else "mean",
        clean_up=clean_up,
    )


def temperature(tau: Tensor | None) -> float:
    """What cosines are divided by, of a file's one number.

    Raises:
        EarshotError: it holds several.
    """
    if tau is None:
        return 0.05
    if tau.numel() != 1:
        raise EarshotError(f"its tau holds {tau.numel()} numbers; expected one")
    return float(tau.abs())


def heard_by(state: Mapping[str, Tensor]) -> str:
    """Which encoder of the catalogue the audio tower is, by its shapes.

    Raises:
        EarshotError: none that these systems were published with.
    """
    if "time_new_pos_embed" in state:
        frames = size_of(state, "time_new_pos_embed", 3)
        known = {62: "passt_s_p16_s16", 99: "passt_s_p16_s10"}
        if frames in known:
            return known[frames]
    elif "post_extract_proj.weight" in state:
        finetuned = "predictor.weight" in state
        return "beats-iter3-plus-as2m-finetuned" if finetuned else "beats-iter3-plus-as2m"
    raise EarshotError(
        "the audio tower is neither PaSST (stride 16 or 10, 10 s) nor BEATs; earshot knows no "
        "published checkpoint with another"
    )
