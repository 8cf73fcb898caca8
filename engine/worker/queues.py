"""Rows that a worker holds and is not sending, and how many more it should ask for.

Rules of this file:
1. No I/O and no clock: times are arguments.
2. Due retries go before fresh rows: what was begun is finished first.
"""

import heapq
from collections import deque
from typing import Final

from engine.core.retry import RetryBudget
from engine.wire.messages import RowLine
from engine.worker.execute import RowRun

BATCH_S: Final = 0.3  # rows held beyond those in flight: what this worker finishes in that time
BATCH_MIN: Final = 4
RATE_OVER_S: Final = 0.25


class Queues:
    """Where a leased row may be while it is not in flight."""

    def __init__(self) -> None:
        self.fresh: deque[tuple[int, RowLine]] = deque()  # leased, not yet rendered
        self.due: deque[RowRun] = deque()  # to be sent again, now
        self._sleeping: list[tuple[float, int, RowRun]] = []  # heap by time
        self._serial = 0

    @property
    def sleeping_count(self) -> int:
        """Rows that wait for their back-off to end."""
        return len(self._sleeping)

    def sleep(self, run: RowRun, until: float) -> None:
        """Send a row again at ``until``."""
        self._serial += 1
        heapq.heappush(self._sleeping, (until, self._serial, run))

    def wake(self, now: float, budget: RetryBudget) -> None:
        """Whose time has come is due, as far as the run's retry budget goes."""
        while self._sleeping and self._sleeping[0][0] <= now:
            run = heapq.heappop(self._sleeping)[2]
            wait_s = budget.ask(now)
            if wait_s > 0.0:
                # The run's retries are used up for now: this one and those behind it wait, they do not fail.
                self.sleep(run, now + wait_s)
                break
            self.due.append(run)

    def spread(self, over: list[deque[RowRun]]) -> None:
        """Put what is due or sleeping into queues by lane."""
        for run in (*self.due, *(run for _, _, run in self._sleeping)):
            over[run.lane].append(run)
        self.due.clear()
        self._sleeping.clear()

    def empty(self) -> list[int]:
        """Forget every row, to be given back unsent; their numbers."""
        rows = [line.row for _, line in self.fresh]
        rows += [run.row for run in self.due]
        rows += [run.row for _, _, run in self._sleeping]
        for queue in (self.fresh, self.due, self._sleeping):
            queue.clear()
        return rows


class Flow:
    """How fast requests to one endpoint are begun, and what that makes a batch."""

    def __init__(self) -> None:
        self._rate = 0.0  # requests begun a second, lately
        self._launched = 0
        self.batch = BATCH_MIN  # what is begun in BATCH_S

    def launched(self) -> None:
        """A request was begun."""
        self._launched += 1

    def passed(self, elapsed_s: float) -> None:
        """Time has passed since this was last said; above 0."""
        self._rate += (self._launched / elapsed_s - self._rate) * min(1.0, elapsed_s / RATE_OVER_S)
        self._launched = 0
        self.batch = max(BATCH_MIN, int(self._rate * BATCH_S))


class Demand:
    """How many rows to ask for, so that what is held beyond those in flight stays one batch."""

    def __init__(self) -> None:
        self._wanted = 0  # rows asked for and not yet leased

    def leased(self, rows: int) -> None:
        """Rows have come."""
        self._wanted -= rows

    def missing(self, held: int, room: int, batch: int) -> int:
        """Rows to ask for now, counted as asked for: with ``held`` of them here and ``room`` for calls that need no permit."""
        held += self._wanted
        missing = batch + room - held
        if missing > 0 and (missing * 4 >= batch or held == 0):
            self._wanted += missing
            return missing
        return 0
