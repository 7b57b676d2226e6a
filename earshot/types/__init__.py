"""The vocabulary that every room shares: the things of the field, the roles, the errors.

Plain data and roles only; nothing here computes. Axis legend for the arrays named here and above:
B batch, T samples, S segments, D embedding dimension, Q queries, C classes (tags).
"""

from __future__ import annotations

from earshot.types.answers import Answer, Example, Hit, Moment, Question
from earshot.types.checks import require_above, require_least
from earshot.types.datasets import Caption, Clip, Dataset, DatasetCard, SplitSize
from earshot.types.errors import AudioError, EarshotError, NotANumberError
from earshot.types.library import (
    WORD_FIELDS,
    Condition,
    EmbeddedFile,
    FileRecord,
    FileState,
    Manifest,
    Notes,
    NumberField,
    Segment,
    SegmentHit,
    Store,
    WordHit,
    WordMatch,
)
from earshot.types.models import AudioEncoder, Encoded, Model, TextEncoder

__all__ = [
    "Answer",
    "AudioEncoder",
    "AudioError",
    "Caption",
    "Clip",
    "Condition",
    "Dataset",
    "DatasetCard",
    "EarshotError",
    "NotANumberError",
    "EmbeddedFile",
    "Encoded",
    "Example",
    "FileRecord",
    "FileState",
    "Hit",
    "Manifest",
    "Model",
    "Moment",
    "Notes",
    "NumberField",
    "Question",
    "Segment",
    "SegmentHit",
    "SplitSize",
    "Store",
    "TextEncoder",
    "WORD_FIELDS",
    "WordHit",
    "WordMatch",
    "require_above",
    "require_least",
]
