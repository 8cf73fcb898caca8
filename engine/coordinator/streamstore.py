"""Where commits go when records leave in the order they complete: to standard output, or to a caller.

Rules of this file:
1. With a state folder a record is written out only after its commit, so that nothing is shown that a resumed run
   would do again.
"""

from collections.abc import Sequence
from typing import Protocol

from engine.coordinator.caller import Out
from engine.core.commit import Commit
from engine.store import Store


class Keeper(Protocol):
    """What the commit thread writes to."""

    def apply(self, commits: Sequence[Commit]) -> None:
        """Keep a group of commits. Raises StoreFailure."""


class StreamStore:
    """Commits to a store, if there is one, and then hands their records out."""

    def __init__(self, store: Keeper | None, out: Out) -> None:
        self._store = store
        self._out = out

    def apply(self, commits: Sequence[Commit]) -> None:
        """As the store's; raises what ``out`` raises as well."""
        if self._store is not None:
            self._store.apply(commits)
        records = [(outcome.row, outcome.record) for commit in commits for outcome in commit.outcomes]
        if records:
            self._out(records)


class Replay:
    """Hands the records of rows that an earlier run finished to a caller, as the reading comes to each of them."""

    def __init__(self, store: Store, out: Out) -> None:
        self._records = store.numbered_records()
        self._out = out

    def __call__(self, row: int) -> None:
        """The row with this number, which is finished, was passed over. Numbers rise."""
        for number, record in self._records:
            if number == row:
                self._out([(number, record)])
                return
