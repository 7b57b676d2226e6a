"""The demo's recipe: a small tower learns in two minutes on two cores to hear soundscapes.

The sentence encoder stays as it is, so that queries may use words that no caption had: it knows
what they are like. The audio tower is CNN14 with narrow blocks, from random weights; it looks at
the sound 25 times a second and not 100, which is a quarter of the work.
"""

from __future__ import annotations

from earshot.batches import BatchConfig
from earshot.encoders.text import TextConfig
from earshot.model.dual import AudioSide, DualEncoderConfig, TextSide
from earshot.recipes.parts import SOUNDSCAPES, affine
from earshot.text import AS_WRITTEN
from earshot.train.recipe import LossConfig, OptimizerConfig, Recipe, ScheduleConfig

EPOCHS = 4


def demo() -> Recipe:
    """Narrow CNN14 from random weights, MiniLM frozen, soundscapes."""
    return Recipe(
        name="demo",
        about="a few minutes of training on synthetic soundscapes",
        model=DualEncoderConfig(
            audio=narrow_cnn14(),
            text=TextSide(
                tower=TextConfig(name="all-MiniLM-L6-v2", pooling="mean", clean_up=AS_WRITTEN),
                frozen=True,
                unit_length=True,
            ),
            audio_head=affine(),
            text_head=affine(),
            dimension=384,
            temperature=0.07,
        ),
        data=SOUNDSCAPES,
        batches=BatchConfig(pairs=16, crop_s=5.0, workers=1, captions_per_clip=2),
        loss=LossConfig(kind="multiple-positives", weighting="pairs"),
        optimizer=OptimizerConfig(rate=2e-3, weight_decay=1e-2),
        schedule=ScheduleConfig(
            warm_up_epochs=0.2, ramp_from_epoch=0.2, ramp_until_epoch=EPOCHS, last_rate=1e-5
        ),
        epochs=EPOCHS,
    )


def narrow_cnn14() -> AudioSide:
    """CNN14 with five blocks of 8 to 128 channels, four of them pooled; 40 ms per frame."""
    return AudioSide(
        encoder="tiny-cnn14",
        settings={
            "channels": [8, 16, 32, 64, 128],
            "pooled_blocks": 4,
            "classes": 0,
            "projection": 0,
            "dropout": 0.0,
            "hidden_dropout": 0.0,
            "front_end": {"hop_s": 0.04},
        },
    )
