"""Row ledger: which open row is where, and who may finish it.

Rules of this file:
1. A row's state changes only through ``advance`` and the table it keeps to (see ``rowstate``).
2. A row is finished only by the worker that holds it, under the lease it holds it by. Whatever else arrives
   (a worker taken for dead that comes back, a message sent twice) is refused and counted.
3. Memory holds open rows only: a row is forgotten when it is finished or poison.
4. Nothing here reads a clock, a file or a socket.

Poison: a row that kills workers must fail alone. Every row that is held when its worker dies counts one death.
One death short of ``poison_deaths`` it is a suspect: suspects are leased in small groups, to a worker that holds
nothing else and gets nothing else meanwhile. From ``poison_deaths`` on a suspect is leased alone. A row is poison
when it has that many deaths and was the only row its worker held at the last one.
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from engine.core.errors import EngineError
from engine.core.rowstate import LedgerRow, RowEvent, RowState, advance

__all__ = ["Lease", "Ledger", "LedgerBroken", "LedgerRow", "Lost"]

STORY_EVENTS = 256


class LedgerBroken(EngineError):
    """The ledger contradicts itself. A fault of the engine; the message ends with the latest events."""


class Lease(NamedTuple):
    """Rows handed to one worker under one id. Ids only ever grow."""

    id: int
    worker: int
    rows: list[LedgerRow]
    is_trial: bool = False  # they are suspects


class Lost(NamedTuple):
    """What became of the rows a dead worker held."""

    requeued: list[int]
    poisoned: list[LedgerRow]  # they are to be committed as failed


class _Holding:
    """What one worker holds: its leases' open rows, by lease and row."""

    __slots__ = ("leases", "rows", "suspects")

    def __init__(self) -> None:
        self.leases: dict[int, dict[int, LedgerRow]] = {}
        self.rows = 0
        self.suspects = False


_LEASE, _FINISH = RowEvent.LEASE, RowEvent.FINISH


class Ledger:
    """All open rows of a run. Worker numbers are new for every incarnation of a worker.

    Bounds: the caller limits what it offers by ``waiting_count`` and ``waiting_bytes``.
    """

    def __init__(self, *, poison_deaths: int = 3, suspect_group: int = 8, first_lease: int = 1) -> None:
        """``poison_deaths`` at least 2, ``suspect_group`` at least 1; the first lease gets id ``first_lease``."""
        if poison_deaths < 2 or suspect_group < 1:
            raise ValueError("poison_deaths must be at least 2 and suspect_group at least 1")
        self._poison_deaths = poison_deaths
        self._suspect_group = suspect_group
        self._next_lease = first_lease
        self._next_row = 0  # every row is offered once, in order
        self._fresh: deque[LedgerRow] = deque()  # waiting, fit for any lease
        self._suspects: deque[LedgerRow] = deque()  # waiting for a worker of their own
        self._holdings: dict[int, _Holding] = {}
        self._leased = 0
        self._closed: list[int] = []
        self._trying = 0  # workers that hold suspects
        self._emptying: int | None = None  # the worker that gets nothing until it can take suspects
        self._story: deque[tuple[object, ...]] = deque(maxlen=STORY_EVENTS)
        self.waiting_bytes = 0  # of payloads
        self.stale_refused = 0  # outcomes and releases that were not their sender's to give

    # --- figures ------------------------------------------------------------------------------------------

    @property
    def waiting_count(self) -> int:
        """Rows that nobody holds."""
        return len(self._fresh) + len(self._suspects)

    @property
    def suspect_count(self) -> int:
        """Waiting rows that are tried apart from the others; part of ``waiting_count``."""
        return len(self._suspects)

    @property
    def leased_count(self) -> int:
        """Rows that some worker holds."""
        return self._leased

    @property
    def is_idle(self) -> bool:
        """Whether no row is open."""
        return not (self._leased or self._fresh or self._suspects)

    def held_by(self, worker: int) -> int:
        """Rows that this worker holds."""
        holding = self._holdings.get(worker)
        return 0 if holding is None else holding.rows

    def take_closed(self) -> list[int]:
        """Leases that have had no open row since this was last asked, however their rows left them."""
        closed, self._closed = self._closed, []
        return closed

    def story(self) -> str:
        """The latest events, oldest first, one a line."""
        return "\n".join(" ".join(map(str, event)) for event in self._story)

    # --- events -------------------------------------------------------------------------------------------

    def offer(self, rows: Iterable[LedgerRow]) -> None:
        """Take in rows from the source. Raises LedgerBroken for one that is not after all earlier ones."""
        for row in rows:
            if row.row < self._next_row:
                raise self._broken(f"row {row.row} was offered out of order")
            self._next_row = row.row + 1
            self._fresh.append(row)
            self.waiting_bytes += len(row.payload)
        self._story.append(("offer up to", self._next_row))

    def lease(self, worker: int, rows_max: int, bytes_max: int) -> Lease | None:
        """Hand rows to a worker: at most ``rows_max``, and payloads of ``bytes_max`` together, yet at least one row.

        None when there is nothing for this worker now; it may ask again after any other event.
        """
        if rows_max < 1:
            return None
        holding = self._holdings.get(worker)
        held = 0 if holding is None else holding.rows
        if held and holding is not None and holding.suspects:
            return None
        if self._suspects:
            if self._may_try(worker, held):
                return self._lease_suspects(worker, rows_max, bytes_max)
            if worker == self._emptying:
                return None
        if not self._fresh:
            return None
        return self._hand_out(worker, self._fresh, rows_max, bytes_max)

    def finish(self, worker: int, lease: int, row: int) -> LedgerRow | None:
        """The row has its outcome. None if the worker does not hold it under this lease: the outcome is refused."""
        holding = self._holdings.get(worker)
        rows = None if holding is None else holding.leases.get(lease)
        found = None if rows is None else rows.get(row)
        if holding is None or rows is None or found is None:
            self.stale_refused += 1
            self._story.append(("refuse finish", worker, lease, row))
            return None
        advance(found, _FINISH)
        self._story.append(("finish", worker, lease, row))
        del rows[row]
        self._leased -= 1
        holding.rows -= 1
        if not rows:
            self._close(holding, lease)
        return found

    def held(self, worker: int, lease: int, row: int) -> LedgerRow | None:
        """The row, if the worker holds it under this lease. Who does not is counted as stale."""
        holding = self._holdings.get(worker)
        held = None if holding is None else holding.leases.get(lease, {}).get(row)
        if held is None:
            self.stale_refused += 1
        return held

    def release(self, worker: int, rows: Iterable[int]) -> list[tuple[int, list[int]]]:
        """The worker gives rows back unsent: they wait again, in front, in the order they were leased in.

        Returns what was given back, by lease. Rows that it does not hold are refused and counted.
        """
        wanted = set(rows)
        holding = self._holdings.get(worker) or _Holding()
        back: list[LedgerRow] = []
        released: list[tuple[int, list[int]]] = []
        for lease, held in list(holding.leases.items()):
            given = [row for index, row in held.items() if index in wanted]
            if not given:
                continue
            for row in given:
                advance(row, RowEvent.RELEASE)
                row.told = 0
                del held[row.row]
            holding.rows -= len(given)
            back += given
            released.append((lease, [row.row for row in given]))
            if not held:
                self._close(holding, lease)
        self.stale_refused += len(wanted) - len(back)
        self._leased -= len(back)
        self._requeue(back)
        self._story.append(("release", worker, released))
        return released

    def lost(self, worker: int) -> Lost:
        """The worker is gone, in whatever way; to be said of every worker once. See the poison rule above."""
        holding = self._holdings.pop(worker, None) or _Holding()
        if self._emptying == worker:
            self._emptying = None
        if holding.suspects:
            self._trying -= 1
        poisoned: list[LedgerRow] = []
        back: list[LedgerRow] = []
        for row in [row for held in holding.leases.values() for row in held.values()]:
            row.deaths += 1
            row.told = 0
            if holding.rows == 1 and row.deaths >= self._poison_deaths:
                advance(row, RowEvent.CONDEMN)
                poisoned.append(row)
            else:
                advance(row, RowEvent.LOSE)
                back.append(row)
        self._closed += holding.leases
        self._leased -= holding.rows
        self._requeue(back)
        lost = Lost([row.row for row in back], poisoned)
        self._story.append(("lost", worker, lost.requeued, "poisoned", [row.row for row in poisoned]))
        return lost

    # --- how ----------------------------------------------------------------------------------------------

    def _may_try(self, worker: int, held: int) -> bool:
        """Whether this worker is to take suspects now.

        While fresh rows wait one worker tries suspects, so that the others keep the rate up; without fresh rows
        every empty worker does. If none is empty the next one to ask is let run empty, so suspects never starve.
        """
        if held == 0:
            return self._trying == 0 or not self._fresh
        if self._trying == 0 and self._emptying is None:
            self._emptying = worker
            self._story.append(("empty", worker))
        return False

    def _lease_suspects(self, worker: int, rows_max: int, bytes_max: int) -> Lease:
        alone = self._suspects[0].deaths >= self._poison_deaths
        group = 1 if alone else min(rows_max, self._suspect_group)
        self._emptying = None
        self._trying += 1
        lease = self._hand_out(worker, self._suspects, group, bytes_max)
        self._holdings[worker].suspects = True
        return lease._replace(is_trial=True)

    def _hand_out(self, worker: int, queue: deque[LedgerRow], rows_max: int, bytes_max: int) -> Lease:
        lease = self._next_lease
        self._next_lease += 1
        rows: list[LedgerRow] = []
        size = 0
        alone = self._poison_deaths
        while queue and len(rows) < rows_max:
            row = queue[0]
            size += len(row.payload)
            if rows and (size > bytes_max or row.deaths >= alone):
                size -= len(row.payload)
                break
            advance(row, _LEASE)
            rows.append(queue.popleft())
        self.waiting_bytes -= size
        self._leased += len(rows)
        holding = self._holdings.get(worker)
        if holding is None:
            holding = self._holdings[worker] = _Holding()
        holding.leases[lease] = {row.row: row for row in rows}
        holding.rows += len(rows)
        self._story.append(("lease", lease, "to", worker, "rows", [row.row for row in rows]))
        return Lease(lease, worker, rows)

    def _close(self, holding: _Holding, lease: int) -> None:
        del holding.leases[lease]
        self._closed.append(lease)
        if holding.suspects and not holding.leases:
            holding.suspects = False
            self._trying -= 1

    def _requeue(self, rows: list[LedgerRow]) -> None:
        suspect = self._poison_deaths - 1
        self.waiting_bytes += sum(len(row.payload) for row in rows)
        self._fresh.extendleft(row for row in reversed(rows) if row.deaths < suspect)
        self._suspects.extendleft(row for row in reversed(rows) if row.deaths >= suspect)

    def _broken(self, what: str) -> LedgerBroken:
        return LedgerBroken(
            f"The ledger of rows contradicts itself: {what}. This is a fault of the engine: please report it. "
            f"Nothing committed is lost; the same command goes on from there. Latest events:\n{self.story()}"
        )

    def validate(self) -> None:
        """Check every invariant. Raises LedgerBroken. Slow; for tests and for looking into a fault."""
        waiting = [*self._fresh, *self._suspects]
        held = [
            row
            for holding in self._holdings.values()
            for rows in holding.leases.values()
            for row in rows.values()
        ]
        indexes = [row.row for row in waiting + held]
        suspect = self._poison_deaths - 1
        checks = {
            "a row is in two places": len(set(indexes)) == len(indexes),
            "a row is open that was not offered": all(0 <= index < self._next_row for index in indexes),
            "a waiting row is not in state waiting": all(row.state is RowState.WAITING for row in waiting),
            "a held row is not in state leased": all(row.state is RowState.LEASED for row in held),
            "waiting_bytes is wrong": self.waiting_bytes == sum(len(row.payload) for row in waiting),
            "leased_count is wrong": self._leased == len(held),
            "a suspect is among the fresh rows": all(row.deaths < suspect for row in self._fresh),
            "a fresh row is among the suspects": all(row.deaths >= suspect for row in self._suspects),
            "the count of workers that try suspects is wrong": self._trying
            == sum(holding.suspects for holding in self._holdings.values()),
        }
        for what, holds in checks.items():
            if not holds:
                raise self._broken(what)
        for worker, holding in self._holdings.items():
            self._validate_holding(worker, holding)

    def _validate_holding(self, worker: int, holding: _Holding) -> None:
        rows = [row for held in holding.leases.values() for row in held.values()]
        suspects = sum(row.deaths >= self._poison_deaths - 1 for row in rows)
        checks = {
            "counts its rows wrong": holding.rows == len(rows),
            "has an empty lease": all(holding.leases.values()),
            "has a lease that was never made": all(lease < self._next_lease for lease in holding.leases),
            "holds suspects beside other rows": suspects in (0, len(rows)),
            "does not know that it holds suspects": holding.suspects == (suspects > 0),
            "holds too many suspects": not suspects or len(rows) <= self._suspect_group,
            "holds a row that must be alone beside others": len(rows) == 1
            or all(row.deaths < self._poison_deaths for row in rows),
        }
        for what, holds in checks.items():
            if not holds:
                raise self._broken(f"worker {worker} {what}")
