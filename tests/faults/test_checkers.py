"""The checkers themselves: each one finds what it is there for, and is silent about a run that went well."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from history import History, leftovers, row_name

from engine.mock.answers import expected_answer

PROMPTS = [f"row {number} says hello" for number in range(4)]


def logged(row: int, at_s: float = 0.0, *, status: int = 200, full: bool = True) -> dict[str, Any]:
    return {"row": row_name(PROMPTS[row]), "at_s": at_s, "status": status, "full": full}


def record(row: int, answer_to: int | None = None) -> dict[str, Any]:
    answer = expected_answer(PROMPTS[row if answer_to is None else answer_to])
    return {"id": row, "_status": "ok", "response": answer}


def good() -> History:
    """Four rows, each asked and answered once."""
    return History(
        prompts=PROMPTS,
        log=[logged(row, row / 10) for row in range(4)],
        requests=4,
        output=[record(row) for row in range(4)],
        kept=dict.fromkeys(range(4), True),
        attempts=4,
        rows_of={row_name(prompt): row for row, prompt in enumerate(PROMPTS)},
    )


def without_output(history: History) -> None:
    history.output = None


def with_a_missing_record(history: History) -> None:
    assert history.output
    history.output.pop()


def with_a_row_twice(history: History) -> None:
    assert history.output
    history.output[3] = record(2)


def with_a_row_of_nobody(history: History) -> None:
    assert history.output
    history.output.append({"id": 99, "_status": "failed", "_error": "poison: three deaths"})


def with_two_rows_changed_over(history: History) -> None:
    assert history.output
    history.output[0], history.output[1] = history.output[1], history.output[0]


def with_another_rows_answer(history: History) -> None:
    assert history.output
    history.output[2] = record(2, answer_to=1)


def with_an_answer_nobody_gave(history: History) -> None:
    history.log[1] = logged(1, 0.1, full=False)


def with_a_row_paid_twice(history: History) -> None:
    history.log.append(logged(1, 0.9))
    history.requests, history.attempts = 5, 5


def with_a_request_nobody_counts(history: History) -> None:
    history.requests = 5


def with_a_row_that_failed(history: History) -> None:
    assert history.output
    history.output[1] = {"id": 1, "_status": "failed", "_error": "timeout: no reply"}


def with_a_done_row_gone(history: History) -> None:
    del history.kept[3]


BROKEN: dict[Callable[[History], None], set[str]] = {
    without_output: {"unaccounted"},
    with_a_missing_record: {"unaccounted"},
    with_a_row_twice: {"unaccounted", "duplicated", "out_of_order"},
    with_a_row_of_nobody: {"unaccounted", "out_of_order"},
    with_two_rows_changed_over: {"out_of_order"},
    with_another_rows_answer: {"wrong_bodies"},
    with_an_answer_nobody_gave: {"unexpected"},
    with_a_row_paid_twice: {"repeated_beyond_doubt"},
    with_a_request_nobody_counts: {"unrecorded_attempts"},
    with_a_done_row_gone: {"lost"},
    with_a_row_that_failed: {"failed"},
}


def test_a_run_that_went_well_has_no_faults() -> None:
    history = good()
    assert history.faults(acknowledged=range(4)) == {}
    assert history.windows_over(4) == []


@pytest.mark.parametrize("breaks", BROKEN)
def test_each_checker_finds_its_fault(breaks: Callable[[History], None]) -> None:
    history = good()
    breaks(history)
    assert history.faults(acknowledged=range(4)).keys() == BROKEN[breaks]


def test_an_attempt_that_the_server_never_saw_is_found() -> None:
    history = good()
    assert history.attempts_beyond_requests() == 0
    history.attempts = 5
    assert history.attempts_beyond_requests() == 1


def test_what_is_in_doubt_may_be_repeated_and_uncounted_and_no_more() -> None:
    history = good()
    with_a_row_paid_twice(history)
    history.attempts, history.in_doubt = 4, 1
    assert history.faults() == {}
    history.log.append(logged(2, 1.0))
    history.requests += 1
    assert history.faults() == {"repeated_beyond_doubt": 1, "unrecorded_attempts": 1}


def test_a_row_that_was_done_after_a_call_of_unknown_fate_is_recovered() -> None:
    history = good()
    history.log.append(logged(1, status=0, full=False))
    assert history.recovered() == {1}


def test_a_window_over_the_limit_is_found_wherever_it_begins() -> None:
    history = good()
    history.log = [logged(0, at) for at in (0.0, 30.0, 59.0, 60.0, 61.0, 150.0)]
    assert history.windows_over(3) == [30.0]
    assert history.windows_over(2) == [0.0, 30.0, 59.0]


def test_leftovers_are_found(tmp_path: Path, limiter_dir: Path) -> None:
    output = tmp_path / "out.jsonl"
    state = Path(f"{output}.run")
    state.mkdir()
    (state / "store.db").touch()
    output.touch()
    assert leftovers(output, limiter_dir, [os.getpid()]) == []
    (state / "store.db-wal").touch()
    (tmp_path / ".out.jsonl.new").touch()
    (limiter_dir / "info.json").touch()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        found = " ".join(leftovers(output, limiter_dir, [os.getpid()]))
        process.communicate(b"\n")
    for name in ("store.db-wal", ".out.jsonl.new", "info.json", f"pid={process.pid}"):
        assert name in found
