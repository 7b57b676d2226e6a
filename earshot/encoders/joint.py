"""Ready dual encoders: words and sound in one space, as published, from their folders.

One role for both kinds, `JointEncoder`: an audio encoder, a text encoder, one dimension. Cosine is
how well words and sound fit; audio vectors come as the network makes them, text vectors with unit
length.

A text tower that answers every sentence with the same vector is refused. Such weights are in
circulation, and everything else about them works: `laion/larger_clap_music`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from earshot.encoders.clap import ClapAudio, load_clap
from earshot.encoders.pe_audio import PeAudio, load_pe_audio
from earshot.encoders.towers import TextTower
from earshot.types import EarshotError

# As unlike as sentences about sounds get: working towers of CLAP have cosines of 0.2 to 0.3 on
# unlike ones, the collapsed one in circulation 0.999.
UNLIKE = (
    "a dog barks",
    "slow piano music in a large hall",
    "heavy rain falls on a tin roof",
    "a man explains something in a calm voice",
    "an engine fails to start",
)
COLLAPSED_COSINE = 0.99


@dataclass(frozen=True, kw_only=True)
class JointEncoder:
    """Two towers into one space.

    What the towers were trained to predict is `logit_scale` times their product plus `logit_bias`:
    CLAP of the cosine, PE-AV of the dot product of both vectors as the networks make them.
    """

    audio: ClapAudio | PeAudio
    text: TextTower
    dimension: int
    logit_scale: float
    logit_bias: float = 0.0


def joint_encoder(folder: Path) -> JointEncoder:
    """Load the dual encoder of a folder, ready for inference.

    Raises:
        EarshotError: it is of no kind that is known here, or not usable.
    """
    kind = model_type(folder)
    towers: Any
    if kind == "clap":
        towers = load_clap(folder)
    elif kind in ("pe_audio", "pe_audio_video"):
        towers = load_pe_audio(folder)
    else:
        raise EarshotError(
            f"{folder} holds a model of type {kind!r}; dual encoders known here are clap, pe_audio "
            f"and pe_audio_video"
        )
    require_a_working_text_tower(towers.text, str(folder))
    return JointEncoder(
        audio=towers.audio,
        text=towers.text,
        dimension=towers.audio.dimension,
        logit_scale=towers.logit_scale,
        logit_bias=towers.logit_bias,
    )


def model_type(folder: Path) -> str:
    """What transformers calls the network of a folder.

    Raises:
        EarshotError: the folder holds none.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise EarshotError(f"{folder} has no config.json: not a model's folder")
    return str(json.loads(config.read_text()).get("model_type", ""))


def require_a_working_text_tower(text: TextTower, source: str) -> None:
    """Refuse a text tower that tells no sentences apart.

    Raises:
        EarshotError: its vectors of unlike sentences are all but equal.
    """
    vectors = text(UNLIKE)
    lowest = float((vectors @ vectors.T).min())
    if not np.isfinite(vectors).all() or lowest > COLLAPSED_COSINE:
        raise EarshotError(
            f"{source}: its text tower has collapsed: {len(UNLIKE)} unlike sentences have vectors "
            f"of cosine {lowest:.4f} or more, so every search would return the same recordings; "
            f"use other weights"
        )
