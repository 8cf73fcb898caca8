"""The steps of rows, between workers, who know them by their place in the job, and the store, which knows their names.

Rules of this file:
1. A step that has ended is taken only from the worker that holds its row; what it came to is committed at the latest
   together with the row's outcome. What is told twice under one lease is counted once.
2. What was finished before travels with the lease of its row: it is looked up only where there can be anything, and
   never joined to a row whose bytes have changed since.
"""

import asyncio
from collections.abc import Callable, Sequence

from engine.config import Job
from engine.coordinator.feed import changed_input
from engine.core.commit import StepRow
from engine.core.errors import EngineError, InternalFault
from engine.core.ledger import LedgerRow
from engine.store import Store
from engine.wire.messages import StepLine

Then = Callable[[list[StepLine]], None]


class StepBook:
    """The steps of one run. Without a store nothing is kept of them. To be made, and used, on the loop."""

    def __init__(self, job: Job, store: Store | None, on_failure: Callable[[EngineError], None]) -> None:
        self._store = store if job.steps else None
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._numbers = [] if self._store is None else self._store.step_numbers(job.places)
        self._places = {number: place for place, number in enumerate(self._numbers)}
        self._may_find = self._store is not None and self._store.has_steps()

    def came_back(self) -> None:
        """Rows are open again that a worker had begun."""
        self._may_find = self._store is not None

    def rows_of(self, lines: Sequence[tuple[LedgerRow | None, StepLine]]) -> list[StepRow]:
        """As they are committed, each with its row; None for one that its worker no longer holds: that is left out."""
        if self._store is None:
            return []
        numbers = self._numbers
        return [
            StepRow(
                line.row,
                numbers[line.step],
                line.ok,
                line.data,
                line.attempts,
                line.tokens_in,
                line.tokens_out,
                held.digest,
                line.calls,
                line.latency_ms,
                line.model,
            )
            for held, line in lines
            if held is not None and 0 <= line.step < len(numbers) and _is_news(held, line.step)
        ]

    def find(self, rows: list[LedgerRow], then: Then) -> None:
        """Call ``then`` with what was finished of these rows before; at once where that can be nothing.

        A row whose bytes are not those that its steps were finished with stops the run: ``then`` is not called.
        """
        if not self._may_find:
            then([])
            return
        looking = self._loop.create_task(self._find(rows, then))
        looking.add_done_callback(self._looked)

    async def _find(self, rows: list[LedgerRow], then: Then) -> None:
        assert self._store is not None
        by_number = {row.row: row for row in rows}
        steps = await self._loop.run_in_executor(None, self._store.steps_of, list(by_number))
        places = self._places
        found = [one for one in steps if one.ok and one.step in places]
        for one in found:
            row = by_number[one.row]
            if one.digest != row.digest:
                raise changed_input(row.row, row.line)
        then(
            [
                StepLine(
                    one.row,
                    0,
                    places[one.step],
                    True,
                    one.data,
                    one.attempts,
                    one.tokens_in,
                    one.tokens_out,
                    one.calls,
                    one.latency_ms,
                    one.model,
                )
                for one in found
            ]
        )

    def _looked(self, looking: "asyncio.Task[None]") -> None:
        error = None if looking.cancelled() else looking.exception()
        if isinstance(error, EngineError):
            self._on_failure(error)
        elif isinstance(error, Exception):
            self._on_failure(InternalFault("looking up finished steps", error))


def _is_news(row: LedgerRow, step: int) -> bool:
    """Whether it is told of this step for the first time under the row's lease."""
    bit = 1 << step
    is_news = not row.told & bit
    row.told |= bit
    return is_news
