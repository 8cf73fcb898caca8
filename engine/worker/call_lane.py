"""A step's function as one worker sees it: to the loop a lane like any other, but nothing is sent and nothing is asked for.

Rules of this file:
1. What bounds it is the worker's share of the rows in flight, and how many calls the function's threads or processes can
   take. There is no quota, no health and no gate but the one that is shut while the run is paused.
2. Calls are no requests: they are not counted as such, and their times are not among the latencies.
3. Once too many calls hang the worker is worn out: the lane begins nothing more, lets what runs end, and then ends the process
   with a sentence. Its rows are leased again; those that hung have had their outcome before.
"""

import os
import sys
from collections import deque
from functools import partial
from time import monotonic
from typing import Any, Final, Protocol

from engine.config import Job
from engine.core.errors import Health
from engine.core.model import Failure, Reply
from engine.handover import LimiterAddress, WorkerSettings
from engine.steps.call import Called, own_copy
from engine.wire.messages import Tally, Terms
from engine.worker.execute import Executor, RowRun
from engine.worker.functions import Functions
from engine.worker.queues import Flow

EXIT_WORN: Final = 75
REST_S: Final = 1.0  # outcomes are on their way to the coordinator for less than this
REST_MAX_S: Final = 30.0  # what else runs is waited for so long


class CallOwner(Protocol):
    """Who has the rows; as ``lane.Owner``."""

    def landed(self, lane: "CallLane", run: RowRun, step: Any, failure: Failure | None, now: float) -> None:
        """A call has ended."""


class CallLane:
    """See the module. ``job`` is the job in this step (``config.jobs_of``)."""

    def __init__(
        self,
        number: int,
        job: Job,
        settings: WorkerSettings,
        owner: CallOwner,
        *,
        executor: Executor,
        weight: float = 1.0,
    ) -> None:
        """``number``: the step's place in the job. Raises UsageError for a function that cannot be found."""
        self.number = number
        self.bit = 1 << number
        self.weight = weight
        self.breaker = None
        self.limiter = None
        self.executor = executor
        self.queued: deque[RowRun] = deque()  # nothing here ever waits for a permit
        self.flow = Flow()
        self.engaged = 0
        self._name = job.step.function
        self._owner = owner
        self._share = 0
        self._is_paused = False
        self._replies = self._ok = 0  # since the last tally
        self._worn_since = 0.0
        self._cores = max(1, (os.cpu_count() or 1) // max(1, min(job.procs, job.in_flight)))
        self._functions = Functions(
            job.step.function,
            mode=job.step.mode,
            by_name=bool(settings.job.steps[number].take),  # else it is given the whole row
            timeout_s=job.timeouts.total_s,
            bytes_max=job.limits.reply_bytes_max,
            processes_max=self._cores,
            surroundings=settings.surroundings,
            folder=job.folder or os.getcwd(),
        )
        self._width = self._functions.width

    # --- what holds ---------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Calls that have begun."""
        return self.engaged

    def limit(self) -> int:
        """How many calls may be engaged."""
        if self._is_paused or self._worn_since:
            return 0
        return self._share if self._width is None else min(self._share, self._width)

    def is_well(self, now: float) -> bool:
        """Whether calls may be begun at all."""
        return not (self._is_paused or self._worn_since)

    is_on_trial: Final = False
    is_refused: Final = False

    def may_serve(self, now: float, within_s: float = 0.0) -> bool:
        """It always may: there is no other place for its rows."""
        return True

    def has_room(self) -> bool:
        """Whether one more call can be engaged."""
        return self.engaged < self.limit()

    def free(self) -> int:
        """How many calls could begin at once."""
        return max(0, self.limit() - self.engaged)

    def tune(self, in_flight: int, terms: Terms, now: float, *, is_paused: bool = False) -> None:
        """Other limits hold from now on. A gate above 0 is for who must not be asked by many at once: not for functions."""
        self._share = in_flight
        self._is_paused = is_paused or terms.gate == 0

    # --- what other lanes have ----------------------------------------------------------------------------

    def use_limiter(self, address: LimiterAddress) -> None:
        """A function needs no permits."""

    def call_back(self, *, avoid: float | None = None) -> None:
        """Nothing waits here."""

    def waits_in_vain(self, now: float) -> bool:
        """Nothing waits here."""
        return False

    def has_spared(self, now: float) -> bool:
        """It has no room that another lane's rows could use."""
        return False

    def answers_first(self) -> bool:
        """No gate waits for its first answer."""
        return False

    def health_of(self, failure: Failure) -> Health:
        """A failure says nothing of any endpoint."""
        return Health.NOTHING

    # --- calls --------------------------------------------------------------------------------------------

    def engage(self, run: RowRun) -> None:
        """Call the function for the row."""
        self.engaged += 1
        self.flow.launched()
        run.sent_s = monotonic()
        asking = run.asking
        assert isinstance(asking, Called)
        # A copy, so that what a function does to its row is not there when it is called again, nor in what follows.
        self._functions.start(own_copy(asking.arguments), partial(self._landed, run))

    def _landed(self, run: RowRun, result: Reply | Failure) -> None:
        now = monotonic()
        self.engaged -= 1
        self._replies += 1
        self._ok += type(result) is Reply
        run.latency_ms = (now - run.sent_s) * 1000.0
        step, failure = self.executor.absorb(run, result)
        self._owner.landed(self, run, step, failure, now)

    # --- the tick -----------------------------------------------------------------------------------------

    def tick(self, now: float, elapsed_s: float) -> None:
        """Time has passed."""
        self.flow.passed(elapsed_s)

    def sweep(self, now: float) -> None:
        """Cut off what has taken too long; a few times a second, with the loop's time."""
        self._functions.sweep(now)
        if self._functions.is_worn and not self._worn_since:
            self._worn_since = now
            sys.stderr.write(
                f"{self._functions.abandoned} calls of {self._name} hang though their time is up: this worker ends, and another "
                "one takes its rows. Give what the function waits for a time-out of its own, or run it with mode process.\n"
            )
            sys.stderr.flush()
        if self._worn_since:
            rested_s = now - self._worn_since
            if rested_s >= REST_MAX_S or (rested_s >= REST_S and not self.engaged):
                os._exit(EXIT_WORN)

    def take_tally(self, now: float) -> Tally:
        """What was counted since the last one. Returned values stand as replies, so that a run is seen to go on."""
        tally = Tally(replies=self._replies, ok_replies=self._ok, in_flight=self.engaged)
        self._replies = self._ok = 0
        return tally

    async def close(self) -> None:
        """Let go of what still runs."""
        await self._functions.close()
