"""Where commits go when the output is standard output: records leave in the order they complete.

Rules of this file:
1. With a state folder a record is written out only after its commit, so that nothing is shown that a resumed run
   would do again.
"""

from collections.abc import Sequence
from typing import Protocol

from engine.core.commit import Commit
from engine.sink import StreamOut


class Keeper(Protocol):
    """What the commit thread writes to."""

    def apply(self, commits: Sequence[Commit]) -> None:
        """Keep a group of commits. Raises StoreFailure."""


class StreamStore:
    """Commits to a store, if there is one, and then writes their records out."""

    def __init__(self, store: Keeper | None, out: StreamOut) -> None:
        self._store = store
        self._out = out

    def apply(self, commits: Sequence[Commit]) -> None:
        """As the store's; raises what standard output raises as well."""
        if self._store is not None:
            self._store.apply(commits)
        records = [outcome.record for commit in commits for outcome in commit.outcomes]
        if records:
            self._out.write(records)
