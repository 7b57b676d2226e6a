"""What several published systems have in common: their data, RoBERTa, PaSST, the one loss."""

from __future__ import annotations

from earshot.batches import BatchConfig
from earshot.encoders.text import TextConfig
from earshot.model.dual import AudioSide, HeadConfig, TextSide
from earshot.text import AS_WRITTEN, CleanUp
from earshot.train.recipe import DataConfig, LossConfig

CLOTHO, AUDIOCAPS, WAVCAPS = "clotho:development", "audiocaps:train", "wavcaps:all"
EXCLUDED = "dcase2025_task6_excluded_freesound_ids.csv"
"""Freesound ids of Clotho's evaluation data, which training on WavCaps has to leave out."""

SOUNDSCAPES = DataConfig(
    train=("soundscapes:train",), validate="soundscapes:validation", test="soundscapes:test"
)

MULTIPLE_POSITIVES = LossConfig(
    kind="multiple-positives", weighting="cells", supervised_weight=1.0, distillation_weight=0.0
)


def sentence_bert() -> TextSide:
    """The frozen sentence encoder of 2022 and 2023, captions as they are written (768-d)."""
    tower = TextConfig(name="all-mpnet-base-v2", pooling="mean", clean_up=AS_WRITTEN)
    return TextSide(tower=tower, frozen=True, unit_length=True)


def roberta(name: str = "roberta-large") -> TextSide:
    """The text tower of 2024 and 2025: first token, fine-tuned with more dropout than usual."""
    return TextSide(
        tower=TextConfig(
            name=name,
            pooling="cls",
            max_tokens=32,
            hidden_dropout=0.2,
            attention_dropout=0.2,
            clean_up=CleanUp(lower_case=True, remove_punctuation=True),
        )
    )


def passt(encoder: str = "passt_s_p16_s16") -> AudioSide:
    """PaSST of 2024 and 2025, fine-tuned with patchout; its segments do not overlap."""
    return AudioSide(encoder=encoder, settings={"patchout_time": 15, "patchout_freq": 2})


def affine() -> HeadConfig:
    """One affine layer and unit length; hidden layers, 2048 wide, are an option of 2024."""
    return HeadConfig(kind="projection", hidden_layers=0, hidden_dimension=2048, dropout=0.0)


def half_minutes() -> BatchConfig:
    """64 pairs, clips cut or padded to 30 s."""
    return BatchConfig(pairs=64, crop_s=30.0, pad_to_crop=True)
