"""What must be true of a world: while it lives, when a run of it stops, and at its end.

Rules of this file:
1. The endpoints' own record of what arrived and the disk are the witnesses, never the engine's figures.
"""

from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from engine.coordinator.ended import Ended
from engine.core.errors import ErrorKind, ExitCode, StoreFailure
from engine.core.ledger import Ledger

if TYPE_CHECKING:
    from world import World

TICKS_BETWEEN = 5  # the ledger is looked through at every so many ticks of the coordinator
POISON_DEATHS = 3


class Checks:
    """Everything that is found wrong with one world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.trouble: list[str] = []
        self._ticks = 0

    def now_and_then(self, ledger: Ledger) -> None:
        """A tick of the coordinator."""
        self._ticks += 1
        if self._ticks % TICKS_BETWEEN == 0 and not self._world.shape.is_first_kind:
            ledger.validate()

    def stopped(self, ended: Ended) -> None:
        """A session has ended, and all that it had to write is written."""
        world = self._world
        if ended.whole:
            return
        if not world.shape.may_stop or ended.exit_code not in (
            ExitCode.INTERRUPTED,
            ExitCode.STORE,
            ExitCode.STOPPED,
        ):
            self.trouble.append(f"the run stopped: {ended.reason}")
        if isinstance(ended.error, StoreFailure):
            return
        # A second interrupt waits for nothing, not even for a lease that is on its way.
        may_be_cut = sum(word == "interrupt" for _, word in world.shape.words) > 1
        nobodys = sorted(
            {
                row
                for lease, rows in world.disk.leases.items()
                for row in rows
                if lease not in world.network.leases
            }
        )
        if not may_be_cut and not set(nobodys) <= world.disk.outcomes.keys():
            self.trouble.append(f"stopped with rows in doubt that nobody was handed: {nobodys}")
        # What is open on disk is what the run says may be billed twice: the rest was given back, or never leased.
        if len(world.disk.open_rows()) != ended.in_doubt:
            self.trouble.append(
                f"stopped with {ended.in_doubt} rows in doubt, and {sorted(world.disk.open_rows())} open"
            )

    def wrong(self) -> dict[str, Any]:
        """Everything that should not be; {} is a pass."""
        world = self._world
        outcomes, shape = world.disk.outcomes, world.shape
        rows = range(shape.rows)
        killed = sum(process.role == "worker" and process.poll() == -9 for process in world.processes)
        allowed = {ErrorKind.POISON.value} if killed >= POISON_DEATHS else set()
        if shape.is_refused:
            allowed.add(ErrorKind.UNAUTHORISED)
        full: Counter[str] = Counter()
        for server in world.servers.values():
            full.update(server.full)
        found = {
            "trouble": self.trouble,
            "lost": [row for row in rows if row not in outcomes],
            "finished twice": world.disk.twice,
            "acknowledged and lost": sorted(world.disk.acknowledged - outcomes.keys()),
            # A row that was alone with three workers when they died is poison, as promised, also where chance killed them;
            # refusals of the key that are too few to stop the run, or have successes between them, are failures of their rows.
            "not ok": [
                (row, kind) for row, (ok, kind, _) in outcomes.items() if not ok and kind not in allowed
            ],
            "another row's answer": [
                row
                for row, (ok, _, record) in outcomes.items()
                if ok and not self.is_own(row, msgspec.json.decode(record))
            ],
            "repeated beyond doubt": max(0, self.repeated(full) - world.disk.in_doubt),
            "windows over the limit": sum(
                server.windows_over(shape.period_s - shape.late_s) for server in world.servers.values()
            ),
        }
        return {name: value for name, value in found.items() if value}

    def is_own(self, row: int, record: dict[str, Any]) -> bool:
        """Whether what a row that is ok came to is its own."""
        return bool(record["response"] == f"answer to row {row}")

    def repeated(self, full: Counter[str]) -> int:
        """How many rows must have been in doubt for so many whole answers to each prompt."""
        return sum(full.values()) - len(full)
