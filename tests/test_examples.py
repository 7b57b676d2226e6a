"""What `examples/` shows, run as a user runs it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import test_encoders
import torch
from conftest import make_recordings, needs

from earshot.encoders.catalogue import FAMILIES, Family
from earshot.library import index, open_or_create
from earshot.notebook import Players
from earshot.types import Model

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, *arguments: str | Path) -> str:
    command = [sys.executable, EXAMPLES / name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def captioned(tmp_path: Path) -> Path:
    """Four recordings with a table of captions."""
    folder = tmp_path / "captioned"
    make_recordings(folder, 4)
    captions = ("a low hum", "a high whistle", "a low hum", "wind")
    rows = [f"00{number}.wav,{caption}" for number, caption in enumerate(captions)]
    (folder / "captions.csv").write_text("\n".join(["file_name,caption", *rows]))
    return folder


def test_every_example_is_run() -> None:
    text = Path(__file__).read_text()
    for path in EXAMPLES.iterdir():
        if path.suffix in (".py", ".ipynb"):
            assert f'"{path.name}"' in text, f"{path.name} has no test here"


def test_search_a_folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARSHOT_HOME", str(home))
    monkeypatch.setenv("EARSHOT_ASSETS", str(needs("models")))
    for path in sorted(needs("data/esc10/009-rooster").glob("*.ogg"))[:3]:
        (tmp_path / path.name).symlink_to(path)
    assert len(run("search_folder.py", tmp_path, "a rooster").splitlines()) == 3


def test_search_with_exclusion_and_filters(tmp_path: Path, random_model: Model) -> None:
    pytest.importorskip("lancedb", reason="the index on disk needs earshot[index]")
    make_recordings(tmp_path / "sounds", 4)
    uri = str(tmp_path / "index")
    store, model = open_or_create(uri, "tags-mn05", "cpu")
    index([tmp_path / "sounds"], store, model)
    first, *hits = run("search_filtered.py", uri, "a hum", "speech").splitlines()
    assert first.startswith(("found", "nothing sounds like that"))
    assert sorted(Path(line.split()[-1]).name for line in hits) == [
        f"00{number}.wav" for number in range(4)
    ]


def test_evaluate_a_table(captioned: Path, random_model: Model) -> None:
    lines = run("evaluate_csv.py", captioned, "tags-mn05").splitlines()
    assert any(re.match(r"mAP@10 +0\.\d{3}  \(0\.\d{3} to \d\.\d{3}\)", line) for line in lines)


def test_a_dataset_card(captioned: Path) -> None:
    card = run("dataset_card.py", captioned)
    assert card.startswith("# captioned\n")
    assert "- 4 clips, " in card
    assert "- captions that occur more than once: 1\n" in card


def example(name: str) -> dict[str, Any]:
    """The names that a program defines; nothing of its own main part runs."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(Path(name).stem, EXAMPLES / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Where dataclasses look their annotations up.
    spec.loader.exec_module(module)
    return vars(module)


def test_an_encoder_of_ones_own_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("add_encoder.py") == f"{torch.Size([2, 32])}\n"
    names = example("add_encoder.py")
    own = Family(network=names["Bands"], presets={}, tiny=names["BandsConfig"]())
    monkeypatch.setitem(FAMILIES, "bands", own)
    for asked in (
        test_encoders.test_shapes,
        test_encoders.test_a_clip_does_not_depend_on_its_batch,
        test_encoders.test_what_follows_a_clip_does_not_matter,
        test_encoders.test_a_clip_without_samples_is_a_silent_one,
        test_encoders.test_silence,
        test_encoders.test_training_reaches_every_weight,
        test_encoders.test_checkpointed_gradients_are_the_same,
    ):
        asked("bands")
    for samples in (1, 2, 400):
        test_encoders.test_very_short_clips("bands", samples)


def test_the_notebook(tmp_path: Path, random_model: Model) -> None:
    """Its cells in order; what the last line of one gives is what a notebook shows."""
    make_recordings(tmp_path / "recordings", 4)
    notebook = json.loads((EXAMPLES / "search.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell.get("outputs") for cell in notebook["cells"])
    names: dict[str, Any] = {}
    shown: list[Players] = []
    for number, cell in enumerate(cells):
        *rest, last = cell.rstrip().splitlines()
        body = "\n".join(rest if last.startswith(("players(",)) else [*rest, last])
        exec(body, names)
        if number == 0:
            names |= {"folder": str(tmp_path / "recordings"), "model_name": "tags-mn05"}
        if last.startswith("players("):
            shown.append(eval(last, names))
    assert len(shown) == 2
    assert all("<audio controls" in found._repr_html_() for found in shown)
