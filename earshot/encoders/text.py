"""Text towers: captions to one vector each, through any text encoder of transformers.

One idea: a batch is padded to its longest caption, rounded up to a multiple of eight, where the
published systems pad all to 32 tokens. Masked tokens change no vector, so results are equal and
most of the padding's cost is saved, while compiled networks see few shapes.

DCASE 2025 and the 2024 winner: RoBERTa, its first token. Sentence-BERT: the mean of all tokens.
Axis legend: B (N) sentences, L tokens, D dimension.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from earshot.encoders.aggregate import mean_over_valid
from earshot.encoders.folders import (
    Pooling,
    read_config,
    read_json,
    require_known_modules,
    require_own_files,
    usable_positions,
)
from earshot.encoders.loading import load_own
from earshot.text import CleanUp
from earshot.types import EarshotError

WIDTH_STEP_TOKENS = 8
# What the settings of transformers' networks call the two kinds of dropout.
HIDDEN_DROPOUT = (
    "hidden_dropout_prob",
    "dropout",
    "dropout_rate",
    "resid_pdrop",
    "embd_pdrop",
    "embedding_dropout",
    "mlp_dropout",
)
ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
# Kept in checkpoints and not needed: constants, and a layer for predicting the next sentence.
UNUSED = re.compile(r"(^|\.)(position_ids|pooler\.dense\.\w+|attn\.bias|attn\.masked_bias)$")


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """A text tower. `name` is a hub repository or a folder, resolved by the caller.

    `pooling` and `max_tokens` are the folder's own where None, and so is dropout. First-token
    pooling (`cls`) is for networks that hear both ways: of GPT-2 and CLIP's text tower, which the
    2024 winner offers with it, the first token has heard itself alone.
    """

    name: str = "roberta-large"
    pooling: Pooling | None = None
    max_tokens: int | None = None
    hidden_dropout: float | None = None
    attention_dropout: float | None = None
    clean_up: CleanUp = field(default_factory=CleanUp)
    gradient_checkpointing: bool = False


@contextmanager
def quiet() -> Iterator[None]:
    """Neither progress bars nor log lines of transformers, below errors."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


@contextmanager
def loading(folder: Path, what: str = "text encoder") -> Iterator[None]:
    """Whatever transformers says of a folder that it cannot load, as one error.

    Its table of absent and superfluous weights is not logged: they are checked here.
    """
    try:
        with quiet():
            yield
    except EarshotError:
        raise
    except Exception as error:  # noqa: BLE001 - every way in which a folder can be no encoder
        reason = (str(error).strip().splitlines() or [""])[0][:160]
        raise EarshotError(
            f"{folder} holds no {what} that can be loaded "
            f"({type(error).__name__}: {reason}); name a folder with config.json, "
            f"model.safetensors and the tokenizer's files"
        ) from error


def network_settings(folder: Path) -> Any:
    """The settings of a folder's text network; of a CLIP, its text tower's.

    Raises:
        EarshotError: there are none.
    """
    from transformers import AutoConfig

    with loading(folder):
        require_own_files(folder)
        settings = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    return settings.text_config if settings.model_type == "clip" else settings


def set_dropout(settings: Any, names: Sequence[str], value: float | None) -> None:
    """Set one kind of dropout, whatever these settings call it; None leaves it as it is."""
    if value is None:
        return
    own = [name for name in names if hasattr(settings, name)]
    for name in own:
        setattr(settings, name, value)
    if not own:
        warnings.warn(
            f"a network of type {settings.model_type} has no {names[0]}: {value} is ignored",
            stacklevel=2,
        )


def load_network(folder: Path, config: TextConfig, pretrained: bool) -> nn.Module:
    """The network of a folder in float32, without the layer that only its own pre-training used.

    Raises:
        EarshotError: it cannot be loaded, or weights are missing.
    """
    from transformers import AutoModel, AutoModelForTextEncoding

    settings = network_settings(folder)
    set_dropout(settings, HIDDEN_DROPOUT, config.hidden_dropout)
    set_dropout(settings, ATTENTION_DROPOUT, config.attention_dropout)
    kind = AutoModelForTextEncoding if settings.is_encoder_decoder else AutoModel
    with loading(folder):
        if not pretrained:
            network = kind.from_config(settings, dtype=torch.float32, trust_remote_code=False)
        else:
            network, found = kind.from_pretrained(
                folder,
                config=settings,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
            missing = sorted(key for key in found["missing_keys"] if not UNUSED.search(key))
            if missing:
                raise EarshotError(f"{folder} lacks weights of its network: {missing[0]}")
    if getattr(network, "pooler", None) is not None:
        network.pooler = None
    if config.gradient_checkpointing:
        checkpoint_layers(network)
    assert isinstance(network, nn.Module)
    return network


def checkpoint_layers(network: Any) -> None:
    """Let layers be computed again in the backward pass instead of kept.

    Raises:
        EarshotError: the library cannot do it for this architecture, such as MPNet.
    """
    if not network.supports_gradient_checkpointing:
        raise EarshotError(f"{type(network).__name__} has no gradient checkpointing; leave it off")
    # Renamed in the course of transformers 5; the old name warns where there is a new one.
    enable = getattr(network, "activation_checkpointing_enable", None)
    (enable or network.gradient_checkpointing_enable)({"use_reentrant": False})


class CaptionTokenizer:
    """Captions to padded tokens; small and without a network, for the workers that read data."""

    def __init__(self, folder: Path, config: TextConfig) -> None:
        from transformers import AutoTokenizer

        with loading(folder):
            self.tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        self.clean_up = config.clean_up
        self.positions = usable_positions(network_settings(folder).to_dict())
        wanted = config.max_tokens or read_config(folder).max_tokens
        self.max_tokens = min(wanted, self.positions)
        ends = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        # GPT-2 has no padding token, and an empty caption none at all.
        self.filler = next((end for end in ends if end is not None), 0)
        padding = self.tokenizer.pad_token_id
        self.padding = self.filler if padding is None else padding

    def __call__(self, sentences: Sequence[str]) -> dict[str, Tensor]:
        """Clean and tokenise B sentences: `input_ids` and `attention_mask`, both (B, L) int64.

        What is longer than `max_tokens` is cut. L is a multiple of eight where the network can
        read as many tokens.
        """
        if not sentences:
            empty = torch.zeros(0, WIDTH_STEP_TOKENS, dtype=torch.int64)
            return {"input_ids": empty, "attention_mask": empty.clone()}
        cleaned = [self.clean_up(sentence) for sentence in sentences]
        rows = self.tokenizer(
            cleaned,
            padding=False,
            truncation=True,
            max_length=self.max_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        rows = [row or [self.filler] for row in rows]
        longest = max(map(len, rows))
        width = min(padded_width(longest), self.positions)
        ids = [[*row, *[self.padding] * (width - len(row))] for row in rows]
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def padded_width(tokens: int) -> int:
    """The width of a batch whose longest caption has so many tokens: a multiple of eight."""
    return -(-tokens // WIDTH_STEP_TOKENS) * WIDTH_STEP_TOKENS


def pooled(states: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """States (B, L, D) with padding at their ends to (B, D) float32."""
    if pooling == "mean":
        return mean_over_valid(states, attention_mask.bool())
    if pooling == "cls":
        return states[:, 0].float()
    last = attention_mask.sum(1) - 1
    return states[torch.arange(states.shape[0], device=states.device), last].float()


class TextTower(nn.Module):
    """Captions to one vector each. `network` is the bare transformers network.

    Attributes: `dimension` D, `pooling`, `max_tokens`.
    """

    def __init__(self, folder: Path, config: TextConfig, *, pretrained: bool = True) -> None:
        """Load a folder; with `pretrained=False` its settings and tokenizer alone.

        Raises:
            EarshotError: the folder holds no text encoder, or one that is unknown here.
        """
        super().__init__()
        if not read_json(folder / "config.json"):
            raise EarshotError(f"{folder} has no config.json: not a text encoder's folder")
        require_known_modules(folder)
        self.config = config
        self.pooling = config.pooling or read_config(folder).pooling
        self.tokenize = CaptionTokenizer(folder, config)
        self.network = load_network(folder, config, pretrained)
        self.dimension = int(self.network.config.hidden_size)  # type: ignore[union-attr, arg-type]

    @property
    def max_tokens(self) -> int:
        """Captions are cut there."""
        return self.tokenize.max_tokens

    def forward(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Tokens of B sentences as `tokenize` gives them to (B, D) float32, not of unit length."""
        mask = tokens["attention_mask"]
        states = self.network(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state
        return pooled(states, mask, self.pooling)

    @torch.no_grad()  # Not inference mode: a head may be trained on these vectors.
    def embed(self, sentences: Sequence[str], batch: int = 64) -> Tensor:
        """N sentences to (N, D) on the CPU; those of similar length go together."""
        tokens = self.tokenize(sentences)
        lengths = tokens["attention_mask"].sum(1)
        device = next(self.network.parameters()).device
        vectors = torch.empty(len(lengths), self.dimension)
        order = lengths.argsort(stable=True)
        for start in range(0, len(order), batch):
            some = order[start : start + batch]
            width = padded_width(int(lengths[some].max()))
            cut = {name: ids[some, :width].to(device) for name, ids in tokens.items()}
            vectors[some] = self(cut).cpu()
        return vectors

    def load_public(self, state: Mapping[str, Tensor]) -> None:
        """Load the text network of a public checkpoint, the checkpoint's prefix taken off.

        Raises:
            EarshotError: the names or shapes are not those of this network.
        """
        what = f"{type(self.network).__name__}"
        load_own(self.network, bare_names(state, self.network), what)


def bare_names(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """A state dict by the bare network's names; what networks keep and do not need is left out.

    Names may have the prefix that networks with a task's head have: `roberta.`, `text_model.`.
    """
    own = network.state_dict().keys()
    prefixes = (str(getattr(network, "base_model_prefix", "")), "text_model")
    renamed = {}
    for key, value in state.items():
        stripped = [key.removeprefix(f"{prefix}.") for prefix in prefixes]
        name = next((bare for bare in (key, *stripped) if bare in own), key)
        if name in own or not UNUSED.search(name):
            renamed[name] = value
    return renamed
