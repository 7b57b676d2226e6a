"""Any recipe made tiny: all of the same code runs, in seconds, and what comes out means nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from earshot.encoders.catalogue import FAMILIES, audio_encoder_config
from earshot.encoders.tags import TAGS
from earshot.model.dual import AudioSide, DualEncoderConfig, HeadConfig
from earshot.recipes.parts import SOUNDSCAPES
from earshot.train.data import is_kind
from earshot.train.recipe import Recipe

DIMENSION = 32
"""That of the tiny text encoders and of PaSST's: heads without weights need it to be the same."""

# What makes a preset more than a size: kept when its family's tiny member takes its place.
KEPT: Mapping[str, tuple[str, ...]] = {
    "passt": ("stride", "segment_s", "position_frames"),
    "cnn14": ("pooled_blocks",),
}


def tiny(recipe: Recipe, text_folder: Path) -> Recipe:
    """The recipe with tiny towers, which begin with random weights; the rest stays as it is.

    `text_folder` is what `earshot.encoders.tiny_text.tiny_text_folder` made. Tags go by their
    names, because what is said of them would have to be fetched.
    """
    model = recipe.model
    small = replace(
        model,
        audio=tiny_audio(model),
        text=replace(model.text, tower=replace(model.text.tower, name=str(text_folder))),
        audio_head=tiny_head(model.audio_head),
        text_head=tiny_head(model.text_head),
        dimension=DIMENSION,
    )
    return replace(
        recipe,
        name=f"tiny-{recipe.name.removeprefix('tiny-')}",
        model=small,
        batches=replace(recipe.batches, pairs=8, workers=0),
        epochs=2,
        precision="32-true",
        compile=False,
        initialise=(),
    )


def on_what_is_there(recipe: Recipe, folder: Path) -> Recipe:
    """A tiny recipe on the soundscapes of a folder, if it holds some: they need no download."""
    if not is_kind("soundscapes", folder / "train"):
        return recipe
    return replace(recipe, data=SOUNDSCAPES)


def tiny_audio(model: DualEncoderConfig) -> AudioSide:
    """The audio side with the tiny member of the encoder's family."""
    side = model.audio
    family = family_of(side.encoder)
    preset = audio_encoder_config(side.encoder)
    settings: dict[str, Any] = {name: getattr(preset, name) for name in KEPT.get(family, ())}
    if family == "cnn14":
        settings |= {"projection": DIMENSION}
    if model.audio_head.kind == "tags":
        settings |= {"classes": TAGS}
    transformer = replace(
        side.transformer, dimension=DIMENSION, heads=4, feed_forward_dimension=2 * DIMENSION
    )
    return replace(
        side,
        encoder=f"tiny-{family}",
        settings={**settings, **side.settings},
        transformer=transformer,
    )


def tiny_head(head: HeadConfig) -> HeadConfig:
    """A head of the same kind, its hidden layers narrow."""
    return replace(head, hidden_dimension=DIMENSION, tag_texts="names")


def family_of(encoder: str) -> str:
    """The name of the family that an encoder of the catalogue belongs to."""
    return next(
        name
        for name, family in FAMILIES.items()
        if encoder == f"tiny-{name}" or encoder in family.presets
    )
