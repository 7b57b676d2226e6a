"""Public checkpoints into model folders: key by key, every weight of ours filled, no key ignored.

Formats of whole systems are `salsa`, `dcase2025` and `dcase2023`; every tagger of the catalogue is
a format by its own name and becomes a model that needs no training. Key names are those that the
public code gives its modules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earshot import __version__
from earshot.checkpoints import SYSTEMS, encoder_assets, sentence_folder
from earshot.encoders.tags import TAGS
from earshot.model.card import render
from earshot.model.folder import (
    CARD,
    WEIGHTS,
    FolderInfo,
    read_info,
    require_replaceable,
    save_dual,
    write_folder,
)
from earshot.model.import_settings import Parts, system_config
from earshot.model.tags import TagConfig
from earshot.types import EarshotError
from earshot.weights import naming, read_weights, without_prefix

if TYPE_CHECKING:
    from torch import Tensor

    from earshot.model.dual import DualEncoder, DualEncoderConfig
    from earshot.weights import WeightFile


@dataclass(frozen=True, kw_only=True)
class SystemFormat:
    """Where a published system keeps its parts, as prefixes of its keys.

    `published` is its name among the systems that can be had. `unused` are keys that its files
    hold and nobody needs; any other left over is an error.
    """

    published: str
    audio: str
    text: str
    audio_head: str
    text_head: str
    unused: tuple[str, ...] = ()


FORMATS = {
    "salsa": SystemFormat(
        published="salsa-2024",
        audio="audio_embedding_model.model.model.",
        text="sentence_embedding_model.",
        audio_head="project_audio.",
        text_head="project_sentence.",
        unused=(r"timing_tau", r"audio_token", r"posencode\..*", r"audio_output_projection\..*"),
    ),
    "dcase2025": SystemFormat(
        published="dcase2025-baseline",
        audio="audio_embedding_model.model.model.",
        text="text_embedding_model.",
        audio_head="audio_projection.",
        text_head="text_projection.",
    ),
    "dcase2023": SystemFormat(
        published="dcase2023-audio-encoder",
        audio="audio_enc.",
        text="",
        audio_head="",
        text_head="text_enc.fc.",
        unused=(r"text_enc\.embedding\.weight",),
    ),
}


def known_formats() -> list[str]:
    """What `earshot import --as` takes."""
    from earshot.encoders.catalogue import known_audio_encoders

    return [*FORMATS, *known_audio_encoders()]


def import_checkpoint(path: Path, format: str, to: Path, text: str | None = None) -> FolderInfo:
    """Write the model folder of a public checkpoint.

    `text` names the folder or hub repository of the text tower's settings and tokenizer, where it
    is not the published one.

    Raises:
        EarshotError: an unknown format, or a file that is not of this format.
    """
    if format not in known_formats():
        raise EarshotError(f"no format {format!r}; there are {', '.join(known_formats())}")
    require_replaceable(to)
    if format not in FORMATS:
        return import_tagger(path, format, to)
    found = read_weights(path)
    with naming(path):
        parts = split(path, FORMATS[format], found, format)
        config = system_config(format, parts)
    if text is None:
        text = config.text.tower.name
    network = build(config, sentence_folder(text), pretrained=format == "dcase2023")
    with naming(path):
        fill(network, parts)
    about = {"source": f"{path.name}, a checkpoint of {format}", **published(format)}
    save_dual(network, to, name=to.resolve().name, about=about)
    return read_info(to)


def published(format: str) -> dict[str, Any]:
    """What is known of the published checkpoint of a system's format."""
    system = SYSTEMS[FORMATS[format].published]
    return {"licence": system.asset.licence, "research_only": system.research_only}


def import_tagger(path: Path, encoder: str, to: Path) -> FolderInfo:
    """Write the model of a tagger's weights: no training, 527 tags.

    What the file says of its network is kept where it differs from the encoder's preset.

    Raises:
        EarshotError: the file does not fit the encoder, or the encoder is no tagger.
    """
    from safetensors.torch import save_file

    from earshot.encoders.catalogue import audio_encoder_config
    from earshot.model.dual import differing
    from earshot.model.networks import encoder_of

    preset = audio_encoder_config(encoder)
    require_tags(preset, encoder, path)
    network = encoder_of(encoder, read_weights(path))
    require_tags(network.config, f"the network in {path}", path, encoder)
    config = TagConfig(tagger=encoder, settings=differing(preset, network.config))
    info = FolderInfo(
        name=to.resolve().name,
        kind="tags",
        version=__version__,
        settings=asdict(config),
        about=about_tagger(encoder, path),
    )

    def fill(draft: Path) -> None:
        save_file(network.state_dict(), draft / WEIGHTS)
        (draft / CARD).write_text(render(info), encoding="utf-8")

    write_folder(to, info, fill)
    return info


def require_tags(config: Any, what: str, path: Path, encoder: str = "") -> None:
    """Refuse networks that have no words for what they hear.

    Raises:
        EarshotError: it is one.
    """
    if getattr(config, "classes", 0) != TAGS:
        raise EarshotError(
            f"{what} does not hear AudioSet's {TAGS} tags, so it cannot be asked in words; for "
            f"its vectors: earshot embed FILES... --encoder {encoder or what} --checkpoint {path}"
        )


def about_tagger(encoder: str, path: Path) -> dict[str, Any]:
    """What is known of a tagger's file; a licence is of the published file, by that file's name."""
    about = {
        "source": f"{path.name}, weights of {encoder}",
        "description": f"{encoder}, a tagger of AudioSet's {TAGS} tags, asked in words by way of "
        "the tags' names; nothing was trained for that.",
    }
    asset = encoder_assets().get(encoder)
    if asset is None:
        return about
    if path.name == asset.name:
        return about | {"licence": asset.licence}
    return about | {"licence": f"not known; the published {asset.name} has {asset.licence}"}


def split(path: Path, format: SystemFormat, file: WeightFile, name: str) -> Parts:
    """Take a file's state dict apart; nothing may be left over.

    Raises:
        EarshotError: a part is missing, or a key belongs to none.
    """
    state = file.tensors
    left = dict(state)
    join = {k: left.pop(k) for k in list(state) if k.startswith("audio_sequence.")}
    if join:
        own = ("audio_token", "posencode.", "audio_output_projection.")
        join |= {k: left.pop(k) for k in list(left) if k.startswith(own)}

    def take(prefix: str) -> dict[str, Tensor]:
        part = without_prefix(left, prefix) if prefix else {}
        for key in part:
            del left[prefix + key]
        if prefix and not part:
            raise EarshotError(
                f"{path} has no {prefix}*: no checkpoint of {name}; it begins with "
                f"{', '.join(list(state)[:3])}"
            )
        return part

    parts = Parts(
        audio=take(format.audio),
        text=take(format.text),
        audio_head=take(format.audio_head),
        text_head=take(format.text_head),
        join=join,
        temperature=left.pop("tau", None),
        told=file.settings,
    )
    strange = [k for k in left if not any(re.fullmatch(known, k) for known in format.unused)]
    if strange:
        raise EarshotError(f"{path} has {strange[0]}, which {name} has not; is it another version?")
    return parts


def build(config: DualEncoderConfig, text_folder: Path, *, pretrained: bool) -> DualEncoder:
    """The network of a config, its text tower with the folder's weights or with random ones."""
    from earshot.model.dual import DualEncoder

    return DualEncoder(config, text_folder, pretrained=pretrained)


def fill(network: DualEncoder, parts: Parts) -> None:
    """Load every part of a checkpoint into its place.

    Raises:
        EarshotError: weights are missing or of another size.
    """
    loaders: list[tuple[Any, Mapping[str, Tensor]]] = [
        (network.audio.encoder, parts.audio),
        (network.text, parts.text),
        (network.audio_head, parts.audio_head),
        (network.text_head, parts.text_head),
        (network.audio.transformer, parts.join),
    ]
    for part, state in loaders:
        if state:
            load: Callable[[Mapping[str, Tensor]], object] = part.load_public
            load(state)
    if parts.temperature is not None:
        network.tau.data.copy_(parts.temperature.reshape(()))
