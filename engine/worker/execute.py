"""One row through its step: from leased bytes to an outcome. Decisions only; sending is fetch.py's.

Rules of this file:
1. No I/O and no clock: times are arguments. Nothing here raises for what a row or a reply holds.
2. Whether and when something is sent again is asked of ``core.retry``, never decided here.
"""

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from engine.config import Job, has_own_origins, rates_of
from engine.core.errors import ErrorKind, RowError
from engine.core.model import Call, Failure, Reply, Usage
from engine.core.retry import RetryPolicy
from engine.credentials import Secret, redact
from engine.formats.record import Recorder, decode_row
from engine.providers.base import Provider
from engine.steps import make_step
from engine.steps.base import Again, Asking, Done
from engine.wire.messages import OutcomeLine, RowLine
from engine.worker.charging import Charging


class RowRun:
    """A leased row on its way: what is asked now, and what was spent on it so far."""

    __slots__ = (
        "asking",
        "attempt",
        "avoid",
        "avoid_until",
        "call",
        "chain",
        "charge",
        "failed_here",
        "generation",
        "key",
        "lane",
        "latency_ms",
        "lease",
        "model",
        "payload",
        "refused",
        "row",
        "sent",
        "sent_s",
        "shut",
        "stale",
        "throttles",
        "tokens_in",
        "tokens_out",
        "tried",
        "turn",
        "values",
    )

    def __init__(
        self, lease: int, row: int, payload: bytes, values: dict[str, Any], asking: Asking, key: str
    ):
        self.lease = lease
        self.row = row
        self.payload = payload
        self.values = values
        self.asking = asking
        self.call: Call = asking.call
        self.charge = self.call.charge  # as the quota is asked for it
        self.key = key
        self.sent = 0  # requests sent for this row
        self.attempt = 0  # of those, the ones that count towards --retries
        self.turn = 0  # re-asks: a changed question is a new call with a key of its own
        self.throttles = 0  # how often it was refused for its rate
        self.stale = 0  # how often its connection turned out to be closed
        self.generation = 0  # the grant's, for the limiter
        self.latency_ms = 0.0
        self.sent_s = 0.0  # time.monotonic() of the last attempt
        self.tokens_in = 0
        self.tokens_out = 0
        self.model = ""
        self.lane = 0  # the endpoint that ``call`` is for
        self.avoid = 0  # bits of endpoints that failed it of late,
        self.avoid_until = 0.0  # and how long that counts
        self.tried = 0  # bits of endpoints that ever failed it
        self.failed_here = 0  # attempts that its endpoint failed since the row came to it
        self.shut = 0  # bits of endpoints that will not serve it
        self.refused: OutcomeLine | None = None  # its outcome, if no other endpoint does
        self.chain: object = (
            None  # of a job of several steps: the whole row, whose step number ``lane`` this is
        )

    def move(self, lane: int) -> None:
        """The row goes to another endpoint: one that has not failed it yet does not answer for the last one's failures.

        So a row is sent at most ``retries + 1`` times per endpoint.
        """
        if not self.tried >> lane & 1:
            self.attempt -= self.failed_here
        self.failed_here = 0
        self.lane = lane


class StepEnd:
    """One of several steps of a row has ended: with ``fields``, or with a failure."""

    __slots__ = ("failure", "fields", "run")

    def __init__(self, run: RowRun, fields: dict[str, Any] | None, failure: Failure | None) -> None:
        self.run = run
        self.fields = fields
        self.failure = failure


End = OutcomeLine | StepEnd


class Later:
    """The row is to be sent again after ``delay_s`` seconds; 0 means at once."""

    __slots__ = ("delay_s",)

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s


class Executor:
    """Takes rows of one job from lease to outcome."""

    def __init__(
        self,
        job: Job,
        provider: Provider | None,
        run_id: str,
        rng: random.Random,
        secrets: tuple[Secret, ...] = (),
    ) -> None:
        """``secrets`` are masked in whatever a server said about a failure. ``provider``: None where nothing is sent."""
        self._secrets = secrets
        self._step = make_step(job.step.kind, job.step, job.target, provider)
        self._tries = "requests" if job.step.kind != "call" else "calls"
        self._run_id = run_id
        self.charging = Charging(settles=provider is not None and provider.settles, rates=rates_of(job))
        self._retry = RetryPolicy(job.retries, rng, refusals_count=has_own_origins(job))
        self._recorder = Recorder(
            batch=job.output_format == "openai-batch",
            meta=job.meta,
            error_chars_max=job.limits.error_chars_max,
            answers=self._step.answer_columns,
        )

    def begin(self, lease: int, line: RowLine) -> RowRun | OutcomeLine:
        """Decode and render one row; an outcome at once where that is impossible."""
        row, number, payload = line
        values: dict[str, Any] | None = None
        try:
            values = decode_row(payload)
            asking = self._step.start(values)
        except RowError as error:
            message = f"line {number}: {error.message}" if values is None else error.message
            return self._failed(lease, row, payload, values, error.kind, message)
        return RowRun(lease, row, payload, values, asking, f"{self._run_id}-{row}-0")

    def adopt(self, run: RowRun) -> End | None:
        """Ask here what was asked at another endpoint; an outcome where that is impossible."""
        try:
            run.asking = self._step.start(run.values)
        except RowError as error:
            return self._gave_up(run, Failure(error.kind, error.message))
        run.call = run.asking.call
        run.turn += bool(run.turn)  # a question that was changed is the row's own one again
        run.key = f"{self._run_id}-{run.row}-{run.turn}"
        return None

    def any_too_large(self, runs: Iterable[RowRun]) -> bool:
        """Whether one of them alone costs more than a limit."""
        return any(self.charging.too_dear(run.charge) for run in runs)

    def too_large(self, run: RowRun) -> End | None:
        """The outcome of a call that alone costs more than a limit, unsent; None for one that can pass."""
        charging = self.charging
        run.charge = charging.charged(run.call.charge)
        says = charging.too_dear(run.charge) if charging.has_limits else ""
        return self._gave_up(run, Failure(ErrorKind.REQUEST_TOO_LARGE, says)) if says else None

    def absorb(self, run: RowRun, result: Reply | Failure) -> tuple[End | Later, Failure | None]:
        """What a sending came to: an outcome or a later sending, and the failure behind it, if there was one."""
        run.sent += 1
        if isinstance(result, Reply):
            absorbed = run.asking.absorb(result)
            if isinstance(absorbed, Done):
                self._count(run, absorbed.usage)
                run.model = absorbed.model
                return self._ok(run, absorbed.fields), None
            if isinstance(absorbed, Again):
                failure, again = absorbed.failure, absorbed.call
            else:
                failure, again = absorbed, None
        else:
            failure, again = result, None
        self._count(run, failure.usage)
        decision = self._retry.decide(
            failure.kind, run.attempt + 1, failure.wait_s, throttles=run.throttles, stale=run.stale
        )
        if not decision.retry:
            return self._gave_up(run, failure), failure
        if decision.free:
            run.stale += failure.kind is ErrorKind.STALE_KEEPALIVE
            run.throttles += failure.kind is ErrorKind.RATE_LIMITED
        else:
            run.attempt += 1
        if again is not None and again is not run.call:
            run.call = again
            run.turn += 1
            run.key = f"{self._run_id}-{run.row}-{run.turn}"
        return Later(decision.delay_s), failure

    def _count(self, run: RowRun, usage: Usage) -> None:
        run.tokens_in += max(usage.tokens_in, 0)
        run.tokens_out += max(usage.tokens_out, 0)

    def _ok(self, run: RowRun, fields: dict[str, Any]) -> End:
        record = self._recorder.ok(
            run.payload,
            run.values,
            fields,
            attempts=run.sent,
            latency_ms=run.latency_ms,
            tokens_in=run.tokens_in,
            tokens_out=run.tokens_out,
            model=run.model,
        )
        return OutcomeLine(
            run.row,
            run.lease,
            True,
            "",
            record,
            run.sent,
            run.latency_ms,
            run.tokens_in,
            run.tokens_out,
            run.sent_s,
        )

    def _told(self, run: RowRun, failure: Failure) -> Failure:
        """As it is told: without secrets, and with what was done about it."""
        message = redact(failure.message, self._secrets)
        if run.attempt:
            message = f"{message} (given up after {run.sent} {self._tries})"
        return replace(failure, message=message)

    def _gave_up(self, run: RowRun, failure: Failure) -> End:
        message = self._told(run, failure).message
        record = self._recorder.failed(
            run.payload,
            run.values,
            failure.kind,
            message,
            attempts=run.sent,
            latency_ms=run.latency_ms,
            tokens_in=run.tokens_in,
            tokens_out=run.tokens_out,
            model=run.model,
        )
        return OutcomeLine(
            run.row,
            run.lease,
            False,
            failure.kind,
            record,
            run.sent,
            run.latency_ms,
            run.tokens_in,
            run.tokens_out,
            run.sent_s,
        )

    def _failed(
        self,
        lease: int,
        row: int,
        payload: bytes,
        values: dict[str, Any] | None,
        kind: ErrorKind,
        message: str,
    ) -> OutcomeLine:
        record = self._recorder.failed(
            payload, values, kind, message, attempts=0, latency_ms=0.0, tokens_in=0, tokens_out=0, model=""
        )
        return OutcomeLine(row, lease, False, kind, record, 0, 0.0, 0, 0)
