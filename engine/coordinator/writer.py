"""The commit thread: everything queued goes into one transaction, then everybody is told at once.

Rules of this file:
1. Nothing is acknowledged before the keeper has returned from ``apply``.
2. After one failure nothing is written or acknowledged any more; the session is told once.
3. Idle, it costs nothing: the thread waits for work without a timer. An idle writer commits at once; a busy one
   at most ``1 / interval_s`` times a second, because a sync costs the same for one row and for a thousand.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Protocol

from engine.core.commit import Commit
from engine.core.errors import EngineError, InternalFault, StoreFailure

INTERVAL_S = 0.05

Done = Callable[[], None]


class Keeper(Protocol):
    """What commits are written to."""

    def apply(self, commits: Sequence[Commit]) -> None:
        """Keep a group of commits, whole or not at all. Raises EngineError or OSError."""


class Writer:
    """Owns the keeper's writing from its start to ``close``. Callbacks run on the loop, in order of submission."""

    def __init__(
        self,
        keeper: Keeper,
        loop: asyncio.AbstractEventLoop,
        *,
        on_failure: Callable[[EngineError], None],
        interval_s: float = INTERVAL_S,
    ) -> None:
        """``interval_s``: least time between the starts of two transactions. The thread starts at once."""
        self._keeper = keeper
        self._loop = loop
        self._on_failure = on_failure
        self._interval_s = interval_s
        self._queue: SimpleQueue[tuple[Commit, Done | None] | None] = SimpleQueue()  # None: close
        self._closing = Event()
        self._backlog = 0
        # A daemon, so that a loop that dies of a fault does not leave a process that cannot end. A transaction
        # that is cut off is rolled back when the store is opened again.
        self._thread = Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> int:
        """Commits and outcomes that are not durable yet, added up; 0 means that everything is. To be asked on the loop.

        The caller holds back while it is large. It stays above 0 after a failure.
        """
        return self._backlog

    def submit(self, commit: Commit, done: Done | None) -> None:
        """Queue a commit; ``done`` is called on the loop once it is durable. To be called on the loop.

        What comes after ``close`` or after a failure is neither written nor acknowledged.
        """
        self._backlog += 1 + len(commit.outcomes)
        self._queue.put((commit, done))

    def close(self) -> None:
        """Write what is queued and end the thread. Blocks, so not for the loop. Safe to call twice.

        Callbacks that are due have been handed to the loop when it returns.
        """
        self._closing.set()
        self._queue.put(None)
        self._thread.join()

    # --- the thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        begun = time.monotonic() - self._interval_s
        while (first := self._queue.get()) is not None:
            self._closing.wait(max(0.0, begun + self._interval_s - time.monotonic()))
            begun = time.monotonic()
            group = [first, *self._queued()]
            failure = self._write([commit for commit, _ in group])
            with suppress(RuntimeError):  # the loop is closed: the run is over and nobody is left to be told
                if failure is not None:
                    self._loop.call_soon_threadsafe(self._on_failure, failure)
                    return
                self._loop.call_soon_threadsafe(self._written, group)

    def _queued(self) -> list[tuple[Commit, Done | None]]:
        """All that is in the queue, up to the word to close, which is left there."""
        found: list[tuple[Commit, Done | None]] = []
        while True:
            try:
                entry = self._queue.get_nowait()
            except Empty:
                return found
            if entry is None:
                self._queue.put(None)
                return found
            found.append(entry)

    def _write(self, commits: list[Commit]) -> EngineError | None:
        try:
            self._keeper.apply(commits)
        except EngineError as error:
            return error
        except OSError as error:
            return StoreFailure(
                f"Results could not be written ({error.strerror or error}). What was committed before stays: "
                "mend what is wrong, then give the same command again to go on."
            )
        except Exception as error:
            # Whatever it is, the run must hear of it: nothing is acknowledged from here on.
            return InternalFault("writing results", error)
        return None

    def _written(self, group: list[tuple[Commit, Done | None]]) -> None:
        """On the loop: the group is durable."""
        self._backlog -= sum(1 + len(commit.outcomes) for commit, _ in group)
        for _, done in group:
            if done is not None:
                done()
