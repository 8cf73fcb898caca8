"""One run on the coordinator's loop: leases out, outcomes in, commits, and when it is over.

Rules of this file:
1. A lease is committed before it is sent; an outcome counts when its commit is on disk, not before.
2. An outcome is taken only under the lease it was made for: what a dead or replaced worker says is refused.
3. The loop never waits: reading, committing and publishing have threads of their own.
"""

import asyncio
import hmac
import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.config import Job
from engine.coordinator.feed import Chunk, Feed
from engine.coordinator.stops import Stops
from engine.coordinator.supervise import Child, Supervisor
from engine.coordinator.writer import Writer
from engine.core.commit import Commit, OutcomeRow
from engine.core.errors import EngineError, ErrorKind, ExitCode, RowError
from engine.core.ledger import Ledger, LedgerRow
from engine.formats.record import Recorder, decode_row
from engine.observe.metrics import Metrics
from engine.wire.link import Hub
from engine.wire.messages import (
    Beat,
    Close,
    Drain,
    Drained,
    Event,
    Hello,
    Lease,
    Message,
    OutcomeLine,
    Outcomes,
    Refuse,
    Released,
    RowLine,
    Tune,
    Want,
    Welcome,
)

TICK_S = 0.1
DRAIN_MAX_S = 30.0  # calls in flight get so long to end after the first signal, or --timeout if that is less
BACKLOG_ROWS = 1024  # read ahead of what is leased, at least
BACKLOG_BYTES = 32 * 1024 * 1024
WRITER_ROWS_MAX = 20_000  # committed no faster than so many rows behind: leasing waits for the disk


@dataclass(slots=True)
class Ended:
    """How a session ended."""

    exit_code: ExitCode = ExitCode.OK
    reason: str = ""  # why it stopped early, one sentence; "" when it did not
    rows_read: int = 0
    whole: bool = False  # every row of the input has its outcome committed
    in_doubt: int = 0  # rows that were leased and unfinished when it was cut short
    error: EngineError | None = None
    stale_refused: int = 0
    deaths: int = 0
    notes: list[str] = field(default_factory=list)


class Session:
    """The coordinator's state while workers run. ``run`` returns when the run is over, one way or another."""

    def __init__(
        self,
        job: Job,
        *,
        hub: Hub,
        ledger: Ledger,
        writer: Writer,
        supervisor: Callable[["Session"], Supervisor],
        feed: Callable[["Session"], Feed],
        metrics: Metrics,
        answers: tuple[str, ...],
        on_tick: Callable[["Session", float], None],
        note: Callable[[str], None],
    ) -> None:
        self._job = job
        self._hub = hub
        self._ledger = ledger
        self._writer = writer
        self.metrics = metrics
        self._on_tick = on_tick
        self.note = note
        self._loop = asyncio.get_running_loop()
        self.supervisor = supervisor(self)
        self._feed = feed(self)
        self._reading = 1  # chunks asked for and not yet here
        self._read_all = False
        self._asking: deque[Child] = deque()  # workers with credit, in the order they asked
        self._stops = Stops(job, self._loop.time())
        self._gate_open = False
        self._stopping = False
        self._drain_until = 0.0
        self._signals = 0
        self._over = asyncio.Event()
        self.ended = Ended()
        self._recorder = Recorder(
            batch=job.output_format == "openai-batch",
            meta=job.meta,
            error_chars_max=job.limits.error_chars_max,
            answers=answers,
        )

    async def run(self) -> Ended:
        """From the first start of a worker to the last commit."""
        self._hub.listen(self._loop, self._on_message)
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._on_signal)
        self.supervisor.start_limiter()
        self.supervisor.tick(self._loop.time())
        self._feed.start()
        try:
            while not self._over.is_set():
                self._tick(self._loop.time())
                try:
                    await asyncio.wait_for(self._over.wait(), TICK_S)
                except TimeoutError:
                    continue
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._loop.remove_signal_handler(number)
            self._feed.stop()
            for child in self.supervisor.children:
                if child.peer:
                    self._hub.send(child.peer, Close())
            await self._loop.run_in_executor(None, self.supervisor.end)
        self.ended.rows_read = self._feed.rows_read
        self.ended.whole = self._read_all and self._ledger.is_idle
        self.ended.stale_refused = self._ledger.stale_refused
        return self.ended

    # --- rows in ------------------------------------------------------------------------------------------

    def chunk_read(self, chunk: Chunk) -> None:
        """The feed has read on."""
        self._reading -= 1
        self.metrics.resumed(chunk.resumed)
        if chunk.bad:
            self._commit_failed(
                [(row.row, row.digest, row.payload, ErrorKind.BAD_INPUT, row.bad) for row in chunk.bad],
                decode=False,
            )
        self._ledger.offer(chunk.rows)
        self._serve()

    def all_read(self, rows: int) -> None:
        """The feed has come to the input's end."""
        self._read_all = True
        self.metrics.rows_total(rows)
        self._check_over()

    @property
    def rows_read(self) -> int:
        """Rows of the input that were read so far."""
        return self._feed.rows_read

    @property
    def paused_s(self) -> float:
        """How long the quota's pause still lasts, as the limiter last told; 0 when there is none."""
        return self.supervisor.limits.paused_s

    def failed(self, error: EngineError) -> None:
        """Something the run cannot go on without has failed: the input, or the store."""
        if self.ended.error is None:
            self.ended.error = error
        self._stop(str(error), error.exit_code, now=error.exit_code is ExitCode.STORE)

    def _read_on(self) -> None:
        if self._read_all or self._stopping or self._reading:
            return
        low = max(BACKLOG_ROWS, 2 * sum(child.want for child in self.supervisor.children))
        if self._ledger.waiting_count < low and self._ledger.waiting_bytes < BACKLOG_BYTES:
            self._reading += 1
            self._feed.more()

    # --- rows out -----------------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Lease rows to the workers that asked, in the order they asked."""
        if self._stopping:
            return
        for _ in range(len(self._asking)):
            if self._writer.backlog > WRITER_ROWS_MAX:
                break
            child = self._asking.popleft()
            if child.process is None or child.want <= 0:
                continue
            lease = self._ledger.lease(child.key, child.want, self._job.limits.lease_bytes_max)
            if lease is None:
                self._asking.append(child)
                continue
            child.want -= len(lease.rows)
            if child.want > 0:
                self._asking.append(child)
            self._open(child, lease.id, lease.rows)
        self._read_on()

    def _open(self, child: Child, lease: int, rows: list[LedgerRow]) -> None:
        key, peer = child.key, child.peer
        message = Lease(lease=lease, rows=[RowLine(row.row, row.line, row.payload) for row in rows])

        def recorded() -> None:
            # The worker may have died meanwhile: its rows are waiting again under another lease.
            if child.key != key or child.process is None:
                return
            if self._stopping:
                # The drain began while this was being written: the rows were never handed out.
                self._released(child, [row.row for row in rows])
            else:
                self._hub.send(peer, message)

        self._writer.submit(Commit(opened=[(lease, [row.row for row in rows])]), recorded)

    # --- messages -----------------------------------------------------------------------------------------

    def _on_message(self, peer: bytes, message: Message) -> None:
        if isinstance(message, Hello):
            self._hello(peer, message)
            return
        child = self.supervisor.child_of(peer)
        if child is None:
            return
        child.heard = self._loop.time()
        if isinstance(message, Outcomes):
            self._outcomes(child, message)
        elif isinstance(message, Want):
            self._wants(child, message.rows)
        elif isinstance(message, Released):
            self._released(child, message.rows)
        elif isinstance(message, Drained):
            child.drained = True
            self._check_over()
        elif isinstance(message, Event):
            self._stops.unreachable(message.message, self._loop.time())

    def _hello(self, peer: bytes, message: Hello) -> None:
        child = next((one for one in self.supervisor.children if one.slot == message.slot), None)
        known = hmac.compare_digest(message.token, self.supervisor.token)
        if not known or child is None or child.process is None or child.process.pid != message.pid:
            self._hub.send(peer, Refuse(reason="this run does not know you"))
            return
        child.peer = peer
        child.heard = self._loop.time()
        self._hub.send(peer, Welcome(in_flight=child.in_flight, gate=-1 if self._gate_open else child.gate))
        if self._stopping:
            self._hub.send(peer, Drain())

    def _wants(self, child: Child, rows: int) -> None:
        if rows <= 0:
            return
        if child.want <= 0:
            self._asking.append(child)
        child.want += rows
        self._serve()

    def _released(self, child: Child, rows: list[int]) -> None:
        released = self._ledger.release(child.key, rows)
        self._writer.submit(Commit(released=released, closed=self._ledger.take_closed()), self._check_over)
        self._serve()
        self._check_over()

    def _outcomes(self, child: Child, message: Outcomes) -> None:
        tally = message.tally
        child.busy, child.waiting, child.sleeping = tally.in_flight, tally.waiting, tally.sleeping
        child.starved_s = tally.starved_s
        self.metrics.add(tally, self._loop.time())
        self._stops.heard(tally, self._loop.time())
        if tally.ok_replies and not self._gate_open:
            self._open_gate()
        rows: list[OutcomeRow] = []
        for line in message.lines:
            held = self._ledger.finish(child.key, line.lease, line.row)
            if held is None:
                continue
            rows.extend(self._stops.judge(_outcome(line, held.digest)))
        if rows:
            self._commit(rows)
        self._wants(child, message.want)
        if self._stops.reason and not self._stopping:
            self._stop(self._stops.reason, self._stops.exit_code)
        self._check_over()

    def _open_gate(self) -> None:
        self._gate_open = True
        for child in self.supervisor.children:
            if child.peer:
                self._hub.send(child.peer, Tune(in_flight=child.in_flight, gate=-1))

    # --- commits ------------------------------------------------------------------------------------------

    def _commit(self, rows: list[OutcomeRow], in_doubt: int = 0) -> None:
        self.metrics.finished(rows)
        closed = self._ledger.take_closed()
        self._writer.submit(Commit(outcomes=rows, closed=closed, in_doubt=in_doubt), self._check_over)

    def _commit_failed(
        self, rows: list[tuple[int, int, bytes, ErrorKind, str]], *, decode: bool = True, in_doubt: int = 0
    ) -> None:
        """Rows that fail here, without a worker."""
        self._commit([self._failed_row(*row, decode=decode) for row in rows], in_doubt)

    def _failed_row(
        self, row: int, digest: int, payload: bytes, kind: ErrorKind, message: str, *, decode: bool
    ) -> OutcomeRow:
        values = None
        if decode:
            try:
                values = decode_row(payload)
            except RowError:
                values = None
        record = self._recorder.failed(
            payload, values, kind, message, attempts=0, latency_ms=0.0, tokens_in=0, tokens_out=0, model=""
        )
        return OutcomeRow(row, False, kind, digest, record, 0, 0.0, 0, 0)

    def worker_died(self, child: Child, how: str) -> None:
        """The supervisor found a worker dead: its rows are leased again, or are poison."""
        self.ended.deaths += 1
        lost = self._ledger.lost(child.key)
        at_risk = len(lost.requeued) + len(lost.poisoned)
        self.metrics.in_doubt(at_risk)
        self.note(f"{how}; {at_risk} rows that it held are leased again and may be billed twice")
        poisoned = [
            (row.row, row.digest, row.payload, ErrorKind.POISON, f"in flight at {row.deaths} worker deaths")
            for row in lost.poisoned
        ]
        self._commit_failed(poisoned, in_doubt=at_risk)
        child.want = 0
        if self.supervisor.too_many_deaths and not self._stopping:
            self._stop(f"workers keep dying: {how}", ExitCode.INTERNAL)
        self._serve()
        self._check_over()

    # --- the tick and the end -----------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        self.supervisor.tick(now)
        if self.supervisor.sends_beats:
            for child in self.supervisor.children:
                if child.peer:
                    self._hub.send(child.peer, Beat())
        self._stops.tick(now)
        if self._stops.reason and not self._stopping:
            self._stop(self._stops.reason, self._stops.exit_code)
        self._serve()
        self._on_tick(self, now)
        if self._stopping and now > self._drain_until:
            self._finish()

    def _on_signal(self) -> None:
        self._signals += 1
        if self._signals == 1:
            self.note("stopping: calls in flight may end; a second signal stops now")
            self._stop("interrupted", ExitCode.INTERRUPTED)
        else:
            self._finish()

    def _stop(self, reason: str, exit_code: ExitCode, *, now: bool = False) -> None:
        """Lease nothing more, let calls in flight end, commit what they bring."""
        if self._stopping:
            return
        self._stopping = True
        self.ended.reason, self.ended.exit_code = reason, exit_code
        self._drain_until = self._loop.time() + min(DRAIN_MAX_S, self._job.timeouts.total_s)
        if now:
            self._finish()
            return
        for child in self.supervisor.children:
            if child.peer and child.process is not None:
                self._hub.send(child.peer, Drain())
        self._check_over()

    def _check_over(self) -> None:
        """Is there anything left to wait for?"""
        if self._over.is_set() or self._writer.backlog:
            return
        if self._stopping:
            if all(
                child.drained or not child.peer or child.process is None for child in self.supervisor.children
            ):
                self._finish()
        elif self._read_all and self._ledger.is_idle:
            held_back = self._stops.give_up()
            if held_back:
                self._commit(held_back)
            else:
                self._over.set()

    def _finish(self) -> None:
        self.ended.in_doubt = self._ledger.leased_count
        self._over.set()


def _outcome(line: OutcomeLine, digest: int) -> OutcomeRow:
    return OutcomeRow(
        line.row,
        line.ok,
        line.kind,
        digest,
        line.record,
        line.attempts,
        line.latency_ms,
        line.tokens_in,
        line.tokens_out,
    )
