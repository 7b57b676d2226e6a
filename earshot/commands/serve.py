"""The commands that serve an index: to browsers and programs, and to agents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earshot.terminal import say
from earshot.types import EarshotError

if TYPE_CHECKING:
    from earshot.search import Searcher

Index = Annotated[str, typer.Argument(help="The index to serve.")]
MovedModel = Annotated[
    str | None, typer.Option(help="Where the index's model is now, if its folder was moved.")
]
# What comes with the extra `serve`, by the name under which it is imported.
EXTRAS = dict.fromkeys(
    ("fastapi", "starlette", "uvicorn", "python_multipart", "prometheus_client", "mcp"), "serve"
)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(serve)
    app.command()(mcp)


def serve(
    index: Index,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 is any free one.")] = 8000,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    token: Annotated[
        str,
        typer.Option(
            envvar="EARSHOT_TOKEN",
            help="What visitors must know; needed for other addresses. Users of this machine can "
            "read a command, but not its variables or the file.",
        ),
    ] = "",
    token_file: Annotated[
        Path | None, typer.Option(help="A file that holds the token, in its first line.")
    ] = None,
    root: Annotated[
        list[Path] | None,
        typer.Option(help="A folder whose files may be added and removed; repeatable."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", help="A name that the server is called by; repeatable."),
    ] = None,
    model: MovedModel = None,
) -> None:
    """Serve an index as a web page, an HTTP API and /mcp; Ctrl-C ends it."""
    import socket
    from threading import Thread

    from earshot.server import ServerConfig, create_app
    from earshot.server.running import listen, run
    from earshot.server.settings import require_token

    token = _token(token, token_file)
    require_token(host, token)
    names = (host, socket.gethostname(), *(name or ()))
    config = ServerConfig(token=token, hosts=names, roots=tuple(root or ()), isolated=True)
    taken = listen(host, port)
    app = create_app(
        _searcher(index, model),
        config,
        name=_name(index),
        reopen=lambda: _searcher(index, None),  # The new model was not moved.
    )
    Thread(target=app.state.desk.warm_up, daemon=True).start()
    shown = f"[{host}]" if ":" in host else host
    say(f"earshot: http://{shown}:{taken.getsockname()[1]}  (Ctrl-C ends it)")
    try:
        run(app, taken)
    except KeyboardInterrupt:
        return


def mcp(index: Index, model: MovedModel = None) -> None:
    """Offer an index to an agent: tools of the Model Context Protocol on standard input/output."""
    from earshot.server.desk import Desk
    from earshot.server.mcp import create_mcp
    from earshot.server.settings import ServerConfig

    searcher = _searcher(index, model)
    desk = Desk(searcher, ServerConfig(), _name(index), lambda: _searcher(index, None))
    try:
        create_mcp(desk).run("stdio")
    except KeyboardInterrupt:
        return
    finally:
        desk.close()


def _token(given: str, file: Path | None) -> str:
    """The token, of the option or of a file.

    Raises:
        EarshotError: it is given twice, or the file holds none.
    """
    if file is None:
        return given
    if given:
        raise EarshotError("the token is given twice; leave --token and EARSHOT_TOKEN away")
    try:
        line = file.read_text().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise EarshotError(f"cannot read the token from {file}: {reason.lower()}") from error
    if not line:
        raise EarshotError(f"{file} holds no token; write one into its first line")
    return line


def _searcher(index: str, model: str | None) -> Searcher:
    import torch

    from earshot.search import Searcher

    # Several searches run at once; each with threads of its own would wait for the others.
    torch.set_num_threads(1)
    return Searcher.open(index, model)


def _name(index: str) -> str:
    return index.rstrip("/").rpartition("/")[2]
