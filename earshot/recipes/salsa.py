"""`salsa-2024`: the winner of DCASE 2024 task 8, in two stages (SYSTEMS 3 and 4).

Primus, Schmid, Widmer: "Estimated audio-caption correspondences improve language-based audio
retrieval", DCASE 2024. Stage 1 learns that a clip belongs to its own captions; stage 2 goes on from
there with what the models of stage 1 make of all other pairs.
"""

from __future__ import annotations

from dataclasses import replace

from earshot.model.dual import AudioSide, DualEncoderConfig
from earshot.recipes.parts import (
    AUDIOCAPS,
    CLOTHO,
    EXCLUDED,
    MULTIPLE_POSITIVES,
    WAVCAPS,
    affine,
    half_minutes,
    passt,
    roberta,
)
from earshot.train.recipe import DataConfig, OptimizerConfig, Recipe, ScheduleConfig


def stage1() -> Recipe:
    """PaSST and RoBERTa-large, on Clotho alone."""
    return Recipe(
        name="salsa-2024-stage1",
        about="DCASE 2024 winner, stage 1: PaSST and RoBERTa-large",
        model=DualEncoderConfig(
            audio=passt(),
            text=roberta(),
            audio_head=affine(),
            text_head=affine(),
            dimension=1024,
            temperature=0.05,
            train_temperature=False,
        ),
        data=DataConfig(train=(CLOTHO,)),
        batches=half_minutes(),
        loss=MULTIPLE_POSITIVES,
        optimizer=OptimizerConfig(kind="adamw", rate=2e-5, weight_decay=0.0),
        schedule=ScheduleConfig(
            kind="cosine",
            warm_up_epochs=1.0,
            first_rate=0.0,
            ramp_from_epoch=1.0,
            ramp_until_epoch=15.0,
            last_rate=1e-7,
        ),
        epochs=20,
        seed=409194,
        precision="16-mixed",
        select="mAP@10",
        initialise=("audio=passt",),
    )


def on(data: DataConfig, name: str, about: str) -> Recipe:
    """Stage 1 on other data."""
    return replace(stage1(), name=name, about=f"salsa-2024-stage1, {about}", data=data)


def stage1_audiocaps() -> Recipe:
    """On AudioCaps, whose clips have 10 s, and judged by it."""
    data = DataConfig(train=(AUDIOCAPS,), validate="audiocaps:val", test="audiocaps:test")
    base = on(data, "salsa-2024-stage1-audiocaps", "AudioCaps alone")
    return replace(base, batches=replace(base.batches, crop_s=10.0))


def stage1_wavcaps() -> Recipe:
    """On WavCaps, judged by Clotho: WavCaps has no split of its own for that."""
    data = DataConfig(train=(WAVCAPS,), excluded=(EXCLUDED,))
    return on(data, "salsa-2024-stage1-wavcaps", "WavCaps alone")


def stage1_all() -> Recipe:
    """On all three."""
    data = DataConfig(train=(CLOTHO, AUDIOCAPS, WAVCAPS), excluded=(EXCLUDED,))
    return on(data, "salsa-2024-stage1-all", "Clotho, AudioCaps and WavCaps")


def stage1_clotho_after_all() -> Recipe:
    """Fine-tuned to Clotho by the loss of stage 1: what stage 2 after `all` is compared with."""
    return replace(
        stage1(),
        name="salsa-2024-stage1-clotho-after-all",
        about="salsa-2024-stage1, fine-tuned to Clotho after all three",
        initialise=("model=salsa-2024-stage1-all",),
    )


def hearing(audio: AudioSide, name: str, weights: str) -> Recipe:
    """Stage 1 with another audio tower, which begins with public weights."""
    base = stage1()
    return replace(
        base,
        name=f"salsa-2024-stage1-{name}",
        about=f"salsa-2024-stage1, with {audio.encoder}, segments joined by {audio.join}",
        model=replace(base.model, audio=audio),
        initialise=(f"audio={weights}",),
    )


def stage1_passt_s10() -> Recipe:
    """PaSST with overlapping patches: 2.5 times as many of them."""
    return hearing(passt("passt_s_p16_s10"), "passt-s10", "passt-s10")


def stage1_passt_20() -> Recipe:
    """PaSST that hears 20 s at a time."""
    return hearing(passt("passt_20"), "passt-20", "passt-20")


def stage1_passt_l() -> Recipe:
    """The light PaSST, with seven of twelve blocks."""
    return hearing(passt("passt_l"), "passt-l", "passt-l")


def stage1_mn40() -> Recipe:
    """EfficientAT's widest MobileNet (3840-d)."""
    return hearing(AudioSide(encoder="mn40"), "mn40", "mn40")


def stage1_atst_frame() -> Recipe:
    """ATST-Frame (768-d)."""
    return hearing(AudioSide(encoder="atst-frame-base"), "atst-frame", "atst-frame")


def stage1_segment_transformer() -> Recipe:
    """A Transformer over the segments in place of their mean."""
    return hearing(replace(passt(), join="transformer"), "segment-transformer", "passt")


def stage2() -> Recipe:
    """Distilled on Clotho, from stage 1 on Clotho; `--teachers` names the teachers' embeddings."""
    return replace(
        stage1(),
        name="salsa-2024-stage2",
        about="DCASE 2024 winner, stage 2: estimated correspondences",
        loss=replace(MULTIPLE_POSITIVES, supervised_weight=0.0, distillation_weight=1.0),
        seed=144272510,
        initialise=("model=salsa-2024-stage1",),
    )


def stage2_after_all() -> Recipe:
    """From stage 1 on all three; it trains on Clotho alone."""
    return replace(
        stage2(),
        name="salsa-2024-stage2-after-all",
        about="salsa-2024-stage2, after stage 1 on Clotho, AudioCaps and WavCaps",
        initialise=("model=salsa-2024-stage1-all",),
    )
