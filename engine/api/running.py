"""One run in a thread of its own, and the records that come out of it, for a program that goes on beside it.

Rules of this file:
1. Whoever waits here can be interrupted; the run is then drained: calls in flight may end, nothing more is sent.
2. A second interrupt ends the run at once. Either way no process of the run is left when ``close`` returns.
3. Everything may be called from any thread, but only one at a time takes records.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from pathlib import Path
from typing import TYPE_CHECKING

from engine.api.results import RunStopped
from engine.api.tracebacks import Tracebacks
from engine.api.wording import in_python
from engine.config import Job
from engine.coordinator.run import run_job
from engine.coordinator.supervise import CANNOT_START
from engine.core.commit import Counts
from engine.core.errors import UsageError
from engine.credentials import Auth
from engine.handover import Surroundings
from engine.observe.progress import Progress
from engine.observe.summary import Summary
from engine.rows import RowsFailed, RowsSource

if TYPE_CHECKING:
    from engine.coordinator.session import Session

Record = tuple[int, bytes]  # a row's number and its record
# So often a loop that waits is woken: a notebook's kernel sees to an interrupt only when its loop has something to do.
BEAT_S = 0.25


class Running:
    """A run that has been started. ``over`` is set once its thread has nothing more to say."""

    def __init__(
        self,
        job: Job,
        auth: tuple[Auth, ...],
        source: RowsSource,
        *,
        surroundings: Surroundings,
        show: Callable[[], Progress],
    ) -> None:
        """``show``: makes what shows the progress, in the run's own thread."""
        self.job = job
        self.source = source
        self.surroundings = surroundings
        self.answers: tuple[str, ...] = ()  # the answer columns, before the first record comes
        self.tracebacks = Tracebacks(Path(job.state))
        self.summary: Summary | None = None
        self.error: BaseException | None = None
        self._auth = auth
        self._show = show
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._records: deque[Sequence[Record]] = deque()
        self._wakers: list[Callable[[], None]] = []
        self._stops = 0  # how often it was told to stop
        self._session: Session | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._before = Counts(0, {}, 0, 0, 0)
        self.is_over = False
        self.is_anothers = False  # see ``leave``
        self.reader: Callable[[], object | None] | None = (
            None  # of a stream whose end may be late: whether it is held
        )
        # In the caller's context: what a notebook's run shows belongs to the cell that started it.
        within = copy_context().run
        self._thread = threading.Thread(target=within, args=(self._run,), name="engine run", daemon=True)
        self._thread.start()

    # --- what the run calls, in its threads -------------------------------------------------------------------

    def hand(self, records: Sequence[Record]) -> None:
        """See ``coordinator.caller``."""
        with self._lock:
            self._records.append(records)
            self._tell()

    def began(self, session: "Session", answers: tuple[str, ...], before: Counts) -> None:
        """See ``coordinator.caller``."""
        with self._lock:
            self.answers = answers
            self._before = before
            self._session = session
            self._loop = asyncio.get_running_loop()
            for _ in range(self._stops):
                self._loop.call_soon(session.interrupt)

    def _run(self) -> None:
        try:
            self.summary = run_job(self.job, self._auth, self._show(), caller=self)
        except BaseException as error:  # it is raised where the results are waited for
            self.error = error
        finally:
            self.source.close()
            with self._lock:
                self._loop = None
                self.is_over = True
                self._tell()

    def _tell(self) -> None:
        self._changed.notify_all()
        for wake in self._wakers:
            wake()

    # --- what its user calls ----------------------------------------------------------------------------------

    def take(self) -> Sequence[Record] | None:
        """The next records, waiting for them; None once there are no more."""
        with self._lock:
            self._changed.wait_for(lambda: self._records or self.is_over)
            return self._records.popleft() if self._records else None

    async def take_soon(self) -> Sequence[Record] | None:
        """As ``take``, on any event loop."""
        await self._until(lambda: bool(self._records) or self.is_over)
        with self._lock:
            return self._records.popleft() if self._records else None

    def stop(self) -> None:
        """Drain; told a second time, end at once. Does not wait."""
        with self._lock:
            self._stops += 1
            if self._loop is not None and self._session is not None:
                try:
                    self._loop.call_soon_threadsafe(self._session.interrupt)
                except RuntimeError:
                    return  # the loop has just been closed: the run is over
            else:
                self.source.close()  # it may still be waiting for the first rows

    def close(self) -> None:
        """Stop, and wait until nothing of the run is left; a KeyboardInterrupt meanwhile ends it at once."""
        if not self.is_over:
            self.stop()
        self.wait()

    def wait(self) -> None:
        """Wait for the end. A KeyboardInterrupt meanwhile ends the run at once, and is raised when it is over."""
        try:
            self._join()
        except BaseException:
            self.stop()
            self._join()
            raise

    async def close_soon(self) -> None:
        """As ``close``, on any event loop; to be cancelled meanwhile ends the run at once."""
        if not self.is_over:
            self.stop()
        try:
            await self._until(lambda: self.is_over)
        except asyncio.CancelledError:
            self.stop()
            await self._until(lambda: self.is_over)
            raise
        finally:
            self._join()

    def leave(self) -> None:
        """In a forked child: the run is the parent's. Nothing of it is to be had here, and nothing waited for."""
        self._lock = threading.Lock()  # some thread of the parent may have had it
        self._changed = threading.Condition(self._lock)
        self._records.clear()
        self._wakers.clear()
        self._loop = self.summary = None
        self.error = UsageError(
            "This process was forked while a pool ran, and the run is the other process's: its results are to be had "
            "there. Take them to their end before forking, or make a new Pool here."
        )
        self.is_over = self.is_anothers = True

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody holds the stream any more that takes the records, though it has not ended yet."""
        return self.reader is not None and self.reader() is None

    def _join(self) -> None:
        if self.is_anothers:
            return
        with self._lock:
            self._changed.wait_for(lambda: self.is_over)
        self._thread.join()
        self.tracebacks.close()

    async def _until(self, condition: Callable[[], bool]) -> None:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(changed.set)
            except RuntimeError:
                pass  # that loop is closed: nobody waits any more

        with self._lock:
            self._wakers.append(wake)
        try:
            while not condition():
                changed.clear()
                if not condition():  # it may have come true since
                    beat = loop.call_later(BEAT_S, changed.set)
                    try:
                        await changed.wait()
                    finally:
                        beat.cancel()
        finally:
            with self._lock:
                self._wakers.remove(wake)

    def counts(self) -> tuple[int, int, int]:
        """Rows that are completed and failed, of earlier runs too, and running in workers, at this moment."""
        session = self._session
        if session is None:
            return 0, 0, 0
        metrics = session.metrics
        busy = 0 if self.is_over else sum(child.busy for child in session.supervisor.children)
        failed = sum(self._before.failed.values()) + metrics.failed
        return self._before.ok + metrics.ok, failed, busy


def refuse_half(running: Running, goes_on: str) -> None:
    """Raise what ended a run before every row had its outcome. ``goes_on``: how what is open comes to be done."""
    error, summary = running.error, running.summary
    running.wait()
    if isinstance(error, RowsFailed) and error.__cause__ is not None:
        raise error.__cause__
    if isinstance(error, UsageError):
        raise in_python(error)
    if error is not None:
        raise error
    if summary is not None and summary.stopped.startswith(CANNOT_START):
        raise RunStopped(f"The run stopped: {summary.stopped.rstrip('.')}. What was done before is kept.")
    if summary is not None and summary.stopped:
        raise RunStopped(
            f"The run stopped: {summary.stopped.rstrip('.')}. {summary.ok:,} rows are done, {summary.failed:,} failed, the "
            f"others are open. {goes_on}"
        )
