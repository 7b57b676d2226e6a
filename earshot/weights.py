"""Weight files of every kind, read without trusting them: nothing that is read can run code.

Files of torch go through its restricted unpickler, with a short list of plain classes that
Lightning and scientific scripts leave in theirs. A file of another kind is told by its first bytes.
"""

from __future__ import annotations

import argparse
import codecs
import collections
import pathlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earshot.types import EarshotError

if TYPE_CHECKING:
    from torch import Tensor

# First bytes, and what begins with them. Order matters only where one is the start of another.
SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"<!DOCTYPE", "a web page: the download did not give the file"),
    (b"<html", "a web page: the download did not give the file"),
    (b"7z\xbc\xaf'\x1c", "a 7z archive: unpack it first"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"GGUF", "a GGUF file"),
    (b"\x89HDF", "an HDF5 file (Keras?)"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"RIFF", "a WAV file"),
    (b"ID3", "an MP3 file"),
    (b"OggS", "an Ogg file"),
    (b"fLaC", "a FLAC file"),
    (b"%PDF", "a PDF file"),
    (b"\x7fELF", "a program"),
)
MOST_EXPANSION = 8
"""How many times its own size an archive of weights may unpack to; torch packs nothing."""


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """The tensors of a file, and what it says of itself: `cfg` or hyper-parameters, if any."""

    path: Path
    tensors: Mapping[str, Tensor]
    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Whatever is found wrong within begins with the path of the file that it is wrong with."""
    try:
        yield
    except EarshotError as error:
        if str(path) in str(error):
            raise
        raise EarshotError(f"{path}: {error}") from error


def read_weights(path: Path) -> WeightFile:
    """Read a state dict, bare or wrapped as PANNs, BEATs, DCASE 2023 and Lightning do.

    Names that `torch.compile` or data-parallel training changed get their own names back.

    Raises:
        EarshotError: not a file of weights (it says what it looks like), or more than weights.
    """
    if not path.is_file():
        raise EarshotError(f"{path} does not exist; give the file of the weights")
    with path.open("rb") as file:
        start = file.read(64)
    for signature, what in SIGNATURES:
        if start.lstrip().lower().startswith(signature.lower()):
            raise EarshotError(f"{path} is no file of weights but {what}")
    if not start:
        raise EarshotError(f"{path} is an empty file; replace it")
    if is_text(start):
        raise EarshotError(f"{path} is no file of weights but a text file (JSON?); replace it")
    if start[8:9] == b"{" and not start.startswith(b"PK"):
        tensors = own_names(path, read_safetensors(path))
        return WeightFile(path=path, tensors=tensors, kind="safetensors")
    return unwrapped(path, read_torch(path))


def is_text(start: bytes) -> bool:
    """Whether the first bytes of a file are words: a page, JSON, a message of a server."""
    try:
        letters = codecs.getincrementaldecoder("utf-8")().decode(start)  # It may end in a letter.
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter.isspace() for letter in letters)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        EarshotError: it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise EarshotError(f"{path} is a damaged safetensors file ({error}); replace it") from error


def read_torch(path: Path) -> Any:
    """What a file of torch holds, plain values and tensors alone.

    Raises:
        EarshotError: it is none, or holds objects that could run code; none of it was run.
    """
    import torch

    try:
        refuse_archive(path)
        with torch.serialization.safe_globals(plain_classes()):
            return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # noqa: BLE001 - every way in which a file can be no checkpoint
        lines = str(error).strip().splitlines()
        # Torch tells what it met behind advice to load it without looking.
        met = str(error).rpartition("WeightsUnpickler error:")[2].strip().splitlines()
        unsafe = next((line for line in lines if "GLOBAL" in line), "")
        reason = (unsafe or next(iter(met or lines), "")).strip()[:100]
        raise EarshotError(
            f"{path} is no checkpoint of tensors alone ({type(error).__name__}: {reason}); "
            f"nothing in it was run; replace it"
        ) from error


def plain_classes() -> list[Any]:
    """What is harmless to rebuild: values, paths and records without code of their own."""
    # Numpy's own constructors trust their bytes: an array of objects made of them would be an array
    # of pointers of the file's choosing. Of arrays nothing is needed, of numbers their value.
    packages = ("numpy.core", "numpy._core")
    numpy = [(NumpyKind, "numpy.dtype"), (Unread, "numpy.ndarray")]
    numpy += [(Unread, f"{package}.multiarray._reconstruct") for package in packages]
    values = [(numpy_value, f"{package}.multiarray.scalar") for package in packages]
    paths = [pathlib.PurePosixPath, (pathlib.PurePosixPath, "pathlib.PosixPath")]
    # Lightning's dictionary with attributes, read as the dictionary that it is.
    attributes = [
        (dict, "lightning.fabric.utilities.data.AttributeDict"),
        (dict, "lightning_fabric.utilities.data.AttributeDict"),
        (dict, "pytorch_lightning.utilities.parsing.AttributeDict"),
    ]
    records = [argparse.Namespace, collections.defaultdict, dict]
    return [*numpy, *values, *paths, *attributes, *records]


class Unread:
    """Stands for numpy's arrays, of which no weights are made: what they hold is passed over."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class NumpyKind:
    """Stands for numpy's `dtype`: what kind of number, in which order of bytes."""

    def __init__(self, code: object, *_: object) -> None:
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


def numpy_value(kind: NumpyKind, content: bytes) -> Any:
    """A single number of numpy's as Python's own.

    Raises:
        ValueError: it is none.
    """
    import numpy as np

    if not re.fullmatch(r"[biuf]\d{1,2}", kind.code):
        raise ValueError(f"{kind.code!r} is no kind of number")
    return np.frombuffer(content, f"{kind.order}{kind.code}", count=1).item()


def refuse_archive(path: Path) -> None:
    """Refuse archives that hold a program, or whose parts are far larger than they are.

    Raises:
        ValueError: it is one.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    if any(part.filename.endswith("/constants.pkl") for part in parts):
        raise ValueError("it is a TorchScript program")
    claimed = sum(part.file_size for part in parts)
    if claimed > MOST_EXPANSION * path.stat().st_size:
        raise ValueError(f"its parts unpack to {claimed} bytes, the file has far fewer")


def unwrapped(path: Path, content: Any) -> WeightFile:
    """The state dict within what a file holds.

    Raises:
        EarshotError: there is none.
    """
    if isinstance(content, tuple) and content and is_state_dict(content[0]):
        tensors = own_names(path, content[0])
        return WeightFile(path=path, tensors=tensors, kind="DCASE 2023 baseline")
    if not isinstance(content, Mapping):
        raise EarshotError(f"{path} holds no state dict of tensors but a {type(content).__name__}")
    if is_state_dict(content):
        return WeightFile(path=path, tensors=own_names(path, content), kind="state dict")
    for key, kind in (("state_dict", "Lightning"), ("model", "PANNs or BEATs")):
        if is_state_dict(content.get(key)):
            extra = {"label_dict": content["label_dict"]} if "label_dict" in content else {}
            settings = own_settings(path, content) | extra
            tensors = own_names(path, content[key])
            return WeightFile(path=path, tensors=tensors, kind=kind, settings=settings)
    listed = ", ".join(sorted(map(str, content))[:6]) or "nothing"
    raise EarshotError(f"{path} holds no state dict of tensors; it has {listed}")


def own_settings(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says of its network, by name.

    Raises:
        EarshotError: it says something else, and to guess would be to build another network.
    """
    for key in ("hyper_parameters", "cfg"):
        settings = content.get(key) or {}
        if isinstance(settings, argparse.Namespace):
            settings = vars(settings)
        if not isinstance(settings, Mapping):
            raise EarshotError(
                f"{path}: its {key} is a {type(settings).__name__}, not settings by name; "
                f"replace it by the published file"
            )
        if settings:
            return dict(settings)
    return {}


def is_state_dict(value: Any) -> bool:
    """Names with tensors, at least one."""
    import torch

    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in value.items())
    )


def own_names(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A network's own names, without what compiling and data-parallel training put into them.

    A `module.` that not all names begin with is a part of the network that is called so.

    Raises:
        EarshotError: two names become one, or what has a name is no plain array of real numbers.
    """
    bare = {key: ".".join(p for p in key.split(".") if p != "_orig_mod") for key in state}
    if all(name.startswith("module.") for name in bare.values()):
        bare = {key: name.removeprefix("module.") for key, name in bare.items()}
    own: dict[str, Tensor] = {}
    for key, name in bare.items():
        if name in own:
            raise EarshotError(f"{path} has two weights {name}, one of them as {key}; replace it")
        own[name] = require_plain(path, key, state[key])
    return own


def require_plain(path: Path, name: str, value: Tensor) -> Tensor:
    """Refuse what networks are not made of: sparse, complex, quantised, without content.

    Raises:
        EarshotError: it is such a tensor.
    """
    import torch

    dense = value.layout == torch.strided and not value.is_meta and not value.is_quantized
    if not dense or value.is_complex():
        kind = f"{value.dtype} {value.layout} on {value.device}".replace("torch.", "")
        raise EarshotError(f"{path}: {name} is no plain array of real numbers ({kind}); replace it")
    return value


def without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The part of a state dict whose names begin with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
