"""What may have silenced or ended a worker, in words.

Rules of this file:
1. Only what is known is said: the steps under way where the worker told of them, a function where the job has one that runs
   in the workers themselves.
"""

from collections.abc import Collection, Sequence

from engine.config import Job


def why_given_up(
    job: Job,
    deaths: int,
    *,
    was_silent: bool,
    under_way: Sequence[int] = (),
    finished: Sequence[int] = (),
) -> str:
    """Why a row is poison. ``under_way``: places of steps, where that is known; ``finished``: those with a result."""
    says = f"in flight at {deaths} worker deaths"
    if was_silent:
        says = f"{says}, the last of them because it was silent"
    if under_way:
        says = f"{_steps(job, under_way)}: {says}"
    elif job.steps:
        says = f"{says}, " + (
            f"after {_steps(job, finished)} had finished"
            if finished
            else "with no step known to have finished"
        )
    holds = who_may_hold(job, under_way) if was_silent else ""
    return f"{says}. {holds}" if holds else says


def _steps(job: Job, places: Sequence[int]) -> str:
    *others, last = (job.steps[place].name for place in places)
    return f"steps {', '.join(others)} and {last}" if others else f"step {last}"


def who_may_hold(job: Job, steps: Collection[int] = ()) -> str:
    """A sentence on the functions that can keep a worker from answering, and what to do; empty where there are none.

    ``steps``: places of those that were under way, where that is known.
    """
    inside = {
        place: plan.step.function
        for place, plan in enumerate(job.steps)
        if plan.step.kind == "call" and plan.step.mode != "process"
    }
    names = [inside[place] for place in steps if place in inside] or list(inside.values())
    if not names:
        return ""
    which = " or ".join(map(shown, dict.fromkeys(names)))
    return (
        f'A function that holds the interpreter does that: if it was {which}, give its step mode = "process" '
        '(in Python mode="process"), which keeps it in a process of its own'
    )


def shown(function: str) -> str:
    """A function as its author knows it, of the name that workers find it by.

    >>> [shown(name) for name in ("my.module:spin", "script:/a/b.py:spin", "pickled:spin-0f3a")]
    ['my.module:spin', 'spin', 'spin']
    """
    scheme, _, rest = function.partition(":")
    if scheme == "script":
        return rest.rpartition(":")[2]
    return rest.partition("-")[0] if scheme == "pickled" else function
