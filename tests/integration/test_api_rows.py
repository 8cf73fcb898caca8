"""Rows of every kind, through whole runs: asynchronous ones, mixed ones, and what a row is when a function gets it."""

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pools import ASK, provider, texts

import engine
from engine import Pool, UsageError
from engine.mock.answers import expected_answer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]


def echo(row: Any) -> Any:
    return row


async def arriving(count: int, ended: list[str]) -> AsyncIterator[str]:
    """Rows as they come from a queue or a socket."""
    try:
        for text in texts(count):
            await asyncio.sleep(0)
            yield text
    finally:
        ended.append("ended")


def test_asynchronous_rows_are_read_on_the_loop_that_takes_their_results() -> None:
    async def main() -> None:
        ended: list[str] = []
        with (
            provider("5ms", "400,match=row 123 ") as mock,
            Pool(ASK, arriving(300, ended), base_url=mock.base_url, procs=1) as pool,
        ):
            results = await pool.arun()
            assert [result.row for result in results] == texts(300) and ended == ["ended"]
            assert [result.index for result in results if not result.ok] == [123]
            assert results[5].value == expected_answer(texts(300)[5])
            assert [result.index for result in pool.retry_failed()] == [123]
            with pytest.raises(UsageError, match="can be read only once"):
                await pool.arun()

    asyncio.run(main())


def test_asynchronous_rows_end_when_nobody_wants_more_results_and_when_they_raise() -> None:
    async def forever(ended: list[str]) -> AsyncIterator[str]:
        try:
            for text in texts(3):
                yield text
            await asyncio.Event().wait()  # as a queue does that nobody fills
        finally:
            ended.append("ended")

    async def broken() -> AsyncIterator[str]:
        yield "one"
        raise ZeroDivisionError("no more")

    async def main() -> None:
        ended: list[str] = []
        with Pool(ASK, forever(ended), provider="mock", base_url="mock:latency=5ms", procs=1) as pool:
            async with aclosing(pool.astream()) as stream:  # type: ignore[type-var]
                async for result in stream:
                    assert result.ok
                    break
            assert ended == ["ended"]
            assert len(asyncio.all_tasks()) == 1
        with Pool(ASK, broken(), provider="mock", base_url="mock:latency=5ms", procs=1) as pool:
            with pytest.raises(ZeroDivisionError, match="no more"):
                await pool.arun()
            with pytest.raises(UsageError):
                pool.run()

    asyncio.run(main())


def test_a_call_without_a_loop_refuses_asynchronous_rows() -> None:
    with pytest.raises(UsageError, match="rows are asynchronous"):
        engine.map(echo, arriving(3, []), procs=1)  # type: ignore[arg-type]


def test_a_function_gets_of_a_row_what_json_can_say_of_it(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("one\ntwo\n")
    rows: list[Any] = [1, {"a": 2}, "x", (1, 2), Decimal("0.5"), datetime.date(2026, 1, 2), float("nan")]
    given = [1, {"a": 2}, "x", [1, 2], 0.5, "2026-01-02", None]
    results = engine.map(echo, [*rows, b"abc"], procs=1)
    assert [result.value for result in results[:-1]] == given
    assert all(result.ok for result in results[:-1])
    assert "bytes; decode them to text first" in results[-1].error
    with (tmp_path / "lines").open() as file:
        assert [result.value for result in engine.map(echo, file, procs=1)] == ["one", "two"]
