"""Rows that go through several steps: what of each row is done, what runs, and what follows.

Rules of this file:
1. What is next is ``core.chain``'s to say. Nothing is sent here, and there is no clock.
2. A step that has ended becomes a line for the coordinator at once; a row becomes an outcome when nothing of it runs and
   nothing is left to run. A row that failed has failed by its first failed step, in the job's order.
3. A step sees the row and what earlier steps gave, never what a later one did.
"""

import random
from collections.abc import Callable, Iterable
from typing import Any

from engine.config import Job
from engine.core.chain import Progress
from engine.core.errors import ErrorKind, RowError
from engine.core.model import Failure
from engine.credentials import Secret
from engine.formats.record import Recorder, decode_row
from engine.formats.rows import decode_json, encode_values
from engine.providers.base import Provider
from engine.steps.chain import Chain, chain_of
from engine.steps.template import absent
from engine.wire.messages import OutcomeLine, RowLine, StepLine
from engine.worker.execute import Executor, RowRun, StepEnd

Fields = dict[str, Any]


class RowChain:
    """One leased row on its way through all steps."""

    __slots__ = (
        "failures",
        "last_ms",
        "latency_ms",
        "lease",
        "lined",
        "model",
        "model_of",
        "payload",
        "progress",
        "results",
        "row",
        "sent",
        "sent_s",
        "tokens_in",
        "tokens_out",
        "values",
    )

    def __init__(self, lease: int, row: int, payload: bytes, values: Fields, progress: Progress) -> None:
        self.lease = lease
        self.row = row
        self.payload = payload
        self.values = values
        self.progress = progress
        self.results: dict[int, Fields] = {}
        self.failures: dict[int, Failure] = {}
        self.sent = self.tokens_in = self.tokens_out = 0  # on this row, ever
        self.lined = (0, 0, 0)  # of these, what steps were told with: it is counted with them
        self.latency_ms = 0.0  # of each step's last call, added up
        self.sent_s = self.last_ms = 0.0  # of the call that was sent last in this run
        self.model = ""  # of the last step, in the job's order, that a model answered
        self.model_of = -1  # which step that is

    def count(self, run: RowRun) -> None:
        """Add up what a step took."""
        self._add(run.lane, run.sent, run.tokens_in, run.tokens_out, run.latency_ms, run.model)
        if run.sent_s >= self.sent_s:
            self.sent_s, self.last_ms = run.sent_s, run.latency_ms

    def count_earlier(self, done: StepLine) -> None:
        """Add up what a step took that was finished before: the row's figures are the same as without an interruption."""
        sent = done.attempts + done.calls
        self._add(done.step, sent, done.tokens_in, done.tokens_out, done.latency_ms, done.model)
        self.lined = (self.sent, self.tokens_in, self.tokens_out)

    def _add(
        self, step: int, sent: int, tokens_in: int, tokens_out: int, latency_ms: float, model: str
    ) -> None:
        self.sent += sent
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        self.latency_ms += latency_ms
        if model and step > self.model_of:
            self.model, self.model_of = model, step


class StepExecutor(Executor):
    """Takes rows through one of their steps."""

    def __init__(
        self,
        job: Job,
        provider: Provider | None,
        run_id: str,
        rng: random.Random,
        secrets: tuple[Secret, ...] = (),
        *,
        place: int = 0,
    ) -> None:
        super().__init__(job, provider, run_id, rng, secrets)
        self.place = place

    def ask(self, chain: RowChain, values: Fields) -> RowRun:
        """The row's call in this step. Raises RowError where it cannot be made."""
        asking = self._step.start(values)
        run = RowRun(chain.lease, chain.row, chain.payload, values, asking, f"{self._run_id}-{chain.row}-0")
        run.chain, run.lane = chain, self.place
        return run

    def _ok(self, run: RowRun, fields: Fields) -> StepEnd:
        return StepEnd(run, fields, None)

    def _gave_up(self, run: RowRun, failure: Failure) -> StepEnd:
        return StepEnd(run, None, self._told(run, failure))


class Chains:
    """All rows that a worker has begun. ``executors``: of each step."""

    def __init__(self, job: Job, executors: list[StepExecutor]) -> None:
        self.chain: Chain = chain_of(job)
        self._executors = executors
        self.open: dict[int, RowChain] = {}
        self.lines: list[StepLine] = []  # to be told
        self.line_bytes = 0  # of their results
        answers = self.chain.answers
        self._recorder = Recorder(
            batch=False, meta=job.meta, error_chars_max=job.limits.error_chars_max, answers=answers
        )
        self._nothing: Fields = dict.fromkeys(answers)
        self._kept = [place for place, stage in enumerate(self.chain.stages) if stage.keep]
        # A function that is all there is costs nothing to call again, and its result is the row's outcome.
        self._is_one_call = len(self.chain.stages) == 1 and self.chain.stages[0].is_call

    def begin(
        self, lease: int, line: RowLine, done: Iterable[StepLine] = ()
    ) -> tuple[list[RowRun], OutcomeLine | None]:
        """Calls to be made for a row now, and its outcome where there is none to be made.

        ``done``: its steps that were finished before.
        """
        row, number, payload = line
        try:
            values = decode_row(payload)
        except RowError as error:
            failure = Failure(error.kind, f"line {number}: {error.message}")
            empty = RowChain(lease, row, payload, {}, Progress(self.chain.shape))
            return [], self._outcome(empty, failure, None)
        chain = RowChain(lease, row, payload, values, Progress(self.chain.shape))
        for step in done:
            fields = decode_json(step.data)
            assert isinstance(fields, dict)  # it was committed as such, and is under a checksum
            chain.results[step.step] = fields
            chain.progress.finish(step.step)
            chain.count_earlier(step)
        self.open[row] = chain
        return self._go_on(chain)

    def ended(self, end: StepEnd) -> tuple[list[RowRun], OutcomeLine | None]:
        """A step has ended: what is to be called next, and the row's outcome where that was the last of it."""
        run, failure = end.run, end.failure
        chain, place = run.chain, run.lane
        assert isinstance(chain, RowChain)
        chain.count(run)
        if failure is None:
            assert end.fields is not None
            chain.results[place] = end.fields
            chain.progress.finish(place)
            if not self._is_one_call:
                self._tell(chain, run, True, _encoded(end.fields))
        if failure is not None:
            chain.failures[place] = failure
            chain.progress.fail(place)
            if failure.trace:
                told = {"kind": failure.kind, "message": failure.message, "traceback": failure.trace}
                self._tell(chain, run, False, encode_values(told))
        return self._go_on(chain)

    def take_back(self, run: RowRun) -> RowChain:
        """A call is not made now after all; its row, which has to be given back once nothing of it runs."""
        chain = run.chain
        assert isinstance(chain, RowChain)
        chain.count(run)
        chain.progress.running &= ~(1 << run.lane)
        return chain

    def forget(self, row: int) -> None:
        """The row is given back."""
        self.open.pop(row, None)

    def take_lines(self) -> list[StepLine]:
        """What has ended since this was last asked."""
        lines, self.lines, self.line_bytes = self.lines, [], 0
        return lines

    # --- how ----------------------------------------------------------------------------------------------

    def _go_on(self, chain: RowChain) -> tuple[list[RowRun], OutcomeLine | None]:
        progress, runs = chain.progress, []
        while (place := progress.ready(chain.values)) is not None:
            stage = self.chain.stages[place]
            try:
                if stage.condition is not None and not stage.condition.holds(
                    self._view(chain, place, absent)
                ):
                    progress.spare(place)
                    continue
                values = self._view(chain, place, _null if stage.is_call else absent)
                if stage.take:
                    values = self._taken(stage.take, values, stage.is_call)
                run = self._executors[place].ask(chain, values)
            except RowError as error:
                chain.failures[place] = Failure(error.kind, error.message)
                progress.fail(place)
                continue
            progress.begin(place)
            runs.append(run)
        if not progress.is_over:
            return runs, None
        self.open.pop(chain.row, None)
        if not chain.failures:
            return runs, self._outcome(chain, None, None)
        place = min(chain.failures)
        return runs, self._outcome(chain, chain.failures[place], self.chain.stages[place].name)

    def _view(self, chain: RowChain, place: int, stand_in: Callable[[str], Any]) -> Fields:
        """The row as a step sees it, with stand-ins for results of spared steps that it would look at."""
        values = dict(chain.values)
        if chain.progress.spared:
            looked_at = self.chain.shape.links[place].tests
            for earlier in range(place):
                if chain.progress.spared >> earlier & 1:
                    for column in looked_at.intersection(self.chain.stages[earlier].step.answer_columns):
                        values.setdefault(column, stand_in(column))
        for earlier in range(place):
            fields = chain.results.get(earlier)
            if fields is not None:
                values.update(fields)
        return values

    @staticmethod
    def _taken(take: tuple[tuple[str, str], ...], values: Fields, only: bool) -> Fields:
        for _, source in take:
            if source not in values:
                raise RowError(ErrorKind.BAD_INPUT, f"the row has no column {source!r}, which the step takes")
        taken = {name: values[source] for name, source in take}
        return taken if only else {**values, **taken}

    def _tell(self, chain: RowChain, run: RowRun, ok: bool, data: bytes) -> None:
        # A function's calls are no requests: they count for the row's own record alone.
        requests, calls = (0, run.sent) if self.chain.stages[run.lane].is_call else (run.sent, 0)
        sent, tokens_in, tokens_out = chain.lined
        chain.lined = (sent + run.sent, tokens_in + run.tokens_in, tokens_out + run.tokens_out)
        self.lines.append(
            StepLine(
                chain.row,
                chain.lease,
                run.lane,
                ok,
                data,
                requests,
                run.tokens_in,
                run.tokens_out,
                calls,
                run.latency_ms,
                run.model,
            )
        )
        self.line_bytes += len(data)

    def _outcome(self, chain: RowChain, failure: Failure | None, step: str | None) -> OutcomeLine:
        fields, results = self._nothing.copy(), chain.results
        for place in self._kept:
            if place in results:
                fields.update(results[place])
        meta: dict[str, Any] = {
            "attempts": chain.sent, "latency_ms": chain.latency_ms, "tokens_in": chain.tokens_in,
            "tokens_out": chain.tokens_out, "model": chain.model,
        }  # fmt: skip
        if failure is None:
            kind, record = "", self._recorder.ok(chain.payload, chain.values, fields, **meta)
        else:
            message = f"step {step}: {failure.message}" if step else failure.message
            values = chain.values if step else None
            kind = failure.kind
            record = self._recorder.failed(chain.payload, values, kind, message, fields=fields, **meta)
        # What steps were told with is counted already; functions that were not told of are no requests.
        sent, tokens_in, tokens_out = chain.lined
        requests = 0 if self._is_one_call else chain.sent - sent
        return OutcomeLine(
            chain.row, chain.lease, failure is None, kind, record, requests, chain.last_ms, chain.tokens_in - tokens_in,
            chain.tokens_out - tokens_out, chain.sent_s, min(chain.failures, default=0),
        )  # fmt: skip


def _null(column: str) -> None:
    """What a function is given in a column that a spared step would have given."""


def _encoded(fields: Fields) -> bytes:
    try:
        return encode_values(fields)
    except UnicodeEncodeError:
        return encode_values(_replaced(fields))  # half of a surrogate pair: no text that could be kept


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_replaced(name): _replaced(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replaced(one) for one in value]
    return value
