"""Groups of commands, one module each; `earshot.cli` puts them together."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def print_json(value: Any) -> None:
    """Print a value for another program; in ASCII, as names may hold what is no text."""
    print(json.dumps(value, indent=2))
