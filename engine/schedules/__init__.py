"""The schedules' table: name -> where its class is. A new kind of arrivals is one file and one line here.

A schedule is a pure function of (seed, worker, workers, index): each worker derives its own part without a
message, and the parts of all workers are one and the same process for any number of them.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import cast

from engine.core.errors import UsageError
from engine.schedules.base import Process, Schedule

ARRIVALS: dict[str, str] = {
    "constant": "engine.schedules.constant:Constant",
    "poisson": "engine.schedules.poisson:Poisson",
    "gamma": "engine.schedules.gamma:Gamma",
    "trace": "engine.schedules.trace:Trace",
}


def process_of(schedule: Schedule) -> Process:
    """The process behind a schedule. Raises UsageError for an unknown name, or numbers it cannot follow."""
    place = ARRIVALS.get(schedule.arrival)
    if place is None:
        raise UsageError(f"There is no arrival named {schedule.arrival!r}. Known: {', '.join(ARRIVALS)}.")
    module, _, attribute = place.partition(":")
    return cast(type[Process], getattr(import_module(module), attribute))(schedule)


def numbered_arrivals(schedule: Schedule, worker: int, workers: int) -> Iterator[tuple[int, float]]:
    """(index of the request in the whole test, intended seconds from the start) of one worker, ascending.

    Lazy, and of constant memory. Bounds: ``0 <= worker < workers``. Raises UsageError as ``process_of`` does.
    """
    if not 0 <= worker < workers:
        raise ValueError(f"there is no worker {worker} among {workers}")
    return process_of(schedule).numbered(worker, workers)


def arrivals(schedule: Schedule, worker: int = 0, workers: int = 1) -> Iterator[float]:
    """Intended seconds from the start of one worker's requests, ascending; as ``numbered_arrivals``."""
    return (at_s for _, at_s in numbered_arrivals(schedule, worker, workers))


def length_s(schedule: Schedule) -> float:
    """Until when requests are expected to be due: its duration, or the moment its count is expected to be reached.

    Infinite when nothing ends it. With a random process and a count alone the last request falls near it.
    """
    return process_of(schedule).length_s()
