"""The worker's loop: rows in, requests out, outcomes back. Owns every timer and queue of the process.

Rules of this file:
1. A row waits for permits and retries outside of a request slot.
2. One tick does what is due: retries, time-outs, messages. There is no timer per row.
3. Without its coordinator the worker sends nothing: the end of its standard input ends it on the spot.
"""

import asyncio
import os
import random
import sys
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from engine.config import has_own_origins, jobs_of
from engine.core.breaker import Breaker
from engine.core.errors import POLICY, ErrorKind, RunEffect
from engine.core.model import Failure
from engine.core.retry import RETRIES_OF_CALLS, RetryBudget
from engine.credentials import Auth, all_secrets
from engine.handover import LimiterAddress, WorkerSettings
from engine.wire.link import Spoke
from engine.wire.messages import (
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
    StepLine,
    Tune,
    UseLimiter,
    Want,
    Welcome,
)
from engine.worker.execute import End, Later, RowRun
from engine.worker.fault import die_of_task
from engine.worker.lane import Lane
from engine.worker.queues import Demand, Queues
from engine.worker.routing import AVOID_S, Router

TICK_S: Final = 0.05
SWEEP_S: Final = 0.25
BEAT_S: Final = 1.0
GATHER_S: Final = 0.09  # outcomes wait so long for each other: a message costs more than a row in it
CUT_OFF_EXIT_S: Final = 1.0
EXIT_REFUSED: Final = 3
LEASES_KNOWN: Final = 64  # of so many leases it is noticed when one comes twice
DUE_LOOK: Final = (
    16  # so many of the rows to be sent again are tried; others than the first may fit where there is room
)
STOPPERS: Final = (RunEffect.STOP, RunEffect.STOP_AFTER_STREAK)


class Worker:
    """One worker process, from its Hello to its exit."""

    def __init__(self, settings: WorkerSettings, auth: tuple[Auth, ...]) -> None:
        job = settings.job
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._link = Spoke(Path(settings.socket), message_bytes_max=job.limits.message_bytes_max)
        self._lanes = self._make_lanes(auth)
        self._router = Router(self._lanes)
        self._queues = Queues()
        self._demand = Demand()
        self._share = 0  # calls that may be engaged, over all lanes
        # Where rows name their hosts there is no endpoint to spare: rows of dead ones are to fail in bounded time.
        ratio = max(1.0, job.retries) if all(map(has_own_origins, jobs_of(job))) else RETRIES_OF_CALLS
        self._budget = RetryBudget(ratio=ratio, share=1.0 / max(1, min(job.procs, job.in_flight)))
        self._outcomes: list[OutcomeLine] = []
        self._leases: deque[int] = deque(maxlen=LEASES_KNOWN)  # the latest
        self._draining = False
        self._welcomed = False
        self._ended = self._loop.create_future()
        self._last_tick = self._loop.time()
        self._last_sent = self._last_swept = self._last_beat = self._last_event = self._last_tick

    def _make_lanes(self, auth: tuple[Auth, ...]) -> list[Lane]:
        settings, jobs = self._settings, jobs_of(self._settings.job)
        places = [(one.name, one.weight) for one in settings.job.endpoints] or [("", 1.0)]
        secrets = tuple(secret for headers in auth for secret in all_secrets(headers))
        rng = random.Random()
        return [
            Lane(
                number,
                job,
                headers,
                settings,
                self,
                name=name,
                weight=weight,
                secrets=secrets,
                rng=rng,
                breaker=Breaker(place=settings.slot) if len(jobs) > 1 else None,
            )
            for number, (job, headers, (name, weight)) in enumerate(zip(jobs, auth, places, strict=True))
        ]

    async def run(self) -> None:
        """Serve until the coordinator says Close."""
        self._link.listen(self._loop, self._on_message)
        for lane, address in zip(self._lanes, self._settings.limiters, strict=True):
            if address.socket:
                lane.use_limiter(address)
        self._link.send(Hello(token=self._settings.token, slot=self._settings.slot, pid=os.getpid()))
        tick = self._loop.create_task(self._tick_forever())
        tick.add_done_callback(die_of_task)
        try:
            await self._ended
        finally:
            tick.cancel()
            for lane in self._lanes:
                await lane.close()
            self._link.close(linger_ms=1000)

    # --- messages -----------------------------------------------------------------------------------------

    def _on_message(self, message: Message) -> None:
        self._last_beat = self._loop.time()
        if isinstance(message, Lease):
            if message.lease not in self._leases:  # one that comes twice would be paid for twice
                self._leases.append(message.lease)
                self._leased(message)
        elif isinstance(message, Tune):
            self._tune(message)
        elif isinstance(message, UseLimiter):
            self._lanes[message.endpoint].use_limiter(LimiterAddress(message.socket, message.token))
        elif isinstance(message, Welcome):
            self._welcomed = True
        elif isinstance(message, Drain):
            self._drain()
        elif isinstance(message, Close):
            if not self._ended.done():
                self._ended.set_result(None)
        elif isinstance(message, Refuse):
            sys.stderr.write(f"the coordinator refused this worker: {message.reason}\n")
            os._exit(EXIT_REFUSED)

    def _leased(self, message: Lease) -> None:
        self._demand.leased(len(message.rows))
        self._queues.fresh.extend((message.lease, line) for line in message.rows)
        self.pump()

    def _tune(self, message: Tune) -> None:
        self._share = message.in_flight
        is_paused = not any(terms.gate for terms in message.terms)
        for lane, terms in zip(self._lanes, message.terms, strict=True):
            lane.tune(message.in_flight, terms, self._loop.time(), is_paused=is_paused)
        self.pump()
        self._want()

    def _drain(self) -> None:
        """Give back what is not in flight; what is in flight ends as it would."""
        self._draining = True
        for lane in self._lanes:
            lane.call_back()
        rows = self._queues.empty()
        self._flush(self._loop.time())
        self._link.send(Released(rows=rows))
        self._maybe_drained()

    def _maybe_drained(self) -> None:
        if self._draining and not any(lane.in_flight for lane in self._lanes):
            self._flush(self._loop.time())
            self._link.send(Drained())

    # --- from row to request ------------------------------------------------------------------------------

    def pump(self) -> None:
        """Engage rows as long as some endpoint has room: due retries first, then fresh rows."""
        if self._draining or not self._welcomed or self._cut_off():
            return
        now = self._loop.time()
        due, fresh, pick = self._queues.due, self._queues.fresh, self._router.pick
        room = self._share
        for lane in self._lanes:
            # What waits long for permits leaves its room to what need not wait.
            room -= lane.in_flight if lane.waits_in_vain(now) else lane.engaged
        while room > 0:
            found = self._next_due(now) if due else None
            if found is None:
                taker = pick(now) if fresh else None
                if taker is None:
                    break
                begun = self._begin(taker, *fresh.popleft())
                if begun is None:
                    continue
                found = begun, taker
            room -= self._engage(*found, now)
        held, batch = len(fresh), 0
        for lane in self._lanes:
            held += len(lane.queued)
            batch += lane.flow.batch
        if held <= batch // 2:
            self._want()

    def room(self) -> int:
        """How many calls more may be in flight."""
        return self._share - sum(lane.in_flight for lane in self._lanes)

    def _begin(self, taker: Lane, lease: int, line: RowLine) -> RowRun | None:
        """The row as ``taker`` asks it; None where it has its outcome at once, or only another endpoint can ask it."""
        begun = taker.executor.begin(lease, line)
        if not isinstance(begun, OutcomeLine):
            begun.lane = taker.number
            return begun
        for lane in self._lanes:
            other = lane.executor.begin(lease, line) if lane is not taker and _may_differ(begun) else begun
            if not isinstance(other, OutcomeLine):
                other.lane, other.shut, other.refused = lane.number, taker.bit, begun
                self._queues.due.append(other)
                return None
        self._outcomes.append(begun)
        return None

    def _next_due(self, now: float) -> tuple[RowRun, Lane] | None:
        """A row that is to be sent again, and where to; None while there is no room for any of those looked at."""
        due, pick = self._queues.due, self._router.pick
        for _ in range(min(len(due), DUE_LOOK)):
            run = due[0]
            avoid = run.avoid if now < run.avoid_until else 0
            lane = pick(now, avoid, run.shut, run.tried)
            if lane is not None:
                return due.popleft(), lane
            if not avoid | run.shut | run.tried:
                break  # where there is no room for one that may go anywhere there is none for any
            due.rotate(-1)
        return None

    def _engage(self, run: RowRun, lane: Lane, now: float) -> bool:
        """Whether the row's call was engaged; if not, the row has its outcome or is due elsewhere."""
        if run.lane != lane.number:
            refused = lane.executor.adopt(run)
            if refused is None:
                run.move(lane.number)
                refused = lane.executor.too_large(run)
        else:
            refused = lane.executor.too_large(run)
        if refused is None:
            lane.engage(run)
            return True
        assert isinstance(refused, OutcomeLine)  # the row has one step
        if self._router.shuts(lane, run, refused, now):
            self._queues.due.append(run)
        else:
            self._outcomes.append(refused)
        return False

    def recalled(self, runs: Iterable[RowRun]) -> None:
        """These wait for permits no more; they are due, in their order."""
        self._queues.due.extendleft(reversed(list(runs)))

    def landed(self, lane: Lane, run: RowRun, step: End | Later, failure: Failure | None, now: float) -> None:
        """A call has ended: its row has its outcome, or is sent again."""
        self._budget.on_call(now)
        if failure is not None:
            if not lane.is_roaming:
                self._heed(lane.number, failure)
            if self._router.diverts(lane, run, step, failure, now):
                step = Later(0.0)
        if isinstance(step, OutcomeLine):
            self._outcomes.append(step)
            if failure is not None and POLICY[failure.kind].run in STOPPERS:
                self._flush(now)  # the run may have to stop: every call until then is in vain
        elif self._draining:
            self._link.send(Released(rows=[run.row]))
        elif isinstance(step, Later):
            self._sleep(run, step, failure, now)
        if lane.answers_first():
            self._flush(now)  # the coordinator opens the gate for all
        if self._draining:
            self._maybe_drained()
        else:
            self.pump()

    def _sleep(self, run: RowRun, later: Later, failure: Failure | None, now: float) -> None:
        if later.delay_s <= 0.0 and failure is not None and failure.kind is ErrorKind.STALE_KEEPALIVE:
            self._queues.due.append(run)
        else:
            self._queues.sleep(run, now + later.delay_s)

    def _heed(self, place: int, failure: Failure) -> None:
        """Tell the coordinator of a failure that concerns more than its own row."""
        if POLICY[failure.kind].run is RunEffect.STOP_IF_NEVER_ANSWERED:
            now = self._loop.time()
            if now - self._last_event >= 1.0 or not self._last_event:
                self._last_event = now
                self._link.send(Event(failure.kind, failure.message, failure.status, place))

    # --- the tick -----------------------------------------------------------------------------------------

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._tick(self._loop.time())

    def _tick(self, now: float) -> None:
        elapsed = max(now - self._last_tick, 1e-3)
        self._last_tick = now
        is_sweep = now - self._last_swept >= SWEEP_S
        for lane in self._lanes:
            lane.tick(now, elapsed)
            if is_sweep:
                lane.sweep(now)
            if lane.is_refused:
                # Its calls would wait for ever; whoever takes this one's place gets its rows.
                os._exit(EXIT_REFUSED)
        self._queues.wake(now, self._budget)
        if is_sweep:
            self._last_swept = now
        if self._cut_off() and now - self._last_beat > self._settings.guard_s + CUT_OFF_EXIT_S:
            os._exit(0)
        self.pump()
        self._relieve(now)
        quiet_s = now - self._last_sent
        if quiet_s >= BEAT_S or (self._outcomes and quiet_s >= GATHER_S):
            self._flush(now)
        else:
            self._want()

    def _relieve(self, now: float) -> None:
        """What waits in vain at one endpoint goes to another; what all refused that are there has its outcome."""
        if self._last_swept == now:
            self._resign()
        if not self._queues.fresh and self._router.only is None:
            for lane in self._router.stuck(now):
                lane.call_back(avoid=now + AVOID_S)
                self.pump()

    def _resign(self) -> None:
        now = self._last_swept
        waiting = self._queues.due
        given_up = [
            run for run in waiting if run.refused is not None and not self._router.has_place(run, now)
        ]
        for run in given_up:
            waiting.remove(run)
            assert run.refused is not None
            self._outcomes.append(run.refused)

    def _want(self) -> None:
        missing = self._missing()
        if missing:
            self._link.send(Want(rows=missing))

    def _missing(self) -> int:
        """How many rows to ask for now."""
        if self._draining or not self._welcomed:
            return 0
        queues, now = self._queues, self._last_tick
        held, free = len(queues.fresh) + len(queues.due), self._share
        room = batch = 0
        for lane in self._lanes:
            held += len(lane.queued)
            free -= lane.in_flight if lane.waits_in_vain(now) else lane.engaged
            if lane.limit() > 0 and lane.is_well(now):
                room += lane.free()
                batch += lane.flow.batch
        if not batch:
            return 0  # with the gate shut rows would only wait here that another worker could send
        return self._demand.missing(held, max(0, min(free, room)), batch)

    def _flush(self, now: float) -> None:
        self._last_sent = now
        tallies = [lane.take_tally(now) for lane in self._lanes]
        lines, self._outcomes = self._outcomes, []
        sleeping = self._queues.sleeping_count
        want, steps = self._missing(), self._steps()
        self._link.send(Outcomes(lines=lines, tallies=tallies, sleeping=sleeping, want=want, steps=steps))

    def _steps(self) -> list[StepLine]:
        """Steps that have ended, in a job of several."""
        return []

    def _cut_off(self) -> bool:
        """Where no kernel tells of the coordinator's death, its beats do: without them nothing is sent."""
        guard_s = self._settings.guard_s
        return guard_s > 0.0 and self._loop.time() - self._last_beat > guard_s


def _may_differ(outcome: OutcomeLine) -> bool:
    """Whether a row that could not be asked could be asked at another endpoint."""
    return outcome.kind in (ErrorKind.BAD_REQUEST, ErrorKind.REQUEST_TOO_LARGE)
