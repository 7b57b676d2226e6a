"""The library as tools of the Model Context Protocol (https://modelcontextprotocol.io)."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field, ValidationError

from earshot import __version__
from earshot.server.catalogue import id_of
from earshot.server.desk import Desk, UnknownIdError
from earshot.server.schemas import HitOut, QuestionIn
from earshot.types import EarshotError

INSTRUCTIONS = (
    "A library of sound recordings. Search it by describing what is to be heard; hits are moments "
    "of recordings. Where `found` is false nothing sounds like that, and the hits are the nearest."
)
DEFAULT_FACETS = 20
# Of a path that is not known so much is repeated.
MAX_PATH_LETTERS = 200
Filters = Annotated[
    list[str],
    Field(
        default_factory=list, description="Such as 'duration_s < 10' or 'folder = /sounds/rain'."
    ),
]
Count = Annotated[int, Field(ge=1, le=100, description="How many hits.")]


def create_mcp(desk: Desk) -> MCPServer[Any]:
    """The tools search, similar and describe_library."""
    server: MCPServer[Any] = MCPServer(
        "earshot",
        title="earshot",
        instructions=INSTRUCTIONS,
        version=__version__,
        log_level="WARNING",
    )

    @server.tool()
    def search(
        description: Annotated[str, Field(description="What is heard: 'dog barking in the rain'.")],
        without: Annotated[
            list[str], Field(default_factory=list, description="What must not be heard.")
        ],
        filters: Filters,
        k: Count = 10,
    ) -> dict[str, Any]:
        """Find the recordings, and the seconds in them, that fit a description."""
        return _answered(desk, {"text": description, "without": without, "where": filters, "k": k})

    @server.tool()
    def similar(
        path: Annotated[str, Field(description="The path of a recording of the library.")],
        filters: Filters,
        start_s: float = 0.0,
        end_s: float | None = None,
        k: Count = 10,
    ) -> dict[str, Any]:
        """Find what sounds like a recording of the library, or like the part of it in seconds."""
        example = {"id": id_of(path), "start_s": start_s, "end_s": end_s}
        try:
            desk.record(id_of(path))
        except UnknownIdError as error:
            shown = path[:MAX_PATH_LETTERS]
            raise ToolError(f"there is no recording {shown!r}; give a path of a hit") from error
        return _answered(desk, {"like": [example], "where": filters, "k": k})

    @server.tool()
    def describe_library() -> dict[str, Any]:
        """Tell what the library holds: recordings, hours, folders, licences, tags, the model."""
        listing = desk.catalogue.now()
        facets = {name: dict(found[:DEFAULT_FACETS]) for name, found in listing.facets.items()}
        return {
            "recordings": len(listing.files),
            "broken_files": len(listing.broken),
            "hours": round(listing.duration_s / 3600, 2),
            "common_folder": listing.common_folder,
            "model": desk.searcher.model.name,
            "most_frequent": facets,
        }

    return server


def _answered(desk: Desk, question: dict[str, Any]) -> dict[str, Any]:
    try:
        answer = desk.answer(QuestionIn(**question))
    except (EarshotError, ValidationError) as error:
        raise ToolError(str(error)) from error
    return {"found": answer.found, "hits": [_hit(hit) for hit in answer.hits]}


def _hit(hit: HitOut) -> dict[str, Any]:
    told: dict[str, Any] = {
        "path": hit.clip.path,
        "score": round(hit.score, 4),
        "probability": hit.probability,
        "duration_s": round(hit.clip.duration_s, 2),
        "moments": [
            {"start_s": round(m.start_s, 2), "end_s": round(m.end_s, 2)} for m in hit.moments
        ],
        "licence": hit.clip.notes.licence,
        "tags": hit.clip.notes.tags,
        "words": [word.found for word in hit.words],
    }
    return {name: value for name, value in told.items() if value not in (None, "", [])}
