"""The main job in a minute: soundscapes made here, or a folder of yours, then searched."""

from __future__ import annotations

from pathlib import Path

from earshot.console import print_hits, print_summary, progress_bar
from earshot.datasets.soundscape import describe_scenes, write_soundscapes
from earshot.library import index, open_or_create
from earshot.search import Searcher

HERE = Path("earshot-demo")
SPLIT, SCENES = "validation", 120
QUERIES = (
    "an ambulance siren",
    "a baby is crying",
    "church bells",
    "a phone is ringing",
    "an owl at night",
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
        write_soundscapes(sounds, split=SPLIT, scenes=SCENES)
    with progress_bar("indexing") as report:
        summary = index([sounds], store, model, report=report)
    print_summary(summary, uri, model.name)
    searcher = Searcher(model, store)
    made_of = contents() if recordings is None else {}
    for query in QUERIES:
        print(f'\nearshot search {uri} "{query}" -k 3')
        hits = searcher.search(query, 3)
        print_hits([query], [hits])
        if made_of:
            print("     made of " + " | ".join(made_of[Path(hit.path).stem] for hit in hits))


def contents() -> dict[str, str]:
    """What each scene was made of, by its name."""
    return {
        scene.id: " + ".join(event.source.replace("_", " ") for event in scene.events)
        for scene in describe_scenes(SPLIT, SCENES, 0)
    }
