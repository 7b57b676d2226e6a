"""What the folder of a sentence encoder says of itself: pooling, length, and what else it holds.

Folders are those of Sentence-Transformers (Reimers and Gurevych 2019), or bare networks as
Hugging Face's transformers saves them. Only JSON is read here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from earshot.types import EarshotError

Pooling = Literal["cls", "mean", "last"]
# What Sentence-Transformers calls them; newer folders leave `_token(s)` out.
POOLINGS: dict[str, Pooling] = {
    "mean_tokens": "mean",
    "mean": "mean",
    "cls_token": "cls",
    "cls": "cls",
    "lasttoken": "last",
}
# A token of these networks hears only those before it: the last one alone has heard all.
CAUSAL = ("clip", "clip_text_model", "gpt2")
# These count positions from behind their padding token.
OFFSET_POSITIONS = (
    "camembert",
    "data2vec-text",
    "longformer",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
)
DEFAULT_POSITIONS = 512


@dataclass(frozen=True, kw_only=True)
class SentenceConfig:
    """How token vectors become a sentence vector, as the folder's own files say."""

    pooling: Pooling = "mean"
    max_tokens: int = DEFAULT_POSITIONS


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, empty where the file is absent.

    Raises:
        EarshotError: the file is damaged, or holds something else.
    """
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise EarshotError(f"{path} holds no settings ({str(error)[:80]}); replace it") from error


def require_own_files(folder: Path) -> None:
    """Refuse a folder that sends its reader to other places: for weights, code, or adapters.

    Raises:
        EarshotError: it does.
    """
    for index in sorted(folder.glob("*.index.json")):
        shards = dict(read_json(index).get("weight_map", {})).values()
        for shard in shards:
            if not isinstance(shard, str) or shard in ("", ".", "..") or set(shard) & set("/\\:\0"):
                raise EarshotError(
                    f"{index} names weights outside of its folder, {str(shard)[:80]!r}; "
                    f"this is no folder to trust"
                )
    if (folder / "adapter_config.json").is_file():
        raise EarshotError(f"{folder} holds an adapter of another network; merge it into that")
    if strange := foreign_attention(read_json(folder / "config.json")):
        raise EarshotError(
            f"{folder / 'config.json'} has its attention fetched from {strange[:80]!r}; "
            f"this is no folder to trust"
        )


def foreign_attention(settings: Any) -> str:
    """The repository that settings, or others within them, have their attention's code from."""
    if not isinstance(settings, Mapping):
        return ""
    for key, value in settings.items():
        named = value.values() if isinstance(value, Mapping) else [value]
        if key.strip("_").startswith("attn_implementation"):
            found = next((str(name) for name in named if "/" in str(name)), "")
        else:
            found = foreign_attention(value)
        if found:
            return found
    return ""


def usable_positions(network: Mapping[str, Any]) -> int:
    """How many tokens a network with these settings can read."""
    longest = network.get("max_position_embeddings") or network.get("n_positions")
    if longest and network.get("model_type") in OFFSET_POSITIONS:
        longest -= network.get("pad_token_id", 1) + 1
    return int(longest or DEFAULT_POSITIONS)


def read_pooling(folder: Path, model_type: str) -> Pooling:
    """The pooling of a Sentence-Transformers folder; of a bare network, last if causal, else mean.

    Raises:
        EarshotError: a pooling, or a sum of several, that is unknown here.
    """
    settings = read_json(folder / "1_Pooling" / "config.json")
    named = [
        key.removeprefix("pooling_mode_")
        for key, on in settings.items()
        if key.startswith("pooling_mode_") and on is True
    ]
    chosen = named or [settings["pooling_mode"]] if "pooling_mode" in settings else named
    if len(chosen) > 1 or (chosen and chosen[0] not in POOLINGS):
        raise EarshotError(
            f"{folder} pools tokens by {', '.join(map(str, chosen))}; earshot knows mean_tokens, "
            f"cls_token and lasttoken"
        )
    if chosen:
        return POOLINGS[chosen[0]]
    return "last" if model_type in CAUSAL else "mean"


def read_config(folder: Path) -> SentenceConfig:
    """Pooling and length of a Sentence-Transformers folder, or of a bare network.

    Raises:
        EarshotError: a pooling that is unknown here.
    """
    network = read_json(folder / "config.json")
    sentence = read_json(folder / "sentence_bert_config.json")
    longest = usable_positions(network.get("text_config", network))
    return SentenceConfig(
        pooling=read_pooling(folder, str(network.get("model_type"))),
        max_tokens=min(int(sentence.get("max_seq_length") or longest), longest),
    )


def require_known_modules(folder: Path) -> None:
    """Refuse a Sentence-Transformers folder with more than a network, pooling, unit length.

    Raises:
        EarshotError: it has another module, such as a dense layer; without it vectors were wrong.
    """
    path = folder / "modules.json"
    try:
        modules = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise EarshotError(f"{path} holds no list of modules; replace it") from error
    unknown = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if unknown:
        raise EarshotError(
            f"{folder} has a module {unknown[0]}; earshot reads sentence encoders of a network, "
            f"mean, cls or last-token pooling and unit length"
        )
