"""Waiting rows to the workers that ask for them, and reading on as they go.

Rules of this file:
1. A lease is committed before it is sent.
2. First come, first served; a worker is handed no more than it asked for.
3. Leasing waits for the disk, and reading waits for leasing, so that memory stays bounded.
"""

from collections import deque
from collections.abc import Callable

from engine.config import Job
from engine.coordinator.commits import Commits
from engine.coordinator.feed import Feed
from engine.coordinator.stepbook import Then
from engine.coordinator.supervise import Child
from engine.core.ledger import Lease as Leased
from engine.core.ledger import Ledger, LedgerRow
from engine.wire.link import Hub
from engine.wire.messages import Finished, Lease, RowLine, StepLine

BACKLOG_ROWS = 1024  # read ahead of what is leased, at least
STEP_BYTES_MAX = 32 * 1024 * 1024  # of finished steps in one message
BACKLOG_BYTES = 32 * 1024 * 1024
WRITER_ROWS_MAX = 20_000  # committed no faster than so many rows behind: leasing waits for the disk


class Leasing:
    """The way from the feed to the workers. ``on_change`` is called when rows came back."""

    def __init__(
        self,
        job: Job,
        *,
        hub: Hub,
        ledger: Ledger,
        commits: Commits,
        feed: Feed,
        children: list[Child],
        on_change: Callable[[], None],
        find_steps: Callable[[list[LedgerRow], Then], None] = lambda rows, then: then([]),
    ) -> None:
        """``find_steps``: what was finished of rows before, in a job of several steps."""
        self._lease_bytes_max = job.limits.lease_bytes_max
        self._hub = hub
        self._ledger = ledger
        self._commits = commits
        self._feed = feed
        self._children = children
        self._on_change = on_change
        self._find_steps = find_steps
        self._asking: deque[Child] = deque()  # workers with credit, in the order they asked
        self._on_the_way: dict[int, tuple[Child, int, list[int]]] = {}  # leases that were not sent yet
        self._reading = 1  # chunks asked for and not yet here
        self._stopped = False
        self.all_read = False

    def read(self, rows: list[LedgerRow]) -> None:
        """A chunk that was asked for has come."""
        self._reading -= 1
        self._ledger.offer(rows)
        self.serve()

    def stop(self) -> None:
        """Nothing more is leased or read; rows that were not handed out yet are given back."""
        self._stopped = True
        leases, self._on_the_way = self._on_the_way, {}
        back = [
            lease
            for child, key, rows in leases.values()
            if child.key == key and child.process is not None  # else its rows are lost already
            for lease in self._ledger.release(key, rows)
        ]
        if back:
            self._commits.released(back)

    def wants(self, child: Child, rows: int) -> None:
        """A worker asks for more rows."""
        if rows <= 0:
            return
        if child.want <= 0:
            self._asking.append(child)
        child.want += rows
        self.serve()

    def released(self, child: Child, rows: list[int]) -> None:
        """A worker gives rows back unsent."""
        self._commits.released(self._ledger.release(child.key, rows))
        self.serve()
        self._on_change()

    def serve(self) -> None:
        """Lease rows to the workers that asked, in the order they asked."""
        if self._stopped:
            return
        for _ in range(len(self._asking)):
            if self._commits.backlog > WRITER_ROWS_MAX:
                break
            child = self._asking.popleft()
            if child.process is None or child.want <= 0:
                continue
            lease = self._ledger.lease(child.key, child.want, self._lease_bytes_max)
            if lease is None:
                self._asking.append(child)
                continue
            child.want -= len(lease.rows)
            if child.want > 0:
                self._asking.append(child)
            self._open(child, lease)
        self._read_on()

    def _open(self, child: Child, leased: Leased) -> None:
        key, peer = child.key, child.peer
        lease, rows = leased.id, leased.rows
        lines = [RowLine(row.row, row.line, row.payload) for row in rows]
        numbers = [row.row for row in rows]

        def recorded() -> None:
            if lease in self._on_the_way:
                self._find_steps(rows, send)

        def send(done: list[StepLine]) -> None:
            is_open = self._on_the_way.pop(lease, None) is not None  # it was not given back by ``stop``
            # The worker may have died meanwhile: its rows are waiting again under another lease.
            if not is_open or child.key != key or child.process is None:
                return
            *ahead, done = _parts(done)
            if not all(self._hub.send(peer, Finished(steps=part)) for part in ahead):
                self.released(child, numbers)
                return
            message = Lease(lease=lease, rows=lines, done=done, is_trial=leased.is_trial)
            # The worker's queue is full or gone: the rows were never handed out.
            if not self._hub.send(peer, message):
                self.released(child, numbers)

        self._on_the_way[lease] = child, key, numbers
        self._commits.opened(lease, numbers, recorded)

    def _read_on(self) -> None:
        if self.all_read or self._stopped or self._reading:
            return
        low = max(BACKLOG_ROWS, 2 * sum(child.want for child in self._children))
        if self._ledger.waiting_count < low and self._ledger.waiting_bytes < BACKLOG_BYTES:
            self._reading += 1
            self._feed.more()


def _parts(steps: list[StepLine]) -> list[list[StepLine]]:
    """The same, in order, in as many parts as it takes for each to be small enough for a message; at least one."""
    parts: list[list[StepLine]] = [[]]
    size = 0
    for step in steps:
        if parts[-1] and size + len(step.data) > STEP_BYTES_MAX:
            parts.append([])
            size = 0
        parts[-1].append(step)
        size += len(step.data)
    return parts
