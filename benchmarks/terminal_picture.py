"""Draw `docs/search.svg`: a real session in a terminal 80 columns wide.

EARSHOT_ASSETS=FOLDER python benchmarks/terminal_picture.py RECORDINGS
"""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).parent.parent / "docs" / "search.svg"
COMMANDS = (
    "earshot index sounds --to library",
    'earshot search library "a rooster crows" -k 3',
    'earshot search library "waves roll onto the beach" -k 3',
)


def main() -> None:
    console = Console(record=True, width=80, file=io.StringIO())
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "sounds").symlink_to(Path(sys.argv[1]).resolve())
        for line in COMMANDS:
            console.print(Text(f"$ {line}", style="bold"))
            command = [sys.executable, "-m", *shlex.split(line)]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
            shown = done.stdout.replace(f"{Path(sys.argv[1]).resolve()}/", "sounds/")
            console.print(Text(shown))
    svg = console.export_svg(title="earshot")
    # The fonts that rich would fetch from elsewhere; every reader has a monospace one.
    PICTURE.write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL))


if __name__ == "__main__":
    main()
