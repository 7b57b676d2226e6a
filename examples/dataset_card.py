"""Describe a folder of recordings and captions: python examples/dataset_card.py FOLDER."""

import sys

from earshot.datasets import load
from earshot.datasets.describe import describe, with_durations


def main(folder: str) -> None:
    told = describe(with_durations(load("", folder)))
    print(f"# {told.dataset}\n\nLicence: {told.licence or 'unknown'}. Source: {told.source}\n")
    print(f"- {told.clips} clips, {told.duration_s.total / 3600:.2f} h, {told.captions} captions")
    print(f"- {told.duration_s.minimum:.1f} to {told.duration_s.maximum:.1f} s a clip")
    print(f"- {told.words_per_caption.mean:.1f} words a caption, {told.vocabulary} different ones")
    print(f"- captions that occur more than once: {told.duplicates.captions}")
    print(f"- most frequent: {', '.join(list(told.top_words)[:10])}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("usage: dataset_card.py FOLDER")
    main(sys.argv[1])
