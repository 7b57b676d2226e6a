"""The library as tools for agents, through the official client: over HTTP, pipes, in process."""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, stdio_client
from served import run_environment, serving

from earshot.search import Searcher
from earshot.server import ServerConfig
from earshot.server.desk import Desk
from earshot.server.mcp import create_mcp

TOOLS = {"search", "similar", "describe_library"}


async def use_all_tools(client: Client, library: Path) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == TOOLS
    assert all(tool.description for tool in tools.values())
    assert tools["search"].input_schema["required"] == ["description"]

    async def call(name: str, **arguments: Any) -> dict[str, Any]:
        result = await client.call_tool(name, arguments)
        assert not result.is_error, result
        # Clients without structured results read the text.
        assert json.loads(result.content[0].text) == result.structured_content
        return result.structured_content

    found = await call("search", description="a tone", filters=["duration_s > 30"], k=3)
    assert [Path(hit["path"]).name for hit in found["hits"]] == ["long.flac"]
    moment = found["hits"][0]["moments"][0]
    assert 0 <= moment["start_s"] < moment["end_s"] <= 65.1
    alike = await call("similar", path=str(library / "tone.ogg"), k=2)
    assert len(alike["hits"]) == 2
    described = await call("describe_library")
    assert described["recordings"] == 16
    assert described["broken_files"] == 1


async def meet_errors(client: Client) -> None:
    """A wrong question is an answer that says what is wrong, not the end of the session."""
    for name, arguments, words in [
        ("search", {"description": " "}, "empty"),
        ("search", {"description": "rain", "filters": ["loudness > 3"]}, "duration_s"),
        ("search", {"description": "rain", "k": 0}, "greater"),
        ("similar", {"path": "/etc/passwd"}, "no recording '/etc/passwd'"),
        ("similar", {"path": "../../etc/passwd"}, "no recording '../../etc/passwd'"),
    ]:
        result = await client.call_tool(name, arguments)
        assert result.is_error
        assert words in result.content[0].text
    assert (await client.list_tools()).tools


def run(job: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(job(), timeout=120))


def test_over_http(library_index: Path, library: Path, home: Path) -> None:
    with serving(library_index, home) as (url, _):

        async def job() -> None:
            async with Client(f"{url}/mcp") as client:
                await use_all_tools(client, library)
                await meet_errors(client)

        run(job)


def test_over_pipes(library_index: Path, library: Path, home: Path) -> None:
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "earshot", "mcp", str(library_index)],
        env=run_environment(home),
    )

    async def job() -> None:
        async with Client(stdio_client(server)) as client:
            await use_all_tools(client, library)

    run(job)


def test_in_process_and_what_goes_wrong(
    library_index: Path, library: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EARSHOT_HOME", str(home))
    desk = Desk(Searcher.open(str(library_index)), ServerConfig())

    async def job() -> None:
        async with Client(create_mcp(desk)) as client:
            await use_all_tools(client, library)
            await meet_errors(client)

    run(job)
    desk.close()
