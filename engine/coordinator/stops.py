"""When a run stops by itself: refused keys, wrong models, an endpoint that is not there, too many failures.

Rules of this file:
1. Decisions only; the session carries them out. Times are arguments.
2. Rows that a stop hits stay open. So a failure that may turn out to concern the whole run is held back until a
   success shows that it concerned its row alone: that of a call which began later. What was under way already when a
   key was revoked says nothing.
"""

import msgspec

from engine.config import Job, has_own_origins, has_own_urls, jobs_of
from engine.core.commit import OutcomeRow
from engine.core.errors import (
    NEVER_ANSWERED_S,
    NO_SUCCESS_S,
    POLICY,
    STREAK,
    ErrorKind,
    ExitCode,
    RunEffect,
)
from engine.settingtable import parse_max_failures
from engine.wire.messages import Tally

HEARD_LATE_S = 0.3  # outcomes gather in their worker, and wait here while there is much to do
STILL_TRIED_S = 180.0  # a step that few rows come to is not given up for having nothing to do; longer than any retry waits
FAILURES_MIN = 20  # rows finished before a percentage of failures means anything


class Stops:
    """Watches outcomes and tallies of one run. ``reason`` is set once it should stop."""

    def __init__(self, job: Job, now: float) -> None:
        self.reason = ""
        self.exit_code = ExitCode.OK
        self._started = now
        self._paused = False
        # Of each step; the endpoints of one step speak for each other.
        self._places = [_Place(name, now) for name in (job.places if job.steps else ("",))]
        self._held: list[tuple[OutcomeRow, float]] = []  # since when
        self._streak = 0  # of those, the ones in a row
        self._finished = 0
        self._failed = 0
        self._own_urls = [has_own_urls(one) for one in jobs_of(job)]
        self._has_steps = bool(job.steps)
        self._own_origins = all(map(has_own_origins, jobs_of(job)))
        self._failures_max, self._failures_share = parse_max_failures(job.max_failures)

    def judge(self, outcome: OutcomeRow, now: float, step: int = 0) -> list[OutcomeRow]:
        """The outcomes that may be committed now: this one, none while it is held back, or it and those held.

        ``step``: which of several a failure is of.
        """
        self._finished += 1
        if outcome.ok:
            self._streak = 0
            if self.reason or not self._held:
                return [outcome]  # after a stop too late for those held back: they are why the run stops
            began = now - outcome.latency_ms / 1000 - HEARD_LATE_S
            released = [held for held, since in self._held if since <= began]
            self._held = self._held[len(released) :]
            for held in released:
                self._count_failure(held)
            return [*released, outcome]
        effect = POLICY[ErrorKind(outcome.kind)].run
        if effect is RunEffect.STOP:
            self._stop(outcome)
            return []
        if effect is RunEffect.STOP_AFTER_STREAK and not self._is_about_its_row(step):
            self._held.append((outcome, now))
            self._streak += 1
            if self._streak >= STREAK:
                self._stop(outcome)
            return []
        self._count_failure(outcome)
        return [outcome]

    def _is_about_its_row(self, step: int) -> bool:
        """Whether a page that is missing, or closed, says nothing of other rows'."""
        return self._own_urls[step] if self._has_steps else any(self._own_urls)

    def give_up(self) -> list[OutcomeRow]:
        """At the end of the input: what is still held back is a plain failure of its row."""
        released, self._held = [held for held, _ in self._held], []
        return released

    def heard(self, tally: Tally, now: float, place: int = 0) -> None:
        """A worker's counts at one endpoint, or in one step."""
        stands = self._place(place)
        if tally.requests:
            stands.first_sent = now if stands.first_sent is None else stands.first_sent
            stands.last_sent = now
        if tally.replies:
            stands.answered = True
        if tally.ok_replies:
            stands.last_success = now

    def unreachable(self, message: str, now: float, place: int = 0) -> None:
        """A worker could not reach an endpoint at all."""
        stands = self._place(place)
        stands.first_sent = now if stands.first_sent is None else stands.first_sent
        stands.last_sent = now
        stands.unreachable = message

    def _place(self, place: int) -> "_Place":
        return self._places[place] if self._has_steps else self._places[0]

    def paused(self, is_paused: bool) -> None:
        """``engine ctl`` paused the run, or let it go on: no success is expected meanwhile."""
        self._paused = is_paused

    def tick(self, now: float, *, is_idle: bool = False) -> None:
        """Time passes. ``is_idle``: no worker holds a row, so no success is to be expected."""
        if self.reason or self._own_origins:
            return  # of hosts that rows name none speaks for the others, and each row ends in bounded time
        for stands in self._places:
            if is_idle or self._paused:
                stands.last_success = now
            self._look_at(stands, now)

    def _look_at(self, stands: "_Place", now: float) -> None:
        first, which = stands.first_sent, f"step {stands.name}: " if stands.name else ""
        if first is None or self.reason:
            return
        if not stands.answered and stands.unreachable and now - first > NEVER_ANSWERED_S:
            self._end(
                f"{which}the endpoint has not answered once in {NEVER_ANSWERED_S:g} s: {stands.unreachable}. No row was "
                "finished by this; check the address and give the same command again",
            )
        elif now - max(stands.last_success, first) > NO_SUCCESS_S and (
            not self._has_steps or now - stands.last_sent < STILL_TRIED_S
        ):
            self._end(
                f"{which}no request has succeeded for {NO_SUCCESS_S / 60:g} minutes; rows that are open stay open, give "
                "the same command again when the endpoint is well",
            )

    def _count_failure(self, outcome: OutcomeRow) -> None:
        self._failed += 1
        over = self._failures_max is not None and self._failed > self._failures_max
        if self._failures_share is not None and self._finished >= FAILURES_MIN:
            over = over or self._failed > self._failures_share * self._finished
        if over and not self.reason:
            self._end(
                f"more rows failed than --max-failures allows ({self._failed} of {self._finished} finished; the last "
                f"one: {outcome.kind}); the rows that are open stay open",
            )

    def _stop(self, outcome: OutcomeRow) -> None:
        if not self.reason:
            kind = ErrorKind(outcome.kind)
            self._end(
                f"{POLICY[kind].says} ({kind}): {message_of(outcome.record)}. The rows it hit stay open; mend it and "
                "give the same command again",
            )

    def _end(self, reason: str) -> None:
        self.reason, self.exit_code = reason, ExitCode.STOPPED


class _Place:
    """How a step stands, or all endpoints of a job together."""

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.last_success = now
        self.first_sent: float | None = None
        self.last_sent = now
        self.answered = False
        self.unreachable = ""


def message_of(record: bytes) -> str:
    """The failure's own words from a failed row's record."""
    try:
        failed = msgspec.json.decode(record)
    except msgspec.MsgspecError:
        return ""
    if not isinstance(failed, dict):
        return ""
    error = failed.get("error")
    if isinstance(error, dict):  # an openai-batch line
        return str(error.get("message", ""))
    return str(failed.get("_error", "")).partition(": ")[2]
