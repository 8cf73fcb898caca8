"""Rows of an event loop, read in a thread: what comes, what is raised, and that closing waits for nothing."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from engine import UsageError
from engine.api.asyncrows import AsyncRows, let_go, readable


async def count(end: int) -> AsyncIterator[int]:
    for number in range(end):
        await asyncio.sleep(0)
        yield number


async def listed(rows: Iterator[object]) -> list[object]:
    """All of them, as a thread reads them."""
    return await asyncio.to_thread(list, rows)


def test_rows_come_one_after_the_other_and_have_an_end() -> None:
    async def main() -> None:
        rows = AsyncRows(count(3), asyncio.get_running_loop())
        assert await listed(rows) == [0, 1, 2]
        assert await listed(rows) == []
        await rows.close()

    asyncio.run(main())


def test_what_the_iterable_raises_is_raised_where_it_is_read() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise ZeroDivisionError("enough")

    async def main() -> None:
        rows = AsyncRows(broken(), asyncio.get_running_loop())
        with pytest.raises(ZeroDivisionError, match="enough"):
            await listed(rows)

    asyncio.run(main())


def test_closing_waits_for_no_row_and_lets_the_iterable_end() -> None:
    told: list[str] = []

    async def main() -> None:
        waits = asyncio.Event()

        async def never() -> AsyncIterator[int]:
            try:
                yield 1
                waits.set()
                await asyncio.Event().wait()
            finally:
                told.append("ended")

        rows = AsyncRows(never(), asyncio.get_running_loop())
        reading = asyncio.create_task(listed(rows))
        await waits.wait()
        await let_go(rows)
        assert told == ["ended"]
        assert await reading == [1]
        await let_go(rows)
        assert await listed(rows) == []
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_rows_that_are_no_generator_have_nothing_to_close() -> None:
    class Numbers:
        def __init__(self) -> None:
            self.left = [3, 2, 1]

        def __aiter__(self) -> "Numbers":
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop()

    async def main() -> None:
        rows = readable(Numbers(), asyncio.get_running_loop())
        assert await listed(iter(rows)) == [1, 2, 3]
        await let_go(rows)

    asyncio.run(main())


def test_without_a_loop_they_are_refused_and_others_are_left_as_they_are() -> None:
    given: Any = [1, 2]
    assert readable(given, None) is given
    asyncio.run(let_go(given))
    with pytest.raises(UsageError, match=r"rows are asynchronous.*arun\(\) or astream\(\)"):
        readable(count(1), None)
