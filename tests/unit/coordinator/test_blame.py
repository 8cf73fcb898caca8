"""Why a row was given up and a worker fell silent, in words that help."""

import doctest

from jobs import job

from engine.config import Job, StepPlan, StepSettings
from engine.coordinator import blame
from engine.coordinator.blame import who_may_hold, why_given_up


def job_of(*functions: str, mode: str = "") -> Job:
    steps = [StepSettings(kind="call", function=name, mode=mode) for name in functions]
    return job(steps=tuple(StepPlan(f"s{n}", one, job().target) for n, one in enumerate(steps)))


def test_a_row_whose_workers_crashed_is_told_without_guesses() -> None:
    assert why_given_up(job(), 3, was_silent=False) == "in flight at 3 worker deaths"
    assert (
        why_given_up(job_of("a:f"), 3, was_silent=False, under_way=[0])
        == "step s0: in flight at 3 worker deaths"
    )
    three = job_of("a:f", "b:g", "c:h")
    says = why_given_up(three, 3, was_silent=False, under_way=[0, 1, 2], finished=[1])
    assert says == "steps s0, s1 and s2: in flight at 3 worker deaths"


def test_where_nobody_told_what_was_under_way_it_is_said_what_had_finished() -> None:
    two = job_of("a:f", "b:g")
    says = "in flight at 3 worker deaths, "
    assert why_given_up(two, 3, was_silent=False) == f"{says}with no step known to have finished"
    assert why_given_up(two, 3, was_silent=False, finished=[1]) == f"{says}after step s1 had finished"
    assert (
        why_given_up(two, 3, was_silent=False, finished=[0, 1]) == f"{says}after steps s0 and s1 had finished"
    )


def test_a_row_whose_worker_fell_silent_is_told_with_the_functions_that_may_have_held_it() -> None:
    says = why_given_up(job_of("a:f", "b:g", "a:f"), 4, was_silent=True, finished=[1])
    assert says == (
        "in flight at 4 worker deaths, the last of them because it was silent, after step s1 had finished. "
        "A function that holds the interpreter does "
        'that: if it was a:f or b:g, give its step mode = "process" (in Python mode="process"), which keeps it in a process '
        "of its own"
    )
    silent = "in flight at 3 worker deaths, the last of them because it was silent"
    assert why_given_up(job(), 3, was_silent=True) == silent
    assert (
        why_given_up(job_of("a:f", mode="process"), 3, was_silent=True, under_way=[0]) == f"step s0: {silent}"
    )


def test_of_the_functions_only_those_that_were_under_way_are_named_where_that_is_known() -> None:
    two = job_of("a:f", "b:g")
    assert "if it was b:g," in who_may_hold(two, [1])
    assert "if it was a:f or b:g," in who_may_hold(two)


def test_a_function_is_shown_as_its_author_knows_it() -> None:
    assert doctest.testmod(blame).failed == 0
