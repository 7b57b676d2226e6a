"""The project's promises about itself: what is installed, what the package ships, what runs."""

import importlib.metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_no_package_that_replaces_torch_is_installed() -> None:
    installed = {d.metadata["Name"].lower() for d in importlib.metadata.distributions()}
    assert not installed & {"torchaudio", "torchvision", "timm"}


def test_the_lock_pins_every_version() -> None:
    lines = (ROOT / "requirements.lock").read_text().split()
    assert all(line.count("==") == 1 for line in lines)
    assert "torch==2.13.0" in lines


def test_the_package_ships_its_data() -> None:
    from importlib.resources import files

    data = files("earshot") / "data"
    for name in ("audioset_tags.csv", "sound_lexicon.csv"):
        assert (data / name).is_file()
