"""Rows that workers died with once too often: they are given up, with what there is of them.

Rules of this file:
1. A row that is given up keeps the results of its finished steps. They are looked up after whatever its worker told of
   them is durable; until its outcome is handed on it is open (``Poison.open``), and the run is not over.
"""

from functools import partial
from typing import Any

from engine.config import Job
from engine.coordinator.blame import why_given_up
from engine.coordinator.commits import Commits, FailedRow, Figures
from engine.coordinator.stepbook import StepBook
from engine.core.errors import ErrorKind
from engine.core.ledger import LedgerRow, Lost
from engine.formats.rows import decode_json
from engine.wire.messages import StepLine


class Poison:
    """The rows of one run that are given up. ``answers``: the output's answer columns."""

    def __init__(self, job: Job, answers: tuple[str, ...], *, commits: Commits, steps: StepBook) -> None:
        self._job = job
        self._answers = answers
        self._commits = commits
        self._steps = steps
        self._under_way: dict[int, list[int]] = {}  # of rows on trial, by their number
        self.open = 0  # rows that are being given up

    def tried(self, row: int, steps: list[int]) -> None:
        """Its worker has told which steps of a row on trial are under way from now on; places in the job."""
        self._under_way[row] = [step for step in steps if 0 <= step < len(self._job.steps)]

    def lost(self, lost: Lost, *, was_silent: bool) -> None:
        """A worker has died: its rows are in doubt, and those that are poison have their outcome.

        ``was_silent``: it was killed because it said nothing any more.
        """
        in_doubt = len(lost.requeued) + len(lost.poisoned)
        for row in lost.requeued:
            self._under_way.pop(row, None)
        if not (self._job.steps and lost.poisoned):
            self._commits.failed(
                [self._failed(row, [], was_silent) for row in lost.poisoned], in_doubt=in_doubt
            )
            return
        self.open += len(lost.poisoned)
        give_up = partial(self._give_up, lost.poisoned, was_silent)
        self._commits.lost(in_doubt, partial(self._steps.find, lost.poisoned, give_up))

    def _give_up(self, rows: list[LedgerRow], was_silent: bool, done: list[StepLine]) -> None:
        self.open -= len(rows)
        self._commits.failed(
            [self._failed(row, [one for one in done if one.row == row.row], was_silent) for row in rows]
        )

    def _failed(self, row: LedgerRow, done: list[StepLine], was_silent: bool) -> FailedRow:
        done.sort(key=lambda one: one.step)
        says = why_given_up(
            self._job,
            row.deaths,
            was_silent=was_silent,
            under_way=self._under_way.pop(row.row, ()),
            finished=[one.step for one in done],
        )
        fields: dict[str, Any] = dict.fromkeys(self._answers)
        for one in done:
            if self._job.steps[one.step].keep:
                fields.update(decode_json(one.data))
        figures = Figures(
            sum(one.attempts + one.calls for one in done),
            sum(one.latency_ms for one in done),
            sum(one.tokens_in for one in done),
            sum(one.tokens_out for one in done),
            next((one.model for one in reversed(done) if one.model), ""),
        )
        return FailedRow(row.row, row.digest, row.payload, ErrorKind.POISON, says, True, fields, figures)
