"""The house keeps its plan: floors, no cycles, small functions, quick start."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "earshot"

# The digit is the floor; a module imports lower floors only, siblings never each other.
FLOORS = {
    "types": 0,
    "terminal": 0,
    "audio": 1,
    "text": 1,
    "conditions": 1,
    "cores": 0,
    "frontends": 1,
    "metrics": 1,
    "losses": 1,
    "schedules": 1,
    "calibrate": 1,
    "content": 1,
    "files": 1,
    "weights": 1,
    "checkpoints": 2,
    "examine": 2,
    "encoders": 2,
    "datasets": 2,
    "metadata": 2,
    "objects": 2,
    "model": 3,
    "batches": 3,
    "embed": 4,
    "features": 4,
    "store": 4,
    "folders": 3,
    "library": 5,
    "isolated": 6,
    "watch": 6,
    "migrate": 6,
    "cluster": 1,
    "shards": 6,
    "transfer": 5,
    "disagreement": 6,
    "notebook": 6,
    "search": 5,
    "evaluate": 5,
    "teach": 6,
    "train": 7,
    "recipes": 8,
    "console": 6,
    "remote": 7,
    "demo": 10,
    "commands": 9,
    "server": 7,
    "cli": 11,
}
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 400
MODULES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
            if node.module == "earshot":
                names = [f"earshot.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("earshot."))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    own = room(path)
    if own in ("__init__", "__main__"):
        return
    for other in imported_rooms(path):
        if other not in (own, "__version__"):
            assert FLOORS[other] < FLOORS[own], f"{own} (floor {FLOORS[own]}) imports {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_sizes(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{path}:{node.lineno} {node.name}: {lines} lines"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_one_module_prints(path: Path) -> None:
    """Other people's words must not command the terminal: `terminal.say` sees to it."""
    if path == PACKAGE / "terminal.py":
        return
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    lines = [call.lineno for call in calls if ast.unparse(call.func) == "print"]
    assert lines == [], "use earshot.terminal.say"


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("earshot.cli", ["numpy", "torch", "transformers", "lancedb", "pyarrow", "soundfile"]),
        ("earshot.types", ["numpy", "torch"]),
        ("earshot.schedules", ["torch"]),
        ("earshot.audio", ["torch", "transformers", "av"]),
        ("earshot.store", ["torch", "lancedb", "transformers"]),
    ],
)
def test_import_cost(module: str, heavy: list[str]) -> None:
    """What a module does not need is not imported with it."""
    if (
        not (PACKAGE / f"{room(PACKAGE / (module.split('.')[1] + '.py'))}.py").exists()
        and not (PACKAGE / module.split(".")[1]).is_dir()
    ):
        pytest.skip(f"{module} is not built yet")
    code = f"import sys, {module}; print(*[m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
