"""What goes over the wire, for requests and answers; OpenAPI is made from it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_HITS = 500
MAX_EXAMPLES = 50
MAX_LETTERS = 2000
MAX_ID_LETTERS = 64

Text = Annotated[str, Field(max_length=MAX_LETTERS)]
Id = Annotated[str, Field(max_length=MAX_ID_LETTERS)]
Texts = Annotated[list[Text], Field(max_length=MAX_EXAMPLES)]


class Strict(BaseModel):
    """Unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class FieldErrorOut(BaseModel):
    """What is wrong with a field, and where that stands."""

    type: str
    loc: list[str | int]
    msg: str


class RefusalOut(BaseModel):
    """Why there is no answer: a sentence, or what is wrong with each field."""

    detail: str | list[FieldErrorOut]


def refusals(**why: str) -> dict[int | str, dict[str, Any]]:
    """Refusals for OpenAPI, by status as `s404`: when they come."""
    return {
        int(status[1:]): {"model": RefusalOut, "description": when} for status, when in why.items()
    }


class ExampleIn(Strict):
    """A clip of the index or an upload, or a part of it."""

    id: Id
    start_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    end_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


Examples = Annotated[list[ExampleIn], Field(max_length=MAX_EXAMPLES)]


class QuestionIn(Strict):
    """What is asked: words, sounds, or both; what must not be heard; filters."""

    text: Text = ""
    without: Texts = []
    like: Examples = []
    unlike: Examples = []
    where: Annotated[Texts, Field(description="Filters such as `duration_s < 10`")] = []
    by: Literal["both", "sound", "words"] = "both"
    k: Annotated[int, Field(ge=1, le=MAX_HITS)] = 20


class NotesOut(BaseModel):
    """What the file says of itself."""

    title: str
    description: str
    tags: list[str]
    category: str
    creator: str
    licence: str
    date: str


class ClipOut(BaseModel):
    """A recording of the index; `version` changes with its content."""

    id: str
    path: str
    name: str
    folder: str
    version: str
    duration_s: float
    sample_rate_hz: int
    channels: int
    notes: NotesOut


class MomentOut(BaseModel):
    """Where in the clip, in seconds, and how well it fits."""

    start_s: float
    end_s: float
    score: float


class WordOut(BaseModel):
    """A word of the query, the word of the file that answers it, and where that stands."""

    asked: str
    found: str
    field: str


class HitOut(BaseModel):
    """A clip that answers, its moments, and why it does."""

    clip: ClipOut
    score: float
    start_s: float
    end_s: float
    probability: float | None
    sound: float | None
    words: list[WordOut]
    moments: list[MomentOut]
    copies: list[ClipOut]


class AnswerOut(BaseModel):
    """Hits, best first; where `found` is false they are the nearest, and no answer."""

    hits: list[HitOut]
    found: bool
    took_ms: float


class PageOut(BaseModel):
    """A part of a list, and how long the whole is."""

    total: int
    clips: list[ClipOut]


class BrokenOut(BaseModel):
    """A file that cannot be searched, and why."""

    path: str
    reason: str


class BrokenPageOut(BaseModel):
    """A part of the broken files, and how many there are."""

    total: int
    files: list[BrokenOut]


class UploadOut(BaseModel):
    """A sound to search by; `id` goes into `like`."""

    id: str
    name: str
    duration_s: float


class PeaksOut(BaseModel):
    """Least and greatest sample of each column, in 127ths of full scale."""

    start_s: float
    end_s: float
    low: list[int]
    high: list[int]


class StatusOut(BaseModel):
    """What the index holds, and what becomes of it."""

    index: str
    model: str
    fingerprint: str
    segment_s: float
    hop_s: float
    files: int
    broken: int
    duration_s: float
    common_folder: str
    roots: list[str]
    job: dict[str, Any]


class FacetOut(BaseModel):
    """A value, with the number of recordings that have it."""

    value: str | int
    count: int


class FacetsOut(BaseModel):
    """What can be filtered by: the most frequent values first."""

    folder: list[FacetOut]
    licence: list[FacetOut]
    tag: list[FacetOut]
    category: list[FacetOut]
    creator: list[FacetOut]
    sample_rate_hz: list[FacetOut]
    channels: list[FacetOut]


class AddIn(Strict):
    """Folders or files to index, absolute paths below the allowed folders."""

    paths: Annotated[list[Text], Field(min_length=1, max_length=MAX_EXAMPLES)]


class RemoveIn(Strict):
    """Clips to forget; the files stay."""

    ids: Annotated[list[Id], Field(min_length=1, max_length=MAX_HITS)]


class LoginIn(Strict):
    """The token that the server was started with."""

    token: Text
