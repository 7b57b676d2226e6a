"""Questions to a searcher that knows words only: examples and exclusions as vectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from earshot import audio
from earshot.search import SEGMENTS_PER_HIT, Searcher, best_of_clips
from earshot.types import Answer, EarshotError, Example, Moment, Question


def asked(searcher: Searcher, question: Question, k: int) -> Answer:
    """The answer to a question."""
    model = searcher.model
    vector = np.zeros(model.dimension)
    if question.text:
        vector = vector + model.embed_text([question.text])[0]
    for example in question.like:
        vector = vector + _heard(searcher, example)
    if not vector.any():
        raise EarshotError("the question is empty; give words or a sound to search by")
    for text in question.without:
        vector = vector - 0.5 * model.embed_text([text])[0]
    for example in question.unlike:
        vector = vector - 0.5 * _heard(searcher, example)
    limit = k * SEGMENTS_PER_HIT
    segments = searcher.store.search(vector[None].astype(np.float32), limit, question.where)[0]
    hits = []
    for hit in best_of_clips(segments)[:k]:
        moments = tuple(
            Moment(start_s=s.start_s, end_s=s.end_s, score=s.score)
            for s in segments
            if s.path == hit.path
        )
        hits.append(replace(hit, moments=moments, sound=hit.score))
    return Answer(hits=tuple(hits), found=not hits or hits[0].score > 0.1)


def _heard(searcher: Searcher, example: Example) -> np.ndarray:
    duration_s = None if example.end_s is None else example.end_s - example.start_s
    wave = audio.read(
        example.path,
        sample_rate_hz=searcher.model.sample_rate_hz,
        start_s=example.start_s,
        duration_s=duration_s,
    )
    vector: np.ndarray = searcher.model.embed_audio([wave])[0]
    return vector
