"""What is forgotten of a job of several steps before it goes again, and what is refused before anything is."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from jobs import job

from engine.cli.again import correct
from engine.config import Job, StepPlan, StepSettings
from engine.coordinator.again import again_failed, again_from
from engine.coordinator.sameness import check_same
from engine.core.commit import Commit, OutcomeRow, StepRow
from engine.core.errors import UsageError
from engine.store import Store

PROMPTS = {"a": "A {{ text }}", "b": "B {{ text }}", "c": "C {{ b }}"}


def steps_job() -> Job:
    plain = job()
    plans = [
        StepPlan(name, StepSettings(prompt=prompt, into=name), plain.target)
        for name, prompt in PROMPTS.items()
    ]
    return replace(plain, steps=tuple(plans))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A run of two rows that ended: the second failed after all its steps but one."""
    with Store.open(tmp_path / "run", durability="os") as opened:
        check_same(steps_job(), opened)
        opened.step_numbers(list(PROMPTS))
        outcomes = [
            OutcomeRow(row, not row, "timeout" if row else "", 1, b"{}", 1, 1.0, 1, 1) for row in (0, 1)
        ]
        steps = [StepRow(row, step, True, b"{}", 1, 1, 1, 1) for row in (0, 1) for step in range(3 - row)]
        opened.apply([Commit(outcomes=outcomes, steps=steps)])
        opened.finish()
        yield opened


def kept(store: Store) -> list[tuple[int, str]]:
    return [(one.row, "abc"[one.step]) for one in store.steps_of([0, 1])]


def test_a_step_that_is_corrected_is_forgotten_where_its_row_failed_with_what_needs_it(store: Store) -> None:
    again_failed(store, correct(steps_job(), ["b.prompt=better {{ text }}"]), None)
    assert kept(store) == [(0, "a"), (0, "b"), (0, "c"), (1, "a")]
    assert store.counts().ok == 1 and store.counts().failed == {}
    assert (store.identity() or {})["steps"]["b"]["step"]["prompt"] == "better {{ text }}"


def test_without_a_correction_of_a_step_failed_rows_keep_what_theirs_came_to(store: Store) -> None:
    again_failed(store, correct(steps_job(), ["b.retries=9"]), None)
    assert kept(store) == [(0, "a"), (0, "b"), (0, "c"), (1, "a"), (1, "b")]
    assert store.counts().failed == {}


def test_two_changed_steps_that_do_not_need_each_other_are_run_again_together(store: Store) -> None:
    changed = correct(steps_job(), ["a.prompt=new {{ text }}", "c.prompt=new {{ b }}"])
    for given in (["a"], ["c"]):
        with pytest.raises(UsageError, match="--from a.*[.] Nothing was sent") as refused:
            again_from(store, changed, given)
        assert "--from c" in str(refused.value)
    assert store.counts().rows == 2 and store.is_finished()
    assert again_from(store, changed, ["c", "a"])
    assert kept(store) == [(0, "b"), (1, "b")]


def test_what_is_kept_of_earlier_steps_may_differ_where_the_last_one_runs_again(store: Store) -> None:
    made = steps_job()
    dropped = replace(made, steps=(replace(made.steps[0], keep=False), *made.steps[1:]))
    assert again_from(store, dropped, ["c"])
    assert kept(store) == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]
