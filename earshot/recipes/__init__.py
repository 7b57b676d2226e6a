"""Recipes of published systems, and the demo's: one function for each, by name (docs/recipes.md).

A recipe says everything of a training run; `replace` and `--set` vary it.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from earshot.datasets import audiocaps, wavcaps
from earshot.recipes import dcase2023, dcase2025, irit, salsa
from earshot.recipes.dcase2025 import beats_baseline as beats
from earshot.recipes.dcase2025 import of
from earshot.recipes.dcase2025 import passt_baseline as passt
from earshot.recipes.demo import demo
from earshot.recipes.tiny import on_what_is_there, tiny
from earshot.train.recipe import Recipe
from earshot.types import EarshotError

__all__ = ["RECIPES", "on_what_is_there", "recipe", "research_only", "tiny"]

RECIPES: dict[str, Callable[[], Recipe]] = {
    "irit-2022": irit.irit_2022,
    "irit-2022-descriptions": irit.irit_2022_descriptions,
    "irit-2022-names-and-descriptions": irit.irit_2022_names_and_descriptions,
    "irit-2022-logits": irit.irit_2022_logits,
    "irit-2022-audiocaps": irit.irit_2022_audiocaps,
    "dcase2023-baseline": dcase2023.dcase2023_baseline,
    "salsa-2024-stage1": salsa.stage1,
    "salsa-2024-stage1-audiocaps": salsa.stage1_audiocaps,
    "salsa-2024-stage1-wavcaps": salsa.stage1_wavcaps,
    "salsa-2024-stage1-all": salsa.stage1_all,
    "salsa-2024-stage1-clotho-after-all": salsa.stage1_clotho_after_all,
    "salsa-2024-stage1-passt-s10": salsa.stage1_passt_s10,
    "salsa-2024-stage1-passt-20": salsa.stage1_passt_20,
    "salsa-2024-stage1-passt-l": salsa.stage1_passt_l,
    "salsa-2024-stage1-mn40": salsa.stage1_mn40,
    "salsa-2024-stage1-atst-frame": salsa.stage1_atst_frame,
    "salsa-2024-stage1-segment-transformer": salsa.stage1_segment_transformer,
    "salsa-2024-stage2": salsa.stage2,
    "salsa-2024-stage2-after-all": salsa.stage2_after_all,
    "dcase2025-baseline": beats,
    "dcase2025-baseline-audiocaps": of(dcase2025.plus_audiocaps, beats),
    "dcase2025-baseline-wavcaps": of(dcase2025.plus_wavcaps, beats),
    "dcase2025-baseline-wavcaps-no-audiocaps": of(dcase2025.wavcaps_no_audiocaps, beats),
    "dcase2025-baseline-wavcaps-120s": of(dcase2025.wavcaps_120s, beats),
    "dcase2025-baseline-small-gpu": of(dcase2025.small_gpu, beats),
    "dcase2025-baseline-frozen-audio": of(dcase2025.frozen_audio, beats),
    "dcase2025-baseline-roberta-base": of(dcase2025.roberta_base, beats),
    "dcase2025-baseline-trained-temperature": of(dcase2025.trained_temperature, beats),
    "dcase2025-baseline-passt": passt,
    "dcase2025-baseline-passt-audiocaps": of(dcase2025.plus_audiocaps, passt),
    "dcase2025-baseline-passt-wavcaps": of(dcase2025.plus_wavcaps, passt),
    "dcase2025-baseline-passt-wavcaps-no-audiocaps": of(dcase2025.wavcaps_no_audiocaps, passt),
    "dcase2025-baseline-passt-wavcaps-120s": of(dcase2025.wavcaps_120s, passt),
    "dcase2025-baseline-passt-small-gpu": of(dcase2025.small_gpu, passt),
    "dcase2025-baseline-passt-frozen-audio": of(dcase2025.frozen_audio, passt),
    "dcase2025-baseline-passt-roberta-base": of(dcase2025.roberta_base, passt),
    "dcase2025-baseline-passt-trained-temperature": of(dcase2025.trained_temperature, passt),
    "demo": demo,
}

RESEARCH_ONLY = {card.name for card in (audiocaps.CARD, wavcaps.CARD) if card.research_only}


def recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        EarshotError: an unknown name; the nearest one is named.
    """
    if name not in RECIPES:
        close = get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise EarshotError(f"no recipe {name!r}; {hint}there are {', '.join(RECIPES)}")
    return RECIPES[name]()


def research_only(run: Recipe) -> bool:
    """Whether what it trains may be used for research alone, as the data of it may.

    It looks at the recipe that training begins with as well, where it is named; of a model's folder
    that stands in its place the card tells.
    """
    if any(entry.partition(":")[0] in RESEARCH_ONLY for entry in run.data.train):
        return True
    begun = [source.partition("=")[2] for source in run.initialise if source.startswith("model=")]
    return any(research_only(recipe(name)) for name in begun if name in RECIPES)
