"""The command line: each command parses, calls one function, prints.

Heavy rooms are imported inside the commands, so that `earshot --help` answers at once.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import TyperException

from earshot import __version__
from earshot.commands import Device, Json, Workers, judge, library, print_json
from earshot.commands import search as searching
from earshot.commands import serve as serving
from earshot.commands import teach as teaching
from earshot.commands import train as training
from earshot.commands.data import EXTRAS as DATA_EXTRAS
from earshot.commands.data import app as data
from earshot.commands.index import index
from earshot.commands.soundscape import soundscape
from earshot.terminal import printable, say
from earshot.types import EarshotError

if TYPE_CHECKING:
    from earshot.types import Model

app = typer.Typer(
    name="earshot",
    help="Find sounds by description: index a sound library, search it with words.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(index)
data.command()(soundscape)
app.add_typer(data, name="data")
# What a shell expects of a program that Ctrl-C ended.
INTERRUPTED = 130


def main() -> None:
    """Run a command; a user's error is one line and exit code 2."""
    # The matrix products of a query are small: threads would wait for each other more than work.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Lance warns of empty partitions, which are none of a user's concern.
    os.environ.setdefault("LANCE_LOG", "error")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # A terminal may not know every letter.
    try:
        code = app(standalone_mode=False)
    except (EarshotError, TyperException) as error:
        fail(error.format_message() if isinstance(error, TyperException) else str(error))
    except ModuleNotFoundError as error:
        extras = {"lancedb": "index", "pyarrow": "index", "av": "media", "watchfiles": "watch"}
        extras["pymilvus"] = "milvus"
        extras |= dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "export")
        extras |= DATA_EXTRAS | training.EXTRAS | serving.EXTRAS
        missing = (error.name or "").split(".")[0]
        if missing not in extras:
            raise
        fail(f"{missing} is not installed; run: pip install 'earshot[{extras[missing]}]'")
    except (OSError, UnicodeError) as error:
        fail(str(error))
    else:
        if code == INTERRUPTED:
            say("earshot: stopped; what was written stays, run it again", error=True)
        raise SystemExit(code)


def fail(message: str) -> None:
    """End with one line on standard error."""
    line = printable(message.replace("\n", " "))
    say(f"earshot: {line}", error=True)
    raise SystemExit(2) from None


def print_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        say(f"earshot {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Find sounds by description: index a sound library, search it with words."""


@app.command()
def embed(
    files: Annotated[list[Path], typer.Argument(help="Files or folders of recordings.")],
    out: Annotated[Path, typer.Option(help="The .npz file to write.")],
    model: Annotated[
        str | None, typer.Option(help="A model, else `tags`; see `earshot models`.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="An audio encoder alone instead: its vectors and logits.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="The encoder's weights; else the published ones.")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="One vector for a recording, if the encoder can do so.")
    ] = False,
    workers: Workers = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Write the vectors of recordings: ids, start_s, end_s, vectors (and an encoder's logits)."""
    from earshot.console import print_broken
    from earshot.embed import embed_to_file

    heard_by, logits_from = embedder(model, encoder, checkpoint, device, whole=whole)
    count, broken = embed_to_file(files, out, heard_by, workers=workers, logits_from=logits_from)
    if as_json:
        reported = [{"path": path, "reason": reason} for path, reason in broken.items()]
        print_json({"out": str(out), "segments": count, "broken": reported})
    else:
        say(f"{count} segments in {out}")
        print_broken(broken)


def embedder(
    model: str | None,
    encoder: str | None,
    checkpoint: Path | None,
    device: str,
    *,
    whole: bool = False,
) -> tuple[Model, int | None]:
    """What turns recordings into vectors, and where its logits begin in them, if it has any."""
    from earshot.console import print_note
    from earshot.model import load, load_default
    from earshot.model.single import SingleEncoder

    if encoder and model:
        raise EarshotError("give either --model NAME or --encoder NAME")
    if encoder:
        alone = SingleEncoder(encoder, checkpoint, device, whole=whole)
        return alone, alone.logits_from
    if checkpoint:
        raise EarshotError("--checkpoint is for --encoder NAME; a model has its own weights")
    if whole:
        raise EarshotError("--whole is for --encoder NAME; a model has its own segments")
    return load(model, device) if model else load_default(device, print_note), None


@app.command("import")
def import_(
    checkpoint: Annotated[Path, typer.Argument(help="The file of a public checkpoint.")],
    format: Annotated[
        str, typer.Option("--as", help="salsa, dcase2025, dcase2023, or a tagger's name.")
    ],
    to: Annotated[Path, typer.Option(help="The model folder to write.")],
    text: Annotated[
        str | None, typer.Option(help="The text encoder's folder or hub name, if another.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a model folder of a public checkpoint; nothing in the file is executed."""
    from earshot.model.imports import import_checkpoint

    info = import_checkpoint(checkpoint, format, to, text)
    if as_json:
        print_json({"to": str(to), "kind": info.kind, "settings": info.settings, **info.about})
    else:
        say(f"{to}: {info.about['source']}; use it with --model {to}")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A model by name or folder; see `earshot models`.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="As ONNX, for other runtimes.")] = False,
    to: Annotated[
        Path | None,
        typer.Option(help="The folder to write; the model's name with -onnx behind it."),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Matrix products in eight bits.")] = False,
    as_json: Json = False,
) -> None:
    """Write both towers of a model as ONNX, checked against it, with a tokenizer."""
    from earshot.console import print_export
    from earshot.model import load
    from earshot.model.export import export_onnx

    if not onnx:
        raise EarshotError("say in which format: --onnx is the one that there is")
    written = export_onnx(load(model, "cpu"), to or Path(f"{Path(model).name}-onnx"), int8=int8)
    if as_json:
        print_json(written.as_json())
    else:
        print_export(written)


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="Tell all about one model.")] = None,
    as_json: Json = False,
) -> None:
    """List what can be loaded: size, licence, source, hash, quality, whether it is here."""
    from earshot.console import print_model, print_models
    from earshot.model.listing import describe, listed

    described = [describe(name)] if name else listed()
    if as_json:
        print_json(described)
    elif name:
        print_model(described[0])
    else:
        print_models(described)


@app.command()
def demo(
    folder: Annotated[
        Path | None, typer.Argument(help="A folder of your own recordings to try it on.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make soundscapes, train, judge, index, search; or index and search a folder of yours."""
    from earshot.demo import run

    run(folder, as_json=as_json)


searching.register(app)
library.register(app)
judge.register(app)
training.register(app)
teaching.register(app)
serving.register(app)

if __name__ == "__main__":
    main()
