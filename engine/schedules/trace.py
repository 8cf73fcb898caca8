"""Requests at the moments of a recording, at its own pace or faster or slower."""

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise

from engine.core.errors import UsageError
from engine.schedules.base import Schedule

OFFSETS_MAX = 10_000_000


class Trace:
    """Request k is due at the k-th offset, divided by the speed; the rate's pieces do not matter.

    Owner: index modulo workers. Bounds: ``OFFSETS_MAX`` offsets, which every worker holds (8 bytes and a
    float each).
    """

    def __init__(self, schedule: Schedule) -> None:
        """Raises UsageError for no offsets, too many, ones that go back, or a speed that is not above 0."""
        offsets_s = schedule.offsets_s
        if not offsets_s:
            raise UsageError("The trace has no requests.")
        if len(offsets_s) > OFFSETS_MAX:
            raise UsageError(
                f"The trace has {len(offsets_s):,} requests; at most {OFFSETS_MAX:,} can be replayed."
            )
        if not 0 < schedule.speed < math.inf:
            raise UsageError(
                f"A trace cannot be replayed at a speed of {schedule.speed:g}. Give one above 0."
            )
        if not (
            offsets_s[0] >= 0 and offsets_s[-1] < math.inf and all(a <= b for a, b in pairwise(offsets_s))
        ):
            raise UsageError("The trace's offsets must be seconds from 0 on, in ascending order.")
        self._schedule = schedule

    def numbered(self, worker: int, workers: int) -> Iterator[tuple[int, float]]:
        schedule = self._schedule
        offsets_s, speed, end_s = schedule.offsets_s, schedule.speed, schedule.end_s
        length = len(offsets_s) if schedule.requests is None else min(schedule.requests, len(offsets_s))
        for index in range(worker, length, workers):
            at_s = offsets_s[index] / speed
            if at_s >= end_s:
                return
            yield index, at_s

    def length_s(self) -> float:
        schedule = self._schedule
        length = len(schedule.offsets_s) if schedule.requests is None else schedule.requests
        last = min(length, len(schedule.offsets_s)) - 1
        return min(schedule.end_s, schedule.offsets_s[last] / schedule.speed)


def from_stamps(stamps_s: Iterable[float]) -> tuple[float, ...]:
    """Offsets of a recording whose stamps count from anywhere and in any order: the earliest becomes 0."""
    ordered = sorted(stamps_s)
    return tuple(stamp - ordered[0] for stamp in ordered)
