"""Model folders: what training and importing write, what `load` reads, what the hub expects.

    config.json        kind, name, every setting, the version that wrote it
    model.safetensors  all weights
    text/              the text tower's settings and tokenizer
    README.md          the model card
    calibration.safetensors    what its scores mean, once `earshot calibrate` has measured it

One idea: a folder is whole or not there. It is written beside its place and moved into it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import numpy as np

from earshot import __version__
from earshot.files import sha256_of, sync_folder
from earshot.model.inference import prepared
from earshot.model.tensors import audio_hash, hash_of, padded
from earshot.types import EarshotError
from earshot.weights import naming

if TYPE_CHECKING:
    from earshot.model.dual import DualEncoder, DualEncoderConfig

CONFIG, WEIGHTS, TEXT, CARD = "config.json", "model.safetensors", "text", "README.md"
CALIBRATION = "calibration.safetensors"
SEGMENT_S = 10.0
Settings = TypeVar("Settings")


@dataclass(frozen=True, kw_only=True)
class FolderInfo:
    """What a folder says of itself."""

    name: str
    kind: str
    version: str
    settings: dict[str, Any]
    about: dict[str, Any]
    """Where the weights come from, their licence, how good they were measured to be."""


def folder_kind(folder: Path) -> str:
    """Whose model a folder holds: `earshot`, a type of transformers, or nothing that is known."""
    try:
        stored = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ""
    if not isinstance(stored, dict):
        return ""
    return "earshot" if "earshot" in stored else str(stored.get("model_type", ""))


def read_info(folder: Path) -> FolderInfo:
    """What a folder says of itself.

    Raises:
        EarshotError: it is no model folder.
    """
    try:
        stored = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return FolderInfo(
            name=stored["name"],
            kind=stored["kind"],
            version=stored["earshot"],
            settings=stored["settings"],
            about=stored.get("about", {}),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise EarshotError(
            f"{folder} is no model folder ({type(error).__name__}: {error}); "
            f"expected {CONFIG}, {WEIGHTS} and {TEXT}/ as earshot writes them"
        ) from error


def write_folder(folder: Path, info: FolderInfo, fill: Callable[[Path], None]) -> None:
    """Write a model folder; `fill` puts the weights and what else there is into it.

    A model that is there is replaced when the new one is whole.

    Raises:
        EarshotError: the place holds something that is no model, or cannot be written.
    """

    def fill_and_describe(draft: Path) -> None:
        fill(draft)
        stored: dict[str, Any] = {"earshot": info.version, "name": info.name, "kind": info.kind}
        stored |= {"settings": info.settings, "about": info.about}
        (draft / CONFIG).write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")

    write_whole(require_replaceable(folder), fill_and_describe, ours=True)


def write_whole(folder: Path, fill: Callable[[Path], None], *, ours: bool) -> None:
    """Fill a folder beside its place and move it there, in place of an older one that is `ours`.

    Raises:
        EarshotError: the place holds something else, or cannot be written.
    """
    folder = folder.resolve()
    if folder.exists() and not ours and (not folder.is_dir() or any(folder.iterdir())):
        raise EarshotError(f"{folder} holds other files; name a new or an empty folder")
    draft = folder.with_name(f".{folder.name}.{uuid4().hex}")
    try:
        draft.mkdir(parents=True)
        fill(draft)
        for path in draft.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            elif path.is_dir():
                sync_folder(path)
        sync_folder(draft)
        exchange(draft, folder)
        sync_folder(folder.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # Who writes more than a model says it for all.
        raise EarshotError(
            f"{folder} cannot be written ({error.strerror or error}); name another folder"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def require_replaceable(folder: Path) -> Path:
    """The place of a new model, links followed: free, empty, or a model and nothing else.

    Raises:
        EarshotError: to write there would destroy something else, or cannot be done.
    """
    folder = folder.resolve()
    above = next(place for place in (folder, *folder.parents) if place.exists())
    if not above.is_dir():
        raise EarshotError(f"{above} is a file; name a new or an empty folder")
    if folder == Path.cwd():
        raise EarshotError(f"{folder} is the folder you are in; name a new one")
    if above == folder:
        inside = {path.name for path in folder.iterdir()}
        own = (
            {CONFIG, WEIGHTS, TEXT, CARD, CALIBRATION}
            if folder_kind(folder) == "earshot"
            else set()
        )
        if foreign := sorted(inside - own):
            raise EarshotError(
                f"{folder} holds other files, such as {foreign[0]}; name a new or an empty folder"
            )
        above = folder.parent
    if not os.access(above, os.W_OK | os.X_OK):
        raise EarshotError(f"{above} cannot be written to; name another folder")
    return folder


def exchange(draft: Path, folder: Path) -> None:
    """Move a draft into its place; what stood there is deleted only once the draft is in."""
    old = draft.with_name(f"{draft.name}.old")
    if folder.exists():
        folder.rename(old)
    try:
        draft.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def save_dual(
    network: DualEncoder, folder: Path, *, name: str, about: dict[str, Any] | None = None
) -> None:
    """Write a dual encoder: settings, weights, tokenizer, card."""
    from safetensors.torch import save_file

    from earshot.model.card import render

    info = FolderInfo(
        name=name,
        kind="dual",
        version=__version__,
        settings=asdict(resolved(network)),
        about=about or {},
    )

    def fill(draft: Path) -> None:
        state = network.state_dict()
        # Shared tensors are stored once for each of their names.
        save_file(
            {key: value.contiguous().clone() for key, value in state.items()}, draft / WEIGHTS
        )
        network.text.network.config.save_pretrained(draft / TEXT)  # type: ignore[union-attr, operator]
        network.text.tokenize.tokenizer.save_pretrained(draft / TEXT)
        (draft / CARD).write_text(render(info), encoding="utf-8")

    write_folder(folder, info, fill)


def resolved(network: DualEncoder) -> DualEncoderConfig:
    """A network's settings with what its text folder decided.

    The folder that is written has none of the files which a Sentence-Transformers folder tells
    its pooling and length by.
    """
    config, text = network.config, network.text
    tower = replace(config.text.tower, pooling=text.pooling, max_tokens=text.max_tokens)
    return replace(config, text=replace(config.text, tower=tower))


def load_dual(folder: Path) -> DualEncoder:
    """Read a dual encoder that `save_dual` wrote, in evaluation mode.

    Raises:
        EarshotError: the folder is not whole, or its settings are unknown to this version.
    """
    import torch

    from earshot.encoders.loading import load_saved
    from earshot.model.dual import DualEncoder, DualEncoderConfig

    config = folder_settings(folder, read_info(folder), DualEncoderConfig)
    weights = folder_weights(folder)
    with torch.random.fork_rng(devices=[]), naming(folder):
        network = DualEncoder(config, folder / TEXT, pretrained=False)
    load_saved(network, weights, str(folder / CONFIG))
    return network.eval()


def folder_settings(folder: Path, info: FolderInfo, kind: type[Settings]) -> Settings:
    """The settings of a folder, each known and of its type; what is not there is as usual.

    Raises:
        EarshotError: a setting is unknown to this version, or no such value.
    """
    from pydantic import TypeAdapter, ValidationError

    written = f"it was written by earshot {info.version}, this is {__version__}"
    try:
        config = TypeAdapter(kind).validate_python(info.settings)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, ("settings", *first["loc"])))
        raise EarshotError(f"{folder / CONFIG}: {place}: {first['msg']}; {written}") from error
    if strange := unknown_key(info.settings, asdict(config)):  # type: ignore[call-overload]
        raise EarshotError(f"{folder / CONFIG}: settings.{strange} is unknown; {written}")
    return config


def folder_weights(folder: Path) -> Path:
    """The file of a folder's weights.

    Raises:
        EarshotError: it is not there.
    """
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise EarshotError(f"{folder} lacks {WEIGHTS}; it is not whole")
    return weights


def unknown_key(stored: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """The dotted name of the first stored setting that is not among the known ones, or nothing."""
    for key, value in stored.items():
        if key not in known:
            return key
        if isinstance(value, Mapping) and isinstance(known[key], Mapping):
            below = unknown_key(value, known[key])
            if below:
                return f"{key}.{below}"
    return ""


class DualModel:
    """A dual encoder for searching and judging: that of a folder, or a network at hand."""

    joins_segments = True

    def __init__(self, *, network: DualEncoder, name: str, fingerprint: str = "") -> None:
        self.network, self.name, self.fingerprint = network, name, fingerprint
        self.dimension: int = network.dimension
        self.sample_rate_hz: int = network.audio.sample_rate_hz
        self.segment_s: float = network.audio.encoder.segment_s or SEGMENT_S
        self.hop_s: float = network.config.audio.hop_s or self.segment_s

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> DualModel:
        """The model of a folder; its fingerprint is of all that vectors of recordings depend on.

        Raises:
            EarshotError: the folder is not whole.
        """
        network = prepared(load_dual(folder), device)
        model = cls(network=network, name=str(folder.resolve()))
        settings, weights = read_info(folder).settings, sha256_of(folder / WEIGHTS)
        model.fingerprint = hash_of(
            audio_hash(network.audio.encoder), weights, settings, model.segment_s, model.hop_s
        )
        return model

    def embed_text(self, sentences: Sequence[str]) -> np.ndarray:
        """Q sentences to unit vectors (Q, D) float32."""
        import torch

        network = self.network
        with torch.inference_mode():
            read = network.finished(network.text.embed(sentences).to(network.tau.device))
            return np.asarray(network.project_text(read).cpu().numpy())

    def embed_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """N mono waveforms of any lengths, float32 in [-1, 1], to unit vectors (N, D) float32."""
        import torch

        if not len(waveforms):
            return np.empty((0, self.dimension), dtype=np.float32)
        with torch.inference_mode():
            batch = padded(waveforms, str(self.network.tau.device))
            return np.asarray(self.network.embed_audio(*batch).float().cpu().numpy())
