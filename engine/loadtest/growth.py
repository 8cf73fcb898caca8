"""Whether a queue grew at the endpoint while a probe lasted, by how latency rose from second to second.

Rules of this file:
1. Pure, and of the medians of seconds alone: they stand for the requests that were intended in each.
2. ``undone_share`` is how much the latency rose, whatever the reason. ``growing_share`` is that of a rise that is
   steady: chance does not explain it, and neither does an endpoint that only fills up.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from engine.core.statistics import t_of
from engine.loadtest.reading import Results

GROWN_MIN_MS: Final = 5.0  # less is noise of the client, whatever its slope in a short probe
THIRD_S_MIN: Final = 2
STEADY_S_MIN: Final = 3  # of two seconds there is one step, and no telling how much steps differ
CONFIDENCE: Final = 0.95


class Median(NamedTuple):
    """Of the latencies of one second of the probe, counted from 0."""

    second: int
    ms: float


def undone_share(results: Results) -> float:
    """How far completions fell behind, as a share of the rate, by how latency grew over the probe; 0 for no growth.

    A request that is sent t seconds after another and takes d longer leaves a queue that was worked off at
    t / (t + d) of the rate. The first third of the seconds is held against the last.
    """
    medians = _medians(results)
    return _share(medians) if len(medians) // 3 >= THIRD_S_MIN else 0.0


def growing_share(results: Results) -> float:
    """The same of a rise that goes on and on; 0 where it may have been chance, or the endpoint filling up.

    An endpoint that holds the rate fills up for as long as one request takes (Little), and may answer more slowly
    until then: those seconds are left out. A queue that wanders without a trend is a random walk, whose drift is
    the mean of its steps: it has to be above 0 by Student's t over the steps from second to second. At an endpoint
    whose queue does not grow at all that is so in at most 2.5 % of probes, and in fewer the more is free.
    What is left out is the price: of a probe of a few latencies, or of very scattered ones, it says 0.
    """
    medians = _medians(results)
    if medians:
        filled_s = medians[0].ms / 1000
        medians = [one for one in medians if one.second >= math.floor(filled_s)]
    if len(medians) < STEADY_S_MIN or not _is_steady(medians):
        return 0.0
    return _share(medians)


def _medians(results: Results) -> list[Median]:
    return [
        Median(place, one.latency_p50_ms)
        for place, one in enumerate(results.series)
        if one.completed and one.latency_p50_ms is not None
    ]


def _is_steady(medians: Sequence[Median]) -> bool:
    steps = [(after.ms - before.ms) / (after.second - before.second) for before, after in pairwise(medians)]
    freedom = len(steps) - 1
    drift = sum(steps) / len(steps)
    variance = sum((step - drift) ** 2 for step in steps) / freedom
    # Of one degree of freedom the distribution is Cauchy's, which ``t_of`` leaves out.
    t = math.tan(math.pi * CONFIDENCE / 2) if freedom == 1 else t_of(CONFIDENCE, freedom)
    return drift > t * math.sqrt(variance / len(steps))


def _share(medians: Sequence[Median]) -> float:
    third = len(medians) // 3
    first, last = medians[:third], medians[-third:]
    grown_ms = _middle([one.ms for one in last]) - _middle([one.ms for one in first])
    between_s = _middle([one.second for one in last]) - _middle([one.second for one in first])
    if grown_ms < GROWN_MIN_MS:
        return 0.0
    grown_s = grown_ms / 1000
    return grown_s / (between_s + grown_s)


def _middle(values: Sequence[float]) -> float:
    """The median; robust against one second that stood out."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
