"""Requests in bursts, or more even than chance: gamma-distributed gaps whose rate follows the profile."""

import math
from collections.abc import Iterator
from random import Random

from engine.core.errors import UsageError
from engine.schedules.base import Schedule, length_along
from engine.schedules.profile import Profile

SALT = "gamma"
BURSTINESS_MIN, BURSTINESS_MAX = 0.01, 10_000.0


class Gamma:
    """Gaps with a gamma distribution of mean 1 in expected requests; ``burstiness`` is its shape.

    The shape is what ``vllm bench serve --burstiness`` and aiperf's ``--arrival-smoothness`` take: the squared
    coefficient of variation of the gaps is 1 / burstiness. Below 1 requests come in bursts, 1 is a Poisson
    process, above 1 they are more even. Unlike vllm the gaps are not stretched afterwards to meet a total,
    which would take out a part of the variance that was asked for.

    Owner: index modulo workers. One worker's part is a renewal process of its own, with ``workers`` times the shape.
    """

    def __init__(self, schedule: Schedule) -> None:
        if not BURSTINESS_MIN <= schedule.burstiness <= BURSTINESS_MAX:
            raise UsageError(
                f"--burstiness {schedule.burstiness:g} must be from {BURSTINESS_MIN:g} to {BURSTINESS_MAX:g}: "
                "below 1 for bursts, above 1 for more even requests."
            )
        self._schedule = schedule
        self._profile = Profile(schedule.pieces)

    def numbered(self, worker: int, workers: int) -> Iterator[tuple[int, float]]:
        return self._profile.times(self._owned(worker, workers))

    def length_s(self) -> float:
        return length_along(self._profile, self._schedule)

    def _owned(self, worker: int, workers: int) -> Iterator[tuple[int, float]]:
        schedule = self._schedule
        end = self._profile.expected(schedule.end_s)
        requests = math.inf if schedule.requests is None else schedule.requests
        mine, due = worker, 0.0
        for index, gap in enumerate(gaps(Random(f"{SALT} {schedule.seed}"), schedule.burstiness)):
            due += gap
            if due >= end or index >= requests:
                return
            if index == mine:
                yield index, due
                mine += workers


def gaps(random: Random, shape: float) -> Iterator[float]:
    """Gamma-distributed numbers of mean 1, for ever; twice as fast as the standard library's from shape 1 on.

    Source: Marsaglia and Tsang, A simple method for generating gamma variables, ACM TOMS 26 (2000); normal
    numbers in pairs after Box and Muller; a shape below 1 is one more, times a power of a uniform number.
    """
    draw, log, sqrt = random.random, math.log, math.sqrt
    is_low = shape < 1
    d = (shape + 1 if is_low else shape) - 1 / 3
    c = 1 / sqrt(9 * d)
    mean_factor, power = d / shape, 1 / shape
    spare = math.nan
    while True:
        if spare == spare:
            x, spare = spare, math.nan
        else:
            radius, angle = sqrt(-2 * log(1.0 - draw())), math.tau * draw()
            x, spare = radius * math.cos(angle), radius * math.sin(angle)
        v = 1 + c * x
        if v <= 0:
            continue
        v = v * v * v
        u = 1.0 - draw()
        if u < 1 - 0.0331 * x * x * x * x or log(u) < 0.5 * x * x + d * (1 - v + log(v)):
            yield mean_factor * v * draw() ** power if is_low else mean_factor * v
