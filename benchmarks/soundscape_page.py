"""A page of spectrograms, one small log-mel panel for each synthetic source.

python benchmarks/soundscape_page.py
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image
from soundscape_tags import variation

from earshot.datasets.soundscape.sources import SOURCES
from earshot.datasets.soundscape.synth import RATE_HZ

PAGE = Path(__file__).parent.parent / "docs" / "soundscapes.png"
COLUMNS = 10
WINDOW, HOP, BANDS = 1024, 640, 72
LOW_HZ, HIGH_HZ = 40.0, 15_000.0
RANGE_DB = 65.0
# A palette, since the page is to be small.
COLOURS = 40


def mel(hz: np.ndarray | float) -> np.ndarray:
    """Hertz to mel (O'Shaughnessy)."""
    return np.asarray(2595 * np.log10(1 + np.asarray(hz) / 700))


def log_mel(wave: np.ndarray) -> np.ndarray:
    """Bands by frames, in dB below the loudest."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW), 4 * WINDOW)) ** 2
    place = mel(np.fft.rfftfreq(4 * WINDOW, 1 / RATE_HZ))
    edges = np.linspace(mel(LOW_HZ), mel(HIGH_HZ), BANDS + 2)
    rise = (place[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - place[:, None]) / (edges[2:] - edges[1:-1])
    bands = power @ np.clip(np.minimum(rise, fall), 0, None)
    level = 10 * np.log10(bands.T + 1e-12)
    return np.asarray(np.maximum(level - level.max(), -RANGE_DB))


def main() -> None:
    rows = -(-len(SOURCES) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(1.5 * COLUMNS, 1.15 * rows))
    for axis in axes.ravel():
        axis.axis("off")
    for axis, (name, source) in zip(axes.ravel(), SOURCES.items(), strict=False):
        picture = log_mel(variation(source, 3))
        axis.imshow(picture, origin="lower", aspect="auto", cmap="magma")
        seconds = picture.shape[1] * HOP / RATE_HZ
        axis.set_title(f"{name.replace('_', ' ')} {seconds:.1f} s", fontsize=7, pad=2)
    figure.subplots_adjust(left=0.004, right=0.996, top=0.97, bottom=0.005, wspace=0.03, hspace=0.2)
    PAGE.parent.mkdir(exist_ok=True)
    drawn = BytesIO()
    figure.savefig(drawn, dpi=72)
    with Image.open(drawn) as page:
        page.convert("RGB").quantize(COLOURS).save(PAGE, optimize=True)
    print(f"{PAGE}: {PAGE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
