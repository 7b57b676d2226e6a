"""The dual encoder: an audio tower and a text tower, trained to meet in one space.

Recordings are heard segment by segment, segments joined to one vector, both towers projected to
unit vectors; cosine over a temperature is the score. This is SYSTEM 2 to 5: DCASE 2023's baseline,
the winner of 2024 (Primus et al. 2024) and DCASE 2025's baseline, and what users train.

Axis legend: B clips or captions, T samples, S segments, D dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from earshot.encoders.aggregate import (
    SEGMENT_S,
    SegmentTransformer,
    SegmentTransformerConfig,
    mean_over_valid,
    within_duration,
)
from earshot.encoders.catalogue import audio_encoder, audio_encoder_config
from earshot.encoders.heads import ProjectionConfig, ProjectionHead
from earshot.encoders.segments import EncodedSegments, encode_segments
from earshot.encoders.tag_embedding import TagEmbedding, TagEmbeddingConfig
from earshot.encoders.tags import TAGS
from earshot.encoders.text import TextConfig, TextTower
from earshot.model.tag_texts import TagTexts, tag_texts
from earshot.types import EarshotError, Encoded, require_above, require_least


@dataclass(frozen=True, kw_only=True)
class AudioSide:
    """The audio tower: an encoder of the catalogue, `settings` where it differs from its preset.

    Segments are joined by their mean, as DCASE 2025 by the clip's duration, or by a Transformer.
    A frozen tower stays as it is, in evaluation mode, and its vectors can be computed once.
    """

    encoder: str = "passt_s_p16_s16"
    settings: Mapping[str, Any] = field(default_factory=dict)
    hop_s: float | None = None
    join: Literal["mean", "duration", "transformer"] = "mean"
    transformer: SegmentTransformerConfig = field(default_factory=SegmentTransformerConfig)
    frozen: bool = False


@dataclass(frozen=True, kw_only=True)
class TextSide:
    """The text tower, frozen or not; `unit_length` for sentence encoders that end with it."""

    tower: TextConfig = field(default_factory=TextConfig)
    frozen: bool = False
    unit_length: bool = False


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """From a tower to the shared space: affine layers, or what learns nothing.

    `layer-norm` normalises each vector's values, then its length; `unit` its length alone. `tags`
    is for a tagger: DCASE 2022's mixture of what `source` is projected to, with
    `projected_weight`, and the sentence vectors of the tags that are heard.
    """

    kind: Literal["projection", "layer-norm", "unit", "tags"] = "projection"
    hidden_layers: int = 0
    hidden_dimension: int = 2048
    dropout: float = 0.0
    source: Literal["scene", "logits"] = "scene"
    projected_weight: float = 0.8
    tag_texts: TagTexts = "names"


@dataclass(frozen=True, kw_only=True)
class DualEncoderConfig:
    """Everything that a dual encoder is, but its weights."""

    audio: AudioSide = field(default_factory=AudioSide)
    text: TextSide = field(default_factory=TextSide)
    audio_head: HeadConfig = field(default_factory=HeadConfig)
    text_head: HeadConfig = field(default_factory=HeadConfig)
    dimension: int = 1024
    temperature: float = 0.05
    train_temperature: bool = False

    def __post_init__(self) -> None:
        require_above(0, {"temperature": self.temperature, "audio.hop_s": self.audio.hop_s})
        require_least(1, {"dimension": self.dimension})


class UnitHead(nn.Module):
    """Unit length, after a layer normalisation without weights if asked for (DCASE 2022)."""

    def __init__(self, *, layer_norm: bool) -> None:
        super().__init__()
        self.layer_norm = layer_norm

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, D) to unit vectors (B, D) float32."""
        vectors = embeddings.float()
        if self.layer_norm:
            vectors = nn.functional.layer_norm(vectors, vectors.shape[-1:])
        return nn.functional.normalize(vectors, dim=-1)


class TagHead(TagEmbedding):
    """The mixture of DCASE 2022 on what an audio tower hears."""

    def forward(self, heard: Encoded) -> Tensor:  # type: ignore[override]  # one argument
        """Features with logits to unit vectors (B, D) float32."""
        if heard.logits is None:
            raise EarshotError("a head of kind tags is for taggers; this encoder has no logits")
        return super().forward(heard.logits, heard.embedding)


def build_head(config: HeadConfig, in_dimension: int, out_dimension: int) -> nn.Module:
    """The head that a config asks for, of those that need no tags.

    Raises:
        EarshotError: a head that cannot change the dimension has to.
    """
    if config.kind == "projection":
        return ProjectionHead(
            ProjectionConfig(
                in_dimension=in_dimension,
                out_dimension=out_dimension,
                hidden_layers=config.hidden_layers,
                hidden_dimension=config.hidden_dimension,
                dropout=config.dropout,
            )
        )
    if in_dimension != out_dimension:
        raise EarshotError(
            f"a {config.kind} head keeps the tower's {in_dimension} dimensions; the model's "
            f"dimension is {out_dimension}"
        )
    return UnitHead(layer_norm=config.kind == "layer-norm")


class AudioTower(nn.Module):
    """Clips of any durations to one vector each."""

    def __init__(self, side: AudioSide) -> None:
        super().__init__()
        self.side = side
        self.encoder = audio_encoder(side.encoder, encoder_settings(side))
        require_joinable(side, self.encoder.segment_s)
        self.dimension: int = self.encoder.dimension
        self.transformer: SegmentTransformer | None = None
        if side.join == "transformer":
            sized = replace(side.transformer, in_dimension=self.dimension)
            self.transformer = SegmentTransformer(sized)
            self.dimension = self.transformer.dimension

    @property
    def sample_rate_hz(self) -> int:
        """The rate that waveforms must have."""
        return int(self.encoder.sample_rate_hz)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Encoded:
        """Clips (B, T) of (B,) samples to vectors (B, D) float32, and a tagger's logits (B, C)."""
        segments = encode_segments(self.encoder, waveforms, lengths, self.side.hop_s)
        return self.join(segments, lengths)

    def join(self, segments: EncodedSegments, lengths: Tensor) -> Encoded:
        """The segments of clips of (B,) samples as one vector each."""
        valid, logits = segments.valid, None
        if segments.logits is not None:
            logits = mean_over_valid(segments.logits, valid)
        if self.transformer is not None:
            return Encoded(embedding=self.transformer(segments.embeddings, valid), logits=logits)
        if self.side.join == "duration":
            valid = within_duration(valid, lengths, self.sample_rate_hz)
        return Encoded(embedding=mean_over_valid(segments.embeddings, valid), logits=logits)


def require_joinable(side: AudioSide, segment_s: float | None) -> None:
    """Joining by duration is DCASE 2025's rule for segments of 10 s that follow each other.

    Raises:
        EarshotError: the tower's segments are others.
    """
    if side.join != "duration" or segment_s is None:
        return
    hop_s = side.hop_s or segment_s
    if (segment_s, hop_s) != (SEGMENT_S, SEGMENT_S):
        raise EarshotError(
            f"join = duration is for segments of {SEGMENT_S} s every {SEGMENT_S} s; {side.encoder} "
            f"hears {segment_s:g} s every {hop_s:g} s: use join = mean"
        )


def encoder_settings(side: AudioSide) -> Any:
    """The encoder's settings: its preset with what the side changes, the front-end's among it.

    Raises:
        EarshotError: the encoder has no such setting, or a value is of another type.
    """
    preset = audio_encoder_config(side.encoder)
    return validated(with_settings(preset, side.settings, side.encoder), side.encoder)


def validated(config: Any, name: str) -> Any:
    """The same settings of an encoder, each of them of its type.

    Raises:
        EarshotError: a value is of another type.
    """
    try:
        return TypeAdapter(type(config)).validate_python(asdict(config))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise EarshotError(f"settings of {name}: {place}: {first['msg']}") from error


def differing(preset: Any, config: Any) -> dict[str, Any]:
    """In which settings a network differs from its preset: what `with_settings` is given."""
    found = {}
    for item in fields(preset):
        usual, value = getattr(preset, item.name), getattr(config, item.name)
        if is_dataclass(usual) and is_dataclass(value):
            value = differing(usual, value)
            usual = {}
        if value != usual:
            found[item.name] = value
    return found


def with_settings(preset: Any, settings: Mapping[str, Any], name: str) -> Any:
    """A preset with other values; those of a part of it are a mapping again, as in JSON.

    Raises:
        EarshotError: there is no such setting, under the name of what has none.
    """
    if not is_dataclass(preset) or isinstance(preset, type):
        raise EarshotError(f"{name} is {preset!r}; it has no settings of its own")
    known = [item.name for item in fields(preset)]
    if unknown := [key for key in settings if key not in known]:
        raise EarshotError(f"{name} has no setting {unknown[0]!r}; there are {', '.join(known)}")
    changed = dict(settings)
    for key, value in settings.items():
        if isinstance(value, Mapping):
            changed[key] = with_settings(getattr(preset, key), value, f"{name}.{key}")
    return replace(preset, **changed)


class DualEncoder(nn.Module):
    """Two towers, two heads, a temperature.

    `text_folder` holds the text tower's settings and tokenizer, and with `pretrained` its weights.
    """

    def __init__(
        self, config: DualEncoderConfig, text_folder: Path, *, pretrained: bool = True
    ) -> None:
        super().__init__()
        self.config = config
        self.audio = AudioTower(config.audio)
        self.text = TextTower(text_folder, config.text.tower, pretrained=pretrained)
        self.audio_head = self.build_audio_head(pretrained=pretrained)
        self.text_head = build_head(config.text_head, self.text.dimension, config.dimension)
        self.tau = nn.Parameter(
            torch.tensor(config.temperature), requires_grad=config.train_temperature
        )
        for tower, frozen in self.towers():
            tower.requires_grad_(not frozen)
        self.train()

    def build_audio_head(self, *, pretrained: bool) -> nn.Module:
        """The head of the audio tower; that of DCASE 2022 knows what the tags' names mean."""
        head, dimension = self.config.audio_head, self.config.dimension
        if head.kind != "tags":
            return build_head(head, self.audio.dimension, dimension)
        texts = tag_texts(head.tag_texts) if pretrained else []
        vectors = torch.zeros(TAGS, dimension)
        if texts:
            vectors = nn.functional.normalize(self.text.eval().embed(texts), dim=-1)
        config = TagEmbeddingConfig(
            source=head.source,
            projected_weight=head.projected_weight,
            scene_dimension=self.audio.dimension,
            dimension=dimension,
        )
        return TagHead(config, vectors)

    def towers(self) -> tuple[tuple[nn.Module, bool], tuple[nn.Module, bool]]:
        """Both towers, and whether each is frozen."""
        return (self.audio, self.config.audio.frozen), (self.text, self.config.text.frozen)

    def train(self, mode: bool = True) -> DualEncoder:
        """Training mode for all but frozen towers: their dropout and statistics stay still."""
        super().train(mode)
        for tower, frozen in self.towers():
            if frozen:
                tower.eval()
        return self

    @property
    def dimension(self) -> int:
        """D of the shared space."""
        return self.config.dimension

    @property
    def temperature(self) -> Tensor:
        """What cosines are divided by; positive even where training took it below zero."""
        return self.tau.abs()

    def audio_features(self, waveforms: Tensor, lengths: Tensor) -> Encoded:
        """What the audio tower hears in clips (B, T) of (B,) samples, before the head."""
        with torch.no_grad() if self.config.audio.frozen else nullcontext():
            heard: Encoded = self.audio(waveforms, lengths)
        return heard

    def text_features(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """What the text tower reads in tokens of B captions, (B, D'), before the head."""
        with torch.no_grad() if self.config.text.frozen else nullcontext():
            read: Tensor = self.text(tokens)
        return self.finished(read)

    def finished(self, read: Tensor) -> Tensor:
        """Pooled text states (B, D'), of unit length where the sentence encoder ends with it."""
        return nn.functional.normalize(read, dim=-1) if self.config.text.unit_length else read

    def project_audio(self, heard: Encoded) -> Tensor:
        """Features to unit vectors (B, D) float32."""
        tags = isinstance(self.audio_head, TagHead)
        vectors: Tensor = self.audio_head(heard if tags else heard.embedding)
        return vectors

    def project_text(self, read: Tensor) -> Tensor:
        """Features to unit vectors (B, D) float32."""
        vectors: Tensor = self.text_head(read)
        return vectors

    def embed_audio(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Clips (B, T) of (B,) samples to unit vectors (B, D) float32."""
        return self.project_audio(self.audio_features(waveforms, lengths))

    def embed_text(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Tokens of B captions to unit vectors (B, D) float32."""
        return self.project_text(self.text_features(tokens))

    def forward(
        self, waveforms: Tensor, lengths: Tensor, tokens: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """A batch of pairs to its audio and text vectors, both (B, D)."""
        return self.embed_audio(waveforms, lengths), self.embed_text(tokens)
