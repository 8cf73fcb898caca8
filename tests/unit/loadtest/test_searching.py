"""A search on a crew, played by a lead that answers each test at once."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from engine.core.errors import ExitCode
from engine.core.measuring import Measures, Timing
from engine.loadtest import model, resting, searching
from engine.loadtest.conduct import Conductor
from engine.loadtest.live import Moment
from engine.loadtest.model import LoadPlan, WorkerNotes
from engine.loadtest.plan import plan_of
from engine.loadtest.searching import search
from engine.loadtest.verdict import exit_code_of

PLANNED = plan_of(
    {
        "url": "http://127.0.0.1:9/", "find_max": True, "rate": "20", "duration": "10s", "warmup": "2s",
        "fail_if": ["error_rate>50%"],
    },
    {},
)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resting, "PAUSE_S", 0.0)
    monkeypatch.setattr(searching, "LOOK_EVERY_S", 0.0)


Look = Callable[[Moment, Measures], None]


class Lead:
    """Every request takes 10 ms up to ``capacity``, and fails above it. ``before`` is told of each test."""

    def __init__(self, capacity: float, before: "Callable[[Lead, LoadPlan], list[str]]") -> None:
        self.capacity, self.before = capacity, before
        self.plans: list[LoadPlan] = []
        self.is_interrupted = False
        self.halts = 0

    def note(self, sentence: str) -> None:
        """Nobody listens."""

    def halt(self) -> None:
        """Count it."""
        self.halts += 1

    async def test(self, plan: LoadPlan, look: Look) -> model.Tested:
        """At once."""
        assert plan.schedule is not None and plan.duration_s is not None
        assert plan.schedule.duration_s == plan.duration_s
        self.plans.append(plan)
        faults = self.before(self, plan)
        rate = plan.schedule.pieces[0].rate_from_per_s
        measures = Measures(())
        for number in range(round(rate * plan.duration_s)):
            at_s = number / rate
            error = "http_5xx" if rate > self.capacity else ""
            if at_s >= plan.warmup_s:
                at = 1_000.0 + at_s
                measures.ended(Timing(at, at, at + 0.01, end=at + 0.01), at_s, error)
        look(Moment(plan, plan.duration_s, 0, measures), measures)
        look(Moment(plan, 1_000.0, 0, measures), measures)
        return model.Tested(
            measures, [WorkerNotes(0, lasted_s=plan.duration_s)], "", plan.duration_s,
            plan.duration_s - plan.warmup_s, self.is_interrupted, faults,
        )  # fmt: skip


def searched(lead: Lead) -> tuple[dict[str, Any], LoadPlan, model.Tested]:
    return asyncio.run(search(cast(Conductor, lead), PLANNED))


def is_canary(plan: LoadPlan) -> bool:
    return plan.duration_s != PLANNED.plan.duration_s


def test_a_canary_is_a_short_test_without_a_warm_up_that_is_ended_and_never_the_answer() -> None:
    lead = Lead(25.0, lambda lead, plan: [])
    results, plan, _ = searched(lead)
    canaries = [one for one in lead.plans if is_canary(one)]
    assert canaries and all((one.duration_s, one.warmup_s) == (2.5, 0.0) for one in canaries)
    assert lead.halts >= len(canaries)
    assert results["asked_rate"] == results["find_max"]["rate"] == pytest.approx(25.0, rel=0.06)
    assert not is_canary(plan) and exit_code_of(results) is ExitCode.OK


def test_a_signal_in_a_rest_ends_it_and_the_search_with_what_had_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resting, "PAUSE_S", 1e6)  # nobody waits for that

    def before(lead: Lead, plan: LoadPlan) -> list[str]:
        if len(lead.plans) == 2:
            asyncio.get_running_loop().call_soon(setattr, lead, "is_interrupted", True)
        return []

    lead = Lead(25.0, before)
    results, plan, _ = searched(lead)
    assert len(lead.plans) == 3 and not is_canary(plan)
    assert results["interrupted"] and exit_code_of(results) is ExitCode.INTERRUPTED
    assert results["find_max"]["rate"] == results["asked_rate"] == 20.0
    assert results["find_max"]["why"] == "the search was not finished"


def test_a_worker_that_died_ends_the_search_and_no_threshold_is_passed() -> None:
    lead = Lead(1_000.0, lambda lead, plan: ["worker 1 ended by signal 9"] if len(lead.plans) == 2 else [])
    results, _, _ = searched(lead)
    assert len(lead.plans) == 2 and results["find_max"]["rate"] == 20.0
    assert results["verdict"] == "INVALID" and exit_code_of(results) is ExitCode.THRESHOLD
    assert results["find_max"]["why"] == "a worker failed: worker 1 ended by signal 9"
