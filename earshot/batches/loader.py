"""Batches read ahead by worker processes: decode, crop, pad; the rest is quick and done here."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import forkserver
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from earshot.batches.batch import Batch
from earshot.batches.config import BatchConfig
from earshot.batches.control_c import control_c_deferred, control_c_ignored
from earshot.batches.draws import CROPS, draws
from earshot.batches.pairs import Pairs
from earshot.batches.recordings import Recordings
from earshot.batches.sampler import PairSampler
from earshot.types import EarshotError, Encoded

Tokenize = Callable[[Sequence[str]], dict[str, Tensor]]
Waveforms = tuple[Tensor, Tensor]
WIDTH_STEP_S = 0.5  # Batches of few widths: a compiled network is compiled for each.


@dataclass(frozen=True, slots=True, kw_only=True)
class Crops:
    """How long crops are, and the seed and epoch that they are drawn of; None: whole clips."""

    crop_s: float | None = None
    pad_to_crop: bool = False
    seed: int = 0
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one batch reads: B clips and, to draw their crops, the places of captions (B,)."""

    clips: Recordings
    captions: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Steps that are made one after another, by the places of their clips and captions."""

    recordings: Recordings
    clips: Sequence[np.ndarray]
    captions: Sequence[np.ndarray]

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[Step]:
        for clips, captions in zip(self.clips, self.captions, strict=True):
            yield Step(clips=self.recordings.only(clips), captions=captions)


class Reader(Dataset[Waveforms]):
    """Reads a step at a time, in a worker; it knows the packs, and of the clips nothing."""

    def __init__(self, recordings: Recordings, crops: Crops) -> None:
        self.packs, self.sample_rate_hz = recordings.packs, recordings.sample_rate_hz
        self.crops = crops

    @property
    def crop_samples(self) -> int | None:
        """A crop's length."""
        crop_s = self.crops.crop_s
        return None if crop_s is None else max(1, round(crop_s * self.sample_rate_hz))

    def __getitem__(self, step: Step) -> Any:
        """Waveforms (B, T) and lengths (B,), or the error of a file.

        An error is returned, not raised: torch would wrap it into its own with a traceback.
        """
        recordings = replace(step.clips, packs=self.packs)
        try:
            return self.padded(
                [
                    recordings.waveform(clip, self.crop_samples, self.draw(int(caption)))
                    for clip, caption in enumerate(step.captions)
                ]
            )
        except EarshotError as error:
            return error

    def draw(self, caption: int) -> int:
        """Where the crop for a caption lies, as 64 random bits."""
        if self.crops.crop_s is None:
            return 0
        return int(draws(1, CROPS, self.crops.seed, self.crops.epoch, caption)[0])

    def padded(self, waveforms: Sequence[np.ndarray]) -> Waveforms:
        """Waveforms with silence behind them, all of one width."""
        lengths = torch.tensor([len(waveform) for waveform in waveforms])
        batch = torch.zeros(len(waveforms), self.width(int(lengths.max())))
        for row, waveform in zip(batch, waveforms, strict=True):
            row[: len(waveform)] = torch.from_numpy(waveform)
        return batch, lengths

    def width(self, longest: int) -> int:
        """The width of a batch whose longest waveform is that long."""
        crop = self.crop_samples
        if crop is not None and self.crops.pad_to_crop:
            return crop
        step = max(1, round(WIDTH_STEP_S * self.sample_rate_hz))
        rounded = -(-longest // step) * step
        return rounded if crop is None else min(rounded, crop)


def read_ahead(reader: Reader, steps: Steps, workers: int) -> Iterator[Waveforms]:
    """The waveforms of steps in order, decoded by worker processes; 0: here, one after another.

    Raises:
        EarshotError: the audio of a clip is absent or broken.
    """
    # Steps are whole batches already; torch is given them as items.
    ahead = DataLoader(
        reader,
        sampler=steps,
        batch_size=None,
        collate_fn=same,
        num_workers=workers,
        multiprocessing_context=start_method() if workers else None,
        worker_init_fn=begin_worker if workers else None,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else it draws from the training's own chance
    )
    with control_c_deferred():  # In the midst of it, workers and their server would complain.
        started = iter(ahead)
    for read in started:
        if isinstance(read, EarshotError):
            raise read
        yield read


def start_method() -> Any:
    """How workers are started: by a server process that is forked, where there is one.

    Forking the training process itself copies locks that its threads hold (CUDA, lancedb, the
    tokenizers), which can hang the copy; Python 3.12 warns of it and 3.14 gives it up. Spawning is
    safe but imports torch in every worker of every epoch, seconds each. A fork server is both: it
    has one thread, imports once, and forks a worker in milliseconds.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["earshot.batches.loader"])
    with control_c_ignored():  # What a process ignores, those that it starts ignore from birth.
        forkserver.ensure_running()
    return context


def begin_worker(worker: int) -> None:
    """Ignore Ctrl-C where the worker was not born so, and compute with one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = silent_when_alone
    torch.set_num_threads(1)


def silent_when_alone(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Say nothing of a main process that left while a batch was handed to it.

    The thread that hands over shared memory tells its errors to `sys.excepthook`.
    """
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


def same(read: Any) -> Any:
    """What was read, as it is; by name, for workers cannot be sent a lambda."""
    return read


class Loader:
    """The batches of an epoch from some step on; its length is how many there are."""

    def __init__(
        self,
        pairs: Pairs,
        steps: Sequence[np.ndarray],
        crops: Crops,
        tokenize: Tokenize | None,
        workers: int,
    ) -> None:
        if tokenize is None and pairs.text_table is None:
            raise EarshotError("captions need a tokenizer, or features that were computed before")
        self.pairs, self.steps, self.crops = pairs, steps, crops
        self.tokenize, self.workers = tokenize, workers

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Batch]:
        for captions, (waveforms, lengths) in zip(self.steps, self.waveforms(), strict=True):
            batch = self.batch(captions, waveforms, lengths)
            yield batch.pin_memory() if torch.cuda.is_available() else batch

    def waveforms(self) -> Iterator[Waveforms]:
        """Waveforms and lengths of each step; empty where features stand for them."""
        if self.pairs.audio_table is not None:
            for captions in self.steps:
                yield torch.zeros(len(captions), 0), torch.zeros(len(captions), dtype=torch.int64)
            return
        reader = Reader(self.pairs.recordings, self.crops)
        clips = [self.pairs.clip_of[some] for some in self.steps]
        steps = Steps(recordings=self.pairs.recordings, clips=clips, captions=self.steps)
        yield from read_ahead(reader, steps, min(self.workers, len(steps)))

    def batch(self, captions: np.ndarray, waveforms: Tensor, lengths: Tensor) -> Batch:
        """A batch of some captions; they are tokenised here, which takes milliseconds.

        So workers need neither tokenizers nor the library that they come from.
        """
        clips = self.pairs.clip_of[captions]
        tokens: dict[str, Tensor] = {}
        read: Tensor | None = None
        if self.pairs.text_table is not None:
            read = self.pairs.text_table.rows(captions.tolist())
        elif self.tokenize is not None:
            tokens = self.tokenize([self.pairs.captions[place].text for place in captions])
        heard: Encoded | None = None
        if self.pairs.audio_table is not None:
            heard = self.pairs.audio_table.encoded(clips.tolist())
        return Batch(
            waveforms=waveforms,
            lengths=lengths,
            tokens=tokens,
            clip_ids=torch.from_numpy(clips),
            caption_ids=torch.from_numpy(captions),
            audio_features=heard,
            text_features=read,
        )


def loader(  # noqa: PLR0913 - what to read, how, and which part of which epoch
    pairs: Pairs,
    config: BatchConfig,
    tokenize: Tokenize | None,
    *,
    seed: int,
    epoch: int,
    start_step: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Loader:
    """The batches of an epoch, from `start_step` on, for process `rank` of `world`.

    A pure function of its arguments, whatever the number of workers; features of `pairs` take the
    place of waveforms and tokens, and whole clips that of crops then.

    Raises:
        EarshotError: too few pairs for a batch, or a batch that processes cannot share evenly;
            while iterating: the audio of a clip is absent or broken.
    """
    sampler = PairSampler(pairs.clip_of, config, seed=seed, rank=rank, world=world)
    crops = Crops(crop_s=config.crop_s, pad_to_crop=config.pad_to_crop, seed=seed, epoch=epoch)
    return Loader(pairs, sampler.steps(epoch, start_step), crops, tokenize, config.workers)
