"""Rows that come on an event loop, for a run that reads its rows in a thread.

Rules of this file:
1. The caller's iterable is asked on the loop that its results are taken on, and nowhere else, one row at a time.
2. Once it is closed nothing waits for the iterable any more, however long it would have taken.
"""

import asyncio
import concurrent.futures
from collections.abc import AsyncIterable, Iterable, Iterator
from typing import Any, Final

from engine.core.errors import UsageError

_END: Final = object()


def readable(
    rows: Iterable[object] | AsyncIterable[object], loop: asyncio.AbstractEventLoop | None
) -> Iterable[object]:
    """The rows for a thread to read; asynchronous ones on ``loop``. Raises UsageError for these where there is no loop."""
    if isinstance(rows, Iterable):
        return rows
    if loop is None:
        raise UsageError(
            "The rows are asynchronous: they are read on an event loop. Use arun() or astream() of a Pool. Nothing was sent."
        )
    return AsyncRows(rows, loop)


async def let_go(rows: Iterable[object]) -> None:
    """Let asynchronous rows end; leave others as they are. To be called on their loop."""
    if isinstance(rows, AsyncRows):
        await rows.close()


class AsyncRows(Iterator[object]):
    """The rows of an asynchronous iterable, one after the other; to be iterated in a thread that is not the loop's."""

    def __init__(self, rows: AsyncIterable[object], loop: asyncio.AbstractEventLoop) -> None:
        self._rows = aiter(rows)
        self._loop = loop
        self._asking: asyncio.Task[Any] | None = None
        self._is_closed = False

    def __next__(self) -> object:
        """Wait for the next row. Raises whatever the iterable raises."""
        try:
            row = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
        except concurrent.futures.CancelledError:
            if not self._is_closed:
                raise
            row = _END
        if row is _END:
            raise StopIteration
        return row

    async def _next(self) -> object:
        if self._is_closed:
            return _END
        self._asking = asyncio.current_task()
        return await anext(self._rows, _END)

    async def close(self) -> None:
        """Ask for no more rows, and let the iterable end. To be called on the loop. Safe to call twice."""
        self._is_closed = True
        if self._asking is not None and not self._asking.done():
            self._asking.cancel()
            await asyncio.wait([self._asking])
        if (aclose := getattr(self._rows, "aclose", None)) is not None:
            await aclose()
