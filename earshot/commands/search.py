"""`earshot search`: the recordings, and the seconds in them, that answer a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earshot.commands import Json, print_json
from earshot.types import EarshotError, Question

if TYPE_CHECKING:
    from earshot.types import Answer, Hit


class By(StrEnum):
    """What counts of a recording."""

    both = "both"
    sound = "sound"
    words = "words"


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(search)


def search(
    index: Annotated[str, typer.Argument(help="The index to search in.")],
    query: Annotated[str | None, typer.Argument(help="What to listen for.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits.")] = 10,
    without: Annotated[
        list[str] | None, typer.Option("--not", help="What must not be heard; repeatable.")
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(help="A recording to search by, or a part: FILE@START-END; repeatable."),
    ] = None,
    unlike: Annotated[
        list[str] | None, typer.Option(help="A recording that hits must not be like; repeatable.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="A filter such as 'duration_s < 10'; repeatable.")
    ] = None,
    by: Annotated[
        By, typer.Option(help="By sound, by the words of names and tags, or by both.")
    ] = By.both,
    queries: Annotated[
        Path | None, typer.Option(help="Ask many: a CSV file with a column `query`.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Where the index's model is now, if its folder was moved.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the recordings, and the seconds in them, that fit a description or an example."""
    from earshot.conditions import parse_condition
    from earshot.console import print_hits
    from earshot.search import Searcher, read_example, read_queries

    common = Question(
        without=tuple(without or ()),
        like=tuple(map(read_example, like or ())),
        unlike=tuple(map(read_example, unlike or ())),
        where=tuple(map(parse_condition, where or ())),
        by=by.value,
    )
    if (without or unlike) and not like and query is None and queries is None:
        raise EarshotError(
            "--not and --unlike say what must not be heard; say also what to listen for: a query "
            "in quotes, --queries FILE.csv or --like FILE"
        )
    texts = asked(query, read_queries(queries) if queries else None, by_example=bool(like))
    answers = Searcher.open(index, model).ask_many(
        [replace(common, text=text) for text in texts], k
    )
    if as_json:
        print_json(answers_json(texts, answers))
    else:
        print_hits(texts, answers)


def asked(query: str | None, queries: list[str] | None, *, by_example: bool) -> list[str]:
    """The texts of a search, given one way or the other; none is needed beside an example.

    Raises:
        EarshotError: given both ways, in neither, or empty.
    """
    if query is not None and not query.strip():
        raise EarshotError("the query is empty; say what to listen for: 'dog barking'")
    if query is not None and queries is not None:
        raise EarshotError("give either a query in quotes or --queries FILE.csv")
    if query is None and queries is None and not by_example:
        raise EarshotError("give either a query in quotes or --queries FILE.csv, or --like FILE")
    return [query or ""] if queries is None else queries


def answers_json(texts: Sequence[str], answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Answers as the documented JSON."""
    return [
        {"query": text, "found": answer.found, "hits": [hit_json(hit) for hit in answer.hits]}
        for text, answer in zip(texts, answers, strict=True)
    ]


def hit_json(hit: Hit) -> dict[str, Any]:
    """A hit as the documented JSON."""
    return {
        "path": hit.path,
        "score": round(hit.score, 6),
        "start_s": round(hit.start_s, 3),
        "end_s": round(hit.end_s, 3),
        "probability": None if hit.probability is None else round(hit.probability, 4),
        "sound": None if hit.sound is None else round(hit.sound, 6),
        "words": [
            {"asked": match.asked, "found": match.found, "field": match.field}
            for match in hit.words
        ],
        "moments": [
            {
                "start_s": round(moment.start_s, 3),
                "end_s": round(moment.end_s, 3),
                "score": round(moment.score, 6),
            }
            for moment in hit.moments
        ],
        "copies": list(hit.copies),
    }
