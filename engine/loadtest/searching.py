"""``--find-max`` on a crew: each probe is a test of the same workers at another rate.

Rules of this file:
1. What comes next, and what a probe shows, is decided in ``findmax`` and ``watching``; here they are only told.
"""

import asyncio
from typing import Any, Final

from engine.core.measuring import Measures
from engine.loadtest.conduct import Conductor, at_rate, intended_by
from engine.loadtest.findmax import Found, find_max
from engine.loadtest.live import Moment
from engine.loadtest.model import LoadPlan, Tested
from engine.loadtest.plan import Planned
from engine.loadtest.results import results_of
from engine.loadtest.watching import Beat, Watch

PROBE_REQUESTS_MIN: Final = (
    100  # of fewer a probe says little: ten may well go right where one in twenty fails
)
REST_S: Final = 0.5  # after a probe that failed
REST_SATURATED_S: Final = 3.0  # an endpoint that fell behind may still be at work on what it was sent


async def search(lead: Conductor, planned: Planned) -> tuple[dict[str, Any], LoadPlan, Tested]:
    """Find the highest rate that holds. The results are those of the best probe, with ``find_max`` in them."""
    tests: list[tuple[dict[str, Any], LoadPlan, Tested]] = []

    async def probe(rate: float, watch: Watch) -> dict[str, Any]:
        plan = at_rate(planned.plan, rate)
        beats = _Beats(lead, plan, watch)
        tested = await lead.test(plan, beats.look)
        results = results_of(plan, tested)
        tests.append((results, plan, tested))
        return results

    async def rest(saturated: bool) -> None:
        await asyncio.sleep(REST_SATURATED_S if saturated else REST_S)

    plan = planned.plan
    assert plan.duration_s is not None
    found: Found = await find_max(
        probe,
        plan.objectives,
        start=planned.search_from,
        rate_min=PROBE_REQUESTS_MIN / (plan.duration_s - plan.warmup_s),
        note=lead.note,
        rest=rest,
    )
    _, plan, tested = next((one for one in tests if one[0] is found.best), tests[-1])
    return found.to_results(), plan, tested


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
