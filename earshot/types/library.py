"""A library of recordings: files, their segments and notes, and the store that keeps them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A span of one clip, in seconds from its start."""

    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentHit:
    """A segment that a store finds by its sound; `score` is its cosine with the query."""

    path: str
    score: float
    start_s: float
    end_s: float


# Where the words of a file come from; a match is told by the first of them that holds it.
WORD_FIELDS = ("name", "title", "tags", "category", "folder", "description", "creator")


@dataclass(frozen=True, slots=True, kw_only=True)
class WordMatch:
    """A word of a query and the word of a file that answers it, in one of its `WORD_FIELDS`."""

    asked: str
    found: str
    field: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WordHit:
    """A file that a store finds by words; `score` is BM25, above 0 and without upper limit.

    `share` is how much of the query its words answer, each word counting by its rarity, 0 to 1.
    """

    path: str
    score: float
    share: float
    matches: tuple[WordMatch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """What identifies a file's content; the times and size only spare reading it again."""

    path: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """What a file, or a table beside it, says of it in words; all may be empty.

    `category` is that of the Universal Category System, `CATEGORY-SUBCATEGORY`; `date` is when it
    was recorded, else when the file was last changed, YYYY-MM-DD or as much of it as is known.
    """

    title: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    category: str = ""
    creator: str = ""
    licence: str = ""
    date: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """A file as the store knows it: searchable, or broken with the reason why."""

    state: FileState
    duration_s: float = 0.0
    sample_rate_hz: int = 0
    channels: int = 0
    broken: str = ""
    notes: Notes = Notes()
    beside: str = ""
    """A hash of what the table beside the file says of it, as it went into the notes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedFile:
    """A file with its segments' unit vectors, `vectors` (S, D) float32; none when broken."""

    record: FileRecord
    segments: tuple[Segment, ...]
    vectors: np.ndarray


NumberField = Literal["duration_s", "sample_rate_hz", "channels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A filter on the columns of a file; several conditions must all hold.

    `folder = X` holds for all files below X, `tag = X` where X is one of the tags; text other than
    paths is compared without regard to case, and dates as far as they are given.
    """

    field: Literal["path", "folder", "date", "licence", "tag", "category", "creator", NumberField]
    operator: Literal["<", "<=", "=", "!=", ">=", ">"]
    value: str | float


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a store was made with; vectors of another fingerprint must never enter it.

    Every file is cut into segments of `segment_s` that start every `hop_s`. With `half`, vectors
    are kept in half precision: half the space, numbers to three digits. `shortened_from` is how
    many numbers the model's own vectors have where these have fewer, else 0.
    """

    model: str
    fingerprint: str
    dimension: int
    segment_s: float
    hop_s: float
    half: bool = False
    shortened_from: int = 0


class Store(Protocol):
    """Files, their segments and vectors. Every kind passes the same contract tests."""

    @property
    def manifest(self) -> Manifest:
        """What the store was made with."""

    @property
    def replaced(self) -> bool:
        """Whether another model's vectors took the place of these; who opens it again gets them."""

    def put(self, files: Sequence[EmbeddedFile]) -> None:
        """Write files; what is already stored under their paths is replaced in the same step.

        Raises:
            EarshotError: a vector that is no unit vector of the manifest's dimension, or a name
                that cannot be stored; nothing is written then.
        """

    def drop(self, paths: Collection[str]) -> None:
        """Forget files; unknown paths are ignored."""

    def files(self) -> dict[str, FileRecord]:
        """All files by path, the broken ones included: seconds where there are many."""

    def paths(self) -> list[str]:
        """The paths of all files, the broken ones included, in no order."""

    def segment_count(self) -> int:
        """How many segments can be searched."""

    def search(
        self, vectors: np.ndarray, limit: int, where: Sequence[Condition] = ()
    ) -> list[list[SegmentHit]]:
        """The best `limit` segments for each query vector (Q, D), best first.

        Scores are cosines, so a query may have any length but zero. Equal scores are ordered by
        path, then start.

        Raises:
            EarshotError: a query without direction, a limit below 1, or a senseless condition.
        """

    def search_words(
        self,
        query: str,
        limit: int,
        where: Sequence[Condition] = (),
        among: Collection[str] | None = None,
    ) -> list[WordHit]:
        """The best `limit` files by the words of their names, folders and notes, best first.

        `among` are the paths that are asked about; all of them without it.

        Word forms and small typos are allowed for. Files are ordered by their share, then score,
        then path. A query without words finds nothing.

        Raises:
            EarshotError: a limit below 1, or a senseless condition.
        """

    def segments(self, paths: Collection[str]) -> dict[str, EmbeddedFile]:
        """Searchable files by path, segments in order of their start; unknown ones are left out."""

    def optimize(self) -> None:
        """Compact, and build or extend the vector index where the size calls for one."""
