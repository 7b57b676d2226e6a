"""Routes that search: by words, by a full question, by a clip, by a sound that is brought."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, File, Path, Query, Request, Response, UploadFile

from earshot.server.desk import Desk
from earshot.server.schemas import (
    MAX_EXAMPLES,
    MAX_HITS,
    MAX_ID_LETTERS,
    AnswerOut,
    ExampleIn,
    QuestionIn,
    Text,
    UploadOut,
    refusals,
)
from earshot.server.together import Together

Result = TypeVar("Result")


def none_given() -> list[str]:
    """An empty list; FastAPI reads a factory's signature at each request, `list`'s in 0.3 ms."""
    return []


K = Annotated[int, Query(ge=1, le=MAX_HITS, description="How many hits.")]
By = Literal["both", "sound", "words"]
Where = Annotated[
    list[Text],
    Query(
        default_factory=none_given,
        max_length=MAX_EXAMPLES,
        description="Filters such as `duration_s < 10`.",
    ),
]
Seconds = Annotated[float, Query(ge=0, allow_inf_nan=False)]
EndSeconds = Annotated[float, Query(gt=0, allow_inf_nan=False)]
ClipId = Annotated[str, Path(max_length=MAX_ID_LETTERS)]
# Networks on as many cores as these would only wait for each other.
SEARCHES_AT_ONCE = 2

GONE = refusals(
    s404="there is no such recording", s410="the file of an example is gone or was changed"
)
BUSY = refusals(
    s408="the sound did not come to its end", s503="too many sounds are being brought; try again"
)

router = APIRouter(prefix="/api", tags=["search"], responses=GONE)


def desk_of(request: Request) -> Desk:
    """The desk of the server that a request came to."""
    desk: Desk = request.app.state.desk
    return desk


async def _searching(request: Request, work: Callable[[], Result]) -> Result:
    limiter: CapacityLimiter = request.app.state.searching
    return await to_thread.run_sync(work, limiter=limiter)


async def _answered(request: Request, question: QuestionIn) -> Response:
    """Together with others' questions, but for sounds: one that is not known yet takes long."""
    if question.like or question.unlike:
        desk = desk_of(request)
        (answer,) = await _searching(request, lambda: desk.encoded([question]))
        if isinstance(answer, Exception):
            raise answer
    else:
        together: Together[QuestionIn, bytes] = request.app.state.together
        answer = await together.do(question, request.is_disconnected)
    # Made of checked parts and written already: FastAPI has nothing left to do.
    return Response(answer, media_type="application/json")


@router.get("/search", response_model=AnswerOut)
async def search(
    request: Request,
    q: Annotated[Text, Query(description="What to listen for.")],
    without: Annotated[
        list[Text],
        Query(
            default_factory=none_given,
            alias="not",
            max_length=MAX_EXAMPLES,
            description="What not to hear.",
        ),
    ],
    where: Where,
    by: By = "both",
    k: K = 20,
) -> Response:
    """Search by words."""
    question = QuestionIn(text=q, without=without, where=where, by=by, k=k)
    return await _answered(request, question)


@router.post("/search", response_model=AnswerOut)
async def ask(request: Request, question: QuestionIn) -> Response:
    """Search by words, sounds, or both."""
    return await _answered(request, question)


@router.get("/clips/{clip_id}/similar", response_model=AnswerOut)
async def similar(
    request: Request,
    clip_id: ClipId,
    where: Where,
    start_s: Seconds = 0.0,
    end_s: EndSeconds | None = None,
    k: K = 20,
) -> Response:
    """What sounds like a clip, or like a part of it."""
    example = ExampleIn(id=clip_id, start_s=start_s, end_s=end_s)
    question = QuestionIn(like=[example], where=where, k=k)
    return await _answered(request, question)


@router.post("/sounds", status_code=201, responses=BUSY)
async def bring(request: Request, sound: Annotated[UploadFile, File()]) -> UploadOut:
    """Bring a sound of up to ten minutes; its id goes into `like` of a question.

    The latest few are kept.
    """
    desk = desk_of(request)
    limiter: CapacityLimiter = request.app.state.bringing
    upload = await to_thread.run_sync(
        lambda: desk.uploads.add(sound.file, sound.filename or ""), limiter=limiter
    )
    return UploadOut(id=upload.id, name=upload.name, duration_s=upload.record.duration_s)


@router.post("/similar", response_model=AnswerOut, responses=BUSY)
async def similar_to_file(
    request: Request,
    sound: Annotated[UploadFile, File()],
    where: Where,
    k: K = 20,
) -> Response:
    """What sounds like a sound that is brought, in one step."""
    brought = await bring(request, sound)
    question = QuestionIn(like=[ExampleIn(id=brought.id)], where=where, k=k)
    return await _answered(request, question)
