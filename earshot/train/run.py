"""The folder of a training run: what was asked, on what, how it went, what came out.

recipe.json       every setting; `earshot train FOLDER/recipe.json` runs it again
environment.json  versions, device, processes
data.json         what was trained on: sizes, a fingerprint of clips and captions, the teachers
metrics.jsonl     one line per epoch, also as metrics.csv
best/ last/       model folders
state.pt          what resuming needs
plots/            how loss, rate and metrics went
run.lock          held while it trains
"""

from __future__ import annotations

import csv
import errno
import io
import json
import platform
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from earshot import __version__
from earshot.datasets.index import clip_ids
from earshot.files import DRAFT, atomic_write, clear_drafts, locked
from earshot.model.folder import save_dual
from earshot.train.recipe import Recipe, recipe_from, resolved
from earshot.types import Dataset, EarshotError
from earshot.weights import read_torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earshot.model.dual import DualEncoder

STATE = "state.pt"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Written before recipe.json, which makes a run of a folder; all that an interrupted start leaves.
BEFORE_RECIPE = ("data.json", "environment.json")
LOCK = "run.lock"


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A run's folder; of several processes only the first writes."""

    path: Path
    writes: bool = True

    def require_new(self) -> None:
        """Check that a run can begin here.

        Raises:
            EarshotError: there is a run, or something else, in its place.
        """
        if not self.path.exists():
            return
        if self.path.is_dir() and all(map(is_of_a_start, self.path.iterdir())):
            return
        if (self.path / "recipe.json").is_file():
            raise EarshotError(
                f"{self.path} holds a run; go on with it by --resume, or name a new folder"
            )
        raise EarshotError(f"{self.path} holds other files; name a new folder")

    @contextmanager
    def held(self, *, new: bool) -> Iterator[None]:
        """Keep other runs out while this one trains; what a killed one left half is deleted.

        Raises:
            EarshotError: another process trains here, or there is a run though it is to be `new`.
        """
        if not self.writes:
            yield
            return
        busy = f"another process trains in {self.path}; wait for it, or name a new folder"
        with locked(self.path / LOCK, busy=busy):
            if new:
                self.require_new()
            clear_drafts(self.path)
            clear_drafts(self.path / "plots")
            yield

    def begin(self, recipe: Recipe, data: Mapping[str, Any]) -> None:
        """Note what a new run is of."""
        for name, value in zip(BEFORE_RECIPE, (data, environment()), strict=True):
            self.write_json(name, value)
        self.write_text("recipe.json", resolved(recipe) + "\n")

    def recipe(self) -> Recipe:
        """The recipe of a run that was begun.

        Raises:
            EarshotError: there is none.
        """
        path = self.path / "recipe.json"
        if not path.is_file():
            raise EarshotError(f"{self.path} holds no run to resume")
        with damage_named(path):
            return recipe_from(path.read_text(encoding="utf-8"))

    def data(self) -> dict[str, Any]:
        """What the run was begun on."""
        with damage_named(self.path / "data.json") as path:
            return dict(json.loads(path.read_text(encoding="utf-8")))

    def history(self) -> list[dict[str, Any]]:
        """The figures of the epochs so far."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the figures of all epochs, in both forms."""
        self.write_text("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        text = io.StringIO()
        table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        self.write_text("metrics.csv", text.getvalue())

    def save_model(self, kind: str, network: DualEncoder, about: dict[str, Any]) -> None:
        """Write the best or the last model."""
        if self.writes:
            with disk_errors(self.path):
                save_dual(network, self.path / kind, name=self.path.name, about=about)

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write what resuming needs; the one before stays until this is whole."""
        import torch

        if self.writes:
            with disk_errors(self.path), atomic_write(self.path / STATE) as file:
                torch.save(dict(state), file)

    def load_state(self) -> dict[str, Any]:
        """What `save_state` wrote; empty before the first.

        Raises:
            EarshotError: the file is damaged, or holds more than values; nothing in it was run.
        """
        path = self.path / STATE
        if not path.is_file():
            return {}
        with damage_named(path):
            found = read_torch(path)
        if not isinstance(found, dict):
            raise EarshotError(f"{path} holds no state of a run; delete it to begin its run anew")
        return found

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a small file."""
        self.write_text(name, json.dumps(value, indent=1) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a small file."""
        if self.writes:
            with disk_errors(self.path), atomic_write(self.path / name) as file:
                file.write(text.encode())


def is_of_a_start(path: Path) -> bool:
    """Whether an interrupted start may have left a file: before there is a recipe."""
    draft = DRAFT.fullmatch(path.name)
    return path.name in (*BEFORE_RECIPE, LOCK) or (
        draft is not None and draft["name"] in (*BEFORE_RECIPE, "recipe.json")
    )


@contextmanager
def damage_named(path: Path) -> Iterator[Path]:
    """Say which file cannot be read, whatever a reader makes of what is left of it.

    Raises:
        EarshotError: it is damaged.
    """
    try:
        yield path
    except EarshotError:
        raise
    except (OSError, ValueError, RuntimeError, EOFError, UnpicklingError) as error:
        raise EarshotError(
            f"{path} is damaged; put a copy in its place, or begin the run anew in another folder"
        ) from error


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """A full disk said plainly.

    Raises:
        EarshotError: it is full, or a quota or a limit on files is reached.
    """
    try:
        yield
    except Exception as error:
        if not any(is_full(reason) for reason in reasons(error)):
            raise
        raise EarshotError(
            f"no room is left on the disk of {folder}; what was saved before is whole: free some, "
            f"then go on by --resume"
        ) from error


def reasons(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it: torch and safetensors raise others than the disk's own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_full(error: BaseException) -> bool:
    """Whether an error tells of a disk without room; safetensors knows no codes but in its text."""
    if isinstance(error, OSError):
        return error.errno in FULL
    return any(f"(os error {code})" in str(error) for code in FULL)


def environment() -> dict[str, Any]:
    """What the run was computed with."""
    import torch

    packages = ("torch", "numpy", "transformers", "lightning-fabric", "soundfile", "soxr")
    return {
        "earshot": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in packages},
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
    }


def fingerprint(dataset: Dataset) -> dict[str, Any]:
    """What a dataset is, short: sizes, and a hash of clips, captions and relevance."""
    digest = sha256()
    for name in clip_ids(dataset):
        digest.update(f"{name}\n".encode())
    for caption in dataset.captions:
        fits = " ".join(sorted(dataset.relevance.get(caption.id, ())))
        digest.update(f"{caption.id}\t{caption.text}\t{fits}\n".encode())
    return {
        "name": dataset.card.name,
        "split": dataset.split,
        "clips": len(dataset.clips),
        "captions": len(dataset.captions),
        "share": dataset.share,
        "licence": dataset.card.licence,
        "research_only": dataset.card.research_only,
        "sha256": digest.hexdigest(),
    }
