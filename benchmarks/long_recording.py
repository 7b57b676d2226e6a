"""Whether a search finds the second in a recording of three hours, and what indexing that takes.

Soundscapes are laid end to end: every event's place is known. For each kind of sound the recording
is searched by a noun and by a clause, and the hit's moments are compared with the events. A moment
is right if its middle lies within five seconds of an event of that sound; counted are

- queries: with a right moment among their first one, first five;
- moments: right ones among the first five (a moment that is not given counts as wrong);
- chance: right places if one were pointed at blindly, which is how dense the events are.

    EARSHOT_ASSETS=FOLDER python benchmarks/long_recording.py [--cuts 10/5 5/2.5]

Peak memory is that of `earshot index` in a process of its own, on 20 minutes and on all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from earshot.datasets.soundscape import RATE_HZ, SOURCES, describe_scenes, render
from earshot.datasets.soundscape.words import WORDS
from earshot.search import Searcher
from earshot.types import Moment, Question

RESULT = Path(__file__).with_suffix(".json")
LONG_S, SHORT_S = 3 * 3600.0, 20 * 60.0
WITHIN_S = 5.0
FIRST = 5
SCENES = 1800


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """When a sound is heard, in seconds."""

    start_s: float
    end_s: float


def record(path: Path, duration_s: float) -> dict[str, list[Span]]:
    """Write scenes end to end, at least `duration_s` of them; gives the events by sound."""
    events: dict[str, list[Span]] = {name: [] for name in SOURCES}
    at_s = 0.0
    with soundfile.SoundFile(path, "w", samplerate=RATE_HZ, channels=1, subtype="PCM_16") as file:
        for scene in describe_scenes("test", SCENES):
            wave = render(scene)
            file.write(np.round(np.clip(wave, -1, 1) * 32_767).astype(np.int16))
            for event in scene.everything:
                span = Span(start_s=at_s + event.start_s, end_s=at_s + event.end_s)
                events[event.source].append(span)
            at_s += len(wave) / RATE_HZ
            if at_s >= duration_s:
                return events
    raise ValueError(f"{SCENES} scenes are {at_s:.0f} s, not {duration_s:.0f} s")


def indexed(path: Path, to: Path, cut: tuple[float, float]) -> dict[str, float]:
    """Index a file in another process: seconds and peak memory."""
    command = [sys.executable, "-m", "earshot", "index", str(path), "--to", str(to), "--json"]
    command += ["--window", f"{cut[0]:g}", "--hop", f"{cut[1]:g}"]
    started_s = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"indexing ended with code {process.returncode}")
    return {
        "audio_s": round(soundfile.info(path).duration, 1),
        "seconds": round(time.monotonic() - started_s, 1),
        "peak_mib": round(usage.ru_maxrss / 1024, 1),
    }


def right(moment: Moment, events: Sequence[Span]) -> bool:
    """Whether the middle of a moment is near an event."""
    middle_s = (moment.start_s + moment.end_s) / 2
    return any(e.start_s - WITHIN_S <= middle_s <= e.end_s + WITHIN_S for e in events)


def by_chance(events: Sequence[Span], duration_s: float) -> float:
    """The share of a recording that is near an event."""
    near = np.zeros(int(duration_s * 10) + 1, bool)
    for event in events:
        near[max(0, int((event.start_s - WITHIN_S) * 10)) : int((event.end_s + WITHIN_S) * 10)] = 1
    return float(near.mean())


def found(index: Path, events: Mapping[str, Sequence[Span]], duration_s: float) -> dict[str, Any]:
    """What the searches find, as a whole and by sound."""
    searcher = Searcher.open(str(index))
    rows: list[dict[str, Any]] = []
    for source, spans in events.items():
        for text in (WORDS[source].nouns[0], WORDS[source].clauses[0]):
            (hit,) = searcher.ask(Question(text=text, by="sound"), k=1).hits
            good = [right(moment, spans) for moment in hit.moments[:FIRST]]
            lengths = [moment.end_s - moment.start_s for moment in hit.moments[:FIRST]]
            chance = by_chance(spans, duration_s)
            row = {"query": text, "source": source, "events": len(spans), "right": good}
            rows.append(row | {"chance": round(chance, 4), "length_s": lengths})
    return {
        "queries": len(rows),
        "right at 1": mean(row["right"][0] for row in rows),
        "right at 5": mean(any(row["right"]) for row in rows),
        "moments right of 5": mean(sum(row["right"]) / FIRST for row in rows),
        "moments given": mean(len(row["right"]) for row in rows),
        "chance of a moment": mean(row["chance"] for row in rows),
        "chance at 5": mean(1 - (1 - row["chance"]) ** FIRST for row in rows),
        "mean length_s": mean(np.mean(row["length_s"]) for row in rows),
        "missed": [row["query"] for row in rows if not any(row["right"])],
    }


def mean(values: Any) -> float:
    """The mean, rounded."""
    return round(float(np.mean(list(values))), 4)


def show(result: Mapping[str, Any]) -> None:
    """A line for each way of cutting, 80 columns wide."""
    print(f"{'window/hop':<12}{'at 1':>7}{'at 5':>7}{'of five':>9}{'length s':>10}", end="")
    print(f"{'20 min MiB':>12}{'3 h MiB':>9}{'x real time':>13}")
    for cut, row in result.items():
        speed = row["long"]["audio_s"] / row["long"]["seconds"]
        print(f"{cut:<12}{row['right at 1']:>7.3f}{row['right at 5']:>7.3f}", end="")
        print(f"{row['moments right of 5']:>9.3f}{row['mean length_s']:>10.1f}", end="")
        print(f"{row['short']['peak_mib']:>12.0f}{row['long']['peak_mib']:>9.0f}{speed:>13.0f}")
    row = next(iter(result.values()))
    print(f"by chance: {row['chance of a moment']:.3f} of places, {row['chance at 5']:.3f} at 5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", nargs="+", default=["10/5", "5/2.5"])
    cuts = parser.parse_args().cuts
    result: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record(folder / "short.wav", SHORT_S)
        events = record(folder / "long.wav", LONG_S)
        for cut in cuts:
            window_s, hop_s = map(float, cut.split("/"))
            parts = {}
            for part in ("short", "long"):
                to = folder / f"{part}-{window_s:g}-{hop_s:g}"
                parts[part] = indexed(folder / f"{part}.wav", to, (window_s, hop_s))
            result[cut] = found(to, events, parts["long"]["audio_s"]) | parts
    show(result)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
