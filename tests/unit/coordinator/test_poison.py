"""Rows that are given up: with the results of their finished steps, after whatever their worker told is durable."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from jobs import job

from engine.config import Job, StepPlan
from engine.coordinator.commits import FailedRow, Figures
from engine.coordinator.poison import Poison
from engine.coordinator.stepbook import Then
from engine.core.ledger import LedgerRow, Lost
from engine.wire.messages import StepLine


class FakeCommits:
    """Commits that become durable when the test says so."""

    def __init__(self) -> None:
        self.in_doubt = 0
        self.rows: list[FailedRow] = []
        self.waiting: list[Callable[[], None]] = []

    def lost(self, in_doubt: int, then: Callable[[], None]) -> None:
        self.in_doubt += in_doubt
        self.waiting.append(then)

    def failed(self, rows: list[FailedRow], in_doubt: int = 0) -> None:
        self.in_doubt += in_doubt
        self.rows += rows


class FakeBook:
    """Finished steps that are found when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], Then]] = []

    def find(self, rows: Sequence[LedgerRow], then: Then) -> None:
        self.asked.append(([row.row for row in rows], then))


class Stage:
    def __init__(self, whole: Job) -> None:
        self.commits, self.book = FakeCommits(), FakeBook()
        fakes: dict[str, Any] = {"commits": self.commits, "steps": self.book}
        self.poison = Poison(whole, ("a", "c"), **fakes)

    def die(self, poisoned: Sequence[int], requeued: Sequence[int] = (), *, was_silent: bool = False) -> None:
        rows = [LedgerRow(row, row + 1, b'{"x":1}', 7, deaths=3) for row in poisoned]
        self.poison.lost(Lost(list(requeued), rows), was_silent=was_silent)


def three_steps() -> Job:
    plain = job()
    plans = [StepPlan(name, plain.step, plain.target) for name in "abc"]
    return replace(plain, steps=(plans[0], replace(plans[1], keep=False), plans[2]))


def done(row: int, step: int, data: bytes, model: str = "") -> StepLine:
    return StepLine(row, 0, step, True, data, 2, 30, 4, 1, 10.5, model)


def test_what_was_finished_of_a_row_is_looked_up_once_all_that_was_told_is_durable() -> None:
    stage = Stage(three_steps())
    stage.die([4], requeued=[5, 6])
    assert (stage.commits.in_doubt, stage.book.asked, stage.poison.open) == (3, [], 1)
    stage.commits.waiting.pop()()
    ((rows, then),) = stage.book.asked
    assert (rows, stage.commits.rows, stage.poison.open) == ([4], [], 1), "the run is not over yet"
    then([done(4, 1, b'{"b":2}', "small"), done(4, 0, b'{"a":1}', "large")])
    assert (stage.poison.open, stage.commits.in_doubt) == (0, 3)
    (failed,) = stage.commits.rows
    assert failed.fields == {"a": 1, "c": None}, "of the steps whose results are kept"
    assert failed.figures == Figures(6, 21.0, 60, 8, "small")
    assert failed.message == "in flight at 3 worker deaths, after steps a and b had finished"


def test_the_steps_under_way_are_those_that_were_told_since_the_death_before() -> None:
    stage = Stage(three_steps())
    for row in (4, 5):
        stage.poison.tried(row, [1, 99])
    stage.die([], requeued=[5])
    for row in (4, 5):
        stage.die([row])
        stage.commits.waiting.pop()()
        stage.book.asked.pop()[1]([])
    assert [failed.message for failed in stage.commits.rows] == [
        "step b: in flight at 3 worker deaths",
        "in flight at 3 worker deaths, with no step known to have finished",
    ]


def test_each_of_several_rows_has_its_own_results() -> None:
    stage = Stage(three_steps())
    stage.die([4, 5])
    stage.commits.waiting.pop()()
    stage.book.asked.pop()[1]([done(5, 2, b'{"c":5}'), done(4, 2, b'{"c":4}')])
    assert [failed.fields for failed in stage.commits.rows] == [{"a": None, "c": 4}, {"a": None, "c": 5}]


def test_a_row_of_one_step_has_its_outcome_with_the_death_itself() -> None:
    stage = Stage(job())
    stage.die([4], requeued=[5], was_silent=True)
    (failed,) = stage.commits.rows
    assert (stage.commits.in_doubt, stage.commits.waiting, stage.poison.open) == (2, [], 0)
    assert failed.message == "in flight at 3 worker deaths, the last of them because it was silent"
    assert failed.figures == Figures()
