"""The command line for tests: within this process, which has loaded its libraries, or anew."""

import io
import os
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from earshot.cli import main

COLUMNS = "80"


def program(
    *arguments: str | bytes | Path, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does, in a process of its own: seconds of loading each time."""
    return subprocess.run(
        [sys.executable, "-m", "earshot", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": COLUMNS, **environment},
        timeout=300,
    )


def earshot(
    *arguments: str | bytes | Path, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command within this process: the same code, output and exit code, far sooner."""
    words = list(map(os.fsdecode, arguments))
    out, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("default")  # Told, as to a user, not raised.
        patch.setattr(sys, "argv", ["earshot", *words])
        for name, value in {"COLUMNS": COLUMNS, **environment}.items():
            patch.setenv(name, value)
        # What `main` sets is taken back with the rest.
        patch.setenv("OPENBLAS_NUM_THREADS", os.environ.get("OPENBLAS_NUM_THREADS", "1"))
        if cwd is not None:
            patch.chdir(cwd)
        with redirect_stdout(out), redirect_stderr(errors), pytest.raises(SystemExit) as ended:
            main()
    code = ended.value.code or 0
    assert isinstance(code, int)
    return subprocess.CompletedProcess(words, code, out.getvalue(), errors.getvalue())


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """A user's error: exit code 2, one line, no traceback."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("earshot: ")
    return lines[0]
