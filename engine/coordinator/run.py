"""One run from the job to the summary: check, open, resume, run, publish.

Rules of this file:
1. Everything that can be refused is refused before anything is sent.
2. The output appears under its name only when every row has its outcome.
"""

import asyncio
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import uvloop

from engine.config import Job, jobs_of, rates_of
from engine.coordinator.account import summary_of
from engine.coordinator.caller import Caller
from engine.coordinator.embedded import start_mock, with_mocks
from engine.coordinator.ended import Ended
from engine.coordinator.feed import Feed
from engine.coordinator.limiting import Limiting
from engine.coordinator.plan import Plan, check, open_store
from engine.coordinator.quotas import limiting_of, limitings_of
from engine.coordinator.relay import Relay
from engine.coordinator.session import Session
from engine.coordinator.streamstore import Keeper, Replay, StreamStore
from engine.coordinator.supervise import Supervisor
from engine.coordinator.threads import OwnThreads
from engine.coordinator.view import LiveView
from engine.coordinator.writer import Writer
from engine.core.commit import Counts
from engine.core.ledger import Ledger
from engine.credentials import Auth
from engine.handover import secret_values
from engine.launchers.local import Process
from engine.launchers.private import make_private_folder, sweep
from engine.launchers.process import dump_no_core, open_files_allowed, raise_open_files
from engine.observe.log import RunLog
from engine.observe.metrics import Metrics
from engine.observe.progress import MAY_COST_TWICE, Progress
from engine.observe.summary import Summary
from engine.sink import publish
from engine.store import Store
from engine.wire.link import Hub

SPARE_FILES = 64  # descriptors a worker needs besides one for each request in flight


def run_job(job: Job, auth: tuple[Auth, ...], progress: Progress, caller: Caller | None = None) -> Summary:
    """Run ``job`` to its end, or to where it stops, and say what it came to.

    ``caller``: who gives the rows and takes the records, instead of the job's input and output; then any thread may
    run it. Guarantees: an outcome counted in the summary is in the store; the output exists under its name only if
    every row has one. Raises EngineError (usage, start, store) when there is nothing to sum up.
    """
    began = time.monotonic()
    dump_no_core()
    with ExitStack() as stack:
        stack.callback(progress.end)  # whatever comes: until then it may hold the terminal
        plan = check(job, caller)
        stack.callback(plan.source.close)
        store = open_store(plan, progress.note) if job.state else None
        if store is not None:
            stack.callback(store.close)
        runner = _Runner(plan, store, auth, progress, began, caller)
        stack.callback(runner.close)
        return runner.run()


class _Runner:
    """What one run needs between its plan and its summary."""

    def __init__(
        self,
        plan: Plan,
        store: Store | None,
        auth: tuple[Auth, ...],
        progress: Progress,
        began: float,
        caller: Caller | None,
    ) -> None:
        self._plan = plan
        self._job = plan.job
        self._store = store
        self._auth = auth
        self._progress = progress
        self._began = began
        self._caller = caller
        state = Path(self._job.state) if store is not None else None
        self._log = RunLog(state)
        rates = [rates_of(one) for one in jobs_of(self._job)]
        is_one = not (self._job.endpoints or self._job.steps)
        self._metrics = Metrics(began, rates, () if is_one else self._job.places)
        self._view = LiveView(plan, state, self._metrics, progress)
        self._relay = (
            Relay(progress.said) if any(one.step.kind == "call" for one in self._job.steps) else None
        )
        sweep()  # what runs that were killed left behind
        self._private = make_private_folder()
        self._sockets = self._private.path

    def close(self) -> None:
        """Leave nothing behind but the state and the output."""
        self._view.remove()
        self._log.close()
        self._private.remove()

    def run(self) -> Summary:
        """The run itself, then the output, then the summary."""
        job, store = self._job, self._store
        if store is not None:
            doubted = store.recover()
            if doubted:
                self._note(
                    f"{doubted} rows were under way when the run was interrupted; some {MAY_COST_TWICE}"
                )
        self._log.write("start", input=job.input, output=job.output, procs=job.procs, pid=os.getpid())
        ended = uvloop.run(self._serve())
        if ended.error is not None:
            raise ended.error
        if ended.whole and store is not None:
            # With --rows an earlier run may have done more of them.
            if not self._plan.source.is_part:
                store.set_total_rows(max(ended.rows_read, store.counts().rows))
            if self._plan.out is None:
                self._publish(store, ended.rows_read)
            if store.counts().rows == store.total_rows():
                store.finish()
        summary = summary_of(self._plan, store, self._metrics, ended, began=self._began, now=time.monotonic())
        self._log.write(
            "end", exit_code=summary.exit_code, ok=summary.ok, failed=summary.failed, reason=ended.reason
        )
        return summary

    def _note(self, sentence: str) -> None:
        self._progress.note(sentence)
        self._log.write("note", text=sentence)

    # --- the session --------------------------------------------------------------------------------------

    async def _serve(self) -> Ended:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(OwnThreads())
        mocks: list[Process] = []
        job = await loop.run_in_executor(None, self._start_mocks, mocks)
        job = self._fit_open_files(job)
        hub = Hub(self._sockets / "c", message_bytes_max=job.limits.message_bytes_max)
        writer: Writer | None = None
        try:
            sessions: list[Session] = []
            writer = Writer(self._keeper(), loop, on_failure=lambda error: sessions[0].cut_short(error))
            session = Session(
                job,
                hub=hub,
                ledger=Ledger(),
                writer=writer,
                supervisor=lambda owner: self._supervisor(job, owner),
                feed=self._feed,
                metrics=self._metrics,
                answers=self._plan.answers,
                on_tick=self._view.tick,
                note=self._note,
                store=self._store,
            )
            sessions.append(session)
            if self._caller is not None:
                before = self._store.counts() if self._store is not None else Counts(0, {}, 0, 0, 0)
                self._caller.began(session, self._plan.answers, before)
            ended = await session.run()
            self._view.tick(session, math.inf)  # the last figures are the whole run's
            return ended
        finally:
            if writer is not None:
                await loop.run_in_executor(None, writer.close)
            hub.close()
            if self._relay is not None:
                await loop.run_in_executor(None, self._relay.close)
            for mock in mocks:
                mock.let_go()
                if mock.wait(2.0) is None:
                    mock.kill()
                    mock.wait(2.0)
                mock.close()

    def _start_mocks(self, mocks: list[Process]) -> Job:
        """The job with the addresses of the mock providers it asks for, which are started and put into ``mocks``."""

        def started(base_url: str) -> str:
            mock, address = start_mock(base_url, self._sockets)
            mocks.append(mock)
            return address

        return with_mocks(self._job, started)

    def _keeper(self) -> Keeper:
        """Where commits go: the store, standard output, or both."""
        if self._plan.out is None:
            assert self._store is not None
            return self._store
        return StreamStore(self._store, self._plan.out)

    def _limiting(self, session: Session, job: Job, auth: Auth, name: str) -> Limiting:
        """``job``, ``auth`` and ``name`` of one endpoint, or of one step."""
        what = "step" if self._job.steps else "endpoint"
        return limiting_of(
            job,
            auth,
            label=f"the run for {job.output if job.output != '-' else job.input}",
            spare=self._sockets / "q",
            hide=secret_values(self._auth),
            note=(lambda sentence: self._note(f"{what} {name}: {sentence}")) if name else self._note,
            on_change=session.tune,
        )

    def _supervisor(self, job: Job, session: Session) -> Supervisor:
        run_id = self._store.get_meta("run_id") if self._store is not None else None
        make = partial(self._limiting, session)
        return Supervisor(
            job,
            self._auth,
            run_id or self._sockets.name,
            self._sockets,
            pid=os.getpid(),
            limitings=limitings_of(job, self._auth, make),
            on_death=session.worker_died,
            note=self._note,
            surroundings=self._caller.surroundings if self._caller is not None else None,
            tell=self._relay.put if self._relay is not None else None,
        )

    def _feed(self, session: Session) -> Feed:
        store, source = self._store, self._plan.source
        finished: Callable[[], Iterator[tuple[int, int, bool]]] = lambda: iter(())  # noqa: E731
        resuming = store is not None and store.counts().rows > 0 and not source.is_part
        if store is not None and resuming:
            finished = store.finished
        return Feed(
            source,
            again=source.again if resuming else None,
            finished=finished,
            on_finished=Replay(store, self._caller.hand) if store is not None and self._caller else None,
            rows_max=self._job.rows,
            on_chunk=session.chunk_read,
            on_end=session.all_read,
            on_error=session.input_failed,
        )

    def _fit_open_files(self, job: Job) -> Job:
        """Fewer requests in flight where the system's limit of open files does not allow what was asked for."""
        allowed = raise_open_files() if self._caller is None else open_files_allowed()
        per_worker = max(1, allowed - SPARE_FILES)
        workers = max(1, min(job.procs, job.in_flight))
        if job.in_flight <= per_worker * workers:
            return job
        fitting = per_worker * workers
        if not job.in_flight_auto:
            self._note(
                f"{job.in_flight} requests in flight need more open files than the limit of {allowed} per process "
                f"allows; going on with {fitting}. Raise the hard limit (ulimit -Hn) to have more"
            )
        return replace(job, in_flight=fitting)

    # --- after it -----------------------------------------------------------------------------------------

    def _publish(self, store: Store, rows: int) -> None:
        plan, job = self._plan, self._job
        publish(
            lambda: store.records(before=rows),
            job.output,
            job.output_format,
            columns=plan.columns,
            notes=plan.notes,
            escape_cells=job.escape_cells,
            rows=rows,
        )
        self._log.write("published", output=job.output)
