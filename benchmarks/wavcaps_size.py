"""What a dataset of WavCaps' size costs: 403 050 clips, at full count, each of a twentieth second.

Clips are tones that are made as they are packed, so that nothing but the pack is written; captions
are drawn words, as many as WavCaps' have. Measured are, each in a fresh process:

- packing, killed (SIGKILL) on its way and gone on with; the seconds until it goes on;
- opening the pack, its dataset and its pairs, and the peak of memory with an epoch of metadata:
  the seconds and MiB beyond those of importing the same modules;
- a shuffled epoch: captions and clips in the order of training, and with their audio;
- going on in the middle of an epoch: its first batch is the one that was due, and its time;
- what is sent to a worker for a step, and what a worker holds of the metadata: nothing;
- vectors of a teacher, 403 050 x 1024 for clips and captions: opened and asked for batches;
- the same clips and captions from tables of WavCaps' form, without a pack, beside it.

    OMP_NUM_THREADS=1 python benchmarks/wavcaps_size.py [--clips 403050] [--scratch FOLDER]

It takes 6 GB of the disk at most, in a folder of its own below FOLDER, and removes them.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

RESULT = Path(__file__).with_suffix(".json")
RATE_HZ, SECONDS = 8_000, 0.05
SOURCES = {"FreeSound": 262_300, "AudioSet_SL": 108_317, "BBC_Sound_Effects": 31_201}
SOURCES |= {"SoundBible": 1_232}
SAID = (
    "a an the dog cat bird engine rain wind man woman child car train door water crowd music "
    "barks speaks sings passes rattles falls blows hums laughs rings splashes distance while then "
    "and followed by with loud soft metallic wooden indoors outdoors repeatedly briefly"
)
WORDS = SAID.split()
BATCH, DIMENSION, SEED = 32, 1024, 7


def names(count: int) -> Iterator[tuple[str, str]]:
    """Source and name of each clip, in WavCaps' proportions."""
    for source, size in SOURCES.items():
        for number in range(round(size * count / sum(SOURCES.values()))):
            yield source, f"Y{number:010d}" if source == "AudioSet_SL" else str(100_000 + number)


def write_tables(folder: Path, count: int) -> None:
    """Tables of WavCaps' form: what each clip is called, what is said of it, its keywords."""
    from earshot.datasets.wavcaps import TABLES

    drawn = random.Random(SEED)  # noqa: S311 - no secret
    entries: dict[str, list[dict[str, Any]]] = {source: [] for source in SOURCES}
    for source, name in names(count):
        entry = {
            "id": name,
            "caption": " ".join(drawn.choices(WORDS, k=drawn.randint(5, 13))).capitalize() + ".",
            "duration": round(drawn.uniform(1, 130), 3),
        }
        if source == "FreeSound":
            entry |= {"tags": drawn.choices(WORDS, k=6), "author": "somebody"}
        entries[source].append(entry)
    for source, listed in entries.items():
        (folder / source).mkdir(parents=True, exist_ok=True)
        (folder / source / TABLES[source]).write_text(json.dumps({"data": listed}))


class Tones:
    """A tone for each clip, by its name."""

    def state(self, clip: Any) -> str:
        """They never change."""
        return "made"

    def blocks(self, clip: Any, sample_rate_hz: int) -> Iterator[np.ndarray]:
        """A twentieth of a second."""
        times = np.arange(round(SECONDS * sample_rate_hz), dtype=np.float32) / sample_rate_hz
        yield np.sin(times * float(200 + hash(clip.id) % 3000)).astype(np.float32)


def tokenize(sentences: Any) -> Any:
    """Lengths: no tokenizer is measured here."""
    import torch

    return {"input_ids": torch.tensor([[len(sentence)] for sentence in sentences])}


def memory_mib(kind: str = "VmHWM") -> float:
    """The process's memory: VmHWM its peak, RssAnon what is its own alone at this moment."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(kind)).split()[1]) / 1024


class Clock:
    """Seconds that passed and that this process computed."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def seconds(self) -> dict[str, float]:
        """Both, since then."""
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        return {"seconds": round(wall, 3), "cpu_s": round(cpu, 3)}

    def rates(self, count: int) -> dict[str, float]:
        """How many things in each of both."""
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        return {"items_per_s": round(count / wall), "items_per_cpu_s": round(count / cpu)}


def begin() -> tuple[Clock, float, float]:
    """A clock, and the memory of a process that has imported all, its peak forgotten."""
    import torch

    from earshot import batches, datasets, teach, train

    assert all((torch, batches, datasets, teach, train))
    Path("/proc/self/clear_refs").write_text("5")
    return Clock(), memory_mib(), memory_mib("RssAnon")


def beyond(begun: tuple[Clock, float, float]) -> dict[str, float]:
    """Seconds since then, and memory beyond what was there."""
    return {
        **begun[0].seconds(),
        "peak_mib": round(memory_mib() - begun[1], 1),
        "own_mib": round(memory_mib("RssAnon") - begun[2], 1),
    }


def config(workers: int = 0) -> Any:
    """How batches are drawn."""
    from earshot.batches import BatchConfig

    return BatchConfig(pairs=BATCH, crop_s=10.0, workers=workers)


def opened(scratch: Path) -> Any:
    """The packed dataset as pairs."""
    from earshot.batches import Pairs
    from earshot.datasets import load, with_audio

    return Pairs([with_audio(load("wavcaps", scratch / "pack"))], RATE_HZ)


def first_batch(pairs: Any, start_step: int) -> str:
    """A hash of the first batch from a step on."""
    from hashlib import sha256

    from earshot.batches import loader

    read = loader(pairs, config(), tokenize, seed=SEED, epoch=1, start_step=start_step)
    batch = next(iter(read))
    parts = (batch.waveforms, batch.clip_ids, batch.caption_ids)
    return sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()


def measure_packing(scratch: Path) -> dict[str, Any]:
    """Pack what is not packed yet; it says when it goes on, and is what is killed."""
    from earshot.datasets import wavcaps
    from earshot.datasets.index import write_index
    from earshot.datasets.pack import Settings
    from earshot.datasets.packing import Progress, pack

    dataset = wavcaps.load(scratch / "tables")
    begun = begin()
    gone_on: list[dict[str, float]] = []
    already, clock = [0], Clock()

    def report(progress: Progress) -> None:
        if not gone_on:
            gone_on.append(clock.seconds())
            already[0] = progress.done - 1
        if progress.done % 10_000 == 0:
            print("packed", progress.done, file=sys.stderr, flush=True)

    settings = Settings(sample_rate_hz=RATE_HZ)
    pack(dataset.clips, scratch / "pack", settings, origin=Tones(), report=report)
    rates = clock.rates(len(dataset.clips) - already[0])
    # The audio is nowhere but in the pack: paths say so, as those of files that were removed.
    write_index(with_paths(dataset), "wavcaps", scratch / "pack" / "dataset")
    return {
        "already_packed": already[0],
        "until_first_clip": gone_on[0],
        **rates,
        **beyond(begun),
        "bytes": sum(p.stat().st_size for p in (scratch / "pack").rglob("*") if p.is_file()),
    }


def with_paths(dataset: Any) -> Any:
    """The dataset as if its clips had been files, of WavCaps' lengths of path."""
    from dataclasses import replace

    clips = [replace(c, path=f"/data/wavcaps/audio/{c.id}.flac") for c in dataset.clips]
    return replace(dataset, clips=clips)


def measure_opening(scratch: Path) -> dict[str, Any]:
    """Open pack, dataset and pairs."""
    from earshot.datasets import load
    from earshot.datasets.pack import Pack
    from earshot.train.run import fingerprint

    begun = begin()
    Pack(scratch / "pack")
    index = beyond(begun)
    dataset = load("wavcaps", scratch / "pack")
    whole = beyond(begun)
    pairs = opened(scratch)
    ready = beyond(begun)
    clock = Clock()
    fingerprint(dataset)
    counts = {"clips": len(pairs.clips), "captions": len(pairs)}
    noted = clock.seconds()
    return {**counts, "pack": index, "dataset": whole, "pairs": ready, "fingerprint": noted}


def measure_epoch(scratch: Path) -> dict[str, Any]:
    """A shuffled epoch: every caption and clip that is due, in order; then batches with audio."""
    from earshot.batches import PairSampler, loader

    begun = begin()
    pairs = opened(scratch)
    sampler = PairSampler(pairs.clip_of, config(), seed=SEED)
    clock = Clock()
    letters = count = 0
    for captions in sampler.steps(0):
        for place in captions.tolist():
            caption, clip = pairs[place]
            assert caption.clip_id == clip.id
            letters += len(caption.text)
            count += 1
    metadata = {**clock.rates(count), "items": count, "letters": letters, **beyond(begun)}
    clock = Clock()
    batches = loader(pairs, config(), tokenize, seed=SEED, epoch=0)
    heard = sum(len(batch) for batch in batches)
    audio = {**clock.rates(heard), **beyond(begun)}
    clock = Clock()
    ahead = loader(pairs, config(workers=2), tokenize, seed=SEED, epoch=0)
    heard = sum(len(batch) for batch in islice(ahead, 1500))
    helped = {"items_per_s": clock.rates(heard)["items_per_s"], **beyond(begun)}
    return {"metadata": metadata, "with_audio": audio, "with_two_workers": helped}


def measure_resuming(scratch: Path) -> dict[str, Any]:
    """The first batch from the middle of an epoch, and from its beginning for comparison."""
    from earshot.batches import PairSampler

    pairs = opened(scratch)
    steps = len(PairSampler(pairs.clip_of, config(), seed=SEED))
    times: dict[str, Any] = {}
    for name, step in (("first", 0), ("middle", steps // 2), ("last", steps - 1)):
        clock = Clock()
        found = first_batch(pairs, step)
        times[name] = {"sha256": found, **clock.seconds()}
    return {"steps": steps, **times}


def measure_reaching(scratch: Path) -> dict[str, Any]:
    """The batch in the middle of an epoch that was not interrupted."""
    from hashlib import sha256

    from earshot.batches import PairSampler, loader

    pairs = opened(scratch)
    middle = len(PairSampler(pairs.clip_of, config(), seed=SEED)) // 2
    batches = loader(pairs, config(), tokenize, seed=SEED, epoch=1)
    for step, batch in enumerate(batches):
        if step == middle:
            parts = (batch.waveforms, batch.clip_ids, batch.caption_ids)
            return {"sha256": sha256(b"".join(p.numpy().tobytes() for p in parts)).hexdigest()}
    raise AssertionError("an epoch has its middle")


def measure_workers(scratch: Path) -> dict[str, Any]:
    """What a worker is sent: the reader once, a step each time."""
    from earshot.batches import PairSampler
    from earshot.batches.loader import Crops, Reader, Steps

    pairs = opened(scratch)
    captions = PairSampler(pairs.clip_of, config(), seed=SEED).steps(0)[:1]
    clips = [pairs.clip_of[some] for some in captions]
    step = next(iter(Steps(recordings=pairs.recordings, clips=clips, captions=captions)))
    reader = Reader(pairs.recordings, Crops())
    return {"reader_bytes": len(pickle.dumps(reader)), "step_bytes": len(pickle.dumps(step))}


def measure_teachers(scratch: Path) -> dict[str, Any]:
    """Vectors of a teacher of the full count: opened, joined to the pairs, asked for batches."""
    import torch

    from earshot.batches import PairSampler
    from earshot.teach import load_teachers

    pairs = opened(scratch)
    write_teachers(scratch / "teachers", pairs)
    begun = begin()
    teachers = load_teachers(scratch / "teachers")
    loaded = beyond(begun)
    judge = teachers.for_pairs(pairs)
    del teachers
    joined = beyond(begun)
    steps = PairSampler(pairs.clip_of, config(), seed=SEED).steps(0)[:2000]
    clock = Clock()
    for captions in steps:
        judge(torch.from_numpy(pairs.clip_of[captions]), torch.from_numpy(captions))
    rates = clock.rates(len(steps) * BATCH)
    size = sum(path.stat().st_size for path in (scratch / "teachers").rglob("*.npy"))
    asked = {**rates, **beyond(begun)}
    return {"bytes": size, "loaded": loaded, "joined_to_pairs": joined, "asked": asked}


def write_teachers(folder: Path, pairs: Any) -> None:
    """Drawn vectors as `earshot teach` keeps them."""
    from earshot.teach import begin as begin_teachers
    from earshot.teach import described

    drawn = np.random.default_rng(SEED)
    begin_teachers(folder, described([], pairs) | {"teachers": [{"model": "t", "fingerprint": ""}]})
    (folder / "0").mkdir(exist_ok=True)
    for side, count in (("audio", len(pairs.clips)), ("text", len(pairs))):
        values = np.lib.format.open_memmap(
            folder / "0" / f"{side}.npy", mode="w+", dtype=np.float32, shape=(count, DIMENSION)
        )
        for start in range(0, count, 8192):
            rows = min(8192, count - start)
            values[start : start + rows] = drawn.standard_normal((rows, DIMENSION), np.float32)
        del values


def measure_tables(scratch: Path) -> dict[str, Any]:
    """Beside it: the same dataset from its tables."""
    from earshot.batches import Pairs
    from earshot.datasets import wavcaps

    begun = begin()
    dataset = wavcaps.load(scratch / "tables")
    loaded = beyond(begun)
    Pairs([dataset], RATE_HZ)
    return {"loaded": loaded, "pairs": beyond(begun)}


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "tables": measure_tables,
    "packing": measure_packing,
    "opening": measure_opening,
    "epoch": measure_epoch,
    "resuming": measure_resuming,
    "reaching": measure_reaching,
    "workers": measure_workers,
    "teachers": measure_teachers,
}


def process(part: str, scratch: Path) -> subprocess.Popen[str]:
    """A part of this script in a process of its own, whose strings always hash alike."""
    command = [sys.executable, __file__, "--part", part, "--scratch", str(scratch)]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def measured(part: str, scratch: Path) -> dict[str, Any]:
    """What a part found."""
    said, errors = process(part, scratch).communicate()
    if not said:
        raise RuntimeError(errors)
    found: dict[str, Any] = json.loads(said)
    print(part, json.dumps(found), flush=True)
    return found


def kill_on_the_way(scratch: Path, count: int) -> None:
    """Begin to pack, and kill it once a third is done."""
    run = process("packing", scratch)
    assert run.stderr is not None
    for line in run.stderr:
        if line.startswith("packed") and int(line.split()[1]) > count // 3:
            run.send_signal(signal.SIGKILL)
            break
    run.communicate()


def main() -> None:
    """Measure all, print and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=sum(SOURCES.values()))
    parser.add_argument("--scratch", type=Path, help="a folder with room; it is kept")
    parser.add_argument("--part", choices=list(PARTS))
    asked = parser.parse_args()
    if asked.part:
        print(json.dumps(PARTS[asked.part](asked.scratch)))
        return
    with TemporaryDirectory(dir=asked.scratch) as folder:
        scratch = Path(folder)
        write_tables(scratch / "tables", asked.clips)
        found: dict[str, Any] = {"tables": measured("tables", scratch)}
        kill_on_the_way(scratch, asked.clips)
        found |= {part: measured(part, scratch) for part in list(PARTS)[1:]}
    same = found["reaching"]["sha256"] == found["resuming"]["middle"]["sha256"]
    found["resumed_batch_is_the_one_due"] = same
    found["load_of_the_machine"] = os.getloadavg()
    RESULT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
