"""Search an index with exclusion and filters: python examples/search_filtered.py INDEX."""

import sys

from earshot.conditions import parse_condition
from earshot.search import Searcher
from earshot.types import Question


def main(index: str, text: str = "a rooster", without: str = "speech") -> None:
    where = (parse_condition("duration_s < 60"), parse_condition("sample_rate_hz >= 16000"))
    question = Question(text=text, without=(without,), where=where)
    answer = Searcher.open(index).ask(question, k=5)
    print("found" if answer.found else "nothing sounds like that; the nearest:")
    for hit in answer.hits:
        words = ", ".join(f"{match.field} {match.found!r}" for match in hit.words)
        print(f"{hit.score:.3f}  {hit.start_s:6.1f}–{hit.end_s:6.1f} s  {hit.path}  {words}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("usage: search_filtered.py INDEX [TEXT [WITHOUT]]")
    main(*sys.argv[1:])
