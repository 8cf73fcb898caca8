"""One endpoint as one worker sees it: its calls, its permits, its in-flight limit, its health.

Rules of this file:
1. A lane decides nothing about rows beyond its own calls: where a row goes next is its owner's business.
2. Permits are asked for only for calls that could be sent at once, so that none is ever held unspent.
3. What waits for permits here can be called back at any time; what is sent cannot.
"""

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic
from typing import Final, Protocol

from engine.config import Job, has_own_origins, has_own_urls, rates_of
from engine.core.breaker import Breaker, State
from engine.core.concurrency import START, START_UNDER_QUOTA, Concurrency
from engine.core.errors import POLICY, ErrorKind, Health, RunEffect, Signal
from engine.core.model import Failure, Reply
from engine.core.quota import Rates
from engine.credentials import Auth, Secret
from engine.handover import LimiterAddress, WorkerSettings
from engine.limiter.client import LimiterClient
from engine.providers import make_provider
from engine.providers.limits import LimitReader
from engine.vocabulary import exact_measure
from engine.wire.messages import Tally, Terms
from engine.worker.execute import End, Executor, Later, RowRun
from engine.worker.failures import SHORTAGE
from engine.worker.observing import Observer
from engine.worker.queues import Flow
from engine.worker.roaming import sender_of
from engine.worker.slots import Slots
from engine.worker.tally import TallyBook

SLOTS_MAX: Final = 1 << 16  # workers of a run
LONG_S: Final = 0.3  # calls that have waited so long could go elsewhere


class Owner(Protocol):
    """Who has the rows."""

    def landed(
        self, lane: "Lane", run: RowRun, step: End | Later, failure: Failure | None, now: float
    ) -> None:
        """A call has ended."""

    def recalled(self, runs: Iterable[RowRun]) -> None:
        """These were not sent: they wait elsewhere from now on."""

    def pump(self) -> None:
        """There may be room for more."""

    def room(self) -> int:
        """How many calls more may be in flight, over all endpoints."""


class Lane:
    """See the module. ``job`` is the job at this endpoint (``config.jobs_of``)."""

    def __init__(
        self,
        number: int,
        job: Job,
        auth: Auth,
        settings: WorkerSettings,
        owner: Owner,
        *,
        name: str,
        weight: float,
        secrets: tuple[Secret, ...],
        rng: random.Random,
        breaker: Breaker | None,
        make_executor: Callable[..., Executor] = Executor,
    ) -> None:
        """``secrets`` are masked in failures; without a ``breaker`` the endpoint is never left alone."""
        self.number = number
        self.bit = 1 << number
        self.weight = weight
        self.breaker = breaker
        self._job = job
        self._settings = settings
        self._owner = owner
        self._has_own_urls = has_own_urls(job)
        self.is_roaming = has_own_origins(job)  # what happens to one call says nothing about the others
        provider = make_provider(job.target)
        if job.vocabularies:
            provider.measure = exact_measure(job.target.model, job.vocabularies)
        # Idempotency keys are an endpoint's own: another one is another account, or asks in other words.
        prefix = f"{settings.run_id}.{name}" if name else settings.run_id
        self.executor = make_executor(job, provider, prefix, rng, secrets)
        self.fetcher = sender_of(job, auth, provider.origin)
        reader = LimitReader(provider.origin, provider=job.target.provider, declares_rpm=job.rpm is not None)
        self._observer = Observer(reader, self._observed)
        self.limiter: LimiterClient | None = None
        self.queued: deque[RowRun] = deque()  # wait for permits, in the order the limiter knows
        self.flow = Flow()
        self._slots = Slots(self.fetcher, self._landed)
        self.engaged = 0  # in flight or waiting for a permit
        self.in_flight = 0
        self._share = 0
        self._gate = 0
        self._shut_since = math.inf  # the gate is shut, though the run is not paused
        self._is_paused = False
        self._concurrency: Concurrency | None = None  # until the coordinator says how many
        self.tally = TallyBook()
        self._answered = False
        self._trouble = ""
        self._openings = 0
        self._granted_at = 0.0  # when something here last had its permit, or nothing waited for one
        self._used_at = 0.0  # when there last was no room

    # --- what holds ---------------------------------------------------------------------------------------

    def limit(self) -> int:
        """How many calls may be engaged."""
        if self._concurrency is None:
            return 0
        limit = min(self._share, self._concurrency.limit)
        return limit if self._gate < 0 else min(limit, self._gate)

    def is_well(self, now: float) -> bool:
        """Whether calls may be begun at all: not while it is left alone, or this worker is not to try it yet."""
        return self._gate != 0 and (self.breaker is None or self.breaker.allows(now))

    @property
    def is_on_trial(self) -> bool:
        """Whether it was left alone, and has not shown yet that it serves again."""
        return self.breaker is not None and self.breaker.state is not State.CLOSED

    def may_serve(self, now: float, within_s: float = math.inf) -> bool:
        """Whether it can be expected to serve: it is not out, and has not been ill or shut for so long."""
        if self._is_paused:
            return True
        if self.breaker is not None and self.breaker.is_ill(now, within_s):
            return False
        return now - self._shut_since < within_s

    def has_room(self) -> bool:
        """Whether one more call can be engaged."""
        if self.limiter is not None and len(self.queued) >= self.flow.batch:
            return False
        return self.engaged < self.limit()

    def free(self) -> int:
        """How many calls could be sent at once: those that need permits are not among them."""
        return max(0, self.limit() - self.engaged) if self.limiter is None else 0

    def tune(self, in_flight: int, terms: Terms, now: float, *, is_paused: bool = False) -> None:
        """Other limits hold from now on. ``is_paused``: all gates are shut."""
        self._is_paused = is_paused
        if terms.gate != 0 or is_paused:
            self._shut_since = math.inf
        elif self._shut_since == math.inf:
            self._shut_since = now
        self.executor.charging.limit(terms.rates)
        if in_flight != self._share:
            self._share = in_flight
            self._retune(max(1, in_flight))
        self._gate = terms.gate
        if terms.gate == 0 or self.executor.any_too_large(self.queued):
            self.call_back()

    def _retune(self, ceiling: int) -> None:
        if self._concurrency is not None:
            self._concurrency.retune(ceiling)
            return
        job = self._job
        workers = max(1, min(job.procs, job.in_flight))
        first = START_UNDER_QUOTA if any(rates_of(job)) else START
        start = max(1, first // workers) if job.in_flight_auto else ceiling
        self._concurrency = Concurrency(ceiling, start, workers=workers, place=self._settings.slot)

    # --- permits ------------------------------------------------------------------------------------------

    def use_limiter(self, address: LimiterAddress) -> None:
        """From now on calls need permits."""
        if self.limiter is None:
            self.limiter = LimiterClient(
                Path(address.socket),
                address.token,
                self._settings.slot + self.number * SLOTS_MAX,  # steps may share a limiter
                self._granted,
                run=self._settings.parent_pid,
                on_too_dear=self._too_dear,
            )
            self.limiter.start(asyncio.get_running_loop())

    def _observed(self, limits: Rates, used: Rates) -> bool:
        return self.limiter is not None and self.limiter.observed(limits, used)

    def _too_dear(self, rates: Rates) -> None:
        """Calls that wait cost more than the limits of now: they go or fail elsewhere, the others ask anew."""
        self.executor.charging.limit(rates)
        self.call_back()
        self._owner.pump()

    def call_back(self, *, avoid: float | None = None) -> None:
        """What waits for permits waits at the owner's instead: none is to go now, or not all can.

        ``avoid``: until then it is to go elsewhere.
        """
        queued = self.queued
        if not queued:
            return
        self._gave_up(len(queued))
        if self.limiter is not None:
            self.limiter.drop_queue()
        runs = list(queued)
        queued.clear()
        for run in runs:
            if avoid is not None:
                run.avoid, run.avoid_until = self.bit, avoid
        self._owner.recalled(runs)

    def _gave_up(self, calls: int) -> None:
        self.engaged -= calls
        if self.breaker is not None:
            self.breaker.on_recalled(calls)

    def _granted(self, count: int, generation: int) -> None:
        """The limiter lets the first ``count`` queued calls go."""
        queued = self.queued
        self._granted_at = monotonic()
        room = count if self.breaker is None else self._owner.room()
        back = []
        for _ in range(min(count, len(queued))):
            run = queued.popleft()
            if room <= 0:
                back.append(run)  # its permit is spent
                continue
            room -= 1
            run.generation = generation
            self._launch(run)
        if back:
            self._gave_up(len(back))
            self._owner.recalled(back)
        self._owner.pump()

    # --- calls --------------------------------------------------------------------------------------------

    def engage(self, run: RowRun) -> None:
        """Send the row's call, or let it wait for its permit."""
        self.engaged += 1
        if self.breaker is not None:
            self.breaker.on_start()
        limiter = self.limiter
        if limiter is None:
            self._launch(run)
            return
        if not self.queued:
            self._granted_at = monotonic()
        self.queued.append(run)
        charge = run.charge
        limiter.need(charge.tokens, charge.tokens_in, charge.tokens_out)

    def _launch(self, run: RowRun) -> None:
        self.in_flight += 1
        self.flow.launched()
        concurrency = self._concurrency
        assert concurrency is not None  # without it nothing is launched
        concurrency.on_start()
        self._slots.send(run)

    def _landed(self, run: RowRun, result: Reply | Failure, started: float) -> None:
        now = monotonic()
        self.in_flight -= 1
        self.engaged -= 1
        run.latency_ms = (now - started) * 1000.0
        run.sent_s = started
        repeated = run.sent > 0
        spent_in, spent_out = run.tokens_in, run.tokens_out
        estimated, charge = run.call.charge, run.charge
        step, failure = self.executor.absorb(run, result)
        if self._concurrency is not None:
            self._concurrency.on_reply(self._signal_of(failure), started, now)
        self.tally.count(
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
        if self.limiter is not None and not self.is_roaming:
            if failure is not None and failure.kind is ErrorKind.RATE_LIMITED:
                self.limiter.throttled(failure.wait_s, run.generation)
            if isinstance(result, Reply):
                self._observer.note(result.headers, now, is_refusal=result.status == 429)
            due = self.executor.charging.settlement(
                estimated, charge, run.tokens_in - spent_in, run.tokens_out - spent_out, age_s=now - started
            )
            if any(due):
                self.limiter.settle(*due)
        if self.breaker is not None:
            self._examine(self.breaker, failure, started, now)
        self._owner.landed(self, run, step, failure, now)

    def answers_first(self) -> bool:
        """Whether the endpoint's first success has just been counted, and the gate is shut: true once."""
        if self.tally.first_success and self._gate >= 0 and not self._answered:
            self._answered = True
            return True
        return False

    def _signal_of(self, failure: Failure | None) -> Signal:
        if failure is None:
            return Signal.NONE
        if self.is_roaming:  # only what this machine lacks concerns them all
            return Signal.HOLD if failure.message.startswith(SHORTAGE) else Signal.NONE
        signal = POLICY[failure.kind].signal
        if signal is Signal.PAUSE and self.limiter is None:
            return Signal.CUT  # no quota will pause: what is refused is refused for being too many
        return signal

    # --- health -------------------------------------------------------------------------------------------

    def health_of(self, failure: Failure) -> Health:
        """What a failure says of this endpoint."""
        if self.is_roaming:
            return Health.WELL
        health = POLICY[failure.kind].health
        if health is Health.OUT and failure.status > 0:
            names_model = failure.kind is ErrorKind.NOT_FOUND and self._job.step.batch_lines
            return Health.WELL if self._has_own_urls or names_model else health
        if health is Health.WELL and not failure.status:
            return Health.NOTHING  # it was never sent
        return health

    def _examine(self, breaker: Breaker, failure: Failure | None, started: float, now: float) -> None:
        if failure is None:
            breaker.on_reply(Health.WELL, started, now)
            return
        health = self.health_of(failure)
        if health is Health.REFUSES:
            at_once = (
                self.limiter is not None
            )  # without a quota refusals are how the in-flight limit finds its wall
        else:
            at_once = POLICY[failure.kind].run is RunEffect.STOP
        if breaker.on_reply(health, started, now, wait_s=failure.wait_s, at_once=at_once):
            self._trouble = f"{POLICY[failure.kind].says} ({failure.kind})"
            self.call_back()
            self.fetcher.drop_idle()  # others need the descriptors now

    def waits_in_vain(self, now: float) -> bool:
        """Whether something has waited long for its permit, and might have gone elsewhere."""
        return self.breaker is not None and bool(self.queued) and now - self._granted_at > LONG_S

    def has_spared(self, now: float) -> bool:
        """Whether there has been room here for long that nothing used."""
        return now - self._used_at > LONG_S

    # --- the tick -----------------------------------------------------------------------------------------

    def tick(self, now: float, elapsed_s: float) -> None:
        """Time has passed."""
        self.flow.passed(elapsed_s)
        if self._concurrency is not None:
            self._concurrency.tick(now)
        if self.queued or not self.has_room():
            self._used_at = now

    def sweep(self, now: float) -> None:
        """Cut off what has taken too long. A few times a second is enough."""
        self.fetcher.sweep(now)

    @property
    def is_refused(self) -> bool:
        """Whether the limiter does not want this worker: its calls would wait for ever."""
        return self.limiter is not None and bool(self.limiter.refused)

    def take_tally(self, now: float) -> Tally:
        """What was counted since the last one."""
        limiter, breaker = self.limiter, self.breaker
        cooldowns, trouble = 0, ""
        if breaker is not None:
            cooldowns, self._openings = breaker.openings - self._openings, breaker.openings
            trouble = "" if breaker.state is State.CLOSED else self._trouble
        return self.tally.take(
            in_flight=self.in_flight,
            waiting=len(self.queued),
            starved_s=limiter.starved_s(now) if limiter is not None else 0.0,
            cooldowns=cooldowns,
            trouble=trouble,
        )

    async def close(self) -> None:
        """Leave the limiter, close all connections."""
        if self.limiter is not None:
            self.limiter.close()
        await self.fetcher.close()
