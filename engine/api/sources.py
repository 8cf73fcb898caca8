"""The rows of a pool as the sources of its runs: all of them, or those that failed.

Rules of this file:
1. Rows that can be read once are kept where they failed, and only there: to run these again nothing is read again.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path

from engine.api.asyncrows import let_go, readable
from engine.api.plans import RowsGiven
from engine.config import Job
from engine.core.errors import UsageError
from engine.rows import PartSource, RowsSource
from engine.store import Store


class Sources:
    """Makes them. ``ahead_max``: rows that are read before their results are taken."""

    def __init__(self, given: RowsGiven, job: Job, *, ahead_max: int) -> None:
        self.given = given
        self._state = Path(job.state)
        self._ahead_max = ahead_max
        self._row_bytes_max = job.limits.row_bytes_max
        self._failed: dict[int, object] = {}  # of rows that can be read once: those that failed, by number
        self._reading: Iterable[object] = ()

    def all(self, loop: asyncio.AbstractEventLoop | None, *, is_first: bool) -> RowsSource:
        """Every row; asynchronous ones are read on ``loop``. Raises UsageError for those that cannot be read (again)."""
        given = self.given
        if not is_first and not given.can_be_read_again:
            raise UsageError(
                "The rows of this pool came from an iterator, which can be read only once. Make a new Pool with new "
                "rows; with the same state= rows that are done are not sent again."
            )
        rows = self._reading = readable(given.rows, loop)
        return RowsSource(
            rows,
            ahead_max=self._ahead_max,
            row_bytes_max=self._row_bytes_max,
            again=given.again,
            total=given.total,
        )

    def part(self, failed: set[int]) -> PartSource:
        """The rows of these numbers. Raises UsageError where some cannot be had any more."""
        if self.given.can_be_read_again:
            rows = self.given.numbered(failed)
        else:
            known = self._failed
            missing = failed - known.keys()
            if missing:
                raise UsageError(
                    f"{len(missing)} rows failed in an earlier run, and this pool has not read them: their iterator "
                    "can be read only once. Run the pool first, or give the rows as a list."
                )
            rows = iter([(number, known[number]) for number in sorted(failed)])
        return PartSource(rows, ahead_max=self._ahead_max, row_bytes_max=self._row_bytes_max)

    def failed_numbers(self) -> set[int]:
        """The numbers of the rows that failed, and of those that were to be run again and are still open."""
        if not self._state.is_dir():
            return set()
        with Store.view(self._state) as store:
            failed = {row for row, _, ok in store.finished() if not ok}
        return failed.union(self._failed)

    def taken(self, number: int, row: object, *, ok: bool) -> None:
        """A row's result was taken."""
        if self._failed:
            self._failed.pop(number, None)
        if not ok and not self.given.can_be_read_again:
            self._failed[number] = row

    async def let_go(self) -> None:
        """Let asynchronous rows end."""
        await let_go(self._reading)
