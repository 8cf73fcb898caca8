"""Requests that know nothing of each other: a Poisson process whose rate follows the profile."""

import math
from collections.abc import Iterator
from random import Random

from engine.schedules.base import Schedule, length_along
from engine.schedules.profile import Profile

# What a seed is drawn through, so that two processes of one test do not share their numbers.
SALT = "poisson"


class Poisson:
    """Gaps are exponential; each request falls to a worker by a mark of its own, drawn with its gap.

    Guarantee: the requests of all workers together are the same ones for any number of workers, and each
    worker's are a Poisson process of their own, independent of the others' (independent thinning; Kingman,
    Poisson Processes, 1993, chapter 5.1). Every worker walks the whole process and keeps its part.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._profile = Profile(schedule.pieces)

    def numbered(self, worker: int, workers: int) -> Iterator[tuple[int, float]]:
        return self._profile.times(self._owned(worker, workers))

    def length_s(self) -> float:
        return length_along(self._profile, self._schedule)

    def _owned(self, worker: int, workers: int) -> Iterator[tuple[int, float]]:
        schedule = self._schedule
        draw = Random(f"{SALT} {schedule.seed}").random
        log = math.log
        end = self._profile.expected(schedule.end_s)
        requests = math.inf if schedule.requests is None else schedule.requests
        index, due = 0, 0.0
        while index < requests:
            due -= log(1.0 - draw())
            mark = int(draw() * workers)
            if due >= end:
                return
            if mark == worker:
                yield index, due
            index += 1
