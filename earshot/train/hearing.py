"""The vectors of the clips that a run is judged by, their audio read as the training's is.

It comes from the dataset's pack where there is one, read ahead by worker processes. Where the audio
tower is frozen, what it hears is kept on the disk and only the head is asked anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from earshot.batches import Pairs
from earshot.batches.loader import Crops, Reader, Steps, read_ahead
from earshot.batches.pairs import dataset_name
from earshot.batches.recordings import Recordings
from earshot.evaluate.scores import ClipVectors
from earshot.features import audio_features
from earshot.model.dual import DualEncoder
from earshot.types import Dataset, Encoded

Heard = Callable[[DualEncoder], ClipVectors]
# How much audio is heard at a time, padding counted in: what the longest clips need is bounded.
BATCH_S = 240.0


def validation_vectors(
    network: DualEncoder, dataset: Dataset, cache: Path, workers: int
) -> Heard | None:
    """What gives the vectors of the validation clips; None where clips have no captions."""
    pairs = Pairs([dataset], sample_rate_hz=network.audio.sample_rate_hz)
    if len(pairs.clips) < len(dataset.clips):
        return None
    prefix = len(f"{dataset_name(dataset)}/")
    ids = [clip.id[prefix:] for clip in pairs.clips]
    order = sorted(range(len(ids)), key=lambda place: ids[place])
    if network.config.audio.frozen:
        table = audio_features(network, pairs, cache, workers=workers)
        hear = partial(projected, heard=table.encoded(range(len(ids))))
    else:
        groups = of_like_length(pairs.recordings)
        hear = partial(heard_anew, recordings=pairs.recordings, groups=groups, workers=workers)

    def heard(current: DualEncoder) -> ClipVectors:
        with torch.no_grad():
            vectors = hear(current)[order]
        return ClipVectors(ids=tuple(sorted(ids)), first=np.arange(len(ids)), vectors=vectors)

    return heard


def projected(network: DualEncoder, heard: Encoded) -> np.ndarray:
    """The vectors (N, D) of clips by the head alone."""
    device = network.tau.device
    logits = None if heard.logits is None else heard.logits.to(device)
    there = Encoded(embedding=heard.embedding.to(device), logits=logits)
    return np.asarray(network.project_audio(there).cpu().numpy())


def of_like_length(recordings: Recordings) -> list[np.ndarray]:
    """The places of clips, grouped to be heard with little padding, the longest first."""
    most = round(BATCH_S * recordings.sample_rate_hz)
    samples = np.array([recordings.samples(place) for place in range(len(recordings))])
    groups: list[list[int]] = []
    for place in np.argsort(-samples, kind="stable").tolist():
        if not groups or (len(groups[-1]) + 1) * samples[groups[-1][0]] > most:
            groups.append([])
        groups[-1].append(place)
    return [np.array(group) for group in groups]


def heard_anew(
    network: DualEncoder, recordings: Recordings, groups: Sequence[np.ndarray], workers: int
) -> np.ndarray:
    """The vectors (N, D) of whole clips.

    Raises:
        EarshotError: the audio of a clip is absent or broken.
    """
    vectors = np.empty((sum(map(len, groups)), network.dimension), dtype=np.float32)
    steps = Steps(recordings=recordings, clips=groups, captions=groups)
    read = read_ahead(Reader(recordings, Crops()), steps, min(workers, len(groups)))
    for group, (waveforms, lengths) in zip(groups, read, strict=True):
        device = network.tau.device
        heard = network.embed_audio(waveforms.to(device), lengths.to(device))
        vectors[group] = heard.float().cpu().numpy()
    return vectors
