"""The clips' audio by number, from files or packs: all that a decoding process needs to know.

Kept apart from the pairs, because the part of it that a step needs is sent to a worker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isnan
from pathlib import Path

import numpy as np

from earshot import audio
from earshot.batches.draws import below
from earshot.datasets.pack import Pack
from earshot.types import AudioError, EarshotError

FILE = -1
NAMED_PROBLEMS = 3
CHECKED_TOGETHER = 4096


@dataclass(frozen=True, kw_only=True)
class Recordings:
    """N clips: `names` are paths where `pack_of` (N,) is FILE, else ids in the pack of that number.

    Names may be made as they are asked for; workers are sent those of the step at hand alone.

    `durations_s` (N,) is NaN where a file was not measured; it then is when a crop of it is drawn.
    """

    sample_rate_hz: int
    names: Sequence[str]
    pack_of: np.ndarray
    packs: tuple[Pack, ...]
    durations_s: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def only(self, clips: Sequence[int] | np.ndarray) -> Recordings:
        """Some of the clips, without the packs: small enough to be sent."""
        places = np.asarray(clips, dtype=np.int64)
        return Recordings(
            sample_rate_hz=self.sample_rate_hz,
            names=tuple(self.names[place] for place in places.tolist()),
            pack_of=self.pack_of[places],
            packs=(),
            durations_s=self.durations_s[places],
        )

    def waveform(self, clip: int, crop_samples: int | None = None, draw: int = 0) -> np.ndarray:
        """A clip as (T,) float32, or where it is longer a crop that `draw` (64 bits) places.

        Nothing but the crop is decoded (of most formats).

        Raises:
            EarshotError: the audio is absent or broken.
        """
        room = 0 if crop_samples is None else self.samples(clip) - crop_samples
        if crop_samples is None or room <= 0:
            return self.read(clip, 0, None)
        return self.read(clip, below(draw, room + 1), crop_samples)

    def read(self, clip: int, start: int, samples: int | None) -> np.ndarray:
        """Samples [start, start + samples) of a clip, fewer where it ends; None: to its end."""
        name, pack, rate_hz = self.names[clip], int(self.pack_of[clip]), self.sample_rate_hz
        if pack != FILE:
            return self.packs[pack].crop(name, start, samples)
        duration_s = None if samples is None else samples / rate_hz
        return audio.read(
            name, sample_rate_hz=rate_hz, start_s=start / rate_hz, duration_s=duration_s
        )

    def samples(self, clip: int) -> int:
        """A clip's length at the recordings' rate."""
        name, pack, rate_hz = self.names[clip], int(self.pack_of[clip]), self.sample_rate_hz
        if pack != FILE:
            return round(self.packs[pack].duration_s(name) * rate_hz)
        known = float(self.durations_s[clip])
        return int((audio.probe(name).duration_s if isnan(known) else known) * rate_hz)

    def state(self, clip: int) -> str:
        """What tells whether a clip's audio is still the same.

        Raises:
            EarshotError: it is not there.
        """
        name, pack = self.names[clip], int(self.pack_of[clip])
        if pack != FILE:
            self.packs[pack].duration_s(name)
            return self.packs[pack].entries[name].sha256
        try:
            stat = Path(name).stat()
        except OSError as error:
            raise AudioError(name, (error.strerror or str(error)).lower()) from error
        return f"{stat.st_size} bytes, {stat.st_mtime_ns} ns"

    def check(self, *, probe: bool, report: Callable[[int], None] | None = None) -> None:
        """See that all audio is at hand; with `probe` open every file and note its duration.

        `report` is told how many clips were looked at.

        Raises:
            EarshotError: some is not; the first ones are named with the reason.
        """
        problems = []
        with ThreadPoolExecutor() as pool:
            # Some at a time: half a million tasks that wait would fill the memory.
            for start in range(0, len(self), CHECKED_TOGETHER):
                some = range(start, min(start + CHECKED_TOGETHER, len(self)))
                found = pool.map(lambda clip: self.problem(clip, probe=probe), some)
                for number, problem in enumerate(found, start + 1):
                    if problem:
                        problems.append(problem)
                    if report:
                        report(number)
        if problems:
            named = "; ".join(problems[:NAMED_PROBLEMS])
            more = "; …" if len(problems) > NAMED_PROBLEMS else ""
            raise EarshotError(
                f"{len(problems)} of {len(self)} clips have no usable audio: {named}{more}; "
                f"mend them, or leave them out with earshot.datasets.with_audio"
            )

    def problem(self, clip: int, *, probe: bool) -> str:
        """Why a clip cannot be used; empty where nothing speaks against it."""
        name, pack = self.names[clip], int(self.pack_of[clip])
        try:
            if pack != FILE:
                self.packs[pack].duration_s(name)
            elif probe:
                self.durations_s[clip] = audio.probe(name).duration_s
            elif not Path(name).is_file():
                return f"{name}: no such file"
        except EarshotError as error:
            return str(error)
        return ""
