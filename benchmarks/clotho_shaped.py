"""Noise in the shape of Clotho: clips of 15 to 30 s at 44.1 kHz, five captions of 8 to 20 words.

And RoBERTa without weights, whose tokenizer knows the words of these captions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from transformers import AutoConfig

from earshot.encoders.tiny_text import word_piece_tokenizer
from earshot.types import Caption, Clip, Dataset, DatasetCard

CLOTHO_RATE_HZ = 44_100
# RoBERTa-large; the vocabulary's size is the published one, whatever the tokenizer knows.
ROBERTA_LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 514,
    "vocab_size": 50_265,
}
# What a CPU trains instead.
SMALL_ROBERTA: dict[str, Any] = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "max_position_embeddings": 514,
    "vocab_size": 5_000,
}
VOCABULARY = (
    "a the of and in with by as while then dog birds rain water wind man woman people car engine "
    "door bell metal wood paper footsteps voices thunder insects train machine music crowd street "
    "barks sings falls runs blows talks walks passes hums opens rings rattles creaks rustles "
    "loud quiet distant steady slow fast repeatedly background nearby outside"
)
WORDS = tuple(VOCABULARY.split())


def write_clips(folder: Path, clips: int) -> None:
    """Clips of noise, 16-bit, of Clotho's durations."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(clips):
        path = folder / f"{number:04}.wav"
        random = np.random.default_rng(number)
        samples = int(random.uniform(15, 30) * CLOTHO_RATE_HZ)
        if not path.exists():
            noise = random.integers(-3000, 3000, samples, dtype=np.int16)
            soundfile.write(path, noise, CLOTHO_RATE_HZ, subtype="PCM_16")


def dataset(folder: Path, clips: int) -> Dataset:
    """The clips with five captions of 8 to 20 words each, as long as Clotho's."""
    random = np.random.default_rng(0)
    names = [f"{number:04}.wav" for number in range(clips)]
    captions = tuple(
        Caption(
            id=f"{name}#{number}",
            text=" ".join(random.choice(WORDS, random.integers(8, 21))),
            clip_id=name,
        )
        for name in names
        for number in range(1, 6)
    )
    card = DatasetCard(name="noise", source="generated", licence="CC0-1.0", citation="")
    return Dataset(
        card=card,
        split="",
        clips=tuple(Clip(id=name, path=str(folder / name)) for name in names),
        captions=captions,
        relevance={caption.id: frozenset({caption.clip_id}) for caption in captions},
    )


def roberta_folder(folder: Path, sizes: dict[str, Any]) -> None:
    """Write settings and tokenizer of a RoBERTa."""
    tokenizer = word_piece_tokenizer(WORDS)
    ids = {
        name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")
    }
    AutoConfig.for_model("roberta", **sizes, **ids).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
