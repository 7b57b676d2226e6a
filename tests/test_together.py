"""Work done together: in order, errors apart, nobody waited for who has gone."""

import asyncio
from collections.abc import Sequence
from threading import Event

import pytest

from earshot.server.together import GoneError, Together


class Doubling:
    """Doubles numbers, and remembers which it was given together; waits to be let go at first."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []
        self.may_begin = Event()

    def __call__(self, numbers: Sequence[int]) -> list[int | Exception]:
        assert self.may_begin.wait(30)
        self.rounds.append(list(numbers))
        if 13 in numbers:
            raise RuntimeError("thirteen fails all that it is done with")
        return [2 * n if n >= 0 else ValueError(f"{n} is negative") for n in numbers]


async def here() -> bool:
    return False


async def gone() -> bool:
    return True


async def asked(
    together: Together[int, int], work: Doubling, numbers: Sequence[int]
) -> list[int | BaseException]:
    """Results of numbers, all of which wait before the first is done."""
    tasks = [asyncio.create_task(together.do(n, here)) for n in numbers]
    await asyncio.sleep(0.05)
    work.may_begin.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_what_waits_is_done_together_in_order() -> None:
    work = Doubling()
    results = asyncio.run(asked(Together(work, most=4), work, range(10)))
    assert results == [2 * n for n in range(10)]
    assert [n for some in work.rounds for n in some] == list(range(10))
    assert len(work.rounds) < 10
    assert max(map(len, work.rounds)) == 4


def test_a_bad_task_does_not_fail_its_neighbours() -> None:
    work = Doubling()
    results = asyncio.run(asked(Together(work), work, [1, 2, -3, 13, 4]))
    assert [r for r in results if isinstance(r, int)] == [2, 4, 8]
    assert isinstance(results[2], ValueError)
    assert isinstance(results[3], RuntimeError)


def test_who_has_gone_is_not_worked_for() -> None:
    work = Doubling()
    together = Together(work)

    async def scene() -> None:
        first = asyncio.create_task(together.do(1, here))
        await asyncio.sleep(0.05)
        cancelled = asyncio.create_task(together.do(2, here))
        left = asyncio.create_task(together.do(3, gone))
        last = asyncio.create_task(together.do(4, here))
        await asyncio.sleep(0)
        cancelled.cancel()
        work.may_begin.set()
        assert (await first, await last) == (2, 8)
        with pytest.raises(GoneError):
            await left

    asyncio.run(scene())
    assert work.rounds == [[1], [4]]


def test_who_cannot_be_asked_holds_up_nobody() -> None:
    """Whether a visitor is there is read from the connection, which may end by any error."""
    work = Doubling()
    together = Together(work)

    async def unknown() -> bool:
        raise OSError("the line is dead")

    async def scene() -> list[int | BaseException]:
        tasks = [together.do(n, unknown if n == 2 else here) for n in (1, 2, 3)]
        work.may_begin.set()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)

    first, second, third = asyncio.run(scene())
    assert (first, third) == (2, 6)
    assert isinstance(second, OSError)


def test_it_goes_on_after_a_rest() -> None:
    work = Doubling()
    work.may_begin.set()
    together = Together(work)

    async def scene() -> list[int]:
        return [await together.do(n, here) for n in (1, 2)]

    assert asyncio.run(scene()) == [2, 4]
    assert work.rounds == [[1], [2]]
