"""Rows that are given up with their workers: why, in words that help."""

import doctest

from jobs import job

from engine.config import Job, StepPlan, StepSettings
from engine.coordinator import poison
from engine.coordinator.poison import who_may_hold, why_given_up


def job_of(*functions: str, mode: str = "") -> Job:
    steps = [StepSettings(kind="call", function=name, mode=mode) for name in functions]
    return job(steps=tuple(StepPlan(f"s{n}", one, job().target) for n, one in enumerate(steps)))


def test_a_row_whose_workers_crashed_is_told_without_guesses() -> None:
    assert why_given_up(job_of("a:f"), 3, was_silent=False) == "in flight at 3 worker deaths"
    assert why_given_up(job(), 3, was_silent=False) == "in flight at 3 worker deaths"


def test_a_row_whose_worker_fell_silent_is_told_with_the_functions_that_may_have_held_it() -> None:
    says = why_given_up(job_of("a:f", "b:g", "a:f"), 4, was_silent=True)
    assert says == (
        "in flight at 4 worker deaths, the last of them because it was silent. A function that holds the interpreter does "
        'that: if it was a:f or b:g, give its step mode = "process" (in Python mode="process"), which keeps it in a process '
        "of its own"
    )
    for one in (job(), job_of("a:f", mode="process")):
        assert why_given_up(one, 3, was_silent=True) == (
            "in flight at 3 worker deaths, the last of them because it was silent"
        )


def test_of_the_functions_only_those_that_were_under_way_are_named_where_that_is_known() -> None:
    two = job_of("a:f", "b:g")
    assert "if it was b:g," in who_may_hold(two, [1])
    assert "if it was a:f or b:g," in who_may_hold(two)


def test_a_function_is_shown_as_its_author_knows_it() -> None:
    assert doctest.testmod(poison).failed == 0
