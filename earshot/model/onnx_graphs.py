"""What is exported of a model: each of its sides as one network from numbers to unit vectors.

One idea: a graph must not ask its data anything. The segments of a batch are therefore a grid
(clips × segments) that is encoded whole, where `earshot.encoders.segments` leaves out those
that hold no audio; what they would say is masked.

Axis legend: B clips or sentences, T samples, S segments, L tokens, D dimension.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from earshot.checkpoints import sentence_folder
from earshot.encoders.segments import EncodedSegments, segment_counts
from earshot.encoders.tags import PhraseTable
from earshot.encoders.text import CaptionTokenizer, TextConfig, TextTower
from earshot.encoders.winograd import WinogradConvolution
from earshot.model.folder import DualModel
from earshot.model.joint import JointModel
from earshot.model.tags import TagModel
from earshot.text import AS_WRITTEN, CleanUp
from earshot.types import EarshotError, Model

if TYPE_CHECKING:
    from earshot.encoders.clap import ClapText
    from earshot.model.dual import DualEncoder


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Both sides of a model, and how its sentences become tokens.

    `audio` takes waveforms (B, T) and lengths (B,), `text` token ids and their mask (B, L).
    `most_samples` is the longest waveform, None if there is no limit.
    """

    audio: nn.Module
    text: nn.Module
    tokenizer: Any
    max_tokens: int
    padding: int = 0
    filler: int = 0
    clean_up: CleanUp = field(default_factory=lambda: AS_WRITTEN)
    most_samples: int | None = None


def sides_of(model: Model) -> Sides:
    """What to export of a model.

    Raises:
        EarshotError: it is of a kind that cannot be exported.
    """
    if isinstance(model, DualModel):
        return dual_sides(model.network)
    if isinstance(model, TagModel):
        return tag_sides(model)
    if isinstance(model, JointModel):
        return joint_sides(model)
    raise EarshotError(f"{model.name} is exported already, or no model of words and sound")


def filled(waveforms: Tensor, samples: int) -> Tensor:
    """Waveforms (B, T) of at most so many samples with silence up to there."""
    return functional.pad(waveforms, (0, samples - waveforms.shape[1]))


def exportable(network: nn.Module) -> Any:
    """A copy of a network without what makes it fast in torch alone."""
    copy = deepcopy(network)
    for layer in list(copy.modules()):
        for name, part in list(layer.named_children()):
            if isinstance(part, WinogradConvolution):
                setattr(layer, name, part.direct())
    # A graph has no memory layout; without torch's there is nothing to be traced of it.
    return copy.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


class DualAudio(nn.Module):
    """The audio side of a dual encoder: clips of any durations."""

    def __init__(self, network: DualEncoder) -> None:
        super().__init__()
        self.tower, self.head = exportable(network.audio), network.audio_head

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) with (B,) valid samples to unit vectors (B, D)."""
        if self.tower.encoder.segment_s is None:
            heard = self.tower(waveforms, lengths)
        else:
            heard = self.tower.join(self.segments(waveforms, lengths), lengths)
        vectors: Tensor = self.head(heard.embedding)
        return vectors

    def segments(self, waveforms: Tensor, lengths: Tensor) -> EncodedSegments:
        """`encode_segments` on the whole grid."""
        encoder = self.tower.encoder
        segment = round(encoder.segment_s * encoder.sample_rate_hz)
        hop = round((self.tower.side.hop_s or encoder.segment_s) * encoder.sample_rate_hz)
        beyond = torch.sym_max(waveforms.shape[1] - segment, 0)  # type: ignore[no-untyped-call]
        count = 1 + (beyond + hop - 1) // hop
        padded = filled(waveforms, (count - 1) * hop + segment)
        starts = torch.arange(count, device=waveforms.device) * hop
        if hop == segment:
            cut = padded.reshape(-1, segment)
        else:
            places = starts[:, None] + torch.arange(segment, device=waveforms.device)
            cut = padded[:, places].flatten(0, 1)
        left = (lengths[:, None] - starts).clamp(1, segment).flatten()
        embeddings = encoder(cut, left).embedding.reshape(waveforms.shape[0], count, -1)
        counts = segment_counts(lengths, segment, hop)
        valid = torch.arange(count, device=waveforms.device) < counts[:, None]
        return EncodedSegments(
            embeddings=embeddings.masked_fill(~valid[..., None], 0.0), valid=valid
        )


class DualText(nn.Module):
    """The text side of a dual encoder."""

    def __init__(self, network: DualEncoder) -> None:
        super().__init__()
        self.tower, self.head = network.text, network.text_head
        self.unit_length = network.config.text.unit_length

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Tokens (B, L) to unit vectors (B, D)."""
        read = self.tower({"input_ids": input_ids, "attention_mask": attention_mask})
        if self.unit_length:
            read = functional.normalize(read, dim=-1)
        vectors: Tensor = self.head(read)
        return vectors


def dual_sides(network: DualEncoder) -> Sides:
    """Both sides of a dual encoder."""
    tokens = network.text.tokenize
    return tower_sides(DualAudio(network), DualText(network), tokens)


def tower_sides(
    audio: nn.Module, text: nn.Module, tokens: CaptionTokenizer, most_samples: int | None = None
) -> Sides:
    """Sides whose text is read as text towers do."""
    return Sides(
        audio=audio,
        text=text,
        tokenizer=fast(tokens.tokenizer),
        max_tokens=tokens.max_tokens,
        padding=int(tokens.padding),
        filler=int(tokens.filler),
        clean_up=tokens.clean_up,
        most_samples=most_samples,
    )


def fast(tokenizer: Any) -> Any:
    """What the tokenizers library knows of a tokenizer of transformers.

    Raises:
        EarshotError: it is one that is written in Python.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise EarshotError(
            f"the tokenizer {type(tokenizer).__name__} has no tokenizer.json, so the text side "
            f"cannot be exported; save it as a fast tokenizer first"
        )
    return tokenizer.backend_tokenizer


class TagAudio(nn.Module):
    """A tagger and `earshot.encoders.tags.audio_vectors` behind it."""

    def __init__(self, tagger: nn.Module, power: float, samples: int | None) -> None:
        super().__init__()
        self.tagger = exportable(tagger)
        self.power, self.samples = power, samples

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) with (B,) valid samples to unit vectors (B, D)."""
        if self.samples is not None:
            waveforms = filled(waveforms, self.samples)
        # Not logsigmoid: its export is log(sigmoid(x)), off by 0.8 at -17, -inf from -40 on.
        log_heard = -self.power * functional.softplus(-self.tagger(waveforms, lengths).logits)
        relative = log_heard - log_heard.amax(1, keepdim=True)
        return functional.normalize(relative.exp(), dim=1)


class TagText(nn.Module):
    """A sentence encoder and `earshot.encoders.tags.text_vectors` behind it."""

    phrases: Tensor
    coefficients: Tensor

    def __init__(self, tower: TextTower, phrases: PhraseTable) -> None:
        super().__init__()
        self.tower, self.width = tower, phrases.kernel_width
        self.register_buffer("phrases", torch.from_numpy(phrases.vectors.T.copy()))
        self.register_buffer("coefficients", torch.from_numpy(phrases.coefficients))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Tokens (B, L) to unit vectors (B, D)."""
        read = self.tower({"input_ids": input_ids, "attention_mask": attention_mask})
        cosines = functional.normalize(read, dim=1) @ self.phrases
        weights = (((cosines - 1.0) / self.width).exp() @ self.coefficients).relu()
        nothing = weights.amax(1, keepdim=True) == 0
        return functional.normalize(torch.where(nothing, 1.0, weights), dim=1)


def tag_sides(model: TagModel) -> Sides:
    """Both sides of a tagger with a sentence encoder."""
    tower = TextTower(
        sentence_folder(model.config.sentence_encoder), TextConfig(clean_up=AS_WRITTEN)
    ).eval()
    segment_s = model.tagger.segment_s
    most = None if segment_s is None else round(segment_s * model.sample_rate_hz)
    audio = TagAudio(model.tagger, model.config.matching.power, most)
    return tower_sides(audio, TagText(tower, model.phrases), tower.tokenize, most)


class JointAudio(nn.Module):
    """The audio side of a ready dual encoder."""

    def __init__(self, encoder: nn.Module, samples: int) -> None:
        super().__init__()
        self.encoder, self.samples = encoder, samples

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) with (B,) valid samples, at most one segment, to unit vectors (B, D)."""
        heard = self.encoder(filled(waveforms, self.samples), lengths)
        return functional.normalize(heard.embedding, dim=1)


class JointText(nn.Module):
    """The text side of a CLAP."""

    def __init__(self, network: ClapText) -> None:
        super().__init__()
        self.model, self.projection = network.text_model, network.text_projection

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Tokens (B, L) to unit vectors (B, D)."""
        read = self.model(input_ids, attention_mask=attention_mask).pooler_output
        return functional.normalize(self.projection(read), dim=1)


def joint_sides(model: JointModel) -> Sides:
    """Both sides of a CLAP.

    Raises:
        EarshotError: a PE-AV, whose text side takes sentences of one length and no mask.
    """
    from earshot.encoders.clap import ClapAudio, ClapText

    encoder = model.encoder
    network = encoder.text.network
    if not isinstance(encoder.audio, ClapAudio) or not isinstance(network, ClapText):
        raise EarshotError(
            f"{model.name}: this version cannot export PE-AV, whose text side takes sentences of "
            f"one length only; it can export CLAP, dual encoders and taggers"
        )
    most = round(model.segment_s * model.sample_rate_hz)
    tokenizer: Any = encoder.text.tokenizer
    return Sides(
        audio=JointAudio(encoder.audio, most),
        text=JointText(network),
        tokenizer=fast(tokenizer),
        max_tokens=encoder.text.max_tokens,
        padding=int(tokenizer.pad_token_id),
        most_samples=most,
    )
