"""Where a model's calibration lies: in the package for the default one, else in its folder.

One file: the background in half precision, everything else in its header.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from earshot.calibrate import Calibration
from earshot.files import atomic_write
from earshot.model.folder import CALIBRATION
from earshot.types import EarshotError, Model

NUMBERS = ("slope", "intercept", "bar", "bar_per_doubling", "false_alarm_rate")


def calibration_of(model: Model) -> Calibration | None:
    """What a model's scores mean, if that was ever measured.

    A calibration that was made with other weights is passed over with a warning.

    Raises:
        EarshotError: the file is damaged.
    """
    path = calibration_path(model)
    if path is None or not path.is_file():
        return None
    found = read_calibration(path)
    if found.fingerprint != model.fingerprint or found.background.shape[1] != model.dimension:
        warnings.warn(
            f"{path} was made with other weights ({found.fingerprint[:8]}) than the model has "
            f"({model.fingerprint[:8]}) and is ignored; make a new one: earshot calibrate "
            f"{model.name} --data FOLDER",
            stacklevel=2,
        )
        return None
    return found


def calibration_path(model: Model) -> Path | None:
    """Where a model's calibration lies or would lie; nowhere for one that has no folder."""
    folder = Path(model.name)
    if folder.is_absolute():
        return folder / CALIBRATION
    packaged = Path(str(files("earshot"))) / "data" / "calibration" / f"{model.name}.safetensors"
    return packaged if packaged.is_file() else None


def write_calibration(calibration: Calibration, path: Path, about: Mapping[str, Any]) -> None:
    """Write a calibration, with what it was made of.

    Raises:
        EarshotError: the place cannot be written to.
    """
    from safetensors.numpy import save

    header = {"fingerprint": calibration.fingerprint, "about": json.dumps(dict(about))}
    header |= {name: repr(getattr(calibration, name)) for name in NUMBERS}
    background = np.ascontiguousarray(calibration.background.astype(np.float16))
    with atomic_write(path) as file:
        file.write(save({"background": background}, header))


def read_calibration(path: Path) -> Calibration:
    """Read what `write_calibration` wrote.

    Raises:
        EarshotError: it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header, background = file.metadata() or {}, file.get_tensor("background")
        numbers = {name: float(header[name]) for name in NUMBERS}
        return Calibration(
            background=background.astype(np.float32),
            fingerprint=header["fingerprint"],
            **numbers,
        )
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise EarshotError(
            f"{path} is damaged ({type(error).__name__}: {error}); delete it, or make a new one "
            f"with earshot calibrate"
        ) from error
