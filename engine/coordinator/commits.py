"""What a session hands to the commit thread: leases, outcomes, and rows that fail without a worker.

Rules of this file:
1. Every lease that has run out of open rows is closed with the next commit, whatever that is for.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from engine.config import Job
from engine.coordinator.writer import Writer
from engine.core.commit import Commit, OutcomeRow, StepRow
from engine.core.errors import ErrorKind, RowError
from engine.core.ledger import Ledger
from engine.formats.record import Recorder, decode_row
from engine.observe.metrics import Metrics
from engine.wire.messages import OutcomeLine


class Figures(NamedTuple):
    """What the steps of a row took that were finished, for its record: they are counted with the steps."""

    attempts: int = 0
    latency_ms: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    model: str = ""


class FailedRow(NamedTuple):
    """A row that fails in the coordinator. ``is_json``: its payload may be decoded for the record."""

    row: int
    digest: int
    payload: bytes
    kind: ErrorKind
    message: str
    is_json: bool
    fields: dict[str, Any] | None = None  # what there is of its answer
    figures: Figures = Figures()


class Commits:
    """The session's way to its store. ``on_durable`` is called on the loop after every commit."""

    def __init__(
        self,
        job: Job,
        *,
        writer: Writer,
        ledger: Ledger,
        metrics: Metrics,
        answers: tuple[str, ...],
        on_durable: Callable[[], None],
    ) -> None:
        self._writer = writer
        self._ledger = ledger
        self._metrics = metrics
        self._on_durable = on_durable
        self._recorder = Recorder(
            batch=job.output_format == "openai-batch",
            meta=job.meta,
            error_chars_max=job.limits.error_chars_max,
            answers=answers,
        )

    @property
    def backlog(self) -> int:
        """What is not durable yet; 0 means that everything is."""
        return self._writer.backlog

    def opened(self, lease: int, rows: list[int], then: Callable[[], None]) -> None:
        """A lease, before it is handed out; ``then`` is called once it is durable."""
        self._writer.submit(Commit(opened=[(lease, rows)]), then)

    def lost(self, in_doubt: int, then: Callable[[], None]) -> None:
        """A worker has died; ``then`` is called once that, and whatever was told before, is durable."""
        self._writer.submit(Commit(closed=self._ledger.take_closed(), in_doubt=in_doubt), then)

    def released(self, released: list[tuple[int, list[int]]]) -> None:
        """Rows that were given back unsent, by lease."""
        self._writer.submit(Commit(released=released, closed=self._ledger.take_closed()), self._on_durable)

    def finished(self, rows: list[OutcomeRow], in_doubt: int = 0, steps: Sequence[StepRow] = ()) -> None:
        """Outcomes; ``in_doubt``: how many rows a dead worker held; ``steps`` that ended, of these and other rows."""
        self._metrics.finished(rows)
        closed = self._ledger.take_closed()
        commit = Commit(outcomes=rows, steps=steps, closed=closed, in_doubt=in_doubt)
        self._writer.submit(commit, self._on_durable)

    def failed(self, rows: list[FailedRow], in_doubt: int = 0) -> None:
        """Rows that fail here, without a worker."""
        self.finished([self._outcome_of(row) for row in rows], in_doubt)

    def settle(self) -> None:
        """The last commit of a run that stops: it closes the leases whose outcomes are not to be kept."""
        closed = self._ledger.take_closed()
        if closed:
            self._writer.submit(Commit(closed=closed), None)

    def _outcome_of(self, failed: FailedRow) -> OutcomeRow:
        values = None
        if failed.is_json:
            try:
                values = decode_row(failed.payload)
            except RowError:
                values = None
        record = self._recorder.failed(
            failed.payload,
            values,
            failed.kind,
            failed.message,
            fields=failed.fields,
            **failed.figures._asdict(),
        )
        return OutcomeRow(failed.row, False, failed.kind, failed.digest, record, 0, 0.0, 0, 0)


def outcome_row(line: OutcomeLine, digest: int) -> OutcomeRow:
    """A worker's outcome as it is committed."""
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
        line.sent_s,
    )
