"""The main job in a minute: soundscapes made here, or a folder of yours, then searched."""

from __future__ import annotations

from pathlib import Path

from earshot.console import print_hits, print_summary, progress_bar
from earshot.datasets.soundscape import write_soundscapes
from earshot.library import index, open_or_create
from earshot.search import Searcher

HERE = Path("earshot-demo")
SCENES = 40
QUERIES = (
    "an ambulance siren",
    "a dog barking",
    "church bells",
    "a phone is ringing",
    "rain",
)


def run(recordings: Path | None) -> None:
    """Index and search recordings, or soundscapes under names that give nothing away.

    Raises:
        EarshotError: the model's weights are not to be had.
    """
    uri = str(HERE / ("index" if recordings is None else "library"))
    store, model = open_or_create(uri, None)
    sounds = recordings or HERE / "sounds"
    if recordings is None:
        write_soundscapes(sounds, split="validation", scenes=SCENES)
    with progress_bar("indexing") as report:
        summary = index([sounds], store, model, report=report)
    print_summary(summary, uri, model.name)
    searcher = Searcher(model, store)
    for query in QUERIES:
        print(f'\nearshot search {uri} "{query}" -k 3')
        print_hits([query], [searcher.search(query, 3)])
    if recordings is None:
        print(f"\nwhat is in them: {sounds / 'captions.csv'}")
