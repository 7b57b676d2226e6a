"""The vocabulary that every room shares: the things of the field, the roles, the errors.

Plain data and roles only; nothing here computes. Axis legend for the arrays named here and above:
B batch, T samples, S segments, D embedding dimension, Q queries, C classes (tags).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch


class EarshotError(ValueError):
    """A user's error: the message says what was given, what is allowed and what to do."""


class AudioError(EarshotError):
    """A file that cannot be used as audio. `reason` is one line without the path."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type[AudioError], tuple[str, str]]:
        return AudioError, (self.path, self.reason)


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
class Moment:
    """Neighbouring segments of a clip that match together; `score` is their best cosine."""

    start_s: float
    end_s: float
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """An answer to a query: a clip with its best moment, and why it is an answer.

    `score` is what hits are ordered by, higher is better. `probability` that the clip matches is
    None where the model is not calibrated. `sound` is the best segment's cosine with the query,
    None where words alone were asked; `words` are those that matched; `moments` are in order of
    their score, the first one is `start_s` to `end_s`; `copies` sound the same.
    """

    path: str
    score: float
    start_s: float
    end_s: float
    probability: float | None = None
    sound: float | None = None
    words: tuple[WordMatch, ...] = ()
    moments: tuple[Moment, ...] = ()
    copies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A sound to search by: a file, or the part of it from `start_s` to `end_s` (None: its end)."""

    path: str
    start_s: float = 0.0
    end_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a library: words, sounds, or both; what must not be heard; filters."""

    text: str = ""
    without: tuple[str, ...] = ()
    like: tuple[Example, ...] = ()
    unlike: tuple[Example, ...] = ()
    where: tuple[Condition, ...] = ()
    by: Literal["both", "sound", "words"] = "both"
    """Whether what files sound like counts, or the words of their names and tags, or both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Hits, best first.

    `found` is False where nothing in the library is likely to match: the hits are then the
    nearest that there are, and no answer.
    """

    hits: tuple[Hit, ...]
    found: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A recording of a dataset; `path` is empty where its audio is not at hand."""

    id: str
    path: str = ""
    duration_s: float | None = None
    freesound_id: str = ""
    youtube_id: str = ""
    licence: str = ""
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A sentence about a clip; a query that is paired with none has an empty `clip_id`."""

    id: str
    text: str
    clip_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSize:
    """How many clips and captions a split has, as published."""

    clips: int
    captions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetCard:
    """What a dataset is, and whose; `sizes` by split, empty where nobody published any."""

    name: str
    source: str
    licence: str
    citation: str
    notes: str = ""
    research_only: bool = False
    sizes: Mapping[str, SplitSize] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """One split: clips, captions, and for each caption the ids of all its relevant clips.

    A `share` below 1 says that clips were left out because their audio is missing: what is
    measured on such a subset is no result of the split.
    """

    card: DatasetCard
    split: str
    clips: tuple[Clip, ...]
    captions: tuple[Caption, ...]
    relevance: Mapping[str, frozenset[str]]
    share: float = 1.0


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

    Every file is cut into segments of `segment_s` that start every `hop_s`.
    """

    model: str
    fingerprint: str
    dimension: int
    segment_s: float
    hop_s: float


class Store(Protocol):
    """Files, their segments and vectors. Every kind passes the same contract tests."""

    @property
    def manifest(self) -> Manifest:
        """What the store was made with."""

    def put(self, files: Sequence[EmbeddedFile]) -> None:
        """Write files; what is already stored under their paths is replaced in the same step.

        Raises:
            EarshotError: a vector that is no unit vector of the manifest's dimension, or a name
                that cannot be stored; nothing is written then.
        """

    def drop(self, paths: Collection[str]) -> None:
        """Forget files; unknown paths are ignored."""

    def files(self) -> dict[str, FileRecord]:
        """All files by path, the broken ones included."""

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
        self, query: str, limit: int, where: Sequence[Condition] = ()
    ) -> list[WordHit]:
        """The best `limit` files by the words of their names, folders and notes, best first.

        Word forms and small typos are allowed for. Equal scores are ordered by path. A query
        without words finds nothing.

        Raises:
            EarshotError: a limit below 1, or a senseless condition.
        """

    def segments(self, paths: Collection[str]) -> dict[str, EmbeddedFile]:
        """Searchable files by path, segments in order of their start; unknown ones are left out."""

    def optimize(self) -> None:
        """Compact, and build or extend the vector index where the size calls for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """What an audio encoder hears: `embedding` (B, D), and `logits` (B, C) if it is a tagger.

    `sequence` (B, L, D) is the embedding's course in time, for those who go on from there, with
    `valid` (B, L) true where a step holds audio; what it holds elsewhere is unspecified.
    """

    embedding: torch.Tensor
    logits: torch.Tensor | None = None
    sequence: torch.Tensor | None = None
    valid: torch.Tensor | None = None


class AudioEncoder(Protocol):
    """Waveforms in, one vector per waveform out; its front-end is inside.

    It hears at most `segment_s` at a time, None where it takes any duration: longer recordings
    are cut by `earshot.encoders.segments`.
    """

    dimension: int
    segment_s: float | None

    @property
    def sample_rate_hz(self) -> int:
        """The rate that waveforms must have."""

    def __call__(self, waveforms: torch.Tensor, lengths: torch.Tensor) -> Encoded:
        """Encode (B, T) float32 in [-1, 1] with (B,) valid samples.

        A clip's result depends on its own valid samples alone, whatever the batch. One without
        samples is heard as one of a single silent sample.
        """


class TextEncoder(Protocol):
    """Sentences in, one vector per sentence out."""

    dimension: int

    def __call__(self, sentences: Sequence[str]) -> np.ndarray:
        """Encode N sentences to unit vectors (N, D) float32."""


class Model(Protocol):
    """Two towers into one space of unit vectors: cosine is how well words and sound fit."""

    name: str
    dimension: int
    sample_rate_hz: int
    segment_s: float
    hop_s: float
    joins_segments: bool
    """Whether `embed_audio` cuts what is longer itself and joins it as in training: then a clip
    that is judged is given whole."""

    @property
    def fingerprint(self) -> str:
        """A hash of everything that its vectors of recordings depend on."""

    def embed_text(self, sentences: Sequence[str]) -> np.ndarray:
        """Q sentences to unit vectors (Q, D) float32."""

    def embed_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """N mono waveforms of any lengths, float32 in [-1, 1], to unit vectors (N, D) float32.

        May be called from several threads; a vector depends on its waveform alone.
        """
