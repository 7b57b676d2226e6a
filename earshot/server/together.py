"""Work of several visitors done in one go: what comes while the last is being done goes together.

One thread does it all: several would only wait for each other, and questions that are asked
together cost less than each alone. Nobody waits for company: with nothing under way, work begins.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from anyio import to_thread

Task = TypeVar("Task")
Result = TypeVar("Result")

# Of so many, the last waits no longer than two rounds of them.
MOST = 16


class GoneError(Exception):
    """Who asked has gone; there is nobody to answer."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Waiting(Generic[Task, Result]):
    """A task, where its result goes, and whether anybody still wants it."""

    task: Task
    result: asyncio.Future[Result]
    is_gone: Callable[[], Awaitable[bool]]


class Together(Generic[Task, Result]):
    """Tasks done in batches by `work`, in the order that they came.

    `work` gives a result or an error for each task. Belongs to one event loop.
    """

    def __init__(
        self, work: Callable[[Sequence[Task]], Sequence[Result | Exception]], most: int = MOST
    ) -> None:
        self._work, self._most = work, most
        self._queue: deque[Waiting[Task, Result]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def do(self, task: Task, is_gone: Callable[[], Awaitable[bool]]) -> Result:
        """What comes of a task.

        Raises:
            GoneError: `is_gone` when its turn came.
            Exception: what its own work, or `is_gone`, ended with.
        """
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.append(Waiting(task=task, result=result, is_gone=is_gone))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await result

    async def _run(self) -> None:
        while batch := await self._next():
            done = await to_thread.run_sync(self._done, [waiting.task for waiting in batch])
            for waiting, result in zip(batch, done, strict=True):
                settle(waiting.result, result)

    def _done(self, tasks: Sequence[Task]) -> Sequence[Result | Exception]:
        """Results; where all of the work fails, that of each alone: one must not fail the rest."""
        try:
            return self._work(tasks)
        except Exception as error:  # noqa: BLE001 - whoever asked is told, and the others answered
            if len(tasks) == 1:
                return [error]
            return [result for task in tasks for result in self._done([task])]

    async def _next(self) -> list[Waiting[Task, Result]]:
        """The next tasks that somebody waits for."""
        batch: list[Waiting[Task, Result]] = []
        while self._queue and len(batch) < self._most:
            waiting = self._queue.popleft()
            if waiting.result.done():  # Given up.
                continue
            try:
                gone = await waiting.is_gone()
            except Exception as error:  # noqa: BLE001 - who asked is told, the others go on
                settle(waiting.result, error)
                continue
            if gone:
                settle(waiting.result, GoneError())
            else:
                batch.append(waiting)
        return batch


def settle(future: asyncio.Future[Result], result: Result | Exception) -> None:
    """Hand a result over, unless nobody waits for it any more."""
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
