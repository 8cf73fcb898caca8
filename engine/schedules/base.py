"""What a schedule is: plain data that every worker has, and the interface of the processes behind it.

Rules of this file:
1. A schedule is handed to every worker as it is; nothing about single requests is ever sent between processes.
2. Indices count all requests of the test from 0. Every index belongs to exactly one worker, which follows
   from (seed, index, number of workers) alone.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from engine.core.errors import UsageError
from engine.schedules.profile import Piece, Profile


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a load test sends. It ends with ``requests`` or at ``duration_s``, whichever is first; or never.

    Raises UsageError for numbers that no process can follow; each process checks what is its own besides.
    """

    arrival: str = "constant"  # a name of the table
    pieces: tuple[Piece, ...] = ()  # the rate; the last one's final rate holds on
    seed: int = 0
    duration_s: float | None = None
    requests: int | None = None
    burstiness: float = 1.0  # gamma: the shape of the gaps, see its file
    offsets_s: tuple[float, ...] = ()  # trace: seconds from the start, ascending
    speed: float = 1.0  # trace: 2 replays in half the time

    def __post_init__(self) -> None:
        if self.duration_s is not None and not 0 < self.duration_s < math.inf:
            raise UsageError(f"A duration of {self.duration_s:g} s is no time to send in.")
        if self.requests is not None and self.requests < 1:
            raise UsageError(f"{self.requests} requests are none. Give at least 1.")

    @property
    def end_s(self) -> float:
        """No request is due from this moment on; infinite when only the count ends the test."""
        return math.inf if self.duration_s is None else self.duration_s


class Process(Protocol):
    """A kind of arrivals. It is made for one schedule and has no state: each walk begins at index 0."""

    def __init__(self, schedule: Schedule) -> None:
        """Raises UsageError when the schedule is not one for this process."""

    def numbered(self, worker: int, workers: int) -> Iterator[tuple[int, float]]:
        """(index, seconds from the start) of one worker's requests, both ascending, lazily."""

    def length_s(self) -> float:
        """Until when requests are expected to be due; infinite when nothing ends the schedule."""


def length_along(profile: Profile, schedule: Schedule) -> float:
    """Until when requests are due: the duration, or where the profile expects so many as are asked for."""
    if schedule.requests is None:
        return schedule.end_s
    return min(schedule.end_s, profile.time_of(schedule.requests))
