"""What the tests of stores share: files with vectors, and short ways to ask for them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from earshot.store import LanceStore, MilvusStore
from earshot.types import (
    Condition,
    EmbeddedFile,
    FileRecord,
    FileState,
    Manifest,
    Segment,
    SegmentHit,
    Store,
)

D = 11  # not a multiple of 8, as IVF_RQ would have it
MANIFEST = Manifest(model="toy", fingerprint="f00d", dimension=D, segment_s=1.5, hop_s=1.0)


def units(n: int, seed: int = 0, dimension: int = D) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def axis(number: int) -> np.ndarray:
    return np.eye(D, dtype=np.float32)[[number]]


def embedded(path: str, vectors: np.ndarray, *, sha: str = "", **about: object) -> EmbeddedFile:
    state = FileState(
        path=path, size_bytes=2**40, mtime_ns=2**60 + 1, ctime_ns=2**60 + 3, sha256=sha or path
    )
    about = {"duration_s": float(len(vectors)), "sample_rate_hz": 44100, "channels": 2, **about}
    segments = tuple(Segment(start_s=float(i), end_s=i + 1.5) for i in range(len(vectors)))
    return EmbeddedFile(record=FileRecord(state=state, **about), segments=segments, vectors=vectors)


def broken(path: str, reason: str = "no audio") -> EmbeddedFile:
    nothing = np.zeros((0, D), dtype=np.float32)
    return embedded(path, nothing, broken=reason, duration_s=0.0, sample_rate_hz=0, channels=0)


def hits(store: Store, query: np.ndarray, limit: int = 100, *where: Condition) -> list[SegmentHit]:
    (answer,) = store.search(query, limit, where)
    return answer


def paths(store: Store, query: np.ndarray, limit: int = 100, *where: Condition) -> list[str]:
    return [hit.path for hit in hits(store, query, limit, *where)]


def lance(folder: Path, exact_rows: int = 1000, dimension: int = D) -> LanceStore:
    pytest.importorskip("lancedb", reason="the index on disk needs earshot[index]")
    manifest = replace(MANIFEST, dimension=dimension)
    return LanceStore.create(str(folder), manifest, exact_rows)


def milvus(folder: Path) -> MilvusStore:
    pytest.importorskip("milvus_lite", reason="Milvus is tested with milvus-lite")
    return MilvusStore.create(f"milvus:{folder}/index.db", MANIFEST)
