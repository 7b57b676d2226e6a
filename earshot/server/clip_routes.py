"""Routes of recordings: lists, notes, sound, pictures. A file is found by its id and no other way.

A file that is known by hash may be kept by browsers for good: the page asks for it with its
version, and a changed file has another.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Annotated, Any, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from earshot.server.catalogue import Listing
from earshot.server.desk import clip_out, conditions, require_present
from earshot.server.filters import matching
from earshot.server.pictures import Picture, draw, grey_png
from earshot.server.playing import Wav, byte_range, media_type
from earshot.server.schemas import ClipOut, PageOut, PeaksOut, refusals
from earshot.server.search_routes import ClipId, EndSeconds, Seconds, Where, desk_of
from earshot.types import FileRecord

Result = TypeVar("Result")
MAX_PAGE = 500
# A part is drawn anew each time: no longer than what takes a moment.
MAX_PART_S = 600.0
KEPT = "private, max-age=31536000, immutable"
Offset = Annotated[int, Query(ge=0)]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Version = Annotated[str, Query(alias="v", max_length=64, description="Only tells caches apart.")]

GONE = refusals(s404="there is no such recording", s410="its file is gone or was changed")
SOUND: dict[int | str, dict[str, Any]] = {
    200: {"description": "the sound", "content": {"audio/*": {}}},
    206: {"description": "a part of it", "content": {"audio/*": {}, "multipart/byteranges": {}}},
    416: {"description": "no such part"},
}
PNG: dict[int | str, dict[str, Any]] = {
    200: {"description": "the picture", "content": {"image/png": {}}}
}

router = APIRouter(prefix="/api", tags=["recordings"])


async def _decoding(request: Request, work: Callable[[], Result]) -> Result:
    """Decode beside the searches, which come first."""
    limiter: CapacityLimiter = request.app.state.decoding
    return await to_thread.run_sync(work, limiter=limiter)


@router.get("/clips")
def clips(request: Request, where: Where, offset: Offset = 0, limit: Limit = 50) -> PageOut:
    """The recordings in order of their paths."""
    listing: Listing = desk_of(request).catalogue.now()
    records = matching(list(listing.files.values()), conditions(where))
    page = [clip_out(record) for record in records[offset : offset + limit]]
    return PageOut(total=len(records), clips=page)


@router.get("/clips/{clip_id}", responses=GONE)
def clip(request: Request, clip_id: ClipId) -> ClipOut:
    """One recording with its notes."""
    return clip_out(desk_of(request).record(clip_id))


@router.get("/clips/{clip_id}/audio", response_class=Response, responses={**GONE, **SOUND})
async def sound(
    request: Request, clip_id: ClipId, wav: bool = False, download: bool = False, v: Version = ""
) -> Response:
    """The sound; as WAV where a browser cannot play the file, or where `wav` asks for that."""
    record = desk_of(request).record(clip_id)
    path = await to_thread.run_sync(require_present, record)
    etag = f'"{record.state.sha256[:32]}"'
    headers = {"etag": etag, "cache-control": KEPT if v else "private, no-cache"}
    if download:
        return FileResponse(path, filename=path.name, headers=headers)
    sha256 = record.state.sha256
    kind = "" if wav else await to_thread.run_sync(media_type, str(path), sha256)
    if kind:
        return FileResponse(path, media_type=kind, headers=headers)
    return _wav_response(request, record, headers)


router.head("/clips/{clip_id}/audio", include_in_schema=False)(sound)


def _wav_response(request: Request, record: FileRecord, headers: dict[str, str]) -> Response:
    wav = Wav.of(
        record.state.path, record.sample_rate_hz, record.duration_s, channels=record.channels
    )
    headers = {
        **headers,
        "etag": headers["etag"][:-1] + f'-wav{wav.channels}"',
        "accept-ranges": "bytes",
    }
    asked = request.headers.get("range")
    if request.headers.get("if-range", headers["etag"]) != headers["etag"]:
        asked = None
    try:
        wanted = byte_range(asked, wav.size_bytes)
    except ValueError:
        return Response(status_code=416, headers={"content-range": f"bytes */{wav.size_bytes}"})
    first, last = wanted or (0, wav.size_bytes)
    headers["content-length"] = str(last - first)
    if wanted:
        headers["content-range"] = f"bytes {first}-{last - 1}/{wav.size_bytes}"
    status = 206 if wanted else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type="audio/wav")
    return _Closing(wav.read(first, last), status, headers)


class _Closing(StreamingResponse):
    """Closes what it reads from as soon as nobody listens; the garbage collector takes its time."""

    media_type = "audio/wav"

    def __init__(
        self, pieces: Generator[bytes, None, None], status: int, headers: dict[str, str]
    ) -> None:
        super().__init__(pieces, status, headers)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._pieces.close()


@router.get("/clips/{clip_id}/peaks", responses=GONE)
async def peaks(
    request: Request,
    clip_id: ClipId,
    response: Response,
    start_s: Seconds = 0.0,
    end_s: EndSeconds | None = None,
    v: Version = "",
) -> PeaksOut:
    """The outline of the waveform in 800 columns, of the whole or a part of up to ten minutes."""
    record = desk_of(request).record(clip_id)
    picture = await _picture(request, record, start_s, end_s)
    response.headers["cache-control"] = KEPT if v else "private, no-cache"
    return PeaksOut(
        start_s=start_s,
        end_s=end_of(record, end_s),
        low=picture.peaks[:, 0].tolist(),
        high=picture.peaks[:, 1].tolist(),
    )


@router.get("/clips/{clip_id}/spectrogram", response_class=Response, responses={**GONE, **PNG})
async def spectrogram(
    request: Request,
    clip_id: ClipId,
    start_s: Seconds = 0.0,
    end_s: EndSeconds | None = None,
    v: Version = "",
) -> Response:
    """The mel spectrogram as a greyscale PNG: low at the bottom, white is the loudest."""
    picture = await _picture(request, desk_of(request).record(clip_id), start_s, end_s)
    headers = {"cache-control": KEPT if v else "private, no-cache"}
    return Response(grey_png(picture.decibels[::-1]), headers=headers, media_type="image/png")


def end_of(record: FileRecord, end_s: float | None) -> float:
    """Where a part ends that is asked for up to `end_s`, in seconds; None is the file's end."""
    return record.duration_s if end_s is None else min(end_s, record.duration_s)


async def _picture(
    request: Request, record: FileRecord, start_s: float, end_s: float | None
) -> Picture:
    await to_thread.run_sync(require_present, record)
    pictures: Any = desk_of(request).pictures
    state, end = record.state, end_of(record, end_s)
    if not start_s and end == record.duration_s:
        return await _decoding(request, lambda: pictures.of(state.path, state.sha256, end))
    if not 0 < end - start_s <= MAX_PART_S:
        raise HTTPException(422, f"a part is longer than 0 s and at most {MAX_PART_S:g} s")
    return await _decoding(request, lambda: draw(state.path, end - start_s, start_s))
