"""The model cards of `sounds` and `pocket`, from their recipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ABOUT = {
    "sounds": "A head on the public tagger mn04 (Schmid et al. 2023, MIT), whose weights are\n"
    "fetched; this folder holds the head alone.",
    "pocket": "A small tower, trained by this project from random weights on the recordings in\n"
    "`../recordings.csv` to hear what the tagger mn04 (Schmid et al. 2023, MIT) hears, with a\n"
    "head like that of `sounds`. Nothing has to be fetched for it but the sentence encoder.",
}


def card(name: str, recipe: Mapping[str, Any]) -> str:
    """What it is, what it was trained on, how good it is, what it is not."""
    licences = ", ".join(f"{count} x {licence}" for licence, count in recipe["licences"].items())
    lines = [
        f"# {name}",
        "",
        ABOUT[name],
        "",
        f"Trained on {recipe['recordings']} recordings ({licences}), listed with",
        "sources in `../recordings.csv`. Settings and seeds are in `recipe.json`;",
        "`benchmarks/train_sounds.py` makes all of it again, but for rounding.",
        "",
        "mAP on the test part, which shares no recording, series, caption or contributor's label",
        "with what was trained on; 95 % bootstrap intervals over queries:",
        "",
        "| | queries | mAP | over `tags` |",
        "|---|---|---|---|",
    ]
    for part, row in recipe["test"].items():
        mean, low, high = row["mAP"]
        gain, least, most = row["over tags"]
        lines.append(
            f"| {part} | {row['queries']} | {mean:.3f} [{low:.3f}, {high:.3f}] "
            f"| {gain:+.3f} [{least:+.3f}, {most:+.3f}] |"
        )
    if "draws" in recipe:
        lines += [
            "",
            "mAP of `tags` / this model for five draws of the test:",
            "",
        ]
        lines += [
            f"- draw {row['seed']}: "
            + ", ".join(f"{k} {v[0]:.3f} / {v[1]:.3f}" for k, v in row.items() if k != "seed")
            for row in recipe["draws"]
        ]
    lines += [
        "",
        "Unseen labels are those of which neither recordings nor words were trained on. Most",
        "recordings are short, close and clean; what is said here of them does not hold for noisy",
        "or long ones. Speech is not transcribed, music is hardly told apart.",
    ]
    return "\n".join(lines) + "\n"
