"""``--find-max`` on a crew: each probe is a test of the same workers at another rate.

Rules of this file:
1. What comes next, and what a probe shows, is decided in ``findmax`` and ``watching``; here they are only told.
"""

import asyncio
import time
from dataclasses import replace
from typing import Any, Final

from engine.core.measuring import Measures
from engine.loadtest.conduct import Conductor, at_rate, intended_by
from engine.loadtest.findmax import Found, find_max
from engine.loadtest.live import Moment
from engine.loadtest.model import LoadPlan, Tested
from engine.loadtest.plan import Planned
from engine.loadtest.resting import Rest, Trial
from engine.loadtest.results import results_of
from engine.loadtest.watching import Beat, Watch

PROBE_REQUESTS_MIN: Final = (
    100  # of fewer a probe says little: ten may well go right where one in twenty fails
)
LOOK_EVERY_S: Final = 0.1  # for a signal, while the endpoint rests


async def search(lead: Conductor, planned: Planned) -> tuple[dict[str, Any], LoadPlan, Tested]:
    """Find the highest rate that holds. The results are those of the best probe, with ``find_max`` in them."""
    tests: list[tuple[dict[str, Any], LoadPlan, Tested]] = []

    async def probe(rate: float, watch: Watch) -> Trial:
        plan = at_rate(planned.plan, rate)
        beats = _Beats(lead, plan, watch)
        tested = await lead.test(plan, beats.look)
        results = results_of(plan, tested)
        tests.append((results, plan, tested))
        return Trial(results, tuple(tested.faults))

    async def canary(rate: float, lasts_s: float, ended_s: float) -> Trial:
        def look(moment: Moment, measures: Measures) -> None:
            if moment.since_s >= ended_s:
                lead.halt()

        plan = _shortened(at_rate(planned.plan, rate), lasts_s)
        tested = await lead.test(plan, look)
        return Trial(results_of(plan, tested), tuple(tested.faults))

    async def pause(seconds: float) -> None:
        """Ends early at a signal: the test that comes next is ended before its first request then, and says so."""
        until = time.monotonic() + seconds
        while not lead.is_interrupted and (left_s := until - time.monotonic()) > 0:
            await asyncio.sleep(min(LOOK_EVERY_S, left_s))

    plan = planned.plan
    assert plan.duration_s is not None
    found: Found = await find_max(
        probe,
        plan.objectives,
        start=planned.search_from,
        rate_min=PROBE_REQUESTS_MIN / (plan.duration_s - plan.warmup_s),
        note=lead.note,
        rest=Rest(pause, canary),
    )
    _, plan, tested = next((one for one in tests if one[0] is found.best), tests[-1])
    return found.to_results(), plan, tested


def _shortened(plan: LoadPlan, lasts_s: float) -> LoadPlan:
    """The same test, over so soon, and without a warm-up."""
    assert plan.schedule is not None
    return replace(
        plan, schedule=replace(plan.schedule, duration_s=lasts_s), duration_s=lasts_s, warmup_s=0.0
    )


class _Beats:
    """Tells a watch once a second how its probe stands, and ends the probe when it says so."""

    def __init__(self, lead: Conductor, plan: LoadPlan, watch: Watch) -> None:
        self._lead, self._plan, self._watch = lead, plan, watch
        self._second = 0

    def look(self, moment: Moment, measures: Measures) -> None:
        since_s = moment.since_s - self._plan.warmup_s
        if since_s < self._second + 1 or self._watch.stopped is not None:
            return
        self._second = int(since_s)
        counts, plan = measures.counts, self._plan
        assert plan.duration_s is not None
        beat = Beat(
            at_s=since_s,
            intended=max(counts.intended, intended_by(plan, moment.since_s)),
            ended=counts.completed + counts.failed + counts.dropped,
            met=tuple(measures.met),
            in_flight=moment.in_flight,
            expected=intended_by(plan, plan.duration_s),
            failed=counts.failed + counts.dropped,
        )
        if self._watch.stop(beat) is not None:
            self._lead.halt()
