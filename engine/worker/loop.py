"""The worker's loop: rows in, requests out, outcomes back. Owns every timer and queue of the process.

Rules of this file:
1. A row waits for permits and retries outside of a request slot.
2. Permits are asked for only for calls that could be sent at once, so that none is ever held unspent.
3. One tick does what is due: retries, time-outs, messages. There is no timer per row.
4. Without its coordinator the worker sends nothing: the end of its standard input ends it on the spot.
"""

import asyncio
import os
import random
import sys
from pathlib import Path
from time import monotonic
from typing import Final

from engine.config import rates_of
from engine.core.concurrency import START, START_UNDER_QUOTA, Concurrency
from engine.core.errors import POLICY, ErrorKind, RunEffect, Signal
from engine.core.model import Failure, Reply
from engine.core.quota import Rates
from engine.core.retry import RetryBudget
from engine.credentials import AuthHeader, all_secrets
from engine.handover import WorkerSettings
from engine.limiter.client import LimiterClient
from engine.providers import make_provider
from engine.providers.limits import LimitReader
from engine.vocabulary import exact_measure
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
    Tune,
    UseLimiter,
    Want,
    Welcome,
)
from engine.worker.execute import Executor, RowRun
from engine.worker.fetch import Fetcher
from engine.worker.observing import Observer
from engine.worker.queues import Demand, Queues
from engine.worker.slots import Slots
from engine.worker.tally import TallyBook

TICK_S: Final = 0.05
SWEEP_S: Final = 0.25
BEAT_S: Final = 1.0
GATHER_S: Final = 0.09  # outcomes wait so long for each other: a message costs more than a row in it
CUT_OFF_EXIT_S: Final = 1.0
EXIT_REFUSED: Final = 3
_STOPPERS: Final = (RunEffect.STOP, RunEffect.STOP_AFTER_STREAK)


class Worker:
    """One worker process, from its Hello to its exit."""

    def __init__(self, settings: WorkerSettings, auth: tuple[AuthHeader, ...]) -> None:
        job = settings.job
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        rng = random.Random()
        provider = make_provider(job.target)
        if job.vocabularies:
            provider.measure = exact_measure(job.target.model, job.vocabularies)
        self._executor = Executor(job, provider, settings.run_id, rng, all_secrets(auth))
        self._fetcher = Fetcher(
            origin=provider.origin,
            auth=auth,
            timeouts=job.timeouts,
            limits=job.limits,
            ca_file=job.ca_file,
            trust_env=job.trust_env,
        )
        self._link = Spoke(Path(settings.socket), message_bytes_max=job.limits.message_bytes_max)
        self._limiter: LimiterClient | None = None
        if settings.limiter_socket:
            self._limiter = self._make_limiter(settings.limiter_socket, settings.limiter_token)
        reader = LimitReader(provider.origin, provider=job.target.provider, declares_rpm=job.rpm is not None)
        self._observer = Observer(reader, self._observed)
        self._queues = Queues()
        self._demand = Demand()
        self._slots = Slots(self._fetcher, self._landed)
        self._engaged = 0  # in flight or waiting for a permit
        self._in_flight = 0
        self._share = 0
        self._gate = 0
        self._concurrency: Concurrency | None = None  # until the coordinator says how many
        self._budget = RetryBudget(share=1.0 / max(1, min(job.procs, job.in_flight)))
        self._outcomes: list[OutcomeLine] = []
        self._tally = TallyBook()
        self._draining = False
        self._welcomed = False
        self._answered = False
        self._ended = self._loop.create_future()
        self._last_tick = self._loop.time()
        self._last_sent = self._last_swept = self._last_beat = self._last_event = self._last_tick

    async def run(self) -> None:
        """Serve until the coordinator says Close."""
        self._link.listen(self._loop, self._on_message)
        if self._limiter is not None:
            self._limiter.start(self._loop)
        self._link.send(Hello(token=self._settings.token, slot=self._settings.slot, pid=os.getpid()))
        tick = self._loop.create_task(self._tick_forever())
        try:
            await self._ended
        finally:
            tick.cancel()
            if self._limiter is not None:
                self._limiter.close()
            await self._fetcher.close()
            self._link.close(linger_ms=1000)

    # --- messages -----------------------------------------------------------------------------------------

    def _on_message(self, message: Message) -> None:
        self._last_beat = self._loop.time()
        if isinstance(message, Lease):
            self._demand.leased(len(message.rows))
            lease = message.lease
            self._queues.fresh.extend((lease, line) for line in message.rows)
            self._pump()
        elif isinstance(message, Tune):
            self._executor.charging.limit(message.rates)
            self._tune(message.in_flight, message.gate)
        elif isinstance(message, UseLimiter):
            self._use_limiter(message)
        elif isinstance(message, Welcome):
            self._welcomed = True
            self._tune(message.in_flight, message.gate)
        elif isinstance(message, Drain):
            self._drain()
        elif isinstance(message, Close):
            if not self._ended.done():
                self._ended.set_result(None)
        elif isinstance(message, Refuse):
            sys.stderr.write(f"the coordinator refused this worker: {message.reason}\n")
            os._exit(EXIT_REFUSED)

    def _make_limiter(self, socket: str, token: str) -> LimiterClient:
        return LimiterClient(
            Path(socket),
            token,
            self._settings.slot,
            self._granted,
            run=self._settings.parent_pid,
            on_too_dear=self._too_dear,
        )

    def _observed(self, limits: Rates, used: Rates) -> bool:
        return self._limiter is not None and self._limiter.observed(limits, used)

    def _use_limiter(self, message: UseLimiter) -> None:
        if self._limiter is None:
            self._limiter = self._make_limiter(message.socket, message.token)
            self._limiter.start(self._loop)

    def _too_dear(self, rates: Rates) -> None:
        """Calls that wait cost more than the limits of now: they fail, the others ask anew."""
        self._executor.charging.limit(rates)
        self._call_back()
        self._pump()

    def _tune(self, in_flight: int, gate: int) -> None:
        if in_flight != self._share:
            self._share = in_flight
            self._retune(max(1, in_flight))
        self._gate = gate
        if gate == 0 or self._executor.any_too_large(self._queues.queued):
            self._call_back()
        self._pump()
        self._want()

    def _retune(self, ceiling: int) -> None:
        if self._concurrency is not None:
            self._concurrency.retune(ceiling)
            return
        job = self._settings.job
        workers = max(1, min(job.procs, job.in_flight))
        first = START_UNDER_QUOTA if any(rates_of(job)) else START
        start = max(1, first // workers) if job.in_flight_auto else ceiling
        self._concurrency = Concurrency(ceiling, start, workers=workers, place=self._settings.slot)

    def _call_back(self) -> None:
        """What waits for permits waits here instead: none is to go now, or not all can."""
        queued = self._queues.queued
        self._engaged -= len(queued)
        self._queues.due.extendleft(reversed(queued))
        queued.clear()
        if self._limiter is not None:
            self._limiter.drop_queue()

    def _drain(self) -> None:
        """Give back what is not in flight; what is in flight ends as it would."""
        self._draining = True
        self._engaged -= len(self._queues.queued)
        rows = self._queues.empty()
        if self._limiter is not None:
            self._limiter.drop_queue()
        self._flush(self._loop.time())
        self._link.send(Released(rows=rows))
        self._maybe_drained()

    def _maybe_drained(self) -> None:
        if self._draining and self._in_flight == 0:
            self._flush(self._loop.time())
            self._link.send(Drained())

    # --- from row to request ------------------------------------------------------------------------------

    def _limit(self) -> int:
        if self._concurrency is None:
            return 0
        limit = min(self._share, self._concurrency.limit)
        return limit if self._gate < 0 else min(limit, self._gate)

    def _pump(self) -> None:
        """Engage rows as long as the in-flight limit has room: due retries first, then fresh rows."""
        if self._draining or not self._welcomed or self._cut_off():
            return
        limit = self._limit()
        limiter = self._limiter
        due, fresh, queued = self._queues.due, self._queues.fresh, self._queues.queued
        while self._engaged < limit:
            if due:
                run = due.popleft()
                refused = self._executor.too_large(run)
                if refused is not None:
                    self._outcomes.append(refused)
                    continue
            elif fresh:
                begun = self._executor.begin(*fresh.popleft())
                if isinstance(begun, OutcomeLine):
                    self._outcomes.append(begun)
                    continue
                run = begun
            else:
                break
            self._engaged += 1
            if limiter is None:
                self._launch(run)
            else:
                queued.append(run)
                charge = run.charge
                limiter.need(charge.tokens, charge.tokens_in, charge.tokens_out)
        if len(fresh) + len(queued) <= self._demand.batch // 2:
            self._want()

    def _granted(self, count: int, generation: int) -> None:
        """The limiter lets the first ``count`` queued calls go."""
        queued = self._queues.queued
        for _ in range(min(count, len(queued))):
            run = queued.popleft()
            run.generation = generation
            self._launch(run)
        self._pump()

    def _launch(self, run: RowRun) -> None:
        self._in_flight += 1
        self._demand.launched()
        concurrency = self._concurrency
        assert concurrency is not None  # without it nothing is launched
        concurrency.on_start()
        self._slots.send(run)

    def _landed(self, run: RowRun, result: Reply | Failure, started: float) -> None:
        now = monotonic()
        self._in_flight -= 1
        self._engaged -= 1
        run.latency_ms = (now - started) * 1000.0
        repeated = run.sent > 0
        spent_in, spent_out = run.tokens_in, run.tokens_out
        estimated, charge = run.call.charge, run.charge
        next_step, failure = self._executor.absorb(run, result)
        self._budget.on_call(now)
        signal = Signal.NONE
        if failure is not None:
            signal = POLICY[failure.kind].signal
            if signal is Signal.PAUSE and self._limiter is None:
                signal = Signal.CUT  # no quota will pause: what is refused is refused for being too many
            self._heed(failure, run)
        if self._concurrency is not None:
            self._concurrency.on_reply(signal, started, now)
        tally = self._tally
        tally.count(
            repeated=repeated,
            replied=isinstance(result, Reply) or failure is None or failure.status > 0,
            ok=isinstance(result, Reply) and result.status < 300,
            throttled=failure is not None and failure.kind is ErrorKind.RATE_LIMITED,
            latency_ms=run.latency_ms if failure is None else -1.0,
            tokens_in=run.tokens_in - spent_in,
            tokens_out=run.tokens_out - spent_out,
            charged=charge.tokens,
            estimated_in=charge.tokens_in,
        )
        if self._limiter is not None:
            if isinstance(result, Reply):
                self._observer.note(result.headers, now, is_refusal=result.status == 429)
            due = self._executor.charging.settlement(
                estimated, charge, run.tokens_in - spent_in, run.tokens_out - spent_out, age_s=now - started
            )
            if any(due):
                self._limiter.settle(*due)
        if isinstance(next_step, OutcomeLine):
            self._outcomes.append(next_step)
            if failure is not None and POLICY[failure.kind].run in _STOPPERS:
                self._flush(now)  # the run may have to stop: every call until then is in vain
        elif self._draining:
            self._link.send(Released(rows=[run.row]))
        elif next_step.delay_s <= 0.0 and failure is not None and failure.kind is ErrorKind.STALE_KEEPALIVE:
            self._queues.due.append(run)
        else:
            self._queues.sleep(run, now + next_step.delay_s)
        if tally.first_success and self._gate >= 0 and not self._answered:
            self._answered = True
            self._flush(now)  # the coordinator opens the gate for all
        if self._draining:
            self._maybe_drained()
        else:
            self._pump()

    def _heed(self, failure: Failure, run: RowRun) -> None:
        """Tell whom a failure concerns beyond its own row."""
        if failure.kind is ErrorKind.RATE_LIMITED and self._limiter is not None:
            self._limiter.throttled(failure.wait_s, run.generation)
        elif POLICY[failure.kind].run is RunEffect.STOP_IF_NEVER_ANSWERED:
            now = self._loop.time()
            if now - self._last_event >= 1.0 or not self._last_event:
                self._last_event = now
                self._link.send(Event(kind=failure.kind, message=failure.message, status=failure.status))

    # --- the tick -----------------------------------------------------------------------------------------

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._tick(self._loop.time())

    def _tick(self, now: float) -> None:
        elapsed = max(now - self._last_tick, 1e-3)
        self._last_tick = now
        self._demand.passed(elapsed)
        if self._concurrency is not None:
            self._concurrency.tick(now)
        self._queues.wake(now, self._budget)
        if now - self._last_swept >= SWEEP_S:
            self._last_swept = now
            self._fetcher.sweep(now)
        if self._cut_off() and now - self._last_beat > self._settings.guard_s + CUT_OFF_EXIT_S:
            os._exit(0)
        if self._limiter is not None and self._limiter.refused:
            # Its calls would wait for ever; whoever takes this one's place gets its rows.
            os._exit(EXIT_REFUSED)
        self._pump()
        quiet_s = now - self._last_sent
        if quiet_s >= BEAT_S or (self._outcomes and quiet_s >= GATHER_S):
            self._flush(now)
        else:
            self._want()

    def _want(self) -> None:
        missing = self._missing()
        if missing:
            self._link.send(Want(rows=missing))

    def _missing(self) -> int:
        """How many rows to ask for now."""
        if self._draining or not self._welcomed or self._limit() <= 0:
            return 0  # with the gate shut rows would only wait here that another worker could send
        queues = self._queues
        held = len(queues.fresh) + len(queues.due) + len(queues.queued)
        room = max(0, self._limit() - self._engaged) if self._limiter is None else 0
        return self._demand.missing(held, room)

    def _flush(self, now: float) -> None:
        self._last_sent = now
        limiter = self._limiter
        tally = self._tally.take(
            in_flight=self._in_flight,
            waiting=len(self._queues.queued),
            sleeping=self._queues.sleeping_count,
            starved_s=limiter.starved_s(now) if limiter is not None else 0.0,
        )
        lines, self._outcomes = self._outcomes, []
        self._link.send(Outcomes(lines=lines, tally=tally, want=self._missing()))

    def _cut_off(self) -> bool:
        """Where no kernel tells of the coordinator's death, its beats do: without them nothing is sent."""
        guard_s = self._settings.guard_s
        return guard_s > 0.0 and self._loop.time() - self._last_beat > guard_s
