"""Pool: steps over rows, run by the same engine as the command line's, from a program.

Rules of this file:
1. The run is in threads and processes of its own: it neither needs an event loop nor minds one.
2. What was done is in a store: the caller's folder, or one that goes with the pool.
3. Whatever ends the reading of results (a break, an exception, an interrupt) drains the run before it goes on.
"""

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, Self, Unpack

from engine.api.functions import settled
from engine.api.keeping import Kept, counts_in
from engine.api.plans import PoolSettings, job_of, refuse_unknown, rows_given, state_given
from engine.api.results import Result, RowFailed, RunStopped, Status, reader_of
from engine.api.running import Running, refuse_half
from engine.api.showing import way_of_showing
from engine.api.sources import Sources
from engine.api.steps import Chain, Step, steps_of
from engine.core.errors import UsageError
from engine.launchers.private import make_private_folder
from engine.rows import RowsSource
from engine.steps.functions import begin_run

AHEAD_ROWS = 2048  # read ahead of the results that were taken, besides twice the calls in flight


class Pool:
    """Steps over rows. To be run once or several times; rows that are done are never sent again."""

    _is_in_hand = True  # the caller has it, and can call it again

    def __init__(
        self,
        steps: Step | Chain | Iterable[Step | Chain],
        rows: Iterable[Any] | AsyncIterable[Any],
        *,
        max_flows: int | Literal["auto"] | None = None,
        procs: int | None = None,
        rpm: int | Literal["auto"] | None = None,
        tpm: int | Literal["auto"] | None = None,
        state: str | os.PathLike[str] | None = None,
        on_error: Literal["keep", "raise"] = "keep",
        progress: bool | None = None,
        read_ahead: int | None = None,
        **settings: Unpack[PoolSettings],
    ) -> None:
        """Nothing is read or sent yet; what cannot work is refused now, with UsageError.

        rows: mappings, texts (columns ``text``), dataclasses and the like; a list, a generator, anything iterable, the lines
        of an open text file. They are read as needed, in a thread of the pool (a cursor of sqlite3 needs
        check_same_thread=False); what is for ``async for``, on the loop of arun() or astream(). max_flows: calls in flight
        at once, over all workers ("auto" finds out how many the endpoint takes). procs: worker processes (the usual: one for
        each processor). rpm, tpm: requests and tokens per minute that are never exceeded; "auto" learns them from replies.
        state: a folder that keeps what was done: the same pool over the same rows goes on from there, whatever ended it.
        on_error: "raise" stops the run at the first row that fails, with RowFailed; when it is run again, such rows are
        tried again. progress: True or False; without it, shown on a terminal and in a notebook. read_ahead: rows that may be
        read before their results are taken. settings: any setting of ``engine run`` by its flag's name: model, base_url,
        max_tokens, retries, timeout (s), ...
        """
        if on_error not in ("keep", "raise"):
            raise UsageError(f'on_error is {on_error!r}. Use "keep" or "raise".')
        if read_ahead is not None and not (type(read_ahead) is int and read_ahead >= 1):
            raise UsageError(f"read_ahead is {read_ahead!r}: a whole number of at least 1 row is needed.")
        begin_run()  # a worker that reads a script for its functions has come as far as it needs to
        self._steps, self._surroundings = settled(steps_of(steps))
        given = rows_given(rows)
        self._raises = on_error == "raise"
        self._show = way_of_showing(progress)
        refuse_unknown(settings)
        told: dict[str, Any] = dict(settings, in_flight=max_flows, procs=procs, rpm=rpm, tpm=tpm)
        loaded = job_of(self._steps, {**told, "state": state_given(state)})
        self._job, self._auth = loaded.job, loaded.auth
        private = None
        if state is None:
            private = make_private_folder()
            self._job = replace(self._job, state=str(private.path / "state"))
        self._sources = Sources(
            given, self._job, ahead_max=read_ahead or 2 * self._job.in_flight + AHEAD_ROWS
        )
        self._kept = Kept(private)
        self._end_kept = weakref.finalize(self, self._kept.end)
        self._lock = threading.Lock()
        self._last: Running | None = None  # the present run, or the one before
        self._is_used = self._is_closed = False

    # --- results ----------------------------------------------------------------------------------------------

    def run(self) -> list[Result]:
        """All results, in the order of the rows, once every row has one.

        Rows that failed are among them. Raises RunStopped when the endpoint will not serve, and what the rows' own
        iterable raised; any exception, a KeyboardInterrupt too, has what came by then as ``results``. To go on, call
        ``run`` again (not with rows of an iterator), or give the same ``state`` in the next program.
        """
        return self._all(self._begin)

    def stream(self) -> Generator[Result, None, None]:
        """Results as rows complete, while the others run. The rows are read no further than results are taken."""
        return self._results(self._begin)

    async def arun(self) -> list[Result]:
        """As ``run``, without blocking the event loop it is awaited on."""
        results: list[Result] = []
        await self._let_go_soon()
        running = self._begin(asyncio.get_running_loop())
        try:
            try:
                while (records := await running.take_soon()) is not None:
                    self._gather(running, records, results)
                refuse_half(running, self._goes_on)
            finally:
                await self._ended_soon(running)
        except BaseException as error:
            self._keep(error, running, results)
            raise
        return sorted(results, key=_place)

    def astream(self) -> AsyncGenerator[Result, None]:
        """As ``stream``, on an event loop. Cancelled, the run is drained first.

        A loop over it that is left early ends the run when the pool is used next; ``contextlib.aclosing`` ends it at once.
        """
        itself: list[Callable[[], object | None]] = []
        stream = self._results_soon(itself)
        itself.append(weakref.ref(stream))
        return stream

    async def _results_soon(self, itself: list[Callable[[], object | None]]) -> AsyncGenerator[Result, None]:
        await self._let_go_soon()
        running = self._begin(asyncio.get_running_loop())
        running.reader = itself[0]
        try:
            while (records := await running.take_soon()) is not None:
                for result in self._read(running, records):
                    self._refuse_failed(result)
                    yield result
            refuse_half(running, self._goes_on)
        finally:
            await self._ended_soon(running)

    def retry_failed(self) -> list[Result]:
        """Run the rows that failed once more, and only these; their new results, in order.

        ``results[result.index] = result`` puts them among the others.
        """
        failed = self._failed_numbers()
        return self._all(lambda: self._begin_again(failed)) if failed else []

    @property
    def status(self) -> Status:
        """How many rows there are (``total``), are ``completed``, ``failed``, ``running`` and ``pending``.

        Cheap, from any thread, also while it runs; before the first run it is what the ``state`` folder knows. ``total``
        and ``pending`` are None while the number of rows is not known: before a generator was read to its end.
        """
        last = self._last
        completed, failed, running = counts_in(self._job) if last is None else last.counts()
        total = self._sources.given.total
        if total is None and last is not None and last.summary is not None and not last.summary.stopped:
            total = last.summary.rows
        pending = None if total is None else max(0, total - completed - failed - running)
        return Status(total=total, completed=completed, failed=failed, running=running, pending=pending)

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
        self._is_closed = True
        self._end_kept()

    def __repr__(self) -> str:
        kinds, total = ", ".join(step.kind for step in self._steps), self._sources.given.total
        state = (
            "closed"
            if self._is_closed
            else "new"
            if self._last is None
            else "running"
            if self._running
            else "ended"
        )
        return f"<Pool of {kinds} over {'rows' if total is None else f'{total:,} rows'}, {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- runs -------------------------------------------------------------------------------------------------

    def _results(self, begin: Callable[[], Running]) -> Generator[Result, None, None]:
        running = begin()
        try:
            while (records := running.take()) is not None:
                for result in self._read(running, records):
                    self._refuse_failed(result)
                    yield result
            refuse_half(running, self._goes_on)
        finally:
            self._ended(running)

    def _all(self, begin: Callable[[], Running]) -> list[Result]:
        results: list[Result] = []
        running = begin()
        try:
            try:
                while (records := running.take()) is not None:
                    self._gather(running, records, results)
                refuse_half(running, self._goes_on)
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
        if not isinstance(error, (RunStopped, RowFailed, UsageError)):
            error.add_note(
                f"{len(results):,} results had come by then: see .results of this exception. {self._goes_on}"
            )

    def _read(self, running: Running, records: Iterable[tuple[int, bytes]]) -> Iterator[Result]:
        read = reader_of(running.answers, self.gives_dicts).read
        take, taken, traceback_of = running.source.take, self._sources.taken, running.tracebacks.of
        for number, record in records:
            if running.is_anothers:
                return
            row = take(number)
            result = read(number, record, row, traceback_of)
            taken(number, row, ok=result.ok)
            yield result

    def _refuse_failed(self, result: Result) -> None:
        if self._raises and not result.ok:
            raise RowFailed(result, self._goes_on)

    @property
    def _goes_on(self) -> str:
        """How what is open comes to be done."""
        if self._kept.is_durable:
            return f"What is done is kept in {self._job.state}: the same program goes on with the other rows."
        if self._is_in_hand and self._sources.given.can_be_read_again:
            return 'run() of this pool goes on with the other rows; with state="folder" so would the same program.'
        return 'What is done is in .results of this exception; with state="folder" the same program would go on with the others.'

    def _begin(self, loop: asyncio.AbstractEventLoop | None = None) -> Running:
        return self._start(self._sources.all(loop, is_first=not self._is_used), is_retry=False)

    def _begin_again(self, failed: set[int]) -> Running:
        return self._start(self._sources.part(failed), is_retry=True)

    def _failed_numbers(self) -> set[int]:
        self._let_go()
        if self._running is not None:
            raise UsageError("This pool is running: retry_failed() comes after its end.")
        return set() if self._is_closed else self._sources.failed_numbers()

    def _start(self, source: RowsSource, *, is_retry: bool) -> Running:
        self._let_go()
        with self._lock:
            if self._is_closed:
                raise UsageError("This pool is closed. Make a new one; with the same state= it goes on.")
            if self._running is not None:
                raise UsageError(
                    "This pool is running already. Take its results to their end first, or close it."
                )
            job = replace(
                self._job,
                retry_failed=is_retry,
                opens_failed=self._raises,  # a failure that ended a run and was mended is in nobody's way
                fresh=self._job.fresh and not self._is_used,
            )
            self._is_used = True
            running = Running(job, self._auth, source, surroundings=self._surroundings, show=self._show)
            self._kept.running = self._last = running
            return running

    @property
    def _running(self) -> Running | None:
        """The present run."""
        return self._kept.running

    def _abandoned(self) -> Running | None:
        """The present run, where nobody holds the stream of its results any more."""
        running = self._running
        return running if running is not None and running.is_abandoned else None

    def _let_go(self) -> None:
        """End a run that nobody reads of, before another begins; refuse where none of this process's can."""
        if self._kept.is_anothers:
            raise UsageError(
                "This pool was made in the process that this one was forked from, and belongs to that one. Make a Pool "
                "here; with the same state= it goes on, once the other one has ended."
            )
        if (left := self._abandoned()) is not None:
            self._ended(left)

    def _ended(self, running: Running) -> None:
        try:
            running.close()
        finally:
            self._end(running)

    async def _let_go_soon(self) -> None:
        if (left := self._abandoned()) is not None:
            await self._ended_soon(left)

    async def _ended_soon(self, running: Running) -> None:
        try:
            await running.close_soon()
        finally:
            self._end(running)
            await self._sources.let_go()

    def _end(self, running: Running) -> None:
        if running.is_anothers:
            return
        with self._lock:
            if self._running is running:
                self._kept.running = None


class PassingPool(Pool):
    """A pool that nobody has once its only call is over."""

    _is_in_hand = False


def _place(result: Result) -> int:
    return result.index
