"""From a question to what the store is asked: vectors of what is wanted and excluded, and words."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np

from earshot.conditions import check_condition
from earshot.search.examples import example_vectors, stored_paths
from earshot.search.phrases import Asked, take_apart
from earshot.search.scoring import DISLIKE, DISLIKED_SHARE, EXCLUSION, Parts
from earshot.search.sentences import Sentences
from earshot.store import is_storable
from earshot.store.checks import unit_queries
from earshot.store.terms import says
from earshot.types import Condition, EarshotError, Model, Question, Store

# Files among which a name is looked for that reads like an exclusion.
MOST_NAMED = 16
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """A question as the store is asked it.

    `wanted` (W, D) and `excluded` (X, D) are unit vectors, `exclusion` X weights; none are wanted
    where words alone count; `sentence` says that the first is a whole sentence, the next its
    phrases. `words` is empty where they do not count. `hidden` are the paths that are no answers.
    """

    wanted: np.ndarray
    excluded: np.ndarray
    exclusion: tuple[float, ...] = ()
    sentence: bool = False
    words: str = ""
    where: tuple[Condition, ...] = ()
    hidden: frozenset[str] = frozenset()

    @property
    def vectors(self) -> np.ndarray:
        """(W + X, D), the wanted ones first."""
        return np.concatenate([self.wanted, self.excluded])

    @property
    def parts(self) -> Parts:
        """What the rows of `vectors` are."""
        return Parts(wanted=len(self.wanted), exclusion=self.exclusion, sentence=self.sentence)


def plans_of(
    questions: Sequence[Question], model: Model, sentences: Sentences, store: Store
) -> list[Plan | EarshotError]:
    """The plans of questions; their sentences are embedded together.

    In the place of a question that asks for nothing, has an empty text, an unusable example or a
    senseless condition stands what is wrong with it: its neighbours are answered.
    """
    taken = [attempted(asked_of, question, store) for question in questions]
    vectors = sentences(
        text
        for question, one in zip(questions, taken, strict=True)
        if isinstance(one, Asked)
        for text in (*one.sounds, *one.without, *question.without)
    )
    return [
        attempted(plan_of, question, one, vectors, model, store) if isinstance(one, Asked) else one
        for question, one in zip(questions, taken, strict=True)
    ]


def attempted(
    work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result | EarshotError:
    """What a function gives, or what it says is wrong."""
    try:
        return work(*args, **kwargs)
    except EarshotError as error:
        return error


def asked_of(question: Question, store: Store) -> Asked:
    """What a question's text asks for, taken apart unless words alone count.

    What only rules out ("no parking sign") may be the name of a recording: then it is that.

    Raises:
        EarshotError: it asks for nothing.
    """
    for text in (question.text, *question.without) if question.text else question.without:
        require_text(text)
    if question.by == "words":
        if question.like or question.unlike or question.without:
            raise EarshotError(
                "a search by words knows names and tags alone: examples and what must not be "
                "heard need a search by sound or both"
            )
        require_text(question.text)
        return Asked(text=question.text)
    asked = take_apart(question.text) if question.text else Asked(text="")
    if not asked.text and not question.like:
        if not (question.without or question.unlike or asked.without):
            require_text(question.text)
        if question.by == "both" and is_name(question, store):
            return Asked(text=question.text)
        raise EarshotError(
            "the question only says what must not be heard; say also what to listen for, or give "
            "an example of it (to look for these very words in names, search by words)"
        )
    return asked


def is_name(question: Question, store: Store) -> bool:
    """Whether a recording says the very words of a question, which asks for nothing beside them."""
    if not question.text or question.without or question.unlike:
        return False
    hits = store.search_words(question.text, MOST_NAMED, question.where)
    files = store.segments([hit.path for hit in hits]).values()
    return any(says(file.record, question.text) for file in files)


def plan_of(
    question: Question,
    asked: Asked,
    known: Mapping[str, np.ndarray],
    model: Model,
    store: Store,
) -> Plan:
    """The plan of one question whose sentences' vectors are known.

    Raises:
        EarshotError: an unusable example, a senseless condition.
    """
    for condition in question.where:
        check_condition(condition)
    liked = example_vectors(question.like, model, store)
    disliked = example_vectors(question.unlike, model, store)
    wanted = [known[text] for text in asked.sounds]
    excluded = [known[text] for text in (*question.without, *asked.without)]
    weights = [EXCLUSION] * len(excluded)
    if len(liked):
        wanted.append(likeness(liked, disliked))
    else:
        excluded, weights = [*excluded, *disliked], [*weights, *[DISLIKE] * len(disliked)]
    examples = (*question.like, *question.unlike)
    return Plan(
        wanted=stacked(wanted, model.dimension),
        excluded=stacked(excluded, model.dimension),
        exclusion=tuple(weights),
        sentence=len(asked.phrases) > 1,
        words="" if question.by == "sound" else asked.text,
        where=question.where,
        hidden=frozenset(path for example in examples for path in stored_paths(example)),
    )


def likeness(liked: np.ndarray, disliked: np.ndarray) -> np.ndarray:
    """One vector (D,) for liked and disliked examples (N, D) each, as Rocchio's feedback has it."""
    vector: np.ndarray = liked.mean(0)
    if len(disliked):
        vector = vector - DISLIKED_SHARE * disliked.mean(0)
    return vector


def stacked(vectors: Sequence[np.ndarray], dimension: int) -> np.ndarray:
    """Vectors as unit vectors (N, D) float32, N = 0 included.

    Raises:
        EarshotError: one that is zero: liked and disliked examples that cancel out.
    """
    rows = np.asarray(vectors, dtype=np.float32).reshape(len(vectors), dimension)
    return unit_queries(rows, dimension)


def require_text(query: str) -> None:
    """Refuse a query that says nothing, or holds bytes that are no text.

    Raises:
        EarshotError: with the query.
    """
    if not query.strip() or not is_storable(query):
        raise EarshotError(
            f"a query is empty or no text ({ascii(query)}); say what to listen for: 'dog barking'"
        )


def read_queries(path: Path) -> list[str]:
    """The column `query` of a CSV file.

    Raises:
        EarshotError: no such file, column or row.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise EarshotError(
            f"cannot read {path}: {reason}; give a CSV file with a column `query`"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise EarshotError(f"cannot read {path} as CSV: {error}") from error
    if not rows or "query" not in rows[0]:
        raise EarshotError(f"{path} has no column `query` with rows below it")
    for number, row in enumerate(rows, 1):
        if not (row["query"] or "").strip():
            raise EarshotError(f"{path}, row {number}: the query is empty")
    return [row["query"] for row in rows]
