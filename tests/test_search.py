"""From a query to ranked clips."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import needs

from earshot.library import index
from earshot.model import model_manifest
from earshot.search import Searcher, best_of_clips, read_queries
from earshot.store import create_store
from earshot.types import (
    EarshotError,
    EmbeddedFile,
    FileRecord,
    FileState,
    Model,
    Segment,
    SegmentHit,
)


def hit(path: str, score: float, start_s: float = 0.0) -> SegmentHit:
    return SegmentHit(path=path, score=score, start_s=start_s, end_s=start_s + 10)


def test_a_clip_ranks_by_its_best_segment() -> None:
    segments = [hit("b", 0.9, 10), hit("a", 0.8), hit("b", 0.7), hit("c", 0.1)]
    best = best_of_clips(segments)
    assert [(h.path, h.score, h.start_s) for h in best] == [
        ("b", 0.9, 10),
        ("a", 0.8, 0),
        ("c", 0.1, 0),
    ]


def with_segments(path: str, vectors: np.ndarray) -> EmbeddedFile:
    state = FileState(path=path, size_bytes=1, mtime_ns=1, ctime_ns=1, sha256="0" * 64)
    record = FileRecord(
        state=state, duration_s=10.0 * len(vectors), sample_rate_hz=8000, channels=1
    )
    spans = tuple(Segment(start_s=10.0 * i, end_s=10.0 * i + 10) for i in range(len(vectors)))
    return EmbeddedFile(record=record, segments=spans, vectors=vectors)


def test_a_long_clip_does_not_crowd_out_others(random_model: Model) -> None:
    """A thousand matching segments of one clip, and still k clips come back."""
    store = create_store(":memory:", model_manifest(random_model))
    target = random_model.embed_text(["rain"])[0]
    other = np.roll(target, 1)
    store.put([with_segments("/long.wav", np.tile(target, (1000, 1)))])
    store.put([with_segments(f"/short{i}.wav", other[None]) for i in range(4)])
    hits = Searcher(random_model, store).search("rain", k=5)
    assert [h.path for h in hits] == ["/long.wav", *(f"/short{i}.wav" for i in range(4))]


def test_bad_input_is_told(random_model: Model) -> None:
    searcher = Searcher(random_model, create_store(":memory:", model_manifest(random_model)))
    with pytest.raises(EarshotError, match="query is empty"):
        searcher.search("  ")
    with pytest.raises(EarshotError, match="at least one hit"):
        searcher.search("rain", k=0)
    assert searcher.search("rain") == []
    assert searcher.search_many([]) == []


def test_an_index_of_another_model_is_refused(random_model: Model) -> None:
    manifest = replace(model_manifest(random_model), fingerprint="0" * 64)
    with pytest.raises(EarshotError, match="do not compare"):
        Searcher(random_model, create_store(":memory:", manifest))


def test_queries_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text('\ufeffid,query\n1,rain\n2,"a dog, barking"\n')
    assert read_queries(path) == ["rain", "a dog, barking"]
    path.write_text("text\nrain\n")
    with pytest.raises(EarshotError, match="no column `query`"):
        read_queries(path)
    with pytest.raises(EarshotError, match="cannot read"):
        read_queries(tmp_path / "absent.csv")


def test_real_recordings_are_found(real_model: Model, tmp_path: Path) -> None:
    """Forty recordings of ten kinds, asked for in plain words."""
    folder = tmp_path / "sounds"
    for kind in sorted(needs("data/esc10").iterdir()):
        for path in sorted(kind.glob("*.ogg"))[:4] if kind.is_dir() else []:
            (folder / kind.name).mkdir(parents=True, exist_ok=True)
            (folder / kind.name / path.name).symlink_to(path)
    store = create_store(":memory:", model_manifest(real_model))
    index([folder], store, real_model)
    searcher = Searcher(real_model, store)
    for query, kind in {
        "a dog barking": "001-dog-bark",
        "rooster crowing at dawn": "009-rooster",
        "someone sneezes": "006-person-sneeze",
        "an infant is crying": "004-baby-cry",
    }.items():
        hits = searcher.search(query, k=3)
        assert Path(hits[0].path).parent.name == kind
