"""One run from the job to the summary: check, open, resume, run, publish.

Rules of this file:
1. Everything that can be refused is refused before anything is sent.
2. The output appears under its name only when every row has its outcome.
"""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psutil
import uvloop

from engine.config import Job
from engine.coordinator.embedded import is_embedded, start_mock
from engine.coordinator.feed import Feed
from engine.coordinator.plan import Plan, check, open_store
from engine.coordinator.session import Ended, Session
from engine.coordinator.streamstore import Keeper, StreamStore
from engine.coordinator.supervise import Supervisor
from engine.coordinator.writer import Writer
from engine.core.errors import ExitCode
from engine.core.ledger import Ledger
from engine.credentials import AuthHeader
from engine.launchers.process import raise_open_files
from engine.observe.live import Gauges, LiveFile
from engine.observe.log import RunLog
from engine.observe.metrics import Metrics
from engine.observe.progress import Progress
from engine.observe.summary import Summary
from engine.sink import StreamOut, publish
from engine.source import Source
from engine.store import Store
from engine.wire.link import Hub

SPARE_FILES = 64  # descriptors a worker needs besides one for each request in flight
LIVE_EVERY_S = 1.0


def run_job(job: Job, auth: tuple[AuthHeader, ...], progress: Progress) -> Summary:
    """Run ``job`` to its end, or to where it stops, and say what it came to.

    Guarantees: an outcome counted in the summary is in the store; the output exists under its name only if
    every row has one. Raises EngineError (usage, start, store) when there is nothing to sum up.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        plan = check(job)
        stack.callback(plan.source.close)
        stack.callback(progress.end)
        store = open_store(plan, progress.note) if job.state else None
        if store is not None:
            stack.callback(store.close)
        runner = _Runner(plan, store, auth, progress, began)
        stack.callback(runner.close)
        return runner.run()


class _Runner:
    """What one run needs between its plan and its summary."""

    def __init__(
        self, plan: Plan, store: Store | None, auth: tuple[AuthHeader, ...], progress: Progress, began: float
    ) -> None:
        self._plan = plan
        self._job = plan.job
        self._store = store
        self._auth = auth
        self._progress = progress
        self._began = began
        state = Path(self._job.state) if store is not None else None
        self._log = RunLog(state)
        self._live = LiveFile(state)
        self._gauges = Gauges()
        self._next_view = 0.0
        self._metrics = Metrics(began, rpm=self._job.rpm, tpm=self._job.tpm)
        self._sockets = _socket_folder()
        self._out = StreamOut() if self._job.output == "-" else None

    def close(self) -> None:
        """Leave nothing behind but the state and the output."""
        self._live.remove()
        self._log.close()
        shutil.rmtree(self._sockets, ignore_errors=True)

    def run(self) -> Summary:
        """The run itself, then the output, then the summary."""
        job, store = self._job, self._store
        if store is not None:
            doubted = store.recover()
            if doubted:
                self._note(
                    f"{doubted} rows were under way when the run was interrupted; some may be billed twice"
                )
        self._log.write("start", input=job.input, output=job.output, procs=job.procs, pid=os.getpid())
        ended = uvloop.run(self._serve())
        if ended.error is not None and ended.error.exit_code is not ExitCode.STORE:
            raise ended.error
        if ended.whole and not ended.reason and store is not None:
            store.set_total_rows(ended.rows_read)
            if self._out is None:
                self._publish(store)
            store.finish()
        if ended.error is not None:
            raise ended.error
        summary = self._summary(ended)
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
        job, mock = self._job, None
        if job.target.provider == "mock" and is_embedded(job.target.base_url):
            mock, address = await loop.run_in_executor(None, start_mock, job.target.base_url, self._sockets)
            job = replace(job, target=replace(job.target, base_url=address))
        job = self._fit_open_files(job)
        hub = Hub(self._sockets / "c", message_bytes_max=job.limits.message_bytes_max)
        writer: Writer | None = None
        try:
            sessions: list[Session] = []
            writer = Writer(self._keeper(), loop, on_failure=lambda error: sessions[0].failed(error))
            session = Session(
                job,
                hub=hub,
                ledger=Ledger(),
                writer=writer,
                supervisor=lambda owner: self._supervisor(job, owner),
                feed=self._feed,
                metrics=self._metrics,
                answers=self._plan.answers,
                on_tick=self._tick,
                note=self._note,
            )
            sessions.append(session)
            return await session.run()
        finally:
            if writer is not None:
                await loop.run_in_executor(None, writer.close)
            hub.close()
            if mock is not None:
                mock.let_go()
                if mock.wait(2.0) is None:
                    mock.kill()
                    mock.wait(2.0)
                mock.close()

    def _keeper(self) -> Keeper:
        """Where commits go: the store, standard output, or both."""
        if self._out is None:
            assert self._store is not None
            return self._store
        return StreamStore(self._store, self._out)

    def _supervisor(self, job: Job, session: Session) -> Supervisor:
        run_id = self._store.get_meta("run_id") if self._store is not None else None
        return Supervisor(
            job,
            self._auth,
            run_id or self._sockets.name,
            self._sockets,
            pid=os.getpid(),
            on_death=session.worker_died,
            note=self._note,
        )

    def _feed(self, session: Session) -> Feed:
        store = self._store
        finished: Callable[[], Iterator[tuple[int, int, bool]]] = lambda: iter(())  # noqa: E731
        resuming = store is not None and store.counts().rows > 0
        if store is not None and resuming:
            finished = store.finished
        return Feed(
            self._plan.source,
            again=self._again if resuming and self._job.input != "-" else None,
            finished=finished,
            rows_max=self._job.rows,
            on_chunk=session.chunk_read,
            on_end=session.all_read,
            on_error=session.failed,
        )

    def _again(self) -> Source:
        return Source(self._job.input, self._job.input_format, row_bytes_max=self._job.limits.row_bytes_max)

    def _fit_open_files(self, job: Job) -> Job:
        """Fewer requests in flight where the system's limit of open files does not allow what was asked for."""
        allowed = raise_open_files()
        per_worker = max(1, allowed - SPARE_FILES)
        workers = max(1, min(job.procs, job.in_flight))
        if job.in_flight <= per_worker * workers:
            return job
        fitting = per_worker * workers
        self._note(
            f"{job.in_flight} requests in flight need more open files than the limit of {allowed} per process allows; "
            f"going on with {fitting}. Raise the hard limit (ulimit -Hn) to have more"
        )
        return replace(job, in_flight=fitting)

    def _tick(self, session: Session, now: float) -> None:
        if now < self._next_view:
            return
        self._next_view = now + LIVE_EVERY_S
        children = [child for child in session.supervisor.children if child.process is not None]
        snapshot = self._metrics.snapshot(
            time.monotonic(),
            in_flight=sum(child.busy for child in children),
            waiting=sum(child.waiting for child in children),
            sleeping=sum(child.sleeping for child in children),
            starved_s=max((child.starved_s for child in children), default=0.0),
            paused_s=session.paused_s,
            workers=self._gauges.look(
                [
                    (child.slot, child.process.pid, child.busy)
                    for child in children
                    if child.process is not None
                ]
            ),
            rows_guess=self._rows_guess(),
        )
        self._live.write(snapshot)
        self._progress.update(snapshot)

    def _rows_guess(self) -> int | None:
        """Rows of the whole input, from how much of its bytes the rows so far took."""
        guess = self._plan.source.rows_estimate()
        return guess if guess is None or self._job.rows is None else min(guess, self._job.rows)

    # --- after it -----------------------------------------------------------------------------------------

    def _publish(self, store: Store) -> None:
        plan, job = self._plan, self._job
        publish(
            store.records,
            job.output,
            job.output_format,
            columns=plan.columns,
            notes=plan.notes,
            escape_cells=job.escape_cells,
        )
        self._log.write("published", output=job.output)

    def _summary(self, ended: Ended) -> Summary:
        job, metrics = self._job, self._metrics
        seconds = time.monotonic() - self._began
        if self._store is not None:
            counts = self._store.counts()
            ok, failures = counts.ok, dict(counts.failed)
            in_doubt = self._store.in_doubt_total() + ended.in_doubt
        else:
            ok, failures = metrics.ok, dict(metrics.failures)
            in_doubt = metrics.doubted + ended.in_doubt
        failed = sum(failures.values())
        working = max(metrics.last_request - metrics.first_request, 1e-3) if metrics.first_request else 0.0
        rpm, tpm = metrics.used(metrics.last_request)
        code = ended.exit_code if ended.reason else (ExitCode.SOME_FAILED if failed else ExitCode.OK)
        percentiles = {
            name: metrics.percentile_ms(at) for name, at in (("p50", 50), ("p90", 90), ("p99", 99))
        }
        return Summary(
            rows=max(ended.rows_read, ok + failed),
            ok=ok,
            failed=failed,
            open=max(0, ended.rows_read - ok - failed),
            resumed=metrics.resumed_rows,
            in_doubt=in_doubt,
            requests=metrics.requests,
            attempts=metrics.requests,
            retries=metrics.retries,
            throttled=metrics.throttled,
            tokens_in=metrics.tokens_in,
            tokens_out=metrics.tokens_out,
            seconds=round(seconds, 3),
            first_request_s=session_start(metrics, self._began),
            rows_per_s=round((metrics.ok + metrics.failed) / working, 1) if working else 0.0,
            latency_ms=percentiles if metrics.requests else {},
            quota={"rpm_used": rpm, "tpm_used": tpm},
            failures=failures,
            worker_deaths=ended.deaths,
            extrapolation=self._extrapolation(ended, seconds),
            output="" if job.output == "-" else job.output,
            state=job.state,
            exit_code=int(code),
            stopped=ended.reason,
        )

    def _extrapolation(self, ended: Ended, seconds: float) -> dict[str, int | float] | None:
        """With --rows: what the whole input would take, from the bytes that the rows so far took."""
        metrics = self._metrics
        done = metrics.ok + metrics.failed
        estimate = self._plan.source.rows_estimate()
        if self._job.rows is None or not done or estimate is None:
            return None
        rows = max(ended.rows_read, estimate)
        times = rows / done
        return {
            "rows": rows,
            "seconds": round(seconds * times, 1),
            "tokens_in": int(metrics.tokens_in * times),
            "tokens_out": int(metrics.tokens_out * times),
        }


def session_start(metrics: Metrics, began: float) -> float | None:
    """Seconds from the command's start to the first request that ended; None without one."""
    return None if metrics.first_request is None else round(metrics.first_request - began, 3)


def _socket_folder() -> Path:
    """A private folder for this run's sockets; those of runs that were killed are removed on the way."""
    for left in Path(tempfile.gettempdir()).glob("engine-*-*"):
        pid = left.name.split("-")[1]
        if pid.isdigit() and not psutil.pid_exists(int(pid)) and left.stat().st_uid == os.getuid():
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"engine-{os.getpid()}-"))
