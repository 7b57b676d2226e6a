"""Groups of commands, one module each; `earshot.cli` puts them together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from earshot.terminal import say

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Parallel workers; one per core.")]


def print_json(value: Any) -> None:
    """Print a value for another program; in ASCII, as names may hold what is no text."""
    say(json.dumps(value, indent=2, allow_nan=False))


@contextmanager
def counting(task: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show how many of a number are done; on a terminal only."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done: None
        return
    with Progress(console=console, transient=True) as bar:
        shown = bar.add_task(task, total=total)
        yield lambda done: bar.update(shown, completed=done)
