"""Recipes are what was published, number by number, and each of them runs tiny."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import needs
from torch import Tensor
from torch.nn import functional

from earshot.checkpoints import ENCODER_WEIGHTS, TAGGERS
from earshot.encoders.tiny_text import tiny_text_folder
from earshot.model.dual import AudioTower, DualEncoder, build_head
from earshot.recipes import RECIPES, recipe, research_only, tiny
from earshot.recipes.published import ROWS, Published, published
from earshot.recipes.tiny import family_of
from earshot.train.recipe import (
    DataConfig,
    LossConfig,
    Recipe,
    checked,
    overridden,
    recipe_from,
    resolved,
)
from earshot.types import EarshotError

SENTENCES = ("a dog barks", "heavy rain falls on a tin roof", "Two people talk, far away!", "wind")
TEXT_DIMENSIONS = {"roberta-large": 1024, "roberta-base": 768, "all-mpnet-base-v2": 768}
PASST, BEATS = "passt_s_p16_s16", "beats-iter3-plus-as2m-finetuned"
CLOTHO = ("clotho:development",)
ALL = (*CLOTHO, "audiocaps:train", "wavcaps:all")
EXCLUDED = ("dcase2025_task6_excluded_freesound_ids.csv",)
IRIT = {
    "model.audio.frozen": True,
    "model.text.frozen": True,
    "model.text.unit_length": True,
    "model.text.tower.name": "all-mpnet-base-v2",
    "model.text.tower.pooling": "mean",
    "model.audio_head.kind": "tags",
    "model.audio_head.source": "scene",
    "model.audio_head.projected_weight": 0.8,
    "model.audio_head.tag_texts": "names",
    "model.text_head.kind": "layer-norm",
    "model.dimension": 768,
    "loss.kind": "triplet",
    "loss.margin": 0.4,
    "loss.impostors": "random",
    "optimizer.kind": "adam",
    "optimizer.rate": 1e-3,
    "batches.pairs": 32,
    "batches.crop_s": None,
    "epochs": 30,
    "schedule.kind": "plateau",
    "schedule.factor": 0.1,
    "schedule.patience": 5,
    "schedule.threshold": 0.01,
    "data.train": CLOTHO,
}
DCASE2023 = {
    "model.audio.encoder": "cnn14-dcase2023",
    "model.audio.frozen": False,
    "model.audio_head.kind": "unit",
    "model.text.frozen": True,
    "model.text.unit_length": True,
    "model.text.tower.name": "all-mpnet-base-v2",
    "model.text_head.kind": "projection",
    "model.text_head.hidden_layers": 0,
    "model.dimension": 300,
    "model.temperature": 0.07,
    "loss.kind": "other-clips",
    "optimizer.kind": "adam",
    "optimizer.rate": 1e-3,
    "batches.pairs": 32,
    "batches.crop_s": None,
    "epochs": 80,
    "schedule.kind": "plateau",
    "schedule.factor": 0.1,
    "schedule.patience": 5,
    "schedule.threshold": 0.005,
    "schedule.last_rate": 1e-6,
    "schedule.stop_std": 0.001,
    "schedule.stop_epochs": 10,
    "schedule.stop_after": 60,
    "initialise": ("audio=cnn14",),
}
SALSA = {
    "model.audio.encoder": PASST,
    "model.audio.settings": {"patchout_time": 15, "patchout_freq": 2},
    "model.audio.join": "mean",
    "model.audio.frozen": False,
    "model.text.frozen": False,
    "model.text.tower.name": "roberta-large",
    "model.text.tower.pooling": "cls",
    "model.text.tower.max_tokens": 32,
    "model.text.tower.hidden_dropout": 0.2,
    "model.text.tower.attention_dropout": 0.2,
    "model.text.tower.clean_up.lower_case": True,
    "model.text.tower.clean_up.remove_punctuation": True,
    "model.audio_head.kind": "projection",
    "model.audio_head.hidden_layers": 0,
    "model.audio_head.hidden_dimension": 2048,
    "model.dimension": 1024,
    "model.temperature": 0.05,
    "model.train_temperature": False,
    "loss.kind": "multiple-positives",
    "loss.weighting": "cells",
    "loss.supervised_weight": 1.0,
    "loss.distillation_weight": 0.0,
    "optimizer.kind": "adamw",
    "optimizer.rate": 2e-5,
    "optimizer.weight_decay": 0.0,
    "optimizer.audio_encoder": 1.0,
    "optimizer.text_head": 1.0,
    "batches.pairs": 64,
    "batches.crop_s": 30.0,
    "batches.pad_to_crop": True,
    "epochs": 20,
    "schedule.kind": "cosine",
    "schedule.warm_up_epochs": 1.0,
    "schedule.first_rate": 0.0,
    "schedule.ramp_from_epoch": 1.0,
    "schedule.ramp_until_epoch": 15.0,
    "schedule.whole_epochs": False,
    "schedule.last_rate": 1e-7,
    "precision": "16-mixed",
    "select": "mAP@10",
    "seed": 409194,
    "data.train": CLOTHO,
    "data.validate": "clotho:validation",
    "data.test": "clotho:evaluation",
    "initialise": ("audio=passt",),
}
STAGE2 = SALSA | {
    "loss.supervised_weight": 0.0,
    "loss.distillation_weight": 1.0,
    "seed": 144272510,
}
DCASE2025 = SALSA | {
    "model.audio.encoder": BEATS,
    "model.audio.settings": {},
    "model.audio.join": "duration",
    "schedule.first_rate": 1e-7,
    "schedule.ramp_until_epoch": 16.0,
    "compile": True,
    "seed": 13,
    "initialise": ("audio=beats",),
}
PLUS_AUDIOCAPS = {"data.train": ALL[:2], "seed": 492412}
PLUS_WAVCAPS = {"data.train": ALL, "data.excluded": EXCLUDED, "seed": 967251}
VARIANTS_2025 = {
    "": {},
    "-audiocaps": PLUS_AUDIOCAPS,
    "-wavcaps": PLUS_WAVCAPS | {"data.wavcaps_audioset": "all", "data.longest_s": None},
    "-wavcaps-no-audiocaps": PLUS_WAVCAPS | {"data.wavcaps_audioset": "no_audiocaps"},
    "-wavcaps-120s": PLUS_WAVCAPS | {"data.longest_s": 120.0},
    "-small-gpu": {"batches.pairs": 4, "optimizer.rate": 5e-6, "compile": False},
    "-frozen-audio": {"model.audio.frozen": True},
    "-roberta-base": {"model.text.tower.name": "roberta-base"},
    "-trained-temperature": {"model.train_temperature": True},
}
PASST_2025 = {
    "model.audio.encoder": PASST,
    "model.audio.settings": SALSA["model.audio.settings"],
    "initialise": ("audio=passt",),
}
# Written by hand from SYSTEMS.md; the number is that of its section.
SYSTEMS: dict[str, tuple[int, dict[str, object]]] = {
    "irit-2022": (1, IRIT),
    "irit-2022-descriptions": (1, IRIT | {"model.audio_head.tag_texts": "descriptions"}),
    "irit-2022-names-and-descriptions": (
        1,
        IRIT | {"model.audio_head.tag_texts": "names and descriptions"},
    ),
    "irit-2022-logits": (1, IRIT | {"model.audio_head.source": "logits"}),
    "irit-2022-audiocaps": (1, IRIT | {"data.train": ALL[:2]}),
    "dcase2023-baseline": (2, DCASE2023),
    "salsa-2024-stage1": (3, SALSA),
    "salsa-2024-stage1-audiocaps": (
        3,
        SALSA
        | {
            "data.train": ("audiocaps:train",),
            "data.validate": "audiocaps:val",
            "data.test": "audiocaps:test",
            "batches.crop_s": 10.0,
        },
    ),
    "salsa-2024-stage1-wavcaps": (
        3,
        SALSA | {"data.train": ("wavcaps:all",), "data.excluded": EXCLUDED},
    ),
    "salsa-2024-stage1-all": (3, SALSA | {"data.train": ALL, "data.excluded": EXCLUDED}),
    "salsa-2024-stage1-clotho-after-all": (
        3,
        SALSA | {"initialise": ("model=salsa-2024-stage1-all",)},
    ),
    "salsa-2024-stage1-passt-s10": (
        3,
        SALSA | {"model.audio.encoder": "passt_s_p16_s10", "initialise": ("audio=passt-s10",)},
    ),
    "salsa-2024-stage1-passt-20": (
        3,
        SALSA | {"model.audio.encoder": "passt_20", "initialise": ("audio=passt-20",)},
    ),
    "salsa-2024-stage1-passt-l": (
        3,
        SALSA | {"model.audio.encoder": "passt_l", "initialise": ("audio=passt-l",)},
    ),
    "salsa-2024-stage1-mn40": (
        3,
        SALSA
        | {
            "model.audio.encoder": "mn40",
            "model.audio.settings": {},
            "initialise": ("audio=mn40",),
        },
    ),
    "salsa-2024-stage1-atst-frame": (
        3,
        SALSA
        | {
            "model.audio.encoder": "atst-frame-base",
            "model.audio.settings": {},
            "initialise": ("audio=atst-frame",),
        },
    ),
    "salsa-2024-stage1-segment-transformer": (3, SALSA | {"model.audio.join": "transformer"}),
    "salsa-2024-stage2": (4, STAGE2 | {"initialise": ("model=salsa-2024-stage1",)}),
    "salsa-2024-stage2-after-all": (
        4,
        STAGE2 | {"initialise": ("model=salsa-2024-stage1-all",)},
    ),
} | {
    f"dcase2025-baseline{tower}{suffix}": (5, DCASE2025 | heard | numbers)
    for tower, heard in (("", {}), ("-passt", PASST_2025))
    for suffix, numbers in VARIANTS_2025.items()
}
PUBLISHED = [name for name in RECIPES if name != "demo"]


@pytest.fixture(params=PUBLISHED)
def named(request: pytest.FixtureRequest) -> Recipe:
    return recipe(request.param)


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text_folder(tmp_path_factory.mktemp("text") / "tiny", SENTENCES)


def test_every_row_of_systems_is_there_and_no_other() -> None:
    assert set(PUBLISHED) == set(SYSTEMS)


def test_numbers_are_those_of_systems(named: Recipe) -> None:
    section, numbers = SYSTEMS[named.name]
    for path, expected in numbers.items():
        value: object = named
        for part in path.split("."):
            value = getattr(value, part)
        assert value == expected, f"SYSTEMS.md section {section}: {named.name} {path}"


def test_a_recipe_is_called_what_it_is(named: Recipe) -> None:
    assert recipe(named.name) == named
    assert named.about


def test_recipes_differ() -> None:
    bare = {resolved(replace(make(), name="x", about="")) for make in RECIPES.values()}
    assert len(bare) == len(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_json_and_back(name: str) -> None:
    assert recipe_from(resolved(recipe(name))) == recipe(name)


def test_weights_to_begin_with_are_known(named: Recipe) -> None:
    """Of the encoder's own family and preset, and each run begins with some."""
    assert len(named.initialise) == 1
    part, _, source = named.initialise[0].partition("=")
    if part == "model":
        begun = recipe(source)
        assert begun.model == named.model
        return
    assert part == "audio"
    encoder = named.model.audio.encoder
    if source in TAGGERS:
        assert family_of(TAGGERS[source].encoder) == family_of(encoder)
        assert encoder in (TAGGERS[source].encoder, "cnn14-dcase2023")
    else:
        assert source in ENCODER_WEIGHTS


def test_towers_and_heads_fit_at_full_size(named: Recipe) -> None:
    """Without memory for their weights; the text tower's width is that of its public settings."""
    model = named.model
    with torch.device("meta"):
        tower = AudioTower(model.audio)
        text_head = build_head(
            model.text_head, TEXT_DIMENSIONS[model.text.tower.name], model.dimension
        )
        if model.audio_head.kind != "tags":
            build_head(model.audio_head, tower.dimension, model.dimension)
    assert sum(weight.numel() for weight in tower.parameters()) > 40e6
    weights = sum(weight.numel() for weight in text_head.parameters())
    width = TEXT_DIMENSIONS[model.text.tower.name]
    affine = (width + 1) * model.dimension
    assert weights == (affine if model.text_head.kind == "projection" else 0)


def test_widths_of_the_alternatives() -> None:
    """SYSTEMS.md section 3: EfficientAT mn40 has 3840 dimensions, ATST-Frame 768."""
    with torch.device("meta"):
        for name, width in (("mn40", 3840), ("atst-frame", 768), ("passt-l", 768)):
            tower = AudioTower(recipe(f"salsa-2024-stage1-{name}").model.audio)
            assert tower.dimension == width


def plain_loss(loss: LossConfig, scores: Tensor) -> Tensor:
    """A batch of different clips: what each kind of loss comes to, written out."""
    size = len(scores)
    diagonal = torch.arange(size)
    if loss.kind == "triplet":
        impostors = diagonal.roll(1)
        own = scores.diagonal()
        caption = (loss.margin + scores[diagonal, impostors] - own).clamp_min(0)
        clip = (loss.margin + scores[impostors, diagonal] - own).clamp_min(0)
        return (caption + clip).mean()
    pairs = functional.cross_entropy(scores, diagonal)
    pairs = pairs + functional.cross_entropy(scores.T, diagonal)
    teacher = torch.linspace(-1, 1, size * size).view(size, size)
    soft = functional.cross_entropy(scores, teacher.softmax(1))
    soft = soft + functional.cross_entropy(scores.T, teacher.T.softmax(1))
    return loss.supervised_weight * pairs + loss.distillation_weight * soft


def test_tiny_recipes_learn(named: Recipe, text_folder: Path) -> None:
    small = tiny(named, text_folder)
    torch.manual_seed(7)
    dual = DualEncoder(small.model, text_folder)
    dual.tau.requires_grad_(small.model.train_temperature)
    rate_hz = dual.audio.sample_rate_hz
    lengths = torch.tensor([round(s * rate_hz) for s in (1.0, 2.5, 0.6, 11.0)])
    waves = torch.randn(4, int(lengths.max())) * 0.1
    waves *= torch.arange(waves.shape[1]) < lengths[:, None]
    audio, text = dual(waves, lengths, dual.text.tokenize(SENTENCES))
    assert audio.shape == text.shape == (4, small.model.dimension)
    loss = plain_loss(small.loss, audio @ text.T / dual.temperature)
    loss.backward()
    assert loss.isfinite()
    learning = {
        part: any(weight.grad is not None and weight.grad.any() for weight in module.parameters())
        for part, module in dual.named_children()
    }
    assert learning == {
        "audio": not named.model.audio.frozen,
        "text": not named.model.text.frozen,
        "audio_head": named.model.audio_head.kind != "unit",
        "text_head": named.model.text_head.kind == "projection",
    }
    assert (dual.tau.grad is not None) == named.model.train_temperature


def test_tiny_keeps_what_makes_a_recipe(named: Recipe, text_folder: Path) -> None:
    small = tiny(named, text_folder)
    assert (small.batches.pairs, small.epochs, small.batches.workers) == (8, 2, 0)
    assert (small.precision, small.compile, small.initialise) == ("32-true", False, ())
    for part in ("loss", "optimizer", "schedule", "data", "seed", "select", "ema", "chunk"):
        assert getattr(small, part) == getattr(named, part)
    ours, theirs = small.model, named.model
    assert family_of(ours.audio.encoder) == family_of(theirs.audio.encoder)
    assert ours.audio.join == theirs.audio.join
    assert ours.text.tower.pooling == theirs.text.tower.pooling
    assert ours.audio_head.kind == theirs.audio_head.kind
    assert ours.text_head.kind == theirs.text_head.kind
    assert ours.temperature == theirs.temperature
    assert recipe_from(resolved(small)) == small
    assert tiny(small, text_folder) == small


def test_a_name_that_is_nearly_right() -> None:
    with pytest.raises(EarshotError, match="did you mean salsa-2024-stage1\\?"):
        recipe("salsa-2024-stage-1")
    with pytest.raises(EarshotError, match="no recipe 'qqq'; there are irit-2022,"):
        recipe("qqq")


def test_data_are_named_by_kind_and_split() -> None:
    with pytest.raises(EarshotError, match="data 'clotho'; they are named KIND:SPLIT"):
        DataConfig(train=("clotho",))
    with pytest.raises(EarshotError, match="'cloto:development'.*where KIND is clotho, audiocaps"):
        DataConfig(validate="cloto:development")
    with pytest.raises(EarshotError, match=r"data\.train is empty"):
        DataConfig(train=())
    with pytest.raises(EarshotError, match="^data 'audiocaps'; they are named KIND:SPLIT"):
        overridden(recipe("irit-2022"), ['data.train=["audiocaps"]'])
    assert DataConfig(train=("soundscapes:",)).train == ("soundscapes:",)


def test_any_number_can_be_set_from_outside() -> None:
    changed = overridden(
        recipe("salsa-2024-stage1"),
        ["model.audio.settings.patchout_time=10", "model.audio_head.dropout=0.1"],
    )
    assert changed.model.audio.settings == {"patchout_time": 10, "patchout_freq": 2}
    assert changed.model.audio_head.dropout == 0.1
    assert checked(json.loads(resolved(changed))) == changed


def test_what_is_for_research_only() -> None:
    """AudioCaps and WavCaps are, and so is what begins with a model of theirs."""
    free = {name for name in RECIPES if not research_only(recipe(name))}
    marked = ("audiocaps", "wavcaps", "all")
    assert free == {name for name in RECIPES if not any(f"-{mark}" in name for mark in marked)}
    assert research_only(recipe("salsa-2024-stage2-after-all"))


def test_published_rows_are_of_recipes() -> None:
    assert {name for row in ROWS for name in row.recipes} <= set(RECIPES)
    assert [row.row for row in published("salsa-2024-stage1")] == ["salsa stage 1, Clotho only"]
    assert published("irit-2022") == ()


def test_published_figures_are_those_of_systems() -> None:
    """Row by row of the table of reference results."""
    text = needs("SYSTEMS.md").read_text(encoding="utf-8")
    lines = text.partition("## Reference results")[2].partition("\nThe 2025 rows")[0].splitlines()
    cells = [[cell.strip() for cell in line.split("|")[2:-1]] for line in lines if "|" in line][2:]
    assert len(cells) == len(ROWS)
    for row, expected in zip(ROWS, cells, strict=True):
        several = [row.several.get(name) for name in ("mAP@16", "mAP@10")]
        alone = [row.single.get(name) for name in ("mAP@10", "R@1", "R@5", "R@10")]
        read = [float(cell.removeprefix("≈")) if cell else None for cell in expected]
        assert [*several, *alone] == read, row.row


def test_the_page_has_every_recipe_with_its_numbers() -> None:
    text = (Path(__file__).parent.parent / "docs" / "recipes.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    told = {row[1].strip("`"): row for row in rows if len(row) == 10}
    for name in RECIPES:
        run, row = recipe(name), told[name]
        assert (int(row[4]), float(row[5]), int(row[6])) == (
            run.batches.pairs,
            run.optimizer.rate,
            run.seed,
        )
        assert ("†" in row[3]) == research_only(run)
        expected = [figure for known in published(name) for figure in figures(known)]
        printed = row[7].removeprefix("≈ ").split(" / ") if row[7] else []
        assert [None if cell == "–" else float(cell) for cell in printed] == expected


def figures(row: Published) -> list[float | None]:
    single = [row.single.get(name) for name in ("mAP@10", "R@1", "R@5", "R@10")]
    return [row.several.get("mAP@16"), *single]
