"""Models: a text tower and an audio tower into one space of unit vectors; loaded by name.

A name is one of `known_models`, a ready dual encoder of others (also on the hub, as OWNER/NAME), or
the folder of either kind or of an export.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from earshot.checkpoints import JOINT_ENCODERS, TAGGERS
from earshot.files import NotHereError, fetch
from earshot.model.folder import (
    DualModel,
    folder_kind,
    folder_settings,
    folder_weights,
    read_info,
)
from earshot.model.joint import JointModel
from earshot.model.labelled import NAMES as LABELLED
from earshot.model.labelled import LabelModel
from earshot.model.onnx_model import OnnxModel, is_export
from earshot.model.shortened import ShortenedModel
from earshot.model.tags import TagConfig, TagModel
from earshot.types import EarshotError, Manifest, Model
from earshot.weights import naming

DEFAULT_MODEL = "tags"
PACKAGED_MODEL = "pocket"  # All of it is in the package: what is left without a network.
# What transformers calls ready dual encoders.
JOINT_KINDS = ("clap", "pe_audio", "pe_audio_video")


def known_models() -> dict[str, TagConfig]:
    """The models that can be loaded by name."""
    others = {f"tags-{tagger}": TagConfig(tagger=tagger) for tagger in TAGGERS if tagger != "mn04"}
    return {"tags": TagConfig(), **others}


def load(name: str, device: str = "auto") -> Model:
    """Load a model by name or folder; `device` is auto, cpu, cuda or mps.

    A known name comes first: a folder that is called so is `./NAME`. OWNER/NAME is a dual encoder
    on the hub where there is no such path.

    Raises:
        EarshotError: an unknown name, or weights that are not to be had.
    """
    if name in JOINT_ENCODERS:
        return JointModel(name, device)
    if name in LABELLED:
        return LabelModel(name, device)
    if name in known_models():
        return TagModel(name, model_config(name), device)
    if is_export(Path(name)):
        return OnnxModel(Path(name), device)
    folder = best_of(Path(name))
    kind = folder_kind(folder)
    if kind == "earshot":
        return load_folder(folder, device)
    if kind in JOINT_KINDS or is_repository(name):
        return JointModel(name, device)
    return TagModel(name, model_config(name), device)


def load_for(manifest: Manifest, name: str | None = None, device: str = "auto") -> Model:
    """The model that an index was made with, where it says or by another `name` that it has now.

    Raises:
        EarshotError: it is not to be had, or is another one.
    """
    model = load(name or manifest.model, device)
    # Of another model the fingerprint tells, whatever its vectors could be shortened to.
    if 0 < manifest.shortened_from == model.dimension:
        model = ShortenedModel(model, manifest.dimension)
    require_same_model(manifest, model)
    return model


def load_default(device: str = "auto", tell: Callable[[str], None] = warnings.warn) -> Model:
    """The model for who asked for none: `tags`, or without its weights `pocket`, and says so.

    `tell` is told, in a line, that `pocket` stands in, what that costs and how to get `tags`.

    Raises:
        EarshotError: the weights of `tags` are here, or were fetched, but damaged.
    """
    try:
        fetch(TAGGERS[model_config(DEFAULT_MODEL).tagger].asset)
    except NotHereError as error:
        tell(
            f"using model {PACKAGED_MODEL}, which needs no download but finds less than "
            f"{DEFAULT_MODEL}: {error}; then ask for --model {DEFAULT_MODEL}"
        )
        return load(PACKAGED_MODEL, device)
    return load(DEFAULT_MODEL, device)


def is_repository(name: str) -> bool:
    """Whether a name is OWNER/NAME on the hub: published ones, and what looks like no path here."""
    if name in {card.repository for card in JOINT_ENCODERS.values()}:
        return not Path(name).exists()
    owner, _, rest = name.partition("/")
    return bool(re.fullmatch(r"\w[\w.-]*", owner) and re.fullmatch(r"[\w.-]+", rest)) and not (
        Path(owner).exists()
    )


def best_of(folder: Path) -> Path:
    """The model of a folder: of a training run, that of its best epoch."""
    best = folder / "best"
    return best if folder_kind(folder) == "" and folder_kind(best) == "earshot" else folder


def load_folder(folder: Path, device: str) -> Model:
    """The model of a folder that was trained or imported.

    Raises:
        EarshotError: it is not whole, or of a kind that this version does not know.
    """
    info = read_info(folder)
    if info.kind == "dual":
        return DualModel.load(folder, device)
    if info.kind == "tags":
        config, weights = folder_settings(folder, info, TagConfig), folder_weights(folder)
        with naming(folder):
            return TagModel(str(folder.resolve()), config, device, weights)
    raise EarshotError(f"{folder} holds a model of kind {info.kind!r}, unknown to this version")


def model_config(name: str) -> TagConfig:
    """The settings of a model by name.

    Raises:
        EarshotError: an unknown name.
    """
    models = known_models()
    if name not in models:
        known = [*models, *LABELLED, *JOINT_ENCODERS]
        close = get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise EarshotError(
            f"no model {name!r}; {hint}there are {', '.join(known)}, "
            f"and the folders of models that were trained or imported"
        )
    return models[name]


def model_manifest(
    model: Model, segment_s: float | None = None, hop_s: float | None = None
) -> Manifest:
    """What a store of this model's vectors says of itself.

    Segments are as long as the model hears at once, and half of that apart, unless told otherwise.

    Raises:
        EarshotError: segments that leave gaps, or that are longer than the model hears at once.
    """
    segment_s = model.segment_s if segment_s is None else segment_s
    hop_s = segment_s / 2 if hop_s is None else hop_s
    if not 0 < hop_s <= segment_s <= model.segment_s:
        raise EarshotError(
            f"segments of {segment_s:g} s every {hop_s:g} s: model {model.name} hears at most "
            f"{model.segment_s:g} s at once, and the hop must be above 0 and no longer than that"
        )
    return Manifest(
        model=model.name,
        fingerprint=model.fingerprint,
        dimension=model.dimension,
        segment_s=segment_s,
        hop_s=hop_s,
        shortened_from=model.model.dimension if isinstance(model, ShortenedModel) else 0,
    )


def require_same_model(manifest: Manifest, model: Model) -> None:
    """Refuse to mix vectors of different models.

    Raises:
        EarshotError: with the way out.
    """
    if manifest.fingerprint != model.fingerprint:
        raise EarshotError(
            f"the index was made with model {manifest.model} ({manifest.fingerprint[:8]}), not "
            f"with {model.name} ({model.fingerprint[:8]}), and their vectors do not compare; "
            f"make a new index: earshot index PATH... --to NEW --model {model.name}"
        )


def require_same_cut(manifest: Manifest, segment_s: float | None, hop_s: float | None) -> None:
    """Refuse other segments than an index has.

    Raises:
        EarshotError: with those that it has.
    """
    own = (manifest.segment_s, manifest.hop_s)
    asked = tuple(own[i] if value is None else value for i, value in enumerate((segment_s, hop_s)))
    if asked != own:
        raise EarshotError(
            f"the index has segments of {own[0]:g} s every {own[1]:g} s, not {asked[0]:g} s every "
            f"{asked[1]:g} s; leave --window and --hop out, or make a new index"
        )
