"""The checkers of steps: each one finds what it is there for, and is silent about a job that went well."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from history import row_name
from stephistory import (
    ASKED,
    STEPS,
    Look,
    StepHistory,
    calls_in,
    kept_steps,
    places_of,
    questions,
    results,
)

from engine.core.commit import StepRow
from engine.store import Commit, Store

PROMPTS = [f"row {number} says hello" for number in range(3)]


def logged(row: int, step: str, at_s: float = 0.0, *, status: int = 200, full: bool = True) -> dict[str, Any]:
    return {"row": row_name(questions(row, PROMPTS[row])[step]), "at_s": at_s, "status": status, "full": full}


def good() -> StepHistory:
    """Three rows, each step asked and answered once; two looks on the way."""
    log = [logged(row, step, row + at / 10) for row in range(3) for at, step in enumerate(ASKED)]
    own = {row: results(row, PROMPTS[row]) for row in range(3)}
    first = {(0, step): 1 for step in STEPS}
    history = StepHistory(
        prompts=PROMPTS,
        log=log,
        requests=len(log),
        output=[{"id": row, **own[row], "_status": "ok"} for row in range(3)],
        kept=dict.fromkeys(range(3), True),
        attempts=len(log),
        called=Counter({(row, "marked"): 1 for row in range(3)}),
        places=places_of(PROMPTS),
        kept_steps={(row, step): own[row][step] for row in range(3) for step in STEPS},
    )
    history.looks = [Look(frozenset(first), {**first, (1, "draft"): 1})]
    return history


def with_a_durable_step_asked_again(history: StepHistory) -> None:
    history.log.append(logged(0, "final", 5.0))
    history.requests = history.attempts = 10
    history.in_doubt = 1


def with_a_durable_function_called_again(history: StepHistory) -> None:
    history.called[0, "marked"] += 1
    history.in_doubt = 1


def with_a_durable_step_begun_again_and_not_answered(history: StepHistory) -> None:
    history.log.append(logged(0, "tone", 5.0, status=0, full=False))
    history.requests = history.attempts = 10


def with_a_step_paid_twice(history: StepHistory) -> None:
    history.log.append(logged(2, "draft", 5.0))
    history.requests = history.attempts = 10


def with_a_function_called_twice(history: StepHistory) -> None:
    history.called[2, "marked"] += 1


def with_one_step_paid_three_times_for_one_doubt(history: StepHistory) -> None:
    history.log += [logged(2, "draft", 5.0), logged(2, "draft", 6.0)]
    history.requests = history.attempts = 11
    history.in_doubt = 1


def with_a_step_nobody_asked(history: StepHistory) -> None:
    history.log = [one for one in history.log if one["row"] != logged(1, "final")["row"]]
    history.requests = history.attempts = 8


def with_a_step_that_was_not_answered_whole(history: StepHistory) -> None:
    at = history.log.index(logged(1, "tone", 1.2))
    history.log[at]["full"] = False


def with_a_function_nobody_called(history: StepHistory) -> None:
    del history.called[1, "marked"]


def with_a_prompt_made_of_two_rows(history: StepHistory) -> None:
    asked = f"final of {results(1, PROMPTS[2])['marked']}"
    history.log.append({"row": row_name(asked), "at_s": 5.0, "status": 200, "full": True})
    history.requests = history.attempts = 10


def with_another_steps_result(history: StepHistory) -> None:
    assert history.output
    history.output[1]["tone"] = history.output[1]["draft"]


def with_another_rows_result(history: StepHistory) -> None:
    assert history.output
    history.output[1]["final"] = history.output[2]["final"]


def with_another_rows_result_in_the_store(history: StepHistory) -> None:
    history.kept_steps[1, "final"] = history.kept_steps[2, "final"]


def with_a_durable_step_gone(history: StepHistory) -> None:
    history.kept[0] = False
    del history.kept_steps[0, "draft"]


def with_a_step_of_a_row_that_is_ok_not_kept(history: StepHistory) -> None:
    del history.kept_steps[2, "tone"]


def with_two_rows_changed_over(history: StepHistory) -> None:
    assert history.output
    history.output[0], history.output[1] = history.output[1], history.output[0]


def with_a_row_missing(history: StepHistory) -> None:
    assert history.output
    history.output.pop()


def with_requests_nobody_counts(history: StepHistory) -> None:
    history.requests += 4
    history.in_doubt = 1


MIXED = {"wrong_results", "wrong_bodies"}
UNASKED = {"never_begun", "unexpected"}
BROKEN: dict[Callable[[StepHistory], None], set[str]] = {
    with_a_durable_step_asked_again: {"begun_again"},
    with_a_durable_function_called_again: {"begun_again"},
    with_a_durable_step_begun_again_and_not_answered: {"begun_again"},
    with_a_step_paid_twice: {"repeated_beyond_doubt"},
    with_a_function_called_twice: {"repeated_beyond_doubt"},
    with_one_step_paid_three_times_for_one_doubt: {"repeated_beyond_doubt"},
    with_a_step_nobody_asked: UNASKED,
    with_a_step_that_was_not_answered_whole: UNASKED,
    with_a_function_nobody_called: UNASKED,
    with_a_prompt_made_of_two_rows: {"nobodys_prompts"},
    with_another_steps_result: MIXED,
    with_another_rows_result: MIXED,
    with_another_rows_result_in_the_store: MIXED,
    with_a_durable_step_gone: {"lost_steps"},
    with_a_step_of_a_row_that_is_ok_not_kept: {"lost_steps"},
    with_two_rows_changed_over: {"out_of_order"},
    with_a_row_missing: {"unaccounted"},
    with_requests_nobody_counts: {"unrecorded_attempts"},
}


def test_a_job_that_went_well_has_no_faults() -> None:
    history = good()
    assert history.faults(acknowledged=range(3)) == {}
    assert (history.repeated(), history.repeated_steps(), history.attempts_beyond_requests()) == (0, 0, 0)


@pytest.mark.parametrize("breaks", BROKEN)
def test_each_checker_of_steps_finds_its_fault(breaks: Callable[[StepHistory], None]) -> None:
    history = good()
    breaks(history)
    assert history.faults(acknowledged=range(3)).keys() == BROKEN[breaks]


def test_a_row_in_doubt_may_have_each_of_its_steps_repeated_once() -> None:
    history = good()
    history.log += [logged(2, step, 5.0) for step in ASKED]
    history.called[2, "marked"] += 1
    history.requests = 12
    assert history.faults().keys() == {"repeated_beyond_doubt", "unrecorded_attempts"}
    history.in_doubt = 1
    assert history.faults() == {}
    assert (history.repeated(), history.repeated_steps()) == (1, 4)


def test_a_row_that_was_done_after_a_call_of_unknown_fate_is_recovered() -> None:
    history = good()
    history.log.append(logged(1, "tone", 5.0, status=0, full=False))
    assert history.recovered() == {1}


def test_a_window_over_the_limit_is_one_of_a_quota_and_not_of_two() -> None:
    history = good()
    history.log = [logged(0, step, at) for at, step in ((0.0, "draft"), (1.0, "final"), (2.0, "tone"))]
    assert history.windows_over(1) == [0.0], "draft and tone share a limit, final has its own"
    assert history.windows_over(2) == []


def test_what_is_durable_is_read_from_the_store_and_calls_from_the_functions_own_file(tmp_path: Path) -> None:
    output, called = tmp_path / "out.jsonl", tmp_path / "called"
    assert kept_steps(output, 3) == {} and calls_in(called) == Counter()
    with Store.open(Path(f"{output}.run"), durability="os") as store:
        assert kept_steps(output, 3) == {}
        tone = store.step_numbers(STEPS)[3]
        kept = StepRow(2, tone, True, b'{"tone": "calm"}', 1, 0, 0, 7)
        store.apply([Commit(steps=[kept, replace_row(kept, 1)])])
        assert kept_steps(output, 3) == {(2, "tone"): "calm"}
    called.write_text("2\n0\n2\n")
    assert calls_in(called) == Counter({(2, "marked"): 2, (0, "marked"): 1})


def replace_row(step: StepRow, row: int) -> StepRow:
    """The same of another row, where it failed."""
    return step._replace(row=row, ok=False)
