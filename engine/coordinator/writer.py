"""The commit thread: everything queued goes into one transaction, then everybody is told at once.

Rules of this file:
1. Nothing is acknowledged before the keeper has returned from ``apply``.
2. After one failure nothing is written or acknowledged any more; the session is told once.
3. Idle, it costs nothing: the thread waits for work without a timer.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

from engine.core.commit import Commit
from engine.core.errors import EngineError, StoreFailure

LINGER_S = 0.02  # at most so long a commit waits for others; a sync of the disk costs about as much


class Keeper(Protocol):
    """What commits are written to."""

    def apply(self, commits: "list[Commit]") -> None:
        """Keep a group of commits, whole or not at all. Raises EngineError."""


class Writer:
    """Owns the keeper's writing from its start to ``close``."""

    def __init__(
        self,
        keeper: Keeper,
        loop: asyncio.AbstractEventLoop,
        *,
        on_failure: Callable[[EngineError], None],
        linger_s: float = LINGER_S,
    ) -> None:
        self._keeper = keeper
        self._loop = loop
        self._on_failure = on_failure
        self._linger_s = linger_s
        self._queue: list[tuple[Commit, Callable[[], None] | None]] = []
        self._rows = 0  # outcomes queued or being written
        self._pending = 0  # commits queued or being written
        self._changed = threading.Condition()
        self._closing = False
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> int:
        """Commits and rows that are not on disk yet, together; 0 means that all is durable."""
        return self._rows + self._pending

    def submit(self, commit: Commit, done: Callable[[], None] | None) -> None:
        """Queue a commit; ``done`` is called on the loop once it is durable. To be called on the loop."""
        with self._changed:
            self._queue.append((commit, done))
            self._rows += len(commit.outcomes)
            self._pending += 1
            if len(self._queue) == 1:
                self._changed.notify()

    def close(self) -> None:
        """Write what is queued and end the thread. Blocks; not for the loop."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closing:
                    self._changed.wait()
                if not self._closing and self._linger_s:
                    # Others are about to come: a group costs one sync, whatever its size.
                    self._changed.wait_for(lambda: self._closing, self._linger_s)
                group, self._queue = self._queue, []
                if not group and self._closing:
                    return
            if self._failed:
                continue
            try:
                self._keeper.apply([commit for commit, _ in group])
            except EngineError as error:
                self._fail(error)
                continue
            except OSError as error:
                self._fail(
                    StoreFailure(f"Results could not be written: {error}. What was committed before stays.")
                )
                continue
            self._call(self._written, group)

    def _fail(self, error: EngineError) -> None:
        self._failed = True
        self._call(self._on_failure, error)

    def _call(self, call: Callable[..., None], argument: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, argument)
        except RuntimeError:
            self._failed = True  # the loop is closed; nobody is left to be told

    def _written(self, group: "list[tuple[Commit, Callable[[], None] | None]]") -> None:
        with self._changed:
            self._rows -= sum(len(commit.outcomes) for commit, _ in group)
            self._pending -= len(group)
        for _, done in group:
            if done is not None:
                done()
