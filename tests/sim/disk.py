"""The scripted store: what it keeps over a coordinator's death, and the thread that commits to it.

Rules of this file:
1. ``Disk`` keeps what ``store.Store`` keeps; a test gives both the same commits and compares.
2. Nothing is acknowledged before it is kept, acknowledgements come in order, and after one failure there are none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.core.commit import Commit, StepRow
from engine.core.errors import EngineError, StoreFailure

if TYPE_CHECKING:
    from world import World

Done = Callable[[], None] | None


@dataclass
class Disk:
    """What survives a coordinator."""

    outcomes: dict[int, tuple[bool, str, bytes]] = field(default_factory=dict)
    steps: dict[tuple[int, int], StepRow] = field(default_factory=dict)  # by row and the step's number
    leases: dict[int, set[int]] = field(default_factory=dict)
    attempts: int = 0
    in_doubt: int = 0
    twice: list[int] = field(default_factory=list)
    acknowledged: set[int] = field(default_factory=set)
    history: list[Sequence[Commit] | None] = field(default_factory=list)  # None: a recovery
    room: int | None = None  # so many groups still fit; None is plenty

    def apply(self, commits: Sequence[Commit]) -> None:
        """Keep a group, whole or not at all. Raises StoreFailure where it is full."""
        if self.room is not None:
            if self.room <= 0:
                raise StoreFailure("the disk is full")
            self.room -= 1
        self.history.append(commits)
        for commit in commits:
            for lease, rows in commit.opened:
                self.leases[lease] = set(rows)
            for line in commit.outcomes:
                if line.row in self.outcomes:
                    self.twice.append(line.row)
                self.outcomes[line.row] = (line.ok, line.kind, line.record)
                self.attempts += line.attempts
            for step in commit.steps:
                self.steps[step.row, step.step] = step
                self.attempts += step.attempts
            for lease, rows in commit.released:
                self.leases[lease] -= set(rows)
            for lease in commit.closed:
                self.leases.pop(lease, None)
            self.in_doubt += commit.in_doubt

    def open_rows(self) -> set[int]:
        """Rows that are leased and have no outcome."""
        return {row for rows in self.leases.values() for row in rows} - self.outcomes.keys()

    def is_leased(self, row: int) -> bool:
        """Whether some open lease has this row."""
        return any(row in rows for rows in self.leases.values())

    # --- as store.Store: steps are known by their places ----------------------------------------------------

    def step_numbers(self, names: Sequence[str]) -> list[int]:
        return list(range(len(names)))

    def has_steps(self) -> bool:
        return bool(self.steps)

    def steps_of(self, rows: Sequence[int]) -> list[StepRow]:
        wanted = set(rows)
        return [step for (row, _), step in sorted(self.steps.items()) if row in wanted]

    def recover(self) -> None:
        """As store.Store.recover."""
        self.history.append(None)
        self.in_doubt += len(self.open_rows())
        self.leases.clear()


class Writer:
    """As coordinator.writer.Writer; one group at a time."""

    def __init__(self, world: "World", on_failure: Callable[[EngineError], None]) -> None:
        self._disk, self._loop, self._random = world.disk, world.loop, world.random
        self._delays = (0.05, 0.4, 2.0) if world.shape.is_disk_slow else (0.001, 0.02, 0.05)
        self._on_failure = on_failure
        self._queue: list[tuple[Commit, Done]] = []
        self._is_busy = self._is_broken = False
        self.backlog = 0

    def submit(self, commit: Commit, done: Done) -> None:
        self.backlog += 1 + len(commit.outcomes)
        self._queue.append((commit, done))
        self._begin()

    def close(self) -> None:
        """Keep what is queued, unless something failed before."""
        if self._queue and not self._is_broken:
            try:
                self._disk.apply([commit for commit, _ in self._queue])
            except StoreFailure as error:
                self._on_failure(error)
            self._queue = []

    def _begin(self) -> None:
        if not self._is_busy and not self._is_broken and self._queue:
            self._is_busy = True
            self._loop.call_later(self._random.choice(self._delays), self._write)

    def _write(self) -> None:
        group, self._queue = self._queue, []
        try:
            self._disk.apply([commit for commit, _ in group])
        except StoreFailure as error:
            self._is_broken = True
            self._loop.call_later(0.001, self._on_failure, error)
            return
        # It is kept, and whoever waits for it does not know yet: here too a coordinator may die.
        self._loop.call_later(
            self._random.choice((0.0, 0.01, self._delays[-1] / 2)), self._acknowledge, group
        )

    def _acknowledge(self, group: list[tuple[Commit, Done]]) -> None:
        self._is_busy = False
        self.backlog -= sum(1 + len(commit.outcomes) for commit, _ in group)
        self._disk.acknowledged.update(line.row for commit, _ in group for line in commit.outcomes)
        for _, done in group:
            if done is not None:
                done()
        self._begin()


class HastyWriter(Writer):
    """The one of the first world: what is kept may be acknowledged out of order. No thread does that."""

    def _begin(self) -> None:
        if not self._is_busy:
            self._is_busy = True
            self._loop.call_later(self._random.choice((0.001, 0.02, 0.08)), self._write)

    def _write(self) -> None:
        self._is_busy = False
        group, self._queue = self._queue, []
        self._disk.apply([commit for commit, _ in group])
        self._loop.call_later(self._random.choice((0.0, 0.01)), self._told, group)

    def _told(self, group: list[tuple[Commit, Done]]) -> None:
        self.backlog -= sum(1 + len(commit.outcomes) for commit, _ in group)
        for _, done in group:
            if done is not None:
                done()
