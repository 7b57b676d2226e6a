"""Index a folder of recordings in memory and search it: python examples/search_folder.py FOLDER."""

import sys

from earshot.library import index
from earshot.model import load, model_manifest
from earshot.search import Searcher
from earshot.store import create_store


def main(folder: str, query: str = "a dog barking") -> None:
    model = load("tags")
    store = create_store(":memory:", model_manifest(model))
    index([folder], store, model)
    for hit in Searcher(model, store).search(query, k=5):
        print(f"{hit.score:.3f}  {hit.start_s:6.1f}–{hit.end_s:6.1f} s  {hit.path}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("usage: search_folder.py FOLDER [QUERY]")
    main(*sys.argv[1:])
