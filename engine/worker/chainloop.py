"""The worker's loop for jobs of several steps: each step is a lane, and rows are at different steps at the same time.

Rules of this file:
1. What was begun is finished first: later steps go before earlier ones, all of them before fresh rows. Where calls wait
   for a step that is full or out of permits, no further rows are begun.
2. A row is given back only when nothing of it runs; what it has finished is told before that.
3. Of a row that workers died with, what has ended and what is begun next is told first, and is on its way before anything
   of it is begun: should this worker die, too, it is known of what, and what was finished is kept.
"""

import random
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Final, cast

from engine.config import jobs_of
from engine.core.errors import POLICY
from engine.core.model import Failure
from engine.credentials import Auth, all_secrets
from engine.handover import WorkerSettings
from engine.wire.messages import Finished, Lease, Message, OutcomeLine, Released, RowLine, StepLine, Trying
from engine.worker.call_lane import CallLane
from engine.worker.chains import Chains, StepExecutor
from engine.worker.execute import End, Later, RowRun, StepEnd
from engine.worker.fault import die_of
from engine.worker.home import settle_in
from engine.worker.lane import Lane
from engine.worker.loop import STOPPERS, Worker

# So many bytes of results are told at once: a message has a cap, and a death would cost them.
TELL_BYTES: Final = 8 * 1024 * 1024
# Of a row on trial nothing is begun sooner than so long after it was told: what is sent leaves by a thread of the socket's own.
TRIAL_S: Final = 0.1


class ChainWorker(Worker):
    """One worker process of a job of several steps."""

    def __init__(self, settings: WorkerSettings, auth: tuple[Auth, ...]) -> None:
        if any(plan.step.kind == "call" for plan in settings.job.steps):
            settle_in(settings.surroundings)
        super().__init__(settings, auth)
        executors = [lane.executor for lane in self._lanes]
        self._chains = Chains(settings.job, [one for one in executors if isinstance(one, StepExecutor)])
        self._waiting: list[deque[RowRun]] = [deque() for _ in self._lanes]  # ready to be engaged, by step
        self._will_pump = False
        self._untold_bytes = 0  # of outcomes
        self._done: dict[int, list[StepLine]] = {}  # of fresh rows, what was finished before
        self._is_trial = False  # the rows that are here are such that workers died with
        self._told_until = 0.0  # nothing is begun before
        self._backwards = range(len(self._lanes) - 1, -1, -1)
        waits = self._chains.chain.shape.waits
        # The steps that a row begins with.
        self._first = [place for place, bits in enumerate(waits) if not bits]

    def _make_lanes(self, auth: tuple[Auth, ...]) -> list[Lane]:
        settings, job = self._settings, self._settings.job
        secrets = tuple(secret for headers in auth for secret in all_secrets(headers))
        rng = random.Random()
        lanes: list[Lane] = []
        for place, (one, headers, name) in enumerate(zip(jobs_of(job), auth, job.places, strict=True)):
            make = partial(StepExecutor, place=place)
            if one.step.kind == "call":
                executor = make(one, None, settings.run_id, rng, secrets)
                call_lane = CallLane(place, one, settings, self, executor=executor)
                lanes.append(cast(Lane, call_lane))  # to the loop it is one
            else:
                lanes.append(
                    Lane(
                        place, one, headers, settings, self, name=name, weight=1.0, secrets=secrets, rng=rng,
                        breaker=None, make_executor=make,
                    )
                )  # fmt: skip
        return lanes

    # --- rows in ------------------------------------------------------------------------------------------

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Finished):
            for step in message.steps:
                self._done.setdefault(step.row, []).append(step)
        super()._on_message(message)

    def _leased(self, message: Lease) -> None:
        for step in message.done:
            self._done.setdefault(step.row, []).append(step)
        self._is_trial = message.is_trial  # such rows are here without others
        super()._leased(message)

    def pump(self) -> None:
        """Engage calls as long as some step has room: of rows that were begun first, then of fresh ones."""
        if self._draining or not self._welcomed or self._cut_off():
            return
        queues = self._queues
        while queues.due:
            run = queues.due.popleft()
            self._waiting[run.lane].append(run)
        room = self._share - sum(lane.engaged for lane in self._lanes)
        while room > 0:
            found = self._next()
            if found is None:
                if not queues.fresh or not self._may_begin():
                    break
                self._begin_row(*queues.fresh.popleft())
                continue
            room -= self._engage_step(*found)
        if self._held() <= max(self._lanes[place].flow.batch for place in self._first) // 2:
            self._want()

    def _next(self) -> tuple[RowRun, Lane | CallLane] | None:
        if self._told_until:
            if self._loop.time() < self._told_until:
                return None
            self._told_until = 0.0
        for place in self._backwards:
            waiting = self._waiting[place]
            if waiting and self._lanes[place].has_room():
                return waiting.popleft(), self._lanes[place]
        return None

    def _may_begin(self) -> bool:
        """Whether a row more would find its way: no step has a batch of calls waiting already."""
        # A row whose call waits for a retry holds no room, and holds what it has come to: of those there is an end.
        if len(self._chains.open) >= 2 * self._share + self._lanes[self._first[0]].flow.batch:
            return False
        has_room = False
        for place in self._backwards:
            lane = self._lanes[place]
            if len(self._waiting[place]) >= lane.flow.batch:
                return False
            has_room = has_room or lane.has_room()
        return has_room

    def _begin_row(self, lease: int, line: RowLine) -> None:
        self._go_on(*self._chains.begin(lease, line, self._done.pop(line.row, ())))

    def _go_on(self, runs: list[RowRun], outcome: OutcomeLine | None) -> None:
        for run in runs:
            self._waiting[run.lane].append(run)
        if outcome is not None:
            self._outcomes.append(outcome)
            self._untold_bytes += len(outcome.record)
        if self._is_trial:
            self._tell_all()
        if self._untold_bytes + self._chains.line_bytes > TELL_BYTES:
            self._flush(self._loop.time())

    def _tell_all(self) -> None:
        """See rule 3."""
        now = self._loop.time()
        self._flush(now)
        for chain in self._chains.open.values():
            self._link.send(Trying(row=chain.row, lease=chain.lease, steps=chain.progress.under_way))
        self._told_until = now + TRIAL_S

    def _engage_step(self, run: RowRun, lane: Lane | CallLane) -> bool:
        """Whether the call was engaged; if not, its step has ended."""
        refused = lane.executor.too_large(run)
        if refused is None:
            lane.engage(run)
            return True
        assert isinstance(refused, StepEnd)
        self._go_on(*self._chains.ended(refused))
        return False

    # --- outcomes -----------------------------------------------------------------------------------------

    def recalled(self, runs: Iterable[RowRun]) -> None:
        """These wait for permits no more; they are first to be engaged, in their order."""
        for run in reversed(list(runs)):
            self._waiting[run.lane].appendleft(run)

    def landed(
        self, lane: Lane | CallLane, run: RowRun, step: End | Later, failure: Failure | None, now: float
    ) -> None:
        """A call has ended: its step has, or it is sent again."""
        self._budget.on_call(now)
        if failure is not None:
            self._heed(lane.number, failure)
        if isinstance(step, StepEnd):
            runs, outcome = self._chains.ended(step)
            self._go_on(runs, outcome)
            if failure is not None and POLICY[failure.kind].run in STOPPERS:
                self._flush(now)  # the run may have to stop: every call until then is in vain
        else:
            assert isinstance(step, Later)
            if self._draining:
                self._waiting[run.lane].append(run)
            else:
                self._sleep(run, step, failure, now)
        if lane.answers_first():
            self._flush(now)  # the coordinator opens the gate for all
        if self._draining:
            self._give_back()
            self._maybe_drained()
        elif not self._will_pump:
            self._will_pump = True  # once for all that end in this turn of the loop: functions end in crowds
            self._loop.call_soon(self._pump_once)

    def _pump_once(self) -> None:
        self._will_pump = False
        try:
            self.pump()
        except Exception as error:
            die_of(error)

    # --- the end ------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Give back the rows of which nothing runs; the others once that has ended."""
        self._draining = True
        for lane in self._lanes:
            lane.call_back()
        self._queues.spread(self._waiting)
        rows = [line.row for _, line in self._queues.fresh]
        self._queues.fresh.clear()
        self._done.clear()
        self._give_back(rows)
        self._maybe_drained()

    def _give_back(self, rows: Iterable[int] = ()) -> None:
        """Drop what waits, and give back whatever has nothing under way."""
        for waiting in self._waiting:
            for run in waiting:
                self._chains.take_back(run)
            waiting.clear()
        back = [*rows, *(row for row, chain in self._chains.open.items() if not chain.progress.running)]
        for row in back:
            self._chains.forget(row)
        if back:
            self._flush(self._loop.time())  # what was finished of them goes first
            self._link.send(Released(rows=back))

    # --- the tick -----------------------------------------------------------------------------------------

    def _relieve(self, now: float) -> None:
        """A step's calls go nowhere else."""

    def _held(self) -> int:
        """Rows that wait to be begun. What was begun is no supply: its next calls come by themselves."""
        waiting = max(len(self._waiting[place]) + len(self._lanes[place].queued) for place in self._first)
        return len(self._queues.fresh) + waiting

    def _missing(self) -> int:
        """How many rows to ask for now."""
        if self._draining or not self._welcomed:
            return 0
        free = self._share - sum(lane.engaged for lane in self._lanes)
        batch = room = 0
        for lane in (self._lanes[place] for place in self._first):
            if lane.limit() > 0 and lane.is_well(self._last_tick):
                batch = max(batch, lane.flow.batch)
                room = max(room, lane.free())
        if not batch:
            return 0
        return self._demand.missing(self._held(), max(0, min(free, room)) // len(self._first), batch)

    def _steps(self) -> list[StepLine]:
        self._untold_bytes = 0
        return self._chains.take_lines()
