"""Teachers: what trained models make of training data, stored once, for stage 2.

A model judges a clip against a caption by a cosine; an ensemble by the mean of its members'
(Primus et al.: "Estimated audio-caption correspondences improve language-based audio retrieval",
DCASE Workshop 2024). Only vectors are kept, one per clip and one per caption and teacher, so that
the room grows with the data and not with its square; they are mapped into memory.

    T/teachers.json           which models, which data, in which order
    T/0/audio.npy, text.npy   (N, D) and (Q, D) of the first teacher, and so on
    T/0/audio.parts/          what is done so far, while it is being made
    T/teach.lock              held while they are made

Clips and captions are known by their ids in the joined data, never by their text: two clips may
have the same caption.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earshot.batches import Pairs
from earshot.evaluate.scores import embed_captions, embed_clips
from earshot.files import DRAFT, atomic_write, clear_drafts, locked
from earshot.types import Clip, EarshotError, Model

if TYPE_CHECKING:
    import torch

LISTED, LOCK = "teachers.json", "teach.lock"
KEYS = ("teachers", "clips", "captions")
# So many clips or captions are computed, then kept, at a time: what a killed run loses at most.
PART = 512

Done = Callable[[str, int, int], None]


def teach(
    models: Sequence[Model],
    pairs: Pairs,
    folder: Path,
    *,
    workers: int | None = None,
    done: Done = lambda what, count, total: None,
) -> None:
    """Write what models make of data; what an interrupted run has done is kept.

    Raises:
        EarshotError: no model or clip, recordings that cannot be heard, a folder of others, or one
            that another process is writing.
    """
    if not models:
        raise EarshotError("give at least one run to be the teacher")
    clips, captions = pairs.clips, pairs.captions
    about = described(models, pairs)
    require_ours(folder)
    with locked(folder / LOCK, busy=f"{folder} is being written by another process; wait for it"):
        begin(folder, about)
        for number, model in enumerate(models):
            name, place = Path(model.name).name, folder / str(number)
            clear_drafts(place)
            hear = partial(heard, model=model, workers=workers)
            read = partial(embed_captions, model=model)
            compute(place / "audio", clips, hear, partial(done, f"{name}: clips"))
            compute(place / "text", captions, read, partial(done, f"{name}: captions"))


def require_ours(folder: Path) -> None:
    """Refuse to write teachers among other files.

    Raises:
        EarshotError: there are some.
    """
    if (folder / LISTED).is_file() or not folder.exists():
        return
    if not folder.is_dir() or any(
        path.name != LOCK and not DRAFT.fullmatch(path.name) for path in folder.iterdir()
    ):
        raise EarshotError(f"{folder} holds other files; name a new folder")


def described(models: Sequence[Model], pairs: Pairs) -> dict[str, Any]:
    """What the vectors of models for some data are known by."""
    captions = pairs.captions
    return {
        "teachers": [{"model": m.name, "fingerprint": m.fingerprint} for m in models],
        "clips": [clip.id for clip in pairs.clips],
        "captions": [caption.id for caption in captions],
        "texts": sha256("\n".join(caption.text for caption in captions).encode()).hexdigest(),
    }


def begin(folder: Path, about: Mapping[str, Any]) -> None:
    """Note what a folder is made of.

    Raises:
        EarshotError: it was begun with other teachers or other data.
    """
    clear_drafts(folder)
    listed = folder / LISTED
    if listed.is_file():
        if described_in(listed) != about:
            raise EarshotError(
                f"{folder} was made by other teachers or from other data; name a new folder"
            )
        return
    with atomic_write(listed) as file:
        file.write(json.dumps(about).encode())


def described_in(listed: Path) -> Any:
    """What the teachers of a folder are made of.

    Raises:
        EarshotError: the file is damaged.
    """
    try:
        described = json.loads(listed.read_text(encoding="utf-8"))
        return {key: list(described[key]) for key in KEYS} | {"texts": str(described["texts"])}
    except (ValueError, KeyError, TypeError) as error:
        raise EarshotError(f"{listed} is damaged; delete {listed.parent}, make it again") from error


def heard(clips: Sequence[Clip], model: Model, workers: int | None) -> np.ndarray:
    """The unit vectors of clips (N, D), in their order."""
    # The vectors come in the order of the ids.
    numbered = [Clip(id=f"{i:09}", path=clip.path) for i, clip in enumerate(clips)]
    return embed_clips(numbered, model, workers=workers).means()


def compute(
    place: Path,
    things: Sequence[Any],
    embed: Callable[[Any], np.ndarray],
    done: Callable[[int, int], None],
) -> None:
    """Embed things part by part into `place`.npy; parts that are there are not made again.

    Raises:
        EarshotError: a vector that is no finite direction.
    """
    whole, parts = place.with_suffix(".npy"), place.with_suffix(".parts")
    if whole.is_file():
        mapped(whole)
        shutil.rmtree(parts, ignore_errors=True)  # A kill may have come before.
        return
    files = []
    for start in range(0, len(things), PART):
        file = parts / f"{start:09}.npy"
        if not file.is_file():
            vectors = embed(things[start : start + PART]).astype(np.float32)
            if not np.isfinite(vectors).all() or not vectors.any(axis=1).all():
                raise EarshotError(f"{place}: a teacher's vector is not finite, or zero")
            with atomic_write(file) as target:
                np.save(target, vectors, allow_pickle=False)
        files.append(file)
        done(min(start + PART, len(things)), len(things))
    with atomic_write(whole) as target:
        write_joined(target, files, len(things))
    shutil.rmtree(parts, ignore_errors=True)


def write_joined(target: Any, files: Sequence[Path], count: int) -> None:
    """One array from its parts, of which one is held at a time."""
    dimension = mapped(files[0]).shape[1]
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, dimension)}
    np.lib.format.write_array_header_2_0(target, header)
    for file in files:
        target.write(mapped(file).astype("<f4").tobytes())


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """One teacher's vectors, mapped: `audio` (N, D), `text` (Q, D)."""

    name: str
    fingerprint: str
    audio: np.ndarray
    text: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Teachers:
    """An ensemble, with the place of each clip and caption in its arrays."""

    teachers: tuple[Teacher, ...]
    clips: Mapping[str, int]
    captions: Mapping[str, int]

    def for_pairs(self, pairs: Pairs) -> Judge:
        """The ensemble on the clips and captions of pairs, by their places there.

        Raises:
            EarshotError: the teachers have not heard or read some of it.
        """
        return Judge(
            teachers=self.teachers,
            clips=places(self.clips, [clip.id for clip in pairs.clips], "clip"),
            captions=places(self.captions, [caption.id for caption in pairs.captions], "caption"),
        )


def places(known: Mapping[str, int], keys: Sequence[str], what: str) -> np.ndarray:
    """Where things lie.

    Raises:
        EarshotError: some are unknown.
    """
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise EarshotError(
            f"the teachers do not know {len(unknown)} of {len(keys)} {what}s, first "
            f"{unknown[0]!r}; run `earshot teach` on this data"
        )
    return np.array([known[key] for key in keys], dtype=np.intp)


@dataclass(frozen=True, kw_only=True)
class Judge:
    """An ensemble on some data, by number: `clips` (N,) and `captions` (Q,) are rows."""

    teachers: tuple[Teacher, ...]
    clips: np.ndarray
    captions: np.ndarray

    def __call__(self, clip_ids: torch.Tensor, caption_ids: torch.Tensor) -> torch.Tensor:
        """The mean cosine of clips (M,) and captions (N,): (M, N) float32."""
        import torch

        rows, columns = clip_ids.cpu().numpy(), caption_ids.cpu().numpy()
        return torch.from_numpy(self.cosines(rows, columns)).to(clip_ids.device)

    def cosines(self, clips: np.ndarray, captions: np.ndarray) -> np.ndarray:
        """The mean cosine of clips (M,) and captions (N,) by number: (M, N) float32.

        Raises:
            EarshotError: a teacher's vector is zero, or no number.
        """
        total = np.zeros((len(clips), len(captions)), np.float32)
        for teacher in self.teachers:
            audio = unit(teacher.audio[self.clips[clips]])
            cosines = audio @ unit(teacher.text[self.captions[captions]]).T
            if not np.isfinite(cosines).all():
                raise EarshotError(
                    f"the teacher {teacher.name} has vectors that are zero or no numbers; "
                    f"run `earshot teach` into a new folder"
                )
            total += cosines
        return total / np.float32(len(self.teachers))

    def blocks(self, size: int = 256) -> Iterator[tuple[int, np.ndarray]]:
        """The cosines of all captions with all clips, (., N), some captions at a time."""
        everyone = np.arange(len(self.clips))
        for start in range(0, len(self.captions), size):
            some = np.arange(start, min(start + size, len(self.captions)))
            yield start, self.cosines(everyone, some).T


def mapped(path: Path) -> np.ndarray:
    """Vectors (., D) of a file, mapped.

    Raises:
        EarshotError: the file is damaged, or holds something else.
    """
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # its reader of headers raises errors of many kinds
        reason = (str(error).strip().splitlines() or [""])[0][:80]
        raise EarshotError(
            f"{path} holds no vectors ({reason}); delete it and run `earshot teach` again"
        ) from error
    if not isinstance(array, np.memmap) or array.dtype != np.float32 or array.ndim != 2:
        raise EarshotError(f"{path} holds no vectors; delete it and run `earshot teach` again")
    return array


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length one; what cannot be is no number."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def load_teachers(folder: Path) -> Teachers:
    """Open what `teach` wrote; the arrays are mapped, not read.

    Raises:
        EarshotError: there is nothing, or not all of it.
    """
    listed = folder / LISTED
    if not listed.is_file():
        raise EarshotError(f"{folder} holds no teachers; make them by `earshot teach`")
    described = described_in(listed)
    teachers = []
    for number, teacher in enumerate(described["teachers"]):
        arrays = [folder / str(number) / f"{side}.npy" for side in ("audio", "text")]
        for path in arrays:
            if not path.is_file():
                raise EarshotError(
                    f"{path} is missing: {teacher['model']} has not finished; "
                    f"run `earshot teach` again, it goes on where it stopped"
                )
        audio, text = map(mapped, arrays)
        named = {"name": teacher["model"], "fingerprint": teacher["fingerprint"]}
        teachers.append(Teacher(**named, audio=audio, text=text))
    return Teachers(
        teachers=tuple(teachers),
        clips={key: i for i, key in enumerate(described["clips"])},
        captions={key: i for i, key in enumerate(described["captions"])},
    )
