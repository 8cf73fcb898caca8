"""Threads for functions that are not async: so many as keep the work going, so few that the loop keeps its pace.

Rules of this file:
1. A function that computes holds the interpreter: with a few such threads the loop still gets its turn, with many it does not.
   So there are few threads to begin with, more only while work waits and the process has time to spare, fewer where it has none.
2. A thread cannot be ended from outside. One whose function takes too long is abandoned: its row has its outcome, another
   thread takes its place, and it ends with its function, if that ever returns.
3. The threads are daemons: none of them keeps the process from ending.
"""

import asyncio
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import monotonic, process_time
from typing import Any, Final

THREADS_FIRST: Final = 4
THREADS_MIN: Final = 2
THREADS_MAX: Final = 32
BUSY: Final = 0.9  # of one core: a process that uses so much has no time to spare
SWITCH_S: Final = (
    0.001  # how long the loop waits for a thread that computes, where Python's 5 ms would add up
)


class Work:
    """One call of a function."""

    __slots__ = ("arguments", "began_s", "is_over", "on_done")

    def __init__(self, arguments: Any, on_done: Callable[[Any], None]) -> None:
        self.arguments = arguments
        self.on_done = on_done
        self.began_s = 0.0  # time.monotonic() when a thread took it up
        self.is_over = False  # it has its result, be it that there will be none


class Worked(threading.Thread):
    """One of the threads."""

    def __init__(self, pool: "Threads") -> None:
        super().__init__(name="function", daemon=True)
        self._pool = pool
        self.work: Work | None = None  # what it is at
        self.is_abandoned = False

    def run(self) -> None:
        """Take work until there is to be one thread less."""
        pool = self._pool
        while True:
            work = pool.waiting.get()
            if work is None:
                break
            if not work.is_over:
                work.began_s = monotonic()
                self.work = work
                result = pool.function(work.arguments)
                self.work = None
                pool.ended(work, result)
            if self.is_abandoned or pool.is_one_too_many(self):
                break
        pool.has_ended(self)


class Threads:
    """At most ``threads_max`` of them, which call ``function`` with what each work's arguments are; it must not raise.

    What it returns goes to the work's ``on_done``, on the loop.
    """

    def __init__(self, function: Callable[[Any], Any], *, threads_max: int = THREADS_MAX) -> None:
        self.function = function
        self.waiting: SimpleQueue[Work | None] = SimpleQueue()
        self.abandoned = 0  # threads whose function goes on though nobody waits for it any more
        self._loop = asyncio.get_running_loop()
        self._max = threads_max
        self.limit = min(THREADS_FIRST, threads_max)
        self._lock = threading.Lock()
        self._threads: set[Worked] = set()  # without the abandoned ones
        self._open = 0  # work that waits or is being done
        self._is_closed = False
        self._ended: list[tuple[Work, Any]] = []
        self._cpu_s, self._at_s = process_time(), monotonic()
        sys.setswitchinterval(SWITCH_S)

    def start(self, work: Work) -> None:
        """Do it as soon as a thread is free. Its result comes later, never within this call."""
        self._open += 1
        self.waiting.put(work)
        if len(self._threads) < min(self.limit, self._open):
            self._grow()

    def _grow(self) -> None:
        thread = Worked(self)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    # --- in the threads -------------------------------------------------------------------------------------

    def ended(self, work: Work, result: Any) -> None:
        """Hand a result to the loop, which is woken once for all that wait."""
        with self._lock:
            self._ended.append((work, result))
            if len(self._ended) > 1:
                return
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            pass  # the loop has ended, and with it whoever waited

    def is_one_too_many(self, thread: Worked) -> bool:
        """Whether the thread is to end; it is then not counted any more."""
        if len(self._threads) <= self.limit:
            return False
        with self._lock:
            if len(self._threads) <= self.limit:
                return False
            self._threads.discard(thread)
            return True

    def has_ended(self, thread: Worked) -> None:
        """It is gone."""
        with self._lock:
            self._threads.discard(thread)
            self.abandoned -= thread.is_abandoned

    # --- on the loop ----------------------------------------------------------------------------------------

    def _deliver(self) -> None:
        with self._lock:
            ended, self._ended = self._ended, []
        for work, result in ended:
            if not work.is_over and not self._is_closed:
                work.is_over = True
                self._open -= 1
                work.on_done(result)

    def expire(self, timeout_s: float) -> list[Work]:
        """Abandon what has taken longer; it is over then, without a result."""
        latest = monotonic() - timeout_s
        late = []
        with self._lock:
            for thread in list(self._threads):
                work = thread.work
                if work is not None and not work.is_over and work.began_s < latest:
                    work.is_over = True
                    thread.is_abandoned = True
                    self.abandoned += 1
                    self._threads.discard(thread)
                    late.append(work)
        self._open -= len(late)
        self._refill()
        return late

    def adapt(self) -> None:
        """Other numbers of threads, by what the process used since the last time. To be called a few times a second."""
        now, cpu_s = monotonic(), process_time()
        used = (cpu_s - self._cpu_s) / max(now - self._at_s, 1e-3)
        self._cpu_s, self._at_s = cpu_s, now
        if used > BUSY:
            self.limit = max(min(THREADS_MIN, self._max), self.limit // 2)
        elif 2 * used < BUSY and self._open > len(self._threads) >= self.limit:
            self.limit = min(2 * self.limit, self._max)
            self._refill()

    def _refill(self) -> None:
        for _ in range(min(self.limit, self._open) - len(self._threads)):
            self._grow()

    def close(self) -> None:
        """No thread takes anything more; what runs is not waited for, and not told."""
        self._is_closed = True
        self.limit = 0
        for _ in list(self._threads):
            self.waiting.put(None)
