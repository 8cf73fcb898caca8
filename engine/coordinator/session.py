"""One run on the coordinator's loop: workers are greeted, outcomes are judged and committed, and how it ends.

Rules of this file:
1. An outcome counts when its commit is on disk, not before.
2. An outcome is taken only under the lease it was made for: what a dead or replaced worker says is refused.
3. The loop never waits: reading, committing and publishing have threads of their own.
"""

import asyncio
import hmac
import signal
import threading
from collections.abc import Callable
from typing import Any

from engine.config import Job, has_own_origins, jobs_of
from engine.coordinator.commits import Commits, FailedRow, outcome_row
from engine.coordinator.control import Controls
from engine.coordinator.ended import Ended
from engine.coordinator.feed import Chunk, Feed
from engine.coordinator.health import HealthNotes
from engine.coordinator.leasing import Leasing
from engine.coordinator.poison import Poison
from engine.coordinator.stepbook import StepBook
from engine.coordinator.stops import Stops
from engine.coordinator.supervise import Child, Supervisor
from engine.coordinator.writer import Writer
from engine.core.commit import OutcomeRow
from engine.core.errors import EngineError, ErrorKind, ExitCode, InternalFault
from engine.core.ledger import Ledger
from engine.observe.metrics import Metrics
from engine.observe.progress import MAY_COST_TWICE
from engine.store import Store
from engine.wire.link import Hub
from engine.wire.messages import (
    Beat,
    Close,
    Control,
    Drain,
    Drained,
    Event,
    Hello,
    Message,
    Outcomes,
    Refuse,
    Released,
    Terms,
    Trying,
    Tune,
    UseLimiter,
    Want,
    Welcome,
)

TICK_S = 0.1
REPLIES_TO_LEARN_FROM = 100
DRAIN_MAX_S = 30.0  # calls in flight get so long to end after the first signal, or --timeout if that is less


def is_main_thread() -> bool:
    """Whether this is the thread that signals come to."""
    return threading.current_thread() is threading.main_thread()


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
        store: Store | None = None,
    ) -> None:
        """``store``: where steps are looked up that were finished before, in a job of several."""
        self.endpoints = names = list(job.places)
        self._job = job
        self._hub = hub
        self._ledger = ledger
        self.metrics = metrics
        self._on_tick = on_tick
        self.note = note
        self._loop = asyncio.get_running_loop()
        self.supervisor = supervisor(self)
        self._feed = feed(self)
        self._commits = Commits(
            job,
            writer=writer,
            ledger=ledger,
            metrics=metrics,
            answers=answers,
            on_durable=self._check_over,
        )
        self._steps = StepBook(job, store, self.cut_short)
        self._leasing = Leasing(
            job,
            hub=hub,
            ledger=ledger,
            commits=self._commits,
            feed=self._feed,
            children=self.supervisor.children,
            on_change=self._check_over,
            find_steps=self._steps.find,
        )
        self._poison = Poison(job, answers, commits=self._commits, steps=self._steps)
        self._stops = Stops(job, self._loop.time())
        self._health = HealthNotes(names, note)
        # The gate keeps a wrong key or address from many rows at once; where rows name their hosts there is nothing to try.
        self._gates_open = [has_own_origins(one) for one in jobs_of(job)]
        self._paused = False
        self._said_nothing = False  # whether it was looked at if limits could be learnt
        self._stopping = False
        self._drain_until = 0.0
        self._signals = 0
        self._over = asyncio.Event()
        self.ended = Ended()
        self.control = Controls(self)

    async def run(self) -> Ended:
        """From the first start of a worker to the last commit."""
        self._loop.set_exception_handler(self._on_fault)
        self._hub.listen(self._loop, self._on_message)
        signals = (
            (signal.SIGINT, signal.SIGTERM) if is_main_thread() else ()
        )  # no other thread may ask for them
        for number in signals:
            self._loop.add_signal_handler(number, self.interrupt)
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
            for number in signals:
                self._loop.remove_signal_handler(number)
            self._feed.stop()
            for child in self.supervisor.children:
                if child.peer:
                    self._hub.send(child.peer, Close())
            await self.supervisor.end(self._loop)
        self.ended.rows_read = self._feed.rows_read
        # Not before: rows whose lease was just being recorded have been given back since the end was decided.
        self.ended.in_doubt = self._ledger.leased_count
        # Where there is a reason, a row that is open no more may have an outcome that was held back, or not written.
        self.ended.whole = self._leasing.all_read and self._ledger.is_idle and not self.ended.reason
        self.ended.stale_refused = self._ledger.stale_refused
        return self.ended

    # --- rows in ------------------------------------------------------------------------------------------

    def chunk_read(self, chunk: Chunk) -> None:
        """The feed has read on."""
        self.metrics.resumed(chunk.resumed)
        if chunk.bad:
            kind = ErrorKind.BAD_INPUT
            self._commits.failed(
                [FailedRow(row.row, row.digest, row.payload, kind, row.bad, False) for row in chunk.bad]
            )
        self._leasing.read(chunk.rows)

    def all_read(self, rows: int) -> None:
        """The feed has come to the input's end."""
        self._leasing.all_read = True
        self.metrics.rows_total(rows)
        self._check_over()

    @property
    def paused_s(self) -> float:
        """How long the pause of all quotas still lasts, as the limiters last told; 0 when one has none."""
        return min(one.paused_s for one in self.supervisor.limitings)

    def input_failed(self, error: EngineError) -> None:
        """The input cannot be read any further: what is under way may end."""
        if self.ended.error is None:
            self.ended.error = error
        self._stop(str(error), error.exit_code)

    def cut_short(self, error: EngineError) -> None:
        """Nothing that comes from now on could be kept: the run ends at once, whatever it was about."""
        if self.ended.error is None:
            self.ended.error = error
        if not self.ended.reason:
            self.ended.reason, self.ended.exit_code = str(error), error.exit_code
        self._stopping = True
        self._leasing.stop()
        self._finish()

    # --- messages -----------------------------------------------------------------------------------------

    def _on_message(self, peer: bytes, message: Message) -> None:
        if isinstance(message, Hello):
            self._hello(peer, message)
            return
        if isinstance(message, Control):
            self._hub.send(peer, self.control.obey(message))
            return
        child = self.supervisor.child_of(peer)
        if child is None:
            return
        child.heard = self._loop.time()
        if isinstance(message, Outcomes):
            self._outcomes(child, message)
        elif isinstance(message, Want):
            self._leasing.wants(child, message.rows)
        elif isinstance(message, Released):
            self._steps.came_back()
            self._leasing.released(child, message.rows)
        elif isinstance(message, Drained):
            child.drained = True
            self._check_over()
        elif isinstance(message, Trying):
            if self._ledger.held(child.key, message.lease, message.row) is not None:
                self._poison.tried(message.row, message.steps)
        elif isinstance(message, Event):
            self._stops.unreachable(message.message, self._loop.time(), message.endpoint)

    def _hello(self, peer: bytes, message: Hello) -> None:
        child = next((one for one in self.supervisor.children if one.slot == message.slot), None)
        known = hmac.compare_digest(message.token.encode(), self.supervisor.token.encode())
        if not known or child is None or child.process is None or child.process.pid != message.pid:
            self._hub.send(peer, Refuse(reason="this run does not know you"))
            return
        self.supervisor.greeted(child, peer, self._loop.time())
        self._hub.send(peer, Welcome())
        self._use_limiters(child)
        self._tune(child)
        if self._stopping:
            self._hub.send(peer, Drain())

    def _outcomes(self, child: Child, message: Outcomes) -> None:
        now, tallies = self._loop.time(), message.tallies
        child.busy, child.waiting = sum(one.in_flight for one in tallies), sum(one.waiting for one in tallies)
        child.sleeping = message.sleeping
        child.starved_s = max((one.starved_s for one in tallies), default=0.0)
        for endpoint, tally in enumerate(tallies[: len(self._gates_open)]):
            self.metrics.heard(endpoint, child.slot, tally, now)
            self._stops.heard(tally, now, endpoint)
            self._health.heard(endpoint, child.slot, tally.trouble, now)
            if tally.ok_replies and not self._gates_open[endpoint]:
                self._gates_open[endpoint] = True
                self.tune()
        steps = [(self._ledger.held(child.key, one.lease, one.row), one) for one in message.steps]
        rows: list[OutcomeRow] = []
        for line in message.lines:
            held = self._ledger.finish(child.key, line.lease, line.row)
            if held is None:
                continue
            rows.extend(self._stops.judge(outcome_row(line, held.digest), now, line.step))
        if rows or steps:
            self._commits.finished(rows, steps=self._steps.rows_of(steps))
        self._leasing.wants(child, message.want)
        self._stop_if_due()
        self._check_over()

    def _gate_of(self, child: Child, is_open: bool) -> int:
        if self._paused:
            return 0
        return -1 if is_open else child.gate

    def _tune(self, child: Child) -> None:
        terms = [
            Terms(self._gate_of(child, is_open), limiting.rates)
            for is_open, limiting in zip(self._gates_open, self.supervisor.limitings, strict=True)
        ]
        self._hub.send(child.peer, Tune(in_flight=child.in_flight, terms=terms))

    # --- engine ctl ---------------------------------------------------------------------------------------

    def tune(self) -> None:
        """Tell every worker what holds now."""
        limitings = self.supervisor.limitings
        quotas = [limiting.rates for limiting in dict.fromkeys(limitings) if any(limiting.rates)]
        self.metrics.limit([limiting.rates for limiting in limitings], quotas if self._job.steps else None)
        for child in self.supervisor.children:
            if child.peer:
                self._use_limiters(child)
                self._tune(child)

    def _use_limiters(self, child: Child) -> None:
        """Some began without."""
        for endpoint, limiting in enumerate(self.supervisor.limitings):
            if limiting.is_used:
                self._hub.send(child.peer, UseLimiter(endpoint, str(limiting.socket), limiting.token))

    def pause(self, is_paused: bool) -> None:
        """Send nothing more for now, or go on. What is in flight ends as it would."""
        self._paused = is_paused
        self._stops.paused(is_paused)
        self.tune()

    def drain(self) -> None:
        """Stop as after an interrupt: what is in flight may end, the rest stays open."""
        self._stop("drained by engine ctl", ExitCode.INTERRUPTED)

    def worker_died(self, child: Child, how: str) -> None:
        """The supervisor found a worker dead: its rows are leased again, or are poison."""
        self.ended.deaths += 1
        lost = self._ledger.lost(child.key)
        self._steps.came_back()
        at_risk = len(lost.requeued) + len(lost.poisoned)
        self._health.gone(child.slot)
        self.metrics.worker_gone(child.slot)
        self.metrics.in_doubt(at_risk)
        again = f"; {at_risk} rows that it held are leased again and {MAY_COST_TWICE}"
        self.note(how + again if at_risk else how)
        self._poison.lost(lost, was_silent=child.was_silent)
        child.want = 0
        self._leasing.serve()
        self._check_over()

    # --- the tick and the end -----------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        self.supervisor.tick(now)
        if self.supervisor.sends_beats:
            for child in self.supervisor.children:
                if child.peer:
                    self._hub.send(child.peer, Beat())
        if not self._said_nothing and self.metrics.replies >= REPLIES_TO_LEARN_FROM:
            self._said_nothing = True
            for limiting in self.supervisor.limitings:
                if limiting.has_learnt_nothing:
                    limiting.note(
                        "the endpoint's replies name no limits to learn: only the calls in flight are bounded"
                    )
        self._stops.tick(now, is_idle=not self._ledger.leased_count)
        self._stop_if_due()
        self._leasing.serve()
        self._on_tick(self, now)
        if self._stopping and now > self._drain_until:
            self._finish()

    def _stop_if_due(self) -> None:
        if self._stops.reason:
            self._stop(self._stops.reason, self._stops.exit_code)
        elif self.supervisor.hopeless:
            self._stop(self.supervisor.hopeless, ExitCode.INTERNAL)

    def interrupt(self) -> None:
        """A signal, or a caller that wants no more: the first time calls in flight may end, the second time not."""
        self._signals += 1
        if self._signals == 1:
            self.note("stopping: calls in flight may end; a second interrupt stops now")
            self._stop("interrupted", ExitCode.INTERRUPTED)
        else:
            self._finish()

    def _on_fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback raised. Going on with half a decision taken is no way to keep promises."""
        cause = context.get("exception") or RuntimeError(context["message"])
        self.cut_short(cause if isinstance(cause, EngineError) else InternalFault("coordinating", cause))

    def _stop(self, reason: str, exit_code: ExitCode) -> None:
        """Lease nothing more, let calls in flight end, commit what they bring."""
        if self._stopping:
            return
        self._stopping = True
        self._leasing.stop()
        self.ended.reason, self.ended.exit_code = reason, exit_code
        self._drain_until = self._loop.time() + min(DRAIN_MAX_S, self._job.timeouts.total_s)
        for child in self.supervisor.children:
            if child.peer and child.process is not None:
                self._hub.send(child.peer, Drain())
        self._check_over()

    def _check_over(self) -> None:
        """Is there anything left to wait for?"""
        if self._over.is_set() or self._commits.backlog or self._poison.open:
            return
        if self._stopping:
            if all(
                child.drained or not child.peer or child.process is None for child in self.supervisor.children
            ):
                self._finish()
        elif self._leasing.all_read and self._ledger.is_idle:
            held_back = self._stops.give_up()
            if held_back:
                self._commits.finished(held_back)
            else:
                self._over.set()

    def _finish(self) -> None:
        self._commits.settle()
        self._over.set()
