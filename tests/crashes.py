"""Commands as real processes that begin at once and may be killed at any moment.

One idea: a server imports the libraries once and forks a child for each command, which is in its
`main` after milliseconds and not after seconds. What is real: the child is a process in a session
of its own, runs all of the command's own code, and dies by SIGKILL. What is not: the moments of
starting Python and importing are never hit; nothing is written in them.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PRELOADED = (
    "torch",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "PIL.PngImagePlugin",
    "safetensors.torch",
    "transformers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.roberta.modeling_roberta",
    "transformers.models.roberta.tokenization_roberta",
    "scipy.signal",
    "soxr",
    "lancedb",
    "earshot.cli",
    "earshot.console",
    "earshot.datasets.packing",
    "earshot.migrate",
    "earshot.model.labelled",
    "earshot.recipes.demo",
    "earshot.teach",
    "earshot.train.plots",
    "earshot.train.start",
)
# Few files per commit, few clips per part: small data go through all that large data do.
SMALL = {
    "earshot.library.WRITE_FILES": 3,
    "earshot.datasets.packing.SYNC_CLIPS": 2,
    "earshot.teach.PART": 2,
    "earshot.features.BLOCK_ROWS": 2,
    "earshot.features.TEXT_BLOCKS": 2,
}
# Those by which root writes and reads where permissions do not let others.
CAPABILITIES = (1, 2, 3)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
CAPABILITY_VERSION = 0x20080522
POLL_S = 0.001
PANIC = re.compile(r"\nthread 'lancedb.*panicked at(?:.*\n)+?note: .*\n")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a command finds itself in, such as permissions that hold for root too, a wrong clock."""

    environment: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=lambda: SMALL)
    obeys_permissions: bool = False
    clock_shift_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended: its exit code, or the signal's number with a minus, and its words."""

    code: int
    output: str
    errors: str
    duration_s: float

    @property
    def refusal(self) -> str:
        """The one line of a user's error; anything else fails here."""
        # LanceDB tells of its panics by itself, before it raises one.
        said = PANIC.sub("", self.errors)
        lines = [line for line in said.splitlines() if line.strip()]
        assert self.code == 2, (self.code, self.errors)
        assert len(lines) == 1, self.errors
        assert lines[0].startswith("earshot: "), self.errors
        return lines[0]


class Run:
    """A command that was begun."""

    def __init__(self, server: Server, pid: int, told: tuple[Path, Path]) -> None:
        self.server, self.pid, self.told = server, pid, told
        self.began_s = time.monotonic()
        self.code: int | None = None

    def ended(self) -> bool:
        """Whether it has ended by now."""
        if self.code is None:
            self.code = self.server.ask({"ended": self.pid})
        return self.code is not None

    def kill(self) -> None:
        """End it by SIGKILL with all that it started."""
        if not self.ended():
            os.killpg(self.pid, signal.SIGKILL)

    def is_safe(self, path: Path) -> bool:
        """Whether a file was brought to the disk as it is."""
        stat = path.stat()
        line = f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"
        return line in Path(f"{self.told[0]}.synced").read_text().splitlines()

    def wait(self, limit_s: float = 300.0) -> Ended:
        """Wait for its end; one that hangs is killed, and fails here."""
        while not self.ended():
            if time.monotonic() - self.began_s > limit_s:
                self.kill()
                raise AssertionError(f"it hangs: {self.told[1].read_text()}")
            time.sleep(POLL_S)
        assert self.code is not None
        output, errors = (path.read_text(errors="replace") for path in self.told)
        return Ended(
            code=self.code,
            output=output,
            errors=errors,
            duration_s=time.monotonic() - self.began_s,
        )


class Server:
    """The process that has imported everything, and forks. Use with `with`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.begun = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONWARNINGS": "ignore",
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                "HF_HUB_OFFLINE": "1",
            },
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()

    def ask(self, asked: Mapping[str, Any]) -> Any:
        """Send a request, get its reply."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, words: Sequence[str | Path], conditions: Conditions) -> Run:
        """Begin a command."""
        self.begun += 1
        told = (self.folder / f"{self.begun}.out", self.folder / f"{self.begun}.err")
        pid = self.ask(
            {
                "words": list(map(str, words)),
                "environment": dict(conditions.environment),
                "settings": dict(conditions.settings),
                "obeys_permissions": conditions.obeys_permissions,
                "clock_shift_s": conditions.clock_shift_s,
                "told": list(map(str, told)),
            }
        )
        return Run(self, pid, told)

    def run(self, words: Sequence[str | Path], conditions: Conditions) -> Ended:
        """Run a command to its end."""
        return self.start(words, conditions).wait()


def serve() -> None:
    """Answer requests until nobody asks any more."""
    for name in PRELOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        asked = json.loads(line)
        if "words" in asked:
            reply: int | None = fork(asked)
        else:
            ended, status = os.waitpid(asked["ended"], os.WNOHANG)
            reply = os.waitstatus_to_exitcode(status) if ended else None
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
    os._exit(0)  # To take down all that was imported takes seconds.


def fork(asked: Mapping[str, Any]) -> int:
    """Begin a child; gives its id once it leads a group of its own."""
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        os.read(read, 1)
        os.close(read)
        return pid
    code: Any = 1
    try:
        os.setsid()
        for number, path in enumerate(asked["told"], 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.close(read)
        os.close(write)
        note_synced(f"{asked['told'][0]}.synced")
        code = child(asked)
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001 - a child must never go on as the server
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def child(asked: Mapping[str, Any]) -> int:
    """Run the command in the child."""
    from earshot.cli import main

    os.environ.update(asked["environment"])
    for name, value in asked["settings"].items():
        module, _, constant = name.rpartition(".")
        loaded = importlib.import_module(module)
        assert hasattr(loaded, constant), name
        setattr(loaded, constant, value)
    if asked["clock_shift_s"]:
        shift_clock(asked["clock_shift_s"])
    if asked["obeys_permissions"] and os.geteuid() == 0:
        obey_permissions()
        # Libraries have begun threads, which keep their rights; those of a child have none left.
        if pid := os.fork():
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    sys.argv = ["earshot", *asked["words"]]
    main()
    return 0


def note_synced(path: str) -> None:
    """Write down what is brought to the disk: a loss of power leaves that alone."""
    noted = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sync = os.fsync

    def fsync(file: Any) -> None:
        sync(file)
        stat = os.fstat(file if isinstance(file, int) else file.fileno())
        os.write(noted, f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns}\n".encode())

    os.fsync = fsync


def shift_clock(shift_s: float) -> None:
    """Let the wall clock be wrong; the monotonic one goes on."""
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + shift_s
    time.time_ns = lambda: now_ns() + round(shift_s * 1e9)


def obey_permissions() -> None:
    """Let root be held by permissions as any user is (capset(2)).

    Raises:
        OSError: the system does not do so.
    """

    class Header(ctypes.Structure):
        _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))

    class Set(ctypes.Structure):
        _fields_ = tuple((n, ctypes.c_uint32) for n in ("effective", "permitted", "inheritable"))

    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = Header(CAPABILITY_VERSION, 0), (Set * 2)()
    if libc.capget(ctypes.byref(header), sets):
        raise OSError(ctypes.get_errno(), "capget")
    for capability in CAPABILITIES:
        sets[0].effective &= ~(1 << capability)
        sets[0].permitted &= ~(1 << capability)
    if libc.capset(ctypes.byref(header), sets):
        raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    serve()
