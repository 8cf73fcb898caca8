"""Pool: steps over rows, run by the same engine as the command line's, from a program.

Rules of this file:
1. The run is in threads and processes of its own: it neither needs an event loop nor minds one.
2. What was done is in a store: the caller's folder, or one that goes with the pool.
3. Whatever ends the reading of results (a break, an exception, an interrupt) drains the run before it goes on.
"""

import atexit
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, Unpack

from engine.api.functions import settled
from engine.api.plans import PoolSettings, job_of, refuse_unknown, rows_given
from engine.api.results import Result, RowFailed, RunStopped, reader_of
from engine.api.running import Running
from engine.api.showing import way_of_showing
from engine.api.steps import Chain, Step, steps_of
from engine.api.wording import in_python
from engine.config import GATE
from engine.coordinator.supervise import CANNOT_START
from engine.core.errors import UsageError
from engine.rows import PartSource, RowsFailed, RowsSource
from engine.steps.functions import begin_run
from engine.store import Store

GATE_ASKED_MAX = 128  # calls under way before the first answer, where so many were asked for at once
AHEAD_ROWS = 2048  # read ahead of the results that were taken, besides twice the calls in flight


class Pool:
    """Steps over rows. To be run once or several times; rows that are done are never sent again."""

    _is_in_hand = True  # the caller has it, and can call it again

    def __init__(
        self,
        steps: Step | Chain | Iterable[Step | Chain],
        rows: Iterable[Any],
        *,
        max_flows: int | Literal["auto"] | None = None,
        procs: int | None = None,
        rpm: int | Literal["auto"] | None = None,
        tpm: int | Literal["auto"] | None = None,
        state: str | Path | None = None,
        on_error: Literal["keep", "raise"] = "keep",
        progress: bool | None = None,
        read_ahead: int | None = None,
        **settings: Unpack[PoolSettings],
    ) -> None:
        """Nothing is read or sent yet; what cannot work is refused now, with UsageError.

        rows: mappings, texts (columns ``text``), dataclasses and the like; a list, a generator, anything iterable. They
        are read as needed, in a thread of the pool. max_flows: calls in flight at once, over all workers ("auto" finds
        out how many the endpoint takes). procs: worker processes (the usual: one for each processor). rpm, tpm: requests
        and tokens per minute that are never exceeded; "auto" learns them from replies. state: a folder that keeps what
        was done: the same pool over the same rows goes on from there, whatever ended it. on_error: "raise" stops the
        run at the first row that fails, with RowFailed. progress: True or False; without it, shown on a terminal and in
        a notebook. read_ahead: rows that may be read before their results are taken. settings: any setting of
        ``engine run`` by its flag's name: model, base_url, max_tokens, retries, timeout (s), ...
        """
        if on_error not in ("keep", "raise"):
            raise UsageError(f'on_error is {on_error!r}. Use "keep" or "raise".')
        if read_ahead is not None and read_ahead < 1:
            raise UsageError("read_ahead has to be at least 1 row.")
        begin_run()  # a worker that reads a script for its functions has come as far as it needs to
        self._steps, self._surroundings = settled(steps_of(steps))
        self._given = rows_given(rows)
        self._raises = on_error == "raise"
        self._show = way_of_showing(progress)
        refuse_unknown(settings)
        told: dict[str, Any] = dict(settings, in_flight=max_flows, procs=procs, rpm=rpm, tpm=tpm)
        told = {name: value for name, value in told.items() if value is not None}
        if state is None:
            told.setdefault("durability", "os")  # nothing of it is to outlive this process
        loaded = job_of(self._steps, {**told, "state": None if state is None else str(state)})
        self._job, self._auth = loaded.job, loaded.auth
        if isinstance(
            max_flows, int
        ):  # said by a program: its answers are not to be waited for in small groups
            self._job = replace(self._job, gate=max(GATE, min(max_flows, GATE_ASKED_MAX)))
        self._ahead_max = read_ahead or 2 * self._job.in_flight + AHEAD_ROWS
        self._temporary: Callable[[], object] | None = None
        if state is None:
            # Named like a run's own folder, so that the next run removes it should this process be killed.
            folder = tempfile.mkdtemp(prefix=f"engine-{os.getpid()}-")
            self._temporary = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            self._job = replace(self._job, state=str(Path(folder, "state")))
        self._lock = threading.Lock()
        self._running: Running | None = None  # the present run
        self._last: Running | None = None  # the present one, or the one before
        self._failed: dict[int, object] = {}  # of rows that can be read once: those that failed, by number
        self._is_used = self._is_closed = False

    # --- results ----------------------------------------------------------------------------------------------

    def run(self) -> list[Result]:
        """All results, in the order of the rows, once every row has one.

        Rows that failed are among them. Raises RunStopped when the endpoint will not serve, and what the rows' own
        iterable raised; any exception, a KeyboardInterrupt too, has what came by then as ``results``. To go on, call
        ``run`` again (not with rows of an iterator), or give the same ``state`` in the next program.
        """
        return self._all(self._begin)

    def stream(self) -> Iterator[Result]:
        """Results as rows complete, while the others run. The rows are read no further than results are taken."""
        return self._results(self._begin)

    async def arun(self) -> list[Result]:
        """As ``run``, without blocking the event loop it is awaited on."""
        results: list[Result] = []
        running = self._begin()
        try:
            try:
                while (records := await running.take_soon()) is not None:
                    self._gather(running, records, results)
                self._refuse_half(running)
            finally:
                await self._ended_soon(running)
        except BaseException as error:
            self._keep(error, running, results)
            raise
        return sorted(results, key=_place)

    async def astream(self) -> AsyncIterator[Result]:
        """As ``stream``, on an event loop. Cancelled, the run is drained first."""
        running = self._begin()
        try:
            while (records := await running.take_soon()) is not None:
                for result in self._read(running, records):
                    self._refuse_failed(result)
                    yield result
            self._refuse_half(running)
        finally:
            await self._ended_soon(running)

    def retry_failed(self) -> list[Result]:
        """Run the rows that failed once more, and only these; their new results, in order.

        ``results[result.index] = result`` puts them among the others.
        """
        failed = self._failed_numbers()
        return self._all(lambda: self._begin_again(failed)) if failed else []

    @property
    def status(self) -> dict[str, int | None]:
        """How many rows there are (``total``), are ``completed``, ``failed``, ``running`` and ``pending``.

        Cheap, from any thread, also while it runs. ``total`` and ``pending`` are None while the number of rows is not
        known: before a generator was read to its end.
        """
        last = self._last
        counts = {"completed": 0, "failed": 0, "running": 0} if last is None else last.counts()
        total = self._given.total
        if total is None and last is not None and last.summary is not None and not last.summary.stopped:
            total = last.summary.rows
        pending = None if total is None else max(0, total - sum(counts.values()))
        return {"total": total, **counts, "pending": pending}

    @property
    def answers(self) -> tuple[str, ...]:
        """The names of the columns that the values hold, in order; () before the first run has begun."""
        return () if self._last is None else self._last.answers

    @property
    def gives_dicts(self) -> bool:
        """Whether values are dicts by column: those of several steps, and of a schema's several properties."""
        return len(self._steps) > 1 or len(self.answers) > 1

    def close(self) -> None:
        """End what runs, and remove what is kept, unless it is in a folder of the caller's. Safe to call twice."""
        running, self._is_closed = self._running, True
        if running is not None:
            running.close()
            self._end(running)
        if self._temporary is not None:
            self._temporary()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- runs -------------------------------------------------------------------------------------------------

    def _results(self, begin: Callable[[], Running]) -> Iterator[Result]:
        running = begin()
        try:
            while (records := running.take()) is not None:
                for result in self._read(running, records):
                    self._refuse_failed(result)
                    yield result
            self._refuse_half(running)
        finally:
            self._ended(running)

    def _all(self, begin: Callable[[], Running]) -> list[Result]:
        results: list[Result] = []
        running = begin()
        try:
            try:
                while (records := running.take()) is not None:
                    self._gather(running, records, results)
                self._refuse_half(running)
            finally:
                self._ended(running)
        except BaseException as error:
            self._keep(error, running, results)
            raise
        return sorted(results, key=_place)

    def _gather(self, running: Running, records: Iterable[tuple[int, bytes]], results: list[Result]) -> None:
        """Add what came to ``results``, all of it, and then raise RowFailed where that was asked for."""
        begun = len(results)
        results.extend(self._read(running, records))
        if self._raises:
            for result in results[begun:]:
                self._refuse_failed(result)

    def _keep(self, error: BaseException, running: Running, results: list[Result]) -> None:
        """Nothing that was paid for is lost: what came, also while the run was drained, goes along with the exception."""
        while (records := running.take()) is not None:
            results.extend(self._read(running, records))
        error.results = sorted(results, key=_place)  # type: ignore[attr-defined]
        if not isinstance(error, (RunStopped, RowFailed)):
            error.add_note(
                f"{len(results):,} results had come by then: see .results of this exception. {self._goes_on}"
            )

    def _read(self, running: Running, records: Iterable[tuple[int, bytes]]) -> Iterator[Result]:
        read = reader_of(running.answers, self.gives_dicts).read
        take, traceback_of = running.source.take, running.tracebacks.of
        for number, record in records:
            row = take(number)
            result = read(number, record, row, traceback_of)
            if self._failed:
                self._failed.pop(number, None)
            if result.status != "ok" and not self._given.can_be_read_again:
                self._failed[number] = row
            yield result

    def _refuse_failed(self, result: Result) -> None:
        if self._raises and not result.ok:
            raise RowFailed(result, self._goes_on)

    @property
    def _goes_on(self) -> str:
        """How what is open comes to be done."""
        if self._temporary is None:
            return f"What is done is kept in {self._job.state}: the same program goes on with the other rows."
        if self._is_in_hand and self._given.can_be_read_again:
            return 'run() of this pool goes on with the other rows; with state="folder" so would the same program.'
        return 'What is done is in .results of this exception; with state="folder" the same program would go on with the others.'

    def _refuse_half(self, running: Running) -> None:
        """Raise what ended a run before every row had its outcome."""
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
                f"others are open. {self._goes_on}"
            )

    def _begin(self) -> Running:
        given = self._given
        if self._is_used and not given.can_be_read_again:
            raise UsageError(
                "The rows of this pool came from an iterator, which can be read only once. Make a new Pool with new "
                "rows; with the same state= rows that are done are not sent again."
            )
        source = RowsSource(
            given.rows,
            ahead_max=self._ahead_max,
            row_bytes_max=self._job.limits.row_bytes_max,
            again=given.again,
            total=given.total,
        )
        return self._start(source, is_retry=False)

    def _begin_again(self, failed: set[int]) -> Running:
        if self._given.can_be_read_again:
            rows = self._given.numbered(failed)
        else:
            known = self._failed
            missing = failed - known.keys()
            if missing:
                raise UsageError(
                    f"{len(missing)} rows failed in an earlier run, and this pool has not read them: their iterator "
                    "can be read only once. Run the pool first, or give the rows as a list."
                )
            rows = iter([(number, known[number]) for number in sorted(failed)])
        source = PartSource(rows, ahead_max=self._ahead_max, row_bytes_max=self._job.limits.row_bytes_max)
        return self._start(source, is_retry=True)

    def _failed_numbers(self) -> set[int]:
        if self._running is not None:
            raise UsageError("This pool is running: retry_failed() comes after its end.")
        state = Path(self._job.state)
        if self._is_closed or not state.is_dir():
            return set()
        with Store.view(state) as store:
            failed = {row for row, _, ok in store.finished() if not ok}
        return failed.union(self._failed)  # the latter are open where running them again was interrupted

    def _start(self, source: RowsSource, *, is_retry: bool) -> Running:
        with self._lock:
            if self._is_closed:
                raise UsageError("This pool is closed. Make a new one; with the same state= it goes on.")
            if self._running is not None:
                raise UsageError(
                    "This pool is running already. Take its results to their end first, or close it."
                )
            job = replace(self._job, retry_failed=is_retry, fresh=self._job.fresh and not self._is_used)
            self._is_used = True
            self._running = self._last = Running(
                job, self._auth, source, surroundings=self._surroundings, show=self._show
            )
            _ALIVE.add(self._running)
            return self._running

    def _ended(self, running: Running) -> None:
        try:
            running.close()
        finally:
            self._end(running)

    async def _ended_soon(self, running: Running) -> None:
        try:
            await running.close_soon()
        finally:
            self._end(running)

    def _end(self, running: Running) -> None:
        _ALIVE.discard(running)
        with self._lock:
            if self._running is running:
                self._running = None


class PassingPool(Pool):
    """A pool that nobody has once its only call is over."""

    _is_in_hand = False


def _place(result: Result) -> int:
    return result.index


# Runs that go on at the interpreter's end: whoever still reads of them is gone.
_ALIVE: "weakref.WeakSet[Running]" = weakref.WeakSet()


def _end_all() -> None:
    for running in list(_ALIVE):
        running.close()


# Before the interpreter shuts its thread pools down, where it can be asked for that: a run needs them to end.
getattr(threading, "_register_atexit", atexit.register)(_end_all)
