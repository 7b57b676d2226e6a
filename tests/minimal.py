"""What works without any extra: `make test-minimal` runs it in an environment that has none."""

import importlib
import pkgutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import earshot
from earshot.datasets.soundscape import write_soundscapes
from earshot.library import index, open_or_create
from earshot.search import Searcher
from earshot.types import Question

OURS = metadata("earshot")
EXTRAS = sorted({*OURS.get_all("Provides-Extra", [])} - {"dev"})
MODULES = [one.name for one in pkgutil.walk_packages(earshot.__path__, "earshot.")]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "earshot", *map(str, words)], capture_output=True, text=True
    )


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_soundscapes(folder, split="test", scenes=6)
    return folder


def packages_of(extra: str) -> list[str]:
    """What only an extra asks for, by the package's own description."""
    found = map(Requirement, OURS.get_all("Requires-Dist", []))
    asked = [one for one in found if one.marker and one.marker.evaluate({"extra": extra})]
    return [one.name for one in asked if not (one.marker and one.marker.evaluate({"extra": ""}))]


def is_here(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def test_every_extra_is_read() -> None:
    assert is_here("numpy")
    assert len(EXTRAS) > 9
    assert "pymilvus" in packages_of("milvus")
    assert all(map(packages_of, EXTRAS))


@pytest.mark.parametrize("extra", EXTRAS)
def test_no_extra_is_here(extra: str) -> None:
    assert [package for package in packages_of(extra) if is_here(package)] == []


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_or_names_what_it_lacks(name: str) -> None:
    if name.endswith("__main__"):
        pytest.skip("it runs the program")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        assert missing != "earshot"
        pytest.skip(f"needs {missing}")


def test_a_folder_is_indexed_in_memory_and_searched(scenes: Path) -> None:
    store, model = open_or_create(":memory:", "pocket", "cpu")
    assert index([scenes], store, model).added == 6
    answer = Searcher(model, store).ask(Question(text="rain"), 3)
    assert len(answer.hits) == 3


def test_recordings_are_embedded_from_the_shell(scenes: Path, tmp_path: Path) -> None:
    done = run("embed", scenes, "--model", "pocket", "--out", tmp_path / "vectors.npz")
    assert (done.returncode, (tmp_path / "vectors.npz").is_file()) == (0, True), done.stderr


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("index", ("index", "SCENES", "--to", "library", "--model", "pocket")),
        ("milvus", ("index", "SCENES", "--to", "milvus:library.db", "--model", "pocket")),
        ("distributed", ("index", "SCENES", "--to", "library", "--model", "pocket", "--ray", "x")),
        ("serve", ("serve", "library")),
        ("serve", ("mcp", "library")),
        ("train", ("train", "demo", "--data", ".", "--out", "run")),
        ("export", ("export", "pocket", "--onnx", "--to", "graphs")),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(
    extra: str, words: tuple[str, ...], scenes: Path
) -> None:
    done = run(*(scenes if word == "SCENES" else word for word in words))
    assert done.returncode == 2
    assert f"pip install 'earshot[{extra}]'" in done.stderr
    assert done.stderr.count("\n") == 1
