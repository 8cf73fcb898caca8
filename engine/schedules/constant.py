"""Evenly spaced requests: the k-th one leaves when the profile says that k were due before it."""

import math
from collections.abc import Iterator
from itertools import count

from engine.schedules.base import Schedule, length_along
from engine.schedules.profile import Profile


class Constant:
    """Request k is due at the moment the integral of the rate reaches k: the first at once, no two together.

    Guarantee: at any moment the number of requests that were due is the integral of the rate, rounded up. With
    a duration that is the exact count of the test too. Owner: index modulo workers, so that each worker's
    part is evenly spaced as well.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._profile = Profile(schedule.pieces)

    def numbered(self, worker: int, workers: int) -> Iterator[tuple[int, float]]:
        schedule, profile = self._schedule, self._profile
        due = profile.expected(schedule.end_s)
        indices: Iterator[int] | range = count(worker, workers)
        ends = [math.ceil(due)] if due < math.inf else []
        if schedule.requests is not None:
            ends.append(schedule.requests)
        if ends:
            indices = range(worker, min(ends), workers)
        return profile.times((index, index) for index in indices)

    def length_s(self) -> float:
        return length_along(self._profile, self._schedule)
