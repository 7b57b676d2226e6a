"""How pairs are drawn: the settings of batches."""

from __future__ import annotations

from dataclasses import dataclass

from earshot.types import EarshotError, require_above, require_least


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How pairs are drawn.

    `pairs` make a batch, over all processes together. Clips longer than `crop_s` give a random part
    of that length (None: the whole clip), drawn anew each epoch; batches are padded to their
    longest clip, or to `crop_s` with `pad_to_crop`. `workers` processes decode.
    """

    pairs: int = 64
    crop_s: float | None = 30.0
    pad_to_crop: bool = False
    workers: int = 2
    captions_per_clip: int | None = None
    """How many of a clip's captions an epoch draws; None: all of them."""

    def __post_init__(self) -> None:
        require_least(1, {"pairs": self.pairs, "captions_per_clip": self.captions_per_clip})
        require_above(0, {"crop_s": self.crop_s})
        if self.pad_to_crop and self.crop_s is None:
            raise EarshotError("pad_to_crop needs a crop_s to pad to; set it, or leave padding off")
        if self.workers < 0:
            raise EarshotError(f"workers is {self.workers}; 0 decodes in the process itself")
